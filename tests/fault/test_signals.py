"""SIGINT and SIGTERM in the middle of a command: undone, and an exit status that says so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import count

import pytest

from tests.fault.world import World, in_world, network, sql, watch_all
from vethwork.frontends.cli import main as cli


def interrupted(world: World, arguments: list[str], number: int, at: int) -> tuple[int, list[str]]:
    """Run a command line that gets a signal at its milestone ``at``; gives its exit status and its milestones."""
    reading, writing = os.pipe()

    def work() -> int:
        seen = 0

        def watch(milestone: object) -> None:
            nonlocal seen
            os.write(
                writing, f"{milestone if isinstance(milestone, str) else type(milestone).__name__}\n".encode()
            )
            seen += 1
            if seen == at + 1:
                os.kill(os.getpid(), number)

        watch_all(watch)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        try:
            cli.main(arguments)
        except SystemExit as ended:
            return int(ended.code or 0)
        raise AssertionError("the command line does not end")

    child = world.processes.fork(work)
    status = child.result(30)
    os.close(writing)
    with os.fdopen(reading) as file:
        return status, file.read().split()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    "command",
    [
        "run --name x --net old -p 81:80 --rm -- true",
        "network create x --subnet 10.8.0.0/24 --ipv6",
        "publish settled 81:80 82-90:82-90/udp",
        "network connect new settled",
    ],
    ids=["run", "network create", "publish", "network connect"],
)
def test_a_signal_at_every_milestone(command: str, number: int) -> None:
    def scenario(world: World) -> None:
        world.settle()
        if "connect" in command:
            with world.engine() as engine:
                engine.create_network(network("new", "10.7.0.0/24"))
        before = world.seen()
        for at in count():
            status, milestones = interrupted(world, command.split(), number, at)
            if status == 0:
                assert at >= milestones.index("settle")
                break
            assert status == 128 + number
            difference = world.seen().against(before)
            if "settle" in milestones[: at + 1] and difference:
                break  # it was done when the signal came
            assert not difference, f"{milestones[at]} ({at}):\n{difference}"
            assert not sql("SELECT * FROM intents")
        world.assert_settled()

    in_world(scenario)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_removal_that_is_interrupted_is_finished_by_the_next_command(number: int) -> None:
    def scenario(world: World) -> None:
        world.settle()
        before = world.seen()
        for at in count():
            with world.engine() as engine:
                sql("DELETE FROM cursors")
                world.attach(engine, "x", "81:80", nets=("old",))
            status, milestones = interrupted(world, ["detach", "x"], number, at)
            with world.engine() as engine:
                engine.detach("nobody")
            difference = world.seen().against(before)
            assert not difference, f"{milestones[-1]} ({at}):\n{difference}"
            if status == 0:
                break
            assert status == 128 + number
        world.assert_settled()

    in_world(scenario)


EARLY = """
import os, runpy, signal, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Watch())
sys.argv[1:] = ["version"]
runpy.run_module("vethwork", run_name="__main__", alter_sys=True)
"""


def test_a_signal_while_the_command_line_is_being_loaded() -> None:
    """It ends without a word; and where it is ignored (``nohup``), it stays so."""
    done = subprocess.run([sys.executable, "-c", EARLY], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
    deaf = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{EARLY}"
    done = subprocess.run([sys.executable, "-c", deaf], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("vethwork ")
