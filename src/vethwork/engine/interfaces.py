"""One interface at a time, as CNI has it: the first makes the container, the last takes it away.

Rules: two interfaces of one container may come and go side by side; each waits for its turn, and sees what the one before
left. A front-end takes away only what it has made itself.
"""

from __future__ import annotations

from vethwork.errors import ConflictError
from vethwork.kernel.netns import same_netns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vethwork.engine.engine import Engine
    from vethwork.engine.operation import Execution
    from vethwork.model.address import Mac
    from vethwork.model.container import AttachRequest, Endpoint
    from vethwork.model.network import Network
    from vethwork.model.state import ContainerSeen
    from vethwork.model.steps import AddRoute


def add_interface(engine: Engine, request: AttachRequest) -> Endpoint:
    """Give a container one interface, and make the container if this is its first.

    ``request`` has one join, which names the interface. A port that the container has published already is not asked for
    again: a runtime says them anew at each interface. Raises as ``Engine.attach``; ConflictError besides if the container
    is somebody else's, or lives in another namespace.
    """
    return engine.again(lambda: _add(engine, request), lambda: engine.make_room(request))


def _add(engine: Engine, request: AttachRequest) -> Endpoint:
    made = engine.attach_at_once(request)
    if made is not None:
        return made.endpoints[0]
    join = request.joins[0]
    engine.ensure_network(join.network)
    engine.check_namespace(request)
    with engine.turn(request.name, join.network) as execution:
        seen = _clear_stale(engine, execution, request)
        if seen is not None:
            have = {each.publish for each in seen.publications}
            fresh = tuple([publish for publish in request.publishes if publish not in have])
            return engine.connect_in(execution, seen, join, fresh, reserved=request.reserved)
        return engine.attach_in(execution, request).endpoints[0]


def host_macs(engine: Engine, endpoint: Endpoint, network: Network) -> tuple[Mac | None, Mac | None]:
    """The MAC addresses of an interface's bridge and of its end on the host; None where one is gone."""
    host = engine.kernel.door("")
    return host.mac(network.device), host.mac(endpoint.host_ifname)


def routes_by(engine: Engine, endpoint: Endpoint) -> tuple[AddRoute, ...]:
    """The routes that lead out of a container by one of its interfaces and a gateway, by what is on record."""
    from vethwork.plan.endpoint import routes_of

    routes = routes_of("", engine.store.endpoints_of(endpoint.container))
    return tuple([each for each in routes if each.ifname == endpoint.ifname and each.gateway is not None])


def remove_interface(engine: Engine, name: str, network: str, ifname: str, owner: str) -> bool:
    """Take one interface away, and the container with its last one. False: ``owner`` made none of that name.

    Raises ConflictError while others share the container's namespace, Incomplete if the kernel refused a part.
    """
    from vethwork.plan.detach import plan_detach, plan_disconnect

    with engine.turn(name) as execution:
        seen = engine.observer.existing(name)
        if seen is None or seen.container.owner != owner:
            return False
        rest = [each for each in seen.endpoints if (each.network, each.ifname) != (network, ifname)]
        if len(rest) == len(seen.endpoints):
            return False
        cables = engine.observer.cables(seen)
        alive = engine.lives(seen.container)
        if rest:
            execution.carry_out(lambda: plan_disconnect(network, seen, cables, ifname, alive=alive))
        else:
            execution.carry_out(
                lambda: plan_detach(engine.observer.container(name), cables, alive=alive), wait=False
            )
    engine.remove_idle_networks(seen.networks)
    return True


def _clear_stale(engine: Engine, execution: Execution, request: AttachRequest) -> ContainerSeen | None:
    """The container that an interface is added to; None if there is none yet.

    What died without anybody having said so makes room: a container whose namespace is gone, or a link of it.
    """
    seen = engine.observer.existing(request.name)
    if seen is None:
        return None
    if seen.container.owner != request.owner:
        raise ConflictError(
            f"attach {request.name}: there is a container of that name, made by {seen.container.owner}"
        )
    if not engine.lives(seen.container):
        from vethwork.plan.detach import plan_detach

        cables = engine.observer.cables(seen)
        execution.carry_out(lambda: plan_detach(seen, cables, alive=False))
        return None
    here = engine.kernel.netns_fd(seen.container.netns)
    if request.netns is None or not same_netns(here, engine.kernel.netns_fd(request.netns)):
        raise ConflictError(f"attach {request.name}: it lives in another namespace, {seen.container.netns}")
    for endpoint in seen.endpoints:
        gone = endpoint.host_ifname and engine.kernel.door("").link(endpoint.host_ifname) is None
        if gone and endpoint.ifname == request.joins[0].ifname:
            return _drop(engine, execution, seen, endpoint)
    return seen


def _drop(engine: Engine, execution: Execution, seen: ContainerSeen, dead: Endpoint) -> ContainerSeen:
    from vethwork.plan.detach import plan_disconnect

    execution.carry_out(lambda: plan_disconnect(dead.network, seen, (), dead.ifname))
    return engine.observer.container(seen.container.name)
