"""The service from its start to its end.

Rules: it is ready when its socket listens and the state file can be opened. SIGTERM and SIGINT end it: what is being
worked on is finished and answered, then the socket file goes.
"""

from __future__ import annotations

import signal

from vethwork.engine import Engine
from vethwork.service.notify import tell
from vethwork.service.plugin import application
from vethwork.service.sockets import listening
from vethwork.service.web import Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

DOCKER_SOCKET = "/run/docker/plugins/vethwork.sock"
"""Where dockerd looks for a plugin named vethwork (docs.docker.com, "Docker Plugin API", discovery)."""


def serve(docker_socket: str = DOCKER_SOCKET, on_ready: Callable[[], None] = lambda: None) -> None:
    """Serve the Docker plugin until SIGTERM or SIGINT. For the main thread of a process.

    Raises ConflictError if somebody serves there already, RequestError if the path cannot be used, StateError.
    """
    Engine().close()
    with listening(docker_socket) as listener:
        server = Server(listener, application)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.stop())
        tell("READY=1")
        on_ready()
        server.serve()
        tell("STOPPING=1")
