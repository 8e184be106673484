"""Links, addresses and routes as rtnetlink spells them.

Sources: include/uapi/linux/{rtnetlink,if_link,if_addr,veth,if_bridge}.h and rtnetlink(7).

Rules: a function that makes a request gives a :class:`Message`; indexes and namespace descriptors are looked up by the
caller. A function that reads an answer gives a record, or None where the body is of another kind.
"""

from __future__ import annotations

from struct import Struct
from sys import byteorder

from vethwork.model.address import BITS, Address, Interface, Mac, Prefix
from vethwork.model.record import Record
from vethwork.model.steps import LINK_GROUP, RETIRED_GROUP, ROUTE_MARK
from vethwork.wire.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    attribute,
    attributes,
    each_attribute,
    nested,
    parse_text,
    string,
    u8,
    u32,
)

AF_UNSPEC, AF_INET, AF_INET6, AF_BRIDGE = 0, 2, 10, 7
FAMILY = {4: AF_INET, 6: AF_INET6}

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_PROTINFO = 1, 3, 4, 5, 10, 12
IFLA_LINKINFO, IFLA_GROUP, IFLA_NET_NS_FD = 18, 27, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_DATA, VETH_INFO_PEER, IFLA_BRPORT_MODE, IFLA_MACVLAN_MODE = (
    1,
    2,
    5,
    1,
    4,
    1,
)
MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IFF_UP = 1
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_F_NODAD = 1, 2, 4, 0x02
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY = 1, 4, 5, 6
RT_TABLE_MAIN, RTPROT_STATIC, RTN_UNICAST = 254, 4, 1
IP6_RT_PRIO_USER = 1024  # the metric of an IPv6 route that names none, include/uapi/linux/ipv6_route.h
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
ROUTE_KINDS = {"unicast": RTN_UNICAST, "blackhole": 6, "unreachable": 7, "prohibit": 8}

_IFINFO = Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_IFADDR = Struct("=BBBBi")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_RTMSG = Struct(
    "=BBBBBBBBI"
)  # struct rtmsg: family, dst len, src len, tos, table, protocol, scope, type, flags

_HEADS = {
    RTM_NEWLINK: _IFINFO.size,
    RTM_DELLINK: _IFINFO.size,
    RTM_DELADDR: _IFADDR.size,
    RTM_DELROUTE: _RTMSG.size,
}


class Link(Record):
    """A link as the kernel tells it. ``kind`` is empty for hardware and loopback; ``master`` and ``mac`` 0 mean none."""

    index: int
    ifname: str
    kind: str
    group: int
    master: int
    mtu: int
    mac: Mac
    up: bool
    hairpin: bool = False


class Route(Record):
    """A route: ``prefix`` of length 0 is a default route. ``oif`` 0: by no single link."""

    prefix: Prefix
    oif: int
    gateway: Address | None


class Held(Record):
    """Who holds a place in the routing tables: ``place`` is where, ``owner`` the index of the link that a route leads by.

    A route that leads nowhere has no link, and its protocol tells whose it is; ``owner`` is that number, negative.
    """

    place: tuple[int, ...]
    owner: int


def _kind(name: str, *data: bytes) -> bytes:
    info = (
        (string(IFLA_INFO_KIND, name), nested(IFLA_INFO_DATA, *data))
        if data
        else (string(IFLA_INFO_KIND, name),)
    )
    return nested(IFLA_LINKINFO, *info)


def new_bridge(ifname: str, mac: Mac, mtu: int) -> Message:
    """A bridge with a MAC address that stays, in our link group."""
    body = _IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0) + string(IFLA_IFNAME, ifname) + u32(IFLA_MTU, mtu)
    body += attribute(IFLA_ADDRESS, mac.packed) + u32(IFLA_GROUP, LINK_GROUP) + _kind("bridge")
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)


def new_ifb(ifname: str, mtu: int) -> Message:
    """An intermediate functional block, up, in our link group."""
    body = _IFINFO.pack(AF_UNSPEC, 0, 0, IFF_UP, IFF_UP) + string(IFLA_IFNAME, ifname) + u32(IFLA_MTU, mtu)
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body + u32(IFLA_GROUP, LINK_GROUP) + _kind("ifb"))


def new_veth(host_ifname: str, master: int, netns_fd: int, ifname: str, mac: Mac, mtu: int) -> Message:
    """A veth pair in one message: the peer in its final namespace; the host end up and in its bridge, if it has one.

    The peer cannot be made up: the kernel refuses with ENOTCONN while the other end does not exist. A peer that stays where
    it is does not carry our mark: to an engine inside the container it is a link like any other, not a stray of its own.
    """
    peer = _IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0) + string(IFLA_IFNAME, ifname) + u32(IFLA_MTU, mtu)
    peer += attribute(IFLA_ADDRESS, mac.packed) + u32(IFLA_NET_NS_FD, netns_fd)
    peer += b"" if master else u32(IFLA_GROUP, LINK_GROUP)
    up = IFF_UP if master else 0
    body = _IFINFO.pack(AF_UNSPEC, 0, 0, up, up) + string(IFLA_IFNAME, host_ifname) + u32(IFLA_MTU, mtu)
    body += u32(IFLA_GROUP, LINK_GROUP) + (u32(IFLA_MASTER, master) if master else b"")
    return Message(
        RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body + _kind("veth", attribute(VETH_INFO_PEER, peer))
    )


def new_macvlan(parent: int, netns_fd: int, ifname: str, mac: Mac | None, mtu: int, mode: str) -> Message:
    """A macvlan on a link, in another namespace under its final name; ``mac`` None leaves the choice to the kernel."""
    body = _IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0) + string(IFLA_IFNAME, ifname) + u32(IFLA_MTU, mtu)
    body += u32(IFLA_LINK, parent) + u32(IFLA_NET_NS_FD, netns_fd) + u32(IFLA_GROUP, LINK_GROUP)
    if mac is not None:
        body += attribute(IFLA_ADDRESS, mac.packed)
    kind = _kind("macvlan", u32(IFLA_MACVLAN_MODE, MACVLAN_MODES[mode]))
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body + kind)


def move_link(index: int, netns_fd: int, ifname: str, mac: Mac) -> Message:
    """Move a link to another namespace, under another name and MAC address."""
    body = _IFINFO.pack(AF_UNSPEC, 0, index, 0, IFF_UP) + u32(IFLA_NET_NS_FD, netns_fd)
    return Message(RTM_SETLINK, 0, body + string(IFLA_IFNAME, ifname) + attribute(IFLA_ADDRESS, mac.packed))


def link_up(index: int) -> Message:
    """Bring a link up."""
    return Message(RTM_SETLINK, 0, _IFINFO.pack(AF_UNSPEC, 0, index, IFF_UP, IFF_UP))


def set_link(index: int, mac: Mac, mtu: int) -> Message:
    """Give a link a MAC address, an MTU and our mark."""
    body = _IFINFO.pack(AF_UNSPEC, 0, index, 0, 0) + attribute(IFLA_ADDRESS, mac.packed)
    return Message(RTM_SETLINK, 0, body + u32(IFLA_MTU, mtu) + u32(IFLA_GROUP, LINK_GROUP))


def join_bridge(index: int, bridge: int) -> Message:
    """Make a link a port of a bridge, and bring it up."""
    return Message(
        RTM_SETLINK, 0, _IFINFO.pack(AF_UNSPEC, 0, index, IFF_UP, IFF_UP) + u32(IFLA_MASTER, bridge)
    )


def hairpin_port(index: int) -> Message:
    """Turn on a bridge port's hairpin mode."""
    body = _IFINFO.pack(AF_BRIDGE, 0, index, 0, 0)
    return Message(RTM_SETLINK, 0, body + nested(IFLA_PROTINFO, u8(IFLA_BRPORT_MODE, 1)))


def delete_link(index: int) -> Message:
    """Delete a link."""
    return Message(RTM_DELLINK, 0, _IFINFO.pack(AF_UNSPEC, 0, index, 0, 0))


def retire_link(index: int, *, down: bool) -> Message:
    """Put a link among those that :func:`delete_retired` deletes, and bring it down if that is to be seen at once."""
    body = _IFINFO.pack(AF_UNSPEC, 0, index, 0, IFF_UP if down else 0) + u32(IFLA_GROUP, RETIRED_GROUP)
    return Message(RTM_SETLINK, 0, body)


def delete_retired() -> Message:
    """Delete all links that were retired; ENODEV if there is none."""
    return Message(RTM_DELLINK, 0, _IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0) + u32(IFLA_GROUP, RETIRED_GROUP))


def get_link(ifname: str = "") -> Message:
    """Ask for one link by name, or (as a dump) for all."""
    return Message(
        RTM_GETLINK, 0, _IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0) + (string(IFLA_IFNAME, ifname) if ifname else b"")
    )


def parse_link(body: bytes) -> Link:
    """Read a link. Raises ValueError if it is cut short."""
    if len(body) < _IFINFO.size:
        raise ValueError("link message is cut short")
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    found = attributes(body, _IFINFO.size)
    info = attributes(found.get(IFLA_LINKINFO, b""))
    port = attributes(info.get(IFLA_INFO_SLAVE_DATA, b""))
    return Link(
        index,
        parse_text(found.get(IFLA_IFNAME, b"")),
        parse_text(info.get(IFLA_INFO_KIND, b"")),
        _number(found.get(IFLA_GROUP)),
        _number(found.get(IFLA_MASTER)),
        _number(found.get(IFLA_MTU)),
        _mac(found.get(IFLA_ADDRESS, b"")),
        bool(flags & IFF_UP),
        bool(_number(port.get(IFLA_BRPORT_MODE))),
    )


def new_address(index: int, interface: Interface) -> Message:
    """Give a link an address; an address it has already is fine."""
    address = interface.address
    flags = IFA_F_NODAD if address.version == 6 else 0
    body = _IFADDR.pack(FAMILY[address.version], interface.length, flags, 0, index)
    body += attribute(IFA_LOCAL, address.packed) + attribute(IFA_ADDRESS, address.packed)
    if address.version == 4 and interface.length < 31:  # RFC 3021: a /31 has no broadcast address
        body += attribute(IFA_BROADCAST, interface.prefix.last.packed)
    return Message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body)


def get_addresses(index: int = 0) -> Message:
    """Ask (as a dump) for every address of the namespace; of one link, if the kernel checks strictly."""
    return Message(RTM_GETADDR, 0, _IFADDR.pack(AF_UNSPEC, 0, 0, 0, index))


def parse_address(body: bytes) -> tuple[int, Interface]:
    """Read an address: its link's index, and itself. Raises ValueError if it is cut short."""
    if len(body) < _IFADDR.size:
        raise ValueError("address message is cut short")
    _, length, _, _, index = _IFADDR.unpack_from(body)
    found = attributes(body, _IFADDR.size)
    packed = found.get(IFA_LOCAL, found.get(IFA_ADDRESS, b""))
    return index, _interface(packed, length)


def new_route(
    index: int,
    prefix: Prefix | None,
    gateway: Address | None,
    metric: int,
    kind: str = "unicast",
    *,
    replaces: bool = False,
) -> Message:
    """Add a route to the main table, or put it in another's place. ``index`` 0: by no link."""
    body = _route(prefix, gateway, kind)
    if gateway is not None:
        body += attribute(RTA_GATEWAY, gateway.packed)
    if index:
        body += u32(RTA_OIF, index)
    if metric:
        body += u32(RTA_PRIORITY, metric)
    return Message(RTM_NEWROUTE, NLM_F_CREATE | (NLM_F_REPLACE if replaces else NLM_F_EXCL), body)


def delete_route(prefix: Prefix, metric: int, kind: str) -> Message:
    """Delete a route that leads nowhere from the main table."""
    body = _route(prefix, None, kind)
    return Message(RTM_DELROUTE, 0, body + (u32(RTA_PRIORITY, metric) if metric else b""))


def _route(prefix: Prefix | None, gateway: Address | None, kind: str) -> bytes:
    version = prefix.version if prefix is not None else gateway.version if gateway is not None else 4
    near = gateway is None and version == 4 and kind == "unicast"
    scope = RT_SCOPE_LINK if near else RT_SCOPE_UNIVERSE
    length = prefix.length if prefix is not None else 0
    protocol = RTPROT_STATIC if kind == "unicast" else ROUTE_MARK
    head = _RTMSG.pack(FAMILY[version], length, 0, 0, RT_TABLE_MAIN, protocol, scope, ROUTE_KINDS[kind], 0)
    return head + (attribute(RTA_DST, prefix.address.packed) if prefix is not None and length else b"")


def get_routes(index: int = 0) -> Message:
    """Ask (as a dump) for every route of every table and family; by one link, if the kernel checks strictly."""
    body = _RTMSG.pack(AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0, 0)
    return Message(RTM_GETROUTE, 0, body + (u32(RTA_OIF, index) if index else b""))


def parse_route(body: bytes) -> Route | None:
    """Read a unicast route of the two IP families; None for any other. Raises ValueError if it is cut short."""
    if len(body) < _RTMSG.size:
        raise ValueError("route message is cut short")
    family, length, _, _, _, _, _, kind, _ = _RTMSG.unpack_from(body)
    if family not in (AF_INET, AF_INET6) or kind != RTN_UNICAST:
        return None
    found = attributes(body, _RTMSG.size)
    zero = bytes(4 if family == AF_INET else 16)
    gateway = _address(found[RTA_GATEWAY]) if RTA_GATEWAY in found else None
    return Route(_interface(found.get(RTA_DST, zero), length).prefix, _number(found.get(RTA_OIF)), gateway)


def parse_held(body: bytes) -> Held:
    """Read where a route stands, and whose it is; of a request as of an answer. Raises ValueError if it is cut short."""
    if len(body) < _RTMSG.size:
        raise ValueError("route message is cut short")
    family, length, _, _, table, protocol, _, kind, _ = _RTMSG.unpack_from(body)
    found = attributes(body, _RTMSG.size)
    metric = _number(found.get(RTA_PRIORITY)) or (IP6_RT_PRIO_USER if family == AF_INET6 else 0)
    to = int.from_bytes(found.get(RTA_DST, b""), "big")
    owner = _number(found.get(RTA_OIF)) if kind == RTN_UNICAST else -protocol
    return Held((family, table, to, length, metric), owner)


def parse_change(kind: int, flags: int, body: bytes) -> tuple[str, int] | None:
    """Which link a change that the kernel tells of has to do with: its name, or else its index; None for what does no harm.

    ``("", 0)``: a route was replaced, by whichever link. Raises ValueError if it is cut short.
    """
    if len(body) < _HEADS.get(kind, 0):
        raise ValueError("message of a change is cut short")
    if kind in (RTM_NEWLINK, RTM_DELLINK):
        _, _, index, _, _ = _IFINFO.unpack_from(body)
        first = next(each_attribute(body, _IFINFO.size), (0, b""))  # rtnl_fill_ifinfo begins with the name
        name = first[1] if first[0] == IFLA_IFNAME else attributes(body, _IFINFO.size).get(IFLA_IFNAME, b"")
        return parse_text(name), index
    if kind == RTM_DELADDR:
        return "", _IFADDR.unpack_from(body)[4]
    if kind == RTM_DELROUTE:
        return "", _number(attributes(body, _RTMSG.size).get(RTA_OIF))
    return ("", 0) if kind == RTM_NEWROUTE and flags & NLM_F_REPLACE else None


def _address(packed: bytes) -> Address:
    if len(packed) not in (4, 16):
        raise ValueError(f"an address of {len(packed)} bytes")
    return Address.unpack(packed)


def _interface(packed: bytes, length: int) -> Interface:
    address = _address(packed)
    if length > BITS[address.version]:
        raise ValueError(f"a prefix length of {length} for {address}")
    return Interface(address, length)


def _mac(payload: bytes) -> Mac:
    """No MAC address where the link has none, or one of another kind (a tunnel has an IP address there)."""
    return Mac(int.from_bytes(payload, "big") if len(payload) == 6 else 0)


def _number(payload: bytes | None) -> int:
    return int.from_bytes(payload or b"", byteorder)
