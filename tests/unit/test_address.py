"""Addresses, held against the standard library's ``ipaddress``.

Where the two differ on purpose: a scope id (``fe80::1%eth0``) is refused, for it means an interface of one namespace; and an
IPv4-mapped address is printed as RFC 5952 section 5 recommends, ``::ffff:192.0.2.1``, which ``ipaddress`` does from 3.13 on.
So is, by glibc as by ip(8) and nft(8), an IPv4-compatible one (RFC 4291 2.5.5.1, deprecated): ``::192.0.2.1``.
"""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.strategies import MACS, addresses, interfaces, prefixes
from vethwork.errors import RequestError
from vethwork.model.address import BITS, Address, Interface, Mac, Prefix

Oracle = ipaddress.IPv4Address | ipaddress.IPv6Address


def oracle(address: Address) -> Oracle:
    """The same address as the standard library has it."""
    return (ipaddress.IPv4Address if address.version == 4 else ipaddress.IPv6Address)(address.value)


def spellings(address: Address) -> list[str]:
    """Ways to write an address: short, long, upper case, with the last 32 bits as IPv4."""
    theirs = oracle(address)
    found = [str(theirs), theirs.exploded, str(theirs).upper(), theirs.exploded.upper()]
    if address.version == 6:
        head = theirs.exploded.rpartition(":")[0].rpartition(":")[0]
        found.append(f"{head}:{ipaddress.IPv4Address(address.value & 0xFFFFFFFF)}")
    return found


def parse_or_none(text: str) -> Address | None:
    """What our parser makes of a text."""
    try:
        return Address.parse(text)
    except RequestError:
        return None


def theirs_or_none(text: str) -> Address | None:
    """What the standard library makes of it."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return Address(found.version, int(found))


@given(addresses())
def test_every_spelling_of_an_address_is_read_as_its_number(address: Address) -> None:
    for text in spellings(address):
        assert Address.parse(text) == address, text


ALMOST = st.text("0123456789abcdefABCDEFg:.", max_size=42)
CUT = st.tuples(
    addresses(), st.integers(0, 4), st.integers(0, 42), st.sampled_from(["", ":", "::", ".", "0", "1", "g"])
)


@given(ALMOST | CUT.map(lambda it: (text := spellings(it[0])[it[1] % 4])[: it[2]] + it[3] + text[it[2] :]))
@example("1:2:3:4:5:6:7::")
@example("::2:3:4:5:6:7:8")
@example("1::3:4:5:6:7:8")
@example("1:2:3:4:5:6:7:8::")
@example("1:2:3:4::5:6:7:8")
@example(":::")
@example("1:::2")
@example(":1::2")
@example("1::2:")
@example("::1::")
@example("::1.2.3.4")
@example("1::1.2.3.4:5")
@example("1.2.3.4::")
@example("1:2:3:4:5:6:7:1.2.3.4")
@example("1:2:3:4:5:6:1.2.3.4")
@example("::1.2.3")
@example("::01.2.3.4")
@example("::00000")
@example("01.2.3.4")
@example("1.2.3.256")
@example("1.2.3")
@example("1.2.3.4.5")
@example("1.2.3.-4")
@example("1.2.3.")
@example("")
@example(":")
@example("::")
def test_what_is_no_address_is_refused_and_what_is_one_is_not(text: str) -> None:
    assert parse_or_none(text) == theirs_or_none(text)


@pytest.mark.parametrize(
    "text",
    [
        "fe80::1%eth0", "10.0.0.1/24", "\u0661.2.3.4", "\uff11.2.3.4", "::\uff11", "1_0.2.3.4", "+1.2.3.4", " 1.2.3.4",
        "1.2.3.4\n", "::1\0", "0x1.2.3.4", "1.2.3.\u00b2",
    ],
)  # fmt: skip
def test_what_other_parsers_may_read_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="not an IPv4 or IPv6 address"):
        Address.parse(text)


def test_a_refusal_does_not_repeat_a_flood() -> None:
    with pytest.raises(RequestError) as refused:
        Address.parse("1" * 100_000)
    assert len(str(refused.value)) < 200


@given(addresses())
@example(Address(6, 0))
@example(Address(6, 1))
@example(Address(6, 1 << 112))
@example(Address(6, 0x2001_0DB8_0000_0000_0001_0000_0000_0001))  # two runs alike: the first
@example(Address(6, 0x2001_0000_0000_0001_0000_0000_0000_0001))  # the longer one
@example(Address(6, 0x2001_0DB8_0000_0001_0001_0001_0001_0001))  # one zero alone is spelled out
@example(Address(6, 0x0000_0001_0001_0001_0001_0001_0000_0000))
def test_an_address_is_printed_as_rfc_5952_says(address: Address) -> None:
    low = str(ipaddress.IPv4Address(address.value & 0xFFFFFFFF))
    if address.version == 6 and address.value >> 32 == 0xFFFF:
        assert str(address) == f"::ffff:{low}"
    elif address.version == 6 and 0 < address.value >> 16 < 1 << 16:
        assert str(address) == f"::{low}"
    else:
        assert str(address) == str(oracle(address))
    assert Address.parse(str(address)) == address


def test_an_ipv4_address_inside_ipv6_is_printed_as_one() -> None:
    assert str(Address(6, 0xFFFF_C000_0201)) == "::ffff:192.0.2.1"


@given(addresses())
def test_an_address_is_packed_in_network_order(address: Address) -> None:
    assert address.packed == oracle(address).packed
    assert Address.unpack(address.packed) == address


@given(addresses(), addresses())
def test_addresses_are_ordered_by_family_and_number(one: Address, other: Address) -> None:
    assert sorted([one, other]) == sorted([one, other], key=lambda each: (each.version, each.value))


EDGES = [
    "0.0.0.0", "0.0.0.1", "126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0", "169.253.255.255", "169.254.0.0",
    "169.254.255.255", "169.255.0.0", "223.255.255.255", "224.0.0.0", "239.255.255.255", "240.0.0.0", "255.255.255.254",
    "::", "::1", "::2", "::7f00:1", "fe7f:ffff::", "fe80::", "febf:ffff::", "fec0::", "feff:ffff::", "ff00::", "ffff::",
]  # fmt: skip


@pytest.mark.parametrize("text", EDGES)
def test_what_kind_an_address_is(text: str) -> None:
    ours, theirs = Address.parse(text), ipaddress.ip_address(text)
    assert ours.is_any == theirs.is_unspecified
    assert ours.is_loopback == theirs.is_loopback
    assert ours.is_multicast == theirs.is_multicast
    assert ours.is_link_local == theirs.is_link_local


def test_the_broadcast_address_counts_as_multicast() -> None:
    assert Address.parse("255.255.255.255").is_multicast


# Prefixes and interfaces ---------------------------------------------------------------------------------------------


@given(interfaces())
def test_an_interface_is_an_address_and_its_subnet(interface: Interface) -> None:
    theirs = ipaddress.ip_interface(f"{oracle(interface.address)}/{interface.length}")
    assert Interface.parse(str(interface)) == interface
    assert interface.prefix.address.value == int(theirs.network.network_address)
    assert interface.prefix.last.value == int(theirs.network.broadcast_address)
    assert interface.prefix.size == theirs.network.num_addresses
    assert Prefix.parse(str(interface.prefix)) == interface.prefix
    assert interface.prefix.version == interface.address.version
    assert interface.address in interface.prefix


@given(prefixes(), addresses())
def test_an_address_lies_in_a_prefix_or_does_not(prefix: Prefix, address: Address) -> None:
    theirs = ipaddress.ip_network(f"{oracle(prefix.address)}/{prefix.length}")
    assert (address in prefix) == (oracle(address) in theirs)
    for edge in (prefix.address, prefix.last):
        assert edge in prefix
    for value in (prefix.address.value - 1, prefix.last.value + 1):
        assert Address(prefix.version, value) not in prefix


@given(prefixes(), prefixes(), st.integers(0, 128))
def test_two_prefixes_overlap_or_do_not(one: Prefix, other: Prefix, shorter: int) -> None:
    near = Interface(one.address, min(shorter, BITS[one.version])).prefix
    for left, right in ((one, other), (one, near), (near, one)):
        theirs = ipaddress.ip_network(str(left)), ipaddress.ip_network(str(right))
        same = left.version == right.version
        assert left.overlaps(right) == (same and theirs[0].overlaps(theirs[1]))
        assert left.overlaps(right) == right.overlaps(left)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("10.0.0.0", "'10.0.0.0': needs a prefix length of 0 to 32 (as in 10.77.0.0/24)"),
        ("10.0.0.0/", "'10.0.0.0/': needs a prefix length of 0 to 32 (as in 10.77.0.0/24)"),
        ("10.0.0.0/33", "'10.0.0.0/33': needs a prefix length of 0 to 32 (as in 10.77.0.0/24)"),
        ("10.0.0.0/08", "'10.0.0.0/08': needs a prefix length of 0 to 32 (as in 10.77.0.0/24)"),
        ("10.0.0.0/+8", "'10.0.0.0/+8': needs a prefix length of 0 to 32 (as in 10.77.0.0/24)"),
        ("10.0.0.0/٨", "'10.0.0.0/٨': needs a prefix length of 0 to 32 (as in 10.77.0.0/24)"),
        ("10.0.0.0/255.0.0.0", "'10.0.0.0/255.0.0.0': needs a prefix length of 0 to 32 (as in 10.77.0.0/24)"),
        ("fd00::/129", "'fd00::/129': needs a prefix length of 0 to 128 (as in 10.77.0.0/24)"),
        ("fd00::/1280", "'fd00::/1280': needs a prefix length of 0 to 128 (as in 10.77.0.0/24)"),
        ("web/24", "address 'web': not an IPv4 or IPv6 address"),
        ("10.0.0.1/24", "subnet 10.0.0.1/24: bits are set beyond the prefix (did you mean 10.0.0.0/24?)"),
        ("fd00::1/64", "subnet fd00::1/64: bits are set beyond the prefix (did you mean fd00::/64?)"),
    ],
)  # fmt: skip
def test_what_is_no_subnet_is_refused(text: str, why: str) -> None:
    with pytest.raises(RequestError) as refused:
        Prefix.parse(text)
    assert str(refused.value) == why


# MAC addresses -------------------------------------------------------------------------------------------------------


@given(MACS)
def test_a_mac_is_read_as_it_is_printed(mac: Mac) -> None:
    text = str(mac)
    for spelled in (text, text.upper(), text.replace(":", "-")):
        assert Mac.parse(spelled) == mac
    assert mac.packed == bytes.fromhex(text.replace(":", ""))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not six pairs of hex digits"),
        ("02:76:0a:4d:00", "not six pairs of hex digits"),
        ("02:76:0a:4d:00:02:03", "not six pairs of hex digits"),
        ("2:76:0a:4d:00:02", "not six pairs of hex digits"),
        ("02:76:0a:4d:00:0g", "not six pairs of hex digits"),
        ("02:76:0a:4d:00:+2", "not six pairs of hex digits"),
        ("02:76:0a:4d:00: 2", "not six pairs of hex digits"),
        ("02:76:0a:4d:00:٠٢", "not six pairs of hex digits"),
        ("0276.0a4d.0002", "not six pairs of hex digits"),
        ("02760a4d0002", "not six pairs of hex digits"),
        ("00:00:00:00:00:00", "not a unicast address"),
        ("ff:ff:ff:ff:ff:ff", "not a unicast address"),
        ("03:76:0a:4d:00:02", "not a unicast address"),
        ("01:00:5e:00:00:01", "not a unicast address"),
    ],
)
def test_what_no_interface_can_have_as_its_mac_is_refused(text: str, why: str) -> None:
    with pytest.raises(RequestError, match=why):
        Mac.parse(text)


@given(addresses())
def test_a_mac_follows_from_the_address_and_is_one_that_an_interface_can_have(address: Address) -> None:
    mac = Mac.of(address)
    assert Mac.parse(str(mac)) == mac
    assert mac.packed[:2] == b"\x02\x76"
    assert mac.packed[2:] == address.packed[-4:]
