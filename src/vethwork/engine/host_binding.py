"""Whose records they are: the network namespace that plays the host for what is on record.

Theory. Records say which links and rules a host has; in another namespace they would be about nothing: a detach there would
find no link to delete and no port to close, forget the container, and leave both open where they are. So the records name
their namespace, by the number that the kernel gives no other one until the next boot. Where that namespace is gone, its
links and rules went with it, and the records are void as after a reboot: rootless Podman makes a new one whenever the
last container has ended.

Rules: only what is seen to be there holds the records: a namespace itself cannot be looked for. A veth end dies with the other
end's namespace, so a container that still has its interface is on a host that lives; one that never had an end on the host
lives as long as its namespace does. What somebody else moves into place (Docker) cannot be seen from here.
"""

from __future__ import annotations

from vethwork.errors import BadNamespace, ConflictError
from vethwork.kernel.netns import has_netns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vethwork.kernel.executor import Kernel
    from vethwork.model.container import Container
    from vethwork.store.database import Store

ADVICE = "work there, or set VETHWORK_ROOT to a directory of this one's own"
NAMED = 3
"""So many containers are named in a refusal."""


def move_in(store: Store, kernel: Kernel) -> None:
    """Make the records those of this engine's host, with the world to oneself.

    Raises ConflictError while containers are on the links of the one that they are about.
    """
    anew = store.host() not in (0, kernel.host)
    if anew:
        there = [each.name for each in store.containers() if _is_there(store, kernel, each)]
        if there:
            more = f" and {len(there) - NAMED} more" if len(there) > NAMED else ""
            raise ConflictError(
                f"use {store.path}: it is about another network namespace, where"
                f" {', '.join(there[:NAMED])}{more} {'live' if len(there) > 1 else 'lives'}",
                hint=ADVICE,
            )
    store.move_in(kernel.host, anew=anew)


def _is_there(store: Store, kernel: Kernel, container: Container) -> bool:
    if container.handed or not container.netns or not has_netns(container.netns, container.netns_cookie):
        return False
    ends = [endpoint.ifname for endpoint in store.endpoints_of(container.name) if endpoint.host_ifname]
    try:
        return not ends or any(kernel.door(container.netns).find(ifname) for ifname in ends)
    except BadNamespace:  # it has gone since
        return False
    finally:
        kernel.leave_namespaces()
