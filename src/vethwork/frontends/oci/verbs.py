"""The two verbs: attach, once a container's namespaces are there, and detach, once the container is gone.

Theory. At createRuntime the container's process waits in its namespaces, and the network is given to the namespace that the
process holds. Nothing else of ours holds it: a pin would outlive a container whose poststop hook never ran. At poststop the
process is gone and its namespace with it; what is to be released is on record under the container's id.

Rules: attach leaves all or nothing. Detach looks at nothing but the id: what is not there, or is not of our making, is
detached already. When a createRuntime hook has failed, runc runs the poststop hooks too, and the id may then be that of
somebody else's container that lives; so what lives is left alone.
"""

from __future__ import annotations

import os
import select

from vethwork.engine import Engine, new_id
from vethwork.errors import BadNamespace, ConflictError, NotFound
from vethwork.frontends.oci.wish import OWNER, parse_wish

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from vethwork.frontends.oci.state import State
    from vethwork.model.container import Container

GRACE_SECONDS = 2.0
"""How long a killed process may take to be gone: ``crun delete --force`` does not wait for it."""


def attach(state: State) -> None:
    """createRuntime: give the container its network. Raises VethworkError; nothing is left of it then."""
    request = parse_wish(new_id(), state.id, state.pid, state.annotations)
    if _is_own_namespace(state.pid):
        raise BadNamespace(
            f"attach {request.name}: process {state.pid} is in the host's own network namespace",
            hint='config.json needs {"type": "network"}, without a path, in linux.namespaces',
        )
    with Engine() as engine:
        engine.attach(request)


def _is_own_namespace(pid: int) -> bool:
    try:
        return os.path.samefile(f"/proc/{pid}/ns/net", "/proc/self/ns/net")
    except OSError:
        return False  # the engine has words for a process that is gone


def detach(state: State) -> None:
    """poststop: release what the container had. Raises Incomplete, or ConflictError if it is alive."""
    name = state.id
    with Engine() as engine:
        container = _ours(engine, name)
        if container is None:
            return
        if engine.lives(container):
            _await_end(container)
        engine.detach_dead(name)
        if _ours(engine, name) == container:
            raise ConflictError(
                f"detach {name}: it lives, so its network stays",
                hint="is this hook that of another container of the same id?",
            )


def _ours(engine: Engine, name: str) -> Container | None:
    """The container of that id; None if there is none, or if it is of another front-end."""
    try:
        container = engine.inspect(name).container
    except NotFound:
        return None
    return container if container.owner == OWNER and container.name == name else None


def _await_end(container: Container) -> None:
    """Wait a little for the process that holds a container's namespace."""
    pid = int(container.netns.split("/")[2])
    try:
        ending = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(ending, select.POLLIN)
        poll.poll(GRACE_SECONDS * 1000)
    finally:
        os.close(ending)


VERBS: dict[str, Callable[[State], None]] = {"attach": attach, "detach": detach}
