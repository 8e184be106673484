"""Many at once: no address or port twice, no lost update, nobody waits for ever, nothing is left at the end."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.fault.world import RUN, World, bare_netns, in_world, network, our_links, pins, ruleset, run, sql
from vethwork.errors import ConflictError, KernelRefused, NotFound, RequestError
from vethwork.maintenance import gc
from vethwork.model.address import Address
from vethwork.model.container import Join
from vethwork.model.names import Name

if TYPE_CHECKING:
    from collections.abc import Callable


PROCESSES, ROUNDS = 8, 12
DEADLINE = 60.0


def at_once(world: World, work: Callable[[int], object], processes: int = PROCESSES) -> list[object]:
    """Do something in several processes at once, which begin together; what each gives. A deadline ends them all."""
    reading, writing = os.pipe()

    def begin(number: int) -> object:
        os.close(writing)
        os.read(reading, 1)
        return work(number)

    children = [world.processes.fork(partial(begin, number)) for number in range(processes)]
    os.close(reading)
    os.close(writing)
    return [child.result(DEADLINE) for child in children]


def assert_no_address_twice() -> None:
    """By the records, by what the kernel lets each port speak as, and by what is in the containers."""
    held = [(network, address) for network, address in sql("SELECT network, address FROM leases")]
    assert len(held) == len(set(held))
    spoken = [each.rpartition('", "')[2] for each in ruleset()[1] if each.startswith("bridge speakers4")]
    assert len(spoken) == len(set(spoken)), Counter(spoken).most_common(3)
    inside = []
    for netns in os.listdir(f"{RUN}/netns"):
        said = run(f"nsenter --net={RUN}/netns/{netns} ip -br -4 addr show scope global").split()
        inside += [word for word in said if "/" in word]
    assert len(inside) == len(set(inside)), Counter(inside).most_common(3)
    assert len(spoken) == len(inside)


def assert_all_gone(world: World) -> None:
    """Nothing is there but what was settled, and that works."""
    assert not sql("SELECT * FROM intents")
    with world.engine() as engine:
        names = [container.name for container in engine.containers()]
        assert names == ["settled"], names
        report = gc.collect_garbage(engine)
        assert not report, report
    assert len(list(pins())) == 2, list(pins())
    world.assert_settled()


@pytest.mark.parametrize("networks", [1, 4])
def test_attach_and_detach_at_once(networks: int) -> None:
    """Some with ports that are chosen, some with ranges that are named; who is left at the end is there once, and reached."""

    def scenario(world: World) -> None:
        world.settle()
        with world.engine() as engine:
            for number in range(networks):
                engine.create_network(network(f"n{number}", f"10.8.{number}.0/24", ipv6=True))

        def work(number: int) -> None:
            for turn in range(ROUNDS):
                name, net = f"c{number}-{turn}", f"n{(number + turn) % networks}"
                ports = ["80"] if number % 2 else [f"{9000 + 10 * number}-{9007 + 10 * number}:100-107"]
                with world.engine() as engine:
                    world.attach(engine, name, *ports, nets=(net,))
                    if turn < ROUNDS - 1:
                        assert engine.detach(name)

        at_once(world, work)
        names = sorted(f"c{number}-{ROUNDS - 1}" for number in range(PROCESSES))
        assert [name for (name,) in sql("SELECT name FROM containers ORDER BY name")] == [*names, "settled"]
        assert_no_address_twice()
        with world.engine() as engine:
            seen = {name: engine.inspect(name) for name in names}
        for name, each in seen.items():
            chosen = [
                publication.publish for publication in each.publications if publication.publish.count == 1
            ]
            if chosen:
                world.serve(each.container.netns, 80, name)
                assert world.ask("127.0.0.1", chosen[0].host_port) == name
        with world.engine() as engine:
            for name in names:
                assert engine.detach(name)
            for number in range(networks):
                engine.remove_network(f"n{number}")
        assert_all_gone(world)

    in_world(scenario, DEADLINE + 30)


def test_one_name_and_one_port_for_all() -> None:
    """Everybody wants the same name, or the same port: one has it at a time, the others are told who."""

    def scenario(world: World) -> None:
        world.settle()

        def work(number: int) -> int:
            won, told = 0, 0
            for _ in range(ROUNDS):
                name = "same" if number % 2 else f"own{number}"
                with world.engine() as engine:
                    try:
                        world.attach(engine, name, "7000:80", nets=("old",))
                    except ConflictError as error:
                        told += "same" in str(error) or "own" in str(error)
                        continue
                    won += 1
                    # It is mine until I detach it: nobody else's conflict may have taken it away.
                    (holder,) = sql("SELECT container FROM ports WHERE first = 7000")
                    assert holder == (name,), holder
                    assert os.path.exists(engine.inspect(name).container.netns)
                    assert engine.detach(name)
            assert won + told == ROUNDS, "a conflict did not name the holder"
            return won

        assert sum(int(str(won)) for won in at_once(world, work)) > 0
        assert_all_gone(world)

    in_world(scenario, DEADLINE + 30)


def test_first_use_of_the_default_network_at_once() -> None:
    def scenario(world: World) -> None:
        world.settle()

        def work(number: int) -> None:
            with world.engine() as engine:
                world.attach(engine, f"c{number}", "80", nets=("bridge",))

        for _ in range(4):
            at_once(world, work)
            assert len([each for each in our_links() if each == "vethwork0"]) == 1
            assert_no_address_twice()
            at_once(world, lambda number: detach(world, f"c{number}"))
            with world.engine() as engine:
                engine.remove_network("bridge")
        assert_all_gone(world)

    in_world(scenario, DEADLINE + 30)


def detach(world: World, name: str) -> None:
    """Detach a container, which must be there."""
    with world.engine() as engine:
        assert engine.detach(name)


def test_attach_while_the_ruleset_is_flushed_in_a_loop() -> None:
    def scenario(world: World) -> None:
        world.settle()

        def work(number: int) -> int:
            if number == 0:
                until = time.monotonic() + 3
                while time.monotonic() < until:
                    run("nft flush ruleset")
                return 0
            for turn in range(ROUNDS):
                with world.engine() as engine:
                    world.attach(engine, f"c{number}-{turn}", "80", nets=("old",))
                    assert engine.detach(f"c{number}-{turn}")
            return 1

        at_once(world, work, 5)
        with world.engine() as engine:
            gc.restore(engine)
        assert_all_gone(world)

    in_world(scenario, DEADLINE + 30)


def test_networks_come_and_go_while_containers_join_them() -> None:
    def scenario(world: World) -> None:
        world.settle()

        def work(number: int) -> int:
            done = 0
            for turn in range(ROUNDS):
                with world.engine() as engine:
                    try:
                        if number < 2:
                            engine.create_network(network("n", "10.8.0.0/24"))
                            engine.remove_network("n")
                        else:
                            world.attach(engine, f"c{number}-{turn}", "80", nets=("n", "old"))
                            assert engine.detach(f"c{number}-{turn}")
                        done += 1
                    except (ConflictError, NotFound):
                        continue
            return done

        at_once(world, work, 6)
        with world.engine() as engine:
            if engine.store.network("n"):
                engine.remove_network("n")
        assert_all_gone(world)

    in_world(scenario, DEADLINE + 30)


def test_both_ends_of_a_cable_at_once() -> None:
    """A cable belongs to two containers, which have turns of their own."""

    def scenario(world: World) -> None:
        world.settle()
        with world.engine() as engine:
            engine.create_network(network("cable", "10.7.0.0/29", driver="p2p"))

        def work(number: int) -> None:
            for _ in range(ROUNDS):
                with world.engine() as engine:
                    try:
                        world.attach(engine, f"c{number}", nets=("cable",))
                    except ConflictError:
                        continue  # the two ends are held
                    assert engine.detach(f"c{number}")

        at_once(world, work, 4)
        with world.engine() as engine:
            engine.remove_network("cable")
        assert_all_gone(world)

    in_world(scenario, DEADLINE + 30)


def test_a_namespace_is_shared_or_removed_but_not_both() -> None:
    def scenario(world: World) -> None:
        world.settle()

        def work(number: int) -> None:
            for turn in range(ROUNDS * 2):
                with world.engine() as engine:
                    try:
                        if number == 0:
                            world.attach(engine, "target", nets=("none",))
                            engine.detach("target")
                        elif number == 1:
                            engine.detach("target")
                        else:
                            name = f"c{number}-{turn}"
                            seen = world.attach(engine, name, nets=("container:target",))
                            assert os.path.exists(seen.container.netns), "it shares what is gone"
                            engine.detach(name)
                    except (ConflictError, RequestError):
                        continue

        at_once(world, work, 6)
        detach_if_there(world, "target")
        assert_all_gone(world)

    in_world(scenario, DEADLINE + 30)


def detach_if_there(world: World, name: str) -> None:
    """Detach a container that may be there."""
    with world.engine() as engine:
        engine.detach(name)


def test_gc_and_restore_while_others_work() -> None:
    """What is being made is neither garbage nor lost."""

    def scenario(world: World) -> None:
        world.settle()

        def work(number: int) -> None:
            for turn in range(ROUNDS):
                with world.engine() as engine:
                    if number == 0:
                        gc.collect_garbage(engine)
                    elif number == 1:
                        assert not gc.restore(engine)
                    else:
                        name = f"c{number}-{turn}"
                        world.attach(engine, name, "80", nets=("old",))
                        assert engine.detach(name), f"{name} is lost"

        at_once(world, work, 6)
        assert_all_gone(world)

    in_world(scenario, DEADLINE + 30)


def test_some_are_killed_while_others_work() -> None:
    """Whoever works clears up after the dead, and never after the living."""

    def scenario(world: World) -> None:
        world.settle()
        with world.engine() as engine:
            engine.create_network(network("cable", "10.7.0.0/28", driver="p2p"))

        def work(number: int) -> None:
            for turn in range(ROUNDS):
                name = f"c{number}-{turn}"
                with world.engine() as engine:
                    world.attach(engine, name, "80", nets=("old",))
                    assert engine.detach(name), f"{name} is lost"

        def die(number: int) -> None:
            dice = random.Random(number)

            def watch(_: object) -> None:
                if dice.random() < 0.08:
                    os.kill(os.getpid(), signal.SIGKILL)

            with world.engine(watch=watch) as engine:
                for turn in range(1000):
                    net = "cable" if dice.random() < 0.3 else "old"
                    try:
                        world.attach(
                            engine, f"d{number}-{turn}", *(["80"] if net == "old" else []), nets=(net,)
                        )
                        engine.detach(f"d{number}-{turn}")
                        name = f"n{number}-{turn}"
                        engine.create_network(network(name, f"10.8.{number}.0/24"))
                        engine.remove_network(name)
                    except ConflictError:
                        continue

        workers = [world.processes.fork(partial(work, number)) for number in range(4)]
        for number in range(24):
            child = world.processes.fork(partial(die, number))
            with pytest.raises(ChildProcessError):
                child.result(DEADLINE)
        for worker in workers:
            worker.result(DEADLINE)
        with world.engine() as engine:
            engine.detach("nobody")
            for container in engine.containers():
                if container.name != "settled":
                    engine.detach(container.name)
            for each in engine.networks():
                if each.name != "old":
                    engine.remove_network(each.name)
        assert_all_gone(world)

    in_world(scenario, 2 * DEADLINE)


# Full ---------------------------------------------------------------------------------------------------------------


def test_a_full_subnet() -> None:
    def scenario(world: World) -> None:
        world.settle()
        with world.engine() as engine:
            engine.create_network(network("small", "10.8.0.0/29"))
            for number in range(5):
                world.attach(engine, f"c{number}", nets=("small",))
        before = world.seen()
        with world.engine() as engine, pytest.raises(ConflictError, match=r"10\.8\.0\.0/29 is full"):
            world.attach(engine, "x", "81:80", nets=("old", "small"))
        with world.engine() as engine, pytest.raises(ConflictError, match=r"10\.8\.0\.0/29 is full"):
            engine.connect("settled", Join(Name("small")))
        assert not world.seen().against(before)
        with world.engine() as engine:
            engine.detach("c2")
            seen = world.attach(engine, "x", nets=("small",))
            assert seen.endpoints[0].addresses[0].address == Address.parse("10.8.0.4")

    in_world(scenario)


def test_a_full_bridge() -> None:
    """A bridge takes 1023 ports; a subnet that is large enough does not help."""

    def scenario(world: World) -> None:
        world.settle()
        with world.engine() as engine:
            made = engine.create_network(network("large", "10.8.0.0/20"))
        lines = [
            f"link add a{number} type veth peer name b{number}\nlink set a{number} master {made.device}"
            for number in range(1023)
        ]
        run("ip -batch -", stdin="\n".join(lines))
        before = run("ip -br link show")
        with world.engine() as engine:
            with pytest.raises(KernelRefused) as caught:
                world.attach(engine, "x", "81:80", nets=("large",))
            assert made.device in str(caught.value)
            assert "1023" in str(caught.value)
            assert engine.store.container("x") is None
        assert run("ip -br link show") == before
        assert not sql("SELECT * FROM intents")
        world.assert_settled()

    in_world(scenario)


def test_idempotent_ends() -> None:
    """Detach and remove twice, and of what never was."""

    def scenario(world: World) -> None:
        from vethwork.process import lifecycle

        world.settle()
        before = world.seen()
        with world.engine() as engine:
            assert not engine.detach("never")
            assert not lifecycle.remove(engine, "never", force=True)
            path = bare_netns("o")
            world.attach(engine, "x", "81:80", nets=("old",), netns=path)
            assert engine.detach("x")
            assert not engine.detach("x")
            assert not lifecycle.remove(engine, "x")
            with pytest.raises(NotFound):
                engine.remove_network("never")
        assert not world.seen().against(before)
        world.assert_settled()

    in_world(scenario)
