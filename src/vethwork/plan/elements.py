"""What a network, an endpoint and a published port are in the ruleset: elements of its sets.

Rules: these functions are the only ones that name a set. A change adds or deletes what they give; a restore gives the whole
ruleset their sum. So what is added and what is deleted cannot drift apart.
"""

from __future__ import annotations

from vethwork.errors import RequestError
from vethwork.model.address import Address, Prefix
from vethwork.model.container import Endpoint, Publication
from vethwork.model.network import Network
from vethwork.model.ruleset import Element, Span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from vethwork.model.network import Forwarding


def network_elements(network: Network) -> tuple[Element, ...]:
    """The policy of one network's bridge. A bridge that somebody else keeps is his to guard.

    What comes from a foreign link passes where this host forwards for us alone, and not into networks of ours.
    """
    if network.driver == "foreign":
        return (Element("inet", "forward_from", (network.device,), ("goto from_open",)),)
    if network.driver != "bridge" or not network.managed:
        return ()
    bridge = network.device
    found = [Element("inet", "bridges", (bridge,))]
    if network.icc:
        found.append(Element("inet", "peers", (bridge, bridge)))
    found.append(
        Element(
            "inet", "forward_from", (bridge,), ("goto from_open" if network.routed else "goto from_closed",)
        )
    )
    found.append(Element("inet", "forward_to", (bridge,), ("goto to_open" if network.routed else "drop",)))
    if network.isolated:
        found.append(Element("inet", "input_from", (bridge,), ("drop",)))
    elif network.internal:
        found.append(Element("inet", "input_from", (bridge,), ("goto gateway_only",)))
    if network.routed:
        found.append(Element("inet", "mirrors", (bridge, bridge)))
        found += _nat_elements(network)
    if network.dns_port:
        found += _dns_elements(network)
    return tuple(found)


def _dns_elements(network: Network) -> list[Element]:
    """Who asks the gateway for names is led to the port that its name server listens on."""
    return [
        Element(
            "inet",
            f"port_at{gateway.version}",
            (gateway, protocol, 53),
            (gateway, network.dns_port),
        )
        for gateway in [subnet.gateway for subnet in network.subnets]
        if gateway is not None
        for protocol in ("tcp", "udp")
    ]


def peer_elements(network: Network, others: Iterable[Network]) -> tuple[Element, ...]:
    """The other networks that one sees, and that see it: both must agree to it."""
    return tuple(
        [
            Element("inet", "peers", pair)
            for other in others
            if other.name != network.name and _sees(network, other)
            for pair in ((network.device, other.device), (other.device, network.device))
        ]
    )


def _sees(one: Network, other: Network) -> bool:
    peerings = (one.peering, other.peering)
    return one.routed and other.routed and "none" not in peerings and "all" in peerings


def _nat_elements(network: Network) -> list[Element]:
    found: list[Element] = []
    for subnet in network.subnets:
        version = subnet.prefix.version
        found.append(_hairpin(network, subnet.prefix))
        if subnet.source is not None:
            found.append(Element("inet", f"source{version}", (subnet.prefix,), (subnet.source,)))
        elif network.masquerade:
            found.append(Element("inet", f"masquerade{version}", (subnet.prefix,)))
    return found


def _hairpin(network: Network, who: Address | Prefix) -> Element:
    """Who is answered through the host where a published port leads him back to the link that he came from."""
    return Element("inet", f"hairpin{who.version}", (network.device, who))


def endpoint_elements(endpoint: Endpoint, network: Network) -> tuple[Element, ...]:
    """Who may speak at a bridge port, and to whom: one MAC address and the endpoint's own addresses.

    On a foreign link, that he reaches published ports which lead back by it.
    """
    if network.driver == "foreign":
        return tuple([_hairpin(network, each.address) for each in endpoint.addresses])
    port = endpoint.host_ifname
    if not port:
        return ()
    found = [Element("bridge", "ports", (port,)), Element("bridge", "macs", (port, endpoint.mac))]
    if not network.icc:
        found.append(Element("bridge", "loners", (port,)))
    for interface in endpoint.addresses:
        version = interface.address.version
        found.append(Element("bridge", f"speakers{version}", (port, interface.address)))
        if version == 6:
            found.append(Element("bridge", "targets6", (port, interface.address.value)))
    return tuple(found)


def publication_elements(publication: Publication, endpoint: Endpoint) -> tuple[Element, ...]:
    """Where a published range leads. A range whose ports stay the same is one element, however long.

    A shifted range is an element for each port: nftables cannot add to a port number. Raises RequestError if the
    endpoint has no address of a family that is asked for by name.
    """
    publish = publication.publish
    found: list[Element] = []
    first = {interface.address.version: interface.address for interface in reversed(endpoint.addresses)}
    for version in publish.versions:
        if version in first:
            found += _publish_elements(publication, first[version])
    if not found:
        raise RequestError(
            f"publish {publish}: {endpoint.container} has no IPv{publish.versions[0]} address",
            hint="create its network with --ipv6" if publish.versions[0] == 6 else "",
        )
    return (*found, *traffic_elements(publication, endpoint))


def traffic_elements(publication: Publication, endpoint: Endpoint) -> tuple[Element, ...]:
    """Where what a publication carries is counted, keyed by the host's side of it as the maps are, and so its own alone.

    A port that has an element of its own there has one here. A range that is one element there is not counted.
    """
    publish = publication.publish
    host_ip = publish.host_ip
    bound = host_ip is not None and not host_ip.is_any
    if publish.count > 1 and not publish.shifted:
        return ()
    have = {interface.address.version for interface in endpoint.addresses}
    return tuple(
        [
            Element("inet", f"traffic_at{version}", (host_ip, publish.protocol, publish.host_port + offset))
            if bound and host_ip
            else Element("inet", "traffic", (f"ipv{version}", publish.protocol, publish.host_port + offset))
            for version in publish.versions
            if version in have
            for offset in range(publish.count)
        ]
    )


def _publish_elements(publication: Publication, to: Address) -> list[Element]:
    publish = publication.publish
    bound = publish.host_ip is not None and not publish.host_ip.is_any
    at: tuple[Address, ...] = (publish.host_ip,) if bound and publish.host_ip else ()
    suffix = f"_at{to.version}" if bound else str(to.version)
    if publish.count > 1 and not publish.shifted:
        span = Span(publish.host_port, publish.last)
        return [Element("inet", f"range{suffix}", (*at, publish.protocol, span), (to,))]
    return [
        Element(
            "inet",
            f"port{suffix}",
            (*at, publish.protocol, publish.host_port + offset),
            (to, publish.container_port + offset),
        )
        for offset in range(publish.count)
    ]


def forwarding_elements(forwarding: Iterable[Forwarding]) -> tuple[Element, ...]:
    """The IP versions in which the host forwards for us and for nobody else."""
    return tuple([Element("inet", "guarded", (f"ipv{each.version}",)) for each in forwarding])


def all_elements(
    networks: Iterable[Network],
    endpoints: Iterable[Endpoint],
    publications: Iterable[Publication],
    forwarding: Iterable[Forwarding],
) -> tuple[Element, ...]:
    """The whole ruleset's elements, from all that is on record."""
    ends = {endpoint.id: endpoint for endpoint in endpoints}
    by_name = {network.name: network for network in networks}
    found = list(forwarding_elements(forwarding))
    before: list[Network] = []
    for network in by_name.values():
        found += network_elements(network) + peer_elements(network, before)
        before.append(network)
    for endpoint in ends.values():
        found += endpoint_elements(endpoint, by_name[endpoint.network])
    for publication in publications:
        found += publication_elements(publication, ends[publication.endpoint])
    return tuple(found)
