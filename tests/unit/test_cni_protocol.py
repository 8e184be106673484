"""The CNI plugin's protocol, with its environment and streams handed in: no process, and no kernel is changed."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from tests.heard import Heard
from vethwork import __version__
from vethwork.frontends.cni.main import run
from vethwork.frontends.cni.protocol import VERSIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("records")

CONF: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "blue",
    "type": "vethwork-cni",
    "bridge": "cni7",
    "isGateway": True,
    "ipMasq": True,
    "hairpinMode": True,
    "mtu": 1400,
    "isolate": "same-bridge",
    "icc": True,
    "internal": False,
    "ipam": {
        "type": "internal",
        "ranges": [
            [
                {
                    "subnet": "10.7.0.0/24",
                    "rangeStart": "10.7.0.9",
                    "rangeEnd": "10.7.0.99",
                    "gateway": "10.7.0.1",
                }
            ]
        ],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.7.0.1", "priority": 5}],
    },
    "dns": {"nameservers": ["10.7.0.1"], "domain": "x", "search": ["x"], "options": ["ndots:1"]},
    "capabilities": {"portMappings": True},
    "runtimeConfig": {
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"}],
        "ips": ["10.7.0.5/24"],
        "mac": "02:00:00:00:00:05",
        "ipRanges": [[{"subnet": "10.7.0.0/24"}]],
        "dns": {"servers": ["9.9.9.9"], "searches": [], "options": []},
        "aliases": {"blue": ["web"]},
    },
    "args": {
        "cni": {"ips": ["10.7.0.5"], "mac": "02:00:00:00:00:05", "labels": [{"key": "a", "value": "b"}]}
    },
}
BEHIND: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "blue",
    "type": "vethwork-cni",
    "sysctl": {"net.core.somaxconn": "512"},
    "ingressPolicy": "open",
    "runtimeConfig": {
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}],
        "ips": ["10.7.0.5/24"],
        "mac": "02:00:00:00:00:05",
    },
    "prevResult": {
        "cniVersion": "1.0.0",
        "interfaces": [
            {"name": "cni0", "mac": "02:00:00:00:00:01"},
            {"name": "veth1", "mac": "02:00:00:00:00:02"},
            {"name": "eth0", "mac": "02:00:00:00:00:05", "sandbox": "/run/netns/x"},
        ],
        "ips": [{"address": "10.7.0.5/24", "gateway": "10.7.0.1", "interface": 2}],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dns": {},
    },
}
"""A configuration behind another plugin's."""
OWN = "/proc/self/ns/net"


def call(command: str, document: object = CONF, **environ: str) -> Heard:
    """Call the plugin; it gets as far as the namespace, which is the caller's own, and so is refused."""
    given_environ = {"CNI_COMMAND": command, "CNI_CONTAINERID": "pod", "CNI_IFNAME": "eth0", "CNI_NETNS": OWN}
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    out, err = io.StringIO(), io.StringIO()
    status = run(given_environ | environ, io.BytesIO(data), out, err)
    return Heard(status, out.getvalue(), err.getvalue())


def refused(code: int, heard: Heard) -> str:
    """Assert that it is one error document of the specification; gives its message."""
    assert heard.status == 1
    document = heard.document
    assert set(document) <= {"cniVersion", "code", "msg", "details"}
    assert document["cniVersion"] in VERSIONS
    assert isinstance(document["msg"], str)
    assert document["code"] == code, document
    assert heard.err == ""
    return f"{document['msg']} ({document.get('details', '')})"


def merged(path: str, value: object, base: object = CONF) -> dict[str, Any]:
    """The configuration with one value replaced, added or (for an ellipsis) removed."""
    document: dict[str, Any] = json.loads(json.dumps(base))
    target: Any = document
    *above, last = [int(part) if part.isdecimal() else part for part in path.split(".")]
    for part in above:
        target = target.setdefault(part, {}) if isinstance(target, dict) else target[part]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return document


# What is right -----------------------------------------------------------------------------------------------------------


def test_without_a_command_it_says_what_it_is() -> None:
    heard = call("")
    assert (heard.status, heard.out) == (0, "")
    assert heard.err.splitlines()[0] == f"CNI vethwork plugin v{__version__}"


def test_version_needs_nothing() -> None:
    for data in (b"", b"{", json.dumps({"cniVersion": "9.9"}).encode()):
        heard = call("VERSION", data, CNI_CONTAINERID="")
        assert heard.status == 0
        assert heard.document == {"cniVersion": "1.1.0", "supportedVersions": list(VERSIONS)}


def test_a_good_configuration_gets_as_far_as_the_namespace() -> None:
    assert "host's own" in refused(8, call("ADD"))


@pytest.mark.parametrize("version", VERSIONS)
def test_an_error_is_in_the_callers_version(version: str) -> None:
    heard = call("ADD", CONF | {"cniVersion": version})
    refused(8, heard)
    assert heard.document["cniVersion"] == version


def test_no_version_means_the_first() -> None:
    assert call("ADD", merged("cniVersion", ...)).document["cniVersion"] == "0.1.0"
    assert call("ADD", merged("cniVersion", "")).document["cniVersion"] == "0.1.0"


@pytest.mark.parametrize(
    ("command", "version"), [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0"), ("STATUS", "0.1.0")]
)
def test_a_verb_is_as_old_as_its_version(command: str, version: str) -> None:
    assert "needs a configuration of version" in refused(1, call(command, CONF | {"cniVersion": version}))


@pytest.mark.parametrize(
    "path",
    [
        "bridge", "isGateway", "isDefaultGateway", "hairpinMode", "mtu", "isolate", "icc", "internal", "ipam.routes",
        "ipam.type", "dns", "capabilities", "runtimeConfig", "runtimeConfig.portMappings", "runtimeConfig.ips",
        "runtimeConfig.mac", "runtimeConfig.ipRanges", "runtimeConfig.dns", "runtimeConfig.aliases", "args", "args.cni",
        "runtimeConfig.bandwidth", "dns.nameservers", "dns.domain", "ipam.ranges.0.0.gateway", "prevResult", "sysctl",
        "runtimeConfig.portMappings.0.hostIP", "runtimeConfig.portMappings.0.protocol", "cniVersion",
        "ipam.ranges.0.0.rangeStart", "ipam.ranges.0.0.rangeEnd", "ipam.routes.0.gw", "args.cni.labels",
    ],
)  # fmt: skip
def test_null_is_missing(path: str) -> None:
    document = merged("ipMasq", False) if path == "isGateway" else dict(CONF)
    document = {**document, **{key: merged(path, None)[key] for key in [path.split(".")[0]]}}
    refused(8, call("ADD", document))


def test_everything_may_be_null_but_the_name() -> None:
    refused(8, call("ADD", {key: value if key == "name" else None for key, value in CONF.items()}))
    assert "name" in refused(7, call("ADD", dict.fromkeys(CONF)))


def test_keys_have_no_case() -> None:
    def upper(value: Any) -> Any:
        if isinstance(value, dict):
            return {key.upper(): upper(inner) for key, inner in value.items()}
        return [upper(each) for each in value] if isinstance(value, list) else value

    refused(8, call("ADD", upper(CONF)))
    assert "hostPort" in refused(7, call("ADD", upper(merged("runtimeConfig.portMappings.0.hostPort", 0))))


@pytest.mark.parametrize(
    "arguments", ["", "IP=10.7.0.5", "MAC=02:00:00:00:00:01;IgnoreUnknown=1;K8S_POD_NAME=a=b", ";"]
)
def test_arguments_are_tolerated(arguments: str) -> None:
    refused(8, call("ADD", CNI_ARGS=arguments))


@pytest.mark.parametrize("netns", ["", "/nowhere", "relative", "/etc", "\udcff"])
@pytest.mark.parametrize(
    "document", [CONF, {"name": "gone"}, CONF | {"ipam": 7, "mtu": "x", "prevResult": {"ips": 3}}]
)
def test_what_was_never_there_is_deleted(netns: str, document: object) -> None:
    for _ in range(2):
        assert call("DEL", document, CNI_NETNS=netns) == Heard(0, "", "")


@pytest.mark.parametrize("listed", [None, [], [{"containerID": "a", "ifname": "eth0"}], ...])
def test_collecting_on_a_network_that_nobody_made_is_fine(listed: object) -> None:
    document = CONF | (
        {} if listed is ... else {"cni.dev/valid-attachments": listed, "cni.dev/attachments": listed}
    )
    assert call("GC", document, CNI_CONTAINERID="", CNI_NETNS="", CNI_IFNAME="") == Heard(0, "", "")


def test_checking_what_was_never_there_says_so() -> None:
    refused(3, call("CHECK"))


# What is wrong -----------------------------------------------------------------------------------------------------------

LONG = "a" * 300
DOCUMENTS: dict[str, tuple[int, bytes]] = {
    "nothing": (6, b""),
    "blank": (6, b"  \n"),
    "cut short": (6, json.dumps(CONF).encode()[:-20]),
    "two documents": (6, json.dumps(CONF).encode() * 2),
    "null": (6, b"null"),
    "a list": (6, b"[]"),
    "a text": (6, b'"x"'),
    "not UTF-8": (6, b'{"name": "\xff\xfe"}'),
    "too deep": (6, b'{"a":' * 100_000),
    "deep in a list": (6, b"[" * 200_000),
    "a number of 10000 digits": (6, b'{"name": "x", "mtu": ' + b"9" * 10_000 + b"}"),
    "not a number": (6, b'{"name": "x", "mtu": NaN}'),
    "10 MB of spaces and no more": (6, b" " * 10_000_000),
    "more than is read": (6, b" " * (17 << 20)),
    "NUL": (6, b"\0"),
}


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_that_is_none(command: str, name: str) -> None:
    code, data = DOCUMENTS[name]
    refused(code, call(command, data))


def test_10_megabytes_that_mean_something() -> None:
    document = merged("runtimeConfig.aliases", {"blue": ["x" * 100] * 100_000})
    assert len(json.dumps(document)) > 10_000_000
    refused(8, call("ADD", document))
    listed = [{"containerID": "a" * 64, "ifname": "eth0"}] * 90_000
    assert call("GC", CONF | {"cni.dev/valid-attachments": listed}).status == 0


ENVIRONMENTS = [
    {"CNI_COMMAND": "add"},
    {"CNI_COMMAND": "UPDATE"},
    {"CNI_COMMAND": LONG},
    {"CNI_CONTAINERID": ""},
    {"CNI_CONTAINERID": LONG},
    {"CNI_CONTAINERID": "a/b"},
    {"CNI_CONTAINERID": ".."},
    {"CNI_CONTAINERID": "a\nb"},
    {"CNI_CONTAINERID": "-a"},
    {"CNI_CONTAINERID": "é"},
    {"CNI_CONTAINERID": "\udcff"},
    {"CNI_IFNAME": ""},
    {"CNI_IFNAME": "a" * 16},
    {"CNI_IFNAME": "eth/0"},
    {"CNI_IFNAME": "."},
    {"CNI_IFNAME": ".."},
    {"CNI_IFNAME": "eth 0"},
    {"CNI_IFNAME": "eth:0"},
    {"CNI_IFNAME": "eth%d"},
    {"CNI_NETNS": ""},
    {"CNI_NETNS": "relative/path"},
    {"CNI_NETNS": "/a/../b"},
    {"CNI_NETNS": "/a\nb"},
    {"CNI_NETNS": "/" + "a" * 5000},
    {"CNI_ARGS": "IP"},
    {"CNI_ARGS": "=x"},
]


@pytest.mark.parametrize("environ", ENVIRONMENTS, ids=str)
def test_an_environment_that_is_none(environ: dict[str, str]) -> None:
    refused(4, call("ADD", **environ))


def test_everything_that_is_missing_is_named_at_once() -> None:
    said = refused(4, call("ADD", CNI_CONTAINERID="", CNI_IFNAME="", CNI_NETNS=""))
    assert all(word in said for word in ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"))


@pytest.mark.parametrize(
    "netns", ["/", "/nowhere", "/etc/passwd", "/dev/null", "/proc/self/ns/uts", "/proc/self/ns/net"]
)
def test_a_namespace_that_is_none(netns: str) -> None:
    refused(8, call("ADD", CNI_NETNS=netns))


@pytest.mark.parametrize(
    ("code", "path", "value"),
    [
        (1, "cniVersion", "2.0.0"),
        (1, "cniVersion", "v1.0.0"),
        (1, "cniVersion", LONG),
        (6, "cniVersion", 1.0),
        (7, "name", ...),
        (7, "name", ""),
        (7, "name", "a/b"),
        (7, "name", ".."),
        (7, "name", "a\nb"),
        (7, "name", LONG),
        (6, "name", 7),
        (6, "name", ["blue"]),
        (7, "bridge", "a" * 16),
        (7, "bridge", "br/0"),
        (7, "bridge", "br\n"),
        (6, "bridge", {}),
        (6, "isGateway", "yes"),
        (6, "ipMasq", 1),
        (7, "isGateway", False),
        (6, "mtu", "1500"),
        (6, "mtu", True),
        (6, "mtu", 1500.5),
        (7, "isolate", "sometimes"),
        (6, "isolate", 5),
        (6, "ipam", "internal"),
        (6, "ipam", []),
        (2, "ipam.type", "dhcp"),
        (2, "ipam.type", "static"),
        (2, "ipam.resolvConf", "/etc/resolv.conf"),
        (6, "ipam.ranges", {}),
        (6, "ipam.ranges", [{"subnet": "10.7.0.0/24"}]),
        (7, "ipam.ranges.0.0.subnet", "10.7.0.0"),
        (7, "ipam.ranges.0.0.subnet", "10.7.0.1/24"),
        (7, "ipam.ranges.0.0.subnet", "10.7.0.0/33"),
        (7, "ipam.ranges.0.0.subnet", ""),
        (7, "ipam.ranges.0.0.gateway", "10.8.0.1"),
        (7, "ipam.ranges.0.0.rangeStart", "10.8.0.1"),
        (7, "ipam.ranges.0.0.rangeEnd", "10.7.0.8"),
        (2, "ipam.ranges", [[{"subnet": "10.7.0.0/24"}], [{"subnet": "10.8.0.0/24"}]]),
        (2, "ipam.ranges", [[{"subnet": "10.7.0.0/24"}, {"subnet": "10.8.0.0/24"}]]),
        (6, "dns", []),
        (6, "dns.nameservers", "9.9.9.9"),
        (6, "dns.search", [1]),
        (2, "vlan", 7),
        (2, "vlanTrunk", [{"id": 1}]),
        (2, "promiscMode", True),
        (6, "runtimeConfig", []),
        (6, "runtimeConfig.portMappings", {}),
        (6, "runtimeConfig.portMappings", ["8080:80"]),
        (7, "runtimeConfig.portMappings.0.hostPort", 0),
        (7, "runtimeConfig.portMappings.0.hostPort", -1),
        (7, "runtimeConfig.portMappings.0.hostPort", 65536),
        (6, "runtimeConfig.portMappings.0.hostPort", "http"),
        (6, "runtimeConfig.portMappings.0.hostPort", "8080"),
        (7, "runtimeConfig.portMappings.0.containerPort", 0),
        (7, "runtimeConfig.portMappings.0.containerPort", 65536),
        (6, "runtimeConfig.portMappings.0.containerPort", "http"),
        (7, "runtimeConfig.portMappings.0.protocol", "icmp"),
        (7, "runtimeConfig.portMappings.0.hostIP", "localhost"),
        (7, "runtimeConfig.portMappings.0.hostIP", "::1"),
        (7, "runtimeConfig.portMappings.0.hostIP", "224.0.0.1"),
        (6, "runtimeConfig.ips", "10.7.0.5"),
        (7, "runtimeConfig.ips", ["10.7.0"]),
        (7, "runtimeConfig.ips", ["10.7.0.5/99"]),
        (7, "runtimeConfig.mac", "02:00"),
        (7, "runtimeConfig.mac", "01:00:00:00:00:05"),
        (7, "args.cni.ips", ["x"]),
        (7, "args.cni.mac", "x"),
        (7, "runtimeConfig.ipRanges.0.0.subnet", "x"),
        (6, "ipam.routes", {"dst": "0.0.0.0/0"}),
        (7, "ipam.routes.0.dst", "0.0.0.0"),
        (7, "ipam.routes.0.dst", ""),
        (7, "ipam.routes.0.gw", "fd00::1"),
        (7, "ipam.routes.0.priority", -1),
        (2, "ipam.routes.0.table", 100),
        (6, "sysctl", ["net.core.somaxconn"]),
        (6, "sysctl", {"net.core.somaxconn": 512}),
        (7, "sysctl", {"kernel.panic": "1"}),
        (7, "sysctl", {"net": "1"}),
        (7, "sysctl", {"net/../kernel/panic": "1"}),
        (7, "sysctl", {"net.core.somaxconn\n": "1"}),
        (7, "sysctl", {"net.core.somaxconn": "1\n2"}),
        (7, "sysctl", {"net.core.somaxconn": "1; reboot"}),
        (6, "runtimeConfig.bandwidth", []),
        (6, "runtimeConfig.bandwidth", {"ingressRate": "1M"}),
        (7, "runtimeConfig.bandwidth", {"ingressRate": 1000}),
        (6, "prevResult", {"interfaces": 7}),
        (6, "prevResult", {"interfaces": ["eth0"]}),
        (6, "prevResult", {"ips": {"address": "10.7.0.2/24"}}),
        (6, "prevResult", "result"),
    ],
)  # fmt: skip
def test_a_value_that_is_none(code: int, path: str, value: object) -> None:
    said = refused(code, call("ADD", merged(path, value)))
    if code != 1:
        assert path.split(".")[0] in said or path.split(".")[-1] in said or "ipMasq" in said


@pytest.mark.parametrize(
    ("code", "path", "value"),
    [
        (1, "prevResult.cniVersion", "0.4.0"),
        (6, "prevResult.cniVersion", 1),
        (6, "prevResult.interfaces.2.name", 7),
        (6, "prevResult.ips.0.address", ["10.7.0.5/24"]),
        (7, "prevResult.ips.0.address", "10.7.0.5"),
        (7, "prevResult.ips.0.address", LONG),
        (7, "prevResult.interfaces.2.mac", "02:00"),
        (7, "prevResult.interfaces.2.mac", "02:00:00:00:00:06"),
        (7, "prevResult.interfaces.0.name", "a/b"),
        (7, "prevResult.interfaces.0.name", ".."),
        (7, "prevResult.interfaces.0.name", "a\nb"),
        (7, "prevResult.interfaces.0.name", LONG),
        (7, "prevResult.ips", []),
        (7, "names", True),
        (7, "mtu", 0),
    ],
)
def test_a_result_that_is_none(code: int, path: str, value: object) -> None:
    refused(8, call("ADD", BEHIND))  # it gets as far as the namespace
    said = refused(code, call("ADD", merged(path, value, BEHIND)))
    assert path.split(".")[0] in said or "is asked for" in said


@pytest.mark.parametrize(
    ("code", "path", "value"),
    [
        (6, "names", "yes"),
        (7, "isGateway", False),
        (6, "runtimeConfig.aliases", "web"),
        (6, "runtimeConfig.aliases", {"blue": "web"}),
        (6, "runtimeConfig.aliases", {"blue": [7]}),
        (7, "runtimeConfig.aliases", ["a b"]),
        (7, "runtimeConfig.aliases", ["a,b"]),
        (7, "runtimeConfig.aliases", ["a\nb"]),
        (7, "runtimeConfig.aliases", [LONG]),
    ],
)
def test_names_that_are_none(code: int, path: str, value: object) -> None:
    """Where there is no aardvark-dns, that is said first."""
    heard = call("ADD", merged(path, value, CONF | {"names": True, "ipMasq": False}))
    if "there is no aardvark-dns" not in heard.out:
        refused(code, heard)


def test_a_wrong_value_is_told_with_its_place() -> None:
    said = refused(6, call("ADD", merged("runtimeConfig.portMappings.0.hostPort", "http")))
    assert "runtimeConfig.portMappings[0].hostPort: must be a whole number, and is a text" in said


# Anything at all ---------------------------------------------------------------------------------------------------------

JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=8)
    | some.sampled_from(["10.7.0.0/24", "10.7.0.5", "fd00::/64", "0.0.0.0/0", "tcp", "blue", "02:00:00:00:00:05"]),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def places(value: Any, above: str = "") -> Iterator[str]:
    """Every place in the configuration."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield f"{above}{key}"
        yield from places(inner, f"{above}{key}.")


VERBS = some.sampled_from(["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"])
CALM = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def assert_spoken(command: str, heard: Heard) -> None:
    """Assert that the answer is one of the protocol's, and that nobody was surprised."""
    assert heard.err == ""
    if heard.status:
        document = heard.document
        assert isinstance(document["code"], int)
        assert document["code"] != 999, document
        assert document["cniVersion"] in VERSIONS
    else:
        assert (heard.out == "") == (command != "VERSION")


@CALM
@given(VERBS, some.binary(max_size=200))
def test_any_bytes(command: str, data: bytes) -> None:
    assert_spoken(command, call(command, data))


@CALM
@given(VERBS, some.dictionaries(some.sampled_from([*CONF, "prevResult", "cni.dev/attachments"]), JSON))
def test_any_document(command: str, document: dict[str, Any]) -> None:
    assert_spoken(command, call(command, json.dumps(document).encode()))


@CALM
@given(VERBS, some.sampled_from(sorted(places(CONF))), JSON)
def test_any_value_anywhere(command: str, place: str, value: object) -> None:
    assert_spoken(command, call(command, json.dumps(merged(place, value)).encode()))


@CALM
@given(VERBS, some.sampled_from(sorted(places(BEHIND))), JSON)
def test_any_value_behind_another_plugin(command: str, place: str, value: object) -> None:
    assert_spoken(command, call(command, json.dumps(merged(place, value, BEHIND)).encode()))


@CALM
@given(
    VERBS,
    some.dictionaries(
        some.sampled_from(["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS", "CNI_PATH"]),
        some.text(some.characters(exclude_characters="\0"), max_size=300),
    ),
)
def test_any_environment(command: str, environ: dict[str, str]) -> None:
    assert_spoken(command, call(command, **environ))
