"""The netavark stand-in under the real Podman: everything that is done with a network, in the user's words.

Source: podman-run(1), podman-network(1), containers.conf(5). Podman finds what it calls ``netavark`` in the directory that
CONTAINERS_HELPER_BINARY_DIR names, and there it is a launcher of ours; ``aardvark-dns`` is Podman's own.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.conformance.images import NAME
from tests.conformance.podman import HELLO, TOOLS, Podman
from vethwork.testing.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conformance.home import Home

NETWORK = """network_backend = "netavark"
network_config_dir = "{scratch}/networks"
"""
AARDVARK = "/usr/lib/podman/aardvark-dns"
MAC = "92:d0:c6:0a:29:33"


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory, home: Home) -> Iterator[Podman]:
    with Lab() as lab:
        yield on_netavark(lab, home, tmp_path_factory.mktemp("podman"))


def on_netavark(lab: Lab, home: Home, scratch: Path) -> Podman:
    """Podman with our netavark; skips the test where it is not there."""
    home.need(*TOOLS, AARDVARK)
    (scratch / "networks").mkdir()
    # What calls it for the clean-up is started by conmon, which passes little of the environment on.
    home.launch(scratch / "helpers/netavark", "netavark", lab.host.environment)
    helpers = {"CONTAINERS_HELPER_BINARY_DIR": str(scratch / "helpers")}
    return Podman(lab, home, scratch, NETWORK.format(scratch=scratch), environ=helpers)


@pytest.fixture(autouse=True)
def nothing_is_left(podman: Podman) -> Iterator[None]:
    """Every container and network goes, and gives back everything."""
    yield
    podman.clear()
    podman("network", "prune", "--force")
    assert podman.vethwork("ps") == podman.vethwork("network", "ls") == {}
    listed = json.loads(podman.host.run(["ip", "-j", "link"]).stdout)
    assert {each["ifname"] for each in listed} == {"lo", "eth0"}


def test_run_in_the_foreground(podman: Podman) -> None:
    said = podman("run", "--rm", NAME, "ping", "-c1", "-W2", podman.lab.internet.v4)
    assert f"64 bytes from {podman.lab.internet.v4}" in said.stdout
    assert said.stderr == ""


def test_what_podman_knows_of_it(podman: Podman) -> None:
    assert podman("info", "--format", "{{.Host.NetworkBackend}}").stdout.strip() == "netavark"
    podman.run("web")
    (address,) = podman.addresses("web", "podman")
    shown = podman.vethwork("ps")["web"]
    identity = podman("inspect", "web", "--format", "{{.Id}}").stdout.strip()
    assert (shown["id"], shown["endpoints"][0]["addresses"]) == (identity, [f"{address}/16"])
    assert podman.host.fetch(f"http://{address}/").text == HELLO
    assert podman("stats", "--no-stream", "--format", "{{.NetIO}}", "web").stdout.strip()


def test_ports_of_all_kinds(podman: Podman) -> None:
    podman.run(
        "web", "-p", "8080:80", "-p", "9000-9003:80-83", "-p", "127.0.0.1:8081:80", "-p", "8082:80/udp"
    )
    assert podman.fetch(podman.host.v4) == podman.fetch(podman.host.v4, 9000) == HELLO
    assert podman.host.fetch("http://127.0.0.1:8080/").text == HELLO
    assert podman.host.fetch("http://127.0.0.1:8081/").text == HELLO
    assert not podman.lab.neighbour.reaches(podman.host.v4, 8081, timeout=0.3)
    namespace = podman.lab.at(podman.vethwork("ps")["web"]["netns"], "udp")
    namespace.serve_udp_echo(80)
    assert podman.lab.neighbour.reaches(podman.host.v4, 8082, "udp")
    assert "8080" in podman("port", "web").stdout
    (address,) = podman.addresses("web", "podman")
    assert podman.ask("web", "wget", "-qO-", f"http://{podman.host.v4}:8080/") == HELLO
    podman.lab.neighbour.add_route("10.88.0.0/16", podman.host.v4)
    assert not podman.lab.neighbour.reaches(address, 80, timeout=0.3)


def test_a_port_of_podmans_choice_and_one_that_is_taken(podman: Podman) -> None:
    podman.run("web", "-p", "80")
    port = int(podman("port", "web").stdout.strip().rpartition(":")[2])
    assert podman.fetch(podman.host.v4, port) == HELLO
    said = podman("run", "--rm", "-p", f"{port}:80", NAME, "true", check=False)
    assert said.returncode == 126 or said.returncode == 125
    assert str(port) in said.stderr
    assert list(podman.vethwork("ps")) == ["web"]


def test_a_pod(podman: Podman) -> None:
    podman("pod", "create", "--name", "trio", "--infra-image", NAME, "-p", "8080:80")
    podman.run("web", "--pod", "trio")
    podman.run("other", "--pod", "trio")
    assert podman.fetch(podman.host.v4) == HELLO
    assert len(podman.vethwork("ps")) == 1
    podman("pod", "stop", "--time", "0", "trio")
    assert podman.vethwork("ps") == {}
    podman("pod", "start", "trio")
    assert podman.fetch(podman.host.v4) == HELLO


def test_a_network_from_its_making_to_its_end(podman: Podman) -> None:
    podman("network", "create", "blue", "--subnet", "10.99.0.0/24")
    podman.run("web", "--network", "blue", "-p", "8080:80")
    network = podman.vethwork("network", "ls")["blue"]
    inspected = json.loads(podman("network", "inspect", "blue").stdout)[0]
    assert network["device"] == inspected["network_interface"]
    assert inspected["id"].startswith(network["id"])
    assert podman.fetch(podman.host.v4) == HELLO
    assert "being used" in podman("network", "rm", "blue", check=False).stderr
    podman("network", "rm", "--force", "--time", "0", "blue")
    assert podman.vethwork("network", "ls") == {}


def test_connect_and_disconnect_while_it_runs(podman: Podman) -> None:
    podman("network", "create", "blue", "--subnet", "10.99.0.0/24")
    podman.run("web", "-p", "8080:80")
    podman("network", "connect", "blue", "web", "--ip", "10.99.0.77")
    assert "10.99.0.77/24" in podman.ask("web", "ip", "addr", "show", "eth1")
    assert podman.fetch(podman.host.v4) == HELLO
    podman("network", "disconnect", "podman", "web")
    assert "eth0" not in podman.ask("web", "ip", "link")
    assert podman.fetch(podman.host.v4) == HELLO
    assert "via 10.99.0.1" in podman.ask("web", "ip", "route")
    podman("network", "connect", "podman", "web")
    podman("network", "disconnect", "blue", "web")
    assert podman.fetch(podman.host.v4) == HELLO
    assert podman.pings("web", podman.lab.internet.v4)


def test_reload_and_a_foreign_flush(podman: Podman) -> None:
    podman("network", "create", "blue", "--subnet", "10.99.0.0/24")
    podman.run("web", "-p", "8080:80", "--network", "blue:mac=" + MAC, "--network", "podman")
    before = podman.ask("web", "ip", "addr")
    podman.host.run(["nft", "flush", "ruleset"])
    podman("network", "reload", "--all")
    after = podman.ask("web", "ip", "addr")
    assert [line for line in after.splitlines() if "inet " in line or "ether" in line] == [
        line for line in before.splitlines() if "inet " in line or "ether" in line
    ]
    assert podman.fetch(podman.host.v4) == HELLO
    podman.host.run(["nft", "flush", "ruleset"])
    podman.run("other", "--network", "blue")
    assert podman.fetch(podman.host.v4) == HELLO
    podman.host.run(["nft", "flush", "ruleset"])


def test_restart_stop_and_start(podman: Podman) -> None:
    podman.run("web", "-p", "8080:80")
    podman("restart", "--time", "0", "web")
    assert podman.fetch(podman.host.v4) == HELLO
    podman("stop", "--time", "0", "web")
    assert podman.vethwork("ps") == {}
    podman("start", "web")
    assert podman.fetch(podman.host.v4) == HELLO
    podman("kill", "web")
    podman("wait", "web")
    podman("start", "web")
    assert podman.fetch(podman.host.v4) == HELLO


def test_addresses_of_ones_own(podman: Podman) -> None:
    podman("network", "create", "blue", "--subnet", "10.99.0.0/24", "--subnet", "fd99::/64", "--ipv6")
    podman.run(
        "web",
        "--network",
        "blue",
        "--ip",
        "10.99.0.9",
        "--ip6",
        "fd99::9",
        "--mac-address",
        MAC,
        "-p",
        "8080:80",
    )
    assert podman.addresses("web", "blue") == ["10.99.0.9", "fd99::9"]
    assert MAC in podman.ask("web", "ip", "link", "show", "eth0")
    assert podman.fetch(podman.host.v4) == podman.fetch(podman.host.v6) == HELLO
    assert podman.pings("web", podman.lab.internet.v6)


def test_an_internal_network(podman: Podman) -> None:
    podman("network", "create", "--internal", "--subnet", "10.98.0.0/24", "inner")
    podman.run("web", "--network", "inner")
    podman.run("client", "--network", "inner")
    (address,) = podman.addresses("web", "inner")
    assert podman.ask("client", "wget", "-qO-", f"http://{address}/") == HELLO
    assert podman.ask("client", "wget", "-qO-", "http://web/") == HELLO
    assert "default" not in podman.ask("client", "ip", "route")
    # Debian's 4.3 asks for ports on it too, and takes no notice of what cannot be.
    podman.run("quiet", "--network", "inner", "-p", "8080:80")
    assert not podman.lab.neighbour.reaches(podman.host.v4, 8080, timeout=0.3)


def test_names(podman: Podman) -> None:
    podman("network", "create", "blue", "--subnet", "10.99.0.0/24", "--subnet", "fd99::/64", "--ipv6")
    podman("network", "create", "red", "--subnet", "10.98.0.0/24")
    podman.run("web", "--network", "blue", "--network-alias", "shop")
    podman.run("far", "--network", "red")
    podman.run("client", "--network", "blue")
    assert "nameserver 10.99.0.1" in podman.ask("client", "cat", "/etc/resolv.conf")
    for name in ("web", "shop", "web.dns.podman"):
        assert podman.ask("client", "wget", "-qO-", f"http://{name}/") == HELLO
    assert not podman.knows("client", "far")
    podman("network", "connect", "red", "client")
    assert podman.ask("client", "wget", "-qO-", "http://far/") == HELLO
    podman("rm", "--force", "--time", "0", "web")
    assert not podman.knows("client", "shop")
    podman.run("web", "--network", "blue", "--network-alias", "shop")
    assert podman.ask("client", "wget", "-qO-", "http://shop/") == HELLO


def test_two_networks_are_apart_unless_asked_to_meet(podman: Podman) -> None:
    for name, subnet, isolate in (
        ("blue", "10.99.0.0/24", "false"),
        ("red", "10.98.0.0/24", "false"),
        ("shy", "10.97.0.0/24", "true"),
        ("own", "10.96.0.0/24", ""),
    ):
        options = ("--opt", f"isolate={isolate}") if isolate else ()
        podman("network", "create", name, "--subnet", subnet, *options)
        podman.run(name, "--network", name)

    def meets(one: str, other: str) -> bool:
        (address,) = podman.addresses(other, other)
        return podman.pings(one, address)

    assert meets("blue", "red")
    assert meets("blue", "shy")
    assert not meets("blue", "own")
    assert not meets("own", "blue")


def test_macvlan(podman: Podman, kernel_option: Callable[[str], None]) -> None:
    kernel_option("CONFIG_MACVLAN")
    podman(
        "network",
        "create",
        "-d",
        "macvlan",
        "-o",
        "parent=eth0",
        "--subnet",
        "192.0.2.0/24",
        "--gateway",
        "192.0.2.1",
        "lan",
    )
    podman.run("web", "--network", "lan", "--ip", "192.0.2.99")
    assert podman.fetch("192.0.2.99", 80) == HELLO
    assert podman.pings("web", podman.lab.internet.v4)


def test_system_prune(podman: Podman) -> None:
    podman("network", "create", "blue")
    podman("network", "create", "unused")
    podman.run("web", "--network", "blue", "-p", "8080:80")
    podman("create", "--name", "idle", "--network", "blue", NAME)
    said = podman("system", "prune", "--force").stdout
    assert "unused" in said
    assert podman.fetch(podman.host.v4) == HELLO
    assert set(podman.vethwork("ps")) == {"web"}


def test_what_went_wrong_reaches_the_user(podman: Podman) -> None:
    podman("network", "create", "--opt", "vlan=10", "--subnet", "10.99.0.0/24", "blue")
    said = podman("run", "--rm", "--network", "blue", NAME, "true", check=False)
    assert "option vlan is not supported by vethwork" in said.stderr
    said = podman("run", "--rm", "-p", "[::1]:8080:80", NAME, "true", check=False)
    assert "the kernel cannot lead ::1 to a container" in said.stderr
