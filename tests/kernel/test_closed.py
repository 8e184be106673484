"""Closed until opened: proved from the attacker's place, with packets.

Every refusal is shown together with something that does pass over the same path, so that a broken lab cannot look like a
closed door. Where a frame must not arrive, one that must is sent after it, and what came before that is looked at.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.kernel.town import bridge_of, gateway_of, make_network, settle, with_engine
from vethwork.model.names import Name
from vethwork.model.ports import Publish
from vethwork.testing import frames
from vethwork.testing.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vethwork.testing.frames import Frame, Payload
    from vethwork.testing.machine import Machine

LONG_ENOUGH = 0.4
"""Seconds for an answer within one machine; a closed door gives none."""


@pytest.fixture(scope="module", params=[0, 1], ids=["plain", "br_netfilter"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(other_wire=True) as made:
        made.host.filter_bridged(bool(request.param))
        make_network(made, "blue")
        make_network(made, "red")
        make_network(made, "inside", internal=True)
        make_network(made, "island", isolated=True)
        make_network(made, "alone", icc=False)
        make_network(made, "old", ipv6=False)
        for machine in (made.internet, made.other_neighbour):
            machine.serve_http(8080)
        yield made


@pytest.fixture(scope="module")
def web(lab: Lab) -> Machine:
    """Publishes port 80 as 8080 of every address; 81 is open inside, and nobody published it."""
    machine = settle(lab, "web", "blue", publish=("8080:80",))
    for port in (80, 81):
        machine.serve_http(port)
    return machine


def address(machine: Machine, version: int) -> str:
    return machine.v4 if version == 4 else machine.v6


BOTH = pytest.mark.parametrize("version", [4, 6])


# From the wire.


@BOTH
def test_nothing_of_a_container_is_reached_by_routing_straight_at_it(
    lab: Lab, web: Machine, version: int
) -> None:
    inner = address(web, version)
    lab.neighbour.add_route(f"{inner}/{32 if version == 4 else 128}", address(lab.host, version))
    assert lab.host.reaches(inner, 81)
    assert lab.neighbour.reaches(address(lab.host, version), 8080)
    for port in (80, 81):
        assert not lab.neighbour.reaches(inner, port, timeout=LONG_ENOUGH)
    assert not lab.neighbour.ping(inner, timeout=LONG_ENOUGH)


@BOTH
def test_what_is_published_is_no_more_than_that_port(lab: Lab, web: Machine, version: int) -> None:
    assert lab.neighbour.reaches(address(lab.host, version), 8080)
    for port in (80, 81, 8081):
        with pytest.raises(ConnectionRefusedError):
            lab.neighbour.connect(address(lab.host, version), port, timeout=LONG_ENOUGH)


def test_a_port_of_the_loopback_address_is_out_of_the_wires_reach(lab: Lab) -> None:
    """The neighbour puts frames to 127.0.0.1 on the wire; the second one, to the host's own address, gets through."""
    box = settle(lab, "private", "blue", publish=("127.0.0.1:8085:85", "8086:86"))
    box.serve_http(85)
    with lab.host.dial("127.0.0.1", 8085) as dialog:
        assert dialog.ask().name == "private"
        before = dialog.socket.getsockname()[1]
    assert not lab.host.reaches(lab.host.v4, 8085, timeout=LONG_ENOUGH)
    ours, theirs = str(lab.neighbour.mac()), str(lab.host.mac())
    with box.tap() as inside, lab.neighbour.tap() as wire:
        wire.send(theirs, ours, frames.tcp_syn(lab.neighbour.v4, 40001, "127.0.0.1", 8085))
        wire.send(theirs, ours, frames.tcp_syn("127.0.0.1", 40002, "127.0.0.1", 8085))
        wire.send(theirs, ours, frames.tcp_syn(lab.neighbour.v4, 40003, "127.0.0.1", 8086))
        wire.send(theirs, ours, frames.tcp_syn(lab.neighbour.v4, 40004, lab.host.v4, 8086))
        came = inside.until(lambda frame: frame.source_port == 40004)
    tcp = [(frame.source_port, frame.to_port) for frame in came if frame.protocol == "tcp"]
    # The host's own connection of before may end only now.
    assert [each for each in tcp if each != (before, 85)] == [(40004, 86)]


@BOTH
def test_a_port_bound_to_one_address_is_not_reached_by_another(lab: Lab, version: int) -> None:
    own = address(lab.host, version)
    extra, other = ("192.0.2.77", "198.51.100.2") if version == 4 else ("2001:db8:1::77", "2001:db8:3::2")
    lab.host.add_address(f"{extra}/{24 if version == 4 else 64}")
    bound = f"[{own}]" if version == 6 else own
    settle(lab, f"bound{version}", "blue", publish=(f"{bound}:8087:87",)).serve_http(87)
    assert lab.neighbour.reaches(own, 8087)
    assert lab.host.reaches(own, 8087)
    assert not lab.neighbour.reaches(extra, 8087, timeout=LONG_ENOUGH)
    assert not lab.neighbour.reaches(gateway_of(lab, "blue", version), 8087, timeout=LONG_ENOUGH)
    # The same address, from the host's other wire: the weak host model would let it in.
    lab.other_neighbour.add_route(f"{own}/{32 if version == 4 else 128}", other)
    assert lab.other_neighbour.ping(own)
    assert not lab.other_neighbour.reaches(own, 8087, timeout=LONG_ENOUGH)


@BOTH
def test_traffic_that_passes_through_is_not_led_to_a_container(lab: Lab, web: Machine, version: int) -> None:
    """The container asks the internet's port 8080, which is also a published port of the host."""
    assert web.connect(address(lab.internet, version), 8080).name == "internet"


@BOTH
def test_the_host_does_not_become_a_router_for_others(lab: Lab, web: Machine, version: int) -> None:
    """Forwarding was off until there were containers. It is on now, for them and nobody else."""
    far = address(lab.other_neighbour, version)
    lab.neighbour.add_route(f"{far}/{32 if version == 4 else 128}", address(lab.host, version))
    lab.other_neighbour.add_route("default", "198.51.100.2" if version == 4 else "2001:db8:3::2")
    assert lab.host.reaches(far, 8080)
    assert lab.neighbour.reaches(address(lab.host, version), 8080)
    assert not lab.neighbour.reaches(far, 8080, timeout=LONG_ENOUGH)


def test_a_host_that_was_a_router_stays_one_and_leads_nobody_astray() -> None:
    with Lab(other_wire=True) as lab:
        for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            lab.host.set_sysctl(path, "1")
        make_network(lab, "blue")
        settle(lab, "web", "blue", publish=("8080:80",)).serve_http(80)
        lab.other_neighbour.serve_http(8080)
        for version, way in ((4, "198.51.100.2"), (6, "2001:db8:3::2")):
            far = address(lab.other_neighbour, version)
            lab.other_neighbour.add_route("default", way)
            lab.neighbour.add_route(f"{far}/{32 if version == 4 else 128}", address(lab.host, version))
            assert lab.neighbour.connect(far, 8080).name == "other-neighbour"
            assert lab.neighbour.connect(address(lab.host, version), 8080).name == "web"


# From a container.


@BOTH
def test_networks_do_not_see_each_other(lab: Lab, web: Machine, version: int) -> None:
    stranger = settle(lab, f"stranger{version}", "red")
    inner = address(web, version)
    assert stranger.reaches(address(lab.host, version), 8080)
    assert stranger.ping(address(lab.internet, version))
    for port in (80, 81):
        assert not stranger.reaches(inner, port, timeout=LONG_ENOUGH)
    assert not stranger.ping(inner, timeout=LONG_ENOUGH)


@BOTH
def test_an_internal_network_has_no_way_out(lab: Lab, web: Machine, version: int) -> None:
    """Also when the container gives itself a default route."""
    prisoner = settle(lab, f"prisoner{version}", "inside")
    friend = settle(lab, f"friend{version}", "inside")
    gateway = gateway_of(lab, "inside", version)
    prisoner.add_route("default", gateway)
    assert prisoner.ping(address(friend, version))
    assert prisoner.ping(gateway)
    assert not prisoner.ping(address(lab.internet, version), timeout=LONG_ENOUGH)
    assert not prisoner.ping(address(lab.host, version), timeout=LONG_ENOUGH)
    assert not prisoner.reaches(address(web, version), 80, timeout=LONG_ENOUGH)
    assert not prisoner.reaches(address(lab.host, version), 8080, timeout=LONG_ENOUGH)
    assert not prisoner.reaches(gateway, 8080, timeout=LONG_ENOUGH)


@BOTH
def test_an_isolated_network_is_not_heard_by_the_host(lab: Lab, version: int) -> None:
    """There is no gateway to ask; the container puts frames to the bridge's own MAC address on its interface."""
    castaway = settle(lab, f"castaway{version}", "island")
    friday = settle(lab, f"friday{version}", "island")
    assert castaway.ping(address(friday, version))
    device, mac = bridge_of(lab, "island")
    mine = str(castaway.mac())
    wire_address = address(lab.host, version)
    listener = lab.host.inside(lambda: _udp_listener("0.0.0.0" if version == 4 else "::", 4000))
    with listener, castaway.tap() as own, friday.tap() as other, lab.neighbour.tap() as wire:
        for target in (wire_address, address(lab.neighbour, version)):
            own.send(mac, mine, frames.ping(address(castaway, version), target))
            own.send(
                mac, mine, frames.udp(address(castaway, version), 4000, target, 4000, b"from the island")
            )
        own.send(
            str(friday.mac()), mine, frames.udp(address(castaway, version), 4000, address(friday, version), 9)
        )
        other.wait_for(lambda frame: frame.to_port == 9)
        lab.host.ping(address(lab.neighbour, version))
        heard = wire.until(lambda frame: frame.source == wire_address)
        with lab.neighbour.inside(lambda: _udp_socket(version)) as sender:
            sender.sendto(b"from the wire", (wire_address, 4000))
        assert listener.recv(100) == b"from the wire"
    assert address(castaway, version) not in {frame.source for frame in heard}
    said = lab.host.run(["ip", "-j", "address", "show", "dev", device]).stdout
    assert '"local"' not in said  # not even a link-local address


@BOTH
def test_without_icc_containers_of_one_bridge_are_strangers(lab: Lab, version: int) -> None:
    one = settle(lab, f"one{version}", "alone")
    two = settle(lab, f"two{version}", "alone", publish=(f"{8090 + version}:80",))
    two.serve_http(80)
    inner = address(two, version)
    assert lab.host.reaches(inner, 80)
    assert one.ping(gateway_of(lab, "alone", version))
    assert one.ping(address(lab.internet, version))
    assert one.reaches(address(lab.host, version), 8090 + version)  # what is published is published to all
    assert two.reaches(address(lab.host, version), 8090 + version)
    assert not one.ping(inner, timeout=LONG_ENOUGH)
    assert not one.reaches(inner, 80, timeout=LONG_ENOUGH)
    # Past ARP and neighbour discovery: straight at the other's MAC address, and by way of the gateway's.
    mine, (_, bridge) = str(one.mac()), bridge_of(lab, "alone")
    with (
        two.tap() as heard,
        one.tap() as own,
        lab.host.tap(bridge_of(lab, "alone")[0], outgoing=True) as down,
    ):
        for mac in (str(two.mac()), bridge):
            own.send(mac, mine, frames.udp(address(one, version), 4000, inner, 81))
        assert lab.host.ping(inner)
        down.wait_for(lambda frame: frame.to == inner)
        came = heard.until(lambda frame: frame.protocol.startswith("icmp") and frame.to == inner)
    assert 81 not in {frame.to_port for frame in came}


def test_the_hosts_loopback_is_out_of_a_containers_reach(lab: Lab, web: Machine) -> None:
    """Although route_localnet is on for the bridge, which 127.0.0.1:8080 needs."""
    _, mac = bridge_of(lab, "blue")
    with web.tap() as own, lab.host.tap("lo") as loopback, lab.host.tap(bridge_of(lab, "blue")[0]) as bridge:
        with lab.host.inside(lambda: _udp_listener("127.0.0.1", 9009)) as listener:
            for target in ("127.0.0.1", "127.8.8.8"):
                own.send(mac, str(web.mac()), frames.udp(web.v4, 4000, target, 9009))
            own.send(mac, str(web.mac()), frames.ping(web.v4, gateway_of(lab, "blue")))
            bridge.wait_for(lambda frame: frame.protocol == "icmp")
            with lab.host.inside(_udp_socket) as sender:
                sender.sendto(b"last", ("127.0.0.1", 9009))
            assert listener.recv(100) == b"last"
        loopback.close()


def _udp_socket(version: int = 4) -> socket.socket:
    return socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)


def _udp_listener(bind: str, port: int) -> socket.socket:
    made = _udp_socket(6 if ":" in bind else 4)
    made.bind((bind, port))
    made.settimeout(5)
    return made


# Nobody speaks as another.


def _spoofs(liar: Machine, victim: Machine, gateway: str, gateway_mac: str) -> dict[str, tuple[str, Payload]]:
    """Lies by name: the MAC address they come from, and what they say. All are sent to everybody."""
    mine = str(liar.mac())
    return {
        "ipv4 source": (mine, frames.udp(victim.v4, 1, "255.255.255.255", 7)),
        "foreign ipv4 source": (mine, frames.udp("192.0.2.99", 1, "255.255.255.255", 7)),
        "no ipv4 source": (mine, frames.udp("0.0.0.0", 68, "255.255.255.255", 7)),
        "mac": (str(victim.mac()), frames.udp(liar.v4, 1, "255.255.255.255", 7)),
        "mac of the gateway": (gateway_mac, frames.udp(liar.v4, 1, "255.255.255.255", 7)),
        "ipv6 source": (mine, frames.udp(victim.v6, 1, frames.ALL_NODES, 7)),
        "arp for another": (mine, frames.arp_reply(mine, victim.v4, frames.BROADCAST, gateway)),
        "arp for the gateway": (mine, frames.arp_request(mine, gateway, victim.v4)),
        "neighbour advertisement for another": (
            mine,
            frames.neighbour_advertisement(liar.v6, frames.ALL_NODES, victim.v6, mine),
        ),
        "router advertisement": (mine, frames.router_advertisement("fe80::1", mine, "2001:db8:66::")),
        "another protocol": (mine, frames.Payload(0x88B5, b"x" * 46)),
    }


def test_nobody_speaks_as_another(lab: Lab) -> None:
    liar, victim, witness = (settle(lab, name, "blue") for name in ("liar", "victim", "witness"))
    device, gateway_mac = bridge_of(lab, "blue")
    lies = _spoofs(liar, victim, gateway_of(lab, "blue"), gateway_mac)
    mine = str(liar.mac())
    truths = {
        "arp": frames.arp_request(mine, liar.v4, victim.v4),
        "ipv4": frames.udp(liar.v4, 1, "255.255.255.255", 8),
        "ipv6": frames.udp(liar.v6, 1, frames.ALL_NODES, 8),
        "advertisement": frames.neighbour_advertisement(liar.v6, frames.ALL_NODES, liar.v6, mine),
    }
    with liar.tap() as own, witness.tap() as heard, lab.host.tap(device) as host:
        for source, payload in (*lies.values(), *((mine, truth) for truth in truths.values())):
            own.send(frames.BROADCAST, source, payload)
        own.send(frames.BROADCAST, mine, frames.udp(liar.v4, 1, "255.255.255.255", 9))
        for tap in (heard, host):
            seen = tap.until(lambda frame: frame.to_port == 9)
            assert {
                name for name, lie in lies.items() if any(_carries(frame, *lie) for frame in seen)
            } == set()
            assert {
                name for name, it in truths.items() if any(_carries(frame, mine, it) for frame in seen)
            } == set(truths)


def _carries(frame: Frame, mac: str, payload: Payload) -> bool:
    return frame.source_mac == mac and frame.raw[14:].startswith(payload.data)


@pytest.mark.parametrize("network", ["blue", "old", "island", "inside"])
def test_router_advertisements_die_at_the_port(lab: Lab, network: str) -> None:
    """On networks without IPv6 too: there an advertisement would *be* the IPv6 (CVE-2020-10749)."""
    router, victim = settle(lab, f"router-{network}", network), settle(lab, f"victim-{network}", network)
    mine = str(router.mac())
    advert = frames.router_advertisement("fe80::bad", mine, "2001:db8:66::")
    tagged = frames.Payload(0x8100, b"\0\0\x86\xdd" + advert.data)  # priority-tagged: VLAN 0 is nobody's
    device, _ = bridge_of(lab, network)
    with router.tap() as own, victim.tap() as heard, lab.host.tap(device) as host:
        for payload in (advert, tagged):
            own.send(frames.ALL_NODES_MAC, mine, payload)
        own.send(frames.BROADCAST, mine, frames.arp_request(mine, router.v4, victim.v4))
        for tap in (heard, host):
            came = tap.until(lambda frame: frame.protocol == "arp" and frame.source == router.v4)
            assert not [frame for frame in came if advert.data in frame.raw]
    for machine in (victim, lab.host):
        assert "2001:db8:66:" not in machine.run(["ip", "-6", "address"]).stdout
        assert "fe80::bad" not in machine.run(["ip", "-6", "route"]).stdout


def test_a_port_of_our_bridge_that_is_nobodys_is_mute(lab: Lab) -> None:
    """Between the making of a link and the batch that opens it, and after the batch that closes it."""
    box = settle(lab, "nobody", "blue")
    gateway = gateway_of(lab, "blue")
    end = with_engine(lab, lambda engine: engine.inspect("nobody").endpoints[0].host_ifname)
    assert box.ping(gateway)
    lab.host.run(["nft", "delete", "element", "bridge", "vethwork", "ports", f'{{ "{end}" }}'])
    assert not box.ping(gateway, timeout=LONG_ENOUGH)
    lab.host.run(["nft", "add", "element", "bridge", "vethwork", "ports", f'{{ "{end}" }}'])
    assert box.ping(gateway)


def test_a_port_is_closed_before_unpublish_returns(lab: Lab, web: Machine) -> None:
    with_engine(lab, lambda engine: engine.publish(Name("web"), Publish.parse("8099:80")))
    with lab.neighbour.dial(lab.host.v4, 8099) as dialog:
        assert dialog.ask().name == "web"
        with_engine(lab, lambda engine: engine.unpublish(Name("web"), Publish.parse("8099:80")))
        with pytest.raises(OSError):  # noqa: PT011
            dialog.ask(timeout=LONG_ENOUGH)
    assert not lab.neighbour.reaches(lab.host.v4, 8099, timeout=LONG_ENOUGH)
