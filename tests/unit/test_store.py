"""The state file: what has one owner has one whoever asks, a look-up is no scan, and a lock ends with its holder.

What becomes of a file that is damaged, full or read-only, and of a process that dies, is tests/fault/'s business.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vethwork.errors import ConflictError, StateError
from vethwork.model.address import Address, Interface, Mac, Prefix
from vethwork.model.container import Container, Endpoint, Publication
from vethwork.model.names import IfName, Name
from vethwork.model.network import Forwarding, Network, Subnet
from vethwork.model.plan import Plan
from vethwork.model.ports import Publish
from vethwork.model.process import ProcessRow, RunOptions
from vethwork.plan.ipam import find_free
from vethwork.store import database
from vethwork.store.database import Store
from vethwork.store.leases import PROMISED
from vethwork.store.locks import _WORLD, Locks, _flock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vethwork.model.plan import Row

V4, V6 = Prefix.parse("10.0.0.0/20"), Prefix.parse("fd00::/64")
SUBNETS = (Subnet(V4, V4.address + 1, V4), Subnet(V6, V6.address + 1, V6))
NETWORK = Network("aa", Name("web"), "bridge", IfName("br0"), SUBNETS, 1500)
CONTAINER = Container("cc", Name("c"), "web", "/n/c", pinned=True)
PROCESS = ProcessRow("c", RunOptions(("true",), "/d", "c", (), (), detached=False, remove=False), 1, 2)


def endpoint(number: int, *texts: str, **fields: object) -> Endpoint:
    """An endpoint of a container of its own."""
    found = tuple(Interface.parse(text) for text in texts)
    made = Endpoint(
        f"{number:012x}",
        Name(f"c{number}"),
        Name("web"),
        IfName("eth0"),
        f"vw{number}",
        Mac(0x02 << 40 | number),
        found,
        (),
    )
    return made.replace(**fields)


def publication(text: str, container: str = "c", owner: str = "00") -> Publication:
    """A published port."""
    return Publication(Name(container), owner, Publish.parse(text))


@pytest.fixture
def root(tmp_path: Path) -> str:
    """Where the file is."""
    return str(tmp_path / "root")


@pytest.fixture
def store(root: str) -> Iterator[Store]:
    """An open state file."""
    with Store(root) as opened:
        yield opened


def record(store: Store, *rows: Row) -> None:
    """Put rows on record as an operation does."""
    plan = Plan("test", "it", (), adds=rows)
    with store.transaction():
        number = store.intend(plan)
    with store.transaction():
        store.settle(number, plan)


def everything(store: Store) -> list[object]:
    """All that is on record."""
    return [
        *(store.networks(), store.containers(), store.endpoints(), store.publications()),
        *(store.processes(), store.forwarding(), store.intents(), store.leases.pools()),
    ]


ROWS = (
    NETWORK,
    CONTAINER,
    endpoint(1, "10.0.0.2/20", "fd00::2/64", container=Name("c")),
    publication("80:80", owner="000000000001"),
    PROCESS,
    Forwarding(4),
)


# What is written is read ---------------------------------------------------------------------------------------------


def test_what_is_intended_is_on_record_and_what_is_retracted_is_not(store: Store) -> None:
    before = everything(store)
    plan = Plan("attach", "c", (), adds=ROWS)
    with store.transaction():
        number = store.intend(plan)
    assert store.intents() == ((number, plan),)
    assert (store.network("web"), store.network("aa")) == (NETWORK, NETWORK)
    assert (store.container("c"), store.container("cc")) == (CONTAINER, CONTAINER)
    assert store.containers_in("/n/c") == (CONTAINER,)
    assert store.endpoints() == store.endpoints_of("c") == store.endpoints_on("web") == (ROWS[2],)
    assert store.publications() == store.publications_of("c") == (ROWS[3],)
    assert (store.process("c"), store.processes()) == (PROCESS, (PROCESS,))
    assert store.forwarding() == (Forwarding(4),)
    assert store.leases.holder("web", Address.parse("fd00::2")) == "c"
    assert store.is_intended("c")
    with store.transaction():
        store.retract(number, plan)
    assert everything(store) == before
    assert store.leases.holder("web", Address.parse("fd00::2")) == ""


def test_what_a_plan_removes_stays_until_it_is_settled(store: Store) -> None:
    record(store, *ROWS)
    plan = Plan("detach", "c", (), removes=tuple(reversed(ROWS)), forward=True)
    with store.transaction():
        number = store.intend(plan)
    assert store.container("c") == CONTAINER
    with store.transaction():
        store.settle(number, plan)
    assert not any(everything(store))


def test_a_process_takes_the_place_of_the_one_before(store: Store) -> None:
    store.put_process(PROCESS)
    store.put_process(PROCESS.replace(pid=9))
    assert store.processes() == (PROCESS.replace(pid=9),)


def test_a_process_goes_with_its_container(store: Store) -> None:
    record(store, CONTAINER, PROCESS)
    plan = Plan("detach", "c", (), removes=(CONTAINER,), forward=True)
    with store.transaction():
        store.settle(store.intend(plan), plan)
    assert store.processes() == ()


def test_nothing_is_kept_of_what_was_interrupted(store: Store) -> None:
    with pytest.raises(ConflictError), store.transaction():
        store.intend(Plan("attach", "c", (), adds=(*ROWS, CONTAINER)))
    assert not any(everything(store))


# One owner -----------------------------------------------------------------------------------------------------------

TAKEN: list[tuple[Row, Row]] = [
    (NETWORK, NETWORK.replace(id="bb", device=IfName("br1"))),
    (NETWORK, NETWORK.replace(name=Name("db"), device=IfName("br1"))),
    (NETWORK, NETWORK.replace(name=Name("db"), id="bb")),
    (CONTAINER, CONTAINER.replace(id="dd")),
    (CONTAINER, CONTAINER.replace(name=Name("d"))),
    (endpoint(1, "10.0.0.2/20"), endpoint(1, "10.0.0.3/20", container=Name("d"), host_ifname="x")),
    (endpoint(1, "10.0.0.2/20"), endpoint(2, "10.0.0.2/20")),
    (endpoint(1, "fd00::2/64"), endpoint(2, "10.0.0.2/20", "fd00::2/64")),
    (endpoint(1, "10.0.0.2/20"), endpoint(2, "10.0.0.3/20", container=Name("c1"))),
    (endpoint(1, "10.0.0.2/20"), endpoint(2, "10.0.0.3/20", host_ifname="vw1")),
    (endpoint(1, "10.0.0.2/20"), endpoint(2, "10.0.0.3/20", mac=Mac(0x02 << 40 | 1))),
    (publication("80:80"), publication("80:81", "d")),
    (publication("127.0.0.1:80-81:80-81/udp"), publication("127.0.0.1:80-81:80-81/udp", "d")),
]


@pytest.mark.parametrize(("first", "second"), TAKEN)
def test_what_has_an_owner_is_not_given_to_another(root: str, first: Row, second: Row) -> None:
    with Store(root) as one, Store(root) as other:
        record(one, first)
        before = everything(other)
        with pytest.raises(ConflictError, match="it is taken"):
            record(other, second)
        assert everything(other) == before == everything(one)


def test_things_that_only_look_alike_are_kept_apart(store: Store) -> None:
    record(store, endpoint(1, "10.0.0.2/20"), endpoint(2, "10.0.0.2/20", network=Name("db")))
    record(store, endpoint(3, host_ifname=""), endpoint(4, host_ifname=""))
    record(store, publication("80:80"), publication("80:80/udp"), publication("127.0.0.1:80:80"))
    theirs = NETWORK.replace(managed=False)
    record(store, theirs, theirs.replace(name=Name("db"), id="bb"))
    assert (len(store.endpoints()), len(store.publications()), len(store.networks())) == (4, 3, 2)


def test_many_who_ask_at_once_get_different_addresses(root: str) -> None:
    Store(root).close()

    def ask(first: int) -> None:
        with Store(root) as mine:
            for number in range(first, first + 20):
                with mine.transaction():
                    found = [
                        find_free(
                            subnet,
                            mine.leases.cursor("web", subnet.prefix),
                            lambda low, high: mine.leases.taken("web", low, high),
                        )
                        for subnet in SUBNETS
                    ]
                    texts = [
                        f"{address}/{subnet.prefix.length}"
                        for address, subnet in zip(found, SUBNETS, strict=True)
                    ]
                    mine.intend(Plan("attach", f"c{number}", (), adds=(endpoint(number, *texts),)))

    threads = [threading.Thread(target=ask, args=(100 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Store(root) as store:
        held = [str(interface.address) for each in store.endpoints() for interface in each.addresses]
        assert len(store.intents()) == len(store.endpoints()) == 80
        assert sorted(held) == sorted(
            [f"10.0.0.{n}" for n in range(2, 82)] + [f"fd00::{n:x}" for n in range(2, 82)]
        )


# Look-ups, not scans -------------------------------------------------------------------------------------------------


def work(store: Store, ask: object) -> int:
    """How many steps of SQLite's machine it takes, in tens."""
    counted: list[int] = []
    store._db.set_progress_handler(lambda: counted.append(1), 10)
    try:
        ask()  # type: ignore[operator]
    finally:
        store._db.set_progress_handler(None, 10)
    return len(counted)


def test_to_find_a_free_address_costs_the_same_among_two_thousand(store: Store) -> None:
    low, high = V4.address + 2, V4.last

    def ask() -> None:
        last = store.leases.cursor("web", V4)
        assert last is not None
        assert next(store.leases.taken("web", last + 1, high), None) is None

    record(store, endpoint(0, f"{low}/20", "fd00::2/64"))
    among_few = work(store, ask)
    many = [endpoint(n, f"{low + n}/20", f"{V6.address + 2 + n}/64") for n in range(1, 2000)]
    record(store, *many)
    assert work(store, ask) <= among_few + 2
    everyone = list(store.leases.taken("web", V4.address, V4.last))
    assert everyone == [low + n for n in range(2000)]
    assert list(store.leases.taken("web", V6.address, V6.address + 3)) == [V6.address + 2, V6.address + 3]


def test_an_ipv6_address_that_begins_like_an_ipv4_one_is_not_taken_for_it(store: Store) -> None:
    record(store, endpoint(1, "10.0.0.5/20", f"{Address(6, 0x0A000006 << 96)}/64"))
    assert list(store.leases.taken("web", V4.address, V4.last)) == [Address.parse("10.0.0.5")]


PUBLISHES = st.builds(
    Publish,
    st.sampled_from(["tcp", "udp"]),
    st.sampled_from([None, Address(4, 0), Address.parse("10.0.0.1"), Address.parse("fd00::1")]),
    st.integers(1, 30),
    st.just(1),
    st.sampled_from([1, 1, 2, 5, 20]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.lists(PUBLISHES, max_size=12, unique_by=lambda each: each.replace(container_port=1)), PUBLISHES)
def test_ports_in_common_are_found(root: str, there: list[Publish], asked: Publish) -> None:
    with Store(root, rehearsal=True) as store:
        record(store, *[Publication(Name("c"), "00", each) for each in there])
        near = {each.publish for each in store.publications_near(asked)}
        assert near == {
            each
            for each in there
            if each.protocol == asked.protocol
            and each.host_port <= asked.last
            and asked.host_port <= each.last
        }
        assert {each for each in there if each.overlaps(asked)} <= near


def test_ports_in_common_are_looked_up(store: Store) -> None:
    queries: list[str] = []
    store._db.set_trace_callback(queries.append)
    store.publications_near(Publish.parse("80-90:80-90"))
    store._db.set_trace_callback(None)
    plan = [str(row[3]) for row in store._db.execute(f"EXPLAIN QUERY PLAN {queries[-1]}")]
    assert any("SEARCH ports USING PRIMARY KEY (protocol=? AND first>? AND first<?)" in line for line in plan)
    assert any("SEARCH ports USING INDEX ranges (protocol=? AND first<?)" in line for line in plan)
    assert not any(line.startswith("SCAN ports") for line in plan)


def test_a_port_costs_the_same_among_twenty_thousand(store: Store) -> None:
    asked = Publish.parse("30000:80")
    few = work(store, lambda: store.publications_near(asked))
    record(store, *[publication(f"{port}:80") for port in range(1, 20001)])
    assert work(store, lambda: store.publications_near(asked)) <= few + 2


# Promises ------------------------------------------------------------------------------------------------------------


def test_an_address_that_is_promised_is_nobody_elses_until_it_is_taken(store: Store) -> None:
    address = Address.parse("10.0.0.9")
    with store.transaction():
        store.leases.promise("web", address)
    assert store.leases.holder("web", address) == PROMISED
    assert store.leases.cursor("web", V4) == address
    with pytest.raises(StateError, match="UNIQUE"), store.transaction():
        store.leases.promise("web", address)
    record(store, endpoint(1, "10.0.0.9/20"))
    assert store.leases.holder("web", address) == "c1"
    with store.transaction():
        store.leases.break_promise("web", address)
    assert store.leases.holder("web", address) == "c1"


def test_pools_are_promised_and_given_up(store: Store) -> None:
    for prefix in (V6, V4, V4):
        with store.transaction():
            store.leases.promise_pool(prefix)
    assert store.leases.pools() == (V4, V6)
    with store.transaction():
        store.leases.break_pool(V4)
    assert store.leases.pools() == (V6,)


# Another boot, a rehearsal, another version --------------------------------------------------------------------------


def test_another_boot_wipes_all_but_the_networks(
    root: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with Store(root) as store:
        record(store, *ROWS)
        with store.transaction():
            store.leases.promise_pool(V4)
        kinds = {name for (name,) in store._all("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    boot = tmp_path / "boot_id"
    boot.write_text("another\n", encoding="ascii")
    monkeypatch.setattr(database, "BOOT_ID", str(boot))
    with Store(root) as store:
        left = {name for name in kinds - {"sqlite_sequence"} if store._all(f"SELECT 1 FROM {name}")}
        assert left == {"networks", "meta"}
        assert store.networks() == (NETWORK,)
        assert kinds - {"sqlite_sequence"} == {*database.VOLATILE, "networks", "meta"}
        record(store, CONTAINER)
    with Store(root) as store:
        assert store.containers() == (CONTAINER,)


def test_a_network_that_was_in_the_making_at_the_last_boot_is_not_there(
    root: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = NETWORK.replace(name=Name("gone"), id="bb", device=IfName("br1"))
    made = NETWORK.replace(name=Name("made"), id="cc", device=IfName("br2"))
    with Store(root) as store:
        record(store, NETWORK, gone)
        with store.transaction():
            store.intend(Plan("create network", "made", (), adds=(made,)))
            store.intend(Plan("remove network", "gone", (), removes=(gone,), forward=True))
        assert len(store.networks()) == 3
    boot = tmp_path / "boot_id"
    boot.write_text("another\n", encoding="ascii")
    monkeypatch.setattr(database, "BOOT_ID", str(boot))
    with Store(root) as store:
        assert store.networks() == (NETWORK,)


def test_a_rehearsal_changes_nothing_on_disk(root: str) -> None:
    with Store(root, rehearsal=True) as store:
        record(store, *ROWS)
        assert store.container("c") == CONTAINER
    assert not os.path.exists(root)
    with Store(root) as store:
        record(store, NETWORK)
    before = Path(root, "state.db").read_bytes()
    with Store(root, rehearsal=True) as store:
        assert store.networks() == (NETWORK,)
        record(store, *ROWS[1:])
    assert Path(root, "state.db").read_bytes() == before
    with Store(root) as store:
        assert store.containers() == ()


def test_the_file_is_its_owners_alone(root: str) -> None:
    Store(root).close()
    assert Path(root, "state.db").stat().st_mode & 0o777 == 0o600
    assert Path(root).stat().st_mode & 0o777 == 0o700


def test_who_comes_first_at_once_with_others_waits_for_whoever_makes_the_file(root: str) -> None:
    """SQLite itself fails one of two who make a file with a write-ahead log: seen in 5 of 100 openings before."""
    opens = """if True:
        import sys
        from vethwork.store.database import Store
        for number in range(100):
            sys.stdin.readline()
            with Store(f"{sys.argv[1]}/{number}") as store, store.transaction():
                pass
    """
    command = [sys.executable, "-c", opens, root]
    crowd = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for _ in range(100):
        for child in crowd:
            assert child.stdin is not None
            try:
                child.stdin.write("\n")
                child.stdin.flush()
            except BrokenPipeError:  # it failed, and says so below
                continue
    assert [child.communicate(timeout=30)[1] for child in crowd] == ["", "", "", ""]


def test_what_somebody_left_who_died_making_the_file_is_replaced(root: str) -> None:
    os.makedirs(root)
    Path(root, "state.db").touch()
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(root, f"state.db.new{suffix}").write_bytes(b"half of it")
    with Store(root) as store:
        record(store, *ROWS)
    assert {each.name for each in Path(root).iterdir()} == {"state.db"}


def test_a_newer_file_is_left_alone(root: str) -> None:
    os.makedirs(root)
    db = sqlite3.connect(f"{root}/state.db")
    db.execute("PRAGMA user_version = 2")
    db.close()
    before = Path(root, "state.db").read_bytes()
    with pytest.raises(StateError, match="is of version 2, this vethwork speaks 1"):
        Store(root)
    assert Path(root, "state.db").read_bytes() == before


def test_a_file_that_is_none_is_kept_beside(root: str) -> None:
    os.makedirs(root)
    for number in (1, 2):
        Path(root, "state.db").write_bytes(b"this is no database, however long it may be" * 100)
        with pytest.raises(StateError, match=rf"kept as .*state\.db\.damaged-{number}"):
            Store(root)
    with Store(root) as store:
        assert not any(everything(store))
    assert Path(root, "state.db.damaged-1").read_bytes().startswith(b"this is no database")


# Locks ---------------------------------------------------------------------------------------------------------------

HOLDER = """
import sys
from vethwork.store.locks import Locks
locks = Locks(sys.argv[1])
locks.container("web")
locks.world(exclusive=False)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def lock_file(tmp_path: Path) -> str:
    """Where the locks are."""
    return str(tmp_path / "locks")


def may_have_world(path: str, *, exclusive: bool) -> bool:
    """Whether somebody who comes now gets the world without waiting."""
    with Locks(path) as locks:
        kind = fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK
        try:
            fcntl.fcntl(locks._fd, fcntl.F_OFD_SETLK, _flock(kind, _WORLD))
        except BlockingIOError:
            return False
        return True


def test_a_lock_ends_with_its_holder_even_by_sigkill(lock_file: str) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, lock_file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder, Locks(lock_file) as mine:
        assert holder.stdout.readline() == "held\n"
        assert not mine.try_container("web")
        assert mine.try_container("db")
        mine.world(exclusive=False)
        mine.leave_world()
        assert not may_have_world(lock_file, exclusive=True)
        holder.send_signal(signal.SIGKILL)
        mine.world(exclusive=True)  # waits for no more than its end
        assert mine.try_container("web")


def test_the_world_is_shared_or_had_alone(lock_file: str) -> None:
    with Locks(lock_file) as one, Locks(lock_file) as other:
        one.world(exclusive=False)
        other.world(exclusive=False)
        assert may_have_world(lock_file, exclusive=False)
        assert not may_have_world(lock_file, exclusive=True)
        other.leave_world()
        one.world(exclusive=True)
        assert not may_have_world(lock_file, exclusive=False)
        one.world(exclusive=False)
        assert may_have_world(lock_file, exclusive=False)
        one.leave_world()
        assert may_have_world(lock_file, exclusive=True)


def test_a_container_is_one_workers_at_a_time(lock_file: str) -> None:
    with Locks(lock_file) as other:
        with Locks(lock_file) as one:
            one.container("web")
            assert one.try_container("web")
            assert not other.try_container("web")
            one.world(exclusive=True)
        assert other.try_container("web")
        assert may_have_world(lock_file, exclusive=True)


def test_a_rehearsal_makes_no_lock_file(lock_file: str) -> None:
    with Locks(lock_file, rehearsal=True) as locks:
        locks.world(exclusive=True)
        assert locks.try_container("web")
    assert not os.path.exists(lock_file)
    with Locks(lock_file) as one, Locks(lock_file, rehearsal=True) as other:
        one.container("web")
        assert not other.try_container("web")


def test_a_lock_file_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="No such file or directory"):
        Locks(str(tmp_path / "gone" / "locks"))
