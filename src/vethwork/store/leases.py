"""Leases: who holds an address of a network, and what is promised before there is an endpoint.

A MAC address is held as an IP address is: two of them on one bridge would take each other's frames. It is told from the
others by its length.

Some runtimes (Docker) ask for a subnet before they make its network, and for an address before they make its endpoint. Both
are rows among the leases, so that nobody else is given them: a pool as its prefix, under a name that no network can have; an
address with PROMISED in place of its endpoint. They are void after a reboot, like all leases; by then a pool is a subnet
of a network, or has been given up.

Rules: what changes something is called within a transaction. An endpoint takes over an address that was promised.
"""

from __future__ import annotations

import _sqlite3 as sqlite3

from vethwork.model.address import Address, Prefix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vethwork.model.address import Mac
    from vethwork.model.container import Endpoint
    from vethwork.store.database import Store

PROMISED = "(promised to somebody's IPAM)"
POOLS = "(pools)"


class Leases:
    """The leases of a store; made anew for each use."""

    def __init__(self, store: Store) -> None:
        self._do = store.execute
        self._all = store._all

    # What is held.

    def holder(self, network: str, address: Address | Mac) -> str:
        """The name of the container that holds an address, or PROMISED; empty if nobody does."""
        rows = self._all(
            "SELECT coalesce(container, endpoint) FROM leases LEFT JOIN endpoints ON endpoint = id"
            " WHERE leases.network = ? AND address = ?",
            network,
            address.packed,
        )
        return str(rows[0][0]) if rows else ""

    def taken(self, network: str, first: Address, last: Address) -> Iterator[Address]:
        """The addresses on lease from ``first`` to ``last``, in order, as far as they are asked for."""
        # Without the last, every IPv6 address would be looked at behind the last of IPv4, and MAC addresses in between.
        rows = self._do(
            "SELECT address FROM leases WHERE network = ? AND address BETWEEN ? AND ? AND length(address) = ?"
            " ORDER BY address",
            (network, first.packed, last.packed, len(first.packed)),
        )
        return (Address.unpack(packed) for (packed,) in rows)

    def counts(self) -> dict[str, int]:
        """How many IP addresses of each network are held or promised; of one that has none, nothing."""
        query = "SELECT network, count(*) FROM leases WHERE network != ? AND length(address) != ? GROUP BY network"
        return dict(self._all(query, POOLS, 6))  # which is how long a MAC address is

    def cursor(self, network: str, prefix: Prefix) -> Address | None:
        """The address of a subnet that was leased last."""
        query = "SELECT address FROM cursors WHERE network = ? AND version = ?"
        rows = self._all(query, network, prefix.version)
        return Address.unpack(rows[0][0]) if rows else None

    def give(self, row: Endpoint) -> None:
        """Let an endpoint have its addresses. Raises sqlite3.IntegrityError where another has one."""
        addresses = [each.address for each in row.addresses]
        try:
            self._give(row.network, (*addresses, row.mac), row.id)
        except sqlite3.IntegrityError:  # most have not been promised
            for address in addresses:
                self.break_promise(row.network, address)
            self._give(row.network, (*addresses, row.mac), row.id)

    def _give(self, network: str, addresses: Sequence[Address | Mac], holder: str) -> None:
        rows = ", ".join(["(?, ?, ?)"] * len(addresses))
        values = tuple([value for each in addresses for value in (network, each.packed, holder)])
        self._do(f"INSERT INTO leases VALUES {rows}", values)
        for each in addresses:
            if isinstance(each, Address):
                cursor = (network, each.version, each.packed)
                self._do("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?)", cursor)

    # What is promised.

    def promise(self, network: str, address: Address) -> None:
        """Promise an address that nobody holds."""
        self._give(network, (address,), PROMISED)

    def break_promise(self, network: str, address: Address) -> None:
        """Let an address go that is promised; one that an endpoint holds is left alone."""
        row = (network, address.packed, PROMISED)
        self._do("DELETE FROM leases WHERE network = ? AND address = ? AND endpoint = ?", row)

    def pools(self) -> tuple[Prefix, ...]:
        """The prefixes that are promised."""
        rows = self._all("SELECT endpoint FROM leases WHERE network = ? ORDER BY address", POOLS)
        return tuple([Prefix.parse(text) for (text,) in rows])

    def promise_pool(self, prefix: Prefix) -> None:
        """Promise a prefix; once more is fine."""
        row = (POOLS, prefix.address.packed, str(prefix))
        self._do("INSERT OR REPLACE INTO leases VALUES (?, ?, ?)", row)

    def break_pool(self, prefix: Prefix) -> None:
        """Let a prefix go."""
        row = (POOLS, prefix.address.packed, str(prefix))
        self._do("DELETE FROM leases WHERE network = ? AND address = ? AND endpoint = ?", row)
