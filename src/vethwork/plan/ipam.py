"""Which address, and which subnet (IPAM).

Rules: an address is handed out at most once; the next one is sought after the last one that was given, so that an
address rests as long as possible before it is somebody else's. The first and, for IPv4, the last address of a subnet
belong to nobody (RFC 1122 3.2.1.3, RFC 4291 2.6.1), except in a /31 (RFC 3021) or a /127 (RFC 6164).
"""

from __future__ import annotations

from vethwork.errors import ConflictError, RequestError
from vethwork.model.address import BITS, Address, Interface, Prefix
from vethwork.model.container import Range
from vethwork.model.network import Network, Subnet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

POOL = (Prefix.parse("10.76.0.0/14"), Prefix.parse("172.24.0.0/13"), Prefix.parse("192.168.0.0/16"))
"""Where subnets are taken from when nobody asks for one."""
POOL_LENGTH = 22
"""A /22 holds 1021 containers, and a bridge takes 1023 ports."""


def usable(prefix: Prefix) -> tuple[Address, Address]:
    """The first and the last address of a prefix that a host may have."""
    if BITS[prefix.version] - prefix.length < 2:
        return prefix.address, prefix.last
    return prefix.address + 1, prefix.last if prefix.version == 6 else prefix.last + -1


def bounds(subnet: Subnet) -> tuple[Address, Address]:
    """The first and the last address that a container of the subnet may be given unasked."""
    lowest, highest = usable(subnet.prefix)
    first, last = subnet.pool.address, subnet.pool.last
    return first if first.value > lowest.value else lowest, last if last.value < highest.value else highest


def _value(address: Address) -> int:
    return address.value


def ranges_in(subnet: Subnet, asked: Iterable[Range]) -> tuple[Range, ...]:
    """Where an address of a subnet is chosen from: what is asked for of it, else its pool."""
    inside = [each for each in asked if each.first in subnet.prefix and each.last in subnet.prefix]
    if not inside:
        return (Range(*bounds(subnet)),)
    lowest, highest = usable(subnet.prefix)
    return tuple(
        [Range(max(lowest, each.first, key=_value), min(highest, each.last, key=_value)) for each in inside]
    )


def find_free(
    subnet: Subnet,
    last: Address | None,
    leased: Callable[[Address, Address], Iterator[Address]],
    asked: Iterable[Range] = (),
    held: Iterable[Address] = (),
) -> Address | None:
    """The next address that nobody has, after ``last`` and then from the start; None if there is none.

    ``leased(first, last)`` gives the addresses on lease between the two, in order; it is read only as far as they stand
    without a gap. ``asked`` are the ranges that the caller wants it from, ``held`` what nobody is given.
    """
    never = {each.value for each in (subnet.gateway, *held) if each is not None and each in subnet.prefix}
    found = (_find_in(each, never, last, leased) for each in ranges_in(subnet, asked))
    return next((address for address in found if address is not None), None)


def _find_in(
    where: Range,
    never: set[int],
    last: Address | None,
    leased: Callable[[Address, Address], Iterator[Address]],
) -> Address | None:
    low, high = where.first, where.last
    start = last + 1 if last is not None and low.value <= last.value < high.value else low
    found = _gap(start, high, never, leased(start, high))
    return found or (_gap(low, start, never, leased(low, start)) if start != low else None)


def _gap(low: Address, high: Address, never: set[int], leased: Iterator[Address]) -> Address | None:
    candidate = low.value
    taken = next(leased, None)
    while candidate <= high.value:
        if candidate in never:
            candidate += 1
        elif taken is not None and taken.value <= candidate:
            candidate = max(candidate, taken.value + 1)
            taken = next(leased, None)
        else:
            return Address(low.version, candidate)
    return None


def check_static(network: Network, subnet: Subnet, address: Address, holder: str) -> Interface:
    """Let a container have the very address it asks for. Raises RequestError or ConflictError."""
    low, high = usable(subnet.prefix)
    if not low.value <= address.value <= high.value:
        raise RequestError(f"address {address}: is the network's or the broadcast address of {subnet.prefix}")
    if address == subnet.gateway:
        raise ConflictError(f"address {address}: is the gateway of network {network.name}")
    if address in network.held:
        raise ConflictError(f"address {address}: is kept free of containers on network {network.name}")
    if holder:
        raise ConflictError(f"address {address}: is held by container {holder}")
    return Interface(address, subnet.prefix.length)


def find_subnet(length: int, taken: Iterable[Prefix]) -> Prefix:
    """The first subnet of the pool that overlaps nothing taken. Raises ConflictError if none is left."""
    avoid = tuple(taken)
    for pool in POOL:
        for value in range(pool.address.value, pool.last.value, 1 << (32 - length)):
            candidate = Prefix(Address(4, value), length)
            if not any(candidate.overlaps(other) for other in avoid):
                return candidate
    raise ConflictError(
        f"choose a subnet: every /{length} of {', '.join(str(pool) for pool in POOL)} overlaps a route or a network",
        hint="name one with --subnet",
    )


def local_prefix(network_id: str) -> Prefix:
    """A /64 of unique local addresses (RFC 4193) whose 40-bit global id is the start of the network's random id."""
    return Prefix(Address(6, (0xFD << 40 | int(network_id[:10], 16)) << 80), 64)
