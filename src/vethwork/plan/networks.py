"""Making, restoring and removing networks.

Rules: what the host needs for a network is one list of steps, whether the network is made or brought back. The bridge is
closed (nobody's port speaks, nothing is forwarded) until the elements at the end open it.
"""

from __future__ import annotations

from vethwork.errors import ConflictError, RequestError
from vethwork.model.address import BITS, Address, Interface, Mac, Prefix
from vethwork.model.names import IfName
from vethwork.model.network import DRIVERS, Forwarding, Network, NetworkRequest, Subnet
from vethwork.model.plan import Plan
from vethwork.model.snapshot import HostSeen
from vethwork.model.steps import AddAddress, ChangeElements, CreateBridge, DeleteLink, SetLinkUp, SetSysctl
from vethwork.plan.addresses import POOL_LENGTH, find_subnet, local_prefix, usable
from vethwork.plan.elements import forwarding_elements, network_elements

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
    subnets = _subnets(request, network_id, seen, others)
    prefix = "vw-" if request.driver == "bridge" else "vwp"
    network = Network(
        id=network_id,
        name=request.name,
        driver=request.driver,
        device=request.device or IfName(prefix + network_id[:12]),
        subnets=subnets,
        mtu=request.mtu or seen.mtu,
        internal=request.internal,
        isolated=request.isolated,
        icc=request.icc,
        masquerade=request.masquerade,
        labels=request.labels,
    )
    if network.device in seen.links:
        raise ConflictError(f"create network {network.name}: the host has a link {network.device} already")
    forwarding = turn_on(network, seen)
    steps = _host_steps(network, seen, forwarding, make=True)
    adds: tuple[Row, ...] = (network, *forwarding)
    return Plan("create network", network.name, steps, adds=adds)


def plan_restore_network(network: Network, seen: HostSeen) -> Plan:
    """Bring the host's side of a network back, as far as it is missing."""
    forwarding = turn_on(network, seen)
    steps = _host_steps(network, seen, forwarding, make=network.device not in seen.links)
    return Plan("restore network", network.name, steps, adds=forwarding, forward=True)


def plan_remove_network(network: Network, endpoints: tuple[Endpoint, ...]) -> Plan:
    """Close the network, then delete its bridge. Raises ConflictError while a container is on it."""
    if endpoints:
        names = ", ".join(sorted({endpoint.container for endpoint in endpoints}))
        raise ConflictError(
            f"remove network {network.name}: {names} still on it", hint="disconnect or remove them first"
        )
    steps: tuple[Step, ...] = (ChangeElements(network_elements(network), ()),)
    if network.managed:
        steps += (DeleteLink("", network.device),)
    return Plan("remove network", network.name, steps, removes=(network,), forward=True)


def differences_of(network: Network, request: NetworkRequest) -> tuple[str, ...]:
    """In what a network is not the one that a request describes, in words; what the request leaves open is not compared."""
    found: list[str] = []
    flags = ("driver", "internal", "isolated", "icc", "masquerade")
    pairs = [(flag, getattr(network, flag), getattr(request, flag)) for flag in flags]
    pairs += [
        (word, have, want)
        for word, have, want in (
            ("device", network.device, request.device),
            ("mtu", network.mtu, request.mtu),
        )
        if want is not None
    ]
    found += [f"its {word} is {have}, not {want}" for word, have, want in pairs if have != want]
    prefixes = tuple(subnet.prefix for subnet in network.subnets)
    wanted = request.subnets or prefixes
    if set(prefixes) != set(wanted):
        have, want = (", ".join(map(str, each)) for each in (prefixes, wanted))
        found.append(f"its subnet is {have}, not {want}")
    gateways = [subnet.gateway for subnet in network.subnets]
    found += [f"its gateway is not {gateway}" for gateway in request.gateways if gateway not in gateways]
    sources = [subnet.source for subnet in network.subnets]
    found += [f"it does not hide behind {source}" for source in request.sources if source not in sources]
    return tuple(found)


def turn_on(network: Network, seen: HostSeen) -> tuple[Forwarding, ...]:
    """The IP versions that the host must start to forward for this network."""
    if not network.routed:
        return ()
    return tuple([Forwarding(version) for version in network.versions if version not in seen.forwarding])


def _host_steps(
    network: Network, seen: HostSeen, forwarding: tuple[Forwarding, ...], *, make: bool
) -> tuple[Step, ...]:
    if network.driver != "bridge":
        return ()
    steps: list[Step] = []
    if make:
        mac = Mac(0x0277 << 32 | int(network.id[:8], 16))
        steps.append(CreateBridge(network.device, mac, network.mtu))
    steps += _bridge_sysctls(network, seen)
    for subnet in network.subnets:
        if subnet.gateway is not None:
            steps.append(AddAddress("", network.device, Interface(subnet.gateway, subnet.prefix.length)))
    steps.append(SetLinkUp("", network.device))
    # The guard against forwarding for others stands before forwarding is on.
    steps.append(ChangeElements((), forwarding_elements(forwarding) + network_elements(network)))
    steps += _forwarding_sysctls(forwarding, seen)
    return tuple(steps)


def _bridge_sysctls(network: Network, seen: HostSeen) -> list[Step]:
    bridge = network.device
    steps: list[Step] = []
    if network.routed and 4 in network.versions:
        steps.append(SetSysctl("", f"ipv4/conf/{bridge}/route_localnet", "1"))
    if not seen.ipv6:
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
    wants_6 = request.ipv6 or any(prefix.version == 6 for prefix in request.subnets)
    if wants_6 and not seen.ipv6:
        raise RequestError(f"create network {name}: this kernel has no IPv6 (CONFIG_IPV6, or ipv6.disable=1)")
    if wants_6 and request.mtu is not None and request.mtu < 1280:
        raise RequestError(f"create network {name}: IPv6 needs an MTU of 1280 bytes at least (RFC 8200)")


def _subnets(
    request: NetworkRequest, network_id: str, seen: HostSeen, others: tuple[Network, ...]
) -> tuple[Subnet, ...]:
    taken = [subnet.prefix for other in others for subnet in other.subnets]
    prefixes = list(request.subnets)
    for place, prefix in enumerate(prefixes):
        for other in (*taken, *seen.taken, *prefixes[:place]):
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


def _subnet(request: NetworkRequest, prefix: Prefix, used: list[Address | Prefix]) -> Subnet:
    """One subnet, with the gateway, pool and source that belong to it; what it took is noted in ``used``."""
    gateway: Address | None = None
    if request.driver == "bridge" and not request.isolated:
        low, high = usable(prefix)
        gateway = next((asked for asked in request.gateways if asked in prefix), low)
        if not low.value <= gateway.value <= high.value:
            raise RequestError(f"create network {request.name}: {gateway} cannot be a gateway in {prefix}")
    pool = next(
        (asked for asked in request.pools if asked.address in prefix and asked.length >= prefix.length),
        prefix,
    )
    source = next((asked for asked in request.sources if asked.version == prefix.version), None)
    used += [item for item in (gateway, pool, source) if item is not None]
    return Subnet(prefix, gateway, pool, source)
