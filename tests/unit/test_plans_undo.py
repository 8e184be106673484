"""What holds for every plan, tried on a kernel made of dicts.

Any prefix of a plan that opens can be undone, and leaves what was there before. A plan that closes can be begun anew after
any prefix. What is in the ruleset is what the records say. Attach, then detach, gives back the very machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.fake_kernel import DOERS, HOST, Refused
from tests.unit.world import FOREIGN, UPLINK, World
from vethwork.errors import ConflictError, RequestError
from vethwork.kernel import executor as real
from vethwork.model.address import Address, Interface, Mac, Prefix
from vethwork.model.container import Container, Endpoint, Join, Mode, Publication
from vethwork.model.names import IfName, Name, NetnsPath
from vethwork.model.network import Network, NetworkRequest, Way
from vethwork.model.ports import Publish
from vethwork.model.shaping import Bandwidth, Rate

if TYPE_CHECKING:
    from collections.abc import Callable

    from vethwork.model.plan import Plan

RATE = Rate(8_000_000, 20_000)
NETWORKS = ["n0", "n1", "n2"]
CONTAINERS = ["c0", "c1", "c2"]
V4 = {name: Prefix.parse(f"10.{place}.0.0/29") for place, name in enumerate(NETWORKS)}
V6 = {name: Prefix.parse(f"fd00:{place}::/64") for place, name in enumerate(NETWORKS)}
PUBLISHES = [
    "80", "8080:80", "8080:80/udp", "127.0.0.1:8080:80", "[fd00:9::1]:8080:80", "0.0.0.0:8080:80",
    "8080-8083:8080-8083", "8080-8082:80-82/udp", "192.0.2.1:8080-8083:8080-8083",
]  # fmt: skip


@st.composite
def network_requests(draw: st.DrawFn, name: str) -> NetworkRequest:
    """A request that is often one that can be met."""
    driver = draw(st.sampled_from(["bridge"] * 6 + ["p2p"] * 2 + ["macvlan", "foreign"]))
    if driver == "foreign":
        return NetworkRequest(
            Name(name), driver, device=IfName("theirs"), settled=(), managed=False, transient=True
        )
    subnets = draw(st.sampled_from([(), (V4[name],), (V4[name], V6[name]), (V6[name],)]))
    closed = draw(st.sampled_from(["", "", "", "", "internal", "isolated"]))
    request = NetworkRequest(Name(name), driver, subnets, ipv6=draw(st.booleans()))
    if driver == "bridge":
        request = request.replace(
            icc=draw(st.booleans()),
            masquerade=draw(st.booleans()),
            peering=draw(st.sampled_from(["none", "some", "all"])),
            dns_port=draw(st.sampled_from([0, 0, 5353])),
            managed=draw(st.sampled_from([True, True, True, False])),
            **({closed: True} if closed else {}),
        )
        if not request.managed:
            request = request.replace(device=IfName("theirs"))
    way = draw(st.sampled_from([(), (Way(Prefix.parse("10.99.0.0/16"), None, 0, "blackhole"),)]))
    return request.replace(ways=way, mtu=draw(st.sampled_from([None, None, 1400])))


@st.composite
def joins(draw: st.DrawFn, name: str) -> Join:
    """A wish for an endpoint on a network."""
    asked = draw(st.sampled_from([(), (), (), (V4[name].address + 3,)]))
    made = asked or draw(st.sampled_from([(), (V4[name].address + 4,), (V6[name].address + 4,)]))
    return Join(
        Name(name),
        asked,
        mac=draw(st.sampled_from([None, None, Mac(0x02_00_00_00_00_99)])),
        ifname=draw(st.sampled_from([None, None, IfName("eth1"), IfName("net0")])),
        host_ifname=draw(st.sampled_from([None, None, None, IfName("outer"), IfName("theirs")])),
        metric=draw(st.sampled_from([None, 100])),
        bandwidth=draw(st.sampled_from([None, None, Bandwidth(RATE, None), Bandwidth(None, RATE)])),
        default_route=draw(st.sampled_from([None, False])),
        made=tuple([Interface(each, 24) for each in made]),
    )


SOME_PUBLISH = st.lists(
    st.sampled_from(PUBLISHES).map(Publish.parse), min_size=1, max_size=2, unique=True
).map(tuple)
PUBLISH = st.just(()) | st.just(()) | SOME_PUBLISH


def _likely(pick: Callable[..., object], names: list[str], there: set[str], *, wanted: bool) -> str:
    """A name that makes sense, or now and then any."""
    fitting = [name for name in names if (name in there) == wanted]
    return str(pick(st.sampled_from(fitting * 8 + names)))


def draw_plan(draw: Callable[..., object], world: World) -> Plan:
    """Plan any verb. Raises RequestError or ConflictError, as the planners do."""
    pick: Callable[..., object] = draw
    verb = str(pick(st.sampled_from(_fitting_verbs(world))))
    there = {str(each.name) for each in (*world.of(Network), *world.of(Container))}
    name = _likely(pick, CONTAINERS, there, wanted=verb != "attach")
    if verb == "unpublish":
        name = str(world.of(Publication)[-1].container)
    network = _likely(pick, NETWORKS, there, wanted=verb != "create")
    match verb:
        case "create":
            return world.create_network(draw(network_requests(network)))  # type: ignore[arg-type]
        case "remove":
            return world.remove_network(network)
        case "attach":
            have = [str(each.name) for each in world.of(Network)]
            chosen = draw(st.lists(st.sampled_from(have), max_size=2, unique=True)) if have else []
            wishes = tuple(draw(joins(each)) for each in chosen)  # type: ignore[attr-defined]
            netns = draw(st.sampled_from([None, None, None, NetnsPath(FOREIGN)]))
            mode = Mode("network", "x") if wishes else draw(st.sampled_from(MODES))
            if isinstance(mode, Mode) and mode.kind != "network":
                return world.attach(name, mode)
            return world.attach(name, Mode("network", "x"), wishes, draw(PUBLISH), netns=netns)  # type: ignore[arg-type]
        case "detach":
            return world.detach(name)
        case "connect":
            return world.connect(name, draw(joins(network)), draw(PUBLISH))  # type: ignore[arg-type]
        case "disconnect":
            return world.disconnect(name, network)
        case "publish":
            return world.publish(name, draw(SOME_PUBLISH))  # type: ignore[arg-type]
        case _:
            publications = world.container(name).publications
            return world.unpublish(name, publications[0].publish if publications else Publish.parse("1:1"))


def _fitting_verbs(world: World) -> list[str]:
    """What makes sense now, the more likely the more often it stands there."""
    verbs = ["create"] * (len(NETWORKS) - len(world.of(Network)))
    if world.of(Network):
        verbs += ["attach"] * 2 * (len(CONTAINERS) - len(world.of(Container))) + ["remove"]
    if world.of(Container):
        verbs += ["connect"] * 3 + ["detach"] + (["publish", "disconnect"] * 2 if world.of(Endpoint) else [])
    return verbs + ["unpublish"] * 2 * bool(world.of(Publication))


MODES = [Mode("host"), Mode("none"), Mode("container", "c0"), Mode("ns", FOREIGN), Mode("network", "x")]


def try_prefixes(world: World, plan: Plan) -> None:
    """Die after every step of a plan, and recover."""
    before = world.kernel.state()
    kernel = world.kernel.copy()
    wanted = before
    if plan.forward:
        whole = kernel.copy()
        whole.apply(plan.steps)
        wanted = whole.state()
    for count in range(len(plan.steps) + 1):
        dead = kernel.copy()
        assert dead.attempt(plan.recovery()) == []
        assert dead.state() == wanted, f"after {count} steps of {plan}"
        try:
            kernel.apply(plan.steps[count : count + 1])
        except Refused:
            break


@settings(max_examples=100)
@given(st.data())
def test_whatever_is_done_can_be_undone_and_is_on_record(data: st.DataObject) -> None:
    world = World()
    for _ in range(data.draw(st.integers(4, 12))):
        before = world.kernel.state()
        try:
            plan = draw_plan(data.draw, world)
        except (RequestError, ConflictError):
            assert world.kernel.state() == before
            continue
        try_prefixes(world, plan)
        try:
            world.do(plan)
        except Refused:
            assert world.kernel.state() == before
        assert world.kernel.elements == world.elements()
        check_records(world)


def check_records(world: World) -> None:
    """No two have the same address, port, interface or id."""
    endpoints, containers = world.of(Endpoint), world.of(Container)
    netns = {each.name: each.netns for each in containers}
    for network in world.of(Network):
        held = [i.address for each in endpoints if each.network == network.name for i in each.addresses]
        assert len(set(held)) == len(held)
    for things in (
        [each.id for each in endpoints],
        [each.host_ifname for each in endpoints if each.host_ifname],
        [(netns[each.container], each.ifname) for each in endpoints],
    ):
        assert len(set(things)) == len(things)
    for container in containers:
        if any(each.container == container.name for each in endpoints):
            check_routes(world, container)
    publications = world.of(Publication)
    for place, one in enumerate(publications):
        assert not any(one.publish.overlaps(other.publish) for other in publications[:place])


def check_routes(world: World, container: Container) -> None:
    """To each place that an endpoint wants a route to, there is the oldest one's."""
    wanted: dict[tuple[object, int], tuple[str, object]] = {}
    mine = [each for each in world.of(Endpoint) if each.container == container.name]
    for each in sorted(mine, key=lambda each: str(each.id)):
        ways = [
            (gateway.version, each.metric, "unicast", gateway)
            for gateway in each.gateways
            if each.default_route
        ]
        ways += [(way.prefix, way.metric, way.kind, way.gateway) for way in each.ways]
        for to, metric, kind, gateway in ways:
            wanted.setdefault((to, metric), (each.ifname if kind == "unicast" else kind, gateway))
    names = {link.number: name for name, link in world.kernel.links[container.netns].items()}
    there = {
        (to, metric): (names[number] if number else kind, gateway)
        for to, metric, kind, number, gateway in world.kernel.routes[container.netns]
    }
    assert there == wanted


@settings(max_examples=60)
@given(st.data())
def test_attach_then_detach_gives_back_the_very_machine(data: st.DataObject) -> None:
    world = World()
    for name in NETWORKS:
        try:
            world.do(world.create_network(data.draw(network_requests(name)).replace(subnets=(V4[name],))))
        except (RequestError, ConflictError):
            continue
    world_with_networks = world.kernel.state()
    have = [str(each.name) for each in world.of(Network)]
    done: list[str] = []
    for name in CONTAINERS:
        chosen = data.draw(st.lists(st.sampled_from(have), max_size=2, unique=True)) if have else []
        wishes = tuple(data.draw(joins(each)) for each in chosen)
        try:
            world.do(world.attach(name, Mode("network", "x"), wishes, data.draw(PUBLISH)))
        except (RequestError, ConflictError, Refused):
            continue
        done.append(name)
    for name in data.draw(st.permutations(done)):
        world.do(world.detach(name))
    assert world.kernel.state() == world_with_networks
    for name in have:
        world.do(world.remove_network(name))
    links = world.kernel.links
    assert set(links) == {HOST, FOREIGN}
    assert set(links[HOST]) == {"lo", UPLINK, "theirs"}
    assert {each for each in world.kernel.elements if each[1] != "guarded"} == set()


def test_the_fake_does_every_step_that_the_kernel_does() -> None:
    assert set(DOERS) == set(real.DOERS)


@pytest.mark.parametrize("address", ["10.0.0.3"])
def test_the_world_is_one_in_which_things_work(address: str) -> None:
    world = World()
    world.do(world.create_network(NetworkRequest(Name("n0"), subnets=(V4["n0"],))))
    world.do(
        world.attach(
            "c0",
            Mode("network", "n0"),
            (Join(Name("n0"), (Address.parse(address),)),),
            (Publish.parse("8080:80"),),
        )
    )
    assert world.kernel.elements[("inet", "port4", ("tcp", 8080))] == (Address.parse(address), 80)
