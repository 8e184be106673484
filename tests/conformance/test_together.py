"""All runtimes on one host at once: each sees to its own, and vethwork shows, keeps and restores them all."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.conformance import dockerd, test_oci
from tests.conformance.images import NAME, make_image
from tests.conformance.libcni import BEHIND, OURS, PLUGINS, ROUTES, Document
from tests.conformance.libcni import Runtime as Cni
from tests.conformance.podman import SERVER, TOOLS, Podman
from tests.conformance.test_docker import ALONE
from vethwork.testing.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conformance.home import Home

POD: Document = {
    "type": OURS,
    "isGateway": True,
    "ipMasq": True,
    "ipam": {"subnet": "10.9.0.0/24", "routes": ROUTES[:1]},
}
PORTS = {"podman": 8081, "cni": 8082, "behind": 8083, "docker": 8084, "oci": 8085, "plain": 8086}


class Together:
    """A host with a container of every kind, each with a web server and a port."""

    def __init__(self, lab: Lab, home: Home, scratch: Path, stack: ExitStack) -> None:
        self.lab, self.host = lab, lab.host
        for kind in ("cni", "docker"):
            (scratch / kind).mkdir()
        home.launch(scratch / "helpers/netavark", "netavark", lab.host.environment)
        helpers = {"CONTAINERS_HELPER_BINARY_DIR": str(scratch / "helpers")}
        self.podman = Podman(lab, home, scratch, 'network_backend = "netavark"\n', environ=helpers)
        self.cni = Cni(lab, home, scratch / "cni")
        self.oci = test_oci.Runtime(lab, home, "runc")
        stack.callback(lambda: self.oci.call("delete", "--force", "oci", check=False))
        stack.callback(self.podman.clear)
        self.docker = dockerd.Docker(lab, home, scratch / "docker", *ALONE)
        stack.callback(self.docker.close)
        make_image(scratch / "docker/image.tar", str(home.find("busybox")), SERVER)
        self.docker("load", "--input", str(scratch / "docker/image.tar"))
        self._fill()

    def _fill(self) -> None:
        self.podman.run("web", "-p", f"{PORTS['podman']}:80")
        self.pods = {name: self.cni.container(name) for name in ("cni", "behind", "plain")}
        for name, plugins in (("cni", [POD]), ("behind", [self.cni.maker("bridge"), BEHIND])):
            asked = {"portMappings": [{"hostPort": PORTS[name], "containerPort": 80}]}
            self.cni.add(self.pods[name], plugins, asked)
        self.docker.network("blue", *dockerd.BLUE)
        self.docker.run("web", "blue", "-p", f"{PORTS['docker']}:80")
        script = test_oci.SERVE.format(name="oci", port=80)
        self.oci.start("oci", self.oci.bundle("oci", script, publish=f"{PORTS['oci']}:80"))
        self.host.vethwork(
            "attach", "plain", "--netns", self.pods["plain"].path, "-p", f"{PORTS['plain']}:80"
        )

    def served(self) -> list[str]:
        """The kinds whose port answers the neighbour."""
        found = []
        for kind, port in PORTS.items():
            try:
                self.lab.neighbour.fetch(f"http://{self.host.v4}:{port}/", 1)
            except OSError:
                continue
            found.append(kind)
        return found


@pytest.fixture
def together(tmp_path_factory: pytest.TempPathFactory, home: Home) -> Iterator[Together]:
    home.need(*TOOLS, "dockerd", "docker", "containerd", f"{PLUGINS}/bridge")
    with ExitStack() as stack:
        yield Together(stack.enter_context(Lab()), home, tmp_path_factory.mktemp("all"), stack)


def test_every_runtime_beside_every_other(together: Together) -> None:
    cni, host = together.cni, together.host
    shown = cni.vethwork("ps")
    assert sorted(each["owner"] for each in shown) == ["cli", "cni", "cni", "docker", "netavark", "oci"]
    assert {port["host_port"] for each in shown for port in each["ports"]} == set(PORTS.values())
    for each in shown:
        assert cni.vethwork("inspect", each["name"])["id"] == each["id"]
    networks = {each["name"]: each for each in cni.vethwork("network", "ls")}
    assert {endpoint["network"] for each in shown for endpoint in each["endpoints"]} == set(networks)
    assert networks["pods.cni7"]["driver"] == "foreign"
    said = json.loads(host.vethwork("doctor", "--json", check=False).stdout)
    assert [each for each in said if each["level"] == "problem"] == []
    assert together.served() == list(PORTS)
    # Of two that nobody connected, neither sees the other.
    (target,) = [each for each in shown if each["name"] == "cni"]
    address = target["endpoints"][0]["addresses"][0].partition("/")[0]
    assert not together.podman.pings("web", address)
    for family in ("inet", "bridge"):  # not all rules: the reference plugin's DEL would miss its own
        refused = host.run(["nft", "delete", "table", family, "vethwork"], check=False)
        assert "Operation not permitted" in refused.stderr, "the service owns them"
    assert together.served() == list(PORTS)
    assert host.vethwork("restore").stdout == "everything is in place\n"
    assert host.vethwork("gc").stdout == "nothing to remove\n"
    # What one runtime removes is its own.
    left = dict(PORTS)
    for kind, remove in (
        ("podman", lambda: together.podman.clear()),
        ("behind", lambda: cni.delete(together.pods["behind"], [cni.maker("bridge"), BEHIND])),
        ("docker", lambda: together.docker("rm", "--force", "web")),
        ("oci", lambda: together.oci.end("oci")),
        ("cni", lambda: cni.delete(together.pods["cni"], [POD])),
        ("plain", lambda: host.vethwork("detach", "plain")),
    ):
        remove()
        del left[kind]
        assert together.served() == list(left)
    assert cni.vethwork("ps") == []
    assert NAME in together.docker("images", "--format", "docker.io/library/{{.Repository}}:{{.Tag}}").stdout
