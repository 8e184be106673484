"""The netavark stand-in's protocol, with arguments and streams handed in: no process, and no kernel is changed."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from tests.heard import Heard
from tests.podman import CONTAINER, Document, call, container, info, joined, mapped, newest
from vethwork import __version__

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("records")

OWN = "/proc/self/ns/net"
GLOBALS = ("--config", "/nowhere", "--rootless=false", "--aardvark-binary=")


def setup(document: object, path: str = OWN, **environ: str) -> Heard:
    """Ask for a set-up; a good one gets as far as the namespace, which is the caller's own, and so is refused."""
    return call(*GLOBALS, "setup", path, document=document, environ=environ)


def refused(heard: Heard) -> str:
    """Assert that it is one error of the protocol and nothing else; gives its message."""
    assert heard.status == 1
    assert heard.err == ""
    document = heard.document
    assert list(document) == ["error"]
    assert isinstance(document["error"], str)
    assert len(heard.out) < 65536
    assert "internal error" not in document["error"]
    return str(document["error"])


def merged(path: str, value: object, document: Document | None = None) -> Document:
    """A document with one value replaced, added or (for an ellipsis) removed."""
    made: Document = json.loads(json.dumps(document or container(port_mappings=[mapped(8080)])))
    target: Any = made
    *above, last = [int(part) if part.isdecimal() else part for part in path.split("/")]
    for part in above:
        target = target.setdefault(part, {}) if isinstance(target, dict) else target[part]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return made


# The command line --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["--version", "-V"])
def test_version_is_one_line(word: str) -> None:
    assert call(word) == Heard(0, f"netavark {__version__} (vethwork)\n", "")


def test_version_as_a_document() -> None:
    heard = call("version")
    assert heard.status == 0
    assert heard.document["version"] == __version__
    assert heard.document["default_fw_driver"] == "nftables"


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help(word: str) -> None:
    heard = call(word)
    assert (heard.status, heard.err) == (0, "")
    assert "setup NETNS" in heard.out


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("nonsense",),
        ("--nonsense", "setup", OWN),
        ("setup",),
        ("setup", OWN, "more"),
        ("teardown",),
        ("--config",),
        ("setup", OWN, "--config", "/nowhere"),
        ("--rootless=perhaps", "setup", OWN),
        ("update", "--network-dns-servers"),
        ("update", "--network-dns-servers", "9.9.9.9"),
        ("create", "more"),
        ("",),
    ],
)
def test_a_wrong_command_line_ends_with_2(words: tuple[str, ...]) -> None:
    heard = call(*words, document=container())
    assert (heard.status, heard.out) == (2, "")
    assert heard.err.startswith("error: ")
    assert "Usage:" in heard.err


@pytest.mark.parametrize(
    "words",
    [
        ("--config", "/nowhere", "--rootless", "false", "--aardvark-binary", "/none"),
        ("--config=/nowhere", "--rootless=false", "--aardvark-binary=/none"),
        ("-c", "/nowhere", "-r", "false", "-a", "/none"),
        ("-c/nowhere", "-rfalse", "-a=/none"),
        ("--plugin-directory", "/a", "--plugin-directory=/b", "--firewall-driver", "none", "-c", "/nowhere"),
        (),
    ],
)
def test_every_spelling_of_the_options(words: tuple[str, ...]) -> None:
    assert "host's own" in refused(call(*words, "setup", OWN, document=container()))


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_a_port_of_the_name_server_that_is_none(port: str) -> None:
    heard = setup(container(), NETAVARK_DNS_PORT=port)
    assert (heard.status, heard.out) == (2, "")


@pytest.mark.parametrize("command", ["dhcp-proxy", "firewalld-reload"])
def test_what_is_not_here_says_so(command: str) -> None:
    assert command in refused(call(command))


def test_the_document_may_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "options.json"
    path.write_text(json.dumps(container()))
    assert "host's own" in refused(call("--file", str(path), "setup", OWN))
    assert "No such file" in refused(call("--file", f"{path}.none", "setup", OWN))
    assert "null byte" in refused(call("--file", "a\0b", "setup", OWN))


# What is right -------------------------------------------------------------------------------------------------------------


GOOD = {
    "as Podman 4.3 has it": container(),
    "as Podman 5.8 has it": container(None, newest(info()), container_hostname="", dns_servers=["8.8.8.8"]),
    "networks as an array": container() | {"networks": [{"name": "blue", **joined()}]},
    "unknown keys": container(None, info(future={"a": [1]}), future=1),
    "nulls": container(
        None, info(options=None, labels=None, routes=None, ipam_options=None), port_mappings=None
    ),
    "two IP versions": container(
        {"blue": joined("10.99.0.5", "fd99::5")}, info("blue", "10.99.0.0/24", "fd99::/64")
    ),
    "two addresses in a subnet": container({"blue": joined("10.99.0.5", "10.99.0.6")}),
    "ports": container(
        port_mappings=[
            mapped(80),
            mapped(90, protocol="tcp,udp", range=10),
            mapped(53, protocol=""),
            mapped(80, host_ip="127.0.0.1", protocol="udp"),
        ]
    ),
    "every option": container(
        {"blue": joined(options={"mtu": "1300", "host_interface_name": "veth-x", "metric": "7"})},
        info(
            options={"mtu": "1400", "isolate": "strict", "metric": "50", "no_default_route": "true"},
            routes=[{"destination": "10.200.0.0/24", "gateway": "10.99.0.7", "metric": 50}],
        ),
    ),
    "routes that lead nowhere": container(
        None, info(routes=[{"destination": "10.9.0.0/16", "route_type": "blackhole"}])
    ),
    "a subnet with bits beyond its prefix": container(
        None, info(subnets=[{"subnet": "10.99.0.7/24", "gateway": "10.99.0.1"}])
    ),
    "an id that is not hex": container(container_id="someID"),
    "a name that is none": container(name="a b"),
    "no name": container(name=""),
}


@pytest.mark.parametrize("document", GOOD.values(), ids=GOOD)
def test_a_good_document_gets_as_far_as_the_namespace(document: Document) -> None:
    assert "invalid namespace path" in refused(setup(document))


def test_a_container_on_no_network_needs_its_namespace_only() -> None:
    assert "host's own" in refused(setup(container({})))


def test_what_was_never_there_is_torn_down() -> None:
    for path in (OWN, "/run/netns/none", ""):
        assert call(*GLOBALS, "teardown", path, document=container()) == Heard(0, "", "")


def test_update_prints_nothing() -> None:
    for servers in ("", "9.9.9.9,2620:fe::fe"):
        for words in (("--network-dns-servers", servers), (f"--network-dns-servers={servers}",), ()):
            assert call(*GLOBALS, "update", "blue", *words) == Heard(0, "", "")


# What is wrong -----------------------------------------------------------------------------------------------------------


LONG = "x" * 300
HOSTILE: dict[str, object] = {
    "nothing": b"",
    "cut short": json.dumps(container()).encode()[:100],
    "no JSON": b"\xff\xfe{",
    "a list": [],
    "a string": "setup",
    "a number": 7,
    "too deep": b"[" * 100_000,
    "an endless number": b'{"container_id": ' + b"9" * 10_000 + b"}",
    "10 MB of nothing": b" " * 10_000_000,
    "10 MB of a name": container({("n" * 10_000_000): joined()}),
    "10 MB of an id that is a list": merged("container_id", ["x" * 10_000_000]),
    "no id": merged("container_id", ...),
    "an empty id": merged("container_id", ""),
    "networks of no kind": merged("networks", "blue"),
    "an array without names": merged("networks", [joined()]),
    "a network nobody describes": merged("networks/green", joined("10.98.0.2", ifname="eth1")),
    "an address outside the subnet": container({"blue": joined("10.98.0.2")}),
    "an address of the other IP version": container({"blue": joined("fd99::2")}),
    "no subnet for an address": container(None, info(subnets=[])),
    "a network that is null": merged("network_info/blue", None),
    "two with one interface": container(
        {"blue": joined(), "red": joined("10.98.0.2")}, info(), info("red", "10.98.0.0/24")
    ),
}
WRONG_VALUES: dict[str, list[Any]] = {
    "container_id": [None, 7, [], {}],
    "container_name": [7, [], {}],
    "port_mappings": [7, "80", {}, [7], ["80:80"]],
    "port_mappings/0/host_port": [0, None, 65536, -1, "http", "80", 1.5, True, 1 << 70],
    "port_mappings/0/container_port": [0, None, 65536, -1, "http", 1.5],
    "port_mappings/0/range": [-1, 65536, "2", 60_000],
    "port_mappings/0/protocol": ["icmp", "tcp,", "tcp,nonsense", 6, "t" * 300],
    "port_mappings/0/host_ip": ["abcd", "10.0.0.0/8", "1.2.3", 7, LONG, "::1", "ff02::1"],
    "dns_servers": ["8.8.8.8", ["dns.example"], [7], {}],
    "network_info": [7, "blue", ["blue"]],
    "networks/blue": [None, 7, "eth0", []],
    "networks/blue/interface_name": [None, "", "a/b", "..", "a\nb", "a b", LONG, 7, "eth%d"],
    "networks/blue/static_ips": [None, [], "10.99.0.5", [7], ["10.99.0.5/24"], ["here"], {}, [LONG]],
    "networks/blue/static_mac": ["nonsense", "01:00:5e:00:00:01", "00:00:00:00:00:00", 7, LONG],
    "networks/blue/aliases": ["web", [7], {}],
    "networks/blue/options": [[], "x", {"mtu": 1400}, {"mtu": "big"}, {"host_interface_name": "a/b"}],
    "network_info/blue/driver": ["ipvlan", "nonsense", 7, LONG],
    "network_info/blue/id": [7, []],
    "network_info/blue/network_interface": ["a/b", "..", "a\nb", LONG, 7],
    "network_info/blue/subnets": ["10.99.0.0/24", [7], ["10.99.0.0/24"], {}],
    "network_info/blue/subnets/0/subnet": ["10.99.0.0", "nonsense", "10.99.0.0/33", None, 7, "fd00::/129"],
    "network_info/blue/subnets/0/gateway": ["nonsense", 7, "10.99.0.1/24"],
    "network_info/blue/routes": ["x", [7], [{}], [{"destination": "nonsense", "gateway": "10.99.0.9"}]],
    "network_info/blue/internal": ["true", 1, "no"],
    "network_info/blue/dns_enabled": ["true", 1],
    "network_info/blue/network_dns_servers": ["9.9.9.9", ["nonsense"], [7]],
    "network_info/blue/ipam_options": [
        {"driver": "dhcp"},
        {"driver": "none"},
        {"driver": "someDriver"},
        {"driver": 7},
        [],
    ],
    "network_info/blue/options": [
        [],
        {"mtu": "-1"},
        {"mtu": "65536"},
        {"mtu": "1e3"},
        {"mtu": 1400},
        {"isolate": "perhaps"},
        {"vlan": "10"},
        {"vrf": "red"},
        {"mode": "nonsense"},
        {"metric": "many"},
        {"metric": "4294967296"},
        {"no_default_route": "yes"},
        {"outbound_addr4": "fd00::1"},
        {"outbound_addr4": "nonsense"},
        {"mtu": "٣"},
    ],
}
for _place, _values in WRONG_VALUES.items():
    for _value in _values:
        HOSTILE[f"{_place} = {str(_value)[:40]!r}"] = merged(_place, _value)


@pytest.mark.parametrize("document", HOSTILE.values(), ids=[re.sub(r"\W+", "-", each) for each in HOSTILE])
def test_what_is_wrong_is_told_before_anything_is_looked_at(document: object, records: Path) -> None:
    message = refused(setup(document))
    assert "namespace" not in message
    assert len(message) < 1000


@pytest.mark.parametrize("key", ["a/b", "..", "a\nb", LONG, "", " ", "-x", "ü"])
def test_the_name_of_a_network_is_checked(key: str) -> None:
    assert "namespace" not in refused(setup(container({key: joined()}, info(key))))


@pytest.mark.parametrize(
    "path", ["", "/", "/proc", "relative", "/run/netns/../x", "/a\nb", f"/{LONG * 20}", "/dev/null"]
)
def test_the_path_of_a_namespace_is_checked(path: str) -> None:
    assert "namespace" in refused(setup(container(), path))


@pytest.mark.parametrize(
    "document", [b"", b"{", [], {}, 7, {"container_id": 7}, {"container_id": "a", "networks": 7}]
)
def test_a_teardown_of_nonsense_is_refused(document: object) -> None:
    refused(call(*GLOBALS, "teardown", OWN, document=document))


@pytest.mark.parametrize("words", [("../x",), ("a b",), ("",), ("blue", "--network-dns-servers", "nonsense")])
def test_an_update_of_nonsense_is_refused(words: tuple[str, ...]) -> None:
    if len(words) == 1:
        words = (*words, "--network-dns-servers", "9.9.9.9")
    refused(call(*GLOBALS, "update", *words))


def test_nothing_that_was_refused_is_on_record(records: Path) -> None:
    assert not [
        each.name for each in records.iterdir() if each.name not in ("state.db", "locks", "netavark.lock")
    ]


JSON = some.recursive(
    some.none()
    | some.booleans()
    | some.integers()
    | some.floats(allow_nan=False)
    | some.text(max_size=20)
    | some.sampled_from(["eth0", "blue", "10.99.0.5", "fd00::1", "10.99.0.0/24", "tcp", CONTAINER]),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
PLACES = sorted({each.partition(" = ")[0] for each in HOSTILE if "/" in each} | {"networks", "network_info"})


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=some.sampled_from(PLACES), value=JSON)
def test_any_value_anywhere_is_answered(place: str, value: object) -> None:
    refused(setup(merged(place, value)))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_document_is_answered(data: bytes) -> None:
    refused(setup(data))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    some.lists(
        some.sampled_from([*GLOBALS, "setup", "update", "-f", "-c", "=", "--", OWN]) | some.text(max_size=5)
    )
)
def test_any_command_line_is_answered(words: list[str]) -> None:
    heard = call(*[word.replace("create", "") for word in words], document=container())
    assert heard.status in (0, 1, 2)
    assert heard.status != 1 or "internal error" not in refused(heard)
