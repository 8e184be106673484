"""HTTP over a Unix socket, by waitress (docs/decisions/0013-http-library.md).

Theory. One thread holds all connections and reads requests without blocking; a request that is complete goes to one of
several worker threads, for an engine's call may wait for its turn. So a client that sends half a request, or nothing, costs
one descriptor until it is cut off, and nobody waits for it.
"""

from __future__ import annotations

import logging
import time
from errno import EPERM
from typing import TYPE_CHECKING, Any

from waitress.adjustments import Adjustments
from waitress.server import UnixWSGIServer
from waitress.task import ThreadedTaskDispatcher

from vethwork.service.sockets import may_speak

if TYPE_CHECKING:
    import socket
    from wsgiref.types import WSGIApplication

THREADS = 16
CONNECTIONS = 500
IDLE_SECONDS = 60
READ_BYTES = 32 << 20
"""What is read of a body, so that one that is too long is answered in the protocol; beyond, the connection ends with 413."""
GRACE_SECONDS = 10
"""How long the requests that are being worked on may take to end when the service does; the engine undoes what is cut off."""


class Server(UnixWSGIServer):
    """Answers at a socket that listens already. Lets only root in."""

    def __init__(self, listener: socket.socket, application: WSGIApplication) -> None:
        logging.getLogger("waitress").setLevel(logging.CRITICAL)  # what clients do wrong is theirs to be told
        settings = Adjustments(
            sockets=[listener],
            threads=THREADS,
            connection_limit=CONNECTIONS,
            channel_timeout=IDLE_SECONDS,
            cleanup_interval=10,
            max_request_body_size=READ_BYTES,
            ident=None,
        )
        workers = ThreadedTaskDispatcher()
        workers.set_thread_count(THREADS)
        where = (listener.family, listener.type, listener.proto, listener.getsockname())
        self._stopping = False
        self._open: dict[int, Any] = {}  # every descriptor that is waited for
        super().__init__(
            application,
            self._open,
            True,
            listener,
            workers,
            settings,
            where,
            bind_socket=False,
        )

    def set_socket_options(self, conn: Any) -> None:
        """Called for each connection before anything is read. Raises OSError, which ends it."""
        if not may_speak(conn):
            conn.close()
            raise OSError(EPERM, "the peer is not root")

    def stop(self) -> None:
        """Let :meth:`serve` come to its end; may be called by a signal handler."""
        self._stopping = True
        self.pull_trigger()

    def serve(self) -> None:
        """Serve until :meth:`stop`; then let what is being worked on end, and be answered."""
        while not self._stopping:
            self._turn(1.0)
        self.accepting = False
        until = time.monotonic() + GRACE_SECONDS
        while self._is_busy() and time.monotonic() < until:
            self._turn(0.05)
        self.task_dispatcher.shutdown(timeout=1)
        self.asyncore.close_all(self._open, ignore_all=True)

    def _turn(self, seconds: float) -> None:
        self.asyncore.loop(timeout=seconds, use_poll=True, map=self._open, count=1)

    def _is_busy(self) -> bool:
        channels = list(self.active_channels.values())  # type: ignore[attr-defined]
        return any(channel.requests or channel.writable() for channel in channels)
