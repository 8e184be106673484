"""The reconciler in the service: a thread that watches the host, and a socket for processes that change the owned ruleset.

Rules: a client that sends nothing is disconnected and delays no other client. A client in another network namespace is
refused, because it means other tables. Repairs are reported on standard error, which is the journal under systemd. An
exception in the watching thread is reported, and the watch continues.
"""

from __future__ import annotations

import socket
import sys
import threading
import traceback
from contextlib import contextmanager, suppress

from vethwork.engine.engine import Engine
from vethwork.errors import VethworkError
from vethwork.maintenance.reconciler import Guard
from vethwork.service.peers import is_elsewhere, may_speak
from vethwork.service.sockets import listening

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLIENTS = 32
"""How many are answered at once; the others wait."""
RECOVERY_SECONDS, GRACE_SECONDS = 5.0, 10.0


@contextmanager
def guarding(
    root: str = "", run: str = "", repaired: Callable[[str], None] = lambda _: None
) -> Iterator[None]:
    """Guard the host of an engine until the end of the block; ``repaired`` is told what was repaired, in another thread.

    Raises ConflictError if somebody else guards it, StateError and KernelRefused.
    """
    with (
        Engine(root, run) as engine,
        listening(engine.owner_path) as listener,
        Guard(engine.owner_path, _say, repaired) as guard,
    ):
        answering = threading.Thread(target=_answer_all, args=(listener, guard))
        watching = threading.Thread(target=_watch, args=(guard, engine.root, engine.run), daemon=True)
        answering.start()
        try:
            guard.begin(engine)
            watching.start()
            yield
        finally:
            guard.stop()
            if watching.ident is not None:
                watching.join(GRACE_SECONDS)
            listener.shutdown(socket.SHUT_RD)
            answering.join()


def _say(line: str) -> None:
    with suppress(OSError):  # a full disk, a reader that is gone
        print(f"vethwork: {line}", file=sys.stderr, flush=True)


def _watch(guard: Guard, root: str, run: str) -> None:
    """Watch until the guard is stopped."""
    while not guard.is_stopped:
        try:
            with Engine(root, run) as engine:
                guard.watch(engine)
        except Exception as error:
            text = str(error) if isinstance(error, VethworkError) else traceback.format_exc().rstrip()
            _say(f"the watch goes on in {RECOVERY_SECONDS:.0f} seconds: {text}")
            guard.rest(RECOVERY_SECONDS)


def _answer_all(listener: socket.socket, guard: Guard) -> None:
    """Answer whoever comes and may speak, until the listener is shut down."""
    free = threading.BoundedSemaphore(CLIENTS)

    def answer(client: socket.socket) -> None:
        with client:
            if may_speak(client) and not is_elsewhere(client):
                guard.answer(client)
        free.release()

    while True:
        free.acquire()
        try:
            client, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=answer, args=(client,), daemon=True).start()
