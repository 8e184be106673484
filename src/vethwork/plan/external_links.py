"""A link whose inner end stays on the host, for somebody else to move into a container and to configure (Docker's libnetwork).

Rules: the container's port is in its bridge, and guarded, before anybody moves anything; the inner end is down, has the
endpoint's MAC address and the network's MTU, and no address. What is left of a link that was made before goes first.
"""

from __future__ import annotations

from vethwork.errors import RequestError
from vethwork.model.plan import Plan
from vethwork.model.steps import CreateVeth, DeleteLink, HairpinPort

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vethwork.model.state import ContainerSeen
    from vethwork.model.steps import Step


def plan_hand_over(seen: ContainerSeen) -> Plan:
    """Lay the link of a container's only endpoint. Raises RequestError if its links are not somebody else's to move."""
    container = seen.container
    if not container.handed:
        raise RequestError(f"hand over {container.name}: its links are ours, made by {container.owner}")
    (endpoint,), (network,) = seen.endpoints, seen.networks
    outer, mtu = endpoint.host_ifname, endpoint.mtu or network.mtu
    steps: tuple[Step, ...] = (
        DeleteLink("", outer),
        CreateVeth(outer, network.device, "", endpoint.ifname, endpoint.mac, mtu),
    )
    if network.routed:
        steps += (HairpinPort(outer),)
    return Plan("hand over", container.name, steps)
