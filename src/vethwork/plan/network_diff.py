"""Whether a network is the one that somebody wishes for: asked for every container of a runtime that says its network anew."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vethwork.model.network import Network, NetworkRequest


def differences_of(network: Network, request: NetworkRequest) -> tuple[str, ...]:
    """In what a network is not the one that a request describes, in words; what the request leaves open is not compared."""
    found: list[str] = []
    flags = ("driver", "internal", "isolated", "icc", "masquerade", "managed", "peering", "owner")
    pairs = [(flag, getattr(network, flag), getattr(request, flag)) for flag in flags]
    pairs += [
        (word, have, want)
        for word, have, want in (
            ("device", network.device, request.device),
            ("mtu", network.mtu, request.mtu),
            ("mode", network.mode, request.mode or None),
            ("id", network.id, request.id or None),
        )
        if want is not None
    ]
    found += [f"its {word} is {have}, not {want}" for word, have, want in pairs if have != want]
    prefixes = tuple(subnet.prefix for subnet in network.subnets)
    wanted = request.subnets or prefixes
    if request.settled is not None:
        wanted = tuple(subnet.prefix for subnet in request.settled)
        if {each.prefix: each for each in request.settled} != {each.prefix: each for each in network.subnets}:
            found += ["its gateway, pool or source is another"] if set(wanted) == set(prefixes) else []
    if set(prefixes) != set(wanted):
        have, want = (", ".join(map(str, each)) for each in (prefixes, wanted))
        found.append(f"its subnet is {have}, not {want}")
    gateways = [subnet.gateway for subnet in network.subnets]
    found += [f"its gateway is not {gateway}" for gateway in request.gateways if gateway not in gateways]
    sources = [subnet.source for subnet in network.subnets]
    found += [f"it does not hide behind {source}" for source in request.sources if source not in sources]
    return tuple(found)
