"""Putting back what somebody changed or deleted: the ruleset, one network's side of the host, or one container's link.

    network_faults, endpoint_faults     look, in nobody's way; what is under way looks like a fault
    mend_ruleset, mend_network, mend_endpoint     look once more in one's turn, when nobody works on it, and put it back

Rules: what is mended is told as it was found. What is inside of a container is the container's, which may have been given the
right to change it: only a link that is gone is laid anew, with all that was on it.
"""

from __future__ import annotations

from vethwork.engine.operation import recorded_elements
from vethwork.errors import VethworkError
from vethwork.kernel.host_state import forwarded, has_ipv6, see_links, see_sysctls
from vethwork.model.plan import Plan
from vethwork.model.steps import AddRoute
from vethwork.plan import drift
from vethwork.plan.attach import plan_reattach
from vethwork.plan.ruleset import TABLES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from vethwork.engine.engine import Engine
    from vethwork.engine.operation import Execution
    from vethwork.model.container import Container, Endpoint
    from vethwork.model.network import Network
    from vethwork.model.plan import Fault
    from vethwork.model.state import HostSeen, LinkSeen

LOOKS = 3
"""How often something is looked at and mended: what comes up by one repair may be all that the next one would mend."""


def network_faults(engine: Engine, network: Network) -> tuple[Fault, ...]:
    """What is wrong with the host's side of a network. Raises ConflictError if its bridge is somebody else's."""
    wanted = drift.wanted_sysctls(network, ipv6=has_ipv6())
    links = see_links(engine.kernel, (network.device,), whole=True)
    endpoints = engine.store.endpoints_on(network.name)
    sysctls = see_sysctls(step.path for step in wanted)
    return drift.network_faults(network, endpoints, forwarded(), links.get(network.device), sysctls)


def endpoint_faults(
    container: Container, endpoint: Endpoint, network: Network, links: dict[str, LinkSeen]
) -> tuple[Fault, ...]:
    """What is wrong with an endpoint's link; ``links`` are those of :func:`links_of` that are there. Raises ConflictError."""
    link, bridge = links.get(endpoint.host_ifname), links.get(network.device)
    if container.handed and link is None:  # it is laid when it is asked for, and is never laid anew
        return ()
    return drift.endpoint_faults(endpoint, network, link, bridge, ifb=endpoint.ifb in links)


def links_of(endpoint: Endpoint, network: Network) -> tuple[str, ...]:
    """The links of the host that an endpoint has to do with."""
    names = (endpoint.host_ifname, endpoint.ifb, network.device)
    return tuple([name for name in names if name])


def mend_network(engine: Engine, execution: Execution, network: Network) -> tuple[str, ...]:
    """Bring the host's side of a network back, with the world to oneself. Raises ConflictError, Incomplete."""
    report: list[str] = []
    for _ in range(1 if engine.rehearses else LOOKS):
        found = network_faults(engine, network)
        if not found:
            break
        execution.carry_out(_restoration(engine, network, engine.see_host(), found))
        report += [f"network {network.name}: {fault.words}" for fault in found]
    return tuple(report)


def _restoration(
    engine: Engine, network: Network, seen: HostSeen, found: tuple[Fault, ...]
) -> Callable[[], Plan]:
    make = engine.restoration(network, seen)
    more = {step: None for fault in found for step in fault.steps}
    # What has no IPv6 (its MTU is below 1280 bytes, or it was turned off) takes no address: how a link is set comes first.
    routes = tuple([step for step in more if isinstance(step, AddRoute)])
    first = tuple([step for step in more if not isinstance(step, AddRoute)])

    def plan() -> Plan:
        made = make()
        return made.replace(steps=(*first, *made.steps, *routes))

    return plan


def mend_endpoint(engine: Engine, execution: Execution, endpoint: Endpoint) -> tuple[str, ...]:
    """Bring one link back, in the turn of its container. One whose namespace is gone is left alone.

    Raises ConflictError, BadNamespace or KernelRefused.
    """
    seen = engine.observer.existing(endpoint.container)
    if seen is None or endpoint not in seen.endpoints:
        return ()
    network = engine.network(endpoint.network)
    links = see_links(engine.kernel, links_of(endpoint, network))
    found = endpoint_faults(seen.container, endpoint, network, links)
    steps = tuple({step: None for fault in found for step in fault.steps})
    if found and not all(fault.steps for fault in found):
        if not engine.lives(seen.container):
            return ()
        engine.check_netns(
            seen.container.netns
        )  # a process may have been given the number of one that is gone
        steps = plan_reattach(seen, endpoint, network)
    if steps:
        execution.carry_out(lambda: Plan("restore", endpoint.container, steps))
    return tuple([f"container {endpoint.container}: {fault.words}" for fault in found])


def mend_ruleset(engine: Engine, execution: Execution) -> tuple[str, ...]:
    """Make the ruleset what the records say, with the world to oneself. Raises KernelRefused."""
    if not ruleset_differs(engine):
        return ()
    step = execution.ruleset_step()
    execution.carry_out(lambda: Plan("restore network", "rules", (step,), forward=True))
    return ("ruleset: was not what the records say",)


def ruleset_differs(engine: Engine) -> bool:
    """Compare every set of ours with what the records say it holds."""
    nft = engine.kernel.nft
    if not nft.is_whole(TABLES):
        return bool(engine.networks())
    wanted = set(recorded_elements(engine.store))
    try:
        have = {
            element for table in TABLES for each in table.sets for element in nft.elements(table, each.name)
        }
    except VethworkError:
        return True
    return wanted != have
