"""The link of an endpoint: laid, addressed and routed.

Rules: a link is laid in its final namespace under its final name. Routes come last. Of all the default routes of one IP
version and metric that a container's endpoints want, the oldest endpoint's is there: nobody guesses which of two ways a
packet takes, and when that endpoint goes, the next one's takes its place. So it is with every other route.
"""

from __future__ import annotations

from vethwork.errors import ConflictError, RequestError
from vethwork.model.address import Address, Mac
from vethwork.model.container import Container, Endpoint
from vethwork.model.network import WAY_KINDS, Network, Way
from vethwork.model.shaping import CreateIfb, DivertIngress, ShapeLink
from vethwork.model.state import NetworkSeen
from vethwork.model.steps import (
    AddAddress,
    AddRoute,
    CreateMacvlan,
    CreateVeth,
    DeleteLink,
    HairpinPort,
    MoveLink,
    SetLinkUp,
    SetSysctl,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from vethwork.model.address import Prefix
    from vethwork.model.steps import Step


def link_steps(
    container: Container, endpoint: Endpoint, seen: NetworkSeen, have: tuple[Endpoint, ...]
) -> tuple[Step, ...]:
    """Lay an endpoint's link and give it its routes; ``have`` are the container's other endpoints."""
    network, netns = seen.network, container.netns
    if network.driver == "foreign":  # it is laid already
        return tuple([SetSysctl(netns, path, value) for path, value in endpoint.sysctls])
    if network.driver == "p2p":
        steps = _cable_steps(container, endpoint, seen)
    elif network.driver == "macvlan":
        mac = None if endpoint.mac == seen.parent_mac else endpoint.mac
        mtu = endpoint.mtu or network.mtu
        lay = CreateMacvlan(network.device, netns, endpoint.ifname, mac, mtu, network.mode)
        steps = (lay, *_interface_steps(netns, endpoint))
    else:
        steps = bridge_steps(container, endpoint, network)
    if have:
        steps += loose_steps(netns, endpoint)
    return (*steps, *route_steps(netns, endpoint, have))


def loose_steps(netns: str, endpoint: Endpoint) -> tuple[Step, ...]:
    """What comes in by one network may go out by another: a strict check (1) would drop it."""
    return (SetSysctl(netns, f"ipv4/conf/{endpoint.ifname}/rp_filter", "2"),)


def bridge_steps(container: Container, endpoint: Endpoint, network: Network) -> tuple[Step, ...]:
    """Lay a link from a container to a bridge."""
    netns, mtu = container.netns, endpoint.mtu or network.mtu
    lay = CreateVeth(endpoint.host_ifname, network.device, netns, endpoint.ifname, endpoint.mac, mtu)
    hairpin = (HairpinPort(endpoint.host_ifname),) if network.routed else ()
    return (lay, *hairpin, *_shape_steps(endpoint, mtu), *_interface_steps(netns, endpoint))


def _shape_steps(endpoint: Endpoint, mtu: int) -> tuple[Step, ...]:
    steps: list[Step] = []
    if endpoint.bandwidth is None:
        return ()
    if endpoint.bandwidth.ingress is not None:
        steps.append(ShapeLink(endpoint.host_ifname, endpoint.bandwidth.ingress))
    if endpoint.bandwidth.egress is not None:
        steps += [CreateIfb(endpoint.ifb, mtu), DivertIngress(endpoint.host_ifname, endpoint.ifb)]
        steps.append(ShapeLink(endpoint.ifb, endpoint.bandwidth.egress))
    return tuple(steps)


def _interface_steps(netns: str, endpoint: Endpoint) -> tuple[Step, ...]:
    ifname, addresses = endpoint.ifname, endpoint.addresses
    steps: list[Step] = []
    if addresses and all(interface.address.version == 4 for interface in addresses):
        steps.append(SetSysctl(netns, f"ipv6/conf/{ifname}/disable_ipv6", "1"))
    elif addresses:
        steps.append(SetSysctl(netns, f"ipv6/conf/{ifname}/accept_ra", "0"))
    if addresses and endpoint.mac != Mac.of(addresses[0].address):
        # An address that may have had another MAC address before is announced when the link comes up (ip-sysctl.rst).
        versions = {interface.address.version for interface in addresses}
        notify = {4: f"ipv4/conf/{ifname}/arp_notify", 6: f"ipv6/conf/{ifname}/ndisc_notify"}
        steps += [SetSysctl(netns, notify[version], "1") for version in sorted(versions)]
    steps += [AddAddress(netns, ifname, interface) for interface in addresses]
    steps += [SetSysctl(netns, path, value) for path, value in endpoint.sysctls]
    steps.append(SetLinkUp(netns, ifname))
    return tuple(steps)


def routes_of(netns: str, endpoints: Iterable[Endpoint]) -> tuple[AddRoute, ...]:
    """The routes that a container with these endpoints has: where several want one to the same place, the oldest's."""
    return tuple(_places(netns, endpoints).values())


def _places(
    netns: str, endpoints: Iterable[Endpoint]
) -> dict[tuple[tuple[Prefix | None, int], int], AddRoute]:
    found: dict[tuple[tuple[Prefix | None, int], int], AddRoute] = {}
    for endpoint in sorted(endpoints, key=lambda each: each.id):  # which is the order in which they were made
        for way in (*endpoint.defaults, *endpoint.ways):
            found.setdefault((_destination(way), way.metric), _route(netns, endpoint, way))
    return found


def _destination(way: Way) -> tuple[Prefix | None, int]:
    """Where a route leads, and in which IP version; a prefix of length 0 is the default route."""
    if way.prefix is not None and way.prefix.length:
        return way.prefix, way.prefix.version
    return None, (way.prefix or way.gateway or Address(4, 0)).version


def route_steps(netns: str, endpoint: Endpoint, have: tuple[Endpoint, ...]) -> tuple[Step, ...]:
    """The routes that come with an endpoint."""
    before, after = _places(netns, have), _places(netns, (*have, endpoint))
    return tuple(
        [
            step.replace(instead=before[place].ifname if place in before else "")
            for place, step in after.items()
            if before.get(place) != step
        ]
    )


def _route(netns: str, endpoint: Endpoint, way: Way) -> AddRoute:
    return AddRoute(netns, endpoint.ifname, way.prefix, way.gateway, way.metric, way.kind)


def unroute_steps(netns: str, endpoint: Endpoint, rest: tuple[Endpoint, ...]) -> tuple[Step, ...]:
    """What becomes of a container's routes when an endpoint has gone and its link with it, and ``rest`` stay."""
    before, after = routes_of(netns, (*rest, endpoint)), routes_of(netns, rest)
    gone = [undo for step in before if step not in after for undo in step.undo()]
    return (*gone, *[step for step in after if step not in before])


def check_way(doing: str, way: Way) -> None:
    """Refuse a route that makes no sense. Raises RequestError."""
    to = way.prefix or "default"
    if way.kind not in WAY_KINDS:
        raise RequestError(f"{doing}: route {to}: type {way.kind!r:.40} is none of {', '.join(WAY_KINDS)}")
    if not 0 <= way.metric < 1 << 32:
        raise RequestError(f"{doing}: route {to}: a metric is 0 to 4294967295, not {way.metric}")
    if way.kind != "unicast" and (way.gateway is not None or way.prefix is None):
        raise RequestError(f"{doing}: route {to}: one that leads nowhere has a prefix and no gateway")
    if way.gateway is None and way.prefix is None:
        raise RequestError(f"{doing}: a default route needs a gateway")
    if way.prefix is not None and way.gateway is not None and way.prefix.version != way.gateway.version:
        raise RequestError(f"{doing}: route {to} via {way.gateway}: two IP versions")


def check_ends(seen: NetworkSeen) -> None:
    """Refuse a third at a cable. Raises ConflictError."""
    if seen.network.driver == "p2p" and len(seen.endpoints) > 1:
        names = " and ".join(sorted(other.container for other in seen.endpoints))
        raise ConflictError(f"join {seen.network.name}: a cable has two ends, and {names} hold them")


def _cable_steps(container: Container, endpoint: Endpoint, seen: NetworkSeen) -> tuple[Step, ...]:
    """The first container gets one end and the other is parked on the host, down; the second gets the parked end.

    Where the parked end is gone with a namespace, the cable is laid anew, for both.
    """
    network, netns = seen.network, container.netns
    if not seen.endpoints:
        lay = CreateVeth(network.device, "", netns, endpoint.ifname, endpoint.mac, network.mtu)
        return (lay, *_interface_steps(netns, endpoint))
    steps: list[Step] = []
    if network.device not in seen.host_ends:
        other = seen.endpoints[0]
        far = dict(seen.netns)[other.container]
        steps.append(CreateVeth(network.device, "", far, other.ifname, other.mac, network.mtu))
        steps += _interface_steps(far, other)
    steps.append(MoveLink("", network.device, parked_mac(network), netns, endpoint.ifname, endpoint.mac))
    return (*steps, *_interface_steps(netns, endpoint))


def bridge_mac(network: Network) -> Mac:
    """The MAC address of a bridge that we make, and so of its gateway."""
    return Mac(0x0277 << 32 | int(network.id[:8], 16))


def parked_mac(network: Network) -> Mac:
    """The MAC address of a cable's end while it is parked on the host."""
    return Mac(0x0278 << 32 | int(network.id[:8], 16))


def unlink_steps(
    netns: str, endpoint: Endpoint, network: Network, cable: NetworkSeen | None
) -> tuple[Step, ...]:
    """Take an endpoint's link away; ``cable`` is what was seen of a p2p network."""
    if endpoint.host_ifname:
        return tuple([DeleteLink("", each) for each in (endpoint.host_ifname, endpoint.ifb) if each])
    if network.driver == "macvlan":
        return (DeleteLink(netns, endpoint.ifname),)
    if cable is None:
        return ()
    if len(cable.endpoints) < 2:  # nobody is at the other end: it is parked, and takes this one along
        parked = network.device in cable.host_ends
        return (DeleteLink("", network.device) if parked else DeleteLink(netns, endpoint.ifname),)
    return (MoveLink(netns, endpoint.ifname, endpoint.mac, "", network.device, parked_mac(network)),)
