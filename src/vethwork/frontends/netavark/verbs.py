"""What netavark's subcommands do, in the engine's verbs.

Rules: everything is read and checked before anything is touched. A container gets all its networks in one attach; what
fails is undone, and the networks that were made for it go again. Podman calls one at a time and holds a lock meanwhile; who
calls without one waits for ours.
"""

from __future__ import annotations

import fcntl
import os

from vethwork.errors import BadNamespace, ConflictError, NotFound, RequestError, VethworkError
from vethwork.frontends.netavark.translate import OWNER, identity, network_identity, parse_publishes
from vethwork.model.container import AttachRequest, Mode
from vethwork.model.names import Name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vethwork.engine.engine import Engine
    from vethwork.frontends.aardvark import Host, NameServer, Zone
    from vethwork.frontends.netavark.document import Fields
    from vethwork.frontends.netavark.translate import Document, Wanted
    from vethwork.model.container import Endpoint, Join
    from vethwork.model.names import NetnsPath
    from vethwork.model.network import Network, NetworkRequest
    from vethwork.model.ports import Publish
    from vethwork.model.state import ContainerSeen

    Warn = Callable[[str], None]

DNS_DOMAIN = "dns.podman"
TRIES = 5
OURS_ALONE = ("bridge", "host", "none")
"""Names that mean something else to vethwork; Podman's network of such a name gets another one with us."""


class Turn:
    """The lock of this front-end, for as long as one call takes. A context manager."""

    def __init__(self, root: str) -> None:
        self._fd = os.open(f"{root}/netavark.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def setup(
    engine: Engine, asked: Document, netns: NetnsPath, server: Callable[[], NameServer], warn: Warn
) -> dict[str, Any]:
    """Give a container its networks; a container that has some gets these besides. Raises VethworkError."""
    try:
        engine.check_netns(netns)
    except BadNamespace as error:
        raise RequestError(f"invalid namespace path: {error.message}") from error
    if not asked.wanted:
        return {}
    with Turn(engine.root):
        engine.quiesce()  # else a network might go with a container that is being taken down
        if any(engine.store.network(each.request.id) is None for each in asked.wanted):
            engine.remove_idle_networks()  # one that somebody left may have a name or a subnet that is wanted
        have = engine.observer.existing(asked.container_id)
        if (
            have is not None and have.container.netns != netns
        ):  # it was started again, and nobody took the old one down
            engine.detach(have.container.name)
            have = None
        try:
            endpoints = _join(engine, asked, netns, have, warn)
            zones = _zones(engine, asked, endpoints, server) if any(each.dns for each in asked.wanted) else ()
            answer = _answer(engine, asked, endpoints, {zone.network for zone, _ in zones})
        except BaseException:
            engine.remove_idle_networks()
            raise
    return answer


def _join(
    engine: Engine, asked: Document, netns: NetnsPath, have: ContainerSeen | None, warn: Warn
) -> dict[str, Endpoint]:
    """Put a container on the networks it asks for; gives its endpoints by Podman's names of the networks.

    Whoever takes the last container off a network, the service's reaper for one, takes the network away a moment later, and
    has no turn of ours: it may be the one that was just found or made, and then it is made again.
    """
    for _ in range(TRIES):
        networks = [_ensure(engine, each.request) for each in asked.wanted]
        try:
            return _join_these(engine, asked, netns, have, warn, networks)
        except NotFound:
            if all(engine.store.network(network.name) is not None for network in networks):
                raise
    raise ConflictError(f"attach {asked.container_name or asked.container_id}: its networks came and went")


def _join_these(
    engine: Engine,
    asked: Document,
    netns: NetnsPath,
    have: ContainerSeen | None,
    warn: Warn,
    networks: list[Network],
) -> dict[str, Endpoint]:
    name = have.container.name if have is not None else _free_name(engine, asked)
    joins = tuple(
        [
            each.join.replace(network=network.name)
            for each, network in zip(asked.wanted, networks, strict=True)
        ]
    )
    if have is None:
        publishes = _publishable(asked.publishes, networks, warn)
        mode = Mode("network", joins[0].network)
        request = AttachRequest(
            asked.container_id, name, mode, joins, publishes, netns, owner=OWNER, reserved=True
        )
        made = engine.attach(request).endpoints
    else:
        made = _connect_all(engine, have, joins, networks, asked.publishes)
    found = {endpoint.ifname: endpoint for endpoint in made}
    return {
        each.name: found[join.ifname] for each, join in zip(asked.wanted, joins, strict=True) if join.ifname
    }


def _connect_all(
    engine: Engine,
    have: ContainerSeen,
    joins: tuple[Join, ...],
    networks: list[Network],
    publishes: tuple[Publish, ...],
) -> tuple[Endpoint, ...]:
    """One network after the other, all or none. Ports that lead nowhere yet lead to the first that can have them."""
    name, made = have.container.name, []
    open_now = {publication.publish for publication in have.publications}
    waiting = tuple([each for each in publishes if each not in open_now])
    try:
        for join, network in zip(joins, networks, strict=True):
            ports = waiting if network.routed else ()
            made.append(engine.connect(name, join, ports, reserved=True))
            waiting = () if ports else waiting
    except BaseException:
        for endpoint in made:
            engine.disconnect(name, endpoint.network, endpoint.ifname)
        raise
    return tuple(made)


def _publishable(publishes: tuple[Publish, ...], networks: list[Network], warn: Warn) -> tuple[Publish, ...]:
    """netavark opens no port on a network that it does not route, and says nothing; we say so."""
    if publishes and not any(network.routed for network in networks):
        names = ", ".join(network.name for network in networks)
        warn(f"{', '.join(map(str, publishes))}: not published, for the host is no gateway of {names}")
        return ()
    return publishes


def _ensure(engine: Engine, request: NetworkRequest) -> Network:
    """Find a network by its id, or make it, under its own name if that is free. Raises VethworkError."""
    if engine.store.network(request.id) is None:
        taken = {*OURS_ALONE, *[network.name for network in engine.networks()]}
        names = [request.name, f"{request.name[:110]}.podman", f"{request.name[:110]}.{request.id[:12]}"]
        free = [name for name in names if name not in taken]
        request = request.replace(name=Name.parse(free[0]))
    return engine.network_like(request)


def _free_name(engine: Engine, asked: Document) -> Name:
    """A container's own name, unless it is none or another's that lives; then one that its id makes unique."""
    short = asked.container_id[:12]
    try:
        name = Name.parse(asked.container_name or short)
    except RequestError:
        return Name(short)
    other = engine.store.container(name)
    if other is None:
        return name
    if other.owner == OWNER and not engine.lives(other):
        engine.detach(other.name)
        return name
    return Name(f"{name[:100]}-{short}")


def _zones(
    engine: Engine, asked: Document, endpoints: dict[str, Endpoint], make: Callable[[], NameServer]
) -> tuple[tuple[Zone, Host], ...]:
    """What the name server is told; its failure undoes what was joined."""
    from vethwork.frontends.aardvark import Zone

    server = make()
    zones = []
    for wanted in asked.wanted:
        endpoint = endpoints[wanted.name]
        network = engine.network(endpoint.network)
        if wanted.dns and server.is_here and _gateways(network):
            zone = Zone(wanted.name, network.internal, _gateways(network), wanted.dns_servers)
            zones.append((zone, _host(asked, wanted, endpoint)))
    try:
        if zones:
            server.add(tuple(zones))
    except VethworkError:
        for endpoint in endpoints.values():
            _leave(engine, endpoint)
        raise
    return tuple(zones)


def _answer(
    engine: Engine, asked: Document, endpoints: dict[str, Endpoint], named: set[str]
) -> dict[str, Any]:
    """What Podman is told; ``named`` are the networks that have names."""
    networks = {name: engine.network(endpoint.network) for name, endpoint in endpoints.items()}
    return {
        name: _status(asked, networks[name], endpoint, named=name in named)
        for name, endpoint in endpoints.items()
    }


def _host(asked: Document, wanted: Wanted, endpoint: Endpoint) -> Host:
    from vethwork.frontends.aardvark import Host

    names = (asked.container_name, *wanted.aliases)
    addresses = tuple([str(interface.address) for interface in endpoint.addresses])
    return Host(asked.container_id, addresses, names, asked.dns_servers)


def _leave(engine: Engine, endpoint: Endpoint) -> None:
    """Take an endpoint away, and its container with the last one."""
    if len(engine.inspect(endpoint.container).endpoints) == 1:
        engine.detach(endpoint.container)
    else:
        engine.disconnect(endpoint.container, endpoint.network, endpoint.ifname)


def _gateways(network: Network) -> tuple[str, ...]:
    return tuple([str(subnet.gateway) for subnet in network.subnets if subnet.gateway is not None])


def _status(asked: Document, network: Network, endpoint: Endpoint, *, named: bool) -> dict[str, Any]:
    """One network of the answer: types.StatusBlock of containers/common."""
    subnets = []
    for interface in endpoint.addresses:
        gateway = network.subnet_of(interface.address).gateway
        entry = {"ipnet": str(interface)}
        subnets.append(entry | ({"gateway": str(gateway)} if gateway is not None else {}))
    servers = _gateways(network) if named else asked.dns_servers
    return {
        "dns_search_domains": [DNS_DOMAIN] if named else [],
        "dns_server_ips": list(servers),
        "interfaces": {endpoint.ifname: {"mac_address": str(endpoint.mac), "subnets": subnets}},
    }


def teardown(engine: Engine, document: Fields, server: NameServer) -> None:
    """Take networks away from a container; what is gone already is fine. Raises VethworkError."""
    container_id = identity(document.text("container_id"))
    infos = dict(document.named("network_info"))
    names = [name for name, _ in document.named("networks")]
    ids = {network_identity(infos[name], name) for name in names if name in infos}
    server.remove(container_id, tuple([name for name in names if "/" not in name]))
    with Turn(engine.root):
        have = engine.observer.existing(container_id)
        if have is None:
            engine.remove_idle_networks()
            return
        going = {
            network.name
            for network in have.networks
            if network.id in ids or (network.owner == OWNER and network.name in names)
        }
        rest = [endpoint for endpoint in have.endpoints if endpoint.network not in going]
        if not rest:
            engine.detach(have.container.name, wait=False)
            return
        for endpoint in have.endpoints:
            if endpoint.network in going:
                engine.disconnect(have.container.name, endpoint.network, endpoint.ifname)
        _publish_again(engine, have, rest, document)


def _publish_again(engine: Engine, have: ContainerSeen, rest: list[Endpoint], document: Fields) -> None:
    """Ports that led to a network that was left lead to one that stays, if it can have them."""
    routed = {network.name for network in have.networks if network.routed}
    left = {publication.publish for publication in engine.inspect(have.container.name).publications}
    lost = tuple([each for each in parse_publishes(document) if each not in left])
    if lost and engine.lives(have.container) and any(endpoint.network in routed for endpoint in rest):
        engine.publish(have.container.name, *lost, reserved=True)


def reload_firewall(engine: Engine) -> None:
    """Bring back what somebody flushed. Raises VethworkError."""
    from vethwork.maintenance.gc import restore  # seldom needed

    restore(engine)


def update(network: str, servers: tuple[str, ...], server: NameServer) -> None:
    """Give a network other name servers; one that nobody is on needs none. Raises VethworkError."""
    server.update(Name.parse(network), servers)
