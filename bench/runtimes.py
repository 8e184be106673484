"""``podman run --rm`` and ``docker run --rm`` as a whole: with their own network, with ours, and with none.

Rules: everything here, ours included, runs in the peers' folder and with its Python, as on a machine of that distribution.
The command in the container is ``true``, so what is measured is the making and unmaking. ``none`` is the same without any
network: what is above it is what the network costs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from bench.agent import Agents, Failed
from bench.docker import Daemon, busybox_image
from bench.host import ENVIRON, Host, Service
from bench.namespaces import CGROUP, spawn
from bench.run import PROJECT
from tests.conformance.images import NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.run import Run

PART = "runtimes"
SOURCE = "/run/stage/src"
CONTAINERS = """\
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""
"""For Podman where there is no systemd; the limits are for machines that allow no more than theirs."""


class Runtime(Host):
    """A host in the peers' folder, with ours beside them."""

    def __init__(self, peers_root: str) -> None:
        super().__init__(peers_root)
        shutil.copytree(PROJECT / "src", SOURCE, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        if peers_root:
            os.chroot(peers_root)
            os.chdir("/")
        self.environ = dict(ENVIRON)
        python = "/usr/bin/python3"
        self.run([python, "-m", "compileall", "-q", SOURCE])
        self.ours = [python, "-P", "-m", "vethwork"]

    def vethwork(self, *words: str) -> None:
        """Our command line."""
        command = ["/usr/bin/env", f"PYTHONPATH={SOURCE}", *self.ours, *words]
        self.run(command)

    def serve(self) -> None:
        """Start our service."""
        self.service = Service({"PYTHONPATH": SOURCE}, [*self.ours, "serve"])

    def once(self) -> float:
        """Run a container that does nothing; how long the command took."""
        raise NotImplementedError


class Podman(Runtime):
    """Podman; ``how`` is own, none, cold or warm."""

    def __init__(self, peers_root: str, image: bytes, how: str) -> None:
        super().__init__(peers_root)
        Path("/run/stage/containers.conf").write_text(CONTAINERS)
        Path("/etc/containers/policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        Path("/run/stage/image.tar").write_bytes(image)
        self.environ["CONTAINERS_CONF"] = "/run/stage/containers.conf"
        self.environ["HOME"] = "/tmp"
        if how in ("cold", "warm"):
            self.vethwork("install", "podman", "--root", "/run/stage")
            self.environ["CONTAINERS_HELPER_BINARY_DIR"] = "/run/stage/usr/local/libexec/podman"
        if how == "warm":
            self.serve()
        self.podman = ["/usr/bin/podman", "--storage-driver", "vfs", "--root", "/var/lib/containers/bench"]
        self._checked([*self.podman, "load", "--quiet", "--input", "/run/stage/image.tar"])
        network = ["--network", "none"] if how == "none" else ["--network", "podman", "--publish", "8080:80"]
        self.command = [*self.podman, "run", "--rm", f"--cgroup-parent=/{CGROUP}", *network, NAME, "true"]

    def _checked(self, command: list[str]) -> None:
        done = subprocess.run(
            command, env=self.environ, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            raise RuntimeError(
                f"{' '.join(command)}: {done.returncode}: {done.stdout[-300:]}{done.stderr[-1500:]}"
            )

    def once(self) -> float:
        ran = spawn(self.command, self.environ, b"", self.log.fileno())
        if ran.status:
            raise RuntimeError(f"{' '.join(self.command)}: {ran.status}: {self.said()}")
        return ran.seconds


class Docker(Runtime):
    """Docker; ``how`` is own, none or plugin."""

    def __init__(self, peers_root: str, image: bytes, how: str) -> None:
        super().__init__(peers_root)
        if how == "plugin":
            self.serve()
        self.daemon = Daemon(self, image)
        network = {"own": "bridge", "none": "none", "plugin": "blue"}[how]
        if how == "plugin":
            self.run(["docker", "network", "create", "--driver", "vethwork", "blue"])
        publish = [] if how == "none" else ["--publish", "8080:80"]
        self.command = ["/usr/bin/docker", "run", "--rm", "--network", network, *publish, NAME, "true"]

    def once(self) -> float:
        ran = spawn(self.command, self.environ, b"", self.log.fileno())
        if ran.status:
            raise RuntimeError(f"{' '.join(self.command)}: {ran.status}: {self.said()}")
        return ran.seconds


def measure(run: Run) -> None:
    """Measure it all."""
    root = run.peers.root
    image = busybox_image(root)
    kinds: dict[str, Callable[[], object]] = {
        "podman, none": lambda: Podman(root, image, "none"),
        "podman, own": lambda: Podman(root, image, "own"),
        "podman, vethwork cold": lambda: Podman(root, image, "cold"),
        "podman, vethwork warm": lambda: Podman(root, image, "warm"),
        "docker, none": lambda: Docker(root, image, "none"),
        "docker, own": lambda: Docker(root, image, "own"),
        "docker, vethwork": lambda: Docker(root, image, "plugin"),
    }
    with Agents() as agents:
        for who, make in kinds.items():
            agents.start(who, make)
        rounds = 3 if run.quick else 12
        for turn in range(rounds + 1):
            run.say(f"runtimes: round {turn} of {rounds}" if turn else "runtimes: warming up")
            for who in list(agents.all):
                try:
                    seconds = agents.all[who].call("once", seconds=60.0)
                    if turn:
                        run.results.add(PART, "run", who, "-", [seconds])
                except (Failed, TimeoutError) as why:
                    agents.drop(who)
                    run.say(f"runtimes: {who} is out: {str(why)[-1500:]}")
                    run.results.fail(PART, "run", who, "-", why)
        run.results.save()
