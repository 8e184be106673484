"""The CNI plugin under the real Podman, with ``network_backend = "cni"`` (Podman 3 and 4; gone in 5).

Source: containers-common(5), containers.conf(5). Podman reads a plugin's keys as they are, expands ranges of ports, hands a
container's aliases by network, and gives CNI_ARGS with IP and MAC.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.conformance.cni import SUBNET4, SUBNET6, conflist, install
from tests.conformance.images import NAME
from tests.conformance.podman import HELLO, TOOLS, Podman
from vethwork.testing.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conformance.home import Home

NETWORK = """network_backend = "cni"
cni_plugin_dirs = ["{scratch}/bin"]
network_config_dir = "{scratch}/net.d"
default_network = "pods"
"""
RED, GREEN = "10.78.0.0/24", "10.79.0.0/24"


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory, home: Home) -> Iterator[Podman]:
    home.need(*TOOLS, "/usr/lib/podman/aardvark-dns")
    scratch = tmp_path_factory.mktemp("podman")
    red = conflist("red", subnets=(RED,), portsReserved=True)
    green = conflist("green", subnets=(GREEN,), portsReserved=True, names=True)
    blue = conflist("pods", subnets=(SUBNET4, SUBNET6), portsReserved=True)
    # libcni keeps what ADD said in /var/lib/cni.
    with home.covered(scratch, "/etc", "/var/lib"), Lab() as lab:
        install(lab.host, home, scratch / "bin", scratch / "net.d", blue, red, green)
        made = Podman(lab, home, scratch, NETWORK.format(scratch=scratch))
        try:
            yield made
        finally:
            made.clear()


@pytest.fixture(autouse=True)
def nothing_is_left(podman: Podman) -> Iterator[None]:
    """Every container goes, and gives back everything."""
    yield
    podman.clear()
    assert podman.vethwork("ps") == {}


def test_the_networks_are_listed(podman: Podman) -> None:
    assert podman("info", "--format", "{{.Host.NetworkBackend}}").stdout.strip() == "cni"
    listed = json.loads(podman("network", "ls", "--format", "json").stdout)
    assert {each["name"]: each["driver"] for each in listed} == {
        "pods": "vethwork-cni",
        "red": "vethwork-cni",
        "green": "vethwork-cni",
    }


def test_run_with_a_port(podman: Podman) -> None:
    podman.run("web", "-p", "8080:80", "-p", "9000-9003:9000-9003")
    four, six = podman.addresses("web", "pods")
    assert podman.host.fetch(f"http://{four}/").text == HELLO
    assert podman.host.fetch(f"http://[{six}]/").text == HELLO
    assert podman.fetch(podman.host.v4) == HELLO
    (shown,) = podman.vethwork("ps").values()
    assert [(each["host_port"], each["count"]) for each in shown["ports"]] == [(8080, 1), (9000, 4)]
    assert podman.pings("web", podman.lab.internet.v4)


def test_addresses_of_ones_own(podman: Podman) -> None:
    podman.run("web", "--ip", "10.77.0.77", "--ip6", "fd77::77", "--mac-address", "02:00:00:00:00:77")
    assert podman.addresses("web", "pods") == ["10.77.0.77", "fd77::77"]
    assert "02:00:00:00:00:77" in podman.ask("web", "ip", "link", "show", "eth0")


def test_two_networks(podman: Podman) -> None:
    podman.run("web", "--network", "pods,red", "-p", "8080:80")
    (shown,) = podman.vethwork("ps").values()
    assert sorted((each["network"], each["interface"]) for each in shown["endpoints"]) in (
        [("pods", "eth0"), ("red", "eth1")],
        [("pods", "eth1"), ("red", "eth0")],
    )
    assert podman.fetch(podman.host.v4) == HELLO


def test_connect_and_disconnect(podman: Podman) -> None:
    podman.run("web", "-p", "8080:80")
    podman("network", "connect", "red", "web")
    assert podman.addresses("web", "red")[0].startswith("10.78.0.")
    assert "eth1" in podman.ask("web", "ip", "link")
    podman("network", "disconnect", "red", "web")
    assert "eth1" not in podman.ask("web", "ip", "link")
    assert podman.fetch(podman.host.v4) == HELLO


def test_a_pod(podman: Podman) -> None:
    podman("pod", "create", "--name", "pod", "--infra-image", NAME, "-p", "8080:80", check=True)
    podman.run("web", "--pod", "pod")
    assert podman.fetch(podman.host.v4) == HELLO
    assert len(podman.vethwork("ps")) == 1


def test_restart_and_reload(podman: Podman) -> None:
    podman.run("web", "-p", "8080:80")
    podman("restart", "--time", "0", "web")
    assert podman.fetch(podman.host.v4) == HELLO
    before = podman.addresses("web", "pods")
    podman.host.run(["nft", "flush", "ruleset"])
    podman("network", "reload", "web")
    assert podman.addresses("web", "pods") == before
    assert podman.fetch(podman.host.v4) == HELLO


def test_names(podman: Podman) -> None:
    podman.run("web", "--network", "green", "--network-alias", "shop")
    podman.run("client", "--network", "green,red")
    podman.run("far", "--network", "red")
    assert "nameserver 10.79.0.1" in podman.ask("client", "cat", "/etc/resolv.conf")
    for name in ("web", "shop", "web.dns.podman"):
        assert podman.ask("client", "wget", "-qO-", f"http://{name}/") == HELLO
    assert not podman.knows("client", "far")
    podman("rm", "--force", "--time", "0", "web")
    assert not podman.knows("client", "shop")
    podman.run("next", "--network", "green", "--network-alias", "shop")
    assert podman.ask("client", "wget", "-qO-", "http://shop/") == HELLO


def test_what_the_plugin_says_reaches_the_user(podman: Podman) -> None:
    said = podman("run", "--ip", "10.99.0.1", NAME, "true", check=False).stderr
    assert "10.99.0.1 lies in none of its subnets" in said
