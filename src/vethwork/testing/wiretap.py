"""A wiretap: frames as they pass an interface, and frames put there by hand (packet(7)).

Rules: it hears from the moment it is made, so make it before the cause. Nothing here waits without an end. To show that
something does *not* arrive, send after it something that does, over the same path, and look at what came
:meth:`~Wiretap.until` then: frames on one path keep their order, and no time has to be guessed.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

from vethwork.testing.frames import Frame, Payload, ethernet, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

ETH_P_ALL = 3  # include/uapi/linux/if_ether.h
PACKET_OUTGOING = 4  # include/uapi/linux/if_packet.h
SO_RCVBUFFORCE = 33
BUFFER_BYTES = 1 << 22


class Wiretap:
    """A packet socket on one interface; a context manager. Construct it inside the interface's namespace.

    It hears what comes in; with ``outgoing`` what goes out, and nothing else.
    """

    def __init__(self, ifname: str, *, outgoing: bool = False) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
            self._socket.bind((ifname, ETH_P_ALL))
        except OSError:
            self._socket.close()
            raise
        self._outgoing = outgoing
        self.ifname = ifname

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptor back."""
        self._socket.close()

    def send(self, to_mac: str, source_mac: str, payload: Payload) -> None:
        """Put a frame on the interface, as if it came from this machine."""
        self._socket.send(ethernet(to_mac, source_mac, payload))

    def frames(self, timeout: float) -> Iterator[Frame]:
        """The frames that pass from now on, and those that have passed and were not read, until the time is up."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                raw, address = self._socket.recvfrom(65535)
            except TimeoutError:
                return
            if (address[2] == PACKET_OUTGOING) == self._outgoing:
                yield parse(raw)

    def until(self, condition: Callable[[Frame], bool], timeout: float = 5.0) -> list[Frame]:
        """Everything that passes up to the first frame that fits, with that one at the end.

        Raises TimeoutError, which lists what was seen instead.
        """
        seen: list[Frame] = []
        for frame in self.frames(timeout):
            seen.append(frame)
            if condition(frame):
                return seen
        listed = "\n".join(f"  {frame!r}" for frame in seen) or "  nothing at all"
        raise TimeoutError(f"the frame waited for did not pass {self.ifname} in {timeout} s, but:\n{listed}")

    def wait_for(self, condition: Callable[[Frame], bool], timeout: float = 5.0) -> Frame:
        """The first frame that fits. Raises TimeoutError."""
        return self.until(condition, timeout)[-1]
