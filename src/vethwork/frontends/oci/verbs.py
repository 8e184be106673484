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

from vethwork.engine.networks import new_id
from vethwork.errors import BadNamespace, ConflictError, NotFound, RequestError
from vethwork.frontends.oci.request import OWNER, parse_wish
from vethwork.maintenance.check import observe_interface
from vethwork.model.names import Name, NetnsPath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from vethwork.engine.engine import Engine, Engines
    from vethwork.frontends.oci.state import State
    from vethwork.model.container import Container

GRACE_SECONDS = 2.0
"""How long a killed process may take to be gone: ``crun delete --force`` does not wait for it."""


def attach(engines: Engines, state: State) -> None:
    """createRuntime: give the container its network. Raises VethworkError; nothing is left of it then."""
    pid = state.pid
    netns = NetnsPath(f"/proc/{pid}/ns/net")
    request = parse_wish(new_id(), state.id, netns, state.annotations)
    if _is_own_namespace(netns):
        raise BadNamespace(
            f"attach {request.name}: process {pid} is in the host's own network namespace",
            hint='config.json needs {"type": "network"}, without a path, in linux.namespaces',
        )
    with engines() as engine:
        engine.check_netns(netns)  # before the default network is made for a container that is gone
        engine.attach(request)


def _is_own_namespace(netns: str) -> bool:
    try:
        return os.path.samefile(netns, "/proc/self/ns/net")
    except OSError:
        return False  # the engine has words for a process that is gone


def detach(engines: Engines, state: State) -> None:
    """poststop: release what the container had. Raises Incomplete, or ConflictError if it is alive."""
    said = state.id
    try:
        name = Name.parse(said)
    except RequestError:
        return  # attach has refused it
    with engines() as engine:
        container = _ours(engine, name)
        if container is None or engine.detach_dead(name):
            return
        _await_end(container)
        if engine.detach_dead(name) or _ours(engine, name) != container:
            return
        if _is_there(engine, name):
            raise ConflictError(
                f"detach {name}: it lives, so its network stays",
                hint="is this hook that of another container of the same id?",
            )
        engine.detach(name)


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


def _is_there(engine: Engine, name: str) -> bool:
    """Whether a container's namespace is still its own: the process id may be that of another process by now."""
    seen = engine.inspect(name)
    for endpoint, network in zip(seen.endpoints, seen.networks, strict=True):
        try:
            found = observe_interface(engine, seen.container.netns, endpoint, network)
        except BadNamespace:
            return False
        if found.mac == endpoint.mac:
            return True
    return False


VERBS: dict[str, Callable[[Engines, State], None]] = {"attach": attach, "detach": detach}
