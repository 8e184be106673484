"""Servers that tell whom they saw, and the dialogs with them.

A server is asked anything and answers with what it saw: from which address and port the question came, and at which of its
own it arrived. That is what NAT is about. Over TCP it speaks HTTP, so that curl can ask too; over UDP one datagram
gets one back, from the address that was asked.

Rules: a server's socket listens when the function that starts it returns, so nobody waits for it. It is served by a child
process, which ends with its parent at the latest: it watches a descriptor of it (pidfd_open(2)).
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import threading
from contextlib import closing
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any, NoReturn, Self

IN6_PKTINFO = struct.Struct("=16sI")  # struct in6_pktinfo, include/uapi/linux/ipv6.h
TCP, UDP = "tcp", "udp"
KINDS = {TCP: socket.SOCK_STREAM, UDP: socket.SOCK_DGRAM}


class Seen(NamedTuple):
    """What a server saw: its own ``name``, the address and port that asked, those that were asked, and the question."""

    name: str
    peer: str
    peer_port: int
    local: str
    local_port: int
    question: str


class Response(NamedTuple):
    """An HTTP response."""

    status: int
    text: str


def mapped(address: str) -> str:
    """An address as an IPv6 socket takes it: IPv4 ones mapped (RFC 4291 2.5.5.2), and ``::`` for none."""
    if not address:
        return "::"
    return address if ":" in address else f"::ffff:{address}"


def unmapped(address: str) -> str:
    """The address that :func:`mapped` mapped."""
    return address.removeprefix("::ffff:") if "." in address else address


def make_listener(protocol: str, port: int, bind: str) -> socket.socket:
    """A socket that is being listened on; ``bind`` empty means every address of both families. Raises OSError.

    One IPv6 socket serves both families. Call it in the server's namespace.
    """
    listener = socket.socket(socket.AF_INET6, KINDS[protocol])
    try:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if protocol == UDP:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((mapped(bind), port))
        if protocol == TCP:
            listener.listen(socket.SOMAXCONN)
    except OSError:
        listener.close()
        raise
    return listener


def serve(listener: socket.socket, protocol: str, name: str, parent: int) -> NoReturn:
    """Answer until the process that ``parent`` is a pidfd of has ended; then end too. For a child process."""
    target = _serve_http if protocol == TCP else _serve_udp
    threading.Thread(target=target, args=(listener, name), daemon=True).start()
    select.select([parent], [], [])
    os._exit(0)


def _spell(name: str, peer: tuple[Any, ...], local: tuple[Any, ...], question: str) -> bytes:
    seen = Seen(name, unmapped(peer[0]), peer[1], unmapped(local[0]), local[1], question)
    return json.dumps(seen._asdict()).encode() + b"\n"


def _serve_udp(listener: socket.socket, name: str) -> None:
    port = listener.getsockname()[1]
    while True:
        data, notes, _, peer = listener.recvmsg(65535, socket.CMSG_SPACE(IN6_PKTINFO.size))
        asked = socket.inet_ntop(socket.AF_INET6, next((note[2][:16] for note in notes), bytes(16)))
        answer = _spell(name, peer, (asked, port), data.decode(errors="replace"))
        # Index 0: by whatever link the routes say, but from the address that was asked.
        source = [(level, kind, IN6_PKTINFO.pack(note[:16], 0)) for level, kind, note in notes]
        try:
            listener.sendmsg([answer], source, 0, peer)
        except OSError:
            continue  # there is no way back to whoever asked


def _serve_http(listener: socket.socket, name: str) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer = _spell(name, self.client_address, self.connection.getsockname(), self.path)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(listener.getsockname()[:2], Handler, bind_and_activate=False) as server:
        server.socket.close()
        server.socket = listener
        server.daemon_threads = True
        server.serve_forever()


class Dialog:
    """A connection to a server (over UDP, a pair of ports) by which several questions can be asked; a context manager."""

    def __init__(self, connected: socket.socket, protocol: str) -> None:
        self.socket = connected
        self.protocol = protocol
        address, port = connected.getpeername()[:2]
        self._http = HTTPConnection(address, port)
        self._http.sock = connected

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def ask(self, question: str = "/", timeout: float | None = None) -> Seen:
        """Ask, and give what the server saw. Raises TimeoutError and other OSErrors."""
        if timeout is not None:
            self.socket.settimeout(timeout)
        if self.protocol == UDP:
            self.socket.send(question.encode())
            return Seen(**json.loads(self.socket.recv(65535)))
        return Seen(**json.loads(self.get(question).text))

    def get(self, path: str) -> Response:
        """Ask an HTTP server for a path."""
        self._http.request("GET", path)
        with closing(self._http.getresponse()) as response:
            return Response(response.status, response.read().decode(errors="replace"))
