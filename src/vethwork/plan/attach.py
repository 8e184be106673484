"""Giving a container its network.

Rules: links first, closed as they are (a port of ours that is nobody's yet is mute); then the one nft batch that lets the
container speak and opens its ports. Nothing here reads anything but the request and the snapshot.
"""

from __future__ import annotations

from zlib import crc32

from vethwork.errors import ConflictError, RequestError
from vethwork.model.address import Interface, Mac
from vethwork.model.container import AttachRequest, Container, Endpoint, Join, Publication
from vethwork.model.names import IfName
from vethwork.model.network import Network
from vethwork.model.plan import Plan
from vethwork.model.state import AttachSeen, ContainerSeen, NetworkSeen
from vethwork.model.steps import ChangeElements
from vethwork.plan.elements import endpoint_elements
from vethwork.plan.endpoint import (
    bridge_mac,
    bridge_steps,
    check_ends,
    check_way,
    link_steps,
    loose_steps,
    routes_of,
    unlink_steps,
)
from vethwork.plan.ipam import check_static
from vethwork.plan.modes import check_mode, container_of, enclose
from vethwork.plan.ports import forget_stale, open_steps, port_elements, publications_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from vethwork.model.address import Address
    from vethwork.model.network import Subnet
    from vethwork.model.plan import Row
    from vethwork.model.ports import Publish
    from vethwork.model.ruleset import Element
    from vethwork.model.shaping import Bandwidth
    from vethwork.model.state import PortSeen
    from vethwork.model.steps import Step


def plan_attach(request: AttachRequest, seen: AttachSeen) -> Plan:
    """A new container, with all its endpoints and ports. Raises RequestError or ConflictError."""
    if seen.existing is not None:
        raise ConflictError(
            f"attach {request.name}: there is a container of that name", hint=f"vethwork rm {request.name}"
        )
    check_mode(request)
    if request.joins:
        _check_alone(f"attach {request.name}", seen.lodger)
    container = container_of(request, seen)
    endpoints, links = _join_all(container, request.joins, seen.networks, ())
    networks = [each.network for each in seen.networks]
    publications = publications_of(request.publishes, seen.ports, endpoints, networks)
    opening = _opening(endpoints, networks, publications)
    adds: tuple[Row, ...] = (container, *endpoints, *publications)
    if request.process is not None:
        adds += (request.process,)
    return Plan("attach", request.name, enclose(request, container, links) + opening, adds=adds)


def attached(plan: Plan, seen: AttachSeen) -> ContainerSeen:
    """What there is to see of a container with interfaces once its plan is carried out: what the plan put on record."""
    (container,) = [row for row in plan.adds if isinstance(row, Container)]
    endpoints = [row for row in plan.adds if isinstance(row, Endpoint)]
    network_of = {join.network.name: join.network for join in seen.networks}
    endpoints.sort(key=lambda each: each.ifname)
    publications = [row for row in plan.adds if isinstance(row, Publication)]
    publications.sort(
        key=lambda each: (each.publish.protocol, each.publish.host_port, str(each.publish.host_ip or ""))
    )
    networks = [network_of[each.network] for each in endpoints]
    return ContainerSeen(container, tuple(endpoints), tuple(publications), tuple(networks), ())


def plan_connect(
    join: Join,
    seen: ContainerSeen,
    network: NetworkSeen,
    publishes: tuple[Publish, ...] = (),
    ports: tuple[PortSeen, ...] = (),
) -> Plan:
    """One more endpoint for a container, with ports that lead to it. Raises RequestError or ConflictError.

    A second endpoint on the same network needs an interface name of its own. The ports lead to the endpoint that
    has the default route: what came in by another network would be answered by the wrong one.
    """
    container = seen.container
    if container.mode == "host" or container.mode.startswith(("container:", "ns:")):
        raise RequestError(f"connect {container.name}: --net {container.mode} is not a namespace of its own")
    if container.handed:
        raise RequestError(
            f"connect {container.name}: its interfaces are made for {container.owner}, which configures them",
            hint=f"ask {container.owner} for it",
        )
    _check_alone(f"connect {container.name}", seen.lodger)
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
    everywhere = (*seen.endpoints, *endpoints)
    publications = publications_of(publishes, ports, everywhere, [*seen.networks, network.network])
    elements = endpoint_elements(endpoints[0], network.network) + port_elements(publications, everywhere)
    opening = _opening_steps(elements, publications)
    return Plan("connect", container.name, links + opening, adds=(*endpoints, *publications))


def plan_publish(publishes: tuple[Publish, ...], seen: ContainerSeen, ports: tuple[PortSeen, ...]) -> Plan:
    """More ports for a running container. Raises RequestError or ConflictError."""
    publications = publications_of(publishes, ports, seen.endpoints, seen.networks)
    return Plan("publish", seen.container.name, open_steps(publications, seen.endpoints), adds=publications)


def plan_reattach(seen: ContainerSeen, endpoint: Endpoint, network: Network) -> tuple[Step, ...]:
    """The steps that bring an endpoint's link back as it was, with the routes that went with it.

    What is left of it goes first.
    """
    netns = seen.container.netns
    lost = [step for step in routes_of(netns, seen.endpoints) if step.ifname == endpoint.ifname]
    left, links = (
        unlink_steps(netns, endpoint, network, None),
        bridge_steps(seen.container, endpoint, network),
    )
    first = min([each.id for each in seen.endpoints])
    return (*left, *links, *(loose_steps(netns, endpoint) if endpoint.id != first else ()), *lost)


def _check_alone(doing: str, lodger: str) -> None:
    """One container alone has interfaces in a namespace: two would take each other's names and routes."""
    if lodger:
        raise ConflictError(
            f"{doing}: the namespace has the interfaces of container {lodger}",
            hint=f"connect {lodger} instead",
        )


def _opening(
    endpoints: tuple[Endpoint, ...], networks: list[Network], publications: tuple[Publication, ...]
) -> tuple[Step, ...]:
    elements: tuple[Element, ...] = ()
    for endpoint, network in zip(endpoints, networks, strict=True):
        elements += endpoint_elements(endpoint, network)
    return _opening_steps(elements + port_elements(publications, endpoints), publications)


def _opening_steps(elements: tuple[Element, ...], publications: tuple[Publication, ...]) -> tuple[Step, ...]:
    return (*((ChangeElements((), elements),) if elements else ()), *forget_stale(publications))


def _join_all(
    container: Container,
    joins: tuple[Join, ...],
    networks: tuple[NetworkSeen, ...],
    have: tuple[Endpoint, ...],
) -> tuple[tuple[Endpoint, ...], tuple[Step, ...]]:
    endpoints: tuple[Endpoint, ...] = ()
    steps: tuple[Step, ...] = ()
    asked = [join.ifname for join in joins if join.ifname is not None]
    if len(set(asked)) < len(asked):
        raise RequestError(
            f"attach {container.name}: two interfaces of one name are asked for: {', '.join(asked)}"
        )
    for join, network in zip(joins, networks, strict=True):
        endpoint = _endpoint(container, join, network, (*have, *endpoints), asked)
        if not container.handed:
            steps += link_steps(container, endpoint, network, (*have, *endpoints))
        endpoints += (endpoint,)
    return endpoints, steps


def _endpoint(
    container: Container, join: Join, seen: NetworkSeen, have: tuple[Endpoint, ...], asked: Sequence[IfName]
) -> Endpoint:
    network = seen.network
    if container.handed and network.driver != "bridge":
        raise RequestError(f"join {network.name}: only a bridge has links that somebody else can move")
    check_ends(seen)
    for way in join.ways:
        check_way(f"join {network.name}", way)
    if join.mtu is not None and not 68 <= join.mtu <= 65535:
        raise RequestError(f"join {network.name}: an MTU is 68 to 65535 bytes, not {join.mtu}")
    if join.host_ifname in seen.host_ends:
        raise ConflictError(f"join {network.name}: the host has a link {join.host_ifname} already")
    addresses = _found(join, seen) if network.driver == "foreign" else _addresses(join, seen)
    if any(interface.address.version == 6 for interface in addresses) and (join.mtu or network.mtu) < 1280:
        raise RequestError(f"join {network.name}: IPv6 needs an MTU of 1280 bytes at least (RFC 8200)")
    endpoint_id = f"{container.id[:10]}{_number(container, have):02x}"
    gateways = [
        subnet.gateway for subnet in network.subnets if subnet.gateway is not None and network.has_way_out
    ]
    host_ifname = (join.host_ifname or f"vw{endpoint_id}") if network.driver == "bridge" else ""
    return Endpoint(
        id=endpoint_id,
        container=container.name,
        network=network.name,
        ifname=join.ifname
        or (IfName(f"vwi{endpoint_id}") if container.handed else _free_ifname(have, asked)),
        host_ifname=host_ifname,
        mac=_mac(join, seen, addresses, endpoint_id),
        addresses=addresses,
        gateways=tuple(gateways),
        ways=(*network.ways, *join.ways),
        metric=network.metric if join.metric is None else join.metric,
        default_route=network.default_route if join.default_route is None else join.default_route,
        mtu=join.mtu or 0,
        bandwidth=_bandwidth(join, network),
        sysctls=join.sysctls,
    )


def _bandwidth(join: Join, network: Network) -> Bandwidth | None:
    """Raises RequestError where it cannot be had."""
    if join.bandwidth is None:
        return None
    if network.driver != "bridge":
        raise RequestError(
            f"join {network.name}: a {network.driver} network has no end to limit bandwidth at"
        )
    for rate in (join.bandwidth.ingress, join.bandwidth.egress):
        if rate is not None:
            rate.fit(f"join {network.name}", join.mtu or network.mtu)
    return join.bandwidth


def _mac(join: Join, seen: NetworkSeen, addresses: tuple[Interface, ...], endpoint_id: str) -> Mac:
    """A macvlan in passthru mode has the MAC address of the link it sits on. Raises ConflictError where it is held."""
    holders = dict(seen.macs)
    if join.mac is not None:
        holder = f"container {holders[join.mac]}" if holders.get(join.mac) else ""
        if seen.network.managed and join.mac == bridge_mac(seen.network):
            holder = f"the bridge of network {seen.network.name}"
        if holder:
            raise ConflictError(f"MAC address {join.mac}: is held by {holder}")
        return join.mac
    if seen.network.mode == "passthru" and seen.parent_mac is not None:
        return seen.parent_mac
    mac = Mac.of(addresses[0].address) if addresses else None
    if mac is None or holders.get(mac):  # two IPv6 addresses may end alike
        return Mac(0x0279 << 32 | crc32(endpoint_id.encode()))
    return mac


def _number(container: Container, have: tuple[Endpoint, ...]) -> int:
    """One more than the youngest's, so that ids tell the order in which they were made, until that many were made."""
    used = {int(endpoint.id[-2:], 16) for endpoint in have}
    if len(used) == 256:
        raise RequestError(f"connect {container.name}: 256 interfaces are the most")
    youngest = max(used, default=-1)
    return youngest + 1 if youngest < 255 else next(each for each in range(256) if each not in used)


def _free_ifname(have: tuple[Endpoint, ...], asked: Sequence[IfName]) -> IfName:
    taken = {*[endpoint.ifname for endpoint in have], *asked}
    number = 0
    while f"eth{number}" in taken:
        number += 1
    return IfName(f"eth{number}")


def _found(join: Join, seen: NetworkSeen) -> tuple[Interface, ...]:
    """The addresses that somebody else has given. Raises RequestError or ConflictError."""
    if not join.made or join.ways or join.mtu:
        raise RequestError(f"join {join.network}: its interfaces are somebody else's to make")
    for address, holder in seen.leased:
        if holder:
            raise ConflictError(f"join {join.network}: {address} is held by {holder}")
    return join.made


def _addresses(join: Join, seen: NetworkSeen) -> tuple[Interface, ...]:
    network = seen.network
    holders = dict(seen.leased)
    asked: dict[Subnet, list[Address]] = {}
    for address in join.addresses:
        asked.setdefault(network.subnet_of(address), []).append(address)
    if len(set(join.addresses)) < len(join.addresses):
        raise RequestError(f"join {network.name}: an address is asked for twice")
    found: list[Interface] = []
    for subnet, free in zip(network.subnets, seen.free, strict=True):
        if asked and subnet in asked:
            found += [
                check_static(network, subnet, address, holders.get(address, "")) for address in asked[subnet]
            ]
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
