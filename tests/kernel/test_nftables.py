"""Our netlink against ``nft``: what we load and what our text loads must look the same to it, down to every element."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import vethwork
from vethwork.errors import KernelRefused
from vethwork.kernel.netns import inside, open_netns, pin, unpin
from vethwork.kernel.nft import NftSocket, RulesetMissing
from vethwork.model.address import Address, Mac, Prefix
from vethwork.model.ruleset import Chain, Element, Rule, Span, Table, Verdict, VerdictMap
from vethwork.model.steps import ChangeElements, LoadRuleset
from vethwork.plan.ruleset import BRIDGE, INET, TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vethwork.model.ruleset import Atom, Set

SOURCE = Path(vethwork.__file__).parents[1]
A, P = Address.parse, Prefix.parse
# Names that nft takes for numbers, addresses, ranges or its own words unless they are quoted; the longest there is.
NAMES = [
    "br0",
    "a.b",
    "0x1",
    "1",
    "1-2",
    "1.2",
    "1.2.3.4",
    "0",
    "tcp",
    "ip",
    "drop",
    "goto",
    "all",
    "x-y-z",
    "9a",
    "abcdefghijklmno",
]
SUBNETS4 = ("10.77.0.0/22", "10.77.4.0/25", "10.77.4.128/25", "10.77.5.0/31", "0.0.0.0/8", "240.0.0.0/4")
SUBNETS6 = ("fd00::/64", "fd00:0:0:1::/65", "fd00:0:0:1:8000::/65", "fd00:0:0:2::/127", "::/16", "ff00::/8")
SPANS = (Span(1, 2), 5, Span(80, 1000), Span(1001, 65534), 65535)
# By type, the n-th example; and the n-th range, none of which laps over another.
SINGLE: dict[str, Callable[[int], Atom]] = {
    "ether_addr": lambda n: Mac(0x02760A4D0000 + n),
    "ifname": lambda n: NAMES[n],
    "inet_proto": lambda n: ("tcp", "udp", "sctp")[n % 3],
    "inet_service": lambda n: 65535 - n,
    "integer": lambda n: (0xFE80 << 112) + n,
    "ipv4_addr": lambda n: A("192.0.2.1") + n,
    "ipv6_addr": lambda n: A("2001:db8::1") + n,
    "nf_proto": lambda n: ("ipv4", "ipv6")[n % 2],
    "verdict": lambda n: ("drop", "goto from_open", "accept", "goto to_open", "return", "jump gateway_only")[
        n % 6
    ],
}
RANGE: dict[str, Callable[[int], Atom]] = {
    "inet_service": lambda n: SPANS[n // 3 % len(SPANS)],
    "ipv4_addr": lambda n: P(SUBNETS4[n]) if n < len(SUBNETS4) else A("192.0.2.1") + n,
    "ipv6_addr": lambda n: P(SUBNETS6[n]) if n < len(SUBNETS6) else A("2001:db8::1") + n,
}


def _examples(table: Table, declared: Set) -> tuple[Element, ...]:
    kinds = SINGLE | RANGE if declared.interval else SINGLE
    found = {}
    for n in range(len(NAMES)):
        # What is behind a port is a host address, even in a set of ranges of ports.
        atoms = SINGLE | {"inet_service": kinds["inet_service"]} if "inet_service" in declared.key else kinds
        key = tuple([atoms[kind](n) for kind in declared.key])
        data = tuple([SINGLE[kind](n) for kind in declared.data])
        found[key] = Element(table.family, declared.name, key, data)
    return tuple(found.values())


EXAMPLES = {(table, each.name): _examples(table, each) for table in TABLES for each in table.sets}
EVERY_SET = list(EXAMPLES)
ELEMENTS = tuple([element for elements in EXAMPLES.values() for element in elements])
BRIDGE_ELEMENTS = tuple([each for each in ELEMENTS if each.family == "bridge"])
INET_ELEMENTS = tuple([each for each in ELEMENTS if each.family == "inet"])


class Host:
    """A namespace with a socket of ours in it, and other people's tools."""

    def __init__(self, path: str) -> None:
        self.path = path
        with ExitStack() as undo:
            pin(path)
            undo.callback(unpin, path)
            self.nft = self.socket()
            self._undo = undo.pop_all()
        self._undo.callback(self.nft.close)

    def close(self) -> None:
        self._undo.close()

    def socket(self) -> NftSocket:
        """Another socket, which knows nothing yet."""
        fd = open_netns(self.path)
        with ExitStack() as undo:
            undo.callback(os.close, fd)
            return inside(fd, NftSocket)

    def run(self, *command: str) -> str:
        """Run a command in the namespace."""
        inner = ["nsenter", f"--net={self.path}", *command]
        done = subprocess.run(inner, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{' '.join(command)[:2000]}\n{done.stderr[:2000]}"
        return done.stdout

    def type(self, commands: tuple[str, ...]) -> None:
        """What a person would do with the commands that a step describes itself by."""
        for command in commands:
            self.run("sh", "-ec", command)

    def listing(self) -> str:
        """What ``nft`` says is there; it sorts the elements of some sets, and here they are of all."""

        def in_order(found: re.Match[str]) -> str:
            return "elements = { " + ", ".join(sorted(re.split(r",\s*", found[1]))) + " }"

        return re.sub(
            r"elements = \{ (.*?) \}", in_order, self.run("nft", "list", "ruleset"), flags=re.DOTALL
        )

    def data(self) -> list[Any]:
        """The same for machines, without what the kernel numbers as it goes."""

        def plain(value: Any) -> Any:
            if isinstance(value, dict):
                if isinstance(value.get("elem"), list):
                    value["elem"].sort(key=json.dumps)
                return {key: plain(inner) for key, inner in value.items() if key != "handle"}
            return [plain(inner) for inner in value] if isinstance(value, list) else value

        listed: list[Any] = plain(json.loads(self.run("nft", "-j", "list", "ruleset")))["nftables"]
        return listed


@pytest.fixture
def make_host(tmp_path: Path) -> Iterator[Callable[[str], Host]]:
    with ExitStack() as undo:

        def make(name: str) -> Host:
            host = Host(str(tmp_path / name))
            undo.callback(host.close)
            return host

        yield make


@pytest.fixture
def host(make_host: Callable[[str], Host]) -> Host:
    return make_host("ours")


def members(host: Host, *tables: Table) -> set[Element]:
    sets = [(table, each.name) for table in tables or TABLES for each in table.sets]
    return {element for table, name in sets for element in host.nft.elements(table, name)}


def test_the_ruleset_looks_to_nft_as_if_it_had_loaded_it(make_host: Callable[[str], Host]) -> None:
    ours, theirs = make_host("ours"), make_host("theirs")
    ours.nft.replace(TABLES, ELEMENTS)
    theirs.type(LoadRuleset(TABLES, ELEMENTS).describe())
    assert ours.listing() == theirs.listing()
    assert ours.data() == theirs.data()
    assert ours.nft.is_whole(TABLES)
    assert members(ours) == members(theirs) == set(ELEMENTS)


def test_the_ruleset_is_replaced_as_a_whole(host: Host) -> None:
    host.nft.replace(TABLES, ())
    bare = host.listing()
    host.run("nft", "add rule inet vethwork forward counter")
    host.run("nft", "add set inet vethwork strange { type ifname; }")
    host.run("nft", "add table ip strange")
    host.nft.replace(TABLES, ELEMENTS)
    host.nft.replace(TABLES, ())
    assert host.listing().replace("table ip strange {\n}\n", "") == bare


@pytest.mark.parametrize(("table", "name"), EVERY_SET, ids=lambda it: getattr(it, "family", it))
def test_a_change_looks_to_nft_as_if_it_had_made_it(
    table: Table, name: str, make_host: Callable[[str], Host]
) -> None:
    ours, theirs = make_host("ours"), make_host("theirs")
    some = EXAMPLES[table, name]
    for each in (ours, theirs):
        each.nft.replace(TABLES, some[::2])
    for change in (
        ChangeElements((), some[1::2]),
        ChangeElements(some[:1], ()),
        ChangeElements(some[1:], some[:1]),
        ChangeElements(some[:1], some),
        ChangeElements(some, some[1:]),
        ChangeElements(some[1:], ()),
    ):
        ours.nft.change(change.deletes, change.adds)
        theirs.type(change.describe())
        assert ours.listing() == theirs.listing()
    assert ours.data() == theirs.data()
    assert not members(ours)


def test_what_is_gone_is_deleted_and_what_is_there_is_added(host: Host) -> None:
    host.nft.replace(TABLES, ELEMENTS)
    full = host.listing()
    host.nft.change((), ELEMENTS)
    assert host.listing() == full
    host.nft.change(ELEMENTS[::2], ())
    host.nft.change(ELEMENTS + ELEMENTS, ELEMENTS[:3])
    assert members(host) == set(ELEMENTS[:3])
    host.nft.change(ELEMENTS, ELEMENTS)
    assert host.listing() == full
    host.nft.change((), ())
    host.nft.change(ELEMENTS, ())
    host.nft.change(ELEMENTS, ())
    assert not members(host)


def test_a_socket_that_knows_nothing_learns_from_the_kernel(host: Host) -> None:
    host.nft.replace(TABLES, ())
    with host.socket() as other:
        other.change((), ELEMENTS)
    assert members(host) == set(ELEMENTS)
    with host.socket() as other:
        other.change(ELEMENTS, ())
    assert not members(host)


TAKEN = [
    Element("inet", "port4", ("tcp", 65535), (A("10.77.0.3"), 8080)),
    Element("inet", "range4", ("tcp", Span(80, 1000)), (A("10.77.0.3"),)),
    Element("inet", "range4", ("tcp", Span(1000, 1001)), (A("10.77.0.2"),)),
    Element("inet", "range6", ("udp", Span(3, 65535)), (A("fd00::2"),)),
    Element("inet", "masquerade4", (P("10.77.0.0/16"),)),
    Element("inet", "masquerade6", (P("fd00::/63"),)),
    Element("inet", "source4", (P("10.77.0.0/22"),), (A("192.0.2.99"),)),
    Element("inet", "forward_to", ("br0",), ("accept",)),
]


@pytest.mark.parametrize("bad", TAKEN, ids=str)
def test_one_bad_element_leaves_everything_as_it_was(bad: Element, host: Host) -> None:
    host.nft.replace(TABLES, ELEMENTS)
    before = host.listing()
    harmless = Element("inet", "bridges", ("another",))
    delete = tuple([each for each in ELEMENTS if each.set == "bridges"])
    with pytest.raises(KernelRefused) as refused:
        host.nft.change(delete, (harmless, bad, Element("bridge", "ports", ("another",))))
    assert refused.value.errno in (17, 39), "EEXIST, or ENOTEMPTY for a range that laps over others"
    assert f"inet vethwork {bad.set} {{ {bad} }}" in refused.value.doing
    assert host.listing() == before
    with pytest.raises(KernelRefused):
        host.nft.replace(TABLES, (*ELEMENTS, bad))
    assert host.listing() == before


def test_a_bad_rule_leaves_everything_as_it_was(host: Host) -> None:
    host.nft.replace(TABLES, ELEMENTS)
    before = host.listing()
    lost = Chain("lost", (Rule((Verdict("accept"),)), Rule((VerdictMap(("iifname",), "nowhere"),))))
    with pytest.raises(
        KernelRefused, match=r"rule 2 of chain inet vethwork lost .iifname vmap @nowhere.: ENOENT"
    ):
        host.nft.replace((BRIDGE, INET.replace(chains=(*INET.chains, lost))), ())
    assert host.listing() == before


def test_a_flushed_ruleset_is_noticed(host: Host) -> None:
    assert not host.nft.is_whole(TABLES)
    for harm in (
        "flush ruleset",
        "delete table bridge vethwork",
        "flush table inet vethwork",
        "flush chain inet vethwork forward",
        "add rule inet vethwork forward accept",
        "add chain inet vethwork other; add rule inet vethwork other accept",
    ):
        host.nft.replace(TABLES, ELEMENTS)
        assert host.nft.is_whole(TABLES)
        host.run("nft", harm)
        assert not host.nft.is_whole(TABLES), harm


def test_the_rules_of_another_release_are_noticed(host: Host) -> None:
    """As many, in the same chains, and with nobody's help but ours: none of nft's."""
    *chains, last = INET.chains
    other = last.replace(rules=(*last.rules[:-1], Rule((Verdict("accept"),))))
    host.nft.replace((BRIDGE, INET.replace(chains=(*chains, other))), ELEMENTS)
    assert not host.nft.is_whole(TABLES)
    host.nft.replace((BRIDGE, INET.replace(comment="whose it is")), ELEMENTS)
    assert host.nft.is_whole(TABLES)
    assert host.nft.comment(INET) == "whose it is"
    assert 'comment "whose it is"' in host.listing()


def test_a_change_where_the_tables_are_gone(host: Host) -> None:
    host.nft.replace(TABLES, ELEMENTS)
    host.run("nft", "delete table bridge vethwork")
    for adds in (BRIDGE_ELEMENTS, ELEMENTS):
        with pytest.raises(RulesetMissing) as missing:
            host.nft.change((), adds)
        assert missing.value.errno == 2
        assert "bridge vethwork" in missing.value.doing
    host.nft.change(INET_ELEMENTS, INET_ELEMENTS[:1])
    assert members(host, INET) == set(INET_ELEMENTS[:1])
    host.nft.change(ELEMENTS, ())  # what is left of it
    assert members(host, INET) == set()
    host.run("nft", "flush ruleset")
    host.nft.change(ELEMENTS, ())
    with host.socket() as other:
        other.change(ELEMENTS, ())
        with pytest.raises(RulesetMissing):
            other.change((), ELEMENTS[:1])
    assert host.listing() == ""
    with pytest.raises(KernelRefused, match="ENOENT"):
        host.nft.elements(INET, "bridges")


def test_tables_are_removed_and_others_are_not(host: Host) -> None:
    host.run("nft", "add table inet other")
    host.nft.replace(TABLES, ELEMENTS)
    host.nft.remove(TABLES)
    host.nft.remove(TABLES)
    assert host.listing() == "table inet other {\n}\n"


def test_twenty_thousand_elements_in_one_batch(host: Host) -> None:
    many = tuple(
        [
            Element("inet", "port_at4", (Address(4, 0x0A000000 + n), "tcp", 80), (A("10.77.0.2"), n))
            for n in range(20_000)
        ]
    )
    host.nft.replace(TABLES, many)
    assert set(host.nft.elements(INET, "port_at4")) == set(many)
    host.nft.change(many[:1], ())
    host.nft.change(many, many[:5])
    assert set(host.nft.elements(INET, "port_at4")) == set(many[:5])


def test_more_refusals_than_the_socket_can_hold(host: Host) -> None:
    """The first is told, and the socket is good for more."""
    host.nft.replace(TABLES, ())
    lost = Rule((VerdictMap(("iifname",), "nowhere"),))
    with pytest.raises(KernelRefused, match="add rule 1 of chain inet vethwork lost "):
        host.nft.replace((INET.replace(chains=(Chain("lost", (lost,) * 5000),)),), ())
    host.nft.change((), ELEMENTS)
    assert members(host) == set(ELEMENTS)


def test_other_programs_may_change_their_tables_meanwhile(host: Host) -> None:
    """The ruleset's generation moves on; ours is not tied to it, and a listing that was torn is asked for again."""
    host.nft.replace(TABLES, ())
    busy = subprocess.Popen(
        [
            "nsenter",
            f"--net={host.path}",
            "sh",
            "-c",
            "while nft add table ip other; do nft delete table ip other; done",
        ]
    )
    try:
        for _ in range(20):
            host.nft.change((), ELEMENTS)
            assert members(host) == set(ELEMENTS)
            host.nft.change(ELEMENTS, ())
    finally:
        busy.kill()
        busy.wait()


def test_without_the_right_to_it(host: Host) -> None:
    script = (
        "import os; os.setgid(65534); os.setuid(65534)\n"
        "try: NftSocket().replace(TABLES, ())\n"
        "except KernelRefused as error: print(error.errno, error.hint)\n"
    )
    imports = (
        "from vethwork.kernel.nft import NftSocket\n"
        "from vethwork.plan.ruleset import TABLES\n"
        "from vethwork.errors import KernelRefused\n"
        "import vethwork.wire.nft.tables\n"  # while the sources may be read
    )
    told = host.run("env", f"PYTHONPATH={SOURCE}", sys.executable, "-c", imports + script)
    assert told == "1 it takes CAP_NET_ADMIN in this network namespace\n"
