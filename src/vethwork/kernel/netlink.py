"""A netlink socket: requests in, answers or the kernel's refusal out.

Rules: a socket belongs to the namespace it was made in for ever, whichever thread uses it. Several requests go out in one
system call, and the last of them is acknowledged; the kernel does them in order, and goes on after one that it refuses.
A dump that the kernel says was interrupted by a change (NLM_F_DUMP_INTR) is asked for again.
"""

from __future__ import annotations

import _socket  # the C half of `socket`, without the enum module that its other half loads
from sys import byteorder

from vethwork.errors import KernelRefused
from vethwork.wire.netlink import NLM_F_DUMP, NLMSG_DONE, NLMSG_ERROR, frame, parse_error, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

    from vethwork.wire.netlink import Message

AF_NETLINK, SOL_NETLINK = 16, 270
NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 10, 11, 12
NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
NLM_F_DUMP_INTR = 0x10
RECEIVE_BYTES = 1 << 16
"""More than the kernel puts in one datagram: of a dump, 32 KiB at most (net/netlink/af_netlink.c, netlink_dump)."""
SEND_BUFFER_BYTES = 1 << 25
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
ENOBUFS = 105


def new_buffer() -> memoryview:
    """Room for any datagram."""
    return memoryview(bytearray(RECEIVE_BYTES))


class NetlinkSocket:
    """One netlink socket of one protocol; a context manager.

    ``buffer`` is what it receives into, if not one of its own: to make one and clear it takes as long as a small request.
    """

    def __init__(self, protocol: int, buffer: memoryview | None = None) -> None:
        self._socket = _socket.socket(AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, protocol)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._sequence = 0
        self.fd = self._socket.fileno()
        self._buffer = buffer or new_buffer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptor back."""
        self._socket.close()

    def _receive(self, flags: int = 0) -> bytes:
        """One datagram. Into a buffer that stays: the kernel would have to map and clear a new one of this size each time."""
        return bytes(self._buffer[: self._socket.recv_into(self._buffer, 0, flags)])

    def be_strict(self) -> None:
        """Let the kernel heed what a dump asks for (Linux 4.20); an older one lists everything all the same."""
        try:
            self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        except OSError:
            return

    def transact(self, requests: Sequence[tuple[Message, str]]) -> list[bytes]:
        """Send requests in one datagram, each with what it does in words; wait for every answer.

        Gives the bodies of what came back beside the acknowledgements. Raises KernelRefused for the first request that
        the kernel refused; those after it were tried all the same.
        """
        first = self._sequence + 1
        last = len(requests) - 1
        packet = b"".join(
            [
                frame(message, first + place, acknowledge=place == last)
                for place, (message, _) in enumerate(requests)
            ]
        )
        self._sequence += len(requests)
        self._socket.send(packet)
        return self._collect(first, [doing for _, doing in requests])

    def ask(self, message: Message, doing: str) -> list[bytes]:
        """One request; see :meth:`transact`."""
        return self.transact([(message, doing)])

    def _collect(self, first: int, doings: list[str]) -> list[bytes]:
        """The kernel does the requests in order, and reports what it refuses unasked: the last one's answer ends it."""
        bodies: list[bytes] = []
        refused: KernelRefused | None = None
        last = first + len(doings) - 1
        waiting = True
        while waiting:
            for kind, flags, sequence, body in split(self._receive()):
                if not first <= sequence <= last:
                    continue
                if kind != NLMSG_ERROR:
                    bodies.append(body)
                    continue
                errno, extack = parse_error(body, flags)
                if errno and refused is None:
                    refused = KernelRefused(doings[sequence - first], errno, extack)
                waiting = sequence != last
        if refused is not None:
            raise refused
        return bodies

    def dump(self, message: Message, doing: str) -> list[bytes]:
        """Ask for a whole table (``message.flags`` gets DUMP); gives the bodies. Raises KernelRefused."""
        message = message.replace(flags=message.flags | NLM_F_DUMP)
        while True:
            self._sequence += 1
            self._socket.send(frame(message, self._sequence, acknowledge=False))
            bodies: list[bytes] = []
            interrupted = False
            for flags, body in self._dumped(doing):
                interrupted |= bool(flags & NLM_F_DUMP_INTR)
                bodies.append(body)
            if not interrupted:
                return bodies

    def _dumped(self, doing: str) -> Iterator[tuple[int, bytes]]:
        while True:
            for kind, flags, sequence, body in split(self._receive()):
                if sequence != self._sequence:
                    continue
                if kind in (NLMSG_DONE, NLMSG_ERROR):
                    errno = -int.from_bytes(body[:4], byteorder, signed=True)  # both begin with it
                    if errno:
                        raise KernelRefused(doing, errno)
                    return
                yield flags, body
