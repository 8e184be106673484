"""The CNI plugin against the kernel: every verb in every version, judged by ``ip``, ``nft`` and what servers saw."""

from __future__ import annotations

import io
import json
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.heard import Heard
from vethwork.frontends.cni.main import run
from vethwork.frontends.cni.protocol import VERSIONS
from vethwork.testing.lab import Lab
from vethwork.testing.machine import SOURCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vethwork.testing.machine import Machine

LAUNCHER = f"import sys; sys.path.insert(0, {SOURCE!r}); from vethwork.launch import cni; cni()"
SUBNET4, SUBNET6 = "10.7.0.0/24", "fd07::/64"


def conf(
    version: str = "1.1.0", *, name: str = "blue", subnets: tuple[str, ...] = (SUBNET4,), **more: Any
) -> dict[str, Any]:
    """A configuration in place of bridge, host-local, portmap and firewall."""
    routes = [{"dst": "::/0" if ":" in subnet else "0.0.0.0/0"} for subnet in subnets]
    ipam = {"type": "internal", "ranges": [[{"subnet": subnet}] for subnet in subnets], "routes": routes}
    said = {
        "cniVersion": version,
        "name": name,
        "type": "vethwork-cni",
        "isGateway": True,
        "ipMasq": True,
        "ipam": ipam,
    }
    return said | more


def mapped(host_port: int, container_port: int = 80, **more: Any) -> dict[str, Any]:
    """A runtimeConfig with one port, capitalised as containerd sends it."""
    return {
        "portMappings": [
            {"HostPort": host_port, "ContainerPort": container_port, "Protocol": "tcp", "HostIP": ""} | more
        ]
    }


class Runtime:
    """Calls the plugin on the host of a lab, as a runtime would."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.host = lab.host

    def calling(
        self,
        command: str,
        document: dict[str, Any],
        container: str = "pod",
        ifname: str = "eth0",
        **environ: str,
    ) -> Callable[[], Heard]:
        """One call, to be made in a process on the host."""
        said = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_IFNAME": ifname,
            "CNI_NETNS": "",
        } | environ
        data = json.dumps(document).encode()

        def call() -> Heard:
            out, err = io.StringIO(), io.StringIO()
            return Heard(run(said, io.BytesIO(data), out, err), out.getvalue(), err.getvalue())

        return call

    def call(
        self,
        command: str,
        document: dict[str, Any],
        container: str = "pod",
        ifname: str = "eth0",
        **environ: str,
    ) -> Heard:
        """One call to its end."""
        return self.host.call(self.calling(command, document, container, ifname, **environ))

    def good(
        self,
        command: str,
        document: dict[str, Any],
        container: str = "pod",
        ifname: str = "eth0",
        **environ: str,
    ) -> Any:
        """One call that must succeed; gives its document, or None."""
        heard = self.call(command, document, container, ifname, **environ)
        assert heard.status == 0, heard
        assert heard.err == ""
        return heard.document if heard.out else None

    def refused(self, code: int, command: str, document: dict[str, Any], **more: str) -> str:
        """One call that must be refused with an error of the specification; gives its message."""
        heard = self.call(command, document, **more)
        assert heard.status == 1, heard
        assert heard.document["code"] == code, heard
        return f"{heard.document['msg']} ({heard.document.get('details', '')})"

    def traces(self) -> Any:
        """Everything of ours on the host: links, elements of the ruleset, and what is on record."""
        links = [link["ifname"] for link in json.loads(self.host.run(["ip", "-j", "link"]).stdout)]
        tables = self.host.run(["nft", "list", "tables"]).stdout
        elements = []
        for table in tables.splitlines():
            listed = json.loads(self.host.run(["nft", "-j", "list", *table.split()]).stdout)["nftables"]
            elements += [
                (each["set" if "set" in each else "map"]["name"], each)
                for each in listed
                if ("set" in each or "map" in each) and each["set" if "set" in each else "map"].get("elem")
            ]
        return sorted(links), [name for name, _ in elements], self.host.vethwork("ps", "--json").stdout


@pytest.fixture
def lab(tool: Callable[[str], str]) -> Iterator[Lab]:
    for name in ("ip", "nft"):
        tool(name)
    with Lab() as made:
        yield made


@pytest.fixture
def runtime(lab: Lab) -> Runtime:
    return Runtime(lab)


def ip(machine: Machine, *arguments: str) -> Any:
    """What iproute2 says."""
    return json.loads(machine.run(["ip", "-j", *arguments]).stdout or "[]")


def addresses(machine: Machine, ifname: str = "eth0") -> list[str]:
    """The addresses of an interface, by iproute2."""
    found = ip(machine, "addr", "show", ifname)[0]["addr_info"]
    return [f"{each['local']}/{each['prefixlen']}" for each in found if each["scope"] == "global"]


def result_addresses(result: dict[str, Any]) -> list[str]:
    """The addresses of a result of any version."""
    if "ips" in result:
        return [each["address"] for each in result["ips"]]
    return [result[key]["ip"] for key in ("ip4", "ip6") if key in result]


# Every version -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_a_life_in_every_version(runtime: Runtime, version: str) -> None:
    pod = runtime.lab.container("pod")
    pod.serve_http(80)
    said = conf(version, subnets=(SUBNET4, SUBNET6), runtimeConfig=mapped(8080))
    result = runtime.good("ADD", said, CNI_NETNS=pod.path)
    assert result["cniVersion"] == version
    assert result_addresses(result) == ["10.7.0.2/24", "fd07::2/64"] == addresses(pod)
    assert {route.get("gateway") for route in ip(pod, "route", "show", "default")} == {"10.7.0.1"}
    for host in (runtime.host.v4, f"[{runtime.host.v6}]"):
        assert runtime.lab.neighbour.fetch(f"http://{host}:8080/").status == 200
    assert pod.ping(runtime.lab.internet.v4)
    assert pod.ping(runtime.lab.internet.v6)
    if version >= "0.4.0":
        assert runtime.good("CHECK", said | {"prevResult": result}, CNI_NETNS=pod.path) is None
    previous = {"prevResult": result} if version >= "0.4.0" else {}
    assert runtime.good("DEL", said | previous, CNI_NETNS=pod.path) is None
    assert [link["ifname"] for link in ip(pod, "link")] == ["lo"]
    assert not runtime.lab.neighbour.reaches(runtime.host.v4, 8080)


def test_the_shapes_of_results(runtime: Runtime) -> None:
    shapes = {}
    for number, version in enumerate(VERSIONS):
        pod = runtime.lab.container(f"pod{number}")
        shapes[version] = runtime.good("ADD", conf(version), f"pod{number}", CNI_NETNS=pod.path)
    for version in ("0.1.0", "0.2.0"):
        assert set(shapes[version]) == {"cniVersion", "ip4", "dns"}
        assert set(shapes[version]["ip4"]) == {"ip", "gateway", "routes"}
    for version in ("0.3.0", "0.3.1", "0.4.0"):
        assert [each["version"] for each in shapes[version]["ips"]] == ["4"]
    for version in ("1.0.0", "1.1.0"):
        assert ["version" in each for each in shapes[version]["ips"]] == [False]
    assert [each["mtu"] for each in shapes["1.1.0"]["interfaces"]] == [1500] * 3
    for version in VERSIONS[2:]:
        bridge, outer, inner = shapes[version]["interfaces"]
        assert shapes[version]["ips"][0]["interface"] == 2
        assert inner["sandbox"].endswith(f"pod{VERSIONS.index(version)}")
        for end in (bridge, outer):
            assert ip(runtime.host, "link", "show", end["name"])[0]["address"] == end["mac"]
        assert ip(runtime.host, "link", "show", outer["name"])[0]["master"] == bridge["name"]
        assert ip(runtime.lab.at(inner["sandbox"]), "link", "show", "eth0")[0]["address"] == inner["mac"]


def test_name_servers_are_passed_on(runtime: Runtime) -> None:
    pod = runtime.lab.container("pod")
    dns = {"nameservers": ["10.7.0.1"], "domain": "example", "search": ["a"], "options": ["ndots:2"]}
    asked = {"dns": {"Servers": ["9.9.9.9"], "Searches": [], "Options": None}}
    result = runtime.good("ADD", conf(dns=dns, runtimeConfig=asked), CNI_NETNS=pod.path)
    assert result["dns"] == dns | {"nameservers": ["9.9.9.9"]}


# What may be asked for -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [
        {"runtimeConfig": {"ips": ["10.7.0.77/24"], "mac": "02:00:00:00:00:77"}},
        {"args": {"cni": {"ips": ["10.7.0.77"], "mac": "02:00:00:00:00:77"}}},
        {"CNI_ARGS": "IgnoreUnknown=1;IP=10.7.0.77;MAC=02:00:00:00:00:77;K8S_POD_NAME=x"},
    ],
    ids=["capability", "args", "CNI_ARGS"],
)
def test_an_address_and_a_mac_of_ones_own(runtime: Runtime, asked: dict[str, Any]) -> None:
    pod = runtime.lab.container("pod")
    environ = {key: value for key, value in asked.items() if key == "CNI_ARGS"}
    document = conf() | {key: value for key, value in asked.items() if key != "CNI_ARGS"}
    runtime.good("ADD", document, CNI_NETNS=pod.path, **environ)
    assert addresses(pod) == ["10.7.0.77/24"]
    assert str(pod.mac()) == "02:00:00:00:00:77"


def test_addresses_come_from_the_ranges(runtime: Runtime) -> None:
    said = conf()
    said["ipam"]["ranges"] = [
        [
            {"subnet": SUBNET4, "rangeStart": "10.7.0.50", "rangeEnd": "10.7.0.51", "gateway": "10.7.0.254"},
            {"subnet": SUBNET4, "rangeStart": "10.7.0.90", "rangeEnd": "10.7.0.90"},
        ]
    ]
    got = []
    for number in range(3):
        pod = runtime.lab.container(f"pod{number}")
        got += result_addresses(runtime.good("ADD", said, f"pod{number}", CNI_NETNS=pod.path))
    assert got == ["10.7.0.50/24", "10.7.0.51/24", "10.7.0.90/24"]
    late = runtime.lab.container("late")
    said_why = runtime.refused(11, "ADD", said, container="late", CNI_NETNS=late.path)
    assert "10.7.0.50-10.7.0.51, 10.7.0.90-10.7.0.90 is held" in said_why
    asked = said | {"runtimeConfig": {"ipRanges": [[{"subnet": SUBNET4, "rangeStart": "10.7.0.200"}]]}}
    assert result_addresses(runtime.good("ADD", asked, "late", CNI_NETNS=late.path)) == ["10.7.0.200/24"]


def test_a_second_interface_tells_of_the_routes_that_it_got(runtime: Runtime) -> None:
    """Where both want the default route, the first has it."""
    pod = runtime.lab.container("pod")
    for ifname, name, subnet in (("eth0", "blue", SUBNET4), ("net1", "red", "10.8.0.0/24")):
        document = conf(name=name, subnets=(subnet,))
        document["ipam"]["routes"].append({"dst": "192.0.2.0/25" if name == "red" else "192.0.2.128/25"})
        result = runtime.good("ADD", document, ifname=ifname, CNI_NETNS=pod.path)
        told = {(each["dst"].replace("0.0.0.0/0", "default"), each["gw"]) for each in result["routes"]}
        routes = [each for each in ip(pod, "route") if each["dev"] == ifname and "gateway" in each]
        assert told == {(each["dst"], each["gateway"]) for each in routes}
        assert ("default" in {dst for dst, _ in told}) == (name == "blue")


def test_routes_are_those_that_were_asked_for(runtime: Runtime) -> None:
    pod = runtime.lab.container("pod")
    said = conf()
    said["ipam"]["routes"] = [
        {"dst": "192.168.7.0/24"},
        {"dst": "192.168.8.0/24", "gw": "10.7.0.9", "priority": 7},
    ]
    result = runtime.good("ADD", said, CNI_NETNS=pod.path)
    routes = {(each["dst"], each.get("gateway"), each.get("metric")) for each in ip(pod, "route")}
    assert routes == {
        ("10.7.0.0/24", None, None),
        ("192.168.7.0/24", "10.7.0.1", None),
        ("192.168.8.0/24", "10.7.0.9", 7),
    }
    assert {(each["dst"], each["gw"]) for each in result["routes"]} == {
        ("192.168.7.0/24", "10.7.0.1"),
        ("192.168.8.0/24", "10.7.0.9"),
    }
    assert runtime.good("CHECK", said | {"prevResult": result}, CNI_NETNS=pod.path) is None


def test_a_bridge_and_an_mtu_of_ones_own(runtime: Runtime) -> None:
    pod = runtime.lab.container("pod")
    runtime.good("ADD", conf(bridge="cni7", mtu=1400), CNI_NETNS=pod.path)
    assert ip(runtime.host, "link", "show", "cni7")[0]["mtu"] == 1400
    assert ip(pod, "link", "show", "eth0")[0]["mtu"] == 1400


def test_sysctls_are_the_containers_own(runtime: Runtime) -> None:
    pod = runtime.lab.container("pod")
    asked = {
        "net.core.somaxconn": "512",
        "net.ipv4.conf.IFNAME.arp_filter": "1",
        "net/ipv4/conf/lo/arp_filter": "1",
    }
    runtime.good("ADD", conf(sysctl=asked), CNI_NETNS=pod.path)
    assert pod.sysctl("core/somaxconn") == "512"
    assert pod.sysctl("ipv4/conf/eth0/arp_filter") == pod.sysctl("ipv4/conf/lo/arp_filter") == "1"
    assert runtime.host.sysctl("core/somaxconn") != "512"


def test_without_a_gateway_there_is_none(runtime: Runtime) -> None:
    one, two = runtime.lab.container("one"), runtime.lab.container("two")
    said = conf(isGateway=False, ipMasq=False)
    said["ipam"]["routes"] = []
    for name, pod in (("one", one), ("two", two)):
        result = runtime.good("ADD", said, name, CNI_NETNS=pod.path)
        assert "gateway" not in result["ips"][0]
        assert result["routes"] == []
    assert one.ping("10.7.0.2")
    bridge = ip(runtime.host, "-4", "addr", "show", result["interfaces"][0]["name"])
    assert [each for each in bridge if each] == []


def test_a_range_of_ports_is_one_element(runtime: Runtime) -> None:
    pod = runtime.lab.container("pod")
    pod.serve_http(8003)
    ports = [{"HostPort": port, "ContainerPort": port, "Protocol": "tcp"} for port in range(8000, 8010)]
    runtime.good("ADD", conf(runtimeConfig={"portMappings": ports}), CNI_NETNS=pod.path)
    assert runtime.lab.neighbour.fetch(f"http://{runtime.host.v4}:8003/").status == 200
    assert not runtime.lab.neighbour.reaches(runtime.host.v4, 8010)
    assert "8000-8009" in runtime.host.run(["nft", "list", "map", "inet", "vethwork", "range4"]).stdout


def test_a_port_of_a_local_process_is_refused_unless_the_runtime_holds_it(runtime: Runtime) -> None:
    pod = runtime.lab.container("pod")
    pod.serve_http(80)
    runtime.host.serve_http(8080, bind="0.0.0.0")
    said = conf(runtimeConfig=mapped(8080))
    assert "8080" in runtime.refused(11, "ADD", said, CNI_NETNS=pod.path)
    runtime.good("ADD", said | {"portsReserved": True}, CNI_NETNS=pod.path)
    assert runtime.lab.neighbour.connect(runtime.host.v4, 8080).name == "pod"


# What is refused leaves nothing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "asked"),
    [
        (7, {"runtimeConfig": {"ips": ["10.8.0.5"]}}),
        (7, {"runtimeConfig": {"ips": ["10.7.0.255"]}}),
        (11, {"runtimeConfig": {"ips": ["10.7.0.1"]}}),
        (7, {"runtimeConfig": mapped(8080, HostIP="203.0.113.99")}),
        (
            7,
            {"runtimeConfig": mapped(8080), "isGateway": False, "ipMasq": False, "ipam": {"subnet": SUBNET4}},
        ),
        (7, {"mtu": 67}),
        (100, {"sysctl": {"net.ipv4.there_is_none": "1"}}),
        (100, {"sysctl": {"net.core.somaxconn": "many"}}),
        (7, {"mtu": 65536}),
        (7, {"mtu": -1}),
        (11, {"bridge": "eth0"}),
        (7, {"ipam": {"subnet": "10.7.0.0/32"}}),
        (11, {"ipam": {"subnet": "192.0.2.0/25"}}),
        (11, {"ipam": {"subnet": "127.0.0.0/8"}}),
        (7, {"name": "host"}),
        (7, {"isGateway": False, "ipMasq": False}),
    ],
    ids=str,
)
def test_what_is_refused_leaves_nothing(runtime: Runtime, code: int, asked: dict[str, Any]) -> None:
    pod = runtime.lab.container("pod")
    before = runtime.traces()
    runtime.refused(code, "ADD", conf() | asked, CNI_NETNS=pod.path)
    after = runtime.traces()
    assert after[0] == before[0]
    assert after[1] in (before[1], ["guarded"])  # that forwarding was turned on stays on record
    assert after[2] == before[2]
    assert [link["ifname"] for link in ip(pod, "link")] == ["lo"]
    assert json.loads(runtime.host.vethwork("network", "ls", "--json").stdout) == []


def test_an_interface_that_is_there_already(runtime: Runtime) -> None:
    pod = runtime.lab.container("pod")
    pod.run(["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other"])
    assert "eth0 already" in runtime.refused(100, "ADD", conf(), CNI_NETNS=pod.path)
    assert {link["ifname"] for link in ip(pod, "link")} == {"lo", "eth0", "other"}
    assert json.loads(runtime.host.vethwork("ps", "--json").stdout) == []


def test_added_twice_is_refused_and_stays(runtime: Runtime) -> None:
    pod = runtime.lab.container("pod")
    runtime.good("ADD", conf(), CNI_NETNS=pod.path)
    assert "eth0 already" in runtime.refused(11, "ADD", conf(), CNI_NETNS=pod.path)
    assert pod.ping("10.7.0.1")


def test_a_configuration_that_has_changed_is_told(runtime: Runtime) -> None:
    pod, other = runtime.lab.container("pod"), runtime.lab.container("other")
    runtime.good("ADD", conf(), CNI_NETNS=pod.path)
    changed = conf(subnets=("10.8.0.0/24",), mtu=1400)
    said = runtime.refused(11, "ADD", changed, container="other", CNI_NETNS=other.path)
    assert all(
        word in said for word in ("10.7.0.0/24, not 10.8.0.0/24", "mtu is 1500, not 1400", "network rm blue")
    )
    assert runtime.good("DEL", changed) is None
    runtime.host.vethwork("network", "rm", "blue")
    runtime.good("ADD", changed, "other", CNI_NETNS=other.path)


def test_a_container_of_the_command_line_is_not_touched(runtime: Runtime) -> None:
    pod = runtime.lab.container("pod")
    runtime.host.vethwork("attach", "pod", "--netns", pod.path)
    bridge = conf(name="bridge")
    assert "made by cli" in runtime.refused(
        11, "ADD", bridge | {"ipam": {}}, CNI_NETNS=pod.path, ifname="eth1"
    )
    for command in ("DEL", "GC"):
        assert runtime.good(command, bridge) is None
    assert len(addresses(pod)) == 1


# Seen from the command line ------------------------------------------------------------------------------------------------


def test_the_command_line_sees_the_pod(runtime: Runtime) -> None:
    pod = runtime.lab.container("pod")
    runtime.good("ADD", conf(runtimeConfig=mapped(8080)), CNI_NETNS=pod.path)
    shown = json.loads(runtime.host.vethwork("inspect", "pod", "--json").stdout)
    assert (shown["name"], shown["owner"], shown["netns"]) == ("pod", "cni", pod.path)
    assert [(each["network"], each["interface"]) for each in shown["endpoints"]] == [("blue", "eth0")]
    assert [each["host_port"] for each in shown["ports"]] == [8080]
    networks = json.loads(runtime.host.vethwork("network", "ls", "--json").stdout)
    assert [(each["name"], each["containers"]) for each in networks] == [("blue", {"pod": ["10.7.0.2/24"]})]


# Side by side --------------------------------------------------------------------------------------------------------------


def test_two_interfaces_of_one_pod_at_once(runtime: Runtime) -> None:
    for number in range(5):
        name = f"pod{number}"
        pod = runtime.lab.container(name)
        blue, red = conf(), conf(name="red", subnets=("10.8.0.0/24",), runtimeConfig=mapped(9000 + number))
        calls = [
            runtime.calling("ADD", blue, name, "eth0", CNI_NETNS=pod.path),
            runtime.calling("ADD", red, name, "eth1", CNI_NETNS=pod.path),
        ]
        heard = [child.result(30) for child in [runtime.host.start(call) for call in calls]]
        assert [each.status for each in heard] == [0, 0], heard
        assert addresses(pod, "eth0")[0].startswith("10.7.0.")
        assert addresses(pod, "eth1")[0].startswith("10.8.0.")
        assert len(ip(pod, "route", "show", "default")) == 1
        shown = json.loads(runtime.host.vethwork("inspect", name, "--json").stdout)
        assert [each["interface"] for each in shown["endpoints"]] == ["eth0", "eth1"]
        pod.serve_http(80)
        assert runtime.lab.neighbour.fetch(f"http://{runtime.host.v4}:{9000 + number}/").status == 200
        calls = [runtime.calling("DEL", blue, name, "eth0"), runtime.calling("DEL", red, name, "eth1")]
        heard = [child.result(30) for child in [runtime.host.start(call) for call in calls]]
        assert [each.status for each in heard] == [0, 0], heard
    assert json.loads(runtime.host.vethwork("ps", "--json").stdout) == []


def test_two_interfaces_on_one_network(runtime: Runtime) -> None:
    pod = runtime.lab.container("pod")
    first = runtime.good("ADD", conf(), ifname="eth0", CNI_NETNS=pod.path)
    second = runtime.good("ADD", conf(), ifname="net1", CNI_NETNS=pod.path)
    assert result_addresses(first) != result_addresses(second)
    runtime.good("DEL", conf(), ifname="eth0")
    assert [link["ifname"] for link in ip(pod, "link")] == ["lo", "net1"]
    runtime.good("CHECK", conf() | {"prevResult": second}, ifname="net1", CNI_NETNS=pod.path)
    runtime.refused(3, "CHECK", conf() | {"prevResult": first}, ifname="eth0", CNI_NETNS=pod.path)


def test_eight_pods_at_once_on_a_network_that_is_not_there_yet(runtime: Runtime) -> None:
    pods = {f"pod{number}": runtime.lab.container(f"pod{number}") for number in range(8)}
    said = {name: conf(runtimeConfig=mapped(8000 + number)) for number, name in enumerate(pods)}
    adding = [runtime.calling("ADD", said[name], name, CNI_NETNS=pod.path) for name, pod in pods.items()]
    heard = [child.result(60) for child in [runtime.host.start(call) for call in adding]]
    assert [each.status for each in heard] == [0] * 8, heard
    assert len({each.document["ips"][0]["address"] for each in heard}) == 8
    for number, pod in enumerate(pods.values()):
        pod.serve_http(80)
        assert runtime.lab.neighbour.connect(runtime.host.v4, 8000 + number).name == pod.name
    deleting = [runtime.calling("DEL", said[name], name) for name in pods]
    heard = [child.result(60) for child in [runtime.host.start(call) for call in deleting]]
    assert [each.status for each in heard] == [0] * 8, heard
    assert json.loads(runtime.host.vethwork("ps", "--json").stdout) == []


def test_a_bad_pod_does_not_take_the_network_from_under_a_good_one(runtime: Runtime) -> None:
    pods = {f"pod{number}": runtime.lab.container(f"pod{number}") for number in range(6)}
    bad = conf(runtimeConfig=mapped(8080, HostIP="203.0.113.99"))
    calls = [
        runtime.calling("ADD", bad if number % 2 else conf(), name, CNI_NETNS=pod.path)
        for number, (name, pod) in enumerate(pods.items())
    ]
    heard = [child.result(60) for child in [runtime.host.start(call) for call in calls]]
    assert [each.status for each in heard] == [0, 1] * 3, heard


# DEL -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["empty", "vanished", "alive", "twice", "config changed", "mismatched"])
def test_every_way_to_delete(runtime: Runtime, how: str) -> None:
    pod = runtime.lab.container("pod")
    pod.serve_http(80)
    said = conf(runtimeConfig=mapped(8080))
    runtime.good("ADD", said, CNI_NETNS=pod.path)
    netns = {"empty": "", "vanished": "/run/netns/gone", "mismatched": "/etc"}.get(how, pod.path)
    if how == "config changed":
        said = {"name": "blue", "cniVersion": "1.0.0", "ipam": {"subnet": 7}, "mtu": "x"}
    for _ in range(2 if how == "twice" else 1):
        assert runtime.good("DEL", said, CNI_NETNS=netns) is None
    assert [link["ifname"] for link in ip(pod, "link")] == ["lo"]
    assert json.loads(runtime.host.vethwork("ps", "--json").stdout) == []
    assert not runtime.lab.neighbour.reaches(runtime.host.v4, 8080)
    again = runtime.good("ADD", conf(), CNI_NETNS=pod.path)
    assert result_addresses(again) == ["10.7.0.3/24"]  # the last address rests


def test_a_pod_that_died_unheard_makes_room_for_its_successor(runtime: Runtime) -> None:
    pod = runtime.lab.container("pod")
    runtime.good("ADD", conf(runtimeConfig=mapped(8080)), CNI_NETNS=pod.path)
    pod.run(["ip", "link", "del", "eth0"])
    runtime.good("ADD", conf(runtimeConfig=mapped(8080)), CNI_NETNS=pod.path)
    assert pod.ping("10.7.0.1")


# CHECK -----------------------------------------------------------------------------------------------------------------------

BREAKAGES = {
    "address": ("pod", ["ip", "addr", "flush", "dev", "eth0"], "has not the address 10.7.0.2/24"),
    "interface": ("pod", ["ip", "link", "del", "eth0"], "eth0 is gone"),
    "down": ("pod", ["ip", "link", "set", "eth0", "down"], "eth0 is down"),
    "mac": ("pod", ["ip", "link", "set", "eth0", "address", "02:00:00:00:00:01"], "has MAC address 02:00:00:00:00:01"),
    "route": ("pod", ["ip", "route", "del", "default"], "no route to 0.0.0.0/0"),
    "port of the bridge": ("host", ["ip", "link", "set", "{outer}", "nomaster"], "is not in bridge cni7"),
    "bridge": ("host", ["ip", "link", "del", "cni7"], "bridge cni7 is gone"),
    "published port": ("host", ["nft", "flush", "map", "inet", "vethwork", "port4"], "has no element tcp . 8080"),
    "guard": ("host", ["nft", "flush", "set", "bridge", "vethwork", "macs"], "set bridge vethwork macs has no element"),
    "ruleset": ("host", ["nft", "flush", "ruleset"], "the ruleset is gone"),
}  # fmt: skip


@pytest.mark.parametrize("what", BREAKAGES)
def test_check_says_what_differs(runtime: Runtime, what: str) -> None:
    pod = runtime.lab.container("pod")
    said = conf(bridge="cni7", runtimeConfig=mapped(8080))
    result = runtime.good("ADD", said, CNI_NETNS=pod.path)
    said |= {"prevResult": result}
    assert runtime.good("CHECK", said, CNI_NETNS=pod.path) is None
    where, command, expected = BREAKAGES[what]
    machine = pod if where == "pod" else runtime.host
    machine.run([word.format(outer=result["interfaces"][1]["name"]) for word in command])
    assert expected in runtime.refused(100, "CHECK", said, CNI_NETNS=pod.path)
    assert runtime.good("DEL", said) is None


def test_check_compares_with_the_previous_result(runtime: Runtime) -> None:
    pod = runtime.lab.container("pod")
    result = runtime.good("ADD", conf(), CNI_NETNS=pod.path)
    result["ips"][0]["address"] = "10.7.0.99/24"
    said = conf(prevResult=result)
    assert "has not the address 10.7.0.99/24" in runtime.refused(100, "CHECK", said, CNI_NETNS=pod.path)


# GC and STATUS ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
def test_gc_takes_what_is_not_listed(runtime: Runtime, key: str) -> None:
    pods = {name: runtime.lab.container(name) for name in ("keep", "drop", "gone", "hand", "red")}
    for name in ("keep", "drop", "gone"):
        runtime.good("ADD", conf(), name, CNI_NETNS=pods[name].path)
    red = conf(name="red", subnets=("10.8.0.0/24",))
    runtime.good("ADD", red, "red", CNI_NETNS=pods["red"].path)
    runtime.good("ADD", conf(), "red", "eth1", CNI_NETNS=pods["red"].path)
    runtime.host.vethwork("attach", "hand", "--netns", pods["hand"].path, "--net", "blue")
    runtime.good("GC", conf() | {key: [{"containerID": "keep", "ifname": "eth0"}]}, CNI_NETNS="")
    left = {each["name"]: each for each in json.loads(runtime.host.vethwork("ps", "--json").stdout)}
    assert set(left) == {"keep", "hand", "red"}
    assert [each["network"] for each in left["red"]["endpoints"]] == ["red"]
    assert pods["keep"].ping("10.7.0.1")
    assert [link["ifname"] for link in ip(pods["drop"], "link")] == ["lo"]
    runtime.good("GC", conf() | {key: None})
    left = {each["name"]: each for each in json.loads(runtime.host.vethwork("ps", "--json").stdout)}
    assert set(left) == {"hand", "red"}


def test_status_says_whether_an_add_could_succeed(runtime: Runtime) -> None:
    assert runtime.good("STATUS", conf()) is None
    runtime.host.run(["mkdir", "-p", runtime.host.environment["VETHWORK_ROOT"]])
    runtime.host.run(["sh", "-c", "rm -rf $VETHWORK_ROOT && echo >$VETHWORK_ROOT"])
    runtime.refused(50, "STATUS", conf())
    runtime.host.run(["sh", "-c", "rm $VETHWORK_ROOT"])
    assert runtime.good("STATUS", conf()) is None


# As a process ----------------------------------------------------------------------------------------------------------------


def test_the_launcher_needs_no_site(runtime: Runtime) -> None:
    pod = runtime.lab.container("pod")
    environ = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "pod", "CNI_IFNAME": "eth0", "CNI_NETNS": pod.path}
    command = [sys.executable, "-I", "-S", "-c", LAUNCHER]
    done = runtime.host.run(command, env=environ, stdin=json.dumps(conf()))
    assert json.loads(done.stdout)["ips"][0]["address"] == "10.7.0.2/24"
    assert done.stderr == ""
    done = runtime.host.run(command, env=environ, stdin=json.dumps(conf()), check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == 11
    done = runtime.host.run(command, env={"CNI_COMMAND": ""})
    assert (done.stdout, done.stderr.split()[0:3]) == ("", ["CNI", "vethwork", "plugin"])


# Bandwidth -------------------------------------------------------------------------------------------------------------------

BITS, BURST = 8_000_000, 256_000  # a second's worth is 1 MB; 32 kB at once
PIECE = 500_000


def bandwidth(**more: int) -> dict[str, Any]:
    """A runtimeConfig as containerd sends it."""
    return {
        "runtimeConfig": {
            "bandwidth": {"IngressRate": 0, "IngressBurst": 0, "EgressRate": 0, "EgressBurst": 0} | more
        }
    }


def seconds_to_send(sender: Machine, receiver: Machine, address: str) -> float:
    """How long it takes to bring a piece over, as the receiver sees it."""
    with (
        receiver.inside(lambda: socket.create_server(("0.0.0.0", 7))) as server,
        sender.dial(address, 7) as dialog,
    ):
        taken, _ = server.accept()
        with taken:
            thread = threading.Thread(target=dialog.socket.sendall, args=(bytes(PIECE),))
            thread.start()
            before, left = time.monotonic(), PIECE
            while left:
                left -= len(taken.recv(left))
            thread.join()
            return time.monotonic() - before


@pytest.mark.parametrize("way", ["ingress", "egress"])
def test_bandwidth_is_limited(runtime: Runtime, tool: Callable[[str], str], way: str) -> None:
    pod = runtime.lab.container("pod")
    said = conf(**bandwidth(**{f"{way.title()}Rate": BITS, f"{way.title()}Burst": BURST}))
    result = runtime.good("ADD", said, CNI_NETNS=pod.path)
    shaped = [
        (each["dev"], each["options"]["rate"], each["options"]["burst"])
        for each in json.loads(runtime.host.run([tool("tc"), "-j", "qdisc"]).stdout)
        if each["kind"] == "tbf"
    ]
    outer = result["interfaces"][1]["name"]
    device = outer if way == "ingress" else f"vb{outer.removeprefix('vw')}"
    assert [(each[0], each[1]) for each in shaped] == [(device, BITS // 8)]
    assert shaped[0][2] == pytest.approx(BURST / 8, rel=0.01)
    out, back = (runtime.host, pod) if way == "ingress" else (pod, runtime.host)
    limited = seconds_to_send(out, back, "10.7.0.2" if way == "ingress" else "10.7.0.1")
    free = seconds_to_send(back, out, "10.7.0.1" if way == "ingress" else "10.7.0.2")
    assert limited > 0.8 * (PIECE - BURST / 8) / (BITS / 8)
    assert free < 0.2
    runtime.host.vethwork("gc")
    assert f"{device}" in str(ip(runtime.host, "link"))
    runtime.good("DEL", said)
    assert not [link for link in ip(runtime.host, "link") if link["ifname"].startswith(("vb", "vw0", outer))]


def test_bandwidth_of_a_burst_of_any_size(runtime: Runtime) -> None:
    """The kubelet's annotation has a rate and no burst: containerd asks for the largest there is."""
    pod = runtime.lab.container("pod")
    rates = {"IngressRate": 10**12, "IngressBurst": 2**32 - 1, "EgressRate": 10**7, "EgressBurst": 2**32 - 1}
    result = runtime.good("ADD", conf(**bandwidth(**rates)), CNI_NETNS=pod.path)
    assert pod.ping("10.7.0.1")
    assert pod.ping(runtime.lab.internet.v4)
    pod.run(["ip", "link", "del", "eth0"])  # the ifb stays behind until somebody says so
    assert runtime.good("DEL", conf() | {"prevResult": result}) is None
    assert not [link for link in ip(runtime.host, "link") if link["ifname"].startswith("vb")]


@pytest.mark.parametrize(
    "rates", [{"IngressRate": 1000}, {"EgressBurst": 1000}, {"IngressRate": -8, "IngressBurst": 10**6},
              {"EgressRate": 10**6, "EgressBurst": 8000}, {"IngressRate": 2**63, "IngressBurst": 10**6}],
)  # fmt: skip
def test_a_bandwidth_that_cannot_be_had(runtime: Runtime, rates: dict[str, int]) -> None:
    pod = runtime.lab.container("pod")
    runtime.refused(7, "ADD", conf(**bandwidth(**rates)), CNI_NETNS=pod.path)
    assert [link["ifname"] for link in ip(pod, "link")] == ["lo"]
