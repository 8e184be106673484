"""The OCI hook's protocol, with its streams handed in: no process, and no kernel is changed."""

from __future__ import annotations

import io
import json
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from tests.heard import Heard
from vethwork import __version__
from vethwork.errors import RequestError
from vethwork.frontends.oci import main
from vethwork.frontends.oci.request import parse_wish
from vethwork.model.container import AttachRequest, parse_modes
from vethwork.model.names import NetnsPath

pytestmark = pytest.mark.usefixtures("records")

ID = "0123456789abcdef0123456789abcdef"
STATE: dict[str, Any] = {
    "ociVersion": "1.0.2-dev",
    "id": "web",
    "status": "creating",
    "pid": os.getpid(),
    "bundle": "/bundles/web",
    "annotations": {"org.example.other": "1"},
}
"""runc's; with our own process, it gets as far as the namespace, which is the host's, and so is refused."""
NETNS = NetnsPath("/proc/7/ns/net")
OWN = "is in the host's own network namespace"
VERBS = [["attach"], ["detach"], []]


def call(*words: str, data: object = STATE) -> Heard:
    """Call the hook."""
    out, err = io.StringIO(), io.StringIO()
    spelled = data if isinstance(data, bytes) else json.dumps(data).encode()
    return Heard(main.run(words, {}, io.BytesIO(spelled), out, err), out.getvalue(), err.getvalue())


def refused(*words: str, data: object = STATE) -> str:
    """Assert that it is refused in the way of the hook; gives what it said."""
    heard = call(*words, data=data)
    assert_spoken(heard)
    assert heard.status == 1
    return heard.err


def assert_spoken(heard: Heard) -> None:
    """Assert that it is one line on standard error, or nothing, and that nobody was surprised."""
    assert heard.out == ""
    assert heard.status in (0, 1)
    if heard.status == 0:
        assert heard.err == ""
        return
    assert heard.err.startswith("vethwork-oci: ")
    assert heard.err.count("\n") == 1
    assert heard.err.endswith("\n")
    assert len(heard.err) < 2100
    assert "Traceback" not in heard.err
    assert "internal error" not in heard.err


def with_(**changes: object) -> dict[str, Any]:
    """The state with some keys replaced; an ellipsis leaves one out."""
    return {key: value for key, value in (STATE | changes).items() if value is not ...}


def annotated(**wishes: object) -> dict[str, Any]:
    """The state with annotations of ours."""
    return with_(annotations={f"io.vethwork.{key}": value for key, value in wishes.items()})


# What is right -----------------------------------------------------------------------------------------------------------


def test_it_says_what_it_is() -> None:
    assert call("--version", data=b"") == Heard(0, f"vethwork-oci {__version__}\n", "")
    assert call("--help", data=b"").out == main.USAGE


@pytest.mark.parametrize("status", ["creating", "created"])
def test_attach_goes_as_far_as_the_namespace(status: str) -> None:
    said = with_(status=status)
    assert OWN in refused("attach", data=said)
    assert OWN in refused(data=said)
    assert "linux.namespaces" in refused(data=said)


@pytest.mark.parametrize("pid", [..., 0, None, 4711])
def test_detach_of_what_nobody_knows_succeeds(pid: object) -> None:
    said = with_(status="stopped", pid=pid)
    for words in ([], ["detach"], ["detach"]):
        assert call(*words, data=said) == Heard(0, "", "")


@pytest.mark.parametrize(
    "annotations", [None, [], "x", {"io.vethwork.publish": 7}, {"io.vethwork.network": "/"}]
)
def test_detach_looks_at_nothing_but_the_id(annotations: object) -> None:
    assert call("detach", data=with_(annotations=annotations)) == Heard(0, "", "")


@pytest.mark.parametrize("status", ["running", "paused", "", None, ..., "CREATED", "x" * 300])
def test_a_status_that_calls_for_nothing(status: object) -> None:
    assert "status" in refused(data=with_(status=status))


@pytest.mark.parametrize(
    "words", [["ATTACH"], ["attach", "detach"], ["setup"], [""], ["x" * 9999], ["a\nb"], ["--verbose"]]
)
def test_words_that_are_none(words: list[str]) -> None:
    assert "is not attach or detach" in refused(*words)


def wish(**annotations: str) -> AttachRequest:
    """What annotations ask for."""
    return parse_wish(ID, "web", NETNS, {f"io.vethwork.{key}": value for key, value in annotations.items()})


def test_what_annotations_ask_for() -> None:
    assert wish() == wish(network="", publish=" ", ip="") == wish(network="bridge")
    assert (wish().name, wish().netns, wish().owner, wish().id) == ("web", NETNS, "oci", ID)
    mode, joins = parse_modes(("blue", "lab"))
    assert (wish(network="blue, lab").mode, wish(network="blue,lab").joins) == (mode, joins)
    assert wish(network="none").joins == ()
    specs = [str(each) for each in wish(publish="8080:80/tcp, 127.0.0.1:53:53/udp  [fd00::1]:1:1").publishes]
    assert specs == ["8080:80/tcp", "127.0.0.1:53:53/udp", "[fd00::1]:1:1/tcp"]
    first, second = wish(network="blue,lab", ip="10.0.0.9", ip6="fd00::9", mac="02:00:00:00:00:09").joins
    assert [str(each) for each in first.addresses] == ["10.0.0.9", "fd00::9"]
    assert str(first.mac) == "02:00:00:00:00:09"
    assert (second.addresses, second.mac) == ((), None)


def test_annotations_of_others_are_not_looked_at() -> None:
    assert (
        parse_wish(ID, "web", NETNS, {"io.vethworks.network": "/", "": "", "run.oci.hooks.stderr": "/x"})
        == wish()
    )


# Hostile input -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", VERBS)
@pytest.mark.parametrize(
    "data",
    [b"", b"{", b'{"id": "web', b"null", b"[]", b"7", b'"web"', b"true", b"\xff\xfe", b"\0", b"{}{}", b"{'id': 1}",
     b"[" * 100_000, b'{"id": NaN}', b'{"pid": Infinity}', b'{"pid": 1' + b"0" * 9999 + b"}"],
    ids=lambda data: repr(data[:12]),
)  # fmt: skip
def test_what_is_no_state(words: list[str], data: bytes) -> None:
    refused(*words, data=data)


@pytest.mark.parametrize("words", VERBS)
def test_ten_megabytes(words: list[str]) -> None:
    assert "longer than" in refused(*words, data=with_(annotations={"x": "y" * 10_000_000}))


@pytest.mark.parametrize("words", VERBS)
@pytest.mark.parametrize("container", [..., None, "", 7, True, ["web"], {"web": 1}])
def test_an_id_that_is_none(words: list[str], container: object) -> None:
    assert "id" in refused(*words, data=with_(id=container, status="created"))


@pytest.mark.parametrize(
    "name",
    [
        "a/b",
        "/",
        "..",
        ".",
        "../../etc",
        "a\nb",
        "a b",
        "\0",
        "-rf",
        "_x",
        "x+y",
        "ä",
        "x" * 300,
        "$(id)",
        "\ud800",
    ],
)
def test_an_id_that_no_container_of_ours_can_have(name: str) -> None:
    assert "name" in refused("attach", data=with_(id=name))
    assert call("detach", data=with_(id=name)) == Heard(0, "", "")


@pytest.mark.parametrize("pid", [..., None, 0, -1, 1 << 22, 1 << 80, 7.5, "7", True, [7], {}])
def test_a_process_that_is_none(pid: object) -> None:
    assert "pid" in refused("attach", data=with_(pid=pid))


def test_a_process_that_is_gone() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert f"/proc/{child}/ns/net" in refused("attach", data=with_(pid=child))


def test_null_everywhere() -> None:
    nothing = dict.fromkeys(STATE)
    for words in VERBS:
        refused(*words, data=nothing)
    assert OWN in refused("attach", data=with_(ociVersion=None, bundle=None, annotations=None))
    assert OWN in refused("attach", data=annotated(network=None, publish=None, ip=None, ip6=None, mac=None))


@pytest.mark.parametrize(
    "annotations", ["x", 7, True, ["a"], {"a": 1}, {"io.vethwork.network": ["blue"]}, {"a": {}}]
)
def test_annotations_that_are_none(annotations: object) -> None:
    assert "annotation" in refused("attach", data=with_(annotations=annotations))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("network", "a/b"), ("network", ".."), ("network", "a\nb"), ("network", "x" * 300), ("network", "blue,"),
        ("network", "blue,blue"), ("network", "none,blue"), ("network", "host"), ("network", "container:web"),
        ("network", "ns:/run/netns/x"), ("network", "vlan:7"), ("network", ","),
        ("publish", "0:80"), ("publish", "80:0"), ("publish", "65536:80"), ("publish", "http"), ("publish", "http:80"),
        ("publish", "80:80/icmp"), ("publish", "::1:80:80"), ("publish", "[::1]:80:80"), ("publish", "80-90:80"),
        ("publish", "x" * 9999), ("publish", "80:80;id"),
        ("ip", "10.0.0"), ("ip", "fd00::1"), ("ip", "10.0.0.1/24"), ("ip", "x" * 300), ("ip", "010.0.0.1"),
        ("ip6", "10.0.0.1"), ("ip6", "fd00::1%eth0"), ("ip6", "fd00:::1"),
        ("mac", "01:00:00:00:00:01"), ("mac", "00:00:00:00:00:00"), ("mac", "x"), ("mac", "02:00"),
        ("publsh", "80:80"), ("", "x"), ("a\nb", "x"), ("x" * 9999, "x"),
    ],
)  # fmt: skip
def test_a_wish_that_is_none(key: str, value: str) -> None:
    said = refused("attach", data=annotated(**{key: value}))
    assert "annotation" in said
    assert "io.vethwork." in said


def test_addresses_need_a_network() -> None:
    with pytest.raises(RequestError, match="need a network"):
        wish(network="none", ip="10.0.0.9")


def test_streams_that_are_closed() -> None:
    assert main.run(["attach"], {}, None, None, None) == 1
    assert main.run(["--version"], {}, None, None, None) == 0
    closed = io.TextIOWrapper(io.BytesIO())
    assert main.run([], {}, io.BytesIO(b"{}"), closed, closed) == 1


# Anything at all ---------------------------------------------------------------------------------------------------------

CALM = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=8)
    | some.sampled_from(["creating", "stopped", "web", "none", "blue", "80:80", "10.0.0.9"]),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
WORDS = some.sampled_from(VERBS)


@CALM
@given(WORDS, some.binary(max_size=200))
def test_any_bytes(words: list[str], data: bytes) -> None:
    assert_spoken(call(*words, data=data))


@CALM
@given(WORDS, some.sampled_from(sorted(STATE)), JSON)
def test_any_value_anywhere(words: list[str], key: str, value: object) -> None:
    if key == "pid" and isinstance(value, int) and not isinstance(value, bool):
        value = -abs(value)  # what is a process here is somebody's
    assert_spoken(call(*words, data=with_(**{key: value})))


@CALM
@given(
    some.dictionaries(some.sampled_from(["network", "publish", "ip", "ip6", "mac", "x"]), JSON | some.text())
)
def test_any_annotations(wishes: dict[str, object]) -> None:
    assert_spoken(call("attach", data=annotated(**wishes)))
