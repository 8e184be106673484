"""Names from outside: what passes is safe wherever a name is written, what would not be is refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.strategies import HOSTNAMES, IFNAMES, NAMES, PATHS
from vethwork.errors import RequestError
from vethwork.model.names import HostName, IfName, Name, NetnsPath

SAFE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
HOSTILE = [
    "", " ", "a b", "a\n", "\na", "a\0b", "a\tb", "a\r", "..", ".", ".hidden", "../../etc", "a/b", "/", "a\\b", "-rf",
    "_x", "--net", "%d", "eth%d", "a:b", "a@b", "a,b", "a=b", "a;b", "a|b", "a&b", "$(reboot)", "`reboot`", "a'b", 'a"b',
    "a*", "a?", "a[0]", "{a}", "~", "a!", "a#",
    "é", "\uff41\uff42", "\u0663", "²", "\u2167", "a\u200bb", "a\u202eb", "\ud800", "🐋",
]  # fmt: skip


@pytest.mark.parametrize("kind", [Name, IfName, HostName])
@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_name_is_refused(kind: type[Name], text: str) -> None:
    with pytest.raises(RequestError, match=r"is empty|has characters"):
        kind.parse(text)


@pytest.mark.parametrize(("kind", "longest"), [(Name, 128), (IfName, 15), (HostName, 64)])
def test_a_name_is_as_long_as_it_may_be_and_no_longer(kind: type[Name], longest: int) -> None:
    assert kind.parse("a" * longest) == "a" * longest
    for length in (longest + 1, 300, 100_000):
        with pytest.raises(RequestError, match=f"longer than {longest} characters") as refused:
            kind.parse("a" * length)
        assert len(str(refused.value)) < 200


@pytest.mark.parametrize("text", ["all", "default"])
def test_an_interface_is_not_named_like_the_sysctls_of_all_interfaces(text: str) -> None:
    with pytest.raises(RequestError, match=f"interface name '{text}': means all interfaces, to the kernel"):
        IfName.parse(text)
    assert Name.parse(text) == text


@given(st.text(max_size=20))
def test_what_passes_is_safe(text: str) -> None:
    try:
        name = Name.parse(text)
    except RequestError:
        assert not SAFE.fullmatch(text)
    else:
        assert SAFE.fullmatch(text)
        assert name == text
        assert type(name) is Name


@given(NAMES, IFNAMES, HOSTNAMES)
def test_a_good_name_passes_in_its_own_type(name: Name, ifname: IfName, hostname: HostName) -> None:
    for kind, text in ((Name, name), (IfName, ifname), (HostName, hostname)):
        parsed = kind.parse(str(text))
        assert parsed == text
        assert type(parsed) is kind


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not an absolute path"),
        ("run/netns/x", "not an absolute path"),
        ("./x", "not an absolute path"),
        ("/run/../etc", "not an absolute path"),
        ("/..", "not an absolute path"),
        ("/" + "a" * 4095, "not an absolute path"),
        ("/" + "é" * 2048, "not an absolute path"),
        ("/a\nb", "control characters"),
        ("/a\0b", "control characters"),
        ("/a\x1b[31m", "control characters"),
        ("/a\u202eb", "control characters"),
        ("/a\ud800", "control characters"),
    ],
)
def test_a_hostile_path_is_refused(text: str, why: str) -> None:
    with pytest.raises(RequestError, match=why) as refused:
        NetnsPath.parse(text)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "text", ["/run/netns/x", "/proc/1/ns/net", "/a..b/c", "/a b", "/" + "a" * 4094, "/é"]
)
def test_a_good_path_passes(text: str) -> None:
    assert NetnsPath.parse(text) == text


@given(PATHS)
def test_a_path_that_passes_can_be_printed_on_one_line(path: NetnsPath) -> None:
    assert NetnsPath.parse(str(path)) == path
    assert path.isprintable()
