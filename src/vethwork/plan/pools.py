"""Pools: prefixes that somebody wants before he makes a network of them.

Rules: a pool overlaps nothing that is in use. Asking for the very same one again is fine while no network is made of it:
who asked first may have died.
"""

from __future__ import annotations

from vethwork.errors import ConflictError, RequestError
from vethwork.model.address import BITS, Prefix
from vethwork.plan.ipam import POOL_LENGTH, find_subnet, local_prefix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def choose_pool(
    wanted: Prefix | None, version: int, used: Sequence[Prefix], promised: Sequence[Prefix], seed: str
) -> Prefix:
    """A prefix, the ``wanted`` one if there is one. ``seed`` is 32 random hex digits.

    ``used`` are those of networks and of the host, ``promised`` those of other pools. Raises RequestError, ConflictError.
    """
    if wanted is None:
        return local_prefix(seed) if version == 6 else find_subnet(POOL_LENGTH, (*used, *promised))
    if wanted.version != version:
        raise RequestError(f"request pool {wanted}: is not IPv{version}")
    if BITS[version] - wanted.length < 2:
        raise RequestError(f"request pool {wanted}: is too small")
    if wanted.address.is_multicast or wanted.address.is_loopback or wanted.address.is_any:
        raise RequestError(f"request pool {wanted}: is no range for hosts")
    for other in (*used, *[each for each in promised if each != wanted]):
        if wanted.overlaps(other):
            raise ConflictError(f"request pool {wanted}: overlaps {other}, which is in use")
    return wanted
