"""What dockerd sends, as 20.10 and as 28 and 29 send it, and what is made of it: no socket, and no kernel."""

from __future__ import annotations

from typing import Any

import pytest

from vethwork.errors import RequestError
from vethwork.frontends.docker.document import Section, engine_id
from vethwork.frontends.docker.endpoint import parse_endpoint, parse_ports
from vethwork.frontends.docker.network import parse_network
from vethwork.model.address import Address, Mac, Prefix
from vethwork.model.container import Container
from vethwork.model.names import Name, NetnsPath
from vethwork.model.network import Network, NetworkRequest, Subnet

NETWORK = "63b3fc9a5790f6559bc302ed6664734453962919a89d22d512c14c9635cf29ee"
ENDPOINT = "2e760ed04bc94716012a0da4cc0cf95d027f8a1e2850b4d87c2d19fa39667df8"
BLUE = Network(
    engine_id(NETWORK),
    Name("docker-63b3fc9a5790"),
    "bridge",
    "vw-63b3fc9a5790",  # type: ignore[arg-type]
    (Subnet(Prefix.parse("10.55.0.0/24"), Address.parse("10.55.0.1"), Prefix.parse("10.55.0.0/24")),),
    1500,
)

CREATE_20: dict[str, Any] = {
    "NetworkID": NETWORK,
    "Options": {
        "com.docker.network.enable_ipv6": False,
        "com.docker.network.generic": {"mtu": "1400", "icc": "false"},
    },
    "IPv4Data": [{"AddressSpace": "LocalDefault", "Pool": "10.55.0.0/24", "Gateway": "10.55.0.1/24"}],
    "IPv6Data": [],
}
CREATE_28: dict[str, Any] = {
    "NetworkID": NETWORK,
    "Options": {
        "com.docker.network.enable_ipv4": True,
        "com.docker.network.enable_ipv6": True,
        "com.docker.network.internal": True,
        "com.docker.network.generic": {"com.docker.network.bridge.name": "br7", "name": "blue"},
    },
    "IPv4Data": [
        {
            "AddressSpace": "LocalDefault",
            "Pool": "10.55.0.0/24",
            "Gateway": "10.55.0.1/24",
            "AuxAddresses": {"printer": "10.55.0.9/24"},
        }
    ],
    "IPv6Data": [{"AddressSpace": "", "Pool": "fd55::/64", "Gateway": "fd55::1/64", "AuxAddresses": None}],
}


def network_of(document: dict[str, Any]) -> NetworkRequest:
    return parse_network(Section(document))


def test_a_network_of_20_10() -> None:
    assert network_of(CREATE_20) == NetworkRequest(
        Name("docker-63b3fc9a5790"),
        id=NETWORK[:32],
        subnets=(Prefix.parse("10.55.0.0/24"),),
        gateways=(Address.parse("10.55.0.1"),),
        mtu=1400,
        icc=False,
        owner="docker",
    )


def test_a_network_of_28() -> None:
    made = network_of(CREATE_28)
    assert (made.name, made.device, made.internal, made.ipv6) == ("blue", "br7", True, False)
    assert made.subnets == (Prefix.parse("10.55.0.0/24"), Prefix.parse("fd55::/64"))
    assert made.gateways == (Address.parse("10.55.0.1"), Address.parse("fd55::1"))
    assert made.held == (Address.parse("10.55.0.9"),)


def test_a_network_without_ipv4() -> None:
    options = {"com.docker.network.enable_ipv4": False, "com.docker.network.enable_ipv6": True}
    made = network_of(CREATE_28 | {"Options": options, "IPv4Data": []})
    assert made.subnets == (Prefix.parse("fd55::/64"),)
    with pytest.raises(RequestError, match="without IPv4"):
        network_of(CREATE_28 | {"Options": options, "IPv4Data": [], "IPv6Data": None})


def test_an_isolated_network_has_no_gateway_whatever_docker_set_aside() -> None:
    words = {"com.docker.network.generic": {"isolated": "true"}, "com.docker.network.internal": True}
    made = network_of(CREATE_20 | {"Options": words})
    assert (made.isolated, made.internal, made.gateways) == (True, False, ())


def test_the_null_ipam_names_no_subnet() -> None:
    data = [{"AddressSpace": "null", "Pool": "0.0.0.0/0", "Gateway": "", "AuxAddresses": None}]
    made = network_of({"NetworkID": NETWORK, "Options": None, "IPv4Data": data, "IPv6Data": None})
    assert (made.subnets, made.gateways) == ((), ())


@pytest.mark.parametrize("null", [None, {}, []])
def test_null_is_nothing(null: Any) -> None:
    made = network_of({"NetworkID": NETWORK, "Options": null or None, "IPv4Data": null or None})
    assert made == NetworkRequest(Name("docker-63b3fc9a5790"), id=NETWORK[:32], owner="docker")


def test_ids_are_recognised_by_people() -> None:
    assert engine_id(NETWORK) == NETWORK[:32]
    assert engine_id("short") != engine_id("other")
    assert len(engine_id("short")) == 32
    assert set(engine_id("X" * 64)) <= set("0123456789abcdef")


def endpoint_of(**interface: Any) -> Any:
    document = {"NetworkID": NETWORK, "EndpointID": ENDPOINT, "Interface": interface, "Options": {}}
    return parse_endpoint(Section(document), BLUE)


def test_an_endpoint() -> None:
    made = endpoint_of(Address="10.55.0.77/24", AddressIPv6="", MacAddress="")
    assert (made.name, made.id, made.handed, made.owner) == (ENDPOINT, ENDPOINT[:32], True, "docker")
    assert made.joins[0].addresses == (Address.parse("10.55.0.77"),)
    assert made.joins[0].mac is None
    made = endpoint_of(Address="10.55.0.77/24", AddressIPv6="fd55::77/64", MacAddress="02:00:00:00:00:77")
    assert made.joins[0].addresses == (Address.parse("10.55.0.77"), Address.parse("fd55::77"))
    assert made.joins[0].mac == Mac.parse("02:00:00:00:00:77")


def test_a_container_of_an_older_record_is_read() -> None:
    old = Container("1", Name("web"), "blue", NetnsPath("/x"), False, "cni")
    assert not old.handed


def port(proto: int, inside: int, first: int, last: int, host_ip: str = "") -> dict[str, Any]:
    return {
        "Proto": proto,
        "IP": "",
        "Port": inside,
        "HostIP": host_ip,
        "HostPort": first,
        "HostPortEnd": last,
    }


def ports_of(*ports: Any) -> Any:
    return parse_ports(Section({"Options": {"com.docker.network.portmap": list(ports)}}))


def test_ports() -> None:
    made = ports_of(
        port(6, 80, 8080, 8080),
        port(17, 53, 53, 53, "127.0.0.1"),
        port(132, 7, 0, 0),
        port(6, 80, 8080, 8080),
        port(6, 443, 4430, 4439),
    )
    assert [str(each) for each in made.named] == [
        "0:7/sctp",
        "8080:80/tcp",
        "127.0.0.1:53:53/udp",
    ]
    (choice,) = made.choices
    assert [each.host_port for each in choice.candidates()] == list(range(4430, 4440))


def test_neighbours_are_one_range() -> None:
    made = ports_of(*[port(6, number, number, number) for number in range(8000, 9000)])
    assert [str(each) for each in made.named] == ["8000-8999:8000-8999/tcp"]
    made = ports_of(port(6, 80, 0, 0), port(6, 81, 1, 1))
    assert len(made.named) == 2, "a port that is to be chosen has no neighbour"


@pytest.mark.parametrize(
    "bad",
    [
        port(6, 0, 8080, 8080),
        port(6, 65536, 8080, 8080),
        port(6, -1, 8080, 8080),
        port(6, 80, 65536, 65536),
        port(6, 80, -1, -1),
        port(6, 80, 8080, 8000),
        port(6, 80, 8080, 70000),
        port(1, 80, 8080, 8080),
        port(6, 80, 8080, 8080, "nowhere"),
        port(6, 80, 8080, 8080, "::1"),
        {"Proto": "tcp", "Port": 80, "HostPort": 8080},
        {"Proto": 6, "Port": "http", "HostPort": 8080},
        {"Proto": 6, "Port": 80.5, "HostPort": 8080},
        {"Proto": 6, "Port": True, "HostPort": 8080},
        {"Proto": 6, "Port": 80, "HostPort": [8080]},
        {},
        None,
        [],
        "8080:80",
    ],
)
def test_bad_ports(bad: Any) -> None:
    with pytest.raises(RequestError):
        ports_of(bad)
