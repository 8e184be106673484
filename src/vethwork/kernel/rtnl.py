"""Links, addresses and routes: one socket for each namespace, and requests that wait to go out together.

Rules: a :class:`RouteDoor` queues what changes, and sends the queue in one system call when somebody needs an answer,
when another door is next, or when the plan ends. A link's index is asked for each time, by the cheapest of all questions
(netdevice(7), SIOCGIFINDEX): who remembered it would mistake another link for it one day.
"""

from __future__ import annotations

import fcntl
from errno import EEXIST, ENODEV, ESRCH
from struct import Struct

from vethwork.errors import KernelRefused
from vethwork.kernel.netlink import NETLINK_ROUTE, NetlinkSocket
from vethwork.model.address import Mac
from vethwork.model.steps import (
    LINK_GROUP,
    RETIRED_GROUP,
    AddAddress,
    AddRoute,
    CreateBridge,
    CreateMacvlan,
    CreateVeth,
    DeleteLink,
    DeleteRoute,
    HairpinPort,
    JoinBridge,
    MoveLink,
    SetLink,
    SetLinkUp,
)
from vethwork.wire import rtnetlink
from vethwork.wire.netlink import NLM_F_CREATE, NLM_F_REPLACE
from vethwork.wire.rtnetlink import Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from vethwork.model.address import Interface
    from vethwork.model.state import Carried
    from vethwork.wire.netlink import Message

SIOCGIFHWADDR, SIOCGIFINDEX = 0x8927, 0x8933  # include/uapi/linux/sockios.h
_IFREQ = Struct("16si20x")  # struct ifreq of include/uapi/linux/if.h, with ifr_ifindex
_HARDWARE = slice(18, 24)  # in ifr_hwaddr, a struct sockaddr: what follows its family
BRIDGE_PORTS = 1023
"""A bridge takes no more (BR_MAX_PORTS is 1 << 10, port 0 is not used: net/bridge/br_private.h)."""


class RouteDoor:
    """An rtnetlink socket of one namespace, made in the namespace by whoever constructs it; ``buffer`` as for any socket."""

    def __init__(self, buffer: memoryview | None = None) -> None:
        self._socket = NetlinkSocket(NETLINK_ROUTE, buffer)
        self._queue: list[tuple[Message, str]] = []

    def close(self) -> None:
        """Give the descriptor back; what is queued and not sent is dropped."""
        self._socket.close()

    def queue(self, message: Message, doing: str) -> None:
        """Let a request wait for :meth:`flush`."""
        self._queue.append((message, doing))

    def flush(self) -> None:
        """Send what waits. Raises KernelRefused for the first request that was refused."""
        if self._queue:
            waiting, self._queue = self._queue, []
            try:
                self._socket.transact(waiting)
            except KernelRefused as refused:
                if refused.errno != EEXIST:
                    raise
                for message, doing in waiting:  # whatever waits may be done twice
                    self._do_again(message, doing)

    def _do_again(self, message: Message, doing: str) -> None:
        """Do a request of which a route was perhaps there already; by our own link, that is fine."""
        try:
            self._socket.ask(message, doing)
        except KernelRefused as refused:
            if refused.errno != EEXIST or message.type != rtnetlink.RTM_NEWROUTE:
                raise
            ours = rtnetlink.parse_held(message.body)
            held = [rtnetlink.parse_held(body) for body in self._socket.dump(rtnetlink.get_routes(), doing)]
            if any(each.place == ours.place and each.owner != ours.owner for each in held):
                hint = "the namespace has another route there, which is not ours to replace: delete it first"
                raise KernelRefused(doing, EEXIST, hint=hint) from refused
            self._socket.ask(message.replace(flags=NLM_F_CREATE | NLM_F_REPLACE), doing)

    def link(self, ifname: str) -> Link | None:
        """Look a link up by name."""
        self.flush()
        try:
            return rtnetlink.parse_link(self._socket.ask(rtnetlink.get_link(ifname), f"look up {ifname}")[0])
        except KernelRefused as refused:
            if refused.errno == ENODEV:
                return None
            raise

    def find(self, ifname: str) -> int:
        """A link's index; 0 if there is no such link. What waits to be sent does not matter: a link is made at once."""
        answer = self._interface(SIOCGIFINDEX, ifname)
        return int(_IFREQ.unpack(answer)[1]) if answer else 0

    def mac(self, ifname: str) -> Mac | None:
        """A link's MAC address; None if there is no such link."""
        answer = self._interface(SIOCGIFHWADDR, ifname)
        return Mac(int.from_bytes(answer[_HARDWARE], "big")) if answer else None

    def _interface(self, question: int, ifname: str) -> bytes:
        """Ask about a link; nothing if there is no such link."""
        try:
            return fcntl.ioctl(self._socket.fd, question, _IFREQ.pack(ifname.encode(), 0))
        except OSError as error:
            if error.errno != ENODEV:
                raise KernelRefused(f"look up {ifname}", error.errno or 0) from error
            return b""

    def index(self, ifname: str) -> int:
        """The same. Raises KernelRefused (ENODEV) if there is no such link."""
        found = self.find(ifname)
        if not found:
            hint = "somebody deleted it; 'vethwork restore' brings it back"
            raise KernelRefused(f"look up {ifname}", ENODEV, hint=hint)
        return found

    def links(self) -> tuple[Link, ...]:
        """Every link of the namespace."""
        self.flush()
        return tuple(
            [rtnetlink.parse_link(body) for body in self._socket.dump(rtnetlink.get_link(), "list links")]
        )

    def carried(self) -> dict[str, Carried]:
        """What every link of the namespace has carried, by name."""
        from vethwork.wire.link_stats import parse_carried

        self.flush()
        return dict(map(parse_carried, self._socket.dump(rtnetlink.get_link(), "list links")))

    def addresses(self, link: int = 0) -> tuple[tuple[int, Interface], ...]:
        """Every address of the namespace, with the index of its link; or those of the link of that index."""
        bodies = self._dump(rtnetlink.get_addresses(link), "list addresses")
        parsed = [rtnetlink.parse_address(body) for body in bodies]
        return tuple([(index, interface) for index, interface in parsed if link in (0, index)])

    def _dump(self, message: Message, doing: str) -> list[bytes]:
        self.flush()
        self._socket.be_strict()
        return self._socket.dump(message, doing)

    def routes(self, link: int = 0) -> tuple[rtnetlink.Route, ...]:
        """Every unicast route of the namespace; or those by the link of that index."""
        bodies = self._dump(rtnetlink.get_routes(link), "list routes")
        parsed = [rtnetlink.parse_route(body) for body in bodies]
        return tuple([route for route in parsed if route and link in (0, route.oif)])

    def create_bridge(self, step: CreateBridge) -> None:
        """Do it at once. Its very own bridge, known by its mark and its address, may be there: who made it has died."""
        doing = f"create bridge {step.ifname}"
        self.flush()
        try:
            self._socket.ask(rtnetlink.new_bridge(step.ifname, step.mac, step.mtu), doing)
        except KernelRefused as refused:
            link = self.link(step.ifname) if refused.errno == EEXIST else None
            if link is None or (link.group, link.mac) != (LINK_GROUP, step.mac):
                raise

    def create_veth(self, step: CreateVeth, netns_fd: int) -> None:
        """Do it at once, for the namespace's own requests come next. Raises KernelRefused, with what the errno means here."""
        master = self.index(step.master) if step.master else 0
        message = rtnetlink.new_veth(step.host_ifname, master, netns_fd, step.ifname, step.mac, step.mtu)
        doing = f"create veth {step.host_ifname} with its peer {step.ifname} in {step.netns}"
        self.flush()
        try:
            self._socket.ask(message, doing)
        except KernelRefused as refused:
            raise KernelRefused(
                doing, refused.errno, refused.extack, hint=_veth_hint(refused.errno, step)
            ) from refused

    def create_macvlan(self, step: CreateMacvlan, netns_fd: int) -> None:
        """Do it at once, for the namespace's own requests come next. Raises KernelRefused, with what the errno means here."""
        parent = self.index(step.parent)
        message = rtnetlink.new_macvlan(parent, netns_fd, step.ifname, step.mac, step.mtu, step.mode)
        doing = f"create macvlan {step.ifname} on {step.parent} in {step.netns}"
        self.flush()
        try:
            self._socket.ask(message, doing)
        except KernelRefused as refused:
            hint = _MACVLAN_HINTS.get(refused.errno, "")
            raise KernelRefused(doing, refused.errno, refused.extack, hint=hint) from refused

    def delete(self, step: DeleteLink) -> None:
        """Do it at once. A link that is gone is fine; one that is not ours stays."""
        link = self.link(step.ifname)
        if link is None or link.group not in (LINK_GROUP, RETIRED_GROUP) or step.mac not in (None, link.mac):
            return
        try:
            self._socket.ask(rtnetlink.delete_link(link.index), f"delete link {step.ifname}")
        except KernelRefused as refused:
            if refused.errno != ENODEV:
                raise

    def retire(self, steps: Sequence[DeleteLink], *, down: bool) -> None:
        """Make links ready for :meth:`delete_retired`. One that is gone, or is not ours, stays as it is.

        ``down``: bring each down as well, for which the kernel waits until no packet is in flight on it, some 0.4 ms.
        """
        for step in steps:
            link = self.link(step.ifname)
            if link is not None and link.group == LINK_GROUP:
                self.queue(rtnetlink.retire_link(link.index, down=down), f"retire {step.ifname}")
        self.flush()

    def delete_retired(self) -> None:
        """Delete every link that was retired, in little more time than it takes to delete one."""
        try:
            self._socket.ask(rtnetlink.delete_retired(), "delete the links that were retired")
        except KernelRefused as refused:
            if refused.errno != ENODEV:
                raise

    def move(self, step: MoveLink, netns_fd: int) -> None:
        """Do it at once. A link that is gone is fine: the kernel deletes a veth pair with either end's namespace."""
        link = self.link(step.ifname)
        if link is not None and link.group == LINK_GROUP:
            message = rtnetlink.move_link(link.index, netns_fd, step.to_ifname, step.to_mac)
            doing = f"move link {step.ifname} to {step.to_netns or 'the host'} as {step.to_ifname}"
            try:
                self._socket.ask(message, doing)
            except KernelRefused as refused:
                if refused.errno != ENODEV:  # it went after it was looked up
                    raise

    def set_up(self, step: SetLinkUp) -> None:
        """Queue it."""
        self.queue(rtnetlink.link_up(self.index(step.ifname)), f"bring up {step.ifname}")

    def set_link(self, step: SetLink) -> None:
        """Queue it."""
        self.queue(
            rtnetlink.set_link(self.index(step.ifname), step.mac, step.mtu),
            f"give {step.ifname} its address and MTU",
        )

    def join_bridge(self, step: JoinBridge) -> None:
        """Queue it. A link that is gone is fine: it went with its namespace."""
        link, bridge = self.link(step.ifname), self.index(step.bridge)
        if link is None:
            return
        self.queue(rtnetlink.join_bridge(link.index, bridge), f"put {step.ifname} into bridge {step.bridge}")
        if step.hairpin:
            self.hairpin(HairpinPort(step.ifname))

    def hairpin(self, step: HairpinPort) -> None:
        """Queue it."""
        self.queue(
            rtnetlink.hairpin_port(self.index(step.ifname)),
            f"turn on hairpin mode of bridge port {step.ifname}",
        )

    def add_address(self, step: AddAddress) -> None:
        """Queue it."""
        message = rtnetlink.new_address(self.index(step.ifname), step.interface)
        self.queue(message, f"add address {step.interface} to {step.ifname}")

    def add_route(self, step: AddRoute) -> None:
        """Queue it."""
        index = self.index(step.ifname) if step.kind == "unicast" else 0
        to = step.prefix, step.gateway, step.metric, step.kind
        message = rtnetlink.new_route(index, *to, replaces=bool(step.instead))
        way = f"via {step.gateway}" if step.gateway is not None else f"on {step.ifname}"
        self.queue(
            message, f"add route {step.prefix or 'default'} {way if step.kind == 'unicast' else step.kind}"
        )

    def delete_route(self, step: DeleteRoute) -> None:
        """Do it at once. One that is gone is fine."""
        self.flush()
        message = rtnetlink.delete_route(step.prefix, step.metric, step.kind)
        try:
            self._socket.ask(message, f"delete route {step.prefix} {step.kind}")
        except KernelRefused as refused:
            if refused.errno != ESRCH:
                raise


_MACVLAN_HINTS = {
    EEXIST: "the container has an interface of that name already",
    16: "the link is in passthru mode, or is a port of a bridge",  # EBUSY
    22: "another macvlan on the link is in passthru mode",  # EINVAL
    95: "it needs a kernel with CONFIG_MACVLAN",  # EOPNOTSUPP
}


def _veth_hint(errno: int, step: CreateVeth) -> str:
    if errno == EEXIST:
        return f"the container has a {step.ifname} already, or the host a {step.host_ifname}"
    if errno == 54:  # EXFULL
        return f"bridge {step.master} is full: the kernel takes {BRIDGE_PORTS} ports on one"
    return ""
