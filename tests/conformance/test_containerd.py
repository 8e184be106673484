"""The CNI plugin under the real containerd: by ``ctr run --cni``, and by the interface that the kubelet speaks (CRI).

Source: containerd 1.6, cmd/ctr/commands/run: the container's id is ``NAMESPACE-ID``, its namespace ``/proc/PID/ns/net``, the
configuration the first of /etc/cni/net.d, and plugins are in /opt/cni/bin. Both directories are covered for the session.
CRI pods have a namespace below /run/netns; keys of their runtimeConfig begin with capitals, the plugin ``loopback`` runs
beside ours in the same namespace, and a pod is deleted twice, the second time without its namespace.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.cni import SUBNET4, SUBNET6, conflist, install
from tests.conformance.cri import CallFailed, Pods
from tests.conformance.images import NAME, make_image
from vethwork.testing.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from subprocess import CompletedProcess

    from tests.conformance.home import Home

CONFIG = """version = 2
root = "{root}/root"
state = "{root}/state"
[grpc]
  address = "{root}/sock"
[debug]
  level = "warn"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
"""
SERVER = ("httpd", "-f", "-h", "/www")
HELLO = "hello from a container\n"
LOOPBACK = "/usr/lib/cni/loopback"


def wait_for_socket(path: Path, seconds: float = 20) -> None:
    """Wait until a daemon listens."""
    deadline = time.monotonic() + seconds
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                if time.monotonic() > deadline:
                    raise
            else:
                return
        time.sleep(0.05)


class Containerd:
    """A containerd of its own on the host of a lab."""

    def __init__(self, lab: Lab, home: Home, scratch: Path) -> None:
        self.lab, self.host, self.home, self.scratch = lab, lab.host, home, scratch
        config = scratch / "config.toml"
        config.write_text(CONFIG.format(root=scratch, image=NAME))
        log = open(scratch / "log", "wb")  # noqa: SIM115 - it is the daemon's, until the lab ends
        self.host.popen(
            home.words("containerd", "--config", str(config)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        log.close()
        wait_for_socket(scratch / "sock")
        make_image(scratch / "image.tar", str(home.find("busybox")), SERVER)
        for namespace in ("default", "k8s.io"):
            archive = str(scratch / "image.tar")
            self.ctr("--namespace", namespace, "image", "import", "--no-unpack", archive)
        self.pods = Pods(scratch / "sock")

    def ctr(self, *arguments: str, check: bool = True) -> CompletedProcess[str]:
        """Call containerd's client."""
        command = self.home.words("ctr", "--address", str(self.scratch / "sock"), *arguments)
        return self.host.run(command, check=check, timeout=60)

    def run(self, name: str, *command: str) -> None:
        """Start a container with CNI."""
        self.ctr("run", "--detach", "--cni", "--snapshotter", "native", NAME, name, *command)

    def inside(self, name: str, *command: str) -> str:
        """Run a command in a container."""
        return self.ctr("task", "exec", "--exec-id", os.urandom(4).hex(), name, *command).stdout

    def remove(self, name: str) -> None:
        """End a container. ctr 1.6 calls no DEL for what it ran in the background: that is what gc is for.

        ctr 2 answers before the process has ended, and calls DEL.
        """
        self.ctr("task", "kill", "--signal", "SIGKILL", name, check=False)
        self.ctr("task", "delete", "--force", name, check=False)
        self.ctr("container", "delete", name)
        deadline = time.monotonic() + 10
        while f"default-{name}" in self.containers():
            assert time.monotonic() < deadline
            self.host.vethwork("gc")

    def containers(self) -> dict[str, Any]:
        """What vethwork says."""
        return {each["name"]: each for each in json.loads(self.host.vethwork("ps", "--json").stdout)}


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory, home: Home) -> Iterator[Containerd]:
    home.need("containerd", "ctr", "runc", LOOPBACK)
    scratch = tmp_path_factory.mktemp("containerd")
    # libcni keeps what ADD said in /var/lib/cni.
    with home.covered(scratch, "/opt", "/etc", "/var/lib"), Lab() as lab:
        shutil.rmtree(home.path("/etc/cni"), ignore_errors=True)
        binaries, configurations = home.path("/opt/cni/bin"), home.path("/etc/cni/net.d")
        install(lab.host, home, binaries, configurations, conflist(subnets=(SUBNET4, SUBNET6)))
        shutil.copy(home.path(LOOPBACK), binaries)
        yield Containerd(lab, home, scratch)


@pytest.fixture(autouse=True)
def nothing_is_left(containerd: Containerd) -> Iterator[None]:
    """Every test gives back every address, port and container."""
    yield
    assert containerd.containers() == {}
    listed = containerd.host.run(["nft", "-j", "list", "table", "inet", "vethwork"]).stdout
    maps = [each["map"] for each in json.loads(listed)["nftables"] if "map" in each]
    assert not [each["name"] for each in maps if each["name"].startswith("port") and each.get("elem")]


# ctr ---------------------------------------------------------------------------------------------------------------------


def test_a_container_of_ctr(containerd: Containerd) -> None:
    containerd.run("web", *SERVER)
    shown = containerd.containers()["default-web"]
    assert (shown["owner"], shown["endpoints"][0]["network"]) == ("cni", "pods")
    four, six = [each.partition("/")[0] for each in shown["endpoints"][0]["addresses"]]
    said = containerd.inside("web", "ip", "addr", "show", "eth0")
    assert four in said
    assert six in said
    assert containerd.host.fetch(f"http://{four}/").text == HELLO
    assert containerd.host.fetch(f"http://[{six}]/").text == HELLO
    for far in (containerd.lab.internet.v4, containerd.lab.internet.v6):
        assert "1 packets received" in containerd.inside("web", "ping", "-c", "1", "-W", "2", far)
    containerd.remove("web")


def test_a_container_in_the_foreground(containerd: Containerd) -> None:
    """Its client calls DEL when it has ended, and its namespace with it."""
    arguments = ("--rm", "--cni", "--snapshotter", "native", NAME, "once", "ip", "-4", "addr", "show", "eth0")
    assert "inet 10.77.0." in containerd.ctr("run", *arguments).stdout


def test_containers_reach_each_other(containerd: Containerd) -> None:
    for name in ("one", "two"):
        containerd.run(name, *SERVER)
    address = containerd.containers()["default-two"]["endpoints"][0]["addresses"][0].partition("/")[0]
    assert containerd.inside("one", "wget", "-q", "-O", "-", f"http://{address}/") == HELLO
    for name in ("one", "two"):
        containerd.remove(name)


def test_a_container_that_cannot_be_had(containerd: Containerd) -> None:
    """What the plugin says reaches the user."""
    document = conflist(subnets=("10.99.0.0/24",))
    changed = containerd.home.path("/etc/cni/net.d/00-changed.conflist")
    changed.write_text(json.dumps(document))
    try:
        failed = containerd.ctr("run", "--cni", "--snapshotter", "native", NAME, "bad", "true", check=False)
    finally:
        changed.unlink()
    assert "network pods: is not what is asked for: its subnet is 10.77.0.0/24" in failed.stderr
    containerd.ctr("task", "delete", "--force", "bad", check=False)
    containerd.ctr("container", "delete", "bad", check=False)


# CRI ---------------------------------------------------------------------------------------------------------------------


def test_a_pod_with_a_host_port(containerd: Containerd) -> None:
    assert containerd.pods.is_ready()
    pod = containerd.pods.run("web", ports=((8088, 80),))
    shown = containerd.containers()[pod]
    addresses = [each.partition("/")[0] for each in shown["endpoints"][0]["addresses"]]
    assert containerd.pods.addresses(pod) == addresses
    assert [(each["host_port"], each["container_port"]) for each in shown["ports"]] == [(8088, 80)]
    for host in (containerd.host.v4, f"[{containerd.host.v6}]"):
        assert containerd.lab.neighbour.fetch(f"http://{host}:8088/").text == HELLO
    containerd.pods.stop(pod)
    assert containerd.containers() == {}
    assert not containerd.lab.neighbour.reaches(containerd.host.v4, 8088)
    containerd.pods.remove(pod)


def test_a_pod_with_a_bandwidth(containerd: Containerd) -> None:
    """As the kubelet passes it on: 8 Mbit/s in, 16 Mbit/s out, and no burst that anybody named."""
    asked = {"kubernetes.io/ingress-bandwidth": "8M", "kubernetes.io/egress-bandwidth": "16M"}
    pod = containerd.pods.run("slow", annotations=asked)
    (endpoint,) = containerd.containers()[pod]["endpoints"]
    listed = json.loads(containerd.host.run(["tc", "-j", "qdisc"]).stdout)
    rates = {each["dev"]: each["options"]["rate"] for each in listed if each["kind"] == "tbf"}
    outer = endpoint["host_interface"]
    assert rates == {outer: 1_000_000, f"vb{outer.removeprefix('vw')}": 2_000_000}
    assert containerd.host.fetch(f"http://{containerd.pods.addresses(pod)[0]}/").text == HELLO
    containerd.pods.stop(pod)
    containerd.pods.remove(pod)


def test_pods_at_once(containerd: Containerd) -> None:
    names = [f"pod{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        pods = list(
            pool.map(lambda name: containerd.pods.run(name, ports=((8100 + int(name[3:]), 80),)), names)
        )
        assert len({address for pod in pods for address in containerd.pods.addresses(pod)}) == 16
        for number in range(8):
            assert (
                containerd.lab.neighbour.fetch(f"http://{containerd.host.v4}:{8100 + number}/").text == HELLO
            )
        list(pool.map(containerd.pods.stop, pods))
        list(pool.map(containerd.pods.remove, pods))


def test_a_host_port_that_is_held(containerd: Containerd) -> None:
    first = containerd.pods.run("first", ports=((8088, 80),))
    with pytest.raises(CallFailed, match="the host port is held by container"):
        containerd.pods.run("second", ports=((8088, 80),))
    assert set(containerd.containers()) == {first}
    containerd.pods.stop(first)
    containerd.pods.remove(first)


def test_a_pod_whose_rules_somebody_flushed(containerd: Containerd) -> None:
    pod = containerd.pods.run("web", ports=((8088, 80),))
    containerd.host.run(["nft", "flush", "ruleset"])
    other = containerd.pods.run("other")
    assert containerd.lab.neighbour.fetch(f"http://{containerd.host.v4}:8088/").text == HELLO
    for each in (pod, other):
        containerd.pods.stop(each)
        containerd.pods.remove(each)
