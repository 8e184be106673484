"""Row 5: a published port, from wherever somebody asks, and whom the server sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.kernel.stage import LONG_ENOUGH, LOOPBACK, Stage, address

if TYPE_CHECKING:
    from vethwork.testing.machine import Machine

PROTOCOLS = pytest.mark.parametrize("protocol", ["tcp", "udp"])
KINDS = {"open": (), "alone": ("--icc", "no"), "bare": ("--masquerade", "no")}
PORTS = {"open": 8080, "alone": 8081, "bare": 8082}


class Town(NamedTuple):
    """On each network a container with a published port and its neighbour, and one container elsewhere."""

    web: dict[str, Machine]
    peer: dict[str, Machine]
    far: Machine


@pytest.fixture(scope="module")
def town(scene: Stage) -> Town:
    """Networks of each kind. The first container is made by programs, as a person would."""
    for kind, options in KINDS.items():
        scene.network(kind, *options)
    scene.network("elsewhere")
    first = scene.lab.container("web-open")
    publish = ("-p", "8080:80", "-p", "8080:80/udp")
    said = scene.command("attach", "web-open", "--netns", first.path, "--net", "open", *publish)
    assert (said.status, said.err) == (0, "")
    first.serve_http(80)
    first.serve_udp_echo(80)
    web = {"open": first}
    for kind in ("alone", "bare"):
        ports = [f"{PORTS[kind]}:80", f"{PORTS[kind]}:80/udp"]
        web[kind] = scene.settle(f"web-{kind}", "--net", kind, "-p", ports[0], "-p", ports[1])
    peer = {kind: scene.attach(f"peer-{kind}", "--net", kind) for kind in KINDS}
    return Town(web, peer, scene.attach("far", "--net", "elsewhere"))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """What kind of network the port leads to."""
    return str(request.param)


def of_host(scene: Stage, version: int) -> list[str]:
    return [str(each) for each in scene.host.addresses if each.version == version]


@PROTOCOLS
def test_from_an_outside_machine(scene: Stage, town: Town, kind: str, version: int, protocol: str) -> None:
    """Near or far; the server sees their own addresses."""
    lab = scene.lab
    ways = [(lab.neighbour, 0), (lab.internet, 0), (lab.other_neighbour, 1)]
    for asker, wire in ways:
        seen = asker.connect(of_host(scene, version)[wire], PORTS[kind], protocol)
        assert seen.name == f"web-{kind}"
        assert seen.peer == address(asker, version)
        assert (seen.local, seen.local_port) == (address(town.web[kind], version), 80)


@PROTOCOLS
def test_from_the_host_by_each_of_its_addresses(
    scene: Stage, town: Town, kind: str, version: int, protocol: str
) -> None:
    """Those of the wires and of every bridge; the server sees the address that was asked."""
    addresses = of_host(scene, version)
    assert len(addresses) == 6
    for target in addresses:
        seen = scene.host.connect(target, PORTS[kind], protocol)
        assert (seen.name, seen.peer) == (f"web-{kind}", target)


@PROTOCOLS
def test_from_the_host_by_loopback(scene: Stage, town: Town, kind: str, version: int, protocol: str) -> None:
    """127.0.0.1 leads there, by the gateway's address; ::1 is refused at once, for IPv6 has no route_localnet."""
    if version == 4:
        for target in (LOOPBACK[4], "127.1.2.3"):
            seen = scene.host.connect(target, PORTS[kind], protocol)
            assert (seen.name, seen.peer) == (f"web-{kind}", scene.gateway(kind, 4))
    else:
        with pytest.raises(ConnectionRefusedError):
            scene.host.connect(LOOPBACK[6], PORTS[kind], protocol)


@PROTOCOLS
def test_from_another_container_of_the_same_network(
    scene: Stage, town: Town, kind: str, version: int, protocol: str
) -> None:
    """A hairpin: answers must come back by the host, so the server sees the gateway. Also where containers may not talk."""
    for target in of_host(scene, version):
        seen = town.peer[kind].connect(target, PORTS[kind], protocol)
        assert (seen.name, seen.peer) == (f"web-{kind}", scene.gateway(kind, version))
    directly = town.peer[kind].reaches(address(town.web[kind], version), 80, protocol, timeout=LONG_ENOUGH)
    assert directly == (kind != "alone")


@PROTOCOLS
def test_from_the_same_container(scene: Stage, town: Town, kind: str, version: int, protocol: str) -> None:
    for target in of_host(scene, version):
        seen = town.web[kind].connect(target, PORTS[kind], protocol)
        assert (seen.name, seen.peer) == (f"web-{kind}", scene.gateway(kind, version))


@PROTOCOLS
def test_from_a_container_on_another_network(
    scene: Stage, town: Town, kind: str, version: int, protocol: str
) -> None:
    """By any of the host's addresses, and by no other way; the server sees the container itself."""
    for target in of_host(scene, version):
        seen = town.far.connect(target, PORTS[kind], protocol)
        assert (seen.name, seen.peer) == (f"web-{kind}", address(town.far, version))
    assert not town.far.reaches(address(town.web[kind], version), 80, protocol, timeout=LONG_ENOUGH)


def test_many_at_once(scene: Stage, town: Town, version: int) -> None:
    """Connections from everywhere stand side by side, and each stays what it is."""
    target = address(scene.host, version)
    askers = [scene.lab.neighbour, scene.lab.internet, scene.host, town.far, town.peer["open"]]
    dialogs = [asker.dial(target, 8080) for asker in askers for _ in range(4)]
    try:
        first = [dialog.ask("/first") for dialog in dialogs]
        again = [dialog.ask("/again") for dialog in reversed(dialogs)]
    finally:
        for dialog in dialogs:
            dialog.close()
    assert [seen._replace(question="") for seen in first] == [
        seen._replace(question="") for seen in reversed(again)
    ]
    assert {seen.name for seen in first} == {"web-open"}
