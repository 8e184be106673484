"""nf_tables' messages: what is packed is read back, what is cut short is refused, and a batch is made as the kernel wants it.

That the kernel and ``nft`` read them as we mean them is tests/kernel/test_nftables.py's business.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vethwork.engine.operation import LANDMARKS
from vethwork.model.address import BITS, Address, Interface, Mac, Prefix
from vethwork.model.ruleset import Chain, Element, Hook, Match, Rule, Set, Span, Table, Verdict
from vethwork.plan.ruleset import BRIDGE, INET, TABLES
from vethwork.wire.netlink import NLM_F_ACK, attributes, be32, each_attribute, split, string
from vethwork.wire.nft.batch import get_landmark, pack_batch, parse_use
from vethwork.wire.nft.exprs import Compiler, selector
from vethwork.wire.nft.sets import (
    change_elements,
    get_set,
    layouts_of,
    list_elements,
    parse_elements,
    parse_set,
)
from vethwork.wire.nft.tables import (
    adopt_tables,
    count_rules,
    is_removal,
    kernel_options,
    list_rules,
    new_set,
    parse_flags,
    remove_tables,
    replace_tables,
)
from vethwork.wire.nft.types import concat_names, pack_verdict, unpack_verdict

if TYPE_CHECKING:
    from vethwork.model.ruleset import Atom
    from vethwork.wire.nft.sets import Request

LAYOUTS = layouts_of(TABLES)
NAMES = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789_.-", min_size=1, max_size=15)
PORTS = st.integers(0, 0xFFFF)
SPANS = st.tuples(PORTS, PORTS).filter(lambda ends: ends[0] < ends[1]).map(lambda ends: Span(*ends))
PROTOCOLS = st.sampled_from(["tcp", "udp", "sctp"])
VERDICTS = st.sampled_from(["accept", "drop", "return", "goto to_open", "jump from_closed", "goto a"])


def addresses(version: int) -> st.SearchStrategy[Address]:
    return st.integers(0, (1 << BITS[version]) - 1).map(lambda value: Address(version, value))


def prefixes(version: int) -> st.SearchStrategy[Prefix]:
    # One address alone is read back as an address.
    return st.tuples(addresses(version), st.integers(0, BITS[version] - 1)).map(
        lambda it: Interface(*it).prefix
    )


ATOMS: dict[str, st.SearchStrategy[Atom]] = {
    "ether_addr": st.integers(1, (1 << 48) - 1).map(Mac),
    "ifname": NAMES,
    "inet_proto": PROTOCOLS,
    "inet_service": PORTS,
    "integer": st.integers(0, (1 << 128) - 1),
    "ipv4_addr": addresses(4),
    "ipv6_addr": addresses(6),
    "nf_proto": st.sampled_from(["ipv4", "ipv6"]),
    "verdict": VERDICTS,
}
RANGES: dict[str, st.SearchStrategy[Atom]] = {
    "inet_service": SPANS,
    "ipv4_addr": prefixes(4),
    "ipv6_addr": prefixes(6),
}


def elements_of(family: str, declared: Set) -> st.SearchStrategy[Element]:
    keys = [
        ATOMS[kind] | RANGES[kind] if declared.interval and kind in RANGES else ATOMS[kind]
        for kind in declared.key
    ]
    key, data = st.tuples(*keys), st.tuples(*[ATOMS[kind] for kind in declared.data])
    return st.builds(Element, st.just(family), st.just(declared.name), key, data)


EVERY_SET = [(table.family, each) for table in TABLES for each in table.sets]
ELEMENTS = st.sampled_from(EVERY_SET).flatmap(lambda it: elements_of(*it))


def bodies_of(elements: list[Element]) -> list[bytes]:
    return [message.body for message, _ in change_elements(LAYOUTS, (), elements)]


@given(ELEMENTS)
def test_an_element_is_read_back(element: Element) -> None:
    layout = LAYOUTS[element.family, element.set]
    assert parse_elements(layout, bodies_of([element])) == (element,)


@given(st.data())
def test_many_elements_are_read_back(data: st.DataObject) -> None:
    family, declared = data.draw(
        st.sampled_from([it for it in EVERY_SET if not (it[1].interval and len(it[1].key) == 1)])
    )
    elements = data.draw(st.lists(elements_of(family, declared), max_size=20))
    assert list(parse_elements(LAYOUTS[family, declared.name], bodies_of(elements))) == elements


@given(st.sets(st.integers(0, 255), min_size=1), st.sampled_from([(4, 24), (6, 120)]))
def test_ranges_of_a_tree_are_read_back_sorted_even_where_they_touch(
    places: set[int], shape: tuple[int, int]
) -> None:
    """The highest one has no end, for there is no key behind it."""
    version, shift = shape
    blocks = [Prefix(Address(version, place << shift), 8) for place in sorted(places)]
    elements = [Element("inet", f"masquerade{version}", (block,)) for block in blocks]
    read = parse_elements(LAYOUTS["inet", f"masquerade{version}"], bodies_of(elements[::-1]))
    assert list(read) == elements


def test_a_neighbour_s_start_is_an_end() -> None:
    """nft leaves the end of a range out where the next one starts."""
    layout = LAYOUTS["inet", "masquerade4"]
    low, high = (
        Element("inet", "masquerade4", (Prefix.parse(text),)) for text in ("10.0.0.0/25", "10.0.0.128/25")
    )
    items = [attributes(body, 4)[3] for body in bodies_of([low, high])]
    starts = [payload for kind, payload in each_attribute(items[0])]
    assert len(starts) == 4
    without = [part for place, part in enumerate(starts) if place != 1]
    body = bytes(4) + _nested(3, b"".join([_nested(1, part) for part in without]))
    assert parse_elements(layout, [body]) == (low, high)


def _nested(kind: int, payload: bytes) -> bytes:
    return (len(payload) + 4).to_bytes(2, "little") + (kind | 0x8000).to_bytes(2, "little") + payload


@given(ELEMENTS, st.data())
def test_an_element_cut_short_is_no_other_error(element: Element, data: st.DataObject) -> None:
    layout = LAYOUTS[element.family, element.set]
    (body,) = bodies_of([element])
    cut = body[: data.draw(st.integers(0, len(body) - 1))]
    with suppress(ValueError):
        assert parse_elements(layout, [cut]) == ()


@given(ELEMENTS, st.binary(max_size=80))
def test_noise_is_no_other_error(element: Element, noise: bytes) -> None:
    layout = LAYOUTS[element.family, element.set]
    for item in (noise, _nested(3, _nested(1, noise)), _nested(3, _nested(1, _nested(1, noise)))):
        with suppress(ValueError):
            parse_elements(layout, [bytes(4) + item])
        with suppress(ValueError):
            parse_set(bytes(4) + item)
        with suppress(ValueError):
            count_rules([bytes(4) + item])


@pytest.mark.parametrize(("family", "declared"), EVERY_SET, ids=lambda it: getattr(it, "name", it))
def test_a_set_is_read_back(family: str, declared: Set) -> None:
    table = {each.family: each for each in TABLES}[family]
    message, words = new_set(table, declared, 7)
    assert parse_set(message.body) == declared.replace(typeof=())
    assert words == f"add {'map' if declared.data else 'set'} {family} vethwork {declared.name}"
    for upto in range(len(message.body)):
        with suppress(ValueError):
            parse_set(message.body[:upto])


WRONG = [
    Element("inet", "port4", ("tcp", 80), (Address.parse("fd00::1"), 80)),
    Element("inet", "port4", ("tcp", 80), (Address.parse("10.0.0.1"), Span(80, 81))),
    Element("inet", "port4", ("tcp", 65536), (Address.parse("10.0.0.1"), 80)),
    Element("inet", "port4", ("tcp", -1), (Address.parse("10.0.0.1"), 80)),
    Element("inet", "port4", ("gre", 80), (Address.parse("10.0.0.1"), 80)),
    Element("inet", "port4", ("tcp", "80"), (Address.parse("10.0.0.1"), 80)),
    Element("inet", "port4", ("tcp",), (Address.parse("10.0.0.1"), 80)),
    Element("inet", "port4", ("tcp", 80)),
    Element("inet", "port4", ("tcp", Span(80, 81)), (Address.parse("10.0.0.1"), 80)),
    Element("inet", "port4", (6, 80), (Address.parse("10.0.0.1"), 80)),
    Element("inet", "bridges", ("a-name-of-more-than-15",)),
    Element("inet", "bridges", (7,)),
    Element("inet", "masquerade4", (Prefix.parse("fd00::/64"),)),
    Element("inet", "forward_to", ("br0",), ("leap a",)),
    Element("bridge", "macs", ("eth0", Address.parse("10.0.0.1"))),
    Element("bridge", "speakers4", ("eth0", Prefix.parse("10.0.0.0/8"))),
]


@pytest.mark.parametrize("element", WRONG, ids=str)
def test_what_does_not_fit_a_set_is_not_packed(element: Element) -> None:
    with pytest.raises(ValueError, match=r"is |has |maps "):
        bodies_of([element])


def test_a_list_of_elements_is_split_before_its_length_overflows() -> None:
    elements = [
        Element("inet", "hairpin4", (f"br{n}", Prefix(Address(4, n << 8), 24))) for n in range(20_000)
    ]
    requests = change_elements(LAYOUTS, (), elements)
    lists = [attributes(message.body, 4)[3] for message, _ in requests]
    assert all(len(each) < 0xFFFF - 4 for each in lists)
    assert len(requests) < 60
    assert (
        list(parse_elements(LAYOUTS["inet", "hairpin4"], [message.body for message, _ in requests]))
        == elements
    )
    assert str(requests[0][1]).startswith("add element inet vethwork hairpin4 { ")
    assert "elements, the last" in str(requests[0][1])


def test_changes_are_grouped_by_set_and_deletions_go_first() -> None:
    to = (Address.parse("10.0.0.2"), 80)
    ports = [Element("inet", "port4", ("tcp", port), to) for port in (1, 2)]
    name = Element("bridge", "ports", ("eth0",))
    requests = change_elements(LAYOUTS, [ports[0], name, ports[1]], [name])
    assert [str(words) for _, words in requests] == [
        "delete element inet vethwork port4 { 2 elements, the last tcp . 2 : 10.0.0.2 . 80 }",
        'delete element bridge vethwork ports { "eth0" }',
        'add element bridge vethwork ports { "eth0" }',
    ]
    # By the key alone: what it leads to may have changed.
    assert all(2 not in attributes(item) for _, item in each_attribute(attributes(requests[0][0].body, 4)[3]))


def test_a_batch_is_framed_and_only_its_last_request_acknowledged() -> None:
    requests = replace_tables(TABLES, [])
    messages = list(split(pack_batch(requests, 100)))
    assert [kind for kind, _, _, _ in (messages[0], messages[-1])] == [0x10, 0x11]
    assert messages[0][3] == messages[-1][3] == b"\0\0\0\x0a"
    assert [sequence for _, _, sequence, _ in messages] == list(range(100, 102 + len(requests)))
    assert [bool(flags & NLM_F_ACK) for _, flags, _, _ in messages] == [False] * len(requests) + [True, False]
    assert [body for _, _, _, body in messages[1:-1]] == [message.body for message, _ in requests]


def test_a_table_is_made_away_with_before_it_is_made() -> None:
    words = [str(words) for _, words in replace_tables((BRIDGE,), [])]
    table = "table bridge vethwork"
    assert words[:4] == [f"add {table}", f"delete {table}", f"add {table}", "add set bridge vethwork ports"]
    assert words[:2] == [str(words) for _, words in remove_tables((BRIDGE,))]
    chains = [place for place, each in enumerate(words) if each.startswith("add chain")]
    rules = [place for place, each in enumerate(words) if each.startswith("add rule")]
    assert max(chains) < min(rules), "a jump must find its chain"
    assert len(rules) == sum(len(chain.rules) for chain in BRIDGE.chains)
    assert "add rule 3 of chain bridge vethwork advert6 (drop)" in words


def test_rules_are_counted_by_chain() -> None:
    rules = [
        message.body for message, words in replace_tables(TABLES, []) if str(words).startswith("add rule")
    ]
    counted = count_rules(rules)
    assert counted == {
        (table.family, "vethwork", chain.name): len(chain.rules) for table in TABLES for chain in table.chains
    }
    assert count_rules([]) == {}
    assert count_rules([b""]) == {("", "", ""): 1}


def test_what_a_kernel_may_lack_is_named() -> None:
    options = {words: kernel_options(message) for message, words in replace_tables(TABLES, [])}
    assert options["add table bridge vethwork"] == ("CONFIG_NF_TABLES_BRIDGE",)
    assert options["add chain inet vethwork postrouting"] == ("CONFIG_NF_TABLES_INET", "CONFIG_NFT_NAT")
    assert options["add chain inet vethwork input"] == ("CONFIG_NF_TABLES_INET",)
    assert options["add set inet vethwork bridges"] == ()
    assert options["add rule 2 of chain inet vethwork prerouting (fib daddr type local jump publish)"] == (
        "CONFIG_NFT_FIB_INET",
    )
    assert options["add rule 2 of chain inet vethwork to_open (drop)"] == ()


def test_questions_name_what_they_ask_for() -> None:
    assert attributes(get_set("inet", "vethwork", "port4").body, 4) == {1: b"vethwork\0", 2: b"port4\0"}
    assert attributes(list_elements(LAYOUTS["inet", "port4"]).body, 4) == {1: b"vethwork\0", 2: b"port4\0"}
    assert attributes(list_rules(INET).body, 4) == {1: b"vethwork\0"}


@given(VERDICTS)
def test_a_verdict_is_read_back(word: str) -> None:
    (payload,) = [payload for _, payload in each_attribute(pack_verdict(word))]
    assert unpack_verdict(payload) == word


def test_a_foreign_verdict_or_type_is_an_error() -> None:
    with pytest.raises(ValueError, match="not one of ours"):
        unpack_verdict(b"\x08\x00\x01\x00\x00\x00\x00\x03")  # NF_QUEUE
    with pytest.raises(ValueError, match="not one of ours"):
        concat_names(63)


def test_a_selector_that_nobody_wrote_down_is_an_error() -> None:
    for text in ("ip ttl", "@nh,0,8", "@th,3,8", "@th,8,3"):
        with pytest.raises(ValueError, match=r"is not a selector|not enough values"):
            selector(text)


def test_every_shape_of_a_constant_is_compiled() -> None:
    """Prefixes of whole bytes are shortened, others masked; even the one of no bits, which is all addresses."""

    def names(*statements: Match | Verdict) -> list[bytes]:
        table = Table("inet", "t", (), (Chain("c", (), Hook("filter", "input", 0)),))
        compiled = Compiler(table, lambda _kind, _words: 1).compile(Rule(statements))
        return [attributes(payload)[1].rstrip(b"\0") for _, payload in each_attribute(compiled)]

    needs = [b"meta", b"cmp"]
    assert names(Match(("ip saddr",), "10.0.0.0/8")) == [*needs, b"payload", b"cmp"]
    assert names(Match(("ip saddr",), "10.0.0.1", negate=True)) == [*needs, b"payload", b"cmp"]
    assert names(Match(("ip saddr",), "0.0.0.0/0")) == [*needs, b"payload", b"bitwise", b"cmp"]
    assert names(Match(("ip6 saddr",), "fe80::/10")) == [*needs, b"payload", b"bitwise", b"cmp"]
    once = names(Match(("ip saddr",), "10.0.0.1"), Match(("ip daddr",), "10.0.0.2"))
    assert once == [*needs, b"payload", b"cmp", b"payload", b"cmp"], "a dependency is stated once"
    said = names(Match(("meta nfproto",), "ipv4"), Match(("ip daddr",), "10.0.0.2"), Verdict("accept"))
    assert said == [*needs, b"payload", b"cmp", b"immediate"]


def test_names_are_quoted_for_nft_and_protocols_are_not() -> None:
    assert str(Element("bridge", "ports", ("0x1",))) == '"0x1"'
    assert str(Element("bridge", "ports", ("tcp",))) == '"tcp"'
    assert (
        str(Element("inet", "range4", ("tcp", Span(1, 2)), (Address.parse("10.0.0.1"),)))
        == "tcp . 1-2 : 10.0.0.1"
    )
    assert str(Element("bridge", "targets6", ("udp", 0xFE80 << 112))) == '"udp" . 0xfe80' + "0" * 28
    assert str(Element("inet", "forward_to", ("drop",), ("goto to_open",))) == '"drop" : goto to_open'


def test_tables_are_made_and_adopted_with_flags() -> None:
    def flags(requests: list[Request]) -> list[int]:
        return [parse_flags(message.body) for message, _ in requests if message.type & 0xFF == 0]

    assert flags(replace_tables(TABLES, ())) == [0] * 4
    assert flags(replace_tables(TABLES, (), 6)) == [0, 6, 0, 6], "what is there already cannot be given flags"
    adopted = adopt_tables(TABLES, 6)
    assert flags(adopted) == [6, 6]
    assert [words for _, words in adopted] == ["adopt table bridge vethwork", "adopt table inet vethwork"]
    assert all(not message.flags for message, _ in adopted), "what is not there is not made"


def test_landmarks_are_chains_that_no_rule_leads_to() -> None:
    """They are kept apart from the ruleset, so that it need not be loaded; here both are held together."""
    assert [words for _, words in map(get_landmark, LANDMARKS)] == [
        "look at chain bridge vethwork forward",
        "look at chain inet vethwork postrouting",
    ]
    led_to = {
        word
        for table in TABLES
        for chain in table.chains
        for rule in chain.rules
        for word in str(rule).split()
    }
    assert not led_to & {"postrouting", "forward"}
    for landmark, table in zip(LANDMARKS, TABLES, strict=True):
        (chain,) = [each for each in table.chains if each.name == landmark.chain]
        assert chain.hook is not None
        assert (landmark.family, landmark.rules) == (table.family, len(chain.rules))
    assert parse_use(bytes(4) + be32(6, 8)) == 8
    assert parse_use(bytes(4)) == 0


def test_what_is_taken_away_from_our_tables_is_heard() -> None:
    ours, theirs = bytes(4) + string(1, "vethwork"), bytes(4) + string(1, "filter")
    kinds = [kind for kind in range(20) if is_removal(10 << 8 | kind, ours)]
    assert kinds == [2, 5, 8, 11, 14]
    assert not is_removal(10 << 8 | 2, theirs)
    assert not is_removal(1 << 8 | 2, ours)
