"""The four modes of ``--net``, and how they go together.

    host            the host's own namespace: no isolation, no address of its own
    none            a namespace of its own with nothing in it but loopback
    container:NAME  the namespace of another container: same addresses, same ports
    ns:PATH         a namespace that somebody else made
    NETWORK ...     a namespace of its own, with an interface on each network; ``bridge`` if nothing is said

Rules: only networks go together with each other; what belongs to an interface (an address, a published port) needs one.
"""

from __future__ import annotations

from vethwork.errors import RequestError
from vethwork.model.container import AWAITED, AttachRequest, Container
from vethwork.model.steps import PinNetns, SetLinkUp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vethwork.model.state import AttachSeen
    from vethwork.model.steps import Step


def check_mode(request: AttachRequest) -> None:
    """Refuse what a mode cannot give. Raises RequestError."""
    kind = request.mode.kind
    if request.handed and (kind != "network" or request.netns is not None):
        raise RequestError(f"attach {request.name}: links that somebody else moves are those of a network")
    if kind == "network":
        return
    if request.publishes:
        why = {
            "host": "the process has the host's own ports",
            "container": "the ports are those of the container that it shares with",
        }.get(kind, "it has no network that a port could be published from")
        raise RequestError(f"publish {request.publishes[0]}: --net {request.mode}: {why}")
    if kind in ("host", "container", "ns") and request.netns is not None:
        raise RequestError(
            f"attach {request.name}: --net {request.mode} names a namespace, and --netns another"
        )


def container_of(request: AttachRequest, seen: AttachSeen) -> Container:
    """The container's row. Raises RequestError."""
    kind = request.mode.kind
    pinned = False
    netns: str = ""
    cookie = seen.netns_cookie
    if request.handed:
        netns = AWAITED
    elif kind == "host":
        netns = ""
    elif kind == "container":
        if seen.target is None:
            raise RequestError(
                f"attach {request.name}: there is no container {request.mode.target} to share with"
            )
        netns, cookie = seen.target.netns, seen.target.netns_cookie
    elif kind == "ns":
        netns = request.mode.target
    elif request.netns is not None:
        netns = request.netns
    else:
        netns, pinned = seen.pin_path, True
    mode = str(request.mode) if kind != "network" else ",".join(join.network for join in request.joins)
    return Container(request.id, request.name, mode, netns, pinned, request.owner, request.handed, cookie)


def enclose(request: AttachRequest, container: Container, links: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps that make a container's namespace, if that is ours to do, around those that lay its links.

    Loopback comes last: what is sent into the namespace then goes out together.
    """
    pin: tuple[Step, ...] = (PinNetns(container.netns),) if container.pinned else ()
    own = request.mode.kind in ("none", "network") and not request.handed
    return (*pin, *links, *((SetLinkUp(container.netns, "lo"),) if own else ()))
