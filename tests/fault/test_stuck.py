"""What somebody died over and nobody can finish: it is told, it keeps nobody else waiting, and it is gone once it can be.

What cannot be done here is to unlink a directory: it stands where the pin of a namespace is to be removed.
"""

from __future__ import annotations

import os

import pytest

from tests.fault.world import ROOT, RUN, World, in_world, network, request, sql
from vethwork.engine.engine import Engine
from vethwork.errors import ConflictError, Incomplete, KernelRefused
from vethwork.maintenance import gc
from vethwork.maintenance.doctor import examine
from vethwork.model.plan import Plan
from vethwork.model.steps import UnpinNetns
from vethwork.store.locks import Locks

IN_THE_WAY = f"{RUN}/netns/in-the-way"


def problems(engine: Engine) -> list[str]:
    """What the doctor finds and advises about leftovers."""
    found = [each for each in examine(engine) if each.subject == "leftovers" and each.level == "problem"]
    return [f"{each.found} -> {each.advice}" for each in found]


def die_over_the_removal_of(engine: Engine, name: str) -> None:
    """Leave behind what somebody does who dies in the middle of it."""
    steps = (UnpinNetns(IN_THE_WAY),)
    with engine.store.transaction():
        gone = (engine.network(name),)
        engine.store.intend(Plan("remove network", name, steps, removes=gone, forward=True))


def test_the_removal_of_a_network_that_cannot_be_finished() -> None:
    def scenario(world: World) -> None:
        world.settle()
        os.mkdir(IN_THE_WAY)
        with world.engine() as engine:
            engine.create_network(network("new", "10.8.0.0/24"))
            die_over_the_removal_of(engine, "new")
        with world.engine() as engine:  # the first who comes tries, and goes on with his own
            engine.attach(request("x", nets=("old",)))
            (said,) = problems(engine)
            assert said.startswith(
                f"remove network new could not be finished: unpin the namespace at {IN_THE_WAY}: EISDIR"
            )
            assert said.endswith("-> mend that; then 'vethwork gc' goes on with it")
        with Locks(f"{ROOT}/locks") as somebody:
            somebody.world(exclusive=False)

            def others() -> None:
                with world.engine() as engine:
                    engine.attach(request("y", "81:80", nets=("old",)))
                    engine.detach("y")

            world.processes.fork(others).result(10)  # nobody waits for the world to do it again
        with world.engine() as engine:
            with pytest.raises(
                ConflictError, match=r"network new: its removal could not be finished: .*EISDIR"
            ):
                engine.attach(request("z", nets=("new",)))
            os.rmdir(IN_THE_WAY)
            gc.collect_garbage(engine)
            assert not problems(engine)
            assert engine.store.network("new") is None
        assert not sql("SELECT * FROM intents")
        world.assert_settled()

    in_world(scenario)


def test_the_removal_of_a_network_that_somebody_else_finishes() -> None:
    def scenario(world: World) -> None:
        world.settle()
        os.mkdir(IN_THE_WAY)
        with world.engine() as engine:
            engine.create_network(network("new", "10.8.0.0/24"))
            die_over_the_removal_of(engine, "new")
            for number in (1, 2):
                die_over_the_removal_of(engine, "new")
                with pytest.raises(ConflictError, match="could not be finished"):
                    engine.attach(request("z", nets=("new",)))
                assert len(sql("SELECT * FROM intents")) == 1, number
            engine.remove_network("new")  # what is in the way is none of the network's
        assert not sql("SELECT * FROM intents")

    in_world(scenario)


def test_a_detach_that_cannot_be_finished() -> None:
    """Who detaches is told each time, and nobody else."""

    def scenario(world: World) -> None:
        world.settle()
        with world.engine() as engine:
            engine.attach(request("x", "81:80", nets=("old",)))
            pin = engine.inspect("x").container.netns
            os.system(f"umount {pin} && rm {pin} && mkdir {pin}")
            for _ in range(2):
                with pytest.raises(Incomplete, match="EISDIR"):
                    engine.detach("x")
                engine.attach(request("y", "82:80", nets=("old",)))
                engine.detach("y")
                assert len(problems(engine)) == len(sql("SELECT * FROM intents")) == 1
            os.rmdir(pin)
            assert not engine.detach("x"), "it was finished before it is looked for"
            assert not problems(engine)
        world.assert_settled()

    in_world(scenario)


def test_garbage_that_cannot_be_removed() -> None:
    """It is said each time, the rest is done, and nothing is on record of it."""

    def scenario(world: World) -> None:
        world.settle()
        before = world.seen()
        os.mkdir(IN_THE_WAY)
        with world.engine() as engine:
            for _ in range(2):
                world.processes.fork(
                    lambda: os.system("nft add element inet vethwork bridges '{ \"stray\" }'")
                ).result(5)
                with pytest.raises(Incomplete, match=f"unpin the namespace at {IN_THE_WAY}: EISDIR"):
                    gc.collect_garbage(engine)
                assert not sql("SELECT * FROM intents")
            os.rmdir(IN_THE_WAY)
            assert not gc.collect_garbage(engine)
        assert not world.seen().against(before)

    in_world(scenario)


def test_an_undo_that_cannot_be_finished() -> None:
    """Its container is not to be had; everybody else goes on."""

    def scenario(world: World) -> None:
        world.settle()

        def stand_in_the_way(milestone: object) -> None:
            if milestone == "settle":
                return
            pin = f"{RUN}/netns/{b'x'.hex().ljust(12, '0')}"
            if os.path.isfile(pin):
                os.system(f"umount {pin} && rm {pin} && mkdir {pin}")
                raise KernelRefused("go on", 12)

        with world.engine(watch=stand_in_the_way) as engine, pytest.raises(Incomplete):
            engine.attach(request("x", nets=("old",)))
        with world.engine() as engine:
            engine.attach(request("y", nets=("old",)))
            (said,) = problems(engine)
            assert said.startswith("attach x could not be taken back: unpin")
            with pytest.raises(Incomplete):
                engine.attach(request("x", nets=("old",)))
            os.rmdir(f"{RUN}/netns/{b'x'.hex().ljust(12, '0')}")
            engine.attach(request("x", nets=("old",)))
            assert not problems(engine)

    in_world(scenario)
