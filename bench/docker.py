"""dockerd, with containerd, on a host of its own; its containers; and its rules as a street."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bench.host import ENVIRON, Host
from bench.namespaces import CGROUP, named
from bench.street import Street
from tests.conformance.images import NAME, make_image

if TYPE_CHECKING:
    from collections.abc import Sequence

DEADLINE = 60.0


def busybox_image(peers_root: str) -> bytes:
    """A container image without a registry: the archive of a busybox that is linked statically."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "image.tar"
        make_image(path, f"{peers_root}/bin/busybox")
        return path.read_bytes()


class Daemon:
    """dockerd, started where this process is: in the peers' folder."""

    def __init__(self, host: Host, image: bytes, *options: str) -> None:
        self.host = host
        containerd = "/run/stage/containerd"
        Path("/run/stage/containerd.toml").write_text(
            f'version = 2\nroot = "{containerd}/root"\nstate = "{containerd}/state"\n'
            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{containerd}.sock"\n'
        )
        Path("/run/stage/daemon.json").write_text("{}")
        Path("/run/stage/image.tar").write_bytes(image)
        known = host.run(["dockerd", "--help"])
        for option in options:
            if option.partition("=")[0] not in known:
                raise RuntimeError(f"this dockerd knows no {option}")
        self._start(["containerd", "--config", "/run/stage/containerd.toml"])
        self._until(lambda: os.path.exists(f"{containerd}.sock"), "containerd")
        self.daemon = self._start(
            ["dockerd", "--containerd", f"{containerd}.sock", "--storage-driver", "vfs", "--config-file",
             "/run/stage/daemon.json", "--data-root", "/var/lib/docker",
             "--cgroup-parent", f"/{CGROUP}", *options]
        )  # fmt: skip
        self._until(
            lambda: subprocess.run(["docker", "version"], capture_output=True).returncode == 0, "dockerd"
        )
        host.run(["docker", "load", "--input", "/run/stage/image.tar"])

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        log = self.host.log
        return subprocess.Popen(command, env=ENVIRON, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _until(self, is_so: object, what: str) -> None:
        """Ask until it is so: neither daemon tells when it is ready."""
        deadline = time.monotonic() + DEADLINE
        while not is_so():  # type: ignore[operator]
            died = what == "dockerd" and self.daemon.poll() is not None
            if died or time.monotonic() > deadline:
                raise RuntimeError(f"{what} did not come up: {self.host.said()[-600:]}")
            time.sleep(0.02)


class DockerStreet(Street):
    """With Docker's rules. Its userland proxy is off: it is not on the ways that are measured."""

    def __init__(self, peers_root: str, image: bytes, *options: str) -> None:
        super().__init__(peers_root, inside_peers=True)
        self.daemon = Daemon(self, image, "--userland-proxy=false", *options)

    def populate(self, ports: list[int]) -> None:
        """Containers that sleep; their namespaces get names here."""
        publish = [f"{port}:{port}/{kind}" for port in ports for kind in ("tcp", "udp")]
        if len(ports) >= 10:
            publish = [f"{ports[0]}-{ports[-1]}:{ports[0]}-{ports[-1]}/tcp"]
        for number, options in ((0, [f"--publish={each}" for each in publish]), (1, [])):
            self.run(
                ["docker", "run", "--detach", "--name", f"c{number}", *options, NAME, "sleep", "86400"], 180.0
            )
            (seen,) = json.loads(self.run(["docker", "inspect", f"c{number}"]))
            named(f"/proc/{seen['State']['Pid']}/ns/net", f"/run/netns/c{number}")
