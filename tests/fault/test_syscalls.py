"""kill -9 at every system call of an attach and of a detach, then one ordinary command: nothing is left, nothing is lost.

Theory. strace(1) counts the calls of a kind that each thread makes, and can kill the process on entry to the n-th of them.
One run without a kill tells which calls there are; then the operation is killed at each by itself. The calls before
the first one that changes anything are part of it: they cost nothing to prove. What becomes of the operation is read from the
record that the next command finds settled, and then the world must be the one or the other, to ``ip``, ``nft`` and raw SQL.

Rules: ``make test`` tries every STRIDE-th call, always the same; ``make fault-syscalls`` tries every one, which takes five
minutes.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.fault.test_killed import ATTACHED, GONE, Operation, detach, follow_up, start_from
from tests.fault.world import HOME, World, in_world, sql

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fault.world import Seen

STRIDE = 1 if os.environ.get("VETHWORK_EVERY_SYSCALL") else 17
OPERATIONS = (
    Operation("attach with ports", ATTACHED, after=GONE),
    Operation("detach", detach("x"), before=ATTACHED, after=GONE),
)
CALL = re.compile(r"^(\d+) +(\w+)\(")


def traced(world: World, operation: Operation, *options: str) -> None:
    """Run an operation in a child that strace watches from before its first call to its last."""
    begin, go = os.pipe()

    def work() -> None:
        os.read(begin, 1)
        with world.engine() as engine:
            operation.work(engine)

    child = world.processes.fork(work)
    strace = subprocess.Popen(
        ["strace", "-f", "-o", f"{HOME}/calls", *options, "-p", str(child.pid)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert strace.stderr is not None
    assert "attached" in strace.stderr.readline()
    os.write(go, b"x")
    try:
        child.result(60)
    except ChildProcessError:
        assert child.status == 9
    finally:
        strace.communicate(timeout=60)
        os.close(begin)
        os.close(go)


def calls_of(world: World, operation: Operation) -> list[tuple[str, int]]:
    """Every call that it makes: its name, and how many of that name the same thread has made."""
    start_from(world, operation)
    traced(world, operation)
    found: dict[tuple[str, int], None] = {}
    made: Counter[tuple[str, str]] = Counter()
    with open(f"{HOME}/calls") as file:
        for line in file:
            if call := CALL.match(line):
                made[call[1], call[2]] += 1
                found[call[2], made[call[1], call[2]]] = None
    return list(found)


def is_there() -> bool:
    """Whether the container is on record."""
    return bool(sql("SELECT * FROM containers WHERE name = 'x'"))


def look_after(world: World, operation: Operation) -> tuple[bool, Seen]:
    """Give one ordinary command, look, and begin anew."""
    world.number(4000)
    with world.engine() as engine:
        follow_up(engine)
    seen = is_there(), world.seen()
    assert not sql("SELECT * FROM intents"), "an intent is left"
    with world.engine() as engine:
        detach("next")(engine)
        operation.after(engine)
    return seen


def killed(operation: Operation) -> Callable[[World], int]:
    """Kill it at every STRIDE-th call; gives at how many it died."""

    def scenario(world: World) -> int:
        world.settle()
        calls = calls_of(world, operation)
        outcomes = dict([look_after(world, operation)])
        start_from(world, operation)
        outcomes |= [look_after(world, operation)]
        assert len(outcomes) == 2, "done and not done are told apart"
        for name, number in calls[::STRIDE]:
            start_from(world, operation)
            traced(world, operation, f"-etrace={name}", f"-einject={name}:signal=KILL:when={number}")
            there, seen = look_after(world, operation)
            differences = seen.against(outcomes[there])
            assert not differences, f"killed at {name} number {number}:\n{differences}"
        world.assert_settled()
        return len(calls)

    return scenario


@pytest.mark.parametrize("operation", OPERATIONS, ids=repr)
def test_killed_at_a_system_call(operation: Operation, tool: Callable[[str], str]) -> None:
    tool("strace")
    assert in_world(killed(operation), 600) > 100
