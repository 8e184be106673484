"""``netavark create``: what is left open is chosen, what is wrong refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.podman import Document, call, network_id

ID = network_id("blue")


def create(network: Document | None = None, used: Document | None = None, **options: Any) -> Document:
    """Ask for a network; gives what was answered, an error too."""
    document = {
        "network": {"name": "blue", "id": ID, "driver": "bridge", "dns_enabled": True} | (network or {}),
        "used": {"interfaces": [], "names": {}, "subnets": []} | (used or {}),
        "options": {
            "subnet_pools": [{"base": "10.89.0.0/16", "size": 24}, {"base": "10.90.0.0/15", "size": 24}],
            "default_interface_name": "podman",
            "check_used_subnets": True,
        }
        | options,
    }
    heard = call("create", document=document)
    assert heard.status == int("error" in heard.document)
    assert heard.err == ""
    answer: Document = heard.document
    return answer


def test_everything_is_chosen() -> None:
    made = create()
    assert made.pop("created").startswith("20")
    assert made == {
        "name": "blue",
        "id": ID,
        "driver": "bridge",
        "network_interface": "podman0",
        "subnets": [{"subnet": "10.89.0.0/24", "gateway": "10.89.0.1"}],
        "ipv6_enabled": False,
        "dns_enabled": True,
        "ipam_options": {"driver": "host-local"},
    }


def test_what_is_in_use_is_kept_clear_of() -> None:
    used = {"interfaces": ["podman0", "podman2", "eth0"], "subnets": ["10.89.0.0/23", "10.89.2.128/25"]}
    made = create(used=used)
    assert made["network_interface"] == "podman1"
    assert made["subnets"] == [{"subnet": "10.89.3.0/24", "gateway": "10.89.3.1"}]
    made = create(used={"subnets": ["10.89.0.0/16"]})
    assert made["subnets"][0]["subnet"] == "10.90.0.0/24"
    assert "free subnet" in create(used={"subnets": ["10.88.0.0/13"]})["error"]


def test_ipv6_gets_a_random_prefix_beside_what_is_given() -> None:
    made = create({"ipv6_enabled": True})
    four, six = made["subnets"]
    assert four["subnet"] == "10.89.0.0/24"
    assert six["subnet"].startswith("fd")
    assert six["subnet"].endswith("::/64")
    assert six["gateway"] == six["subnet"].replace("/64", "1")
    assert create({"ipv6_enabled": True})["subnets"][1] != six
    made = create({"ipv6_enabled": True, "subnets": [{"subnet": "fd99::/64"}]})
    assert [each["subnet"] for each in made["subnets"]] == ["fd99::/64", "10.89.0.0/24"]


def test_a_subnet_that_is_given_speaks_for_itself() -> None:
    made = create({"subnets": [{"subnet": "fd99::/64", "lease_range": {"start_ip": "fd99::9"}}]})
    assert made["ipv6_enabled"] is True
    assert made["subnets"] == [
        {"subnet": "fd99::/64", "gateway": "fd99::1", "lease_range": {"start_ip": "fd99::9"}}
    ]
    made = create({"subnets": [{"subnet": "10.1.2.0/24", "gateway": "10.1.2.254"}]})
    assert made["subnets"][0]["gateway"] == "10.1.2.254"


def test_an_internal_network_without_names_has_no_gateway() -> None:
    assert create({"internal": True, "dns_enabled": False})["subnets"] == [{"subnet": "10.89.0.0/24"}]
    assert "gateway" in create({"internal": True})["subnets"][0]


def test_a_macvlan_gets_no_subnet_and_no_names() -> None:
    made = create({"driver": "macvlan", "network_interface": "eth0"})
    assert made["ipam_options"] == {"driver": "none"}
    assert made["subnets"] == []
    assert made["dns_enabled"] is False
    made = create({"driver": "macvlan", "subnets": [{"subnet": "192.0.2.0/24"}], "options": {"mode": "vepa"}})
    assert made["subnets"] == [{"subnet": "192.0.2.0/24", "gateway": "192.0.2.1"}]


def test_what_was_given_stays() -> None:
    given = {"labels": {"a": "b"}, "options": {"mtu": "1400", "isolate": "true"}, "future": [1]}
    made = create(given | {"created": "2026-01-02T03:04:05Z", "network_interface": "br9"})
    assert given.items() <= made.items()
    assert made["created"] == "2026-01-02T03:04:05Z"
    assert made["network_interface"] == "br9"


@pytest.mark.parametrize(
    ("network", "word"),
    [
        ({"name": "old"}, "already used"),
        ({"name": "../x"}, "name"),
        ({"name": ""}, "name"),
        ({"id": "abc"}, "ID"),
        ({"id": "g" * 64}, "ID"),
        ({"driver": "ipvlan"}, "driver"),
        ({"options": {"nonsense": "1"}}, "option"),
        ({"options": {"mtu": "big"}}, "mtu"),
        ({"options": {"mode": "unmanaged"}}, "named"),
        ({"network_interface": "taken0"}, "already in use"),
        ({"network_interface": "a/b"}, "interface name"),
        ({"subnets": [{"subnet": "10.5.0.0/16"}]}, "already used"),
        ({"subnets": [{"subnet": "nonsense"}]}, "nonsense"),
        ({"subnets": [{"subnet": "10.6.0.0/24", "gateway": "10.7.0.1"}]}, "gateway"),
        ({"subnets": [{"subnet": "10.6.0.0/24", "lease_range": {"end_ip": "10.7.0.1"}}]}, "lease range"),
        ({"ipam_options": {"driver": "dhcp"}}, "dhcp"),
    ],
)
def test_what_is_wrong_is_refused(network: Document, word: str) -> None:
    used = {"names": {"old": ID}, "interfaces": ["taken0"], "subnets": ["10.5.5.0/24"]}
    assert word in create(network, used)["error"]


@pytest.mark.parametrize("size", [0, 8, 33, -1])
def test_a_pool_that_makes_no_sense(size: int) -> None:
    assert "pool" in create(subnet_pools=[{"base": "10.89.0.0/16", "size": size}])["error"]
