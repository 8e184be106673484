"""The state file on a full disk, on a read-only one, damaged, and of another version."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fault.world import ROOT, World, in_world, network, our_links, pins, request, ruleset, run, sql
from vethwork.engine.engine import Engine
from vethwork.errors import RequestError, StateError
from vethwork.maintenance import gc
from vethwork.maintenance.doctor import examine
from vethwork.model.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable

    Act = Callable[[Engine], object]

STATE = Path(ROOT, "state.db")
PAGE = 4096


# No space -----------------------------------------------------------------------------------------------------------


def mount_small(options: str = "size=1m") -> None:
    """Put the state on a file system of its own."""
    os.makedirs(ROOT, exist_ok=True)
    run(f"mount -t tmpfs -o {options} tmpfs {ROOT}")


def fill() -> None:
    """Leave no room on it."""
    with open(f"{ROOT}/ballast", "ab", buffering=0) as file:
        for size in (65536, PAGE, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def make_room() -> None:
    """Give the room back."""
    Path(ROOT, "ballast").unlink(missing_ok=True)


def forget_log() -> None:
    """Let the write-ahead log begin anew, so that it must grow for the next transaction."""
    sql("PRAGMA wal_checkpoint(TRUNCATE)")


def attach_x(engine: Engine) -> None:
    """A container with a port."""
    engine.attach(request("x", "81:80", nets=("old",), ip="10.9.0.9"))


CHANGES: dict[str, tuple[Act, Act]] = {
    "create network": (
        lambda engine: engine.create_network(network("new", "10.8.0.0/24")),
        lambda engine: None,
    ),
    "attach": (
        attach_x,
        lambda engine: None,
    ),
    "detach": (
        lambda engine: engine.detach("x"),
        attach_x,
    ),
}


def test_the_doctor_sees_that_the_disk_fills_up() -> None:
    def scenario(world: World) -> None:
        mount_small("size=32m")
        world.settle()

        def told() -> list[str]:
            with world.engine() as engine:
                return [each.found for each in examine(engine) if each.subject == "records"]

        assert not told()
        with open(f"{ROOT}/ballast", "wb") as file:
            file.write(bytes(20 << 20))
        (found,) = told()
        assert f"KiB left on the file system of {ROOT}" in found

    in_world(scenario)


@pytest.mark.parametrize("name", CHANGES)
def test_no_space_at_every_milestone(name: str) -> None:
    """The disk is full from a milestone on: the error says so, and the next command finds nothing of it in the kernel."""
    change, before = CHANGES[name]

    def scenario(world: World) -> None:
        mount_small()
        world.settle()
        sql("DELETE FROM cursors")
        with world.engine() as engine:
            before(engine)
        sql("DELETE FROM cursors")
        start = world.seen()
        assert world.victim(change)
        count = len(world.milestones)
        finished = world.seen()
        with world.engine() as engine:
            upkeep_to(engine, name)
        refused = 0
        for at in range(-1, count - 1):
            refused += try_without_space(world, change, at)
            closing = at >= 0 and name == "detach"
            difference = world.seen().against(finished if closing else start)
            assert not difference, f"full at {at}:\n{difference}"
            assert not sql("SELECT * FROM intents")
            with world.engine() as engine:
                upkeep_to(engine, name)
        assert refused == count
        world.assert_settled()

    in_world(scenario)


def upkeep_to(engine: Engine, name: str) -> None:
    """Get back to where the change starts from."""
    if name == "create network":
        if engine.store.network("new"):
            engine.remove_network("new")
    else:
        engine.detach("x")
        sql("DELETE FROM cursors")
        CHANGES[name][1](engine)


def try_without_space(world: World, change: Act, at: int) -> bool:
    """Do something while the disk is full from a milestone on; then make room, and do something else."""
    count = 0

    def watch(_: object) -> None:
        nonlocal count
        if count == at:
            fill()
        count += 1

    world.number(1000)
    sql("DELETE FROM cursors")
    forget_log()
    engine = world.engine(watch=watch)
    refused = False
    try:
        if at < 0:
            fill()
        change(engine)
    except StateError as error:
        refused = "full" in str(error) and "make room" in error.hint
    finally:
        engine.close()
        make_room()
    with world.engine() as after:
        after.detach("nobody")
    return refused


@pytest.mark.parametrize(
    "options", ["size=1m", "size=1m,nr_inodes=1", "size=1m,nr_inodes=2", "size=1m,nr_inodes=3"]
)
def test_no_space_for_a_new_state_file(options: str) -> None:
    def scenario(world: World) -> None:
        mount_small(options)
        if "inodes" not in options:
            fill()
        with pytest.raises(StateError) as caught, world.engine() as engine:
            engine.attach(request("x", nets=("bridge",)))
        assert ROOT in str(caught.value)
        assert not our_links()
        assert not list(pins())
        run(f"umount {ROOT}")
        world.settle()
        world.assert_settled()

    in_world(scenario)


def test_read_only() -> None:
    def scenario(world: World) -> None:
        mount_small()
        world.settle()
        before = world.seen()
        run(f"mount -o remount,ro {ROOT}")
        for change, _ in CHANGES.values():
            with pytest.raises(StateError) as caught, world.engine() as engine:
                change(engine)
            assert ROOT in str(caught.value)
            assert "read-only" in str(caught.value).lower().replace("readonly", "read-only"), caught.value
        run(f"mount -o remount,rw {ROOT}")
        assert not world.seen().against(before)
        world.assert_settled()

    in_world(scenario)


# Damage -------------------------------------------------------------------------------------------------------------


def overwrite(offset: int, data: bytes) -> None:
    """Write over a part of the state file."""
    with open(STATE, "r+b") as file:
        file.seek(offset)
        file.write(data)


def noise(length: int) -> bytes:
    """Random bytes, the same in every run."""
    return random.Random(length).randbytes(length)


def garble_records() -> None:
    """Every record is text that says nothing any more."""
    for table in ("networks", "containers", "endpoints", "ports"):
        sql(f"UPDATE {table} SET record = '{{\"Netw'")


DAMAGES: dict[str, Callable[[], object]] = {
    "random header": lambda: overwrite(0, noise(100)),
    "random magic": lambda: overwrite(0, noise(16)),
    "all of it random": lambda: STATE.write_bytes(noise(8 * PAGE)),
    "cut to half": lambda: os.truncate(STATE, STATE.stat().st_size // 2),
    "cut to one page": lambda: os.truncate(STATE, PAGE),
    "cut to a few bytes": lambda: os.truncate(STATE, 50),
    "the schema is random": lambda: overwrite(100, noise(PAGE - 100)),
    "all but the first page is random": lambda: overwrite(PAGE, noise(STATE.stat().st_size - PAGE)),
    "all but the first page is zero": lambda: overwrite(PAGE, bytes(STATE.stat().st_size - PAGE)),
    "the records are cut": garble_records,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_kept_beside_and_the_next_call_works(name: str) -> None:
    def scenario(world: World) -> None:
        world.settle()
        DAMAGES[name]()
        damaged = STATE.read_bytes()
        with pytest.raises(StateError) as caught, world.engine() as engine:
            [engine.networks(), engine.containers(), engine.detach("settled")]
        assert str(STATE) in str(caught.value)
        assert f"{STATE}.damaged-1" in caught.value.hint, caught.value
        kept = Path(f"{STATE}.damaged-1").read_bytes()
        assert kept == damaged or name == "the records are cut"
        with world.engine() as engine:
            assert engine.networks() == ()
            engine.create_network(network("new", "10.8.0.0/24"))
            engine.attach(request("x", "81:80", nets=("new",)))
            report = gc.collect_garbage(engine)
            assert report, "nothing was found"
            container = engine.inspect("x").container
        world.serve(container.netns, 80, "new")
        assert world.ask("127.0.0.1", 81) == "new"
        assert len(our_links()) == 2, our_links()
        assert sorted(pins()) == sorted(
            [f"file {os.path.basename(container.netns)}", f"mount {container.netns}"]
        )
        assert not [each for each in ruleset()[1] if "10.9.0" in each or "8080" in each], ruleset()[1]
        with world.engine() as engine:
            engine.detach("x")
            engine.remove_network("new")

    in_world(scenario)


def test_a_page_of_noise_anywhere_is_survived() -> None:
    """Whatever page is lost: it works, or says that the state is damaged, and the next call works. Nothing else is raised."""

    def scenario(world: World) -> None:
        world.settle()
        sound = STATE.read_bytes()
        pages = len(sound) // PAGE
        refused = 0
        for page in range(pages):
            for length in (PAGE, 200):
                STATE.write_bytes(sound)
                overwrite(page * PAGE + (PAGE - length), noise(length))
                refused += use_until_it_works(world)
                for path in Path(ROOT).glob("state.db*"):
                    path.unlink()
        assert refused >= pages // 3

    in_world(scenario, timeout=120)


def use_until_it_works(world: World) -> int:
    """Work with a damaged file; gives how often that was refused."""
    for refused in range(3):
        try:
            with world.engine() as engine:
                [
                    engine.networks(),
                    engine.containers(),
                    engine.store.publications(),
                    engine.store.forwarding(),
                ]
                engine.store.processes()
                if engine.store.network("old") is None:
                    engine.attach(request("y", nets=("none",)))
                    engine.detach("y")
                else:
                    engine.attach(request("x", "81:80", nets=("old",), ip="10.9.0.9"))
                    engine.detach("x")
            return refused
        except StateError:
            continue
    raise AssertionError("refused three times")


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
@pytest.mark.parametrize("content", [b"", b"x", noise(40000)])
def test_a_damaged_log_beside_a_sound_file_harms_nothing(suffix: str, content: bytes) -> None:
    def scenario(world: World) -> None:
        world.settle()
        before = world.seen()
        Path(f"{STATE}{suffix}").write_bytes(content)
        with world.engine() as engine:
            engine.attach(request("x", "81:80", nets=("old",), ip="10.9.0.9"))
            engine.detach("x")
        assert not world.seen().against(before)
        world.assert_settled()

    in_world(scenario)


def test_an_engine_that_stays_goes_on_with_the_new_file() -> None:
    """A service has its engine open when somebody damages the file under it."""

    def scenario(world: World) -> None:
        world.settle()
        with world.engine() as engine:
            garble_records()
            with pytest.raises(StateError):
                engine.containers()
            assert engine.containers() == ()
            engine.attach(request("x", nets=("none",)))
            assert [name for (name,) in sql("SELECT name FROM containers")] == ["x"]
            engine.detach("x")

    in_world(scenario)


STRANGE = (
    "it's",
    '"quoted"',
    "$(touch /run/world/oops)",
    "with  spaces",
    "back\\slash",
    "x" * 110,
    "näher",
    "; true",
)


@pytest.mark.parametrize("name", STRANGE)
def test_a_root_of_any_printable_name(name: str) -> None:
    """It works; and so does what --dry-run prints, which leaves the very same table and pin."""

    def scenario(_: World) -> None:
        shown: list[Plan] = []
        root, run_directory = f"/run/world/{name}/root", f"/run/world/{name}/run"
        wish = request("x", nets=("none",))
        with Engine(root, run_directory, rehearse=shown.append) as engine:
            engine.create_network(network("new", "10.8.0.0/24", id="5" * 32))
            engine.attach(wish)
        script = "\n".join(command for plan in shown for command in plan.commands())
        subprocess.run(["sh", "-e"], input=script, text=True, check=True)
        pasted = run("nft list ruleset"), list_below("/run/world")
        upkeep_of(root, run_directory)
        with Engine(root, run_directory) as engine:
            engine.create_network(network("new", "10.8.0.0/24", id="5" * 32))
            engine.attach(wish)
            assert not [each for each in examine(engine) if each.level == "problem"]
            assert gc.collect_garbage(engine) == ()
        assert (run("nft list ruleset"), list_below("/run/world")) == pasted

    in_world(scenario)


def list_below(directory: str) -> list[str]:
    """Every file that is no file of the store's."""
    return sorted(
        f"{path}/{name}" for path, _, names in os.walk(directory) for name in names if "/root" not in path
    )


def upkeep_of(root: str, run_directory: str) -> None:
    """Take away what was pasted, as nobody has it on record."""
    run("nft flush ruleset")
    run("sysctl -qw net/ipv4/ip_forward=0")
    with Engine(root, run_directory) as engine:
        gc.collect_garbage(engine)
    assert not our_links()


@pytest.mark.parametrize("name", ["new\nline", "tab\t", "\x1b[31m", "nul\0", "\udcff", "y" * 4000])
def test_a_root_that_cannot_be_printed_is_refused(name: str, tmp_path: Path) -> None:
    for places in ((f"{tmp_path}/{name}", ""), (str(tmp_path), f"/run/{name}")):
        with pytest.raises(RequestError, match=r"^directory .*(cannot be printed|longer than)"):
            Engine(*places)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [gc.collect_garbage, gc.restore], ids=["gc", "restore"])
def test_a_lost_file_does_not_open_what_was_forwarded_for_us_alone(command: Act) -> None:
    """The host goes on forwarding, which it does because of us; so it goes on doing so for nobody else."""
    guarded = 'inet guarded "ipv4"'

    def scenario(world: World) -> None:
        world.settle()
        assert guarded in world.seen().elements
        for path in Path(ROOT).glob("state.db*"):
            path.unlink()
        with world.engine() as engine:
            assert any(each.subject == "ruleset" and each.level == "problem" for each in examine(engine))
            command(engine)
            assert guarded in world.seen().elements
            assert len(world.seen().elements) == 2  # and of IPv6: nothing else is left
            assert not command(engine), "it does it again"
            run("nft flush ruleset")
            engine.create_network(network("new", "10.8.0.0/24"))
        assert guarded in world.seen().elements
        run("sysctl -qw net/ipv4/ip_forward=0")  # where nothing is forwarded, there is nothing to guard
        for path in Path(ROOT).glob("state.db*"):
            path.unlink()
        with world.engine() as engine:
            command(engine)
        assert guarded not in world.seen().elements

    in_world(scenario)


def test_the_undo_of_a_later_network_leaves_the_guard_of_an_earlier_one() -> None:
    """Somebody turned forwarding off in between, so that both turn it on."""

    def scenario(world: World) -> None:
        world.settle()
        run("sysctl -qw net/ipv4/ip_forward=0 net/ipv6/conf/all/forwarding=0")
        before = world.seen()
        assert len([each for each in before.elements if "guarded" in each]) == 2
        make = partial(Engine.create_network, request=network("new", "10.8.0.0/24", ipv6=True))
        assert world.victim(make)
        with world.engine() as engine:
            assert {each.version for each in engine.store.forwarding()} == {4, 6}
            engine.remove_network("new")
        run("sysctl -qw net/ipv4/ip_forward=0 net/ipv6/conf/all/forwarding=0")
        last = len(world.milestones) - 2
        assert world.victim(make, fail_at=last)
        assert not world.seen().against(before)
        assert not before.against(world.seen())

    in_world(scenario)


def test_a_newer_version_is_left_alone() -> None:
    def scenario(world: World) -> None:
        world.settle()
        with closing(sqlite3.connect(STATE)) as database:
            database.execute("PRAGMA user_version = 99")
        before = STATE.read_bytes()
        with pytest.raises(StateError, match="version 99"):
            world.engine()
        assert STATE.read_bytes() == before
        assert not list(Path(ROOT).glob("*damaged*"))
        with closing(sqlite3.connect(STATE)) as database:
            database.execute("PRAGMA user_version = 1")
        world.assert_settled()
        with world.engine() as engine:
            assert engine.detach("settled")

    in_world(scenario)
