"""Ping, without the program of that name."""

from __future__ import annotations

import os
import socket
import time
from struct import pack, unpack_from
from typing import TYPE_CHECKING

from vethwork.testing.frames import checksum

if TYPE_CHECKING:
    from collections.abc import Callable

    from vethwork.model.address import Address

KINDS = {4: (socket.AF_INET, socket.IPPROTO_ICMP), 6: (socket.AF_INET6, socket.IPPROTO_ICMPV6)}
REQUEST = {4: 8, 6: 128}  # RFC 792, RFC 4443
REPLY = {4: 0, 6: 129}
ASK_AGAIN_SECONDS = 0.2
"""A link that has just come up may swallow the first request."""


def ping(
    inside: Callable[[Callable[[], socket.socket]], socket.socket], address: Address, timeout: float
) -> bool:
    """Tell whether an address answers an echo request before the time is up.

    ``inside`` makes the socket where it asks from. Raises PermissionError without CAP_NET_RAW.
    """
    family, protocol = KINDS[address.version]
    identifier, deadline = os.urandom(4), time.monotonic() + timeout
    with inside(lambda: socket.socket(family, socket.SOCK_RAW, protocol)) as pinger:
        while (left := deadline - time.monotonic()) > 0:
            try:
                pinger.connect((str(address), 0))
                pinger.send(_request(address.version, identifier))
                if _hears(pinger, address.version, identifier, min(ASK_AGAIN_SECONDS, left)):
                    return True
            except OSError:
                return False  # no route, or somebody on the way says no
    return False


def _request(version: int, identifier: bytes) -> bytes:
    body = pack("!BBH", REQUEST[version], 0, 0) + identifier
    return body[:2] + pack("!H", checksum(body)) + body[4:] if version == 4 else body


def _hears(pinger: socket.socket, version: int, identifier: bytes, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        pinger.settimeout(left)
        try:
            heard = pinger.recv(2048)
        except TimeoutError:
            return False
        if version == 4:  # a raw IPv4 socket gives the IP header too; see raw(7)
            heard = heard[4 * (heard[0] & 15) :]
        if len(heard) >= 8 and unpack_from("!B3x4s", heard) == (REPLY[version], identifier):
            return True
    return False
