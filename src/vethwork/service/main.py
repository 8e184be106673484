"""The service from its start to its end.

Rules: it is ready when its sockets listen and the state file can be opened. Its parts start in their order and stop in the
opposite one. SIGTERM and SIGINT end it: what is being worked on is finished and answered, then the socket files go.
"""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack

from vethwork.engine import Engine
from vethwork.service.calls import Calls
from vethwork.service.counters import Counters
from vethwork.service.descriptors import close_inherited
from vethwork.service.engines import Engines
from vethwork.service.notify import tell
from vethwork.service.plugin import Plugin
from vethwork.service.sockets import listening
from vethwork.service.web import Web

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SOCKET = "service.sock"
"""The socket of runtimes' calls, in the run directory (``launch``)."""


def serve(docker_socket: str = "", on_ready: Callable[[tuple[str, ...]], None] = lambda _: None) -> None:
    """Serve until SIGTERM or SIGINT. For the main thread of a process of its own: what it has inherited is closed.

    ``on_ready`` is told of all sockets. Raises ConflictError if somebody serves at one of them already, RequestError if
    a path cannot be used, StateError.
    """
    close_inherited()
    with Engine() as engine:
        engines = Engines(engine.root, engine.run)
    os.chdir("/")
    counters = Counters()
    web = Web(engines.drop)
    with ExitStack() as parts:
        service_socket = f"{engines.run}/{SOCKET}"
        web.add(parts.enter_context(listening(service_socket)), Calls(engines, counters))
        if docker_socket:
            web.add(parts.enter_context(listening(docker_socket)), Plugin(engines, counters))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: web.stop())
        tell("READY=1")
        on_ready((service_socket, *([docker_socket] if docker_socket else [])))
        web.serve()
        tell("STOPPING=1")
