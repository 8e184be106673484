"""Steps: what each says, that a shell takes it as it is meant, who does it, and what takes it back."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.golden import assert_golden
from tests.unit.strategies import IFNAMES, MACS, PATHS, addresses, interfaces, prefixes
from vethwork.kernel.executor import DOERS
from vethwork.model.address import Address, Interface, Mac, Prefix
from vethwork.model.plan import Plan, is_worldly
from vethwork.model.ports import PROTOCOLS
from vethwork.model.ruleset import Chain, Element, Hook, Match, Rule, Set, Span, Table, Verdict
from vethwork.model.shaping import CreateIfb, DivertIngress, Rate, ShapeLink
from vethwork.model.steps import (
    AddAddress,
    AddRoute,
    ChangeElements,
    CreateBridge,
    CreateMacvlan,
    CreateVeth,
    DeleteLink,
    DeleteRoute,
    ForgetFlows,
    HairpinPort,
    JoinBridge,
    LoadRuleset,
    MoveLink,
    PinNetns,
    SetLink,
    SetLinkUp,
    SetSysctl,
    Step,
    UnpinNetns,
)

KINDS = sorted(Step.__subclasses__(), key=lambda kind: kind.__name__)
PIN, HOST = "/run/vethwork/netns/0123456789ab", ""
MAC, OTHER_MAC = Mac.parse("02:76:0a:4d:00:02"), Mac.parse("02:78:01:23:45:67")
SOMEWHERE = Prefix.parse("10.80.0.0/16")
V4, V6 = Address.parse("10.77.0.1"), Address.parse("fd00:77::1")
TABLE = Table(
    "inet",
    "vethwork",
    (Set("bridges", ("ifname",)), Set("forward_from", ("ifname",), ("verdict",))),
    (
        Chain(
            "guard",
            (Rule((Match(("iifname",), "@bridges"), Match(("ip daddr",), "127.0.0.0/8"), Verdict("drop"))),),
            Hook("filter", "prerouting", -300),
        ),
    ),
    "state in /var/lib/vethwork",
)

EXAMPLES: list[Step] = [
    PinNetns(PIN),
    UnpinNetns(PIN),
    CreateBridge("vethwork0", MAC, 1500),
    CreateVeth("vw012345678900", "vethwork0", PIN, "eth0", MAC, 1500),
    CreateVeth("vwp0123456789a", "", PIN, "eth0", MAC, 9000),
    CreateMacvlan("uplink", PIN, "eth0", MAC, 1500, "bridge"),
    CreateMacvlan("uplink", PIN, "eth0", None, 1500, "passthru"),
    MoveLink(HOST, "vwp0123456789a", OTHER_MAC, PIN, "eth0", MAC),
    MoveLink(PIN, "eth0", MAC, HOST, "vwp0123456789a", OTHER_MAC),
    DeleteLink(HOST, "vethwork0"),
    DeleteLink(PIN, "eth0"),
    SetLink("vethwork0", MAC, 1500),
    SetLinkUp(HOST, "vethwork0"),
    SetLinkUp(PIN, "lo"),
    AddAddress(HOST, "vethwork0", Interface(V4, 22)),
    AddAddress(PIN, "eth0", Interface(V6, 64)),
    AddRoute(PIN, "eth0", None, V4),
    AddRoute(PIN, "eth0", Prefix.parse("fd00:78::/64"), V6, 100),
    AddRoute(PIN, "eth0", Prefix.parse("10.79.0.0/16"), None),
    AddRoute(PIN, "eth0", SOMEWHERE, None, 100, "blackhole"),
    DeleteRoute(PIN, SOMEWHERE, 100, "blackhole"),
    JoinBridge("vw012345678900", "vethwork0"),
    JoinBridge("vw012345678900", "vethwork0", hairpin=True),
    HairpinPort("vw012345678900"),
    SetSysctl(HOST, "ipv4/ip_forward", "1", "0"),
    SetSysctl(PIN, "ipv6/conf/eth0.5/accept_ra", "0"),
    LoadRuleset((TABLE,), (Element("inet", "bridges", ("vethwork0",)),)),
    ChangeElements(
        (Element("inet", "port4", ("tcp", 8080), (Address.parse("10.77.0.5"), 80)),),
        (
            Element("inet", "range_at6", (V6, "udp", Span(8000, 8099)), (Address.parse("fd00:77::5"),)),
            Element("inet", "masquerade4", (Prefix.parse("10.77.0.0/22"),)),
            Element("inet", "forward_from", ("tcp",), ("goto from_open",)),
            Element("bridge", "macs", ("vw012345678900", MAC)),
            Element("bridge", "targets6", ("vw012345678900", V6.value)),
        ),
    ),
    ShapeLink("vw012345678900", Rate(8_000_000, 20_000)),
    CreateIfb("vi012345678900", 1500),
    DivertIngress("vw012345678900", "vi012345678900"),
    ForgetFlows("tcp", None, 8080, 8080),
    ForgetFlows("udp", V6, 8000, 8001),
    ForgetFlows("udp", Address(4, 0), 53, 53),
]


def test_what_every_step_says() -> None:
    lines = [line for step in EXAMPLES for line in (f"# {type(step).__name__}", *step.describe())]
    assert_golden("steps.txt", "\n".join(lines) + "\n")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_step_is_shown_and_has_a_doer(kind: type[Step]) -> None:
    assert kind in DOERS, "kernel.apply does not know how to do it"
    assert any(type(step) is kind for step in EXAMPLES), (
        "give EXAMPLES one, so that people can read what it says"
    )


def test_only_steps_are_done() -> None:
    assert set(DOERS) == set(KINDS)


def test_the_base_says_nothing_and_takes_nothing_back() -> None:
    with pytest.raises(NotImplementedError):
        Step().describe()
    assert Step().undo() == ()


# What takes it back --------------------------------------------------------------------------------------------------

OPPOSITES: list[tuple[Step, tuple[Step, ...]]] = [
    (PinNetns(PIN), (UnpinNetns(PIN),)),
    (CreateBridge("br0", MAC, 1500), (DeleteLink("", "br0", MAC),)),
    (CreateVeth("vw0", "br0", PIN, "eth0", MAC, 1500), (DeleteLink("", "vw0"),)),
    (CreateVeth("vwp0", "", PIN, "eth0", MAC, 1500), (DeleteLink("", "vwp0"),)),
    (CreateMacvlan("uplink", PIN, "eth0", MAC, 1500, "bridge"), (DeleteLink(PIN, "eth0", MAC),)),
    (CreateIfb("vi0", 1500), (DeleteLink("", "vi0"),)),
    (AddRoute(PIN, "eth0", SOMEWHERE, None, 7, "prohibit"), (DeleteRoute(PIN, SOMEWHERE, 7, "prohibit"),)),
    (MoveLink("", "vwp0", OTHER_MAC, PIN, "eth0", MAC), (MoveLink(PIN, "eth0", MAC, "", "vwp0", OTHER_MAC),)),
    (SetSysctl("", "ipv4/ip_forward", "1", "0"), (SetSysctl("", "ipv4/ip_forward", "0", "1"),)),
    (
        ChangeElements((Element("inet", "bridges", ("a",)),), (Element("inet", "bridges", ("b",)),)),
        (ChangeElements((Element("inet", "bridges", ("b",)),), (Element("inet", "bridges", ("a",)),)),),
    ),
]
# These go with their link or namespace, only close, or do what is right whatever comes of the plan.
WITHOUT = {
    ShapeLink, DivertIngress,
    SetLink, UnpinNetns, DeleteLink, DeleteRoute, SetLinkUp, AddAddress, JoinBridge, HairpinPort, LoadRuleset, ForgetFlows,
}  # fmt: skip


@pytest.mark.parametrize(("step", "undo"), OPPOSITES, ids=lambda each: type(each).__name__)
def test_what_opens_names_its_opposite(step: Step, undo: tuple[Step, ...]) -> None:
    assert step.undo() == undo
    for each in undo:
        assert each.undo() in ((), (step,))


def test_what_goes_with_its_link_is_not_taken_back() -> None:
    assert SetSysctl(PIN, "ipv6/conf/eth0/accept_ra", "0").undo() == ()
    assert AddRoute(PIN, "eth0", SOMEWHERE, V4).undo() == ()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_step_has_an_opposite_or_needs_none(kind: type[Step]) -> None:
    assert (kind in WITHOUT) != any(type(step) is kind for step, _ in OPPOSITES)
    if kind in WITHOUT:
        assert all(step.undo() == () for step in EXAMPLES if type(step) is kind)


def test_a_plan_is_taken_back_last_step_first() -> None:
    steps = tuple(step for step, _ in OPPOSITES)
    plan = Plan("attach", "web", steps)
    assert plan.backward() == tuple(each for _, undo in reversed(OPPOSITES) for each in undo)
    assert plan.recovery() == plan.backward()
    assert plan.replace(forward=True).recovery() == steps
    assert plan.commands() == tuple(command for step in steps for command in step.describe())


def test_a_plan_about_networks_is_worldly() -> None:
    assert is_worldly(Plan("create network", "web", ()).verb)
    assert not is_worldly(Plan("attach", "create network", ()).verb)


# A shell -------------------------------------------------------------------------------------------------------------

PLAIN = "/PLAIN"
BY_NAME: dict[str, st.SearchStrategy[Any]] = {
    "ifname": IFNAMES,
    "host_ifname": IFNAMES,
    "to_ifname": IFNAMES,
    "master": IFNAMES | st.just(""),
    "bridge": IFNAMES,
    "parent": IFNAMES,
    "mac": MACS,
    "to_mac": MACS,
    "mtu": st.integers(68, 65535),
    "interface": interfaces(),
    "prefix": prefixes() | st.none(),
    "gateway": addresses(),
    "metric": st.integers(0, (1 << 32) - 1),
    "ifb": IFNAMES,
    "rate": st.builds(Rate, st.integers(8, 1 << 62), st.integers(1514, 1 << 32)),
    "value": st.sampled_from("012"),
    "instead": IFNAMES | st.just(""),
    "before": st.sampled_from(["", "0", "1"]),
    "protocol": st.sampled_from(sorted(PROTOCOLS)),
    "host_ip": addresses() | st.none(),
    "first": st.integers(1, 3),
    "last": st.integers(1, 3),
    "hairpin": st.booleans(),
    "kind": st.sampled_from(["unicast", "blackhole", "unreachable", "prohibit"]),
    "mode": st.sampled_from(["bridge", "private", "vepa", "passthru"]),
}
"""What a field of a step can hold after the parsers, by its name."""
IN_PATHS = ("netns", "to_netns", "path")


def plain_steps(kind: type[Step]) -> st.SearchStrategy[Step]:
    """Steps of a kind whose paths are all the same plain one."""
    fields = {field: st.just(PLAIN) if field in IN_PATHS else BY_NAME[field] for field in kind._fields}
    if kind is SetSysctl:  # made by us from an interface name
        fields["path"] = IFNAMES.map(lambda ifname: f"ipv6/conf/{ifname}/accept_ra")
    return st.builds(lambda **values: kind(**values), **fields)


def tokens(command: str) -> list[str]:
    """What a shell makes of a command: words and operators."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    return list(lexer)


@pytest.mark.parametrize(
    "kind",
    [kind for kind in KINDS if kind not in (LoadRuleset, ChangeElements)],
    ids=lambda kind: kind.__name__,
)
def test_no_path_that_passes_makes_a_shell_do_anything_else(kind: type[Step]) -> None:
    assert not set(kind._fields) - set(BY_NAME) - set(IN_PATHS), "say in BY_NAME what may be in that field"

    @settings(max_examples=60)
    @given(plain_steps(kind), PATHS)
    def look(step: Step, path: str) -> None:
        paths = [field for field in IN_PATHS if getattr(step, field, "") == PLAIN]
        hostile = step.replace(**dict.fromkeys(paths, path))
        directory = path.rpartition("/")[0]
        for plain, command in zip(step.describe(), hostile.describe(), strict=True):
            assert "\n" not in command
            wanted = [word.replace(PLAIN, path) if word != "" else directory for word in tokens(plain)]
            assert tokens(command) == wanted

    look()


ATOMS = (
    IFNAMES | addresses() | prefixes() | MACS | st.sampled_from(sorted(PROTOCOLS)) | st.integers(0, 1 << 128)
)
SPANS = st.builds(Span, st.integers(1, 65535), st.integers(1, 65535))
VERDICTS = st.sampled_from(["drop", "goto from_open"])
ELEMENTS = st.builds(
    Element,
    st.sampled_from(["inet", "bridge"]),
    st.sampled_from(["port4", "macs"]),
    st.lists(ATOMS | SPANS, min_size=1, max_size=3).map(tuple),
    st.lists(ATOMS | VERDICTS, max_size=2).map(tuple),
)


@given(st.lists(ELEMENTS, max_size=3).map(tuple), st.lists(ELEMENTS, max_size=3).map(tuple))
def test_no_element_ends_the_here_document_or_its_own_line(
    deletes: tuple[Element, ...], adds: tuple[Element, ...]
) -> None:
    (command,) = ChangeElements(deletes, adds).describe()
    first, *lines, last = command.split("\n")
    assert (first, last) == ("nft -f - <<'END'", "END")
    assert [line.split()[0] for line in lines] == ["delete"] * len(deletes) + ["add"] * len(adds)
    for line in lines:
        assert line.count("{") == line.count("}") == 1
        assert line.endswith(" }")
        assert ";" not in line
