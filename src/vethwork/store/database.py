"""What vethwork remembers: one SQLite file, ``<root>/state.db``.

    networks     for ever
    containers   ┐
    endpoints    │ void after a reboot, or with the namespace that was the
    leases       │ host: two rows of ``meta`` say which boot, by the kernel's
    ports        │ number of it, and which namespace, by its cookie
    processes    │
    forwarding   │
    intents      ┘

Rules: a transaction is short and no kernel work is done in one. What must be unique is UNIQUE in the schema: an address and
a port have one owner whatever the code above believes. An intent's number is never given
again: who looks for the dead may come when they were cleared up after. Records are JSON of ``model.text``;
columns beside the record are there to be searched.
"""

from __future__ import annotations

import os

from vethwork.errors import StateError
from vethwork.model.container import Container, Endpoint, Publication
from vethwork.model.network import Forwarding, Network
from vethwork.model.plan import Plan
from vethwork.model.ports import Publish
from vethwork.model.process import ProcessRow
from vethwork.model.serialize import parse_record, spell_record
from vethwork.store.corruption import WAIT_SECONDS, explain, identity_of, is_damage, keep_aside
from vethwork.store.leases import Leases
from vethwork.store.rows import delete, insert
from vethwork.store.schema import VERSION, ensure_file, is_missing, write_schema
from vethwork.store.sqlite import sqlite3

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self


BOOT_ID = "/proc/sys/kernel/random/boot_id"

REMEMBERED = 64
"""How many texts a store knows the record of: the same few networks are read again and again. A record cannot change."""
TROUBLE = (sqlite3.Error, OSError)
"""What SQLite complains by; told in our words."""
VOLATILE = ("containers", "endpoints", "leases", "cursors", "ports", "processes", "forwarding", "intents")


class Store:
    """The open state file. A context manager; one thread's at a time.

    ``rehearsal`` works on a copy in memory: the file stays as it is, and where there is none, none is made.
    """

    def __init__(self, root: str, *, rehearsal: bool = False) -> None:
        self.path = f"{root}/state.db"
        self._rehearsal = rehearsal
        self._read_lately: dict[str, Any] = {}
        try:
            if not rehearsal:
                os.makedirs(root, mode=0o700, exist_ok=True)
        except OSError as error:
            raise explain(self.path, error) from error
        self._open()

    def _open(self) -> None:
        nothing = self._rehearsal and is_missing(self.path)
        try:
            self._db = self._connect(":memory:" if nothing else self.path)
        except TROUBLE as error:
            raise self._told(error) from error
        self._file = None if nothing else identity_of(self.path)
        try:
            self._begin()
        except BaseException:
            self._db.close()
            raise

    def _begin(self) -> None:
        try:
            self._prepare()
            if self._rehearsal:
                copy = sqlite3.connect(":memory:", isolation_level=None)
                self._db.backup(copy)
                self._db.close()
                self._db = copy
            self._forget_last_boot()
        except TROUBLE as error:
            raise self._told(error) from error

    def _connect(self, where: str) -> sqlite3.Connection:
        while True:
            if not self._rehearsal:
                ensure_file(self.path)
            database = sqlite3.connect(
                where, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False
            )
            if self._rehearsal or not is_missing(self.path):
                return database
            database.close()  # the file was moved aside in between, and SQLite made an empty one

    def reopen(self) -> None:
        """Go on with the file that is there now, if the one that is open was moved aside or deleted."""
        if not self._rehearsal and (self._file is None or identity_of(self.path) != self._file):
            self._db.close()
            self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _prepare(self) -> None:
        self._db.execute("PRAGMA synchronous = NORMAL")
        if self._rehearsal and self._file is None:
            write_schema(self._db)
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version != VERSION:
            raise StateError(
                f"open {self.path}: is of version {version}, this vethwork speaks {VERSION}",
                hint="use the vethwork that wrote it, or move the file away",
            )

    def _forget_last_boot(self) -> None:
        with open(BOOT_ID) as file:
            boot = file.read().strip()
        if self.meta("boot") == boot:
            return
        with self.transaction():
            if self.meta("boot") == boot:
                return  # somebody was faster, and what is on record now is of this boot
            self._forget()
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('boot', ?)", (boot,))

    def _forget(self) -> None:
        """Void what ended with the host. Networks stay; one that was being made or removed then was not, or is no more."""
        for number, plan in self.intents():
            (self.settle if plan.forward else self.retract)(number, plan)
        for table in VOLATILE:
            self._db.execute(f"DELETE FROM {table}")
        self._db.execute("DELETE FROM meta WHERE key = 'host'")

    def keep_aside(self, why: str) -> StateError:
        """Move the damaged file aside; gives the error that says so. The next look is at the file that comes next."""
        if self._rehearsal:
            return StateError(f"read {self.path}: {why}", hint="a command that is meant moves it aside")
        error = keep_aside(self.path, self._file, why)
        self._file = None
        return error

    def _told(self, error: BaseException) -> StateError:
        """Our error for one of SQLite's; a damaged file is moved aside, so that nobody writes into it."""
        return self.keep_aside(str(error)) if is_damage(error) else explain(self.path, error)

    def transaction(self) -> _Transaction:
        """A short transaction that holds the write lock: ``with store.transaction(): ...``."""
        return _Transaction(self)

    def _all(self, query: str, *values: object) -> list[Any]:
        if self._file is None:
            self.reopen()
        try:
            return self._db.execute(query, values).fetchall()
        except TROUBLE as error:
            raise self._told(error) from error

    def execute(self, query: str, values: tuple[object, ...]) -> sqlite3.Cursor:
        """One statement within a transaction, for the parts of the store that are modules of their own."""
        return self._db.execute(query, values)

    def _records(self, query: str, *values: object) -> tuple[Any, ...]:
        return tuple([self._read(text) for (text,) in self._all(query, *values)])

    def _one(self, query: str, *values: object) -> Any:
        found = self._records(query, *values)
        return found[0] if found else None

    def _read(self, text: str) -> Any:
        known = self._read_lately.get(text)
        if known is not None:
            return known
        try:
            record = parse_record(text)
        except (TypeError, ValueError) as error:
            raise self.keep_aside(f"not a record: {error}") from error
        if len(self._read_lately) >= REMEMBERED:
            self._read_lately.clear()
        self._read_lately[text] = record
        return record

    # What is on record.

    def meta(self, key: str) -> str | None:
        """A setting; None if it was never set."""
        rows = self._all("SELECT value FROM meta WHERE key = ?", key)
        return rows[0][0] if rows else None

    def host(self) -> int:
        """The network namespace that the records are about, by its number (``kernel.netns.cookie_of``); 0 if none yet."""
        return int(self.meta("host") or 0)

    def move_in(self, host: int, *, anew: bool) -> None:
        """Let the records be about another namespace; ``anew`` voids what ended with the one before."""
        with self.transaction():
            if anew:
                self._forget()
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('host', ?)", (str(host),))

    def generation(self) -> int:
        """A number that is another whenever somebody else has written."""
        return int(self._all("PRAGMA data_version")[0][0])

    def networks(self) -> tuple[Network, ...]:
        """Every network, by name."""
        return self._records("SELECT record FROM networks ORDER BY name")

    def network(self, name: str) -> Network | None:
        """One network, by name or by id."""
        return self._one("SELECT record FROM networks WHERE name = ?1 OR id = ?1", name)  # type: ignore[no-any-return]

    def containers(self) -> tuple[Container, ...]:
        """Every container, by name."""
        return self._records("SELECT record FROM containers ORDER BY name")

    def container(self, name: str) -> Container | None:
        """One container, by name or by id."""
        query = "SELECT record FROM containers WHERE name = ?1 OR id = ?1"
        return self._one(query, name)  # type: ignore[no-any-return]

    def containers_in(self, netns: str) -> tuple[Container, ...]:
        """The containers that live in a namespace."""
        return self._records("SELECT record FROM containers WHERE netns = ? ORDER BY name", netns)

    def containers_near(self, name: str, netns: str) -> tuple[Container, ...]:
        """The container of a name or id, and those that live in a namespace, if one is named."""
        query = "SELECT record FROM containers WHERE name = ?1 OR id = ?1 OR netns = ?2"
        return self._records(query, name, netns or None)

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Every endpoint."""
        return self._records("SELECT record FROM endpoints ORDER BY container, ifname")

    def endpoints_of(self, container: str) -> tuple[Endpoint, ...]:
        """A container's endpoints, by interface name."""
        return self._records("SELECT record FROM endpoints WHERE container = ? ORDER BY ifname", container)

    def endpoints_on(self, network: str) -> tuple[Endpoint, ...]:
        """A network's endpoints."""
        return self._records(
            "SELECT record FROM endpoints WHERE network = ? ORDER BY container, ifname", network
        )

    def is_in_use(self, network: str) -> bool:
        """Whether somebody is on a network; a look-up, however many are."""
        return bool(self._all("SELECT 1 FROM endpoints WHERE network = ? LIMIT 1", network))

    def endpoint_by(self, ifname: str) -> Endpoint | None:
        """The endpoint that has a link of the host of that name, its ifb among them."""
        query = "SELECT record FROM endpoints WHERE host_ifname = ?1 OR id = ?2"
        return self._one(query, ifname, ifname[2:])  # type: ignore[no-any-return]

    @property
    def leases(self) -> Leases:
        """Who holds which address, and what is promised."""
        return Leases(self)

    def publications(self) -> tuple[Publication, ...]:
        """Every published range of ports."""
        return self._records("SELECT record FROM ports ORDER BY protocol, first, host_ip")

    def publications_of(self, container: str) -> tuple[Publication, ...]:
        """A container's published ports."""
        return self._records(
            "SELECT record FROM ports WHERE container = ? ORDER BY protocol, first, host_ip", container
        )

    def publications_near(self, publish: Publish) -> tuple[Publication, ...]:
        """What is published with a port in common, whatever the address; a look-up, not a scan."""
        # Left to choose, SQLite looks at every port below the one asked for.
        near, ranges = "SELECT record FROM ports", "INDEXED BY ranges WHERE protocol = ?1 AND last > first"
        return self._records(
            f"{near} WHERE protocol = ?1 AND first BETWEEN ?2 AND ?3"
            f" UNION ALL {near} {ranges} AND first < ?2 AND last >= ?2",
            publish.protocol,
            publish.host_port,
            publish.last,
        )

    def process(self, container: str) -> ProcessRow | None:
        """The process that runs, or ran, in a container."""
        query = "SELECT record FROM processes WHERE container = ?"
        return self._one(query, container)  # type: ignore[no-any-return]

    def processes(self) -> tuple[ProcessRow, ...]:
        """Every process that runs, or ran."""
        return self._records("SELECT record FROM processes ORDER BY container")

    def forwarding(self) -> tuple[Forwarding, ...]:
        """The IP versions whose forwarding we turned on."""
        return self._records("SELECT record FROM forwarding ORDER BY version")

    def intents(self) -> tuple[tuple[int, Plan], ...]:
        """What somebody is doing, or died doing: number and plan, oldest first."""
        return tuple(
            [
                (number, self._read(text))
                for number, text in self._all("SELECT id, plan FROM intents ORDER BY id")
            ]
        )

    def intended(self) -> list[tuple[int, str, str]]:
        """The same, without the plans: number, verb and subject."""
        return self._all("SELECT id, verb, subject FROM intents ORDER BY id")

    def intent(self, number: int) -> Plan | None:
        """One plan; None if it is settled, or was taken back."""
        return self._one("SELECT plan FROM intents WHERE id = ?", number)  # type: ignore[no-any-return]

    def is_intended(self, subject: str) -> bool:
        """Whether somebody does something with a network of that name, or a container, or died doing so."""
        return bool(self._all("SELECT 1 FROM intents WHERE subject = ?", subject))

    # Intend, settle, undo.

    def intend(self, plan: Plan) -> int:
        """Put a plan and what it adds on record; gives the intent's number. Raises ConflictError if a row is taken."""
        for row in plan.adds:
            insert(self, row)
        text = spell_record(plan)
        return int(
            self._db.execute(
                "INSERT INTO intents (verb, subject, plan) VALUES (?, ?, ?)", (plan.verb, plan.subject, text)
            ).lastrowid
            or 0
        )

    def settle(self, number: int, plan: Plan) -> None:
        """The plan is done: what it removes is off record."""
        for row in plan.removes:
            delete(self, row)
        if plan.forward:  # who plans the same anew, in his turn, has all before him that is still to be done
            earlier = (plan.verb, plan.subject, number)
            self._db.execute("DELETE FROM intents WHERE verb = ? AND subject = ? AND id < ?", earlier)
        self._db.execute("DELETE FROM intents WHERE id = ?", (number,))

    def retract(self, number: int, plan: Plan) -> None:
        """The plan was taken back: what it added is off record."""
        for row in reversed(plan.adds):
            delete(self, row)
        self._db.execute("DELETE FROM intents WHERE id = ?", (number,))

    def put_process(self, row: ProcessRow) -> None:
        """Record a container's process, in place of the one before."""
        with self.transaction():
            insert(self, row)

    def put_netns(self, name: str, netns: str) -> None:
        """Record where a container's namespace is, now that it is known; within a transaction."""
        row = self.container(name)
        if row is not None:
            values = (netns, spell_record(row.replace(netns=netns)), row.name)
            self._db.execute("UPDATE containers SET netns = ?, record = ? WHERE name = ?", values)


class _Transaction:
    """BEGIN IMMEDIATE ... COMMIT, or ROLLBACK where anything was raised."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __enter__(self) -> None:
        self._store.reopen()
        try:
            self._store._db.execute("BEGIN IMMEDIATE")
        except TROUBLE as error:
            raise self._store._told(error) from error

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self._end(commits=error is None)
        except TROUBLE as trouble:
            raise self._store._told(trouble) from trouble
        if isinstance(error, TROUBLE):
            raise self._store._told(error) from error

    def _end(self, *, commits: bool) -> None:
        try:
            self._store._db.execute("COMMIT" if commits else "ROLLBACK")
        except sqlite3.OperationalError:
            if self._store._db.in_transaction:
                self._store._db.execute("ROLLBACK")
            if commits:
                raise
