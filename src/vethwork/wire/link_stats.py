"""What a link has carried, as the kernel counts it: an attribute of each link that is listed."""

from __future__ import annotations

from struct import Struct

from vethwork.model.state import Carried
from vethwork.wire.netlink import attributes

IFINFO_BYTES, IFLA_IFNAME, IFLA_STATS64 = 16, 3, 23  # include/uapi/linux/if_link.h
_STATS64 = Struct("=4Q")  # the first of struct rtnl_link_stats64: packets in and out, bytes in and out


def parse_carried(body: bytes) -> tuple[str, Carried]:
    """Read a link's name and what it has carried. Raises ValueError if it does not say."""
    found = attributes(body, IFINFO_BYTES)
    stats = found.get(IFLA_STATS64, b"")
    if len(body) < IFINFO_BYTES or len(stats) < _STATS64.size:
        raise ValueError("link message is cut short")
    packets_in, packets_out, bytes_in, bytes_out = _STATS64.unpack_from(stats)
    name = found.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="surrogateescape")
    return name, Carried(packets_in, bytes_in, packets_out, bytes_out)
