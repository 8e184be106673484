"""Row 2: a bridge that joins many namespaces at layer 2, without a gateway: the host and the world are unreachable."""

from __future__ import annotations

import socket
from itertools import product
from typing import TYPE_CHECKING

import pytest

from tests.kernel.stage import (
    BITS,
    DEADLINE,
    VERSIONS,
    Stage,
    address,
    complaint,
    ip,
    is_silent,
    links,
    pings,
)
from vethwork.testing import frames

if TYPE_CHECKING:
    from vethwork.testing.frames import Payload
    from vethwork.testing.machine import Machine

NAMES = ("one", "two", "three")
EXIT, MARKER = 4444, 4445
"""Source ports, to know a datagram by."""


@pytest.fixture
def island(stage: Stage) -> tuple[Machine, ...]:
    """Three containers of one isolated network."""
    stage.network("island", "--isolated")
    return tuple(stage.settle(name, "--net", "island") for name in NAMES)


def test_they_reach_each_other_by_the_command_line(stage: Stage) -> None:
    assert stage.command("network", "create", "island", "--isolated", "--ipv6").status == 0
    machines = [stage.lab.container(name) for name in NAMES]
    for machine in machines:
        said = stage.command("attach", machine.name, "--netns", machine.path, "--net", "island")
        assert said.status == 0, said.err
        machine.serve_http(80)
        machine.serve_udp_echo(80)
    for asker in machines:
        for asked, version in product(machines, VERSIONS):
            assert pings(asker, address(asked, version))
            for protocol in ("tcp", "udp"):
                seen = asker.connect(address(asked, version), 80, protocol)
                assert (seen.name, seen.peer) == (asked.name, address(asker, version))


def test_their_ends_are_ports_of_a_bridge_that_has_no_address(
    stage: Stage, island: tuple[Machine, ...]
) -> None:
    device = stage.device("island")
    seen = links(stage.host)
    assert seen[device]["linkinfo"]["info_kind"] == "bridge"
    ports = [name for name, link in seen.items() if link.get("master") == device]
    assert sorted(ports) == sorted(stage.view("inspect", n)["endpoints"][0]["host_interface"] for n in NAMES)
    assert ip(stage.host, "addr", "show", device)[0]["addr_info"] == []
    assert not any(route["dev"] == device for v in "46" for route in ip(stage.host, f"-{v}", "route", "show"))


def test_the_host_and_the_world_are_unreachable(
    stage: Stage, island: tuple[Machine, ...], version: int
) -> None:
    """As ping says it: at once, for there is no route; not by a silence that a person has to wait for."""
    everywhere = (*stage.host.addresses, *stage.lab.internet.addresses, *stage.lab.neighbour.addresses)
    for target in [str(each) for each in everywhere if each.version == version]:
        assert "Network is unreachable" in complaint(island[0], target)
        with pytest.raises(OSError, match="Network is unreachable"):
            island[0].connect(target, 80)


def test_nobody_comes_in_from_the_host_or_the_world(
    stage: Stage, island: tuple[Machine, ...], version: int
) -> None:
    inner = address(island[0], version)
    stage.lab.neighbour.add_route(f"{inner}/{BITS[version]}", address(stage.host, version))
    stage.host.run(["ip", f"-{version}", "route", "add", inner, "dev", stage.device("island")], check=False)
    for asker in (stage.host, stage.lab.neighbour):
        assert is_silent(asker, inner)
        assert not asker.reaches(inner, 80, timeout=0.2)


def set_out(machine: Machine, version: int, by: str) -> None:
    """Make oneself a default route by a router that is not there, to the bridge's own MAC address."""
    mine = address(machine, version)
    gateway = f"{mine.rpartition('.')[0]}.254" if version == 4 else f"{mine.rpartition(':')[0]}:fe"
    machine.run(["ip", "neigh", "replace", gateway, "lladdr", by, "dev", "eth0"])
    machine.add_route("default", gateway)


def test_a_default_route_of_its_own_leads_a_container_nowhere(
    stage: Stage, island: tuple[Machine, ...], version: int
) -> None:
    stage.network("other")  # for which the host forwards
    set_out(island[0], version, str(stage.host.mac(stage.device("island"))))
    stage.host.serve_http(80)
    for target in (stage.host, stage.lab.internet, stage.lab.neighbour):
        assert is_silent(island[0], address(target, version))
        assert not island[0].reaches(address(target, version), 80, timeout=0.2)
    assert pings(island[0], address(island[1], version))


def datagram(sender: Machine, to: Machine, version: int, port: int) -> Payload:
    return frames.udp(address(sender, version), port, address(to, version), 9, b"out")


@pytest.fixture(params=["--isolated", "--masquerade=no"])
def kind(request: pytest.FixtureRequest, stage: Stage) -> str:
    """A network that is isolated, or one that is not as a proof that the same frames would pass there.

    The host forwards in both cases, for another network.
    """
    stage.network("other")
    stage.network("net", request.param)
    return str(request.param)


def test_frames_by_hand_to_the_bridge_leave_an_open_network_only(
    stage: Stage, kind: str, version: int
) -> None:
    """The host's own datagram comes after them."""
    sender, peer = (stage.attach(name, "--net", "net") for name in NAMES[:2])
    bridge = str(stage.host.mac(stage.device("net")))
    with sender.tap() as hand, peer.tap() as inside, stage.lab.internet.tap() as outside:
        hand.send(bridge, str(sender.mac()), datagram(sender, stage.lab.internet, version, EXIT))
        hand.send(str(peer.mac()), str(sender.mac()), datagram(sender, peer, version, MARKER))
        inside.wait_for(lambda frame: frame.source_port == MARKER)
        target, own = address(stage.lab.internet, version), address(stage.host, version)
        with stage.host.dial(target, 9, "udp", source=(own, MARKER)) as dialog:
            dialog.socket.send(b"marker")
        seen = outside.until(lambda frame: frame.source_port == MARKER)
    came_out = [frame for frame in seen if frame.protocol == "udp" and frame.source_port == EXIT]
    assert len(came_out) == (kind != "--isolated")


def test_frames_by_hand_reach_the_host_from_an_open_network_only(
    stage: Stage, kind: str, version: int
) -> None:
    """A socket of the host hears everything that is sent to its port; what it sends itself comes last."""
    sender, peer = (stage.attach(name, "--net", "net") for name in NAMES[:2])
    bridge, own = str(stage.host.mac(stage.device("net"))), address(stage.host, version)
    listener = stage.host.inside(
        lambda: socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_DGRAM)
    )
    with listener, sender.tap() as hand, peer.tap() as inside:
        listener.bind((own, 9))
        listener.settimeout(DEADLINE)
        hand.send(bridge, str(sender.mac()), datagram(sender, stage.host, version, EXIT))
        hand.send(str(peer.mac()), str(sender.mac()), datagram(sender, peer, version, MARKER))
        inside.wait_for(lambda frame: frame.source_port == MARKER)
        listener.sendto(b"marker", (own, 9))
        heard = [listener.recv(64)]
        while heard[-1] != b"marker":
            heard.append(listener.recv(64))
    assert heard == ([b"marker"] if kind == "--isolated" else [b"out", b"marker"])
