"""Links that carry frames by the time somebody is told so.

Theory. When the second end of a veth pair comes up, both ends get their carrier, and so does a bridge that had no port up
before. What follows from it (a bridge port that forwards, a queue that takes packets) is done later by a worker of the
kernel: soon for a veth, up to a second later for a bridge (net/core/link_watch.c). A container that speaks at once loses
its first packet, and ARP tries again only after a second. Asking for a link's state through ethtool makes the kernel do
the pending work of that link first (ethtool_op_get_link, linkwatch_sync_dev).

Rules: a link that is gone, or that cannot be asked, is passed over: this makes things prompt, not right.
"""

from __future__ import annotations

import _socket
import fcntl
from _ctypes import _SimpleCData, addressof  # `array` has addresses too, and loads `collections`
from struct import pack
from sys import byteorder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SIOCETHTOOL = 0x8946  # include/uapi/linux/sockios.h
ETHTOOL_GLINK = 0x0A  # include/uapi/linux/ethtool.h
_COMMAND = int.from_bytes(pack("II", ETHTOOL_GLINK, 0), byteorder)


class _EthtoolValue(_SimpleCData):  # type: ignore[type-arg]
    """struct ethtool_value: the command, and room for its answer."""

    _type_ = "Q"


def settle(ifnames: Iterable[str]) -> None:
    """Let the kernel finish what the carrier of these links of the calling thread's namespace set off, in this order."""
    with_answer = _EthtoolValue(_COMMAND)
    asking = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC, 0)
    try:
        for ifname in ifnames:
            # struct ifreq: the name, and a pointer to the command
            request = pack("16sP16x", ifname.encode(), addressof(with_answer))
            try:
                fcntl.ioctl(asking.fileno(), SIOCETHTOOL, request)
            except OSError:
                continue
    finally:
        asking.close()
