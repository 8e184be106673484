"""Row 4: the outside world by SNAT; per network on, off, or with a fixed source address."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel.stage import LONG_ENOUGH, Stage, address, is_silent, pings

if TYPE_CHECKING:
    from vethwork.testing.machine import Machine

FIXED = {4: "192.0.2.77", 6: "2001:db8:1::77"}
PROTOCOLS = pytest.mark.parametrize("protocol", ["tcp", "udp"])


@pytest.fixture(scope="module")
def town(scene: Stage) -> dict[str, Machine]:
    """A container on a network of each kind, and an internet that serves."""
    for outside in (scene.lab.internet, scene.lab.router):
        outside.serve_http(80)
        outside.serve_udp_echo(80)
    for interface in (f"{FIXED[4]}/32", f"{FIXED[6]}/128"):
        scene.host.add_address(interface)
    assert scene.command("network", "create", "default", "--ipv6").status == 0
    scene.network("yes", "--masquerade", "yes")
    scene.network("no", "--masquerade", "no")
    scene.network("fixed", "--masquerade", FIXED[4], "--masquerade", FIXED[6])
    return {name: scene.attach(name, "--net", name) for name in ("default", "yes", "no", "fixed")}


@PROTOCOLS
@pytest.mark.parametrize("kind", ["default", "yes"])
def test_the_internet_sees_the_host(
    scene: Stage, town: dict[str, Machine], kind: str, version: int, protocol: str
) -> None:
    internet = scene.lab.internet
    assert pings(town[kind], address(internet, version))
    seen = town[kind].connect(address(internet, version), 80, protocol)
    assert (seen.name, seen.peer) == ("internet", address(scene.host, version))
    assert is_silent(internet, address(town[kind], version))


@PROTOCOLS
def test_the_internet_sees_the_address_that_was_chosen(
    scene: Stage, town: dict[str, Machine], version: int, protocol: str
) -> None:
    assert pings(town["fixed"], address(scene.lab.internet, version))
    seen = town["fixed"].connect(address(scene.lab.internet, version), 80, protocol)
    assert (seen.name, seen.peer) == ("internet", FIXED[version])


@PROTOCOLS
def test_without_it_the_internet_sees_the_container_and_has_no_way_back(
    scene: Stage, town: dict[str, Machine], version: int, protocol: str
) -> None:
    internet, own = scene.lab.internet, address(town["no"], version)
    with internet.tap() as tap:
        assert not town["no"].reaches(address(internet, version), 80, protocol, timeout=LONG_ENOUGH)
        first = tap.wait_for(lambda frame: frame.to_port == 80 and frame.protocol == protocol)
    assert (first.source, first.to) == (own, address(internet, version))
    assert is_silent(town["no"], address(internet, version))


@PROTOCOLS
def test_without_it_a_router_that_knows_the_way_back_answers(
    scene: Stage, town: dict[str, Machine], version: int, protocol: str
) -> None:
    own = address(town["no"], version)
    router = scene.lab.router
    router.run(["ip", "route", "replace", own, "via", address(scene.host, version)])
    seen = town["no"].connect(address(router, version), 80, protocol)
    assert (seen.name, seen.peer) == ("router", own)
    assert pings(town["no"], address(router, version))


def test_what_stays_on_this_machine_is_not_rewritten(
    scene: Stage, town: dict[str, Machine], version: int
) -> None:
    """Another container of the same network, and the host, see who asks."""
    for name in ("default", "fixed"):
        scene.host.serve_http(0)
        peer = scene.attach(f"peer-{name}-{version}", "--net", name)
        peer.serve_http(80)
        own = address(town[name], version)
        assert town[name].connect(address(peer, version), 80).peer == own
        server = scene.host.serve_http()
        assert town[name].connect(address(scene.host, version), server.port).peer == own
        server.stop()


def test_masquerade_is_said_once(scene: Stage) -> None:
    for words in (("yes", "no"), ("no", "192.0.2.77"), ("192.0.2.77", "192.0.2.78"), ("maybe",)):
        options = [word for each in words for word in ("--masquerade", each)]
        assert scene.refused("network", "create", "bad", *options).status == 2
    said = scene.refused("network", "create", "bad", "--internal", "--masquerade", "192.0.2.77")
    assert "nothing leaves it" in said.err
