"""The raw-netlink floor: the kernel work of one attach of ours, and nothing around it.

What it does is read off the commands that the engine itself prints for the attach (``vethwork attach --dry-run``), and
turned into netlink messages before the clock starts. In the time are, for an attach:

* the port is tried: a socket bound to it in each IP version, closed again, as our attach does to find a local server;
* one message to the host's socket makes the veth pair, its far end in the container's namespace under its final name, the
  near end in the bridge and up; the hairpin flag of that bridge port goes out in the same system call, for the links are
  numbered by us and nothing need be asked;
* the container's namespace is entered, a socket made there, the sysctls of the plan written, and the namespace left;
* lo up, the address, the link up, the default route: four messages in one system call to that socket;
* one nft transaction with every element of the plan, into the very tables of the engine;
* the carrier is settled: two ioctls.

For a detach: one nft transaction that takes the elements out, and one message that deletes the link (the kernel returns
when the last reader is done with it, about 20 ms).

Not in the time, and so the floor is lower than any program could be: reading what is there, choosing an address and a
name, records, locks, making the messages, checking that the namespace is not the host's, and the walk through
conntrack that a detach of ours makes. It runs in Python too; in C it would be some 0.05 ms less. ``links`` is the attach
without the port, the elements and the carrier: the figure that the design began with.

Sources: include/uapi/linux/{rtnetlink,if_link,if_bridge,veth,if_addr}.h and include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import array
import fcntl
import os
import re
import socket
import struct
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.contenders import Library
from bench.host import SPARE
from bench.namespaces import LinkWatch, links, setns

if TYPE_CHECKING:
    from collections.abc import Callable

ACK, CREATE, REPLACE, EXCL = 0x1 | 0x4, 0x400, 0x100, 0x200  # NLM_F_REQUEST with each
NEWLINK, DELLINK, SETLINK, NEWADDR, NEWROUTE = 16, 17, 19, 20, 24
NEWSETELEM, DELSETELEM, BATCH_BEGIN, BATCH_END = 0x0A0C, 0x0A0E, 0x10, 0x11
FAMILIES = {"inet": 1, "ip": 2, "bridge": 7, "ip6": 10}
PROTOCOLS = {"tcp": 6, "udp": 17}
VERSIONS = {'"ipv4"': 2, '"ipv6"': 10}  # NFPROTO_IPV4 and _IPV6, as the engine's commands say them
GROUP = 1986360424  # the mark of our links
NEAR, FAR = 60000, 2
"""The numbers of the two ends of the pair: one that the host has not come to, and the first that a namespace gives."""


def attribute(kind: int, data: bytes) -> bytes:
    """One netlink attribute."""
    return struct.pack("=HH", len(data) + 4, kind) + data + bytes(-len(data) % 4)


def message(kind: int, flags: int, body: bytes) -> bytes:
    """One netlink message, whose number does not matter: answers come in order."""
    return struct.pack("=IHHII", len(body) + 16, kind, flags, 1, 0) + body


def ifinfo(index: int, flags: int = 0, family: int = 0) -> bytes:
    """struct ifinfomsg; only IFF_UP is ever changed."""
    return struct.pack("=BxHiII", family, 0, index, flags, flags)


class Facts(NamedTuple):
    """What the commands of an attach say."""

    ifname: str
    bridge: str
    mac: str
    address: str
    length: int
    broadcast: str
    gateway: str
    port: int
    sysctls: tuple[tuple[str, str], ...]
    elements: tuple[tuple[str, str, str], ...]
    unknown: tuple[str, ...]


LINE = re.compile(
    r"ip link add (?P<ifname>\S+) .* type veth peer name eth0 address (?P<mac>\S+) "
    r"|ip link set \S+ master (?P<bridge>\S+) up$"
    r"|ip addr replace (?P<address>[\d.]+)/(?P<length>\d+) dev eth0 brd (?P<broadcast>\S+)"
    r"|ip route (?:add|replace) default via (?P<gateway>\S+) dev eth0"
    r"|(?P<known>ip link set (?:lo|eth0) up$|bridge link set dev \S+ hairpin on$|nft -f|END$|#)"
)
SYSCTL = re.compile(r"sysctl -qw (?P<path>[^\s=]+)=(?P<value>\S+)$")
ELEMENT = re.compile(r"add element (\S+) vethwork (\S+) \{ (.*) \}$")


def read(commands: str, port: int) -> Facts:
    """Read the commands of an attach; what the floor has no part for is kept, to be told with the results.

    Raises LookupError if what it cannot do without is not there.
    """
    found: dict[str, str] = {}
    sysctls, elements, unknown = [], [], []
    for line in commands.splitlines():
        bare = re.sub(r"^nsenter --net=\S+ ", "", line)
        if element := ELEMENT.match(bare):
            elements.append((element[1], element[2], element[3]))
        elif sysctl := SYSCTL.search(bare):
            sysctls.append((f"/proc/sys/{sysctl['path']}", sysctl["value"]))
        elif known := LINE.match(bare):
            found |= {name: value for name, value in known.groupdict().items() if value}
        else:
            unknown.append(line)
    found.pop("known", None)
    if missing := {*Facts._fields[:7]} - found.keys():
        raise LookupError(f"the engine's commands do not say: {', '.join(sorted(missing))}: {unknown}")
    length = int(found.pop("length"))
    return Facts(
        **found,
        length=length,
        port=port,
        sysctls=tuple(sysctls),
        elements=tuple(elements),
        unknown=tuple(unknown),
    )


def encode(text: str) -> bytes:
    """A key or a value of an element: its parts, each filled up to four bytes."""
    return b"".join([_encode_part(part.strip()) for part in text.split(" . ")])


def _encode_part(part: str) -> bytes:
    if part in VERSIONS:
        return bytes([VERSIONS[part], 0, 0, 0])
    if part.startswith('"'):
        return part.strip('"').encode().ljust(16, b"\0")
    if re.fullmatch(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", part):
        return bytes.fromhex(part.replace(":", "")) + bytes(2)
    if re.fullmatch(r"[\d.]+\.[\d.]+", part):
        return socket.inet_aton(part)
    if part in PROTOCOLS:
        return bytes([PROTOCOLS[part], 0, 0, 0])
    return struct.pack("!H2x", int(part))


def batch(kind: int, elements: tuple[tuple[str, str, str], ...]) -> bytes:
    """One nft transaction; the last element is answered, and with it the whole."""
    subsystem = struct.pack("!BBH", 0, 0, 10)
    out = message(BATCH_BEGIN, 1, subsystem)
    for place, (family, name, text) in enumerate(elements):
        key, _, value = text.partition(" : ")
        element = attribute(0x8001, attribute(1, encode(key)))
        if value:
            element += attribute(0x8002, attribute(1, encode(value)))
        body = struct.pack("!BBH", FAMILIES[family], 0, 0) + attribute(1, b"vethwork\0")
        body += attribute(2, name.encode() + b"\0") + attribute(0x8003, attribute(0x8001, element))
        last = place == len(elements) - 1
        out += message(kind, (5 if last else 1) | (CREATE if kind == NEWSETELEM else 0), body)
    return out + message(BATCH_END, 1, subsystem)


class Prepared:
    """An attach and its detach, as bytes, with the sockets that a resident program would hold."""

    def __init__(self, facts: Facts, netns_fd: int) -> None:
        self.facts, self.netns_fd = facts, netns_fd
        self.host_fd = os.open("/proc/self/ns/net", os.O_RDONLY)
        self.route = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self.nft = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
        self.nft.bind((0, 0))
        self.asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bridge, mac = socket.if_nametoindex(facts.bridge), bytes.fromhex(facts.mac.replace(":", ""))
        mtu = attribute(4, struct.pack("=I", 1500))
        peer = ifinfo(FAR) + attribute(3, b"eth0\0") + attribute(1, mac) + mtu
        peer += attribute(28, struct.pack("=I", netns_fd))
        kind = attribute(1, b"veth\0") + attribute(2, attribute(1, peer))
        body = (
            ifinfo(NEAR, 1)
            + attribute(3, facts.ifname.encode() + b"\0")
            + attribute(10, struct.pack("=I", bridge))
        )
        body += mtu + attribute(27, struct.pack("=I", GROUP)) + attribute(18, kind)
        hairpin = ifinfo(NEAR, 0, socket.AF_BRIDGE) + attribute(0x8000 | 12, attribute(4, b"\1"))
        self.pair = message(NEWLINK, ACK | CREATE | EXCL, body) + message(SETLINK, ACK, hairpin)
        self.container = self._container(facts)
        self.opened, self.closed = batch(NEWSETELEM, facts.elements), batch(DELSETELEM, facts.elements)
        self.deleted = message(DELLINK, ACK, ifinfo(NEAR))
        answer = array.array("I", (0x0A, 0))  # ETHTOOL_GLINK
        self.answer = answer
        where = answer.buffer_info()[0]
        self.settled = [struct.pack("16sP16x", name.encode(), where) for name in (facts.ifname, facts.bridge)]

    @staticmethod
    def _container(facts: Facts) -> bytes:
        local, broadcast = socket.inet_aton(facts.address), socket.inet_aton(facts.broadcast)
        address = struct.pack("=BBBBI", socket.AF_INET, facts.length, 0, 0, FAR)
        address += attribute(2, local) + attribute(1, local) + attribute(4, broadcast)
        # table main, protocol static, scope universe, unicast
        route = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 254, 4, 0, 1, 0)
        route += attribute(5, socket.inet_aton(facts.gateway)) + attribute(4, struct.pack("=I", FAR))
        return (
            message(NEWLINK, ACK, ifinfo(1, 1))
            + message(NEWADDR, ACK | CREATE | REPLACE, address)
            + message(NEWLINK, ACK, ifinfo(FAR, 1))
            + message(NEWROUTE, ACK | CREATE | EXCL, route)
        )

    def close(self) -> None:
        """Let go of the sockets."""
        for each in (self.route, self.nft, self.asking):
            each.close()
        os.close(self.host_fd)

    def try_port(self) -> None:
        """Find out that nobody listens at the port."""
        for family, anywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            with socket.socket(family, socket.SOCK_STREAM) as tried:
                if family == socket.AF_INET6:
                    tried.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind((anywhere, self.facts.port))

    def make_links(self) -> None:
        """The pair, and everything in the container."""
        self.route.send(self.pair)
        _expect(self.route, 2)
        setns(self.netns_fd)
        try:
            inner = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            for path, value in self.facts.sysctls:
                fd = os.open(path, os.O_WRONLY)
                os.write(fd, value.encode())
                os.close(fd)
        finally:
            setns(self.host_fd)
        inner.send(self.container)
        _expect(inner, 4)
        inner.close()

    def change(self, transaction: bytes) -> None:
        """Send one nft transaction."""
        self.nft.send(transaction)
        _expect(self.nft, 1)

    def settle(self) -> None:
        """Have the kernel finish with the carrier."""
        for request in self.settled:
            fcntl.ioctl(self.asking.fileno(), 0x8946, request)

    def attach(self) -> None:
        """All of it."""
        self.try_port()
        self.make_links()
        self.change(self.opened)
        self.settle()

    def delete(self) -> None:
        """Delete the pair."""
        self.route.send(self.deleted)
        _expect(self.route, 1)

    def detach(self) -> None:
        """All of it, backwards."""
        self.change(self.closed)
        self.delete()


def _expect(answered: socket.socket, count: int) -> None:
    """Read so many acknowledgements. Raises OSError for one that is none."""
    while count > 0:
        data = answered.recv(65536)
        place = 0
        while place < len(data):
            length, kind = struct.unpack_from("=IH", data, place)
            error = struct.unpack_from("=i", data, place + 16)[0] if kind == 2 else 0
            if error:
                raise OSError(-error, os.strerror(-error))
            count -= kind == 2
            place += (length + 3) & ~3


class Floor(Library):
    """A host that the engine has filled, on which the spare container comes and goes by the floor."""

    def once(self) -> tuple[float, ...]:
        """Attach, detach, and attach without the port, the elements and the carrier; the seconds of each."""
        path = self.netns(SPARE)
        prepared, netns_fd = self._prepare(path)
        try:
            attached = _clocked(prepared.attach)
            watch = LinkWatch(path)
            detached = _clocked(prepared.detach)
            watch.wait_gone(lambda: links(path) == {"lo"})
            bare = _clocked(prepared.make_links)
            prepared.delete()
        finally:
            prepared.close()
            os.close(netns_fd)
        return attached, detached, bare

    def differences(self) -> list[str]:
        """The commands of an attach that the floor has no part for."""
        return list(self._facts().unknown)

    def _prepare(self, path: str) -> tuple[Prepared, int]:
        fd = os.open(path, os.O_RDONLY)
        return Prepared(self._facts(), fd), fd

    def _facts(self) -> Facts:
        request = self.request(SPARE)
        plans: list[Any] = []
        with self.vethwork.Engine(rehearse=plans.append) as engine:
            engine.attach(request)
        commands: list[Any] = [command for plan in plans for command in plan.commands()]
        return read("\n".join(commands), request.publishes[0].host_port)


def _clocked(does: Callable[[], None]) -> float:
    start = time.perf_counter()
    does()
    return time.perf_counter() - start
