"""The state file as it is made: its tables, and how it comes to be there all at once.

Theory. A file cannot be turned to write-ahead logging while somebody reads it: SQLite refuses at once, without waiting
(sqlite3PagerOpenWal takes the file for itself, and asks no busy handler). So two who open a file that is not made yet
would fail each other.

Rules: the file is made under another name, and gets its own when it is whole. Who comes at the same time waits, by a lock on
the directory; what somebody left who died over it is replaced.
"""

from __future__ import annotations

import fcntl
import os

from vethwork.store.sqlite import sqlite3

VERSION = 1

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE networks (name TEXT PRIMARY KEY, id TEXT UNIQUE, device TEXT UNIQUE, record TEXT) WITHOUT ROWID;
CREATE TABLE containers (name TEXT PRIMARY KEY, id TEXT UNIQUE, netns TEXT, record TEXT) WITHOUT ROWID;
CREATE INDEX by_netns ON containers (netns);
CREATE TABLE endpoints (id TEXT PRIMARY KEY, container TEXT, network TEXT, ifname TEXT, host_ifname TEXT UNIQUE,
                        record TEXT, UNIQUE (container, ifname)) WITHOUT ROWID;
CREATE INDEX by_network ON endpoints (network);
CREATE TABLE leases (network TEXT, address BLOB, endpoint TEXT, PRIMARY KEY (network, address)) WITHOUT ROWID;
CREATE INDEX by_endpoint ON leases (endpoint);
CREATE TABLE cursors (network TEXT, version INTEGER, address BLOB, PRIMARY KEY (network, version)) WITHOUT ROWID;
CREATE TABLE ports (protocol TEXT, first INTEGER, last INTEGER, host_ip TEXT, container TEXT, endpoint TEXT, record TEXT,
                    PRIMARY KEY (protocol, first, last, host_ip)) WITHOUT ROWID;
CREATE INDEX ranges ON ports (protocol, first, last) WHERE last > first;
CREATE INDEX ports_of ON ports (container);
CREATE TABLE processes (container TEXT PRIMARY KEY, record TEXT) WITHOUT ROWID;
CREATE TABLE forwarding (version INTEGER PRIMARY KEY, record TEXT);
CREATE TABLE intents (id INTEGER PRIMARY KEY AUTOINCREMENT, verb TEXT, subject TEXT, plan TEXT);
"""


def is_missing(path: str) -> bool:
    """Whether nothing is there, or a file without a byte in it."""
    try:
        return os.stat(path).st_size == 0
    except FileNotFoundError:
        return True


def ensure_file(path: str) -> None:
    """Make the state file where there is none; its directory must be there. Raises OSError or sqlite3.Error."""
    if not is_missing(path):
        return
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        if is_missing(path):
            _make(path)
    finally:
        os.close(directory)


def _make(path: str) -> None:
    made = f"{path}.new"
    for leftover in (made, f"{made}-journal", f"{made}-wal", f"{made}-shm"):
        if os.path.exists(leftover):
            os.unlink(leftover)
    os.close(os.open(made, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    database = sqlite3.connect(made, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        write_schema(database)
    finally:
        database.close()
    os.rename(made, path)


def write_schema(database: sqlite3.Connection) -> None:
    """Give an empty database its tables, all at once."""
    database.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
