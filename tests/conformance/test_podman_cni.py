"""The CNI plugin under the real Podman, with ``network_backend = "cni"`` (Podman 3 and 4; gone in 5).

Source: containers-common(5), containers.conf(5). Podman reads a plugin's keys as they are, expands ranges of ports, hands a
container's aliases by network, and gives CNI_ARGS with IP and MAC.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.cni import SUBNET4, SUBNET6, conflist, covered, install
from tests.conformance.images import NAME, make_image
from vethwork.testing.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from subprocess import CompletedProcess

CONFIG = """[containers]
default_ulimits = ["nofile=1024:4096", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "cni"
cni_plugin_dirs = ["{scratch}/bin"]
network_config_dir = "{scratch}/net.d"
default_network = "pods"
"""
SERVER = ("httpd", "-f", "-h", "/www")
HELLO = "hello from a container\n"
RED = "10.78.0.0/24"


class Podman:
    """A Podman with storage and configuration of its own, on the host of a lab."""

    def __init__(self, lab: Lab, scratch: Path, busybox: str) -> None:
        self.lab, self.host, self.scratch = lab, lab.host, scratch
        (scratch / "containers.conf").write_text(CONFIG.format(scratch=scratch))
        red = conflist("red", subnets=(RED,), portsReserved=True)
        blue = conflist("pods", subnets=(SUBNET4, SUBNET6), portsReserved=True)
        install(lab.host, scratch / "bin", scratch / "net.d", blue, red)
        make_image(scratch / "image.tar", busybox, SERVER)
        self("load", "-i", str(scratch / "image.tar"))

    def __call__(self, *arguments: str, check: bool = True) -> CompletedProcess[str]:
        """Call Podman."""
        places = [
            f"--root={self.scratch}/root",
            f"--runroot={self.scratch}/run",
            f"--tmpdir={self.scratch}/tmp",
        ]
        environ = {"CONTAINERS_CONF": str(self.scratch / "containers.conf")}
        command = ["podman", "--storage-driver=vfs", *places, *arguments]
        return self.host.run(command, env=environ, check=check, timeout=60)

    def run(self, name: str, *options: str) -> None:
        """Start a container in the background."""
        self("run", "--detach", "--name", name, *options, NAME)

    def containers(self) -> dict[str, Any]:
        """What vethwork says, by the first address."""
        return {each["name"]: each for each in json.loads(self.host.vethwork("ps", "--json").stdout)}

    def addresses(self, name: str, network: str = "pods") -> list[str]:
        """What Podman says are a container's addresses."""
        said = json.loads(self("inspect", name).stdout)[0]["NetworkSettings"]["Networks"][network]
        return [each for each in (said["IPAddress"], said["GlobalIPv6Address"]) if each]


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> Iterator[Podman]:
    for name in ("podman", "runc", "busybox"):
        tool(name)
    scratch = tmp_path_factory.mktemp("podman")
    # libcni keeps what ADD said in /var/lib/cni.
    with covered(scratch, "/etc", "/var/lib"), Lab() as lab:
        made = Podman(lab, scratch, tool("busybox"))
        try:
            yield made
        finally:
            made("rm", "--all", "--force", "--time", "0")


@pytest.fixture(autouse=True)
def nothing_is_left(podman: Podman) -> Iterator[None]:
    """Every container goes, and gives back everything."""
    yield
    podman("pod", "rm", "--all", "--force", "--time", "0")
    podman("rm", "--all", "--force", "--time", "0")
    assert podman.containers() == {}


def test_the_networks_are_listed(podman: Podman) -> None:
    assert podman("info", "--format", "{{.Host.NetworkBackend}}").stdout.strip() == "cni"
    listed = json.loads(podman("network", "ls", "--format", "json").stdout)
    assert {each["name"]: each["driver"] for each in listed} == {
        "pods": "vethwork-cni",
        "red": "vethwork-cni",
    }


def test_run_with_a_port(podman: Podman) -> None:
    podman.run("web", "-p", "8080:80", "-p", "9000-9003:9000-9003")
    four, six = podman.addresses("web")
    assert podman.host.fetch(f"http://{four}/").text == HELLO
    assert podman.host.fetch(f"http://[{six}]/").text == HELLO
    assert podman.lab.neighbour.fetch(f"http://{podman.host.v4}:8080/").text == HELLO
    (shown,) = podman.containers().values()
    assert [(each["host_port"], each["count"]) for each in shown["ports"]] == [(8080, 1), (9000, 4)]
    assert "1 packets received" in podman("exec", "web", "ping", "-c1", "-W2", podman.lab.internet.v4).stdout


def test_addresses_of_ones_own(podman: Podman) -> None:
    podman.run("web", "--ip", "10.77.0.77", "--ip6", "fd77::77", "--mac-address", "02:00:00:00:00:77")
    assert podman.addresses("web") == ["10.77.0.77", "fd77::77"]
    assert "02:00:00:00:00:77" in podman("exec", "web", "ip", "link", "show", "eth0").stdout


def test_two_networks(podman: Podman) -> None:
    podman.run("web", "--network", "pods,red", "-p", "8080:80")
    (shown,) = podman.containers().values()
    assert sorted((each["network"], each["interface"]) for each in shown["endpoints"]) in (
        [("pods", "eth0"), ("red", "eth1")],
        [("pods", "eth1"), ("red", "eth0")],
    )
    assert podman.lab.neighbour.fetch(f"http://{podman.host.v4}:8080/").text == HELLO


def test_connect_and_disconnect(podman: Podman) -> None:
    podman.run("web", "-p", "8080:80")
    podman("network", "connect", "red", "web")
    assert podman.addresses("web", "red")[0].startswith("10.78.0.")
    assert "eth1" in podman("exec", "web", "ip", "link").stdout
    podman("network", "disconnect", "red", "web")
    assert "eth1" not in podman("exec", "web", "ip", "link").stdout
    assert podman.lab.neighbour.fetch(f"http://{podman.host.v4}:8080/").text == HELLO


def test_a_pod(podman: Podman) -> None:
    podman("pod", "create", "--name", "pod", "--infra-image", NAME, "-p", "8080:80", check=True)
    podman.run("web", "--pod", "pod")
    assert podman.lab.neighbour.fetch(f"http://{podman.host.v4}:8080/").text == HELLO
    assert len(podman.containers()) == 1


def test_restart_and_reload(podman: Podman) -> None:
    podman.run("web", "-p", "8080:80")
    podman("restart", "--time", "0", "web")
    assert podman.lab.neighbour.fetch(f"http://{podman.host.v4}:8080/").text == HELLO
    before = podman.addresses("web")
    podman.host.run(["nft", "flush", "ruleset"])
    podman("network", "reload", "web")
    assert podman.addresses("web") == before
    assert podman.lab.neighbour.fetch(f"http://{podman.host.v4}:8080/").text == HELLO


def test_what_the_plugin_says_reaches_the_user(podman: Podman) -> None:
    said = podman("run", "--ip", "10.99.0.1", NAME, "true", check=False).stderr
    assert "10.99.0.1 lies in none of its subnets" in said
