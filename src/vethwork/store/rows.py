"""Putting what a plan adds on record, and taking it off again: one statement or two for each kind of row.

Rules: called within a transaction. What is taken already is refused by the schema, whatever the code above believes.
"""

from __future__ import annotations

from vethwork.errors import ConflictError
from vethwork.model.container import Container, Endpoint, Publication
from vethwork.model.network import Network
from vethwork.model.process import ProcessRow
from vethwork.model.serialize import spell_record
from vethwork.store.sqlite import sqlite3

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vethwork.model.plan import Row
    from vethwork.store.database import Store


def insert(store: Store, row: Row) -> None:
    """Put a row on record. Raises ConflictError if what it must have for itself is taken."""
    try:
        _insert(store, row)
    except sqlite3.IntegrityError as error:
        raise ConflictError(f"record {type(row).__name__.lower()}: it is taken: {error}") from error


def _insert(store: Store, row: Row) -> None:
    text = spell_record(row)
    if isinstance(row, Network):
        store.execute("INSERT INTO networks VALUES (?, ?, ?, ?)", (row.name, row.id, row.own_device, text))
    elif isinstance(row, Container):
        store.execute("INSERT INTO containers VALUES (?, ?, ?, ?)", (row.name, row.id, row.netns, text))
    elif isinstance(row, Endpoint):
        values = (row.id, row.container, row.network, row.ifname, row.host_ifname or None, text)
        store.execute("INSERT INTO endpoints VALUES (?, ?, ?, ?, ?, ?)", values)
        store.leases.give(row)
    elif isinstance(row, Publication):
        key = _port_key(row)
        store.execute(
            "INSERT INTO ports VALUES (?, ?, ?, ?, ?, ?, ?)", (*key, row.container, row.endpoint, text)
        )
    elif isinstance(row, ProcessRow):
        store.execute("INSERT OR REPLACE INTO processes VALUES (?, ?)", (row.container, text))
    else:
        store.execute("INSERT OR REPLACE INTO forwarding VALUES (?, ?)", (row.version, text))


def delete(store: Store, row: Row) -> None:
    """Take a row off record; one that is gone is fine."""
    if isinstance(row, Network):
        store.execute("DELETE FROM networks WHERE name = ?", (row.name,))
        store.execute("DELETE FROM cursors WHERE network = ?", (row.name,))
    elif isinstance(row, Container):
        store.execute("DELETE FROM containers WHERE name = ?", (row.name,))
        store.execute("DELETE FROM processes WHERE container = ?", (row.name,))
    elif isinstance(row, Endpoint):
        store.execute("DELETE FROM endpoints WHERE id = ?", (row.id,))
        store.execute("DELETE FROM leases WHERE endpoint = ?", (row.id,))
    elif isinstance(row, Publication):
        key = "protocol = ? AND first = ? AND last = ? AND host_ip = ?"
        store.execute(f"DELETE FROM ports WHERE {key}", _port_key(row))
    elif isinstance(row, ProcessRow):
        store.execute("DELETE FROM processes WHERE container = ?", (row.container,))
    else:
        store.execute("DELETE FROM forwarding WHERE version = ?", (row.version,))


def _port_key(row: Publication) -> tuple[str, int, int, str]:
    publish = row.publish
    return publish.protocol, publish.host_port, publish.last, str(publish.host_ip or "")
