"""kill -9 at every milestone of every operation, then one ordinary command: nothing is left over, nothing is lost.

Theory. Every milestone of an operation (``intend``, each step, ``settle``) is tried, one after the other, until the
operation survives. After each, another container is attached by somebody else. Then the world must be in one of the
states that are *settled*: as before a plan that opens and was not settled, as after any other. The states are told apart
by how many plans were settled, and two runs that settled as many must look the same, to ``ip``, ``nft`` and raw SQL.
"""

from __future__ import annotations

import json
import os
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.fault import world as tools
from tests.fault.world import RUN, World, bare_netns, in_world, links, request, run, sql
from vethwork.errors import ConflictError, NotFound
from vethwork.maintenance import gc
from vethwork.model.address import Interface
from vethwork.model.container import Join
from vethwork.model.names import IfName, Name
from vethwork.model.ports import Publish
from vethwork.model.steps import LINK_GROUP

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tests.fault.world import Seen
    from vethwork.engine.engine import Engine

    Act = Callable[[Engine], object]
    RunAhead = Callable[[Callable[[Any, World], None]], None]

OLD_BRIDGE = "vw-3c6ef372fe94"


def nothing(_: Engine) -> None:
    """Nothing need be done."""


class Operation(NamedTuple):
    """What is killed: ``before`` makes the state that it starts from, ``after`` gets back from where it leads."""

    name: str
    work: Act
    before: Act = nothing
    after: Act = nothing

    def __repr__(self) -> str:
        return self.name


def network(name: str, *subnets: str, **wish: Any) -> Act:
    """The creation of a network."""
    return lambda engine: engine.create_network(tools.network(name, *subnets, **wish))


def attach(name: str, *publishes: str, **wish: Any) -> Act:
    """The attachment of a container."""
    return lambda engine: engine.attach(request(name, *publishes, **wish))


def detach(*names: str) -> Act:
    """The removal of containers."""
    return lambda engine: [engine.detach(name) for name in names]


def remove(*names: str) -> Act:
    """The removal of networks, as far as they are there."""

    def act(engine: Engine) -> None:
        for name in names:
            if engine.store.network(name) is not None:
                engine.remove_network(name)

    return act


def then(*acts: Act) -> Act:
    """One after the other."""
    return lambda engine: [act(engine) for act in acts]


def shell(*commands: str) -> Act:
    """What somebody does with other tools."""
    return lambda _: [run(command) for command in commands]


def other(name: str) -> Act:
    """A namespace that a runtime made, once."""
    return lambda _: None if os.path.exists(f"{tools.HOME}/others/{name}") else bare_netns(name)


def pinned(name: str) -> str:
    """Where the engine pins a container of :func:`request`."""
    return f"{RUN}/netns/{name.encode().hex().ljust(32, '0')[:12]}"


V4 = network("new", "10.8.0.0/24")
CABLE = network("cable", "10.7.0.0/29", driver="p2p")
ON_CABLE = {"nets": ("cable",)}
MANY = ("81:80", "127.0.0.1:82:80/udp", "9000-9009:9000-9009", "9100-9104:7100-7104/udp")
ATTACHED = attach("x", *MANY, nets=("old",), ip="10.9.0.9")
GONE = then(detach("x"), remove("new"))
CABLE_GONE = then(detach("x", "y"), remove("cable"))

# A link of somebody else's, and what is made for containers behind it.
THEIRS = shell("ip link add theirs address 02:00:00:00:00:06 type bridge")
FAR = network("far", driver="foreign", device=IfName("theirs"), settled=(), managed=False)
NO_LINK = shell("ip link del theirs")


def behind(name: str, *publishes: str) -> Act:
    """The attachment of a container whose interface somebody else has made."""
    made = Interface.parse("10.6.0.2/24")
    wish = Join(Name("far"), (made.address,), made=(made,))
    return lambda engine: engine.attach(request(name, *publishes, nets=("far",)).replace(joins=(wish,)))


OPERATIONS = (
    Operation("create network v4", V4, after=GONE),
    Operation("create network dual stack", network("new", "10.8.0.0/24", "fd08::/64"), after=GONE),
    Operation("create network isolated", network("new", "10.8.0.0/24", isolated=True), after=GONE),
    Operation("create network internal", network("new", "10.8.0.0/24", internal=True, ipv6=True), after=GONE),
    Operation("create network p2p", CABLE, after=remove("cable")),
    Operation("remove network", remove("new"), before=network("new", "10.8.0.0/24", ipv6=True), after=GONE),
    Operation("remove network p2p", remove("cable"), before=CABLE, after=remove("cable")),
    Operation("attach with ports", ATTACHED, after=GONE),
    Operation("attach to two networks", attach("x", "81:80", nets=("new", "old")), before=V4, after=GONE),
    Operation("attach icc no", attach("x", nets=("new",)), network("new", "10.8.0.0/24", icc=False), GONE),
    Operation("attach none", attach("x", nets=("none",)), after=GONE),
    Operation("attach host", attach("x", nets=("host",)), after=GONE),
    Operation("attach to container", attach("y", nets=("container:x",)), ATTACHED, then(detach("y"), GONE)),
    Operation(
        "attach given namespace",
        lambda engine: engine.attach(request("x", "81:80", nets=("old",), netns=f"{tools.HOME}/others/o")),
        before=other("o"),
        after=GONE,
    ),
    Operation(
        "attach on the default network, at its first use",
        attach("x", "81:80", nets=("bridge",)),
        after=then(detach("x"), remove("bridge")),
    ),
    Operation("attach first end", attach("x", **ON_CABLE), before=CABLE, after=CABLE_GONE),
    Operation(
        "attach second end",
        attach("y", **ON_CABLE),
        before=then(CABLE, attach("x", **ON_CABLE)),
        after=CABLE_GONE,
    ),
    Operation(
        "attach second end, where the parked one is gone",
        attach("y", **ON_CABLE),
        before=then(CABLE, attach("x", **ON_CABLE), lambda _: run(f"ip link del vwp{network_id('cable')}")),
        after=CABLE_GONE,
    ),
    Operation("detach", detach("x"), before=ATTACHED, after=GONE),
    Operation(
        "detach from two networks",
        detach("x"),
        before=then(V4, attach("x", "81:80", nets=("new", "old"))),
        after=GONE,
    ),
    Operation(
        "detach given namespace",
        detach("x"),
        before=then(other("o"), attach("x", "81:80", nets=("old",), netns=f"{tools.HOME}/others/o")),
        after=GONE,
    ),
    Operation("create network foreign", FAR, before=THEIRS, after=then(remove("far"), NO_LINK)),
    Operation(
        "attach behind a foreign link",
        behind("x", "81:80", "9000-9009:9000-9009"),
        before=then(THEIRS, FAR),
        after=then(detach("x"), remove("far"), NO_LINK),
    ),
    Operation(
        "detach behind a foreign link",
        detach("x"),
        before=then(THEIRS, FAR, behind("x", "81:80", "9000-9009:9000-9009")),
        after=then(detach("x"), remove("far"), NO_LINK),
    ),
    Operation("detach only end", detach("x"), then(CABLE, attach("x", **ON_CABLE)), CABLE_GONE),
    Operation(
        "detach one end of two",
        detach("x"),
        before=then(CABLE, attach("x", **ON_CABLE), attach("y", **ON_CABLE)),
        after=CABLE_GONE,
    ),
    Operation(
        "connect",
        lambda engine: engine.connect("x", Join(Name("new"))),
        before=then(V4, ATTACHED),
        after=GONE,
    ),
    Operation(
        "connect to a cable",
        lambda engine: engine.connect("x", Join(Name("cable"))),
        before=then(CABLE, ATTACHED),
        after=CABLE_GONE,
    ),
    Operation(
        "disconnect",
        lambda engine: engine.disconnect("x", "old"),
        before=then(V4, attach("x", *MANY, nets=("old", "new"))),
        after=GONE,
    ),
    Operation(
        "publish",
        lambda engine: engine.publish("x", *[Publish.parse(each) for each in MANY]),
        before=attach("x", nets=("old",), ip="10.9.0.9"),
        after=GONE,
    ),
    Operation(
        "unpublish",
        lambda engine: engine.unpublish("x", Publish.parse("9100-9104:7100-7104/udp")),
        before=ATTACHED,
        after=GONE,
    ),
    Operation(
        "restore",
        gc.restore,
        before=then(
            V4,
            attach("x", "81:80", nets=("new", "old")),
            lambda _: run(f"ip link del vw-{network_id('new')}"),
            shell(f"ip link del vw{b'x'.hex().ljust(10, '0')}01", "nft flush table inet vethwork"),
        ),
        after=GONE,
    ),
    Operation(
        "gc",
        gc.collect_garbage,
        before=then(
            other("o"),
            attach("x", "81:80", nets=("old",)),
            attach("y", "82:80", nets=("old",), netns=f"{tools.HOME}/others/o"),
            shell(
                f"umount {pinned('x')}",
                f"ip link add stray1 address 02:00:00:00:00:01 group {LINK_GROUP} type bridge",
                f"ip link add stray2 group {LINK_GROUP} type veth",
                "nft add element inet vethwork port4 { tcp . 999 : 10.9.0.250 . 80 }",
                f"touch {RUN}/netns/stray",
            ),
        ),
        after=then(detach("y"), gc.collect_garbage),
    ),
)


def network_id(name: str) -> str:
    """The part of a network's id that its device has in its name."""
    ((found,),) = sql("SELECT id FROM networks WHERE name = ?", name)
    return str(found)[:12]


def died_in_closing() -> bool:
    """Whether the plan that somebody died in is one to be finished."""
    plans = [json.loads(text)["Plan"] for (text,) in sql("SELECT plan FROM intents")]
    return any(plan[-1] for plan in plans)


def assert_same(states: list[tuple[str, Seen]]) -> None:
    """They are the same, or the first difference is told."""
    where, expected = states[0]
    for here, state in states[1:]:
        difference = state.against(expected)
        assert not difference, f"{here}, compared with {where}:\n{difference}"


def follow_up(engine: Engine) -> None:
    """One ordinary command: somebody else attaches something else. It gets the first free address."""
    sql("DELETE FROM cursors")
    engine.attach(request("next", "88:80", nets=("old",), ip="10.9.0.99"))


def rehearse(world: World, operation: Operation, kill: Callable[[World, int], bool]) -> None:
    """Kill the operation at every milestone, and compare what is there after the next command."""
    settled: dict[int, list[tuple[str, Seen]]] = {}
    for at in count(-1):
        start_from(world, operation)
        survived = at >= 0 and kill(world, at)
        milestones = world.milestones if at >= 0 else []
        state = milestones.count("settle") + died_in_closing()
        world.number(4000)
        with world.engine() as engine:
            follow_up(engine)
        last = f"killed after {milestones[-1]} ({at})" if milestones else "not begun"
        settled.setdefault(state, []).append(("survived" if survived else last, world.seen()))
        assert not sql("SELECT * FROM intents"), f"{last}: an intent is left"
        with world.engine() as engine:
            detach("next")(engine)
            operation.after(engine)
        if survived:
            break
    for states in settled.values():
        assert_same(states)
    world.assert_settled()


def start_from(world: World, operation: Operation) -> None:
    """Make the state that an operation starts from."""
    world.number(2000)
    sql("DELETE FROM cursors")
    with world.engine() as engine:
        operation.before(engine)
    sql("DELETE FROM cursors")
    world.number(3000)


def killed(operation: Operation, world: World) -> None:
    """The operation, killed at each of its milestones."""
    world.settle()
    rehearse(world, operation, lambda world, at: world.victim(operation.work, at))


@pytest.mark.parametrize("operation", OPERATIONS, ids=repr)
def test_killed_at_every_milestone(operation: Operation, run_ahead: RunAhead) -> None:
    run_ahead(killed)


AGAIN = [
    each
    for each in OPERATIONS
    if each.name
    in (
        "create network dual stack",
        "attach with ports",
        "attach on the default network, at its first use",
        "attach second end",
        "detach one end of two",
        "connect",
        "publish",
    )
]


def repeated(operation: Operation, world: World) -> None:
    """The command that was killed is the next command: it works, or says that it was done already."""
    world.settle()
    states: list[tuple[str, Seen]] = []
    survived = False
    for at in count():
        start_from(world, operation)
        survived = world.victim(operation.work, at)
        done = world.milestones.count("settle") > 0 or died_in_closing()
        sql("DELETE FROM cursors")
        world.number(3000)
        with world.engine() as engine:
            try:
                operation.work(engine)
            except (ConflictError, NotFound):
                assert done, f"killed after {world.milestones[-1]}: refused, although it was not done"
            states.append((f"killed after {world.milestones[-1]} ({at})", world.seen()))
            operation.after(engine)
        if survived:
            break
    assert_same(states)
    world.assert_settled()


@pytest.mark.parametrize("operation", AGAIN, ids=repr)
def test_the_same_again_goes_on_where_the_killed_one_died(operation: Operation, run_ahead: RunAhead) -> None:
    run_ahead(repeated)


def test_a_namespace_that_is_pinned_again_is_another_one() -> None:
    """To undo what a killed attach did, its namespace is entered; its path leads to a new one a moment later."""

    def scenario(world: World) -> tuple[list[str], list[str]]:
        world.settle()
        with world.engine() as engine:
            then(CABLE, attach("x", **ON_CABLE))(engine)
        work = attach("y", **ON_CABLE)
        for at in count():
            assert not world.victim(work, at)
            if world.milestones[-1] == "MoveLink":
                break
        with world.engine() as engine:
            work(engine)
        return list(links(pinned("x"))), list(links(pinned("y")))

    for ends in in_world(scenario):
        assert any(link.startswith("eth0 ") for link in ends), "the cable's end is in its container"


UNDONE = [
    each
    for each in OPERATIONS
    if each.name
    in (
        "create network dual stack",
        "create network p2p",
        "attach with ports",
        "attach to two networks",
        "attach given namespace",
        "attach to container",
        "attach second end",
        "attach second end, where the parked one is gone",
        "connect",
        "connect to a cable",
        "publish",
    )
]


def undone(operation: Operation, world: World) -> None:
    """The last step fails, everything is taken back, and that is killed at each of its milestones."""
    world.settle()
    start_from(world, operation)
    assert world.victim(operation.work)
    steps = len(world.milestones) - 1
    with world.engine() as engine:
        operation.after(engine)
    states = []
    for at in count(steps - 1):
        start_from(world, operation)
        alive = world.victim(operation.work, at, fail_at=steps - 1)
        milestones = world.milestones
        world.number(4000)
        with world.engine() as engine:
            follow_up(engine)
        states.append((f"killed after {milestones[-1]} ({at})", world.seen()))
        assert not sql("SELECT * FROM intents"), f"{milestones[-1]}: an intent is left"
        with world.engine() as engine:
            detach("next")(engine)
            operation.after(engine)
        if alive:
            break
    assert_same(states)
    world.assert_settled()


@pytest.mark.parametrize("operation", UNDONE, ids=repr)
def test_killed_in_the_middle_of_an_undo(operation: Operation, run_ahead: RunAhead) -> None:
    run_ahead(undone)


CLEARED = [
    each for each in OPERATIONS if each.name in ("create network dual stack", "attach with ports", "detach")
]


def cleared(operation: Operation, world: World) -> None:
    """Two die one after the other: the operation after each step, and who comes next at each milestone of the clearing up."""
    world.settle()
    start_from(world, operation)
    assert world.victim(operation.work)
    steps = len(world.milestones)
    with world.engine() as engine:
        operation.after(engine)
    states: dict[bool, list[tuple[str, Seen]]] = {}
    for at in count():
        start_from(world, operation)
        assert not world.victim(operation.work, steps - 2)
        closing = died_in_closing()
        world.victim(follow_up, at)
        cleared = "intend" in world.milestones  # from here on it is about its own work
        with world.engine() as engine:
            engine.detach("nobody")
            detach("next")(engine)
            follow_up(engine)
            states.setdefault(closing, []).append((f"killed at {at}", world.seen()))
            detach("next")(engine)
            operation.after(engine)
        if cleared:
            break
    for each in states.values():
        assert_same(each)
    world.assert_settled()


@pytest.mark.parametrize("operation", CLEARED, ids=repr)
def test_who_clears_up_is_killed_too(operation: Operation, run_ahead: RunAhead) -> None:
    run_ahead(cleared)


NEXT: dict[str, Act] = {
    "attach": attach("next", nets=("none",)),
    "detach of nobody": detach("nobody"),
    "detach of the same": detach("x"),
    "connect": lambda engine: engine.connect("idle", Join(Name("old"))),
    "disconnect": lambda engine: engine.disconnect("joined", "old"),
    "publish": lambda engine: engine.publish("settled", Publish.parse("8181:80")),
    "unpublish": lambda engine: engine.unpublish("settled", Publish.parse("8282:80")),
    "create network": network("next", "10.6.0.0/24"),
    "remove network": remove("idle"),
    "gc": gc.collect_garbage,
    "restore": gc.restore,
}


@pytest.mark.parametrize("follow", NEXT)
@pytest.mark.parametrize("network_too", [False, True])
def test_every_command_that_changes_something_clears_up_first(follow: str, network_too: bool) -> None:
    def scenario(world: World) -> None:
        world.settle()
        with world.engine() as engine:
            then(network("idle", "10.5.0.0/24"), attach("idle", nets=("none",)))(engine)
            then(attach("joined", nets=("old",)), publish_more)(engine)
        opening = network("new", "10.8.0.0/24") if network_too else ATTACHED
        assert not world.victim(opening, 4)
        assert sql("SELECT * FROM intents")
        with world.engine() as engine:
            NEXT[follow](engine)
        assert not sql("SELECT * FROM intents")
        hexed = b"x".hex().ljust(12, "0")
        assert not world.seen().mentions(hexed, "10.8.0", " 9000"), world.seen()
        world.assert_settled()

    in_world(scenario)


def publish_more(engine: Engine) -> None:
    """A port to be closed."""
    engine.publish("settled", Publish.parse("8282:80"))
