"""kill -9 at every milestone of running a process: in the caller, in the supervisor that is left behind, in the removal.

Beside the engine's milestones those of the runtime count: before and after it records a process, lets it go, writes files
and deletes them. Whoever reaches the n-th one dies, be it the caller or the supervisor.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

import pytest

from tests.fault.world import World, in_world, request, sql
from vethwork.errors import KernelRefused
from vethwork.maintenance import gc
from vethwork.model.process import RunOptions
from vethwork.process import lifecycle
from vethwork.process.spawn import Process, is_alive
from vethwork.store.database import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vethwork.engine.engine import Engine


def options(*command: str, detached: bool, remove: bool) -> RunOptions:
    """How to start a command."""
    return RunOptions(command, "", "x", (), (), detached, remove)


def run_it(engine: Engine, *command: str, detached: bool, remove: bool) -> object:
    """Do what ``vethwork run`` does."""
    lifecycle.sweep(engine)
    wish = options(*command, detached=detached, remove=remove)
    lifecycle.create(engine, request("x", "81:80", nets=("old",), ip="10.9.0.9"), wish)
    return lifecycle.start(engine, "x")


def with_milestones(work: Callable[[Engine], object]) -> Callable[[Engine], None]:
    """Tell the milestones of the runtime, too."""

    def told(engine: Engine) -> None:
        watch = engine._watch
        assert watch is not None
        for owner, name in (
            (Store, "put_process"),
            (Process, "go"),
            (lifecycle, "write_files"),
            (lifecycle, "delete_files"),
        ):
            setattr(owner, name, telling(getattr(owner, name), watch, name))
        with suppress(KernelRefused):  # the caller is told when the supervisor dies
            work(engine)

    return told


def telling(function: Callable[..., Any], watch: Callable[[object], None], name: str) -> Callable[..., Any]:
    """The same function, that tells before and after."""

    def told(*args: Any, **named: Any) -> Any:
        watch(f"before_{name}")
        result = function(*args, **named)
        watch(f"after_{name}")
        return result

    return told


def inhabitants(needle: str) -> list[int]:
    """The processes of this world that execute a command."""
    found = []
    for pid in [int(name) for name in os.listdir("/proc") if name.isdecimal()]:
        with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            if file.read().split(b"\0")[:2] == [b"sleep", needle.encode()]:
                found.append(pid)
    return found


def settle_down(needle: str, alive: bool) -> list[int]:
    """Wait until the commands that end have ended; gives those that run."""
    deadline = time.monotonic() + 5
    while not alive and inhabitants(needle) and time.monotonic() < deadline:
        time.sleep(0.01)
    return inhabitants(needle)


RUNS: dict[str, tuple[bool, bool]] = {
    "run": (False, False),
    "run --rm": (False, True),
    "run -d": (True, False),
    "run -d --rm": (True, True),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_short_run_killed_at_every_milestone(name: str) -> None:
    """With --rm, ``ps`` is enough and nothing is left. Without, the container is there or not, and can be removed."""
    detached, remove = RUNS[name]

    def scenario(world: World) -> None:
        world.settle()
        before = world.seen()
        for at in count():
            work = with_milestones(lambda engine: run_it(engine, "true", detached=detached, remove=remove))
            inhabited = running()
            survived = world.victim(work, at)
            wait_until_only(inhabited)
            died = f"killed after {world.milestones[-1]} ({at})"
            with world.engine() as engine:
                lifecycle.sweep(engine)
                engine.detach("nobody")
                there = engine.store.container("x") is not None
                assert not (there and remove), f"{died}: --rm, and it is there"
                lifecycle.remove(engine, "x", force=True)
                if not survived:
                    gc.collect_garbage(engine)
            difference = world.seen().against(before)
            assert not difference, f"{died}:\n{difference}"
            if survived and at >= len(world.milestones):
                break
        world.assert_settled()

    in_world(scenario, 120)


def running() -> set[str]:
    """The processes of this world that have not ended."""
    found = set()
    for name in [name for name in os.listdir("/proc") if name.isdecimal()]:
        with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            if file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X"):
                found.add(name)
    return found


def wait_until_only(before: set[str]) -> None:
    """Wait until every process that was left behind has ended: it sees that its parent is gone."""
    deadline = time.monotonic() + 5
    while running() - before:
        assert time.monotonic() < deadline, "somebody stays"
        time.sleep(0.005)


@pytest.mark.parametrize("remove", [False, True], ids=["keep", "--rm"])
def test_a_long_run_whose_keeper_is_killed_at_every_milestone(remove: bool) -> None:
    """The command runs, or never ran; ``rm -f`` ends it and leaves nothing, and with --rm ``ps`` after its end does."""

    def scenario(world: World) -> None:
        world.settle()
        before = world.seen()
        for at in count():
            work = with_milestones(
                lambda engine: run_it(engine, "sleep", "1234", detached=True, remove=remove)
            )
            world.victim(work, at)
            died = f"killed after {world.milestones[-1]} ({at})"
            done = at >= len(world.milestones)
            with world.engine() as engine:
                lifecycle.sweep(engine)
                row = engine.store.process("x")
                there = engine.store.container("x") is not None
                alive = row is not None and is_alive(row.pid, row.start_time)
            assert not (inhabitants("1234") and not there), f"{died}: it runs without a container"
            if remove and alive:
                for pid in inhabitants("1234"):
                    os.kill(pid, signal.SIGKILL)
                wait_until_swept(world)
            with world.engine() as engine:
                lifecycle.remove(engine, "x", force=True)
                gc.collect_garbage(engine)
            assert not settle_down("1234", alive=False), f"{died}: it runs still"
            difference = world.seen().against(before)
            assert not difference, f"{died}:\n{difference}"
            if done:
                break
        world.assert_settled()

    in_world(scenario, 120)


def wait_until_swept(world: World) -> None:
    """After the end of its process a container that was to go with it goes, by its keeper or by who comes next."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with world.engine() as engine:
            lifecycle.sweep(engine)
            if engine.store.container("x") is None:
                return
        time.sleep(0.01)
    raise AssertionError("--rm, and it stays")


def test_remove_killed_at_every_milestone() -> None:
    def scenario(world: World) -> None:
        world.settle()
        before = world.seen()
        for at in count():
            assert world.victim(lambda engine: run_it(engine, "sleep", "1234", detached=True, remove=False))
            work = with_milestones(lambda engine: lifecycle.remove(engine, "x", force=True))
            survived = world.victim(work, at)
            died = f"killed after {world.milestones[-1]} ({at})"
            with world.engine() as engine:
                lifecycle.remove(engine, "x", force=True)
                gc.collect_garbage(engine)
            assert not settle_down("1234", alive=False), died
            difference = world.seen().against(before)
            assert not difference, f"{died}:\n{difference}"
            assert not sql("SELECT * FROM intents")
            if survived:
                break
        world.assert_settled()

    in_world(scenario, 120)


def test_what_was_created_and_never_started_can_be_started() -> None:
    """Whoever made it died before its files were written."""

    def scenario(world: World) -> None:
        world.settle()

        def create(engine: Engine) -> None:
            wish = options("true", detached=False, remove=False)
            lifecycle.create(engine, request("x", nets=("old",)), wish)

        assert world.victim(with_milestones(create))
        at = world.milestones.index("before_write_files")
        with world.engine() as engine:
            lifecycle.remove(engine, "x")
        assert not world.victim(with_milestones(create), at)
        assert world.victim(lambda engine: lifecycle.start(engine, "x"))
        with world.engine() as engine:
            row = engine.store.process("x")
            assert row is not None
            assert row.status == 0
            assert lifecycle.remove(engine, "x")

    in_world(scenario)
