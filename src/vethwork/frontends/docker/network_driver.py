"""NetworkDriver.*: each method takes a document to the engine, and brings the answer back (libnetwork/docs/remote.md).

Rules: whatever is wrong with a document is found before the engine is asked for anything. What is on record answers for
itself: after a restart of dockerd, or of ours, nothing is sent again. Methods that take something away succeed
where it is gone, and touch nothing that was not made for Docker.
"""

from __future__ import annotations

from contextlib import suppress

from vethwork.engine.external_links import hand_over, is_awaited
from vethwork.errors import ConflictError, NotFound, VethworkError
from vethwork.frontends.docker.document import engine_id, parse_id
from vethwork.frontends.docker.endpoint import parse_endpoint, parse_ports
from vethwork.frontends.docker.network import OWNER, parse_network, parse_options
from vethwork.model.names import NetnsPath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vethwork.engine.engine import Engine
    from vethwork.frontends.docker.document import Section
    from vethwork.frontends.docker.endpoint import Choice
    from vethwork.model.container import Endpoint, Publication
    from vethwork.model.network import Network
    from vethwork.model.ports import Publish
    from vethwork.model.state import ContainerSeen

    Answer = dict[str, Any]


def capabilities(engine: Engine, document: Section) -> Answer:
    """GetCapabilities: a driver for this host alone, which asks whether a network has gateways (dockerd 28)."""
    return {"Scope": "local", "ConnectivityScope": "local", "GwAllocChecker": True}


def check_gateways(engine: Engine, document: Section) -> Answer:
    """GwAllocCheck: an isolated network has no gateway, so Docker need not set an address aside for it."""
    skip = parse_options(document.section("Options")).flag("isolated")
    return {"SkipIPv4": skip, "SkipIPv6": skip}


def create_network(engine: Engine, document: Section) -> Answer:
    """CreateNetwork. Once more for the same id is fine if it says the same."""
    engine.network_like(parse_network(document))
    return {}


def delete_network(engine: Engine, document: Section) -> Answer:
    """DeleteNetwork. Docker asks for it when no endpoint of its own is left: one that is on record was given up."""
    network = _find_network(engine, document)
    if network is None:
        return {}
    for endpoint in engine.store.endpoints_on(network.name):
        if engine.inspect(endpoint.container).container.owner == OWNER:
            engine.detach(endpoint.container)
    with suppress(NotFound):  # somebody was faster
        engine.remove_network(network.name)
    return {}


def create_endpoint(engine: Engine, document: Section) -> Answer:
    """CreateEndpoint: name, addresses and MAC are on record. Only what Docker left open is said in the answer."""
    request = parse_endpoint(document, _network(engine, document))
    for address in request.joins[0].addresses:
        _drop_abandoned(engine, engine.store.leases.holder(request.joins[0].network, address))
    endpoint = engine.attach(request).endpoints[0]
    asked = document.section("Interface")
    chosen = {"MacAddress": str(endpoint.mac)}
    for interface in endpoint.addresses:
        chosen["Address" if interface.address.version == 4 else "AddressIPv6"] = str(interface)
    return {"Interface": {key: value for key, value in chosen.items() if not asked.text(key)}}


def _drop_abandoned(engine: Engine, name: str) -> None:
    """Docker's IPAM gives an address again only after it gave up who had it; we may have missed that, and it has no link."""
    container = engine.store.container(name) if name else None
    if container is not None and is_awaited(container) and container.owner == OWNER:
        engine.detach(name)


def delete_endpoint(engine: Engine, document: Section) -> Answer:
    """DeleteEndpoint: all that is left of it goes, wherever the inner end of its link is."""
    seen = _find_endpoint(engine, document)
    if seen is not None:
        engine.detach(seen.container.name)
    return {}


def endpoint_info(engine: Engine, document: Section) -> Answer:
    """EndpointOperInfo: dockerd looks for nothing in it that a plugin could say."""
    _endpoint(engine, document)
    return {"Value": {}}


def join(engine: Engine, document: Section) -> Answer:
    """Join: the link, whose inner end libnetwork moves into the sandbox, and what it has to know to configure it."""
    seen, path = _endpoint(engine, document), document.parsed("SandboxKey", NetnsPath.parse)
    seen = hand_over(engine, seen.container.name, path or NetnsPath(seen.container.netns))
    endpoint = seen.endpoints[0]
    ways = {way.gateway.version: str(way.gateway) for way in endpoint.defaults if way.gateway is not None}
    return {
        "InterfaceName": {"SrcName": endpoint.ifname, "DstPrefix": "eth"},
        "Gateway": ways.get(4, ""),
        "GatewayIPv6": ways.get(6, ""),
        "StaticRoutes": _routes(endpoint),
        # Else dockerd makes a bridge of its own, docker_gwbridge, for who has no way out by IPv4.
        "DisableGatewayService": 4 not in ways,
    }


def _routes(endpoint: Endpoint) -> list[dict[str, Any]]:
    """The network's own routes. RouteType 0 leads by a next hop, 1 is on the link itself (libnetwork/types)."""
    return [
        {
            "Destination": str(way.prefix),
            "RouteType": int(way.gateway is None),
            "NextHop": str(way.gateway or ""),
        }
        for way in endpoint.ways
        if way.prefix is not None and way.kind == "unicast"
    ]


def leave(engine: Engine, document: Section) -> Answer:
    """Leave: its ports close. The link stays until DeleteEndpoint: libnetwork takes it out of the sandbox in between."""
    return revoke(engine, document)


def program(engine: Engine, document: Section) -> Answer:
    """ProgramExternalConnectivity: its ports open, all or none. What is open already is not asked for again."""
    seen, ports = _endpoint(engine, document), parse_ports(document)
    name, have = seen.container.name, seen.publications
    opened: list[Publication] = []
    try:
        fresh = [publish for publish in ports.named if not _is_open(publish, publish.host_port, have)]
        if fresh:
            opened += engine.publish(name, *fresh)
        for choice in ports.choices:
            if not _is_open(choice.first, choice.last, have):
                opened += _publish_any(engine, name, choice)
    except VethworkError:
        for publication in opened:
            engine.unpublish(name, publication.publish)
        raise
    return {}


def _is_open(asked: Publish, last: int, have: tuple[Publication, ...]) -> bool:
    """Whether the container has a port open that is what is asked for, up to a choice of the host port."""
    return any(
        each.publish == asked.replace(host_port=each.publish.host_port)
        and (not asked.host_port or asked.host_port <= each.publish.host_port <= last)
        for each in have
    )


def _publish_any(engine: Engine, name: str, choice: Choice) -> tuple[Publication, ...]:
    for publish in choice.candidates():
        try:
            return engine.publish(name, publish)
        except ConflictError:
            continue
    raise ConflictError(f"publish {choice.first}: every host port up to {choice.last} is held")


def revoke(engine: Engine, document: Section) -> Answer:
    """RevokeExternalConnectivity: its ports close."""
    seen = _find_endpoint(engine, document)
    for publication in seen.publications if seen is not None else ():
        try:
            engine.unpublish(publication.container, publication.publish)
        except NotFound:
            continue
    return {}


def discover(engine: Engine, document: Section) -> Answer:
    """DiscoverNew, DiscoverDelete: other hosts are no business of a local driver."""
    return {}


def _find_network(engine: Engine, document: Section) -> Network | None:
    network = engine.store.network(engine_id(parse_id(document, "NetworkID")))
    return network if network is not None and network.owner == OWNER else None


def _network(engine: Engine, document: Section) -> Network:
    network = _find_network(engine, document)
    if network is None:
        raise NotFound(
            f"network {document.text('NetworkID')[:12]}: is not on record",
            hint="was its state deleted? docker network rm, and create it anew",
        )
    return network


def _find_endpoint(engine: Engine, document: Section) -> ContainerSeen | None:
    parse_id(document, "NetworkID")
    seen = engine.observer.existing(parse_id(document, "EndpointID"))
    return seen if seen is not None and seen.container.owner == OWNER else None


def _endpoint(engine: Engine, document: Section) -> ContainerSeen:
    network, seen = _network(engine, document), _find_endpoint(engine, document)
    if seen is None or seen.networks != (network,):
        raise NotFound(f"endpoint {document.text('EndpointID')[:12]}: is not on network {network.name}")
    return seen
