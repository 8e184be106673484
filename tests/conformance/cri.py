"""A client of the Container Runtime Interface, as small as the tests need: four calls, over gRPC, by hand.

Source: k8s.io/cri-api, pkg/apis/runtime/v1/api.proto (field numbers); gRPC over HTTP/2 (PROTOCOL-HTTP2.md); the protocol
buffers encoding (protobuf.dev, Encoding).
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS = 60.0
PROTOCOLS = {"tcp": 0, "udp": 1, "sctp": 2}


class CallFailed(Exception):
    """What the runtime said instead of an answer."""


def number(value: int) -> bytes:
    """A varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(place: int, value: int | str | bytes) -> bytes:
    """A field of a message: a number, a text, or a message."""
    if isinstance(value, int):
        return number(place << 3) + number(value)
    data = value.encode() if isinstance(value, str) else value
    return number(place << 3 | 2) + number(len(data)) + data


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message, in order."""
    while data:
        key, data = _number(data)
        value, data = _number(data)
        if key & 7 == 0:
            yield key >> 3, value
        else:
            yield key >> 3, data[:value]
            data = data[value:]


def _number(data: bytes) -> tuple[int, bytes]:
    value = 0
    for place, byte in enumerate(data):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, data[place + 1 :]
    raise ValueError("a number is cut short")


def find(data: bytes, place: int) -> bytes:
    """The text or message in a field; empty if there is none."""
    return next((value for at, value in fields(data) if at == place and isinstance(value, bytes)), b"")


def call(path: Path, method: str, request: bytes) -> bytes:
    """Make one call, on a connection of its own. Raises CallFailed."""
    connection = H2Connection(H2Configuration(header_encoding="utf-8"))
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", f"/runtime.v1.RuntimeService/{method}"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(SECONDS)
        link.connect(str(path))
        connection.initiate_connection()
        stream = connection.get_next_available_stream_id()
        connection.send_headers(stream, headers)
        connection.send_data(stream, struct.pack(">BI", 0, len(request)) + request, end_stream=True)
        link.sendall(connection.data_to_send())
        return _answer(link, connection, method)


def _answer(link: socket.socket, connection: H2Connection, method: str) -> bytes:
    body = b""
    said: dict[str, str] = {}
    while True:
        received = link.recv(65536)
        if not received:
            raise CallFailed(f"{method}: the runtime hung up")
        for event in connection.receive_data(received):
            if isinstance(event, ResponseReceived | TrailersReceived):
                said |= {str(key): str(value) for key, value in event.headers or ()}
            elif isinstance(event, DataReceived):
                body += event.data
                connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded | StreamReset):
                if said.get("grpc-status") != "0":
                    raise CallFailed(f"{method}: {said.get('grpc-message', said)}")
                return body[5:]
        link.sendall(connection.data_to_send())


class Pods:
    """The pods of a runtime that listens on a socket."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(
        self,
        name: str,
        ports: tuple[tuple[int, int], ...] = (),
        annotations: dict[str, str] | None = None,
        servers: tuple[str, ...] = (),
    ) -> str:
        """Start a pod; gives its id. ``ports`` are host ports and container ports."""
        metadata = field(1, name) + field(2, f"uid-{name}") + field(3, "default") + field(4, 1)
        config = field(1, metadata) + field(2, name) + field(3, "/tmp")
        if servers:
            config += field(4, b"".join(field(1, server) for server in servers))
        for host, container in ports:
            config += field(5, field(1, PROTOCOLS["tcp"]) + field(2, container) + field(3, host))
        for key, value in (annotations or {}).items():
            config += field(7, field(1, key) + field(2, value))
        config += field(8, b"")
        return find(call(self.path, "RunPodSandbox", field(1, config)), 1).decode()

    def stop(self, pod: str) -> None:
        """End a pod: DEL, with its namespace."""
        call(self.path, "StopPodSandbox", field(1, pod))

    def remove(self, pod: str) -> None:
        """Forget a pod: DEL once more, with an empty CNI_NETNS."""
        call(self.path, "RemovePodSandbox", field(1, pod))

    def addresses(self, pod: str) -> list[str]:
        """What the runtime believes are its addresses."""
        network = find(find(call(self.path, "PodSandboxStatus", field(1, pod)), 1), 5)
        more = [
            find(value, 1).decode() for at, value in fields(network) if at == 2 and isinstance(value, bytes)
        ]
        return [find(network, 1).decode(), *more]

    def is_ready(self) -> bool:
        """Whether the runtime finds a network configuration that it likes."""
        status = find(call(self.path, "Status", b""), 1)
        conditions = [
            dict(fields(value)) for at, value in fields(status) if at == 1 and isinstance(value, bytes)
        ]
        return any(each.get(1) == b"NetworkReady" and each.get(2) == 1 for each in conditions)
