"""The service from its start to its end.

Rules: it is ready when its sockets listen and the state file can be opened. Its parts start in their order and stop in the
opposite one. SIGTERM and SIGINT end it: what is being worked on is finished and answered, then the socket files go.
"""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack

from vethwork.engine.engine import Engine
from vethwork.engine.reaper import Reaper
from vethwork.service.calls import Calls
from vethwork.service.counters import Counters
from vethwork.service.docker_plugin import Plugin
from vethwork.service.engine_pool import Engines
from vethwork.service.http import Web
from vethwork.service.inherited_fds import close_inherited
from vethwork.service.metrics import PATH, Metrics
from vethwork.service.reconciler_thread import guarding
from vethwork.service.sd_notify import tell
from vethwork.service.sockets import listening, listening_tcp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any
    from wsgiref.types import WSGIApplication

    from vethwork.model.address import Address

SOCKET = "service.sock"
"""The socket of runtimes' calls, in the run directory (``launch``)."""
SCRAPERS = 2
"""Threads for those who ask by TCP, who may be anybody on this machine."""


def serve(
    docker_socket: str = "",
    metrics_at: tuple[Address, int] | None = None,
    on_ready: Callable[[tuple[str, ...]], None] = lambda _: None,
) -> None:
    """Serve until SIGTERM or SIGINT. For the main thread of a process of its own: what it has inherited is closed.

    ``metrics_at`` is a loopback address and a port for those who cannot ask at the service's socket. ``on_ready`` is told of
    all sockets. Raises ConflictError if somebody serves at one of them already, RequestError if one cannot be had, StateError.
    """
    close_inherited()
    with Engine() as engine:
        root, run = engine.root, engine.run
    os.chdir("/")
    counters = Counters()
    with ExitStack() as parts:
        reaper = parts.enter_context(Reaper(root, run))
        engines = parts.enter_context(Engines(root, run, reaper))
        web = Web()
        sockets = [f"{run}/{SOCKET}"]
        metrics = Metrics(engines, counters)
        web.add(parts.enter_context(listening(sockets[0])), _by_path(Calls(engines, counters), metrics))
        if docker_socket:
            sockets.append(docker_socket)
            web.add(parts.enter_context(listening(docker_socket)), Plugin(engines, counters))
        if metrics_at is not None:
            listener = parts.enter_context(listening_tcp(*metrics_at))
            sockets.append("{}, port {}".format(*listener.getsockname()[:2]))
            web.add(listener, metrics, SCRAPERS)
        parts.enter_context(guarding(root, run, counters.repaired))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: web.stop())
        tell("READY=1")
        on_ready(tuple(sockets))
        web.serve()
        tell("STOPPING=1")


def _by_path(calls: WSGIApplication, metrics: WSGIApplication) -> WSGIApplication:
    """What the service's socket answers: calls, and its numbers."""

    def application(request: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        chosen = metrics if request["PATH_INFO"] == PATH else calls
        return chosen(request, start_response)

    return application
