"""HTTP over sockets, by waitress (docs/decisions/0013-http-library.md).

Theory. One thread holds the connections of all sockets and reads requests without blocking; a request that is complete goes
to one of its socket's worker threads, for an engine's call may wait for its turn. So a client that sends half a request, or
nothing, costs one descriptor until it is cut off, and nobody waits for it.

Rules: a request is complete within a few seconds or its connection ends. When a socket has as many connections as it may have,
the one that has been waited for longest makes room for the next; who has asked is answered.
"""

from __future__ import annotations

import logging
import socket
import time
from errno import EPERM
from typing import TYPE_CHECKING, Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer
from waitress.task import ThreadedTaskDispatcher, WSGITask

from vethwork.service.peers import credentials, may_speak
from vethwork.service.sockets import BACKLOG

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

THREADS = 16
CONNECTIONS = 200
"""Of each socket; all of them together must fit below the usual limit of 1024 descriptors."""
IDLE_SECONDS = 60
REQUEST_SECONDS = 5
"""How long a client may take to say what it wants: it is on this machine."""
READ_BYTES = 32 << 20
"""What is read of a body, so that one that is too long is answered in the protocol; beyond, the connection ends with 413."""
GRACE_SECONDS = 10
"""How long the requests that are being worked on may take to end when the service does; the engine undoes what is cut off."""


class _Task(WSGITask):
    def get_environment(self) -> dict[str, Any]:
        """With the peer's process and user id, where there is one."""
        environ: dict[str, Any] = super().get_environment()
        peer = self.channel.socket
        if peer is not None and peer.family == socket.AF_UNIX:
            environ["vethwork.peer"] = credentials(peer)
        return environ


class _Channel(HTTPChannel):
    """A connection that knows since when it is waited for."""

    task_class = _Task

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.since = time.monotonic()

    def received(self, data: bytes) -> Any:
        if self.request is None:
            self.since = time.monotonic()
        return super().received(data)

    @property
    def is_late(self) -> bool:
        """Whether a request has begun long ago, and is not complete."""
        return self.request is not None and time.monotonic() - self.since > REQUEST_SECONDS


class _Server(BaseWSGIServer):
    """Answers at a socket that listens already. Lets only root in at one that is a file."""

    channel_class = _Channel

    def __init__(
        self,
        listener: socket.socket,
        application: WSGIApplication,
        open_: dict[int, Any],
        workers: ThreadedTaskDispatcher,
    ) -> None:
        settings = Adjustments(
            sockets=[listener],
            channel_timeout=IDLE_SECONDS,
            cleanup_interval=1,
            connection_limit=1 << 20,  # it would count those of all sockets; see readable
            max_request_body_size=READ_BYTES,
            recv_bytes=1 << 16,
            ident=None,
            backlog=BACKLOG,
        )
        where = (listener.family, listener.type, listener.proto, listener.getsockname())
        super().__init__(application, open_, True, listener, workers, settings, where, bind_socket=False)

    def getsockname(self) -> tuple[str, str]:
        return ("", "")

    def fix_addr(self, addr: Any) -> tuple[str, None]:
        return ("localhost", None)

    def set_socket_options(self, conn: Any) -> None:
        """Called for each connection before anything is read. Raises OSError, which ends it."""
        if conn.family == socket.AF_UNIX and not may_speak(conn):
            conn.close()
            raise OSError(EPERM, "the peer is not root")

    @property
    def channels(self) -> list[_Channel]:
        """Its connections."""
        held: dict[int, _Channel] = self.active_channels  # type: ignore[assignment]
        return list(held.values())

    def maintenance(self, now: Any) -> None:
        super().maintenance(now)
        for channel in self.channels:
            channel.will_close |= channel.is_late and not channel.requests

    def readable(self) -> bool:
        return bool(super().readable()) and (len(self.channels) < CONNECTIONS or any(self._waiting()))

    def handle_accept(self) -> None:
        waiting = self._waiting() if len(self.channels) >= CONNECTIONS else []
        if waiting:
            min(waiting, key=lambda channel: channel.since).handle_close()
        super().handle_accept()

    def shut_the_door(self) -> None:
        """Let in who has knocked already, and refuse everybody else at once: they can help themselves."""
        listener: Any = self.socket
        listener.shutdown(socket.SHUT_RD)
        for _ in range(BACKLOG):
            self.handle_accept()
        self.accepting = False

    def _waiting(self) -> list[_Channel]:
        """The connections that have asked for nothing yet, and owe us nothing."""
        return [each for each in self.channels if not each.requests and not each.writable()]


class Web:
    """Sockets and who answers at them, in one loop."""

    def __init__(self) -> None:
        for name in ("waitress", "waitress.queue"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what clients do wrong is theirs to be told
        self._open: dict[int, Any] = {}  # every descriptor that is waited for
        self._servers: list[_Server] = []
        self._stopping = False

    def add(self, listener: socket.socket, application: WSGIApplication, threads: int = THREADS) -> None:
        """Answer at one more socket, with threads of its own: where all are busy, the other sockets do not feel it."""
        workers = ThreadedTaskDispatcher()
        workers.set_thread_count(threads)
        self._servers.append(_Server(listener, application, self._open, workers))

    def stop(self) -> None:
        """Let :meth:`serve` come to its end; may be called by a signal handler, and again when it is there."""
        if self._stopping:
            return
        self._stopping = True
        for server in self._servers:
            server.pull_trigger()

    def serve(self) -> None:
        """Serve until :meth:`stop`; then let what is being worked on end, and be answered."""
        while not self._stopping:
            self._turn(1.0)
        for server in self._servers:
            server.shut_the_door()
        until = time.monotonic() + GRACE_SECONDS
        self._turn(0.05)
        while self._is_busy() and time.monotonic() < until:
            self._turn(0.05)
        for server in self._servers:
            server.task_dispatcher.shutdown(timeout=1)
        wasyncore.close_all(self._open, ignore_all=True)

    def _turn(self, seconds: float) -> None:
        wasyncore.loop(timeout=seconds, use_poll=True, map=self._open, count=1)

    def _is_busy(self) -> bool:
        channels = [channel for server in self._servers for channel in server.channels]
        return any(channel.requests or channel.writable() for channel in channels)
