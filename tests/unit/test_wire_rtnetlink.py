"""Links, addresses and routes: what we ask for is what would be read back, and garbage is refused.

That the kernel understands the requests as they are meant is shown by the kernel tests, which let ``ip`` say what it sees.
"""

from __future__ import annotations

from contextlib import suppress
from struct import pack
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.strategies import IFNAMES, MACS, addresses, interfaces, prefixes
from vethwork.model.address import Address, Interface, Mac, Prefix
from vethwork.model.steps import LINK_GROUP, ROUTE_MARK
from vethwork.wire.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    attribute,
    attributes,
    u8,
    u32,
)
from vethwork.wire.rtnetlink import (
    _HEADS,
    AF_BRIDGE,
    AF_INET,
    AF_INET6,
    IFA_ADDRESS,
    IFA_BROADCAST,
    IFA_LOCAL,
    IFLA_ADDRESS,
    IFLA_BRPORT_MODE,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_LINK,
    IFLA_LINKINFO,
    IFLA_MACVLAN_MODE,
    IFLA_MASTER,
    IFLA_NET_NS_FD,
    IFLA_PROTINFO,
    MACVLAN_MODES,
    ROUTE_KINDS,
    RT_SCOPE_LINK,
    RTA_DST,
    RTA_OIF,
    RTA_PRIORITY,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    RTM_SETLINK,
    VETH_INFO_PEER,
    Link,
    Route,
    delete_link,
    delete_route,
    get_addresses,
    get_link,
    get_routes,
    hairpin_port,
    join_bridge,
    link_up,
    move_link,
    new_address,
    new_bridge,
    new_macvlan,
    new_route,
    new_veth,
    parse_address,
    parse_change,
    parse_held,
    parse_link,
    parse_route,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MTUS = st.integers(68, 65535)
INDEXES = st.integers(1, (1 << 31) - 1)
GROUP_AND_UP = 16  # struct ifinfomsg


def number(value: int) -> bytes:
    """Four bytes in the machine's order."""
    return pack("=I", value)


@given(IFNAMES, MACS, MTUS)
def test_a_bridge_is_made_as_it_would_be_read(ifname: str, mac: Mac, mtu: int) -> None:
    message = new_bridge(ifname, mac, mtu)
    assert message.type == RTM_NEWLINK
    assert parse_link(message.body) == Link(0, ifname, "bridge", LINK_GROUP, 0, mtu, mac, False)


@given(IFNAMES, st.just(0) | INDEXES, st.integers(0, 1000), IFNAMES, MACS, MTUS)
def test_both_ends_of_a_veth_are_made_as_they_would_be_read(
    host_ifname: str, master: int, netns_fd: int, ifname: str, mac: Mac, mtu: int
) -> None:
    body = new_veth(host_ifname, master, netns_fd, ifname, mac, mtu).body
    assert parse_link(body) == Link(0, host_ifname, "veth", LINK_GROUP, master, mtu, Mac(0), bool(master))
    info = attributes(attributes(body, GROUP_AND_UP)[IFLA_LINKINFO])
    peer = attributes(info[IFLA_INFO_DATA])[VETH_INFO_PEER]
    # An engine inside the container would take one that is marked for a stray of its own.
    group = 0 if master else LINK_GROUP
    assert parse_link(peer) == Link(0, ifname, "", group, 0, mtu, mac, False)
    assert attributes(peer, GROUP_AND_UP)[IFLA_NET_NS_FD] == number(netns_fd)


@given(INDEXES, st.integers(0, 1000), IFNAMES, MACS | st.none(), MTUS, st.sampled_from(sorted(MACVLAN_MODES)))
def test_a_macvlan_is_made_as_it_would_be_read(
    parent: int, netns_fd: int, ifname: str, mac: Mac | None, mtu: int, mode: str
) -> None:
    body = new_macvlan(parent, netns_fd, ifname, mac, mtu, mode).body
    assert parse_link(body) == Link(0, ifname, "macvlan", LINK_GROUP, 0, mtu, mac or Mac(0), False)
    found = attributes(body, GROUP_AND_UP)
    assert (found[IFLA_LINK], found[IFLA_NET_NS_FD]) == (number(parent), number(netns_fd))
    assert attributes(found[IFLA_LINKINFO])[IFLA_INFO_DATA] == u32(IFLA_MACVLAN_MODE, MACVLAN_MODES[mode])


@given(INDEXES, st.integers(0, 1000), IFNAMES, MACS)
def test_a_link_moves_down_under_its_new_name(index: int, netns_fd: int, ifname: str, mac: Mac) -> None:
    message = move_link(index, netns_fd, ifname, mac)
    assert message.type == RTM_SETLINK
    assert parse_link(message.body) == Link(index, ifname, "", 0, 0, 0, mac, False)
    assert message.body[12:16] == number(1)  # IFF_UP is among what changes
    assert attributes(message.body, GROUP_AND_UP)[IFLA_NET_NS_FD] == number(netns_fd)


@given(INDEXES, INDEXES)
def test_what_is_asked_of_a_link_by_its_index(index: int, bridge: int) -> None:
    assert parse_link(link_up(index).body) == Link(index, "", "", 0, 0, 0, Mac(0), True)
    joined = join_bridge(index, bridge)
    assert parse_link(joined.body) == Link(index, "", "", 0, bridge, 0, Mac(0), True)
    assert attributes(joined.body, GROUP_AND_UP) == {IFLA_MASTER: number(bridge)}
    assert delete_link(index) == Message(RTM_DELLINK, 0, pack("=BxHiII", 0, 0, index, 0, 0))
    hairpin = hairpin_port(index).body
    assert hairpin[0] == AF_BRIDGE
    assert attributes(hairpin, GROUP_AND_UP)[IFLA_PROTINFO] == u8(IFLA_BRPORT_MODE, 1)


@given(IFNAMES)
def test_one_link_is_asked_for_by_name(ifname: str) -> None:
    assert parse_link(get_link(ifname).body).ifname == ifname


def test_all_are_asked_for_by_nothing() -> None:
    assert not any(get_link().body)
    assert not any(get_addresses().body)
    assert not any(get_routes().body)


@pytest.mark.parametrize("packed", [b"", bytes(4), b"\x0a\0\0\1", bytes(16), b"\xff" * 20])
def test_what_is_no_mac_address_is_none(packed: bytes) -> None:
    assert parse_link(bytes(16) + attribute(IFLA_ADDRESS, packed)).mac == Mac(0)


@given(INDEXES, interfaces())
def test_an_address_is_given_as_it_would_be_read(index: int, interface: Interface) -> None:
    message = new_address(index, interface)
    assert message.type == RTM_NEWADDR
    assert parse_address(message.body) == (index, interface)
    found = attributes(message.body, 8)
    assert found[IFA_LOCAL] == found[IFA_ADDRESS] == interface.address.packed
    broadcast = interface.address.version == 4 and interface.length < 31
    assert found.get(IFA_BROADCAST) == (interface.prefix.last.packed if broadcast else None)


@pytest.mark.parametrize(("length", "broadcast"), [(30, "10.0.0.3"), (31, ""), (32, "")])
def test_two_alone_have_no_broadcast_address(length: int, broadcast: str) -> None:
    found = attributes(new_address(1, Interface(Address.parse("10.0.0.1"), length)).body, 8)
    assert found.get(IFA_BROADCAST, b"") == (Address.parse(broadcast).packed if broadcast else b"")


@pytest.mark.parametrize(("text", "flags"), [("10.0.0.1/24", 0), ("fd00::1/64", 2)])
def test_an_ipv6_address_is_not_probed_for(text: str, flags: int) -> None:
    assert new_address(1, Interface.parse(text)).body[2] == flags


def test_the_near_end_of_a_point_to_point_link_is_its_address() -> None:
    near, far = Address.parse("10.0.0.1"), Address.parse("10.0.0.2")
    body = pack("=BBBBi", AF_INET, 32, 0, 0, 3) + attribute(IFA_ADDRESS, far.packed)
    assert parse_address(body) == (3, Interface(far, 32))
    assert parse_address(body + attribute(IFA_LOCAL, near.packed)) == (3, Interface(near, 32))


@given(INDEXES, prefixes(4) | st.none(), addresses(4), st.integers(0, (1 << 32) - 1))
def test_an_ipv4_route_is_added_as_it_would_be_read(
    index: int, prefix: Prefix | None, gateway: Address, metric: int
) -> None:
    message = new_route(index, prefix, gateway, metric)
    assert message.type == RTM_NEWROUTE
    assert parse_route(message.body) == Route(prefix or Prefix(Address(4, 0), 0), index, gateway)
    assert attributes(message.body, 12).get(RTA_PRIORITY) == (number(metric) if metric else None)


@given(INDEXES, prefixes(6), addresses(6))
def test_an_ipv6_route_is_added_as_it_would_be_read(index: int, prefix: Prefix, gateway: Address) -> None:
    body = new_route(index, prefix, gateway, 0).body
    assert parse_route(body) == Route(prefix, index, gateway)
    assert (RTA_DST in attributes(body, 12)) == bool(prefix.length)


@given(INDEXES, prefixes())
def test_what_is_on_the_link_itself_needs_no_gateway(index: int, prefix: Prefix) -> None:
    body = new_route(index, prefix, None, 0).body
    assert parse_route(body) == Route(prefix, index, None)
    assert body[6] == (RT_SCOPE_LINK if prefix.version == 4 else 0)


@given(prefixes(), st.integers(0, 9), st.sampled_from(["blackhole", "unreachable", "prohibit"]))
def test_a_route_that_leads_nowhere_is_deleted_as_it_was_added(
    prefix: Prefix, metric: int, kind: str
) -> None:
    added, deleted = new_route(0, prefix, None, metric, kind), delete_route(prefix, metric, kind)
    assert (deleted.type, deleted.body) == (RTM_DELROUTE, added.body)
    assert added.body[7] == ROUTE_KINDS[kind]
    assert parse_route(added.body) is None
    assert (RTA_OIF in attributes(added.body, 12)) is False


@given(INDEXES, prefixes(), addresses(4), st.integers(0, 2000), st.booleans())
def test_a_route_that_is_asked_for_stands_where_the_kernel_says_it_stands(
    index: int, prefix: Prefix, gateway: Address, metric: int, near: bool
) -> None:
    near |= prefix.version == 6
    asked = parse_held(new_route(index, prefix, None if near else gateway, metric).body)
    told = metric or (1024 if prefix.version == 6 else 0)
    answer = u32(RTA_PRIORITY, told) + u32(RTA_OIF, index) + attribute(RTA_DST, prefix.address.packed)
    family = AF_INET if prefix.version == 4 else AF_INET6
    assert asked == parse_held(route_body(family, prefix.length, 1, answer))
    assert asked != parse_held(route_body(family, prefix.length, 1, answer + u32(RTA_PRIORITY, told + 1)))
    nowhere = parse_held(new_route(0, prefix, None, metric, "blackhole").body)
    assert (nowhere.place, nowhere.owner) == (asked.place, -ROUTE_MARK)


def test_a_route_takes_a_place_only_where_it_is_told_to() -> None:
    flags = [new_route(1, None, Address(4, 1), 0, replaces=each).flags for each in (False, True)]
    assert flags == [NLM_F_CREATE | NLM_F_EXCL, NLM_F_CREATE | NLM_F_REPLACE]


def route_body(family: int, length: int, kind: int, *parts: bytes) -> bytes:
    """A route as the kernel tells it."""
    return pack("=BBBBBBBBI", family, length, 0, 0, 254, 4, 0, kind, 0) + b"".join(parts)


def test_only_unicast_routes_of_the_two_families_count() -> None:
    assert parse_route(route_body(AF_INET, 0, 1)) == Route(Prefix(Address(4, 0), 0), 0, None)
    assert parse_route(route_body(AF_INET6, 0, 1)) == Route(Prefix(Address(6, 0), 0), 0, None)
    for family, kind in ((AF_BRIDGE, 1), (AF_INET, 2), (AF_INET6, 3), (128, 1)):
        assert parse_route(route_body(family, 0, kind)) is None


def address_body(length: int, *parts: bytes) -> bytes:
    """An IPv4 address as the kernel tells it."""
    return pack("=BBBBi", AF_INET, length, 0, 0, 1) + b"".join(parts)


@pytest.mark.parametrize(
    ("reader", "body", "why"),
    [
        (parse_held, b"", "cut short"),
        (parse_route, route_body(AF_INET, 33, 1), "a prefix length of 33 for 0.0.0.0"),
        (parse_route, route_body(AF_INET6, 129, 1), "a prefix length of 129 for ::"),
        (parse_route, route_body(AF_INET, 24, 1, attribute(RTA_DST, bytes(5))), "an address of 5 bytes"),
        (
            parse_address,
            address_body(33, attribute(IFA_LOCAL, bytes(4))),
            "a prefix length of 33 for 0.0.0.0",
        ),
        (parse_address, address_body(24, attribute(IFA_LOCAL, bytes(3))), "an address of 3 bytes"),
        (parse_address, address_body(24), "an address of 0 bytes"),
    ],
)
def test_what_cannot_be_is_refused(reader: Callable[[bytes], object], body: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        reader(body)


@pytest.mark.parametrize(("reader", "size"), [(parse_link, 16), (parse_address, 8), (parse_route, 12)])
def test_a_head_that_is_cut_short_is_refused(reader: Callable[[bytes], object], size: int) -> None:
    for length in range(size):
        with pytest.raises(ValueError, match="is cut short"):
            reader(bytes(length))


@given(IFNAMES, MACS, interfaces(4), st.integers(1, 80))
def test_what_is_cut_short_is_refused_or_has_less(
    ifname: str, mac: Mac, interface: Interface, cut: int
) -> None:
    whole = new_bridge(ifname, mac, 1500).body
    with suppress(ValueError):
        link = parse_link(whole[: max(0, len(whole) - cut)])
        assert link.ifname in (ifname, "")
        assert link.mac in (mac, Mac(0))
    whole = new_address(7, interface).body
    with suppress(ValueError):
        assert parse_address(whole[: max(0, len(whole) - cut)]) == (7, interface)


@given(st.binary(max_size=60))
def test_names_are_text_whatever_the_kernel_says(name: bytes) -> None:
    kind = attribute(IFLA_INFO_KIND, name)
    link = parse_link(
        bytes(16) + attribute(IFLA_IFNAME, name) + attribute(IFLA_LINKINFO, kind) + u32(IFLA_MASTER, 3)
    )
    assert (link.ifname, link.kind, link.master) == (*[name.rstrip(b"\0").decode(errors="replace")] * 2, 3)


def test_which_link_a_change_has_to_do_with() -> None:
    link = new_bridge("br0", Mac(2), 1500).body
    late = bytes(16) + u32(IFLA_MASTER, 3) + attribute(IFLA_IFNAME, b"br0\0")
    for kind in (RTM_NEWLINK, RTM_DELLINK):
        assert parse_change(kind, 0, link) == ("br0", 0)
        assert parse_change(kind, 0, late) == ("br0", 0)
    address = new_address(7, Interface(Address.parse("10.0.0.1"), 24)).body
    assert parse_change(RTM_DELADDR, 0, address) == ("", 7)
    assert parse_change(RTM_NEWADDR, 0, address) is None
    route = new_route(7, Prefix.parse("10.0.0.0/24"), None, 0).body
    assert parse_change(RTM_DELROUTE, 0, route) == ("", 7)
    assert parse_change(RTM_NEWROUTE, 0, route) is None
    assert parse_change(RTM_NEWROUTE, NLM_F_REPLACE, route) == ("", 0)
    for kind, size in _HEADS.items():
        with pytest.raises(ValueError, match="is cut short"):
            parse_change(kind, 0, bytes(size - 1))
