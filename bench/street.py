"""Where traffic goes: a host with two containers, a neighbour outside, and servers in the first container.

What asks and what answers are Python, with the barest of loops, except for throughput (iperf3). So a figure says little by
itself, and the same loop on a host without any rules is measured beside it: the share of that is what counts.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import struct
import subprocess
import time
from typing import TYPE_CHECKING, Any

from bench.contenders import Library, Netavark
from bench.host import BRIDGE, Contender, address
from bench.namespaces import inside, make_netns, setns

if TYPE_CHECKING:
    from collections.abc import Callable

OUTSIDE, HOST_V4, OUTSIDE_V4 = "/run/netns/outside", "192.0.2.1", "192.0.2.2"
IPERF, ECHO, ACCEPT = 5201, 7000, 7001
RESET = struct.pack("ii", 1, 0)
"""struct linger: a close that forgets the connection at once, so that no port waits to be free again (socket(7))."""
LOST = 5
"""How many datagrams of a measurement may be."""
WAYS = ("container-container", "host-container", "outside-container")


class Street(Contender):
    """The host. ``routed``: what is outside speaks to the container's address, and not to a published port."""

    routed = False
    peers_root = ""
    listens = False

    def build(self, ports: int) -> None:
        """Make it. With ``ports`` 0 what :meth:`serve` needs is published, else so many ports, singly."""
        make_netns(OUTSIDE)
        self.run(["ip", "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", OUTSIDE])
        self.run(["ip", "addr", "add", f"{HOST_V4}/24", "dev", "up0"])
        self.run(["ip", "link", "set", "up0", "up"])
        enter = ["nsenter", f"--net={OUTSIDE}"]
        self.run([*enter, "ip", "addr", "add", f"{OUTSIDE_V4}/24", "dev", "eth0"])
        self.run([*enter, "ip", "link", "set", "eth0", "up"])
        self.run([*enter, "ip", "route", "add", "default", "via", HOST_V4])
        served = [20000 + each for each in range(ports)] or [IPERF, ECHO, ACCEPT]
        self.populate(served)

    def populate(self, ports: list[int]) -> None:
        """Have the two containers attached; the first publishes these ports over TCP and UDP (over TCP if they are many)."""
        if len(ports) < 10:
            self.protocols = ("tcp", "udp")
        self.offer(0, [(port, port, 1) for port in ports])
        self.offer(1, [(40000, 80, 1)])
        for number in (0, 1):
            self.netns(number)
            self.attach(number)

    def inner(self) -> str:
        """The first container's address."""
        raw = inside(self.netns(0), lambda: _addresses(self.run))
        return next(each for each in raw if not each.startswith("127."))

    def serve(self, ports: int) -> None:
        """Start the servers; they listen when this returns."""
        if ports:
            _start(self.netns(0), _accept, 20000 + ports - 1, "tcp")
            return
        _start(self.netns(0), _accept, ACCEPT, "tcp")
        _start(self.netns(0), _echo, ECHO, "tcp")
        _start(self.netns(0), _echo_udp, ECHO, "udp")
        self.iperf(self.netns(0), ["--server"], wait_for="listening")

    def iperf(self, netns: str, options: list[str], wait_for: str = "") -> str:
        """Run iperf3, the peers' where there are peers; with ``wait_for``, leave it running once it has said that."""

        def enter() -> None:
            if netns:
                fd = os.open(netns, os.O_RDONLY)
                setns(fd)
            if self.peers_root:
                os.chroot(self.peers_root)

        command = ["iperf3", "--forceflush", *options]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=enter
        )
        assert process.stdout is not None
        if not wait_for:
            return process.communicate(timeout=60)[0]
        while wait_for not in (line := process.stdout.readline()):
            if not line:
                raise RuntimeError("iperf3 has ended")
        return ""

    def target(self, way: str) -> tuple[str, str]:
        """Where a way begins, and what is asked from there."""
        begin = {"container-container": self.netns(1), "host-container": "", "outside-container": OUTSIDE}[
            way
        ]
        return begin, HOST_V4 if way == "outside-container" and not self.routed else self.inner()

    def throughput(self, way: str, seconds: float) -> float:
        """Bits per second of one TCP connection."""
        begin, asked = self.target(way)
        said = self.iperf(begin, ["--json", "--time", f"{seconds:.0f}", "--client", asked])
        document = json.loads(said)
        if "end" not in document or not document["end"]:
            raise RuntimeError(document.get("error", said[:300]))
        bits: float = document["end"]["sum_received"]["bits_per_second"]
        return bits

    def round_trip(self, way: str, kind: str, times: int) -> float:
        """The middle of many round trips, in seconds, by one connection or one pair of ports."""
        begin, asked = self.target(way)
        return _inside(begin, lambda: _ping(asked, kind, times))

    def connections(self, port: int, seconds: float) -> float:
        """New TCP connections per second from outside, one after the other."""
        begin, asked = self.target("outside-container")
        return _inside(begin, lambda: _connect(asked, port, seconds))

    def loopback(self, seconds: float) -> float:
        """The same by lo: what the loop itself can do."""
        if not self.listens:
            _start("", _accept, ACCEPT, "tcp")
            self.listens = True
        return _connect("127.0.0.1", ACCEPT, seconds)


def _inside(path: str, function: Callable[[], float]) -> float:
    return inside(path, function) if path else function()


def _addresses(run: Callable[[list[str]], str]) -> list[str]:
    links: list[Any] = json.loads(run(["ip", "-json", "-4", "addr"]))
    return [each["local"] for link in links for each in link["addr_info"]]


def _start(netns: str, serve: Callable[[socket.socket], None], port: int, protocol: str) -> None:
    """Have a child process serve at a socket of a namespace, which listens when this returns."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM

    def listen() -> socket.socket:
        made = socket.socket(socket.AF_INET, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("0.0.0.0", port))
        if protocol == "tcp":
            made.listen(4096)
        return made

    with inside(netns, listen) if netns else listen() as listener:
        if os.fork() == 0:
            try:
                serve(listener)
            finally:
                os._exit(0)


def _accept(listener: socket.socket) -> None:
    accept, close = listener._accept, os.close  # type: ignore[attr-defined]
    while True:
        close(accept()[0])


def _echo(listener: socket.socket) -> None:
    while True:
        with listener.accept()[0] as connected:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := connected.recv(64):
                connected.send(data)


def _echo_udp(listener: socket.socket) -> None:
    while True:
        data, peer = listener.recvfrom(64)
        listener.sendto(data, peer)


def _ping(asked: str, kind: str, times: int) -> float:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as asking:
        if kind == "tcp":
            asking.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        asking.settimeout(1)
        asking.connect((asked, ECHO))
        took: list[float] = []
        lost = 0
        clock, send, receive = time.perf_counter, asking.send, asking.recv
        while len(took) <= times:
            start = clock()
            send(b"x")
            try:
                receive(64)
            except TimeoutError:
                lost += 1  # datagrams may be; connections do not forget
                if kind == "tcp" or lost > LOST:
                    raise
                continue
            took.append(clock() - start)
        del took[0]  # the first finds its way
    return statistics.median(took)


def _connect(asked: str, port: int, seconds: float) -> float:
    made, place, clock = socket.socket, (asked, port), time.perf_counter
    with made() as first:
        first.settimeout(5)
        first.connect(place)  # raises where nothing can be reached
    count, start = 0, clock()
    end = start + seconds
    while clock() < end:
        each = made(socket.AF_INET, socket.SOCK_STREAM)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        each.connect(place)
        each.close()
        count += 1
    return count / (clock() - start)


class Plain(Street):
    """A bridge and routes, and no rule at all."""

    routed = True

    def __init__(self, peers_root: str) -> None:
        super().__init__(peers_root)
        self.peers_root = peers_root
        self.run(["ip", "link", "add", BRIDGE, "type", "bridge"])
        self.run(["ip", "addr", "add", "10.77.0.1/16", "dev", BRIDGE])
        self.run(["ip", "link", "set", BRIDGE, "up"])

    def attach(self, number: int) -> float:
        path, near = self.netns(number), f"veth{number}"
        self.run(
            [
                "ip",
                "link",
                "add",
                near,
                "master",
                BRIDGE,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                path,
            ]
        )
        self.run(["ip", "link", "set", near, "up"])
        enter = ["nsenter", f"--net={path}"]
        self.run([*enter, "ip", "link", "set", "lo", "up"])
        self.run([*enter, "ip", "addr", "add", f"{address(number)}/16", "dev", "eth0"])
        self.run([*enter, "ip", "link", "set", "eth0", "up"])
        self.run([*enter, "ip", "route", "add", "default", "via", "10.77.0.1"])
        return 0.0


class OurStreet(Street, Library):
    """With our rules."""

    def __init__(self, peers_root: str) -> None:
        super().__init__()
        self.peers_root = peers_root


class NetavarkStreet(Street, Netavark):
    """With netavark's rules."""
