"""Taking a container's network away.

Rules: what closes comes first: the nft batch after which the ports lead nowhere and the container is mute; then flows, then
links. Every step tolerates that its object is gone. A plan that died half-way is finished, not undone.
"""

from __future__ import annotations

from vethwork.errors import ConflictError, NotFound
from vethwork.model.container import Endpoint, Publication
from vethwork.model.plan import Plan
from vethwork.model.state import ContainerSeen, NetworkSeen
from vethwork.model.steps import ChangeElements, UnpinNetns
from vethwork.plan.elements import endpoint_elements
from vethwork.plan.endpoint import unlink_steps, unroute_steps
from vethwork.plan.ports import close_steps, forget, port_elements

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vethwork.model.plan import Row
    from vethwork.model.ports import Publish
    from vethwork.model.steps import Step


def plan_detach(seen: ContainerSeen, cables: tuple[NetworkSeen, ...], *, alive: bool = True) -> Plan:
    """Everything a container has. ``cables`` are its p2p networks. ``alive``: its namespace is still there.

    Raises ConflictError while others share it.
    """
    container = seen.container
    if seen.sharers and alive:
        names = ", ".join(seen.sharers)
        raise ConflictError(
            f"remove {container.name}: {names} share its namespace", hint=f"remove {names} first"
        )
    steps = _closing(seen, seen.endpoints, seen.publications)
    for endpoint in seen.endpoints:
        steps += _unlink(seen, endpoint, cables, (), alive=alive)
    if container.pinned:
        steps += (UnpinNetns(container.netns),)
    removes: tuple[Row, ...] = (*seen.publications, *seen.endpoints, container)
    return Plan("detach", container.name, steps, removes=removes, forward=True)


def plan_disconnect(
    network: str,
    seen: ContainerSeen,
    cables: tuple[NetworkSeen, ...],
    ifname: str = "",
    *,
    alive: bool = True,
) -> Plan:
    """One endpoint of a container, with the ports that lead to it. Raises NotFound.

    ``ifname`` says which, where a container has several on one network. ``alive``: its namespace is still there.
    """
    name = seen.container.name
    found = [each for each in seen.endpoints if each.network == network and ifname in ("", each.ifname)]
    if not found:
        raise NotFound(
            f"disconnect {name}: it is not on network {network}" + (f" as {ifname}" if ifname else "")
        )
    endpoint = found[0]
    publications = tuple([each for each in seen.publications if each.endpoint == endpoint.id])
    steps = _closing(seen, (endpoint,), publications)
    rest = tuple([each for each in seen.endpoints if each != endpoint])
    steps += _unlink(seen, endpoint, cables, rest, alive=alive)
    return Plan("disconnect", name, steps, removes=(*publications, endpoint), forward=True)


def plan_unpublish(publish: Publish, seen: ContainerSeen) -> Plan:
    """Close a published range, as it was published. Raises NotFound."""
    name = seen.container.name
    for each in seen.publications:
        chosen = publish if publish.host_port else publish.replace(host_port=each.publish.host_port)
        if each.publish == chosen:
            return Plan(
                "unpublish", name, close_steps((each,), seen.endpoints), removes=(each,), forward=True
            )
    have = ", ".join(str(each.publish) for each in seen.publications) or "nothing"
    raise NotFound(f"unpublish {publish}: {name} does not publish that", hint=f"it publishes {have}")


def _closing(
    seen: ContainerSeen, endpoints: tuple[Endpoint, ...], publications: tuple[Publication, ...]
) -> tuple[Step, ...]:
    networks = {network.name: network for network in seen.networks}
    elements = port_elements(publications, seen.endpoints)
    for endpoint in endpoints:
        elements += endpoint_elements(endpoint, networks[endpoint.network])
    return (*((ChangeElements(elements, ()),) if elements else ()), *forget(publications))


def _unlink(
    seen: ContainerSeen,
    endpoint: Endpoint,
    cables: tuple[NetworkSeen, ...],
    rest: tuple[Endpoint, ...],
    *,
    alive: bool,
) -> tuple[Step, ...]:
    """What was in a namespace that is gone went with it; at its path there may be another's by now."""
    netns = seen.container.netns
    network = next(each for each in seen.networks if each.name == endpoint.network)
    cable = next((each for each in cables if each.network.name == endpoint.network), None)
    steps = (*unlink_steps(netns, endpoint, network, cable), *unroute_steps(netns, endpoint, rest))
    return tuple([step for step in steps if alive or not getattr(step, "netns", "")])
