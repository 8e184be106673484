"""The CNI plugin in lists with the reference plugins, which are the real ones: behind others, and before others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.conformance.libcni import BEHIND, MAPPED, OURS, PLUGINS, ROUTES, Document, Refused, Runtime
from vethwork.testing.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conformance.home import Home


@pytest.fixture
def runtime(tmp_path: Path, home: Home) -> Iterator[Runtime]:
    home.need(f"{PLUGINS}/bridge")
    with Lab() as lab:
        yield Runtime(lab, home, tmp_path)


def assert_nothing_left(runtime: Runtime) -> None:
    """Nothing of ours is on record, and no element in the ruleset."""
    assert runtime.vethwork("ps") == runtime.vethwork("network", "ls") == []
    listed = json.loads(runtime.host.run(["nft", "-j", "list", "ruleset"]).stdout)["nftables"]
    sets = [each.get("set") or each.get("map") or {} for each in listed]
    assert [each["name"] for each in sets if each.get("table") == "vethwork" and each.get("elem")] == []


# Behind another -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "version"), [("bridge", "0.3.1"), ("bridge", "1.0.0"), ("ptp", "0.4.0")])
def test_ports_lead_to_what_another_plugin_has_made(runtime: Runtime, kind: str, version: str) -> None:
    pod, plugins = runtime.container("pod"), [runtime.maker(kind), BEHIND]
    before, after = runtime.add(pod, plugins, MAPPED, version)
    assert after == before | {"cniVersion": version}
    for address in (runtime.host.v4, runtime.host.v6):
        assert runtime.lab.neighbour.connect(address, 8080).name == "pod"
        assert runtime.host.connect(address, 8080).name == "pod"
    assert runtime.lab.neighbour.connect(runtime.host.v4, 8080).peer == runtime.lab.neighbour.v4
    (shown,) = runtime.vethwork("ps")
    assert (shown["owner"], len(shown["ports"])) == ("cni", 1)
    assert shown["endpoints"][0]["addresses"] == [each["address"] for each in before["ips"]]
    runtime.delete(pod, plugins, version)
    assert not runtime.serves(runtime.lab.neighbour)
    assert_nothing_left(runtime)
    runtime.delete(pod, plugins, version, netns="")


@pytest.mark.parametrize("kind", ["bridge", "ptp"])
def test_containers_reach_ports_that_lead_back(runtime: Runtime, kind: str) -> None:
    """Each other's, their own, and one of another network's; beside networks of ours that do not let them in."""
    plugins = [runtime.maker(kind), BEHIND]
    ours = runtime.container("ours")
    # Forwarding was off until now, and is ours: what comes from elsewhere does not pass.
    runtime.host.vethwork("attach", "ours", "--netns", ours.path, "-p", "8081:80")
    one, two = runtime.container("one"), runtime.container("two")
    runtime.add(one, plugins, MAPPED)
    runtime.add(two, plugins)
    for machine in (one, two, ours, runtime.lab.neighbour):
        assert machine.connect(runtime.host.v4, 8080).name == "one"
        assert machine.connect(runtime.host.v4, 8081).name == "ours"
    assert one.ping(runtime.lab.internet.v4)
    assert two.ping(runtime.lab.internet.v4)
    (mine,) = [each for each in runtime.vethwork("ps") if each["name"] == "ours"]
    inner = mine["endpoints"][0]["addresses"][0].partition("/")[0]
    assert not two.reaches(inner, 80, timeout=0.3)
    runtime.delete(two, plugins)
    assert one.connect(runtime.host.v4, 8080).name == "one"
    assert one.ping(runtime.lab.internet.v4)
    runtime.delete(one, plugins)
    assert [each["name"] for each in runtime.vethwork("ps")] == ["ours"]


def test_check_and_restore(runtime: Runtime) -> None:
    pod, plugins = runtime.container("pod"), [runtime.maker("bridge"), BEHIND]
    runtime.add(pod, plugins, MAPPED)
    runtime.check(pod, plugins, MAPPED)
    runtime.host.run(["nft", "delete", "table", "inet", "vethwork"])
    with pytest.raises(Refused, match="the ruleset is gone"):
        runtime.check(pod, plugins[1:], MAPPED)
    runtime.host.vethwork("restore")
    runtime.check(pod, plugins, MAPPED)
    assert runtime.serves(runtime.lab.neighbour)
    assert runtime.host.vethwork("gc").stdout == "nothing to remove\n"
    pod.run(["ip", "addr", "flush", "dev", "eth0"])
    with pytest.raises(Refused, match="has not the address") as refused:
        runtime.check(pod, plugins[1:], MAPPED)
    assert refused.value.code == 100


def test_what_is_not_listed_is_collected(runtime: Runtime) -> None:
    """GC, by the name that the configuration has."""
    plugins = [runtime.maker("ptp"), BEHIND]
    kept, lost = runtime.container("kept"), runtime.container("lost")
    runtime.add(kept, plugins, MAPPED)
    runtime.add(lost, plugins, {"portMappings": [{"hostPort": 8081, "containerPort": 80}]})
    listed = {"cni.dev/valid-attachments": [{"containerID": "kept", "ifname": "eth0"}]}
    runtime.call("GC", BEHIND, kept, runtime.common(BEHIND, None, "1.1.0") | listed)
    runtime.call("STATUS", BEHIND, kept, runtime.common(BEHIND, None, "1.1.0"))
    assert [each["name"] for each in runtime.vethwork("ps")] == ["kept"]
    assert runtime.serves(runtime.lab.neighbour)
    assert not runtime.serves(runtime.lab.neighbour, 8081)
    with pytest.raises(Refused) as refused:
        runtime.call(
            "CHECK", BEHIND, lost, runtime.common(BEHIND, None) | {"prevResult": runtime.results["lost"]}
        )
    assert refused.value.code == 3


def test_sysctls_of_an_interface_that_another_plugin_has_made(runtime: Runtime) -> None:
    pod = runtime.container("pod")
    asked = {"sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.core.somaxconn": "512"}}
    plugins = [runtime.maker("bridge"), BEHIND | asked]
    runtime.add(pod, plugins)
    assert (pod.sysctl("ipv4/conf/eth0/arp_filter"), pod.sysctl("core/somaxconn")) == ("1", "512")


REFUSED: list[tuple[int, Document, Document, str]] = [
    (2, {"capabilities": {"bandwidth": True}},
     {"bandwidth": {"ingressRate": 10**6, "ingressBurst": 10**6}}, "reference plugin bandwidth"),
    (7, {"ipam": {"subnet": "10.8.0.0/24"}}, {}, "ipam"),
    (7, {"bridge": "cni8"}, {}, "bridge"),
    (7, {"isGateway": False}, {}, "isGateway"),
    (2, {"ingressPolicy": "same-bridge"}, {}, "ingressPolicy"),
    (2, {}, {"ipRanges": [[{"subnet": "10.8.0.0/24"}]]}, "ipRanges"),
    (7, {}, {"ips": ["10.7.0.99"]}, "10.7.0.99"),
    (7, {}, {"mac": "02:00:00:00:00:99"}, "02:00:00:00:00:99"),
    (7, {}, {"portMappings": [{"hostPort": 8080, "containerPort": 80, "hostIP": "127.0.0.1"}]}, "127.0.0.0/8"),
    (7, {}, {"portMappings": [{"hostPort": 0, "containerPort": 80}]}, "hostPort"),
    (100, {"sysctl": {"net.ipv4.there_is_none": "1"}}, {}, "there_is_none"),
]  # fmt: skip


def test_what_cannot_be_had_is_refused(runtime: Runtime) -> None:
    pod = runtime.container("pod")
    (before,) = runtime.add(pod, [runtime.maker("bridge")])
    for code, keys, asked, word in REFUSED:
        with pytest.raises(Refused, match=word) as refused:
            runtime.call("ADD", BEHIND | keys, pod, runtime.common(BEHIND, asked) | {"prevResult": before})
        assert refused.value.code == code, refused.value
        assert_nothing_left(runtime)


def test_a_macvlan_takes_no_ports(runtime: Runtime) -> None:
    pod, plugins = runtime.container("pod"), [runtime.maker("macvlan"), BEHIND]
    with pytest.raises(Refused, match="no port can lead to eth0"):
        runtime.add(pod, plugins, MAPPED)
    runtime.delete(pod, plugins)
    before, after = runtime.add(pod, plugins)
    assert before == after
    runtime.check(pod, plugins)
    assert_nothing_left(runtime)
    runtime.delete(pod, plugins)


def test_a_port_that_is_held(runtime: Runtime) -> None:
    plugins = [runtime.maker("bridge"), BEHIND]
    first, second = runtime.container("first"), runtime.container("second")
    runtime.add(first, plugins, MAPPED)
    with pytest.raises(Refused, match="held by container first") as refused:
        runtime.add(second, plugins, MAPPED)
    assert refused.value.code == 11
    assert runtime.lab.neighbour.connect(runtime.host.v4, 8080).name == "first"


def test_behind_loopback_it_makes_the_interface(runtime: Runtime) -> None:
    pod = runtime.container("pod")
    ours = {
        "type": OURS,
        "isGateway": True,
        "ipMasq": True,
        "ipam": {"subnet": "10.9.0.0/24", "routes": ROUTES[:1]},
    }
    plugins: list[Document] = [{"type": "loopback"}, ours]
    before, after = runtime.add(pod, plugins, MAPPED)
    (address,) = [each for each in after["ips"] if each not in before["ips"]]
    assert address["address"] == "10.9.0.2/24"
    assert after["interfaces"][address["interface"]]["name"] == "eth0"
    assert after["interfaces"][: len(before["interfaces"])] == before["interfaces"]
    assert runtime.serves(runtime.lab.neighbour)
    runtime.check(pod, plugins, MAPPED)
    runtime.delete(pod, plugins)
    assert runtime.vethwork("ps") == []


# Before others --------------------------------------------------------------------------------------------------------------


def test_reference_plugins_work_on_our_result(runtime: Runtime) -> None:
    pod = runtime.container("pod")
    ours = {
        "type": OURS,
        "isGateway": True,
        "ipMasq": True,
        "ipam": {"subnet": "10.9.0.0/24", "routes": ROUTES[:1]},
    }
    tuning = {"type": "tuning", "sysctl": {"net.core.somaxconn": "512"}, "allmulti": True}
    bandwidth = {"type": "bandwidth", "ingressRate": 10**9, "ingressBurst": 10**9}
    plugins: list[Document] = [ours, tuning, {"type": "sbr"}, bandwidth]
    runtime.add(pod, plugins, MAPPED)
    runtime.check(pod, plugins, MAPPED)
    assert pod.sysctl("core/somaxconn") == "512"
    assert "10.9.0.2" in pod.run(["ip", "rule"]).stdout
    outer = runtime.vethwork("ps")[0]["endpoints"][0]["host_interface"]
    listed = json.loads(runtime.host.run(["tc", "-j", "qdisc", "show", "dev", outer]).stdout)
    assert {each["kind"] for each in listed} & {"tbf", "htb"}
    assert runtime.lab.neighbour.connect(runtime.host.v4, 8080).name == "pod"
    assert pod.run(["ping", "-c1", "-W2", "-I", "10.9.0.2", runtime.lab.internet.v4]).returncode == 0
    runtime.delete(pod, plugins)
    assert runtime.vethwork("ps") == []
