"""Making, restoring and removing networks.

Rules: what the host needs for a network is one list of steps, whether the network is made or brought back. The bridge is
closed (nobody's port speaks, nothing is forwarded) until the elements at the end open it.
"""

from __future__ import annotations

from vethwork.errors import ConflictError, NotFound, RequestError
from vethwork.model.address import BITS, Address, Interface, Prefix
from vethwork.model.names import IfName
from vethwork.model.network import (
    DRIVERS,
    MACVLAN_MODES,
    PEERINGS,
    Forwarding,
    Network,
    NetworkRequest,
    Subnet,
)
from vethwork.model.plan import Plan
from vethwork.model.state import HostSeen
from vethwork.model.steps import (
    AddAddress,
    ChangeElements,
    CreateBridge,
    DeleteLink,
    JoinBridge,
    SetLinkUp,
    SetSysctl,
)
from vethwork.plan.elements import forwarding_elements, network_elements, peer_elements
from vethwork.plan.endpoint import bridge_mac, check_way
from vethwork.plan.ipam import POOL_LENGTH, find_subnet, local_prefix, usable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vethwork.model.container import Endpoint
    from vethwork.model.plan import Row
    from vethwork.model.steps import Step


def plan_create_network(
    request: NetworkRequest, network_id: str, seen: HostSeen, others: tuple[Network, ...]
) -> Plan:
    """Settle what the request leaves open, and plan the host's side. Raises RequestError or ConflictError.

    ``network_id`` is 32 random hex digits.
    """
    _check(request, seen, others)
    device = _device(request, network_id, seen, others)
    network = Network(
        id=network_id,
        name=request.name,
        driver=request.driver,
        device=device,
        subnets=_subnets(request, network_id, seen, others),
        mtu=request.mtu or _mtu(request, device, seen),
        internal=request.internal,
        isolated=request.isolated,
        icc=request.icc,
        masquerade=request.masquerade,
        managed=request.managed,
        labels=request.labels,
        ways=request.ways,
        metric=request.metric,
        default_route=request.default_route,
        mode=request.mode or ("bridge" if request.driver == "macvlan" else ""),
        peering=request.peering,
        owner=request.owner,
        transient=request.transient,
        dns_port=request.dns_port,
        held=request.held,
    )
    if 6 in network.versions and network.mtu < 1280:
        raise RequestError(
            f"create network {network.name}: IPv6 needs an MTU of 1280 bytes at least (RFC 8200), not {network.mtu}"
        )
    forwarding = turn_on(network, seen.forwarding)
    steps = _host_steps(network, seen, forwarding, others, make=True)
    adds: tuple[Row, ...] = (network, *_fresh(forwarding, seen))
    return Plan("create network", network.name, steps, adds=adds)


def _device(request: NetworkRequest, network_id: str, seen: HostSeen, others: tuple[Network, ...]) -> IfName:
    """The link that a network has, or sits on. Raises RequestError or ConflictError."""
    doing = f"create network {request.name}"
    if request.driver == "macvlan":
        parent = request.device or (IfName(seen.way_out) if seen.way_out else None)
        if parent is None:
            raise RequestError(
                f"{doing}: a macvlan sits on a link, and the host has no default route to choose one by"
            )
        if parent not in seen.links:
            raise NotFound(f"{doing}: the host has no link {parent} for a macvlan to sit on")
        return parent
    if request.driver == "foreign":
        if request.device is None or request.device not in seen.links:
            raise NotFound(f"{doing}: the host has no link {request.device or 'that was named'}")
        for other in others:
            if other.own_device == request.device:
                raise ConflictError(f"{doing}: link {request.device} is that of network {other.name}")
        return request.device
    if not request.managed:
        if request.device is None:
            raise RequestError(f"{doing}: a bridge that somebody else keeps must be named")
        if request.device not in seen.bridges:
            raise NotFound(
                f"{doing}: the host has no bridge {request.device}", hint="make it first, or let us manage it"
            )
        return request.device
    prefix = "vw-" if request.driver == "bridge" else "vwp"
    device = request.device or IfName(prefix + network_id[:12])
    if device in seen.links:
        raise ConflictError(f"{doing}: the host has a link {device} already")
    return device


def _mtu(request: NetworkRequest, device: IfName, seen: HostSeen) -> int:
    """What sits on a link, or joins a bridge, has its MTU; else that of the way out."""
    mtus = dict(zip(seen.links, seen.mtus, strict=False))
    on_it = request.driver == "macvlan" or not request.managed
    return mtus.get(device, seen.mtu) if on_it else seen.mtu


def plan_restore_network(
    network: Network,
    seen: HostSeen,
    others: tuple[Network, ...] = (),
    endpoints: tuple[Endpoint, ...] = (),
) -> Plan:
    """Bring the host's side of a network back, as far as it is missing; a new bridge gets its ports back too."""
    forwarding = turn_on(network, seen.forwarding)
    make = network.device not in seen.links
    steps = _host_steps(network, seen, forwarding, others, make=make)
    if make:
        steps += tuple([rejoin_step(each, network) for each in endpoints if each.host_ifname in seen.links])
    return Plan("restore network", network.name, steps, adds=_fresh(forwarding, seen), forward=True)


def rejoin_step(endpoint: Endpoint, network: Network) -> Step:
    """Put an endpoint's link back into its bridge, as it was there."""
    return JoinBridge(endpoint.host_ifname, network.device, hairpin=network.routed)


def plan_remove_network(
    network: Network, endpoints: tuple[Endpoint, ...], others: tuple[Network, ...] = ()
) -> Plan:
    """Close the network, then delete its bridge. Raises ConflictError while a container is on it."""
    if endpoints:
        names = ", ".join(sorted({endpoint.container for endpoint in endpoints}))
        raise ConflictError(
            f"remove network {network.name}: {names} still on it", hint="disconnect or remove them first"
        )
    elements = network_elements(network) + peer_elements(network, others)
    steps: tuple[Step, ...] = (ChangeElements(elements, ()),) if elements else ()
    if network.managed and network.driver == "bridge":  # a cable is gone with the last who held it
        steps += (DeleteLink("", network.device),)
    return Plan("remove network", network.name, steps, removes=(network,), forward=True)


def turn_on(network: Network, forwarded: tuple[int, ...]) -> tuple[Forwarding, ...]:
    """The IP versions that the host must start to forward for this network; it forwards some already."""
    if not network.routed:
        return ()
    return tuple([Forwarding(version) for version in network.versions if version not in forwarded])


def _fresh(forwarding: tuple[Forwarding, ...], seen: HostSeen) -> tuple[Forwarding, ...]:
    """Those that an earlier network has not put on record and under guard already: what is not ours we do not undo."""
    return tuple([each for each in forwarding if each.version not in seen.guarded])


def _host_steps(
    network: Network,
    seen: HostSeen,
    forwarding: tuple[Forwarding, ...],
    others: tuple[Network, ...],
    *,
    make: bool,
) -> tuple[Step, ...]:
    if network.driver == "foreign":
        return (ChangeElements((), network_elements(network)),)
    if network.driver != "bridge" or not network.managed:
        return ()
    steps: list[Step] = []
    if make:
        steps.append(CreateBridge(network.device, bridge_mac(network), network.mtu))
    steps += bridge_sysctls(network, ipv6=seen.ipv6)
    for subnet in network.subnets:
        if subnet.gateway is not None:
            steps.append(AddAddress("", network.device, Interface(subnet.gateway, subnet.prefix.length)))
    steps.append(SetLinkUp("", network.device))
    # The guard against forwarding for others stands before forwarding is on.
    elements = forwarding_elements(_fresh(forwarding, seen))
    elements += network_elements(network) + peer_elements(network, others)
    steps.append(ChangeElements((), elements))
    steps += _forwarding_sysctls(forwarding, seen)
    return tuple(steps)


def bridge_sysctls(network: Network, *, ipv6: bool) -> list[SetSysctl]:
    """How a network's bridge must be set, if it is ours; ``ipv6``: the kernel has it."""
    bridge = network.device
    steps: list[SetSysctl] = []
    if network.routed and 4 in network.versions:
        steps.append(SetSysctl("", f"ipv4/conf/{bridge}/route_localnet", "1"))
    if not ipv6:
        return steps
    if 6 in network.versions and not network.isolated:
        # No router advertisement is ever meant for the host, and no address is probed for: it is on record.
        steps += [SetSysctl("", f"ipv6/conf/{bridge}/{name}", "0") for name in ("accept_ra", "accept_dad")]
    else:
        steps.append(SetSysctl("", f"ipv6/conf/{bridge}/disable_ipv6", "1"))
    return steps


def _forwarding_sysctls(forwarding: tuple[Forwarding, ...], seen: HostSeen) -> list[Step]:
    steps: list[Step] = []
    for each in forwarding:
        if each.version == 4:
            steps.append(SetSysctl("", "ipv4/ip_forward", "1", "0"))
        else:
            # A link that listens to its router goes on doing so only with 2 once the host forwards (ip-sysctl.rst).
            steps += [SetSysctl("", f"ipv6/conf/{link}/accept_ra", "2", "1") for link in seen.ra_links]
            steps.append(SetSysctl("", "ipv6/conf/all/forwarding", "1", "0"))
    return steps


def _check(request: NetworkRequest, seen: HostSeen, others: tuple[Network, ...]) -> None:
    name = request.name
    if name in ("host", "none"):
        raise RequestError(f"create network {name}: the name means a mode", hint="choose another name")
    if any(other.name == name for other in others):
        raise ConflictError(
            f"create network {name}: there is one of that name", hint=f"vethwork network inspect {name}"
        )
    if request.driver not in DRIVERS:
        raise RequestError(
            f"create network {name}: driver {request.driver!r:.40} is none of {', '.join(DRIVERS)}"
        )
    if request.internal and request.isolated:
        raise RequestError(
            f"create network {name}: --internal keeps a gateway address, --isolated has none: choose one"
        )
    if request.sources and (request.internal or request.isolated or request.driver == "p2p"):
        raise RequestError(f"create network {name}: nothing leaves it, so there is nothing to masquerade")
    if request.gateways and (request.isolated or request.driver == "p2p"):
        raise RequestError(f"create network {name}: it has no gateway")
    if request.mtu is not None and not 68 <= request.mtu <= 65535:
        raise RequestError(f"create network {name}: an MTU is 68 to 65535 bytes, not {request.mtu}")
    prefixes = (*request.subnets, *[subnet.prefix for subnet in request.settled or ()])
    wants_6 = request.ipv6 or any(prefix.version == 6 for prefix in prefixes)
    if wants_6 and not seen.ipv6:
        raise RequestError(f"create network {name}: this kernel has no IPv6 (CONFIG_IPV6, or ipv6.disable=1)")
    _check_ways(request)


def _check_ways(request: NetworkRequest) -> None:
    """Refuse what a driver cannot do, and words that mean nothing. Raises RequestError."""
    doing = f"create network {request.name}"
    modes = ("", *MACVLAN_MODES) if request.driver == "macvlan" else ("",)
    if request.mode not in modes:
        known = f"is none of {', '.join(MACVLAN_MODES)}" if len(modes) > 1 else "is for a macvlan"
        raise RequestError(f"{doing}: mode {request.mode!r:.40} {known}")
    if request.peering not in PEERINGS:
        raise RequestError(f"{doing}: peering {request.peering!r:.40} is none of {', '.join(PEERINGS)}")
    if not request.managed and request.driver not in ("bridge", "foreign"):
        raise RequestError(f"{doing}: only a bridge can be somebody else's")
    if request.driver == "foreign" and (request.managed or request.settled != () or request.ways):
        raise RequestError(f"{doing}: a foreign network is somebody else's, and so are its addresses")
    for way in request.ways:
        check_way(doing, way)


def _subnets(
    request: NetworkRequest, network_id: str, seen: HostSeen, others: tuple[Network, ...]
) -> tuple[Subnet, ...]:
    taken = [subnet.prefix for other in others if _is_ours(other) for subnet in other.subnets]
    if request.settled is not None:
        return _settled(request, taken)
    # A macvlan is on the wire of the link it sits on, and so in that link's subnet.
    near = () if request.driver == "macvlan" else (*taken, *seen.taken)
    prefixes = list(request.subnets)
    for place, prefix in enumerate(prefixes):
        for other in (*near, *prefixes[:place]):
            if prefix.overlaps(other):
                raise ConflictError(
                    f"create network {request.name}: subnet {prefix} overlaps {other}, which is in use"
                )
        if BITS[prefix.version] - prefix.length < (1 if request.driver == "p2p" or request.isolated else 2):
            raise RequestError(f"create network {request.name}: subnet {prefix} is too small")
        if prefix.address.is_multicast or prefix.address.is_loopback or prefix.address.is_any:
            raise RequestError(f"create network {request.name}: {prefix} is no range for hosts")
    if len({prefix.version for prefix in prefixes}) < len(prefixes):
        raise RequestError(f"create network {request.name}: one subnet for each IP version")
    if not prefixes:
        prefixes.append(find_subnet(30 if request.driver == "p2p" else POOL_LENGTH, (*taken, *seen.taken)))
    if request.ipv6 and all(prefix.version == 4 for prefix in prefixes):
        prefixes.append(local_prefix(network_id))
    used: list[Address | Prefix] = []
    subnets = tuple([_subnet(request, prefix, used) for prefix in prefixes])
    for left in (*request.gateways, *request.pools, *request.sources):
        if left not in used:
            raise RequestError(f"create network {request.name}: {left} fits none of its subnets")
    return subnets


def _is_ours(network: Network) -> bool:
    """Whether its subnets are on this host's own wires."""
    return network.driver != "macvlan" and network.managed


def _settled(request: NetworkRequest, taken: list[Prefix]) -> tuple[Subnet, ...]:
    """Take the subnets as they stand. On somebody else's wire they may be in use: that is the point of it."""
    shared = request.driver == "macvlan" or not request.managed
    for place, subnet in enumerate(request.settled or ()):
        doing = f"create network {request.name}: subnet {subnet.prefix}"
        low, high = usable(subnet.prefix)
        if subnet.gateway is not None and not low.value <= subnet.gateway.value <= high.value:
            raise RequestError(f"{doing}: {subnet.gateway} cannot be a gateway in it")
        before = [each.prefix for each in (request.settled or ())[:place]]
        for other in (*before, *(() if shared else taken)):
            if subnet.prefix.overlaps(other):
                raise ConflictError(f"{doing}: overlaps {other}, which is in use")
    return request.settled or ()


def _subnet(request: NetworkRequest, prefix: Prefix, used: list[Address | Prefix]) -> Subnet:
    """One subnet, with the gateway, pool and source that belong to it; what it took is noted in ``used``."""
    low, high = usable(prefix)
    # A macvlan's gateway is somebody else's router: there is one where it is named.
    gateway = low if request.driver == "bridge" and not request.isolated else None
    if gateway is not None or request.driver == "macvlan":
        gateway = next((asked for asked in request.gateways if asked in prefix), gateway)
    if gateway is not None and not low.value <= gateway.value <= high.value:
        raise RequestError(f"create network {request.name}: {gateway} cannot be a gateway in {prefix}")
    pool = next(
        (asked for asked in request.pools if asked.address in prefix and asked.length >= prefix.length),
        prefix,
    )
    source = next((asked for asked in request.sources if asked.version == prefix.version), None)
    used += [item for item in (gateway, pool, source) if item is not None]
    return Subnet(prefix, gateway, pool, source)
