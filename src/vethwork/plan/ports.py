"""Published ports: which are free, and which endpoint they lead to.

Rules: a host port has one holder, a container or a process; the refusal names it. A port leads to an endpoint
whose network has the host as its gateway, and there to the one by which the answers go out.
"""

from __future__ import annotations

from vethwork.errors import ConflictError, RequestError
from vethwork.model.container import Endpoint, Publication
from vethwork.model.ports import Publish, Taken
from vethwork.model.steps import ChangeElements, ForgetFlows
from vethwork.plan.elements import publication_elements

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vethwork.model.network import Network
    from vethwork.model.ruleset import Element
    from vethwork.model.state import PortSeen
    from vethwork.model.steps import Step

DYNAMIC_FIRST, DYNAMIC_LAST = 49152, 65535
"""Where a host port is chosen from if none is named: the dynamic ports of RFC 6335, section 6."""


def dynamic_ports(seed: str) -> Iterable[int]:
    """Every dynamic port once, from a place that follows from the seed (hex digits), so that two seldom ask for the same."""
    span = DYNAMIC_LAST - DYNAMIC_FIRST + 1
    start = int(seed[:8], 16) % span
    return (DYNAMIC_FIRST + (start + offset) % span for offset in range(span))


def publications_of(
    publishes: Sequence[Publish],
    ports: Sequence[PortSeen],
    endpoints: Sequence[Endpoint],
    networks: Sequence[Network],
) -> tuple[Publication, ...]:
    """Settle what is asked to be published. Raises ConflictError and RequestError."""
    if not publishes:
        return ()
    made: list[Publication] = []
    taken = Taken()
    for publish, port in zip(publishes, ports, strict=True):
        settled = publish if publish.host_port else publish.replace(host_port=port.port)
        if port.holder and not publish.host_port:
            span = f"{DYNAMIC_FIRST} to {DYNAMIC_LAST}"
            raise ConflictError(
                f"publish {publish}: no port of {span} is free", hint="name one, as in 8080:80"
            )
        if port.holder:
            raise ConflictError(f"publish {settled}: the host port is held by {port.holder}")
        other = taken.overlap(settled)
        if other is not None:
            raise RequestError(f"publish {settled}: overlaps {other}, which is asked for too")
        taken.add(settled)
        endpoint = _published_endpoint(publish, endpoints, networks)
        made.append(Publication(endpoint.container, endpoint.id, settled))
    return tuple(made)


def _published_endpoint(
    publish: Publish, endpoints: Sequence[Endpoint], networks: Sequence[Network]
) -> Endpoint:
    open_ones = {network.name: network for network in networks if network.takes_ports}
    able = [endpoint for endpoint in endpoints if endpoint.network in open_ones]
    # First the one by which answers go out: that of the default route, which is the oldest of those of the best metric.
    able.sort(key=lambda each: (not each.default_route, each.metric, each.id))
    for endpoint in able:
        if any(interface.address.version in publish.versions for interface in endpoint.addresses):
            _check_loopback(publish, open_ones[endpoint.network])
            return endpoint
    if able:
        return able[0]
    names = ", ".join(str(network.name) for network in networks) or "none"
    raise RequestError(
        f"publish {publish}: needs a network whose gateway is the host, and has {names}",
        hint="a port cannot be published on an internal, isolated, p2p, macvlan or foreign network",
    )


def _check_loopback(publish: Publish, network: Network) -> None:
    """Refuse 127.0.0.1 where the kernel would drop it: route_localnet of somebody else's link is not ours to turn on."""
    if network.driver == "foreign" and publish.host_ip is not None and publish.host_ip.is_loopback:
        raise RequestError(
            f"publish {publish}: {network.device} is somebody else's link, and 127.0.0.0/8 does not pass it",
            hint="publish on an address of the host",
        )


def port_elements(publications: Sequence[Publication], endpoints: Sequence[Endpoint]) -> tuple[Element, ...]:
    """The elements of several publications."""
    ends = {endpoint.id: endpoint for endpoint in endpoints}
    return tuple(
        [
            each
            for publication in publications
            for each in publication_elements(publication, ends[publication.endpoint])
        ]
    )


def forget_stale(publications: Iterable[Publication]) -> tuple[Step, ...]:
    """Let no flow keep the way it had before these ports were opened.

    TCP needs no help there: a connection attempt that was refused is begun anew (nf_conntrack_proto_tcp.c, "attempt to
    reopen"), and one that a local process holds since before is that process's.
    """
    return forget([each for each in publications if each.publish.protocol != "tcp"])


def forget(publications: Iterable[Publication]) -> tuple[Step, ...]:
    """Let every flow end that came in by these ports."""
    return tuple(
        [
            ForgetFlows(
                each.publish.protocol, each.publish.host_ip, each.publish.host_port, each.publish.last
            )
            for each in publications
        ]
    )


def open_steps(publications: Sequence[Publication], endpoints: Sequence[Endpoint]) -> tuple[Step, ...]:
    """Open ports on a running container."""
    return (ChangeElements((), port_elements(publications, endpoints)), *forget_stale(publications))


def close_steps(publications: Sequence[Publication], endpoints: Sequence[Endpoint]) -> tuple[Step, ...]:
    """Close ports; flows that came in by them end."""
    return (ChangeElements(port_elements(publications, endpoints), ()), *forget(publications))
