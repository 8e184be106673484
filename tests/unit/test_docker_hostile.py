"""What nobody should send to the Docker plugin: an error of the protocol, never a traceback, and nothing is left behind."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from tests.unit.test_docker_documents import CREATE_20, CREATE_28, ENDPOINT, NETWORK
from vethwork.engine.engine import Engine
from vethwork.frontends.docker.document import Section
from vethwork.frontends.docker.protocol import METHODS, WITHOUT_DOCUMENT, answer

if TYPE_CHECKING:
    from collections.abc import Iterator

WITH_DOCUMENT = sorted(set(METHODS) - WITHOUT_DOCUMENT)
TEARDOWN = {
    "NetworkDriver.DeleteNetwork",
    "NetworkDriver.DeleteEndpoint",
    "NetworkDriver.Leave",
    "NetworkDriver.RevokeExternalConnectivity",
}
SILENT = {"NetworkDriver.DiscoverNew", "NetworkDriver.DiscoverDelete", "NetworkDriver.GwAllocCheck"}

NAMES = {
    "slash": "a/b",
    "parent": "..",
    "parents": "../../../etc/passwd",
    "newline": "a\nb",
    "long": "a" * 300,
    "empty": "",
    "nul": "a\0b",
    "space": "a b",
    "dash": "-rf",
    "quote": "a'; rm -rf /; '",
    "surrogate": "\ud800",
    "umlaut": "nät",
    "brace": "{ type filter }",
    "number": 7,
    "list": ["a"],
    "object": {"a": "b"},
    "null": None,
    "flag": True,
}


@pytest.fixture(autouse=True)
def nothing_is_on_record() -> Iterator[None]:
    """Whatever was sent, it left nothing."""
    yield
    with Engine() as engine:
        assert engine.networks() == ()
        assert engine.containers() == ()
        assert engine.store.intents() == ()


def refused(method: str, document: Any, *statuses: int) -> str:
    status, said = answer(method, json.dumps(document).encode())
    assert status in (statuses or (200, 400)), said
    assert said["Err"], said
    assert said["Err"] == said["Error"]
    assert "internal error" not in said["Err"]
    assert "Traceback" not in said["Err"]
    assert len(said["Err"]) < 1000
    json.dumps(said).encode()
    return str(said["Err"])


@pytest.mark.parametrize("method", WITH_DOCUMENT)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        json.dumps(CREATE_20).encode()[:-20],
        b"null",
        b"[]",
        b"7",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"NetworkID":' * 5000,
        b"9" * 10_000,
        b" " * (Section.largest + 1),
        b'{"NetworkID":"' + b"a" * (10 << 20) + b'"}',
    ],
    ids=[
        "empty",
        "brace",
        "truncated",
        "null",
        "array",
        "number",
        "text",
        "binary",
        "deep",
        "nested",
        "digits",
        "blank",
        "10 MB",
    ],
)
def test_what_is_no_document(method: str, body: bytes) -> None:
    status, said = answer(method, body)
    assert status == 400, said
    assert "internal error" not in said["Err"]


def test_a_method_that_is_not_known() -> None:
    for method in (
        "",
        "NetworkDriver",
        "NetworkDriver.AllocateNetwork",
        "x" * 10_000,
        "../x",
        "Plugin.Activate\n",
    ):
        status, said = answer(method, b"{}")
        assert status == 404
        assert len(said["Err"]) < 200


def test_what_needs_no_document_takes_any() -> None:
    for method in WITHOUT_DOCUMENT:
        for body in (b"", b"null", b"{}", b"nonsense", b"[]"):
            assert answer(method, body)[0] == 200


@pytest.mark.parametrize("method", sorted(set(WITH_DOCUMENT) - SILENT))
@pytest.mark.parametrize("name", NAMES.values(), ids=list(NAMES))
def test_names(method: str, name: Any) -> None:
    for key in ("NetworkID", "EndpointID", "PoolID"):
        document = CREATE_20 | {"EndpointID": ENDPOINT, "PoolID": "10.55.0.0/24", "Address": "10.55.0.9"}
        of_ipam = method.startswith("IpamDriver")
        if (key == "PoolID") != of_ipam or method == "IpamDriver.RequestPool":
            continue
        if key == "EndpointID" and method.endswith("Network"):
            continue
        refused(method, document | {key: name})


@pytest.mark.parametrize("name", NAMES.values(), ids=list(NAMES))
@pytest.mark.parametrize("key", ["name", "bridge"])
def test_names_in_options(key: str, name: Any) -> None:
    if name in ("", None):
        return  # which means that nothing was said
    refused(
        "NetworkDriver.CreateNetwork", CREATE_20 | {"Options": {"com.docker.network.generic": {key: name}}}
    )


@pytest.mark.parametrize(
    "change",
    [
        {"Options": []},
        {"Options": "x"},
        {"Options": {"com.docker.network.generic": []}},
        {"Options": {"com.docker.network.generic": {"mtu": 1400}}},
        {"Options": {"com.docker.network.generic": {"mtu": "many"}}},
        {"Options": {"com.docker.network.generic": {"mtu": "-1"}}},
        {"Options": {"com.docker.network.generic": {"mtu": "99999"}}},
        {"Options": {"com.docker.network.generic": {"icc": "perhaps"}}},
        {"Options": {"com.docker.network.generic": {"colour": "blue"}}},
        {"Options": {"com.docker.network.enable_ipv6": "perhaps"}},
        {"Options": {"com.docker.network.internal": 7}},
        {"IPv4Data": {}, "IPv6Data": "x"},
        {"IPv4Data": [None]},
        {"IPv4Data": ["10.55.0.0/24"]},
        {"IPv4Data": [{"Pool": 7}]},
        {"IPv4Data": [{"Pool": "10.55.0.0"}]},
        {"IPv4Data": [{"Pool": "10.55.0.1/24"}]},
        {"IPv4Data": [{"Pool": "10.55.0.0/33"}]},
        {"IPv4Data": [{"Pool": "10.55.0.0/24", "Gateway": "10.56.0.1/24"}]},
        {"IPv4Data": [{"Pool": "10.55.0.0/24", "Gateway": "10.55.0.0/24"}]},
        {"IPv4Data": [{"Pool": "10.55.0.0/24", "Gateway": "nowhere"}]},
        {"IPv4Data": [{"Pool": "10.55.0.0/24", "AuxAddresses": []}]},
        {"IPv4Data": [{"Pool": "10.55.0.0/24", "AuxAddresses": {"a": 7}}]},
        {"IPv4Data": [{"Pool": "10.55.0.0/24"}, {"Pool": "10.56.0.0/24"}]},
        {"IPv4Data": [{"Pool": "127.0.0.0/8"}]},
        {"IPv4Data": [{"Pool": "224.0.0.0/24"}]},
        {"IPv4Data": [{"Pool": "10.55.0.0/31"}]},
    ],
    ids=str,
)
def test_networks(change: dict[str, Any]) -> None:
    refused("NetworkDriver.CreateNetwork", CREATE_20 | change)


@pytest.mark.parametrize(
    "method", ["CreateEndpoint", "Join", "EndpointOperInfo", "ProgramExternalConnectivity"]
)
def test_a_network_that_is_not_there(method: str) -> None:
    said = refused(f"NetworkDriver.{method}", {"NetworkID": NETWORK, "EndpointID": ENDPOINT}, 200)
    assert "is not on record" in said


@pytest.mark.parametrize("method", sorted(TEARDOWN))
def test_the_end_of_what_is_not_there(method: str) -> None:
    assert answer(method, json.dumps({"NetworkID": NETWORK, "EndpointID": ENDPOINT}).encode()) == (200, {})


@pytest.mark.parametrize(
    ("method", "document"),
    [
        ("RequestPool", {"Pool": "10.55.0.0"}),
        ("RequestPool", {"Pool": "10.55.0.1/24"}),
        ("RequestPool", {"Pool": 7}),
        ("RequestPool", {"Pool": "10.55.0.0/24", "SubPool": "10.56.0.0/25"}),
        ("RequestPool", {"Pool": "10.55.0.0/24", "SubPool": "10.55.0.0/16"}),
        ("RequestPool", {"SubPool": "10.55.0.0/25"}),
        ("RequestPool", {"Pool": "10.55.0.0/24", "V6": "perhaps"}),
        ("RequestAddress", {"PoolID": "10.55.0.0/24", "Address": "nowhere"}),
        ("RequestAddress", {"PoolID": "10.55.0.0/24", "Address": "10.56.0.9"}),
        ("RequestAddress", {"PoolID": "10.55.0.0/24", "Address": "fd00::1"}),
        ("RequestAddress", {"PoolID": "10.55.0.0/24"}),
        ("RequestAddress", {"PoolID": "10.55.0.0/24", "Options": []}),
        ("RequestAddress", {"PoolID": "x"}),
        ("ReleaseAddress", {"PoolID": "10.55.0.0/24"}),
        ("ReleaseAddress", {"PoolID": "10.55.0.0/24", "Address": 7}),
        ("ReleasePool", {"PoolID": "10.55.0.0/24,nonsense"}),
    ],
)
def test_ipam(method: str, document: dict[str, Any]) -> None:
    refused(f"IpamDriver.{method}", document)


JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=20),
    lambda inner: (
        some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=15,
)
LONG = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@LONG
@given(some.sampled_from(WITH_DOCUMENT), some.binary(max_size=200))
def test_any_bytes(method: str, body: bytes) -> None:
    assert answer(method, body)[0] == 400


@LONG
@given(some.sampled_from(WITH_DOCUMENT), some.data())
def test_any_value_in_any_place(method: str, data: some.DataObject) -> None:
    """A document of dockerd's in which one value is replaced. What it names is nowhere, so nothing comes of it."""
    document: Any = json.loads(json.dumps(data.draw(some.sampled_from([CREATE_20, CREATE_28]))))
    document |= {
        "EndpointID": ENDPOINT,
        "SandboxKey": "/run/docker/netns/x",
        "Interface": {"Address": "10.55.0.9/24", "AddressIPv6": "", "MacAddress": "02:00:00:00:00:01"},
        "PoolID": "10.55.0.0/24",
        "Pool": "nowhere",
        "Address": "10.55.0.9",
    }
    if method.endswith("CreateNetwork"):
        document["Options"]["com.docker.network.generic"]["colour"] = "unknown"
    where = document
    while isinstance(where, dict | list) and where:
        keys = list(where) if isinstance(where, dict) else list(range(len(where)))
        key = data.draw(some.sampled_from(keys))
        if not isinstance(where[key], dict | list) or data.draw(some.booleans()):
            where[key] = data.draw(JSON)
            break
        where = where[key]
    if "nowhere" not in json.dumps(document) and method.endswith("RequestPool"):
        return
    if "unknown" not in json.dumps(document) and method.endswith("CreateNetwork"):
        return
    status, said = answer(method, json.dumps(document).encode())
    assert status in (200, 400), said
    assert "internal error" not in said.get("Err", "")
