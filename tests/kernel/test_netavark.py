"""The netavark stand-in against the kernel: Podman's documents, judged by ``ip``, ``nft`` and what servers saw."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.heard import Heard
from tests.podman import CONTAINER, Document, call, container, info, joined, mapped, network_id, newest
from vethwork.engine.engine import Engine
from vethwork.frontends.netavark.main import run
from vethwork.model.steps import ROUTE_MARK
from vethwork.testing.lab import Lab
from vethwork.testing.machine import SOURCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from vethwork.model.network import Network, NetworkRequest
    from vethwork.testing.machine import Machine

OTHER = CONTAINER[::-1]
LAUNCHER = f"import sys; sys.path.insert(0, {SOURCE!r}); from vethwork.launch import netavark; netavark()"


class Podman:
    """Calls netavark on the host of a lab, as Podman does."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.host = lab.host
        self.config = f"{lab.directory}/networks"

    def call(
        self,
        command: str,
        path: str,
        document: Document,
        environ: Mapping[str, str] | None = None,
        aardvark: str = "",
    ) -> Heard:
        words = ("--config", self.config, "--rootless=false", f"--aardvark-binary={aardvark}", command, path)
        return self.host.call(lambda: call(*words, document=document, environ=environ))

    def setup(self, machine: Machine, document: Document, **environ: str) -> Any:
        """Give a container its networks; gives the answer."""
        heard = self.call("setup", machine.path, document, environ)
        assert (heard.status, heard.err) == (0, ""), heard
        assert (
            set(heard.document) == {each["name"] for each in document["networks"]}
            if isinstance(document["networks"], list)
            else set(document["networks"])
        )
        return heard.document

    def refused(self, machine: Machine, document: Document) -> str:
        """Be refused; gives the error."""
        heard = self.call("setup", machine.path, document)
        assert (heard.status, heard.err) == (1, "")
        assert list(heard.document) == ["error"]
        return str(heard.document["error"])

    def teardown(self, machine: Machine, document: Document) -> None:
        """Take them away."""
        assert self.call("teardown", machine.path, document) == Heard(0, "", "")

    def vethwork(self, *arguments: str) -> Any:
        """What the command line tells of it."""
        return json.loads(self.host.vethwork(*arguments, "--json").stdout)

    def elements(self) -> int:
        """How many elements the ruleset has."""
        listed = self.host.run(["nft", "-j", "list", "ruleset"])
        objects = json.loads(listed.stdout)["nftables"]
        return sum(
            len(each.get("elem", ())) for one in objects for each in one.values() if isinstance(each, dict)
        )


@pytest.fixture
def podman(lab: Lab, tool: Callable[[str], str]) -> Podman:
    for name in ("ip", "nft"):
        tool(name)
    return Podman(lab)


@pytest.fixture
def pod(podman: Podman) -> Machine:
    return podman.lab.container("pod")


def links(machine: Machine) -> dict[str, dict[str, Any]]:
    """The links of a machine but its loopback, as ``ip`` tells them."""
    listed = json.loads(machine.run(["ip", "-j", "-d", "addr", "show"]).stdout)
    return {each["ifname"]: each for each in listed if each.get("ifname") not in (None, "lo")}


def held(machine: Machine, ifname: str) -> list[str]:
    """The global addresses of an interface."""
    return [
        f"{each['local']}/{each['prefixlen']}"
        for each in links(machine)[ifname]["addr_info"]
        if each["scope"] == "global"
    ]


def routes(machine: Machine, version: int = 4) -> list[tuple[Any, ...]]:
    """The routes that somebody added: destination, gateway, metric, kind."""
    listed = json.loads(machine.run(["ip", "-j", f"-{version}", "route", "show"]).stdout)
    return sorted(
        (each["dst"], each.get("gateway"), each.get("metric", 0), each.get("type", "unicast"))
        for each in listed
        if each.get("protocol") in ("static", str(ROUTE_MARK))
    )


@pytest.mark.parametrize("newer", [False, True], ids=["4.3", "5.8"])
def test_one_container_on_one_network(podman: Podman, pod: Machine, newer: bool) -> None:
    described = info()
    if newer:
        described = newest(described)
    document = container(None, described, port_mappings=[mapped(8080)])
    answer = podman.setup(pod, document)
    mac = links(pod)["eth0"]["address"]
    assert answer == {
        "blue": {
            "dns_search_domains": [],
            "dns_server_ips": [],
            "interfaces": {
                "eth0": {
                    "mac_address": mac,
                    "subnets": [{"ipnet": "10.99.0.55/24", "gateway": "10.99.0.1"}],
                }
            },
        }
    }
    assert held(pod, "eth0") == ["10.99.0.55/24"]
    assert routes(pod) == [("default", "10.99.0.1", 100, "unicast")]
    assert held(podman.host, "pm-blue") == ["10.99.0.1/24"]
    pod.serve_http(80)
    assert podman.lab.neighbour.connect(podman.host.v4, 8080).peer == podman.lab.neighbour.v4
    assert podman.host.reaches("127.0.0.1", 8080)
    pod.serve_http(81)
    assert not podman.lab.neighbour.reaches(podman.host.v4, 81)
    (seen,) = podman.vethwork("ps")
    assert (seen["name"], seen["id"], seen["status"]) == ("web", CONTAINER, "attached")
    (network,) = podman.vethwork("network", "ls")
    assert (network["name"], network["id"]) == ("blue", network_id("blue")[:32])

    podman.teardown(pod, document)
    assert list(links(pod)) == []
    assert "pm-blue" not in links(podman.host)
    assert podman.vethwork("ps") == podman.vethwork("network", "ls") == []
    podman.teardown(pod, document)


def test_both_ip_versions_static_mac_and_all_kinds_of_ports(podman: Podman, pod: Machine) -> None:
    described = info("blue", "10.99.0.0/24", "fd99::/64")
    document = container(
        {"blue": joined("10.99.0.5", "fd99::5", static_mac="92:d0:c6:0a:29:33")},
        described,
        port_mappings=[
            mapped(8080, protocol="tcp,udp"),
            mapped(9000, 9000, range=3),
            mapped(9100, 9000, range=3, host_ip="127.0.0.1"),
        ],
    )
    (interface,) = podman.setup(pod, document)["blue"]["interfaces"].values()
    assert interface["mac_address"] == links(pod)["eth0"]["address"] == "92:d0:c6:0a:29:33"
    assert interface["subnets"] == [
        {"ipnet": "10.99.0.5/24", "gateway": "10.99.0.1"},
        {"ipnet": "fd99::5/64", "gateway": "fd99::1"},
    ]
    assert routes(pod, 6) == [("default", "fd99::1", 100, "unicast")]
    pod.serve_http(80)
    pod.serve_udp_echo(80)
    for port in (9000, 9002):
        pod.serve_http(port)
    neighbour = podman.lab.neighbour
    for address in (podman.host.v4, podman.host.v6):
        assert neighbour.reaches(address, 8080)
        assert neighbour.reaches(address, 8080, "udp")
        assert neighbour.reaches(address, 9002)
        assert not neighbour.reaches(address, 9100, timeout=0.3)
    assert podman.host.reaches("127.0.0.1", 9102)
    assert pod.ping(podman.lab.internet.v4)
    assert pod.ping(podman.lab.internet.v6)


def test_several_networks_connect_disconnect_and_the_ports_follow(podman: Podman, pod: Machine) -> None:
    blue, red = info(), info("red", "10.98.0.0/24")
    ports = [mapped(8080)]
    first = container({"blue": joined()}, blue, port_mappings=ports)
    more = container({"red": joined("10.98.0.7", ifname="eth1")}, red, port_mappings=ports)
    podman.setup(pod, first)
    pod.serve_http(80)
    podman.setup(pod, more)
    assert held(pod, "eth1") == ["10.98.0.7/24"]
    assert routes(pod) == [("default", "10.99.0.1", 100, "unicast")]
    assert podman.lab.neighbour.reaches(podman.host.v4, 8080)
    assert "already" in podman.refused(pod, more)

    podman.teardown(pod, first)
    assert list(links(pod)) == ["eth1"]
    assert routes(pod) == [("default", "10.98.0.1", 100, "unicast")]
    assert podman.lab.neighbour.reaches(podman.host.v4, 8080)
    assert [each["name"] for each in podman.vethwork("network", "ls")] == ["red"]
    podman.setup(pod, first)
    podman.teardown(pod, container({"blue": joined(), "red": joined("10.98.0.7", ifname="eth1")}, blue, red))
    assert podman.vethwork("ps") == []


def test_two_networks_at_once_in_the_order_of_the_interfaces(podman: Podman, pod: Machine) -> None:
    joins = {"blue": joined(ifname="eth1"), "red": joined("10.98.0.7", ifname="eth0")}
    document = container(joins, info(), info("red", "10.98.0.0/24"))
    podman.setup(pod, document)
    assert routes(pod) == [("default", "10.98.0.1", 100, "unicast")]
    assert pod.sysctl("ipv4/conf/eth1/rp_filter") == "2"


def test_reload_keeps_addresses_and_the_sockets_of_the_container(podman: Podman, pod: Machine) -> None:
    document = container({"blue": joined(static_mac="92:d0:c6:0a:29:33")}, port_mappings=[mapped(8080)])
    podman.setup(pod, document)
    pod.serve_http(80)
    bridge = links(podman.host)["pm-blue"]["address"]
    podman.host.run(["nft", "flush", "ruleset"])
    podman.teardown(pod, document)
    answer = podman.setup(pod, document)
    (interface,) = answer["blue"]["interfaces"].values()
    assert interface["mac_address"] == "92:d0:c6:0a:29:33"
    assert held(pod, "eth0") == ["10.99.0.55/24"]
    assert links(podman.host)["pm-blue"]["address"] == bridge
    assert podman.lab.neighbour.reaches(podman.host.v4, 8080)


def test_after_a_foreign_flush_everything_is_as_before(podman: Podman, pod: Machine) -> None:
    podman.setup(pod, container(port_mappings=[mapped(8080)]))
    pod.serve_http(80)
    before = podman.elements()
    podman.host.run(["nft", "flush", "ruleset"])
    assert podman.call("firewall-reload", "", {}).status == 2  # takes no operand
    reload = podman.host.call(lambda: call("--config", podman.config, "firewall-reload"))
    assert reload == Heard(0, "", "")
    assert podman.elements() == before
    podman.host.run(["nft", "flush", "ruleset"])
    other = podman.lab.container("other")
    document = container({"blue": joined("10.99.0.56")}, container_id=OTHER, name="other")
    podman.setup(other, document)
    assert podman.lab.neighbour.reaches(podman.host.v4, 8080)
    podman.host.run(["nft", "flush", "ruleset"])
    podman.teardown(other, document)
    podman.teardown(pod, container())
    assert podman.elements() <= 2  # the guards of forwarding


def test_an_internal_network_leads_nowhere(podman: Podman, pod: Machine) -> None:
    described = info("blue", internal=True)
    heard = podman.call("setup", pod.path, container(None, described, port_mappings=[mapped(8080)]))
    assert heard.status == 0
    assert "not published" in heard.err
    assert heard.document["blue"]["interfaces"]["eth0"]["subnets"][0]["gateway"] == "10.99.0.1"
    assert routes(pod) == []
    assert pod.ping("10.99.0.1")
    pod.add_route("default", "10.99.0.1")
    assert not pod.ping(podman.lab.internet.v4, timeout=0.3)
    other = podman.lab.container("other")
    bare = info("red", subnets=[{"subnet": "10.98.0.0/24"}], internal=True)
    answer = podman.setup(other, container({"red": joined("10.98.0.1")}, bare, container_id=OTHER, name="o"))
    assert answer["red"]["interfaces"]["eth0"]["subnets"] == [{"ipnet": "10.98.0.1/24"}]


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        (None, None, False),
        ("false", "false", True),
        ("false", "true", True),
        ("true", "true", False),
        ("false", "strict", False),
        ("false", None, False),
    ],
)
def test_which_networks_see_each_other(
    podman: Podman, pod: Machine, one: str | None, other: str | None, meet: bool
) -> None:
    far = podman.lab.container("far")
    described = [
        info(name, subnet, options={"isolate": isolate} if isolate else {})
        for name, subnet, isolate in (("blue", "10.99.0.0/24", one), ("red", "10.98.0.0/24", other))
    ]
    podman.setup(pod, container(None, described[0]))
    podman.setup(far, container({"red": joined("10.98.0.7")}, described[1], container_id=OTHER, name="far"))
    for _ in range(2):
        assert pod.ping("10.98.0.7", timeout=1 if meet else 0.3) == meet
        assert far.ping("10.99.0.55", timeout=1 if meet else 0.3) == meet
        podman.host.run(["nft", "flush", "ruleset"])
        podman.host.call(lambda: call("firewall-reload"))


def test_routes_metrics_and_sizes(podman: Podman, pod: Machine) -> None:
    blue = info(
        "blue",
        "10.99.0.0/24",
        "fd99::/64",
        options={"mtu": "1400", "metric": "50"},
        routes=[
            {"destination": "10.200.0.0/24", "gateway": "10.99.0.7", "metric": 60},
            {"destination": "fd77::/64", "gateway": "fd99::7"},
            {"destination": "10.201.0.0/16", "route_type": "blackhole"},
            {"destination": "10.202.0.0/16", "route_type": "prohibit", "metric": 7},
            {"destination": "fd78::/64", "route_type": "unreachable"},
        ],
    )
    red = info("red", "10.98.0.0/24", options={"no_default_route": "true"})
    options = {"host_interface_name": "mine0", "mtu": "1300"}
    joins = {
        "blue": joined("10.99.0.5", "fd99::5"),
        "red": joined("10.98.0.5", ifname="eth1", options=options),
    }
    document = container(joins, blue, red)
    podman.setup(pod, document)
    wanted = [
        ("10.200.0.0/24", "10.99.0.7", 60, "unicast"),
        ("10.201.0.0/16", None, 100, "blackhole"),
        ("10.202.0.0/16", None, 7, "prohibit"),
        ("default", "10.99.0.1", 50, "unicast"),
    ]
    assert routes(pod) == wanted
    assert routes(pod, 6) == [
        ("default", "fd99::1", 50, "unicast"),
        ("fd77::/64", "fd99::7", 100, "unicast"),
        ("fd78::/64", None, 100, "unreachable"),
    ]
    on_host = links(podman.host)
    assert (links(pod)["eth0"]["mtu"], on_host["pm-blue"]["mtu"]) == (1400, 1400)
    assert (links(pod)["eth1"]["mtu"], on_host["mine0"]["mtu"]) == (1300, 1300)
    podman.teardown(pod, document)
    assert routes(pod) == routes(pod, 6) == []
    podman.setup(pod, document)
    assert routes(pod) == wanted


def test_a_route_that_the_kernel_refuses_leaves_nothing(podman: Podman, pod: Machine) -> None:
    red = info("red", "10.98.0.0/24", routes=[{"destination": "10.5.0.0/16", "gateway": "10.5.0.1"}])
    document = container({"blue": joined(), "red": joined("10.98.0.5", ifname="eth1")}, info(), red)
    assert "10.5.0.0/16" in podman.refused(pod, document)
    assert list(links(pod)) == []
    assert not {"pm-blue", "pm-red"} & set(links(podman.host))
    assert podman.vethwork("ps") == podman.vethwork("network", "ls") == []


def test_a_fixed_address_for_what_leaves(podman: Podman, pod: Machine) -> None:
    podman.host.add_address("192.0.2.77/24")
    podman.setup(pod, container(None, info(options={"outbound_addr4": "192.0.2.77"})))
    server = podman.lab.internet.serve_http()
    assert pod.connect(podman.lab.internet.v4, server.port).peer == "192.0.2.77"


def test_a_bridge_of_somebody_else(podman: Podman, pod: Machine) -> None:
    described = info(network_interface="br-mine", options={"mode": "unmanaged"})
    document = container(None, described)
    assert "br-mine" in podman.refused(pod, document)
    podman.host.run(["ip", "link", "add", "br-mine", "mtu", "1450", "up", "type", "bridge"])
    podman.host.run(["ip", "addr", "add", "10.99.0.1/24", "dev", "br-mine"])
    podman.setup(pod, document)
    assert links(pod)["eth0"]["mtu"] == 1450
    assert pod.ping("10.99.0.1")
    podman.teardown(pod, document)
    assert held(podman.host, "br-mine") == ["10.99.0.1/24"]
    assert podman.vethwork("network", "ls") == []


def test_a_bridge_name_that_is_taken(podman: Podman, pod: Machine) -> None:
    podman.host.run(["ip", "link", "add", "pm-blue", "type", "bridge"])
    assert "pm-blue already" in podman.refused(pod, container())
    assert "pm-blue" in links(podman.host)


@pytest.mark.parametrize("mode", ["", "bridge", "private", "vepa", "passthru"])
def test_macvlan(podman: Podman, pod: Machine, mode: str, kernel_option: Callable[[str], None]) -> None:
    kernel_option("CONFIG_MACVLAN")
    described = info(
        driver="macvlan",
        network_interface="",
        subnets=[{"subnet": "192.0.2.0/24", "gateway": "192.0.2.1"}],
        options={"mode": mode} if mode else {},
    )
    document = container({"blue": joined("192.0.2.99")}, described, port_mappings=[mapped(8080)])
    heard = podman.call("setup", pod.path, document)
    assert heard.status == 0
    assert "not published" in heard.err
    (interface,) = heard.document["blue"]["interfaces"].values()
    link = links(pod)["eth0"]
    assert interface["mac_address"] == link["address"]
    assert link["linkinfo"]["info_data"]["mode"] == (mode or "bridge")
    assert routes(pod) == [("default", "192.0.2.1", 100, "unicast")]
    server = pod.serve_http(80)
    assert podman.lab.neighbour.connect("192.0.2.99", server.port).peer == podman.lab.neighbour.v4
    assert pod.ping(podman.lab.internet.v4)
    podman.teardown(pod, document)
    assert list(links(pod)) == []
    assert "eth0" in links(podman.host)


def test_two_macvlans_on_one_link_and_one_without_addresses(
    podman: Podman, pod: Machine, kernel_option: Callable[[str], None]
) -> None:
    kernel_option("CONFIG_MACVLAN")
    more: dict[str, Any] = {"driver": "macvlan", "network_interface": "eth0"}
    blue = info(subnets=[{"subnet": "192.0.2.0/24"}], **more)
    red = info("red", subnets=[], ipam_options={"driver": "none"}, **more)
    joins = {"blue": joined("192.0.2.99"), "red": {"interface_name": "eth1"}}
    answer = podman.setup(pod, container(joins, blue, red))
    assert answer["red"]["interfaces"]["eth1"]["subnets"] == []
    assert answer["red"]["interfaces"]["eth1"]["mac_address"] == links(pod)["eth1"]["address"]
    assert len(podman.vethwork("network", "ls")) == 2


def test_a_container_that_died_untold_holds_nothing(podman: Podman) -> None:
    ports = [mapped(8080)]
    gone = podman.lab.container("gone")
    podman.setup(gone, container(port_mappings=ports))
    other = container({"blue": joined()}, container_id=OTHER, name="other", port_mappings=ports)
    pod = podman.lab.container("pod")
    assert "held by container web" in podman.refused(pod, other)
    podman.host.run(["umount", "-l", gone.path])
    podman.setup(pod, other)
    assert [each["name"] for each in podman.vethwork("ps")] == ["other"]
    podman.teardown(pod, container())
    assert [each["name"] for each in podman.vethwork("ps")] == ["other"]


def test_a_container_started_again_elsewhere(podman: Podman, pod: Machine) -> None:
    document = container(port_mappings=[mapped(8080)])
    podman.setup(pod, document)
    again = podman.lab.container("again")
    podman.setup(again, document)
    assert list(links(pod)) == []
    assert held(again, "eth0") == ["10.99.0.55/24"]
    podman.host.run(["umount", "-l", again.path])
    podman.teardown(again, document)
    assert podman.vethwork("ps") == []


def test_a_network_that_goes_before_its_container_comes(podman: Podman, pod: Machine) -> None:
    """The service's reaper takes it away with the container before, a moment late."""
    late = [1, 2]

    class Late(Engine):
        def network_like(self, request: NetworkRequest) -> Network:
            made = super().network_like(request)
            if late:
                late.pop()
                self.remove_network(made.name)
            return made

    def setup() -> Heard:
        out, err = io.StringIO(), io.StringIO()
        words = ["--config", podman.config, "--rootless=false", "setup", pod.path]
        status = run(words, {}, io.BytesIO(json.dumps(container()).encode()), out, err, Late)
        return Heard(status, out.getvalue(), err.getvalue())

    heard = podman.host.call(setup)
    assert (heard.status, list(heard.document)) == (0, ["blue"]), heard
    assert held(pod, "eth0") == ["10.99.0.55/24"]


def test_a_network_that_was_made_anew_with_another_subnet(podman: Podman, pod: Machine) -> None:
    podman.setup(pod, container())
    other = podman.lab.container("other")
    changed = info("blue", "10.77.0.0/24")
    document = container({"blue": joined("10.77.0.5")}, changed, container_id=OTHER, name="other")
    assert "is not what is asked for" in podman.refused(other, document)
    podman.teardown(pod, container())
    podman.setup(other, document)
    assert held(podman.host, "pm-blue") == ["10.77.0.1/24"]


def test_names_that_others_have_are_not_confused(podman: Podman, pod: Machine) -> None:
    podman.host.vethwork("network", "create", "blue")
    podman.host.vethwork("run", "-d", "--name", "web", "--net", "blue", "--", "sleep", "1000")
    try:
        podman.setup(pod, container())
        names = {each["name"]: each for each in podman.vethwork("network", "ls")}
        assert set(names) == {"blue", "blue.podman"}
        assert {each["name"] for each in podman.vethwork("ps")} == {"web", f"web-{CONTAINER[:12]}"}
        podman.teardown(pod, container())
        assert [each["name"] for each in podman.vethwork("network", "ls")] == ["blue"]
    finally:
        podman.host.vethwork("rm", "-f", "web")
    reserved = podman.lab.container("reserved")
    document = container({"bridge": joined()}, info("bridge"), container_id=OTHER)
    podman.setup(reserved, document)
    assert "bridge.podman" in [each["name"] for each in podman.vethwork("network", "ls")]


def test_another_front_end_may_share_a_network(podman: Podman, pod: Machine) -> None:
    podman.setup(pod, container())
    podman.host.vethwork("run", "-d", "--name", "guest", "--net", "blue", "--", "sleep", "1000")
    guest = next(each for each in podman.vethwork("ps") if each["name"] == "guest")
    assert guest["endpoints"][0]["addresses"] == ["10.99.0.128/24"]
    podman.teardown(pod, container())
    assert "pm-blue" in links(podman.host)
    podman.host.vethwork("rm", "-f", "guest")
    assert "pm-blue" not in links(podman.host)


# The name server -----------------------------------------------------------------------------------------------------------

AARDVARK = """#!{python}
import os, sys
with open("{log}", "a") as log:
    print(*sys.argv[1:], file=log)
if "{fails}":
    sys.exit("no such luck")
with open(sys.argv[sys.argv.index("--config") + 1] + "/aardvark.pid", "w") as file:
    file.write("{pid}")
"""


def aardvark(podman: Podman, fails: str = "", pid: int = 0) -> str:
    """A program in place of aardvark-dns, which tells how it was started."""
    path = Path(podman.lab.directory, "aardvark-dns")
    path.write_text(AARDVARK.format(python=sys.executable, log=f"{path}.log", fails=fails, pid=pid))
    path.chmod(0o755)
    return str(path)


def zone(podman: Podman, name: str) -> list[str]:
    """The lines of a network's file."""
    return Path(podman.config, "aardvark-dns", name).read_text().splitlines()


def test_the_name_server_is_told(podman: Podman, pod: Machine) -> None:
    binary = aardvark(podman)
    blue = info("blue", "10.99.0.0/24", "fd99::/64", dns_enabled=True, network_dns_servers=["9.9.9.9"])
    inner = info("inner", "10.98.0.0/24", dns_enabled=True, internal=True)
    joins = {
        "blue": joined("10.99.0.5", "fd99::5", aliases=["alias", "a b", "2d5eee87b4f9"]),
        "inner": joined("10.98.0.5", ifname="eth1"),
    }
    document = container(joins, blue, inner, dns_servers=["8.8.8.8"])
    heard = podman.call("setup", pod.path, document, {"NETAVARK_DNS_PORT": "1053"}, binary)
    assert heard.status == 0
    assert "skipped" in heard.err
    assert heard.document["blue"]["dns_server_ips"] == ["10.99.0.1", "fd99::1"]
    assert heard.document["blue"]["dns_search_domains"] == ["dns.podman"]
    assert zone(podman, "blue") == [
        "10.99.0.1,fd99::1 9.9.9.9",
        f"{CONTAINER} 10.99.0.5 fd99::5 web,alias,2d5eee87b4f9 8.8.8.8",
    ]
    assert zone(podman, "inner%int") == ["10.98.0.1", f"{CONTAINER} 10.98.0.5  web 8.8.8.8"]
    started = Path(f"{binary}.log").read_text()
    assert started == f"--config {podman.config}/aardvark-dns -p 1053 run\n"
    server = podman.host.serve_udp_echo(1053)
    assert pod.reaches("10.99.0.1", 53, "udp")
    server.stop()
    words = ("--config", podman.config, "update", "blue", "--network-dns-servers", "1.1.1.1,8.8.4.4")
    assert podman.host.call(lambda: call(*words)) == Heard(0, "", "")
    assert zone(podman, "blue")[0] == "10.99.0.1,fd99::1 1.1.1.1,8.8.4.4"
    podman.teardown(pod, document)
    assert os.listdir(f"{podman.config}/aardvark-dns") == ["aardvark.pid"]


def test_a_name_server_that_runs_hears_a_signal(podman: Podman, pod: Machine, tmp_path: Path) -> None:
    fake = tmp_path / "aardvark-dns"
    fake.write_text(
        f"#!{sys.executable}\nimport signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})\n"
        "open('/proc/self/comm', 'w').write('aardvark-dns')\n"
        "print('ready', flush=True)\n"
        "while True: print(signal.sigwait({signal.SIGHUP}).name, flush=True)\n"
    )
    running = podman.host.popen([sys.executable, str(fake)], stdout=-1)
    assert running.stdout is not None
    assert running.stdout.readline() == "ready\n"
    binary = aardvark(podman, pid=running.pid)
    document = container(None, info(dns_enabled=True))
    assert podman.call("setup", pod.path, document, aardvark=binary).status == 0
    other = podman.lab.container("other")
    second = container(
        {"blue": joined("10.99.0.6")}, info(dns_enabled=True), container_id=OTHER, name="other"
    )
    assert podman.call("setup", other.path, second, aardvark=binary).status == 0
    assert running.stdout.readline() == "SIGHUP\n"
    assert len(Path(f"{binary}.log").read_text().splitlines()) == 1
    assert [line.split()[1] for line in zone(podman, "blue")[1:]] == ["10.99.0.55", "10.99.0.6"]
    podman.teardown(other, second)
    assert running.stdout.readline() == "SIGHUP\n"
    running.send_signal(signal.SIGKILL)
    running.wait()
    running.stdout.close()


def test_a_name_server_that_fails_undoes_the_setup(podman: Podman, pod: Machine) -> None:
    heard = podman.call(
        "setup", pod.path, container(None, info(dns_enabled=True)), aardvark=aardvark(podman, "x")
    )
    assert heard.document == {"error": "error while applying dns entries: no such luck"}
    assert list(links(pod)) == []
    assert podman.vethwork("ps") == podman.vethwork("network", "ls") == []


def test_without_a_name_server_the_hosts_own_are_kept(podman: Podman, pod: Machine) -> None:
    document = container(None, info(dns_enabled=True), dns_servers=["8.8.8.8"])
    answer = podman.setup(pod, document)
    assert answer["blue"]["dns_server_ips"] == ["8.8.8.8"]
    assert answer["blue"]["dns_search_domains"] == []


# The process -----------------------------------------------------------------------------------------------------------


def test_it_runs_alone_with_a_bare_interpreter(podman: Podman, pod: Machine) -> None:
    words = [sys.executable, "-I", "-S", "-c", LAUNCHER, "--config", podman.config]
    done = podman.host.run([*words, "setup", pod.path], stdin=json.dumps(container()))
    assert (done.returncode, done.stderr) == (0, "")
    assert set(json.loads(done.stdout)) == {"blue"}
    done = podman.host.run([*words, "teardown", pod.path], stdin=json.dumps(container()))
    assert (done.stdout, done.stderr) == ("", "")


def test_without_root_the_records_are_the_users(podman: Podman, pod: Machine) -> None:
    words = [sys.executable, "-I", "-S", "-c", f"import os; del os.environ['VETHWORK_ROOT']; {LAUNCHER}"]
    words += ["--config", podman.config, "--rootless=true"]
    podman.host.run([*words, "setup", pod.path], stdin=json.dumps(container()))
    assert Path(podman.config, "vethwork/root/state.db").exists()
    assert held(pod, "eth0") == ["10.99.0.55/24"]
    podman.host.run([*words, "teardown", pod.path], stdin=json.dumps(container()))
    assert "pm-blue" not in links(podman.host)


def test_many_at_once_without_podmans_lock(podman: Podman) -> None:
    pods = [podman.lab.container(f"pod{n}") for n in range(8)]
    words = [sys.executable, "-I", "-S", "-c", LAUNCHER, "--config", podman.config]

    def documents() -> Iterator[tuple[Machine, str]]:
        for n, each in enumerate(pods):
            identity = f"{n:064x}"[::-1]
            yield (
                each,
                json.dumps(
                    container({"blue": joined(f"10.99.0.{10 + n}")}, container_id=identity, name=f"c{n}")
                ),
            )

    for command in ("setup", "teardown", "setup"):
        running = []
        for machine, text in documents():
            process = podman.host.popen([*words, command, machine.path], stdin=-1, stdout=-1, stderr=-1)
            assert process.stdin is not None
            process.stdin.write(text)
            process.stdin.close()
            process.stdin = None
            running.append(process)
        for process in running:
            out, err = process.communicate(timeout=30)
            assert (process.returncode, err) == (0, ""), out
    assert len(podman.vethwork("ps")) == len(pods)
    assert pods[0].ping("10.99.0.17")
