"""Hearing what happens to the host's links, addresses and routes, and to the ruleset, while nobody asks.

Theory (netlink(7)). A socket that joins groups is sent a copy of every change. Who does not read fast enough loses some, and
is told so once (ENOBUFS). Of sysctls, nobody is told but of forwarding and a few others, which say it late and not whole.

Rules: what is heard is a hint of where to look, and never a fact to act on. What is heard within one breath is told at once.
"""

from __future__ import annotations

import _socket
import os
import select
from errno import EAGAIN, ENOBUFS
from time import sleep

from vethwork.errors import KernelRefused
from vethwork.kernel.netlink import AF_NETLINK, NETLINK_NETFILTER, NETLINK_ROUTE, SO_RCVBUFFORCE
from vethwork.wire.netlink import split
from vethwork.wire.nft.tables import is_removal
from vethwork.wire.rtnetlink import parse_change

# enum rtnetlink_groups of include/uapi/linux/rtnetlink.h: LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE
ROUTE_GROUPS = sum(1 << (group - 1) for group in (1, 5, 7, 9, 11))
RULE_GROUPS = 1 << (7 - 1)  # NFNLGRP_NFTABLES of include/uapi/linux/netfilter/nfnetlink.h
BREATH_SECONDS = 0.05
BUFFER_BYTES = 4 << 20
SOL_SOCKET, MSG_DONTWAIT, RECEIVE_BYTES = 1, 0x40, 1 << 16


class Heard:
    """What happened: links by name, and by index where their addresses or routes went.

    ``routes``: a route was replaced by another. ``rules``: something of a table of ours was removed. ``lost``: more happened.
    """

    def __init__(self) -> None:
        self.links: set[str] = set()
        self.indexes: set[int] = set()
        self.routes = self.rules = self.lost = False


class Events:
    """Ears in the namespace that this is made in, for links, addresses and routes."""

    def __init__(self, buffer_bytes: int) -> None:
        """Raises KernelRefused to who may not have so large a buffer."""
        self._buffer_bytes = buffer_bytes
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._sockets: list[_socket.socket] = []
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        self._listen(NETLINK_ROUTE, ROUTE_GROUPS)

    def hear_rules(self) -> None:
        """Hear of the ruleset from now on."""
        self._listen(NETLINK_NETFILTER, RULE_GROUPS)

    def _listen(self, protocol: int, groups: int) -> None:
        made = _socket.socket(AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, protocol)
        try:
            made.setsockopt(SOL_SOCKET, SO_RCVBUFFORCE, self._buffer_bytes)
            made.bind((0, groups))
        except OSError as error:
            made.close()
            raise KernelRefused("hear what changes", error.errno or 0) from error
        self._sockets.append(made)
        self._poll.register(made.fileno(), select.POLLIN)

    def close(self) -> None:
        """Give the descriptors back."""
        for each in self._sockets:
            each.close()
        os.close(self._wake)

    def wake(self) -> None:
        """End :meth:`wait` in whichever thread waits."""
        os.eventfd_write(self._wake, 1)

    def rest(self, seconds: float) -> None:
        """Wait for :meth:`wake`, that long at most, and hear nothing meanwhile."""
        select.select((self._wake,), (), (), seconds)

    def wait(self, seconds: float) -> Heard:
        """Wait until something happens, that long at most; then a breath longer for what belongs to it."""
        heard = Heard()
        if self._poll.poll(seconds * 1000):
            sleep(BREATH_SECONDS)
            for made in self._sockets:
                _hear(made, heard)
        return heard


def _hear(made: _socket.socket, heard: Heard) -> None:
    """Take in all that is there."""
    buffer = memoryview(bytearray(RECEIVE_BYTES))
    while True:
        try:
            length = made.recv_into(buffer, 0, MSG_DONTWAIT)
        except OSError as error:
            if error.errno == EAGAIN:
                return
            if error.errno != ENOBUFS:
                raise
            heard.lost = True
            continue
        for kind, flags, _, body in split(bytes(buffer[:length])):
            if made.proto == NETLINK_NETFILTER:
                heard.rules |= is_removal(kind, body)
            elif change := parse_change(kind, flags, body):
                _note(heard, *change)


def _note(heard: Heard, ifname: str, index: int) -> None:
    if ifname:
        heard.links.add(ifname)
    elif index:
        heard.indexes.add(index)
    else:
        heard.routes = True
