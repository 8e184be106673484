"""Giving a container its network.

Rules: links first, closed as they are (a port of ours that is nobody's yet is mute); then the one nft batch that lets the
container speak and opens its ports. Nothing here reads anything but the request and the snapshot.
"""

from __future__ import annotations

from vethwork.errors import ConflictError, RequestError
from vethwork.model.address import Interface, Mac
from vethwork.model.container import AttachRequest, Container, Endpoint, Join, Publication
from vethwork.model.names import IfName
from vethwork.model.network import Network
from vethwork.model.plan import Plan
from vethwork.model.snapshot import AttachSeen, ContainerSeen, NetworkSeen
from vethwork.model.steps import (
    AddAddress,
    AddRoute,
    ChangeElements,
    CreateVeth,
    HairpinPort,
    MoveLink,
    SetLinkUp,
    SetSysctl,
)
from vethwork.plan.addresses import check_static
from vethwork.plan.elements import endpoint_elements
from vethwork.plan.modes import check_mode, container_of
from vethwork.plan.ports import forget, open_steps, port_elements, publications_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vethwork.model.network import Subnet
    from vethwork.model.plan import Row
    from vethwork.model.ports import Publish
    from vethwork.model.ruleset import Element
    from vethwork.model.snapshot import PortSeen
    from vethwork.model.steps import Step


def plan_attach(request: AttachRequest, seen: AttachSeen) -> Plan:
    """A new container, with all its endpoints and ports. Raises RequestError or ConflictError."""
    if seen.existing is not None:
        raise ConflictError(
            f"attach {request.name}: there is a container of that name", hint=f"vethwork rm {request.name}"
        )
    check_mode(request)
    container, steps = container_of(request, seen)
    endpoints, links = _join_all(container, request.joins, seen.networks, ())
    networks = [each.network for each in seen.networks]
    publications = publications_of(request.publishes, seen.ports, endpoints, networks)
    opening = _opening(endpoints, networks, publications)
    adds: tuple[Row, ...] = (container, *endpoints, *publications)
    if request.process is not None:
        adds += (request.process,)
    return Plan("attach", request.name, steps + links + opening, adds=adds)


def plan_connect(
    join: Join,
    seen: ContainerSeen,
    network: NetworkSeen,
    publishes: tuple[Publish, ...] = (),
    ports: tuple[PortSeen, ...] = (),
) -> Plan:
    """One more endpoint for a container, with ports that lead to it. Raises RequestError or ConflictError.

    A second endpoint on the same network needs an interface name of its own.
    """
    container = seen.container
    if container.mode == "host" or container.mode.startswith(("container:", "ns:")):
        raise RequestError(f"connect {container.name}: --net {container.mode} is not a namespace of its own")
    for endpoint in seen.endpoints:
        if join.ifname == endpoint.ifname:
            raise ConflictError(
                f"connect {container.name}: it has an interface {join.ifname} already, on {endpoint.network}"
            )
        if endpoint.network == join.network and join.ifname is None:
            raise ConflictError(
                f"connect {container.name}: it is on {join.network} already, as {endpoint.ifname}"
            )
    endpoints, links = _join_all(container, (join,), (network,), seen.endpoints)
    publications = publications_of(publishes, ports, endpoints, [network.network])
    opening = _opening(endpoints, [network.network], publications)
    return Plan("connect", container.name, links + opening, adds=(*endpoints, *publications))


def plan_publish(publishes: tuple[Publish, ...], seen: ContainerSeen, ports: tuple[PortSeen, ...]) -> Plan:
    """More ports for a running container. Raises RequestError or ConflictError."""
    publications = publications_of(publishes, ports, seen.endpoints, seen.networks)
    return Plan("publish", seen.container.name, open_steps(publications, seen.endpoints), adds=publications)


def plan_reattach(seen: ContainerSeen, endpoint: Endpoint, network: Network) -> tuple[Step, ...]:
    """The steps that bring an endpoint's link back as it was; the default route only if it is the first that has one."""
    earlier = seen.endpoints[: seen.endpoints.index(endpoint)]
    taken = {gateway.version for each in earlier for gateway in each.gateways}
    default = not taken & {gateway.version for gateway in endpoint.gateways}
    return _bridge_steps(seen.container, endpoint, network, default=default)


def _opening(
    endpoints: tuple[Endpoint, ...], networks: list[Network], publications: tuple[Publication, ...]
) -> tuple[Step, ...]:
    elements: tuple[Element, ...] = ()
    for endpoint, network in zip(endpoints, networks, strict=True):
        elements += endpoint_elements(endpoint, network)
    elements += port_elements(publications, endpoints)
    return (*((ChangeElements((), elements),) if elements else ()), *forget(publications))


def _join_all(
    container: Container,
    joins: tuple[Join, ...],
    networks: tuple[NetworkSeen, ...],
    have: tuple[Endpoint, ...],
) -> tuple[tuple[Endpoint, ...], tuple[Step, ...]]:
    endpoints: list[Endpoint] = []
    steps: tuple[Step, ...] = ()
    defaults = {gateway.version for endpoint in have for gateway in endpoint.gateways}
    for join, network in zip(joins, networks, strict=True):
        endpoint = _endpoint(container, join, network, (*have, *endpoints))
        routes = {gateway.version for gateway in endpoint.gateways}
        endpoints.append(endpoint)
        if network.network.driver == "p2p":
            steps += _cable_steps(container, endpoint, network)
        else:
            steps += _bridge_steps(container, endpoint, network.network, default=not routes & defaults)
        defaults |= routes
    return tuple(endpoints), steps


def _endpoint(container: Container, join: Join, seen: NetworkSeen, have: tuple[Endpoint, ...]) -> Endpoint:
    network = seen.network
    addresses = _addresses(join, seen)
    number = 1 + max([int(endpoint.id[-2:], 16) for endpoint in have], default=-1)
    if number > 0xFF:
        raise RequestError(f"connect {container.name}: 256 interfaces are the most")
    endpoint_id = f"{container.id[:10]}{number:02x}"
    gateways = tuple(
        [subnet.gateway for subnet in network.subnets if subnet.gateway is not None and network.routed]
    )
    return Endpoint(
        id=endpoint_id,
        container=container.name,
        network=network.name,
        ifname=join.ifname or _free_ifname(have),
        host_ifname="" if network.driver == "p2p" else f"vw{endpoint_id}",
        mac=join.mac or Mac.of(addresses[0].address),
        addresses=addresses,
        gateways=gateways,
    )


def _free_ifname(have: tuple[Endpoint, ...]) -> IfName:
    taken = {endpoint.ifname for endpoint in have}
    return next(name for name in (IfName(f"eth{n}") for n in range(len(have) + 1)) if name not in taken)


def _addresses(join: Join, seen: NetworkSeen) -> tuple[Interface, ...]:
    network = seen.network
    holders = dict(seen.leased)
    asked = {network.subnet_of(address): address for address in join.addresses}
    if len(asked) < len(join.addresses):
        raise RequestError(f"join {network.name}: one address for each of its subnets")
    found: list[Interface] = []
    for subnet, free in zip(network.subnets, seen.free, strict=True):
        if subnet in asked:
            found.append(check_static(network.name, subnet, asked[subnet], holders.get(asked[subnet], "")))
        elif free is not None:
            found.append(Interface(free, subnet.prefix.length))
        else:
            raise ConflictError(
                f"join {network.name}: subnet {subnet.prefix} is full: every address of {_choices(join, subnet)} is held",
                hint="remove containers that are not needed, or use a larger subnet",
            )
    return tuple(found)


def _choices(join: Join, subnet: Subnet) -> str:
    asked = [each for each in join.ranges if each.first in subnet.prefix]
    return ", ".join([f"{each.first}-{each.last}" for each in asked]) or str(subnet.pool)


def _bridge_steps(
    container: Container, endpoint: Endpoint, network: Network, *, default: bool
) -> tuple[Step, ...]:
    netns, ifname = container.netns, endpoint.ifname
    steps: list[Step] = [
        CreateVeth(endpoint.host_ifname, network.device, netns, ifname, endpoint.mac, network.mtu)
    ]
    if network.routed:
        steps.append(HairpinPort(endpoint.host_ifname))
    steps += _interface_steps(container, endpoint)
    if default:
        steps += [AddRoute(netns, ifname, None, gateway) for gateway in endpoint.gateways]
    return tuple(steps)


def _interface_steps(container: Container, endpoint: Endpoint) -> list[Step]:
    netns, ifname = container.netns, endpoint.ifname
    steps: list[Step] = []
    if all(interface.address.version == 4 for interface in endpoint.addresses):
        steps.append(SetSysctl(netns, f"ipv6/conf/{ifname}/disable_ipv6", "1"))
    else:
        steps.append(SetSysctl(netns, f"ipv6/conf/{ifname}/accept_ra", "0"))
    steps += [AddAddress(netns, ifname, interface) for interface in endpoint.addresses]
    steps.append(SetLinkUp(netns, ifname))
    return steps


def _cable_steps(container: Container, endpoint: Endpoint, seen: NetworkSeen) -> tuple[Step, ...]:
    """The first container gets one end and the other is parked on the host, down; the second gets the parked end.

    Where the parked end is gone with a namespace, the cable is laid anew, for both.
    """
    network, netns = seen.network, container.netns
    if len(seen.endpoints) > 1:
        names = " and ".join(sorted(other.container for other in seen.endpoints))
        raise ConflictError(f"join {network.name}: a cable has two ends, and {names} hold them")
    if not seen.endpoints:
        lay: list[Step] = [CreateVeth(network.device, "", netns, endpoint.ifname, endpoint.mac, network.mtu)]
        return (*lay, *_interface_steps(container, endpoint))
    steps: list[Step] = []
    if network.device not in seen.host_ends:
        other = seen.endpoints[0]
        far = container.replace(name=other.container, netns=dict(seen.netns)[other.container])
        steps.append(CreateVeth(network.device, "", far.netns, other.ifname, other.mac, network.mtu))
        steps += _interface_steps(far, other)
    steps.append(MoveLink("", network.device, parked_mac(network), netns, endpoint.ifname, endpoint.mac))
    return (*steps, *_interface_steps(container, endpoint))


def parked_mac(network: Network) -> Mac:
    """The MAC address of a cable's end while it is parked on the host."""
    return Mac(0x0278 << 32 | int(network.id[:8], 16))
