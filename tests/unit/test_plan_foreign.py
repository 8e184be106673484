"""Foreign networks: containers whose interfaces another program makes, and to whom ports can lead."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.world import FOREIGN, World
from vethwork.errors import ConflictError, RequestError
from vethwork.model.address import Address, Interface
from vethwork.model.container import Join, Mode
from vethwork.model.names import IfName, Name, NetnsPath
from vethwork.model.network import NetworkRequest, Way
from vethwork.model.ports import Publish
from vethwork.model.ruleset import Element
from vethwork.model.shaping import Bandwidth, Rate
from vethwork.model.steps import ChangeElements, SetSysctl

REQUEST = NetworkRequest(
    Name("pods.theirs"), "foreign", device=IfName("theirs"), settled=(), managed=False, transient=True
)
MADE = (Interface.parse("10.9.0.2/24"), Interface.parse("fd09::2/64"))


def join(*made: Interface, **more: Any) -> Join:
    """A wish for an interface that is there."""
    return Join(REQUEST.name, tuple([each.address for each in made]), made=made, **more)


@pytest.fixture
def world() -> World:
    made = World()
    made.do(made.create_network(REQUEST))
    return made


def attach(world: World, name: str, wish: Join, *publishes: str) -> Any:
    mode, ports = Mode("network", wish.network), tuple(map(Publish.parse, publishes))
    return world.attach(name, mode, (wish,), ports, netns=NetnsPath(FOREIGN))


def test_nothing_but_rules_is_made_for_it(world: World) -> None:
    before = world.kernel.state()
    plan = attach(world, "web", join(*MADE, sysctls=(("core/somaxconn", "512"),)), "8080:80")
    sysctl, _lo, change = plan.steps
    assert sysctl == SetSysctl(FOREIGN, "core/somaxconn", "512")
    assert isinstance(change, ChangeElements)
    assert set(change.adds) == {
        Element("inet", "hairpin4", ("theirs", MADE[0].address)),
        Element("inet", "hairpin6", ("theirs", MADE[1].address)),
        Element("inet", "port4", ("tcp", 8080), (MADE[0].address, 80)),
        Element("inet", "port6", ("tcp", 8080), (MADE[1].address, 80)),
        Element("inet", "traffic", ("ipv4", "tcp", 8080)),
        Element("inet", "traffic", ("ipv6", "tcp", 8080)),
    }
    world.do(attach(world, "web", join(*MADE), "8080:80"))
    world.do(world.detach("web"))
    assert world.kernel.state().elements == before.elements
    world.do(world.remove_network(REQUEST.name))
    assert world.kernel.elements == {}
    assert "theirs" in world.kernel.links[""]


def test_what_comes_from_it_is_let_out_and_not_into_our_networks(world: World) -> None:
    assert world.kernel.elements == {("inet", "forward_from", ("theirs",)): ("goto from_open",)}


def test_one_network_for_each_link(world: World) -> None:
    with pytest.raises(ConflictError, match=r"link theirs is that of network pods\.theirs"):
        world.create_network(REQUEST.replace(name=Name("other.theirs")))


@pytest.mark.parametrize(
    "wish",
    [
        join(),
        join(*MADE, ways=(Way(None, Address.parse("10.9.0.1")),)),
        join(*MADE, mtu=1400),
    ],
)
def test_its_interfaces_are_not_ours_to_make(world: World, wish: Join) -> None:
    with pytest.raises(RequestError, match="its interfaces are somebody else's to make"):
        attach(world, "web", wish)


def test_a_bandwidth_is_not_ours_to_limit(world: World) -> None:
    rate = Rate.check("rate", 10**6, 10**6)
    with pytest.raises(RequestError, match="a foreign network has no end to limit bandwidth at"):
        attach(world, "web", join(*MADE, bandwidth=Bandwidth(rate, None)))


def test_an_address_has_one_holder(world: World) -> None:
    world.do(attach(world, "web", join(*MADE)))
    with pytest.raises(ConflictError, match=r"10\.9\.0\.2 is held by web"):
        world.attach("late", Mode("network", REQUEST.name), (join(MADE[0]),))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3"])
def test_the_loopback_does_not_lead_there(world: World, address: str) -> None:
    with pytest.raises(RequestError, match=r"127\.0\.0\.0/8 does not pass it"):
        attach(world, "web", join(*MADE), f"{address}:8080:80")
