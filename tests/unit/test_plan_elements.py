"""The ruleset as text, and what of it a network, an endpoint and a published port are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.golden import assert_golden
from tests.unit.strategies import IFNAMES, addresses
from vethwork.errors import RequestError
from vethwork.model.address import Address, Interface, Mac, Prefix
from vethwork.model.container import Endpoint, Publication
from vethwork.model.names import IfName, Name
from vethwork.model.network import Forwarding, Network, Subnet
from vethwork.model.ports import Publish
from vethwork.model.ruleset import (
    Chain,
    Element,
    Hook,
    Match,
    Nat,
    Rule,
    SetMark,
    Span,
    Verdict,
    VerdictMap,
)
from vethwork.plan.elements import (
    all_elements,
    endpoint_elements,
    forwarding_elements,
    network_elements,
    peer_elements,
    publication_elements,
    traffic_elements,
)
from vethwork.plan.ruleset import BRIDGE, INET, TABLES


def test_the_whole_ruleset() -> None:
    assert_golden("ruleset.nft", "\n".join(str(table) for table in TABLES))


def test_every_chain_that_is_jumped_to_is_there_and_every_chain_is_used() -> None:
    for table in TABLES:
        statements = [each for chain in table.chains for rule in chain.rules for each in rule.statements]
        jumps = {
            each.word.split()[1] for each in statements if isinstance(each, Verdict) and " " in each.word
        }
        goals = {"from_open", "from_closed", "to_open", "gateway_only"} if table is INET else set()
        named = {chain.name for chain in table.chains if chain.hook is None}
        assert jumps <= named
        assert named == jumps | goals
        sets = {each.name for each in table.sets}
        used = {each.map for each in statements if isinstance(each, (Nat, VerdictMap))}
        used |= {
            str(each.value)[1:]
            for each in statements
            if isinstance(each, Match) and str(each.value)[0] == "@"
        }
        assert used == sets


def test_a_set_is_known_by_its_name() -> None:
    assert INET.set_named("bridges").key == ("ifname",)
    assert BRIDGE.set_named("macs").key == ("ifname", "ether_addr")
    with pytest.raises(KeyError):
        INET.set_named("macs")


# How it is spelled ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (Match(("iifname",), "@bridges"), "iifname @bridges"),
        (Match(("iifname", "ether saddr"), "@macs", negate=True), "iifname . ether saddr != @macs"),
        (Match(("meta l4proto",), ("tcp", "udp")), "meta l4proto { tcp, udp }"),
        (Match(("@th,64,16",), "0xfe80", mask="0xffc0"), "@th,64,16 & 0xffc0 == 0xfe80"),
        (Verdict("jump publish"), "jump publish"),
        (VerdictMap(("iifname",), "input_from"), "iifname vmap @input_from"),
        (Nat("dnat", 4, ("ip daddr", "th dport"), "m"), "dnat ip to ip daddr . th dport map @m"),
        (Nat("snat", 6, ("ip6 saddr",), "m"), "snat ip6 to ip6 saddr map @m"),
        (SetMark(255), "meta mark set 0x000000ff"),
        (Rule((Match(("ct state",), "new"), Verdict("drop"))), "ct state new drop"),
        (Span(1, 2), "1-2"),
        (Element("inet", "s", ("tcp", 80)), "tcp . 80"),
        (Element("inet", "s", ("tcp", Span(80, 81)), (Address(4, 1), 8)), "tcp . 80-81 : 0.0.0.1 . 8"),
        (Element("inet", "s", ("tcp", "udp")), '"tcp" . "udp"'),
        (Element("inet", "s", ("tcp",)), '"tcp"'),
        (Element("inet", "s", ("tcp", Mac(1))), '"tcp" . 00:00:00:00:00:01'),
        (Element("inet", "s", ("eth0", 1 << 100)), f'"eth0" . {1 << 100:#x}'),
        (Element("inet", "s", (Prefix(Address(4, 0), 0),), ("goto x",)), "0.0.0.0/0 : goto x"),
    ],
    ids=str,
)
def test_how_each_thing_is_spelled(record: object, text: str) -> None:
    assert str(record) == text


@pytest.mark.parametrize(
    ("hook", "family", "text"),
    [
        (
            Hook("filter", "prerouting", -300),
            "inet",
            "type filter hook prerouting priority raw; policy accept;",
        ),
        (Hook("nat", "prerouting", -100), "inet", "type nat hook prerouting priority dstnat; policy accept;"),
        (Hook("nat", "output", -100), "inet", "type nat hook output priority -100; policy accept;"),
        (
            Hook("filter", "prerouting", -200),
            "bridge",
            "type filter hook prerouting priority filter; policy accept;",
        ),
        (Hook("filter", "forward", 0), "bridge", "type filter hook forward priority 0; policy accept;"),
        (Hook("filter", "forward", 0), "inet", "type filter hook forward priority filter; policy accept;"),
    ],
)
def test_a_priority_has_the_name_that_it_has_in_that_family(hook: Hook, family: str, text: str) -> None:
    assert hook.spell(family) == text
    assert Chain("c", (), hook).spell(family) == f"\tchain c {{\n\t\t{text}\n\t}}\n"


# Networks ------------------------------------------------------------------------------------------------------------

V4, V6 = Prefix.parse("10.0.0.0/24"), Prefix.parse("fd00::/64")
NETWORK = Network(
    "0" * 32,
    Name("web"),
    "bridge",
    IfName("br0"),
    (Subnet(V4, V4.address + 1, V4), Subnet(V6, V6.address + 1, V6, Address.parse("2001:db8::1"))),
    1500,
)


def sets(elements: tuple[Element, ...]) -> set[str]:
    """The sets that have elements."""
    return {each.set for each in elements}


def test_who_may_go_where() -> None:
    both = {"bridges", "forward_from", "forward_to"}
    out = {"mirrors", "hairpin4", "hairpin6", "masquerade4", "source6"}
    assert sets(network_elements(NETWORK)) == both | out | {"peers"}
    assert sets(network_elements(NETWORK.replace(masquerade=False))) == both | out - {"masquerade4"} | {
        "peers"
    }
    assert sets(network_elements(NETWORK.replace(icc=False))) == both | out
    assert sets(network_elements(NETWORK.replace(internal=True))) == both | {"input_from", "peers"}
    assert sets(network_elements(NETWORK.replace(isolated=True))) == both | {"input_from", "peers"}
    assert sets(network_elements(NETWORK.replace(isolated=True, icc=False))) == both | {"input_from"}
    for nobodys in (
        NETWORK.replace(driver="p2p"),
        NETWORK.replace(driver="macvlan"),
        NETWORK.replace(managed=False),
    ):
        assert network_elements(nobodys) == ()


def test_what_is_closed_stays_closed() -> None:
    def verdict(network: Network, name: str) -> str:
        return next(str(each.data[0]) for each in network_elements(network) if each.set == name)

    assert verdict(NETWORK, "forward_from") == "goto from_open"
    assert verdict(NETWORK, "forward_to") == "goto to_open"
    for closed in (NETWORK.replace(internal=True), NETWORK.replace(isolated=True)):
        assert verdict(closed, "forward_from") == "goto from_closed"
        assert verdict(closed, "forward_to") == "drop"
    assert verdict(NETWORK.replace(internal=True), "input_from") == "goto gateway_only"
    assert verdict(NETWORK.replace(isolated=True), "input_from") == "drop"


def test_a_name_server_beside_the_gateway_is_asked_by_its_address() -> None:
    found = [
        each for each in network_elements(NETWORK.replace(dns_port=5353)) if each.set.startswith("port_at")
    ]
    assert [str(each) for each in found] == [
        "10.0.0.1 . tcp . 53 : 10.0.0.1 . 5353",
        "10.0.0.1 . udp . 53 : 10.0.0.1 . 5353",
        "fd00::1 . tcp . 53 : fd00::1 . 5353",
        "fd00::1 . udp . 53 : fd00::1 . 5353",
    ]
    closed = NETWORK.replace(isolated=True, subnets=(Subnet(V4, None, V4),), dns_port=5353)
    assert "port_at4" not in sets(network_elements(closed))


@pytest.mark.parametrize(
    ("one", "other", "see"),
    [
        ("none", "none", False),
        ("none", "all", False),
        ("some", "some", False),
        ("some", "all", True),
        ("all", "some", True),
        ("all", "all", True),
    ],
)
def test_two_networks_see_each_other_if_both_agree(one: str, other: str, see: bool) -> None:
    mine = NETWORK.replace(peering=one)
    theirs = NETWORK.replace(name=Name("db"), device=IfName("br1"), peering=other)
    pairs = {each.key for each in peer_elements(mine, (mine, theirs))}
    assert pairs == ({("br0", "br1"), ("br1", "br0")} if see else set())
    assert pairs == {each.key for each in peer_elements(theirs, (mine,))}
    assert peer_elements(mine, (theirs.replace(internal=True),)) == ()


# Endpoints and ports -------------------------------------------------------------------------------------------------

ENDPOINT = Endpoint(
    "0" * 12,
    Name("c"),
    Name("web"),
    IfName("eth0"),
    "vw0",
    Mac.parse("02:76:0a:00:00:02"),
    (Interface.parse("10.0.0.2/24"), Interface.parse("10.0.0.3/24"), Interface.parse("fd00::2/64")),
    (),
)


def test_who_may_speak_at_a_port() -> None:
    assert [f"{each.set} {each}" for each in endpoint_elements(ENDPOINT, NETWORK)] == [
        'ports "vw0"',
        'macs "vw0" . 02:76:0a:00:00:02',
        'speakers4 "vw0" . 10.0.0.2',
        'speakers4 "vw0" . 10.0.0.3',
        'speakers6 "vw0" . fd00::2',
        'targets6 "vw0" . 0xfd000000000000000000000000000002',
    ]
    assert "loners" in sets(endpoint_elements(ENDPOINT, NETWORK.replace(icc=False)))
    assert endpoint_elements(ENDPOINT.replace(host_ifname=""), NETWORK) == ()


@pytest.mark.parametrize(
    ("asked", "leads"),
    [
        (
            "80:80",
            [
                "port4 tcp . 80 : 10.0.0.2 . 80",
                "port6 tcp . 80 : fd00::2 . 80",
                'traffic "ipv4" . tcp . 80',
                'traffic "ipv6" . tcp . 80',
            ],
        ),
        ("0.0.0.0:8080:80", ["port4 tcp . 8080 : 10.0.0.2 . 80", 'traffic "ipv4" . tcp . 8080']),
        ("[::]:8080:80/udp", ["port6 udp . 8080 : fd00::2 . 80", 'traffic "ipv6" . udp . 8080']),
        (
            "192.0.2.1:80:80/sctp",
            ["port_at4 192.0.2.1 . sctp . 80 : 10.0.0.2 . 80", "traffic_at4 192.0.2.1 . sctp . 80"],
        ),
        (
            "[2001:db8::1]:80:80",
            ["port_at6 2001:db8::1 . tcp . 80 : fd00::2 . 80", "traffic_at6 2001:db8::1 . tcp . 80"],
        ),
        (
            "8000-8099:8000-8099",
            ["range4 tcp . 8000-8099 : 10.0.0.2", "range6 tcp . 8000-8099 : fd00::2"],
        ),
        (
            "192.0.2.1:8000-8099:8000-8099",
            ["range_at4 192.0.2.1 . tcp . 8000-8099 : 10.0.0.2"],
        ),
        (
            "0.0.0.0:8000-8001:80-81",
            [
                "port4 tcp . 8000 : 10.0.0.2 . 80",
                "port4 tcp . 8001 : 10.0.0.2 . 81",
                'traffic "ipv4" . tcp . 8000',
                'traffic "ipv4" . tcp . 8001',
            ],
        ),
    ],
)
def test_where_a_port_leads(asked: str, leads: list[str]) -> None:
    publication = Publication(Name("c"), ENDPOINT.id, Publish.parse(asked))
    assert [f"{each.set} {each}" for each in publication_elements(publication, ENDPOINT)] == leads


@given(st.integers(1, 1000), st.integers(0, 1), st.booleans())
def test_a_range_is_one_element_unless_it_is_shifted(count: int, shift: int, bound: bool) -> None:
    host = Address.parse("192.0.2.1") if bound else Address(4, 0)
    publication = Publication(Name("c"), ENDPOINT.id, Publish("tcp", host, 2000, 2000 + shift, count))
    assert len(publication_elements(publication, ENDPOINT)) == (
        2 * count if shift else 2 if count == 1 else 1
    )
    assert len(traffic_elements(publication, ENDPOINT)) == (count if shift or count == 1 else 0)


@pytest.mark.parametrize(
    ("asked", "have", "why"),
    [
        (
            "[::]:80:80",
            "10.0.0.2/24",
            "publish [::]:80:80/tcp: c has no IPv6 address (create its network with --ipv6)",
        ),
        ("0.0.0.0:80:80", "fd00::2/64", "publish 0.0.0.0:80:80/tcp: c has no IPv4 address"),
    ],
)
def test_a_port_needs_an_address_of_its_family(asked: str, have: str, why: str) -> None:
    publication = Publication(Name("c"), ENDPOINT.id, Publish.parse(asked))
    with pytest.raises(RequestError) as refused:
        publication_elements(publication, ENDPOINT.replace(addresses=(Interface.parse(have),)))
    assert str(refused.value) == why


def test_the_whole_is_the_sum() -> None:
    own = Prefix.parse("10.1.0.0/24")
    db = NETWORK.replace(
        name=Name("db"), device=IfName("br1"), peering="all", subnets=(Subnet(own, own.address + 1, own),)
    )
    web = NETWORK.replace(peering="some")
    publication = Publication(Name("c"), ENDPOINT.id, Publish.parse("80:80"))
    forwarding = (Forwarding(4), Forwarding(6))
    found = all_elements((db, web), (ENDPOINT,), (publication,), forwarding)
    assert len(set(found)) == len(found)
    assert set(found) == {
        *network_elements(db),
        *network_elements(web),
        *peer_elements(web, (db,)),
        *endpoint_elements(ENDPOINT, web),
        *publication_elements(publication, ENDPOINT),
        *forwarding_elements(forwarding),
    }
    assert [str(each) for each in forwarding_elements(forwarding)] == ['"ipv4"', '"ipv6"']


@given(IFNAMES, addresses())
def test_an_interface_name_is_quoted_whatever_it_is(ifname: str, address: Address) -> None:
    for key in ((ifname,), (ifname, address), (ifname, ifname)):
        assert str(Element("inet", "s", key)).startswith(f'"{ifname}"')
