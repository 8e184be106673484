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
from vethwork.wire.conntrack import PROTOCOLS, delete_flow, list_flows, parse_flow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vethwork.kernel.socket import NetlinkSocket
    from vethwork.model.address import Address
    from vethwork.wire.conntrack import Flow
    from vethwork.wire.netlink import Message

FEW_PORTS = 8
"""Up to here the kernel is asked for port by port: it filters by one port, and a listing costs more here than there."""

AT_ONCE = 64
"""Deletions in one datagram; their acknowledgements must fit in the socket's buffer."""


def forget_flows(
    netlink: NetlinkSocket,
    protocol: str,
    host_ip: Address | None,
    first: int,
    last: int,
    is_local: Callable[[Address], bool],
) -> int:
    """Delete the entries sent to ports ``first`` to ``last`` of this host; give how many there were.

    ``host_ip`` None means any address of the host; 0.0.0.0 or :: any of its version. ``is_local`` tells the host's
    addresses; it is asked only if there is an entry to ask about. Raises KernelRefused.
    """
    flows: set[Flow] = set()
    local: dict[Address, bool] = {}
    for flow in _listed(netlink, protocol, host_ip, first, last):
        to = flow.destination
        if not first <= flow.destination_port <= last or flow.protocol != PROTOCOLS[protocol] or flow.zone:
            continue
        if host_ip is not None and not host_ip.is_any and to != host_ip:
            continue
        if to not in local:
            local[to] = is_local(to)
        if local[to]:
            flows.add(flow)
    _delete(netlink, [(delete_flow(flow), f"forget flow {_words(protocol, flow)}") for flow in flows])
    return len(flows)


def _words(protocol: str, flow: Flow) -> str:
    return (
        f"{protocol} {flow.source} port {flow.source_port} to {flow.destination} port {flow.destination_port}"
    )


def _listed(
    netlink: NetlinkSocket, protocol: str, host_ip: Address | None, first: int, last: int
) -> Iterator[Flow]:
    versions = (4, 6) if host_ip is None else (host_ip.version,)
    ports = range(first, last + 1) if last - first < FEW_PORTS else (None,)
    for version in versions:
        for port in ports:
            message = list_flows(version, PROTOCOLS[protocol], port)
            for body in _dump(netlink, message, f"list the {protocol} flows of IPv{version}"):
                yield parse_flow(body)


def _dump(netlink: NetlinkSocket, message: Message, doing: str) -> list[bytes]:
    try:
        return netlink.dump(message, doing)
    except KernelRefused as error:
        if error.errno != EINVAL:
            raise
        # nfnetlink_rcv_msg has no such subsystem
        raise KernelRefused(doing, EINVAL, hint="the kernel may lack CONFIG_NF_CT_NETLINK") from error


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
