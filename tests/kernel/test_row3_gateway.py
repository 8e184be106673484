"""Row 3: the bridge as gateway; containers reach every address of the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel.stage import Stage, address, ip, links, pings

if TYPE_CHECKING:
    from vethwork.testing.machine import Machine

SWITCHES = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}


@pytest.fixture(scope="module")
def town(scene: Stage) -> Machine:
    """A container on one of two networks, and a host that serves."""
    assert scene.command("network", "create", "blue", "--ipv6").status == 0
    scene.network("green")
    scene.host.serve_http(9000)
    scene.host.serve_udp_echo(9000)
    machine = scene.lab.container("one")
    assert scene.command("attach", "one", "--netns", machine.path, "--net", "blue").status == 0
    scene.attach("other", "--net", "green")
    return machine


def test_the_bridge_gets_an_address_and_containers_a_route_by_it(
    scene: Stage, town: Machine, version: int
) -> None:
    gateway = scene.gateway("blue", version)
    (shown,) = ip(scene.host, "addr", "show", scene.device("blue"))
    assert gateway in [each["local"] for each in shown["addr_info"]]
    (route,) = ip(town, f"-{version}", "route", "show", "default")
    assert (route["gateway"], route["dev"]) == (gateway, "eth0")
    inside = [each["local"] for each in ip(town, "addr", "show", "eth0")[0]["addr_info"]]
    assert address(town, version) in inside
    host_end = links(scene.host)[scene.view("inspect", "one")["endpoints"][0]["host_interface"]]
    assert host_end["master"] == scene.device("blue")


def test_forwarding_is_on(scene: Stage, town: Machine, version: int) -> None:
    assert scene.host.sysctl(SWITCHES[version]) == "1"


def test_containers_reach_every_address_of_the_host(scene: Stage, town: Machine, version: int) -> None:
    """The wires', its own bridge's and the other network's; by ping, HTTP and UDP."""
    everyone = [str(each) for each in scene.host.addresses if each.version == version]
    known = [address(scene.host, version), scene.gateway("blue", version), scene.gateway("green", version)]
    assert len(everyone) == 4
    assert set(known) < set(everyone)
    for target in everyone:
        assert pings(town, target)
        for protocol in ("tcp", "udp"):
            seen = town.connect(target, 9000, protocol)
            assert (seen.name, seen.peer, seen.local) == ("host", address(town, version), target)


def test_the_host_reaches_containers(scene: Stage, town: Machine, version: int) -> None:
    assert pings(scene.host, address(town, version))


def test_a_chosen_subnet_gateway_range_and_mtu(stage: Stage) -> None:
    made = stage.view(
        *("network", "create", "chosen", "--subnet", "10.9.0.0/24", "--subnet", "fd09::/64", "--mtu", "1400"),
        *(
            "--gateway",
            "10.9.0.254",
            "--gateway",
            "fd09::fe",
            "--ip-range",
            "10.9.0.128/28",
            "--label",
            "a=b",
        ),
    )
    assert made["labels"] == {"a": "b"}
    machine = stage.attach("one", "--net", "chosen")
    assert machine.v4 == "10.9.0.128"
    assert [ip(machine, f"-{v}", "route", "show", "default")[0]["gateway"] for v in "46"] == [
        "10.9.0.254",
        "fd09::fe",
    ]
    assert links(machine)["eth0"]["mtu"] == links(stage.host)[made["device"]]["mtu"] == 1400
    other = stage.attach("two", "--net", "chosen", "--ip", "10.9.0.7", "--ip6", "fd09::7")
    assert (other.v4, other.v6) == ("10.9.0.7", "fd09::7")
    assert pings(other, machine.v4)
    assert pings(other, "fd09::fe")


def test_many_containers_and_each_reaches_each(stage: Stage, version: int) -> None:
    stage.network("blue")
    machines = [stage.settle(f"c{n}", "--net", "blue") for n in range(4)]
    for asker in machines:
        for asked in machines:
            assert asker.connect(address(asked, version), 80).peer == address(asker, version)


def test_the_network_goes_and_nothing_is_left(stage: Stage) -> None:
    before = links(stage.host)
    stage.network("blue")
    machine = stage.attach("one", "--net", "blue")
    said = stage.refused("network", "rm", "blue")
    assert said.status == 4
    assert "one still on it" in said.err
    stage.do("detach", "one")
    assert set(links(machine)) == {"lo"}
    stage.do("network", "rm", "blue")
    assert links(stage.host) == before
    assert stage.elements("bridges") == []


def test_a_mac_address_has_one_holder_on_a_network(stage: Stage) -> None:
    """The holder is named; elsewhere it is free, and so it is when its holder has gone."""
    mac, blue = "02:00:00:00:00:07", ("--net", "blue")
    stage.network("blue")
    stage.network("red")
    one = stage.attach("one", *blue, "--mac-address", mac)
    assert links(one)["eth0"]["address"] == mac
    other = stage.bare("other")
    asked = ("attach", "other", "--netns", other.path, *blue, "--mac-address")
    assert f"MAC address {mac}: is held by container one" in stage.refused(*asked, mac).err
    gateway = str(stage.host.mac(stage.device("blue")))
    assert f"{gateway}: is held by the bridge of network blue" in stage.refused(*asked, gateway).err
    assert list(links(other)) == ["lo"]
    stage.attach("elsewhere", "--net", "red", "--mac-address", mac)
    stage.do("detach", "one")
    stage.do(*asked, mac)
    assert pings(other, stage.gateway("blue", 4))


def test_two_ipv6_addresses_that_end_alike_get_two_mac_addresses(stage: Stage) -> None:
    stage.do("network", "create", "six", "--subnet", "fd00:6::/64")
    found = [stage.attach(f"c{n}", "--net", "six", "--ip6", f"fd00:6::{n}:0:7") for n in (1, 2)]
    assert len({str(each.mac()) for each in found}) == 2
    assert pings(found[0], "fd00:6::2:0:7")
