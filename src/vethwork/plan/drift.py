"""Telling what of the host's side is not as it is on record, and what puts it back.

Rules: a fault is told as it was. A link that bears neither our mark nor our address is not ours any more, and is not touched.
An MTU is a fault only where it is too small: a bridge that nobody is on has whichever the kernel chose, and else follows its
ports. What somebody added (an address, a route) is his, and none of ours.
"""

from __future__ import annotations

from vethwork.errors import ConflictError
from vethwork.model.plan import Fault
from vethwork.model.steps import AddRoute, SetLink, SetSysctl
from vethwork.plan.endpoint import bridge_mac
from vethwork.plan.networks import bridge_sysctls, rejoin_step, turn_on

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from vethwork.model.container import Endpoint
    from vethwork.model.network import Network
    from vethwork.model.state import LinkSeen


def wanted_sysctls(network: Network, *, ipv6: bool) -> tuple[SetSysctl, ...]:
    """The sysctls that a network's bridge must have; ``ipv6``: the kernel has it.

    A new one is up to the last two already: IPv6 is on, and it forwards as the host does.
    """
    if network.driver != "bridge" or not network.managed:
        return ()
    steps = bridge_sysctls(network, ipv6=ipv6)
    path = f"ipv6/conf/{network.device}/disable_ipv6"
    if ipv6 and not any(step.path == path for step in steps):
        steps.insert(0, SetSysctl("", path, "0"))
    if network.routed:
        for version in network.versions:
            steps.append(SetSysctl("", f"ipv{version}/conf/{network.device}/forwarding", "1"))
    return tuple(steps)


def network_faults(
    network: Network,
    endpoints: tuple[Endpoint, ...],
    forwarded: tuple[int, ...],
    bridge: LinkSeen | None,
    sysctls: Mapping[str, str | None],
) -> tuple[Fault, ...]:
    """The faults of a network's bridge and of what the host must do for it; ``plan_restore_network`` mends most of them.

    Raises ConflictError if the bridge is somebody else's.
    """
    if network.driver != "bridge" or not network.managed:
        return ()
    name = network.device
    found = [Fault(f"IPv{each.version} forwarding was off") for each in turn_on(network, forwarded)]
    if bridge is None:
        return (Fault(f"bridge {name} was gone"), *found)
    if not bridge.ours and bridge.mac != bridge_mac(network):
        raise ConflictError(f"restore network {network.name}: the host has another bridge {name}, not ours")
    mtu = min([each.mtu or network.mtu for each in endpoints], default=0)
    reset = (SetLink(name, bridge_mac(network), max(bridge.mtu, network.mtu)),)
    if not bridge.ours:
        found.append(Fault(f"bridge {name} did not bear our mark", reset))
    if bridge.mac != bridge_mac(network):
        found.append(Fault(f"bridge {name} had the MAC address {bridge.mac}", reset))
    if bridge.mtu < mtu:
        found.append(Fault(f"bridge {name} had an MTU of {bridge.mtu}", reset))
    if not bridge.up:
        found.append(Fault(f"bridge {name} was down"))
    found += [
        Fault(f"sysctl net/{step.path} was {sysctls[step.path]}", (step,))
        for step in wanted_sysctls(network, ipv6=True)
        if sysctls.get(step.path) not in (None, step.value)
    ]
    held = {interface.address for interface in bridge.addresses}
    for subnet in network.subnets:
        if subnet.gateway is not None and subnet.gateway not in held:
            found.append(Fault(f"bridge {name} did not have the address {subnet.gateway}"))
        elif subnet.gateway is not None and bridge.up and subnet.prefix not in bridge.routes:
            found.append(
                Fault(
                    f"route {subnet.prefix} was gone",
                    (AddRoute("", name, subnet.prefix, None, instead=name),),
                )
            )
    return tuple(found)


def endpoint_faults(
    endpoint: Endpoint, network: Network, link: LinkSeen | None, bridge: LinkSeen | None, *, ifb: bool
) -> tuple[Fault, ...]:
    """The faults of an endpoint's link. One without steps must be laid anew; so must one whose ``ifb`` is gone.

    Raises ConflictError if the link is somebody else's.
    """
    name = endpoint.host_ifname
    if network.driver != "bridge" or bridge is None:
        return ()  # nothing can be put into a bridge that is gone: that is the network's fault
    if link is None:
        return (Fault(f"{endpoint.ifname} on {network.name} was cut off: link {name} was gone"),)
    if endpoint.ifb and not ifb:
        return (Fault(f"link {endpoint.ifb}, which limits what {endpoint.ifname} sends, was gone"),)
    if not link.ours and link.master != bridge.index:
        raise ConflictError(f"restore {endpoint.container}: the host has another link {name}, not ours")
    rejoin = (rejoin_step(endpoint, network),)
    found: list[Fault] = []
    if link.master != bridge.index:
        found.append(
            Fault(
                f"{endpoint.ifname} on {network.name} was cut off: link {name} was not in its bridge", rejoin
            )
        )
    if not link.up:
        found.append(Fault(f"{endpoint.ifname} on {network.name} was cut off: link {name} was down", rejoin))
    if link.master == bridge.index and network.routed and not link.hairpin:
        found.append(Fault(f"link {name} was not in hairpin mode", rejoin))
    reset = (SetLink(name, link.mac, max(link.mtu, endpoint.mtu or network.mtu)),)
    if not link.ours:
        found.append(Fault(f"link {name} did not bear our mark", reset))
    if link.mtu < (endpoint.mtu or network.mtu):
        found.append(Fault(f"link {name} had an MTU of {link.mtu}", reset))
    return tuple(found)
