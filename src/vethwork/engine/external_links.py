"""Containers whose links somebody else moves into place: Docker's libnetwork, by way of its plugin protocol.

    engine.attach(request)      with ``handed``: name, addresses, MAC and the guards at the port; no link yet
    hand_over(engine, name)     the link: its inner end on the host, to be moved and configured by whoever asked
    engine.publish, unpublish   as for any container
    engine.detach(name)         everything, wherever the inner end is by then

Rules: such a container has one endpoint. We need not be able to see its namespace: it lives while its link does.
"""

from __future__ import annotations

from vethwork.model.container import AWAITED
from vethwork.plan.external_links import plan_hand_over

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vethwork.engine.engine import Engine
    from vethwork.model.container import Container
    from vethwork.model.names import NetnsPath
    from vethwork.model.state import ContainerSeen


def hand_over(engine: Engine, name: str, netns: NetnsPath) -> ContainerSeen:
    """Lay a container's link; ``netns`` is where its namespace is said to be. Doing it twice lays it anew.

    Raises NotFound, RequestError if its links are not handed over, KernelRefused; no link is left of it then.
    """
    for endpoint in engine.inspect(name).endpoints:
        engine.ensure_network(endpoint.network)
    with engine.turn(name) as execution:
        execution.carry_out(lambda: plan_hand_over(engine.inspect(name)))
        with engine.store.transaction():
            engine.store.put_netns(name, netns)
        return engine.inspect(name)


def collect_dead(engine: Engine, owner: str) -> None:
    """Detach what ``owner`` had made for containers whose link is gone: he may have forgotten them without a word."""
    for container in engine.containers():
        if container.handed and container.owner == owner and not engine.lives(container):
            engine.detach_dead(container.name)


def is_awaited(container: Container) -> bool:
    """Whether nobody has taken over its link yet."""
    return container.handed and container.netns == AWAITED
