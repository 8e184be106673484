"""Forgetting flows: the conntrack entries that stand in the way of a change to the published ports.

Theory. NAT is decided by a flow's first packet and kept in its conntrack entry. A client that goes on sending (UDP
above all, and TCP that tries again) would be led where the port led before: to a container that is gone, or, where the
port was not yet published, to the host itself. So entries go when a mapping appears and when it goes.

Rules: an entry is deleted if it was sent to a port of the range *on this host*: its original destination is one of the
host's addresses. What passes through is not ours, be it rewritten by others (a cluster's service address) or not; nor is what
another program keeps in a conntrack zone.
"""

from __future__ import annotations

from errno import EINVAL, ENOENT

from vethwork.errors import KernelRefused
from vethwork.model.steps import ForgetFlows
from vethwork.wire.conntrack import (
    PROTOCOLS,
    count_flows,
    delete_flow,
    list_all_flows,
    list_flows,
    parse_count,
    parse_destination,
    parse_flow,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from vethwork.kernel.netlink import NetlinkSocket
    from vethwork.model.address import Address
    from vethwork.wire.conntrack import Flow
    from vethwork.wire.netlink import Message

FLOWS_IN_A_WALK = 1000
"""How many flows we read in the time that the kernel takes to walk its table once, to list a single one.

The table has a quarter of a million buckets on most machines (nf_conntrack_buckets): that is 10 ms.
"""

AT_ONCE = 64
"""Deletions in one datagram; their acknowledgements must fit in the socket's buffer."""


def forget_all(
    netlink: NetlinkSocket, steps: Iterable[ForgetFlows], is_local: Callable[[Address], bool]
) -> int:
    """Delete the entries sent to the steps' ports of this host, in one walk or few; give how many there were.

    A step's ``host_ip`` None means any address of the host; 0.0.0.0 or :: any of its version. ``is_local`` tells the
    host's addresses; it is asked only if there is an entry to ask about. Raises KernelRefused.
    """
    steps = tuple(steps)
    flows: set[Flow] = set()
    local: dict[Address, bool] = {}
    for flow in _sent_to_ports(netlink, steps):
        to = flow.destination
        if flow.zone or not any(_is_meant(step, flow) for step in steps):
            continue
        if to not in local:
            local[to] = is_local(to)
        if local[to]:
            flows.add(flow)
    _delete(netlink, [(delete_flow(flow), f"forget flow {_words(flow)}") for flow in flows])
    return len(flows)


def _words(flow: Flow) -> str:
    source = f"{flow.source} port {flow.source_port}"
    return f"{source} to {flow.destination} port {flow.destination_port} (protocol {flow.protocol})"


def _is_meant(step: ForgetFlows, flow: Flow) -> bool:
    if not _has_port(step, flow.protocol, flow.destination_port):
        return False
    to = step.host_ip
    return to is None or to == flow.destination or (to.is_any and to.version == flow.destination.version)


def _has_port(step: ForgetFlows, protocol: int, port: int) -> bool:
    return step.first <= port <= step.last and protocol == PROTOCOLS[step.protocol]


def _sent_to_ports(netlink: NetlinkSocket, steps: tuple[ForgetFlows, ...]) -> Iterator[Flow]:
    """The flows sent to the steps' ports, on this host or elsewhere."""
    known: dict[tuple[int, int], bool] = {}
    for body in _listed(netlink, steps):
        sent_to = parse_destination(body)
        if sent_to not in known:
            known[sent_to] = any(_has_port(step, *sent_to) for step in steps)
        if known[sent_to]:
            yield parse_flow(body)


def _listed(netlink: NetlinkSocket, steps: tuple[ForgetFlows, ...]) -> Iterator[bytes]:
    """The entries that the steps may mean, and others: by as few walks through the kernel's table as pay."""
    try:
        count = sum([parse_count(body) for body in netlink.ask(count_flows(), "count the flows")])
        asked = {list_flows(*what) for step in steps for what in _listings(step)} if count else set()
        by_themselves = count > FLOWS_IN_A_WALK * (len(asked) - 1)
        for listing in asked if by_themselves else {list_all_flows()}:
            yield from netlink.dump(listing, "list the flows")
    except KernelRefused as error:
        if error.errno != EINVAL:
            raise
        # nfnetlink_rcv_msg knows no such subsystem
        raise KernelRefused(error.doing, EINVAL, hint="the kernel may lack CONFIG_NF_CT_NETLINK") from error


def _listings(step: ForgetFlows) -> Iterator[tuple[int, int, int | None]]:
    """The kernel's filter knows single ports only."""
    port = step.first if step.first == step.last else None
    for version in (4, 6) if step.host_ip is None else (step.host_ip.version,):
        yield version, PROTOCOLS[step.protocol], port


def _delete(netlink: NetlinkSocket, requests: list[tuple[Message, str]]) -> None:
    for at in range(0, len(requests), AT_ONCE):
        some = requests[at : at + AT_ONCE]
        try:
            netlink.transact(some)
        except KernelRefused as error:
            if error.errno != ENOENT:
                raise
            _delete_each(netlink, some)


def _delete_each(netlink: NetlinkSocket, requests: list[tuple[Message, str]]) -> None:
    """Again, one by one: of many, only the first refusal is told, and one that is gone may hide another."""
    for message, doing in requests:
        try:
            netlink.ask(message, doing)
        except KernelRefused as error:
            if error.errno != ENOENT:
                raise
