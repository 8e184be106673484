"""The ruleset has an owner while the service runs: what others may do to it, and whoever must change it still can."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from tests.kernel.guarded import PORT, Guarded, guarded
from tests.kernel.stage import eventually
from vethwork.engine.engine import Engine
from vethwork.errors import ConflictError, KernelRefused
from vethwork.kernel import table_owner
from vethwork.kernel.nft import NftSocket
from vethwork.kernel.table_owner import Owner, Way, send_framed
from vethwork.maintenance.gc import own_ruleset, restore
from vethwork.model.ruleset import Element
from vethwork.plan.ruleset import TABLES
from vethwork.testing.lab import Lab
from vethwork.wire.nft.batch import pack_batch
from vethwork.wire.nft.tables import remove_tables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

ATTACKS = {
    "flush ruleset": "",
    "delete table inet vethwork": "not permitted",
    "delete table bridge vethwork": "not permitted",
    "flush table inet vethwork": "not permitted",
    "flush chain inet vethwork to_open": "not permitted",
    "delete element inet vethwork port4 { tcp . 8080 }": "not permitted",
    "add rule inet vethwork forward drop": "not permitted",
    "add table inet vethwork { flags dormant; }": "not permitted",
}


@pytest.fixture(scope="module")
def steady(needs: None) -> Iterator[Guarded]:
    """One that lives through all that is done to it."""
    with guarded() as made:
        yield made
        assert made.lines() == []


class Traffic:
    """New connections from the neighbour to the published port, one after another."""

    def __init__(self, stage: Guarded) -> None:
        self.made = self.failed = 0
        self._stage = stage
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ends.is_set():
            try:
                with self._stage.lab.neighbour.dial(self._stage.host.v4, PORT, timeout=0.5) as dialog:
                    dialog.ask()
                self.made += 1
            except OSError:
                self.failed += 1


@pytest.mark.parametrize("attack", ATTACKS)
def test_nobody_else_can_change_it(steady: Guarded, attack: str) -> None:
    before = steady.listing()
    with steady.lab.neighbour.dial(steady.host.v4, PORT) as dialog:
        assert ATTACKS[attack] in steady.nft(attack)
        dialog.ask()
    assert steady.listing() == before
    assert steady.answers()


def test_a_file_that_begins_with_a_flush_is_loaded_as_ever(steady: Guarded) -> None:
    """What ``systemctl restart nftables`` does."""
    before = steady.listing()
    script = "flush ruleset\ntable inet filter {\nchain input {\ntype filter hook input priority 0;\n}\n}\n"
    assert steady.host.run(["nft", "-f", "-"], stdin=script).stderr == ""
    assert steady.listing() == before
    assert "table inet filter" in steady.host.run(["nft", "list", "tables"]).stdout
    assert steady.nft("delete table inet filter") == ""


def test_the_command_line_works_all_the_same(steady: Guarded) -> None:
    before = steady.listing()
    steady.do("network", "create", "red")
    other = steady.settle("d", "--net", "red", "-p", "8081:80")
    assert steady.lab.neighbour.reaches(steady.host.v4, 8081)
    steady.do("publish", "d", "8082:80")
    assert steady.lab.neighbour.reaches(steady.host.v4, 8082)
    assert not other.reaches(steady.container.v4, 80)
    steady.do("unpublish", "d", "8082:80")
    steady.do("detach", "d")
    assert not steady.lab.neighbour.reaches(steady.host.v4, 8081, timeout=0.3)
    steady.do("network", "rm", "red")
    assert steady.listing() == before


def test_a_program_of_its_own_works_too(steady: Guarded) -> None:
    assert steady.command("publish", "c", "8090:80").status == 0
    assert steady.lab.neighbour.reaches(steady.host.v4, 8090)
    assert steady.command("unpublish", "c", "8090:80").status == 0


def test_what_the_kernel_refuses_is_told_as_ever(steady: Guarded) -> None:
    def change() -> tuple[int, str]:
        with Engine() as engine, NftSocket(engine.owner_path) as nft:
            address = engine.store.endpoints()[0].addresses[0].address
            with pytest.raises(KernelRefused) as refused:
                nft.change((), (Element("inet", "port4", ("tcp", PORT), (address, 81)),))
            return refused.value.errno, refused.value.doing

    errno, doing = steady.host.call(change)
    assert errno == 17
    assert "port4" in doing


def test_who_replaces_the_whole_leaves_the_owner(steady: Guarded) -> None:
    def replace() -> None:
        with Engine() as engine, engine.execution().begin(exclusive=True) as execution:
            engine.kernel.apply((execution.ruleset_step(),))

    before = steady.listing()
    steady.host.call(replace)
    assert steady.listing() == before
    assert "not permitted" in steady.nft("delete table inet vethwork")
    assert steady.answers()


def test_the_doctor_says_which_protects(steady: Guarded) -> None:
    found = {each["subject"]: each["found"] for each in steady.view("doctor")}
    assert "the running service owns it" in found["ruleset"]


@pytest.mark.parametrize(
    "said",
    [b"", b"\0", b"\xff\xff\xff\xff", struct.pack("=I", 100) + b"x", struct.pack("=I", 16) + b"x" * 16],
    ids=["nothing", "cut short", "too long", "half", "nonsense"],
)
def test_what_is_no_batch(steady: Guarded, said: bytes) -> None:
    def say() -> int:
        with socket.socket(socket.AF_UNIX) as made:
            made.settimeout(10)
            made.connect(f"{steady.host.environment['VETHWORK_ROOT']}/ruleset.sock")
            made.sendall(said)
            made.shutdown(socket.SHUT_WR)
            return len(made.recv(100))

    assert steady.host.call(say) <= 4 + 36  # nothing, or a length and at most one refusal
    steady.do("publish", "c", "8091:80")
    steady.do("unpublish", "c", "8091:80")


def test_only_root_may_have_anything_sent(steady: Guarded) -> None:
    path = f"{steady.host.environment['VETHWORK_ROOT']}/ruleset.sock"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    os.chmod(path, 0o666)
    os.chmod(os.path.dirname(path), 0o711)
    packet = pack_batch(remove_tables(TABLES), 1)

    def as_nobody() -> bytes:
        with socket.socket(socket.AF_UNIX) as made:
            reach = os.open(os.path.dirname(path), os.O_PATH)
            os.setgroups([])
            os.setresuid(65534, 65534, 65534)
            made.connect(f"/proc/self/fd/{reach}/ruleset.sock")
            try:
                send_framed(made, packet)
                return made.recv(100)
            except (BrokenPipeError, ConnectionResetError):
                return b""

    before = steady.listing()
    assert steady.host.call(as_nobody) == b""
    assert steady.listing() == before


def test_who_is_in_another_namespace_means_other_tables(steady: Guarded) -> None:
    path = f"{steady.host.environment['VETHWORK_ROOT']}/ruleset.sock"
    packet = pack_batch(remove_tables(TABLES), 1)

    def elsewhere() -> bytes:
        with socket.socket(socket.AF_UNIX) as made:
            made.connect(path)
            try:
                send_framed(made, packet)
                return made.recv(100)
            except (BrokenPipeError, ConnectionResetError):
                return b""

    before = steady.listing()
    assert steady.lab.neighbour.call(elsewhere) == b""
    assert steady.listing() == before


def test_many_who_say_nothing_hold_up_nobody(steady: Guarded) -> None:
    path = f"{steady.host.environment['VETHWORK_ROOT']}/ruleset.sock"
    idle = "import socket, time; held = [socket.socket(socket.AF_UNIX) for _ in range(20)]; "
    idle += f'[made.connect({path!r}) for made in held]; print("there", flush=True); time.sleep(60)'
    process = steady.host.popen([sys.executable, "-c", idle], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "there\n"
        steady.do("publish", "c", "8092:80")
        steady.do("unpublish", "c", "8092:80")
        process.kill()
        process.wait()


def test_a_second_service_is_refused(steady: Guarded) -> None:
    for environ, why in (
        ({}, "another process does"),
        (
            {"VETHWORK_RUN": f"{steady.lab.directory}/elsewhere"},
            "another process does",
        ),
        (
            {
                "VETHWORK_ROOT": f"{steady.lab.directory}/elsewhere",
                "VETHWORK_RUN": f"{steady.lab.directory}/elsewhere",
            },
            "is not ours",
        ),
    ):
        socket_path = f"{steady.lab.directory}/second.sock"
        second = steady.host.vethwork("serve", "--docker", socket_path, env=environ, check=False)
        assert second.returncode == 4
        assert why in second.stderr
    assert "not permitted" in steady.nft("delete table inet vethwork")
    assert steady.answers()


# From one service to the next -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_restart_loses_nothing(needs: None, number: int) -> None:
    with guarded() as stage:
        before = stage.listing()
        with Traffic(stage) as traffic:
            assert eventually(lambda: traffic.made > 50)
            stage.stop(number)
            stage.do("publish", "c", "8081:80")  # nobody owns it now
            stage.start()
            assert "not permitted" in stage.nft("flush table inet vethwork")
            after = traffic.made
            assert eventually(lambda: traffic.made > after + 50)
        assert traffic.failed == 0
        stage.do("unpublish", "c", "8081:80")
        assert stage.listing() == before
        assert stage.lines() == []


def test_it_is_adopted_as_it_is(needs: None) -> None:
    """A table that has been owned before keeps its handle: it was not replaced."""

    def handles(lab: Lab) -> str:
        listed = lab.host.run(["nft", "-a", "list", "table", "inet", "vethwork"]).stdout
        return str(re.findall(r"# handle \d+", listed)[0])

    def own() -> None:
        with Engine() as engine, Owner(engine.owner_path) as owner:
            own_ruleset(engine, owner)
            assert owner.owns

    with Lab() as lab:
        lab.host.call(own)
        first = handles(lab)
        lab.host.call(own)
        assert handles(lab) == first
        lab.host.run(["nft", "flush", "table", "inet", "vethwork"])
        lab.host.call(own)
        assert handles(lab) != first
        assert "dnat" in lab.host.run(["nft", "list", "table", "inet", "vethwork"]).stdout


@pytest.mark.parametrize("late", [False, True])
def test_the_owner_dies_when_it_is_asked(needs: None, late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its refusal and our question; or after it has done what we asked, and before it says so."""

    def change() -> None:
        with Engine() as engine:
            owner = Owner(engine.owner_path)
            own_ruleset(engine, owner)

            class Dying(Way):
                def is_open(self) -> bool:
                    return True

                def carry(self, packet: bytes) -> list[bytes] | None:
                    if late:
                        owner.carry(packet)
                    owner.close()
                    return None

            monkeypatch.setattr(table_owner, "Way", Dying)
            with NftSocket("/far") as nft:
                element = Element("inet", "bridges", ("br0",))
                nft.change((), (element,))
                assert nft.elements(TABLES[-1], "bridges") == (element,)
                nft.change((element,), ())
                assert nft.elements(TABLES[-1], "bridges") == ()

    with Lab() as lab:
        lab.host.call(change)


def test_an_owner_that_answers_nobody_is_named(needs: None) -> None:
    def change() -> str:
        with Engine() as engine, Owner(engine.owner_path) as owner:
            own_ruleset(engine, owner)
            with NftSocket("/nowhere") as nft, pytest.raises(KernelRefused) as refused:
                nft.change((), (Element("inet", "bridges", ("br0",)),))
            with Owner("/elsewhere") as other, pytest.raises(ConflictError, match="own the ruleset"):
                other.take(TABLES, lambda: None)
            return refused.value.hint

    with Lab() as lab:
        assert "does not answer" in lab.host.call(change)


def test_a_kernel_that_knows_no_owner(needs: None) -> None:
    """With a flag that no kernel knows yet: it is refused as an old kernel refuses those that there are."""

    def own() -> bool:
        with Engine() as engine, Owner(engine.owner_path, 0x40) as owner:
            own_ruleset(engine, owner)
            own_ruleset(engine, owner)
            assert restore(engine) == ()
            return owner.owns

    with Lab() as lab:
        assert lab.host.call(own) is False
        assert "chain forward" in lab.host.run(["nft", "list", "table", "inet", "vethwork"]).stdout
        assert lab.host.run(["nft", "delete", "table", "inet", "vethwork"]).returncode == 0


# Without a service ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["inet", "bridge"])
def test_without_the_service_the_next_call_sees_that_a_table_was_flushed(needs: None, table: str) -> None:
    """Its chains and sets are there, and empty: nothing would be refused."""
    with guarded() as stage:
        stage.stop()
        before = stage.listing()
        stage.host.run(["nft", "flush", "table", table, "vethwork"])
        assert stage.listing() != before
        stage.do("publish", "c", "8081:80")
        assert stage.answers()
        stage.do("unpublish", "c", "8081:80")
        assert stage.listing() == before
