"""Addresses for those who ask before they attach: pools, and addresses of a pool (Docker's IPAM protocol).

Rules: what is promised here and what containers hold are the same leases, so nobody is given what another has, whichever way
he came. A pool is its prefix, and what narrows it; once a network is made of it, its addresses are that network's. What
is not there any more is released already.
"""

from __future__ import annotations

from vethwork.engine.networks import new_id
from vethwork.errors import ConflictError, RequestError
from vethwork.kernel.host_state import see_host
from vethwork.model.address import Interface, Prefix
from vethwork.model.network import Subnet
from vethwork.model.record import Record
from vethwork.plan.ipam import check_static, find_free, usable
from vethwork.plan.pools import choose_pool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from vethwork.engine.engine import Engine
    from vethwork.model.address import Address
    from vethwork.model.network import Network


class Pool(Record):
    """A prefix, and the part of it that addresses are chosen from. Its text is its identity."""

    prefix: Prefix
    part: Prefix

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``10.0.0.0/24``, or ``10.0.0.0/24,10.0.0.128/25``. Raises RequestError."""
        prefix, comma, part = text.partition(",")
        return cls.check(Prefix.parse(prefix), Prefix.parse(part) if comma else None)

    @classmethod
    def check(cls, prefix: Prefix, part: Prefix | None) -> Self:
        """Raises RequestError if the part is no part of it."""
        if part is not None and (part.address not in prefix or part.length < prefix.length):
            raise RequestError(f"pool {prefix}: {part} is no part of it")
        return cls(prefix, part or prefix)

    def __str__(self) -> str:
        return str(self.prefix) if self.part == self.prefix else f"{self.prefix},{self.part}"


def request_pool(engine: Engine, wanted: Prefix | None, part: Prefix | None, version: int) -> Pool:
    """Promise a prefix that is in use nowhere. Raises RequestError or ConflictError."""
    store = engine.store
    if part is not None and wanted is None:
        raise RequestError(f"request pool: {part} is a part of a pool that is not named")
    with engine.execution().begin(exclusive=True):
        host = see_host(engine.kernel).taken
        with store.transaction():
            used = [subnet.prefix for network in store.networks() for subnet in network.subnets]
            promised = store.leases.pools()
            prefix = choose_pool(wanted, version, (*used, *host), promised, new_id())
            pool = Pool.check(prefix, part)
            store.leases.promise_pool(prefix)
    return pool


def release_pool(engine: Engine, pool: Pool) -> None:
    """Take the promise back. A network that was made of it keeps its subnet."""
    with engine.store.transaction():
        engine.store.leases.break_pool(pool.prefix)


def request_gateway(pool: Pool, wanted: Address | None) -> Interface:
    """The address for the gateway of a network that is yet to be made. Raises RequestError."""
    low, high = usable(pool.prefix)
    address = wanted or low
    if not (address.version == low.version and low.value <= address.value <= high.value):
        raise RequestError(f"request address {address}: cannot be a gateway in {pool.prefix}")
    return Interface(address, pool.prefix.length)


def request_address(engine: Engine, pool: Pool, wanted: Address | None) -> Interface:
    """Promise an address that nobody has. Raises RequestError or ConflictError.

    Before there is a network, the very address that is asked for is to be kept free in it, which its maker will say again.
    """
    if wanted is not None and wanted not in pool.prefix:
        raise RequestError(f"request address {wanted}: lies not in {pool.prefix}")
    store = engine.store
    with store.transaction():
        network = _network_of(engine, pool)
        if network is None:
            if wanted is None:
                raise RequestError(f"request address: there is no network of {pool.prefix} yet")
            return request_gateway(pool, wanted)
        subnet = next(each for each in network.subnets if each.prefix == pool.prefix)
        found = _choose(engine, network, subnet.replace(pool=pool.part), wanted)
        store.leases.promise(network.name, found.address)
        return found


def _choose(engine: Engine, network: Network, subnet: Subnet, wanted: Address | None) -> Interface:
    store = engine.store
    if wanted is not None:
        return check_static(network, subnet, wanted, store.leases.holder(network.name, wanted))
    last = store.leases.cursor(network.name, subnet.prefix)
    free = find_free(subnet, last, lambda *span: store.leases.taken(network.name, *span), (), network.held)
    if free is None:
        raise ConflictError(f"request address: every address of {subnet.pool} is held")
    return Interface(free, subnet.prefix.length)


def release_address(engine: Engine, pool: Pool, address: Address) -> None:
    """Take the promise back; an address that a container holds goes with the container."""
    with engine.store.transaction():
        network = _network_of(engine, pool)
        if network is not None:
            engine.store.leases.break_promise(network.name, address)


def _network_of(engine: Engine, pool: Pool) -> Network | None:
    found = [each for each in engine.networks() if any(sub.prefix == pool.prefix for sub in each.subnets)]
    return found[0] if found else None
