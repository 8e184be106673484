"""A Podman with storage and configuration of its own, on the host of a lab.

Source: podman(1), containers.conf(5).
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from tests.conformance.images import NAME, make_image

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from subprocess import CompletedProcess

    from tests.conformance.home import Home
    from vethwork.testing.lab import Lab

# Podman 5 gives no CAP_NET_RAW any more, which ping needs.
CONFIG = """[containers]
default_capabilities = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_BIND_SERVICE", "NET_RAW", "SETGID", "SETUID"]
default_ulimits = ["nofile=1024:4096", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
"""
PLACES = (("root", "root"), ("runroot", "run"), ("tmpdir", "tmp"))  # 50 characters is the most for a runroot
TOOLS = ("podman", "runc", "busybox")
SERVER = ("httpd", "-f", "-h", "/www")
HELLO = "hello from a container\n"


class Podman:
    """``network`` is that section of its configuration; ``options`` come before every command."""

    def __init__(
        self,
        lab: Lab,
        home: Home,
        scratch: Path,
        network: str,
        *options: str,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.lab, self.host, self.home, self.scratch = lab, lab.host, home, scratch
        self.options = (
            "--storage-driver=vfs",
            *[f"--{option}={scratch}/{place}" for option, place in PLACES],
            *options,
        )
        (scratch / "containers.conf").write_text(CONFIG + network)
        self.environ = {
            "CONTAINERS_CONF": str(scratch / "containers.conf"),
            "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
            **(environ or {}),
        }
        make_image(scratch / "image.tar", str(home.find("busybox")), SERVER)
        self("load", "-i", str(scratch / "image.tar"))

    def __call__(self, *arguments: str, check: bool = True) -> CompletedProcess[str]:
        """Call Podman."""
        command = self.home.words("podman", *self.options, *arguments)
        return self.host.run(command, env=self.environ, check=check, timeout=60)

    def run(self, name: str, *options: str) -> None:
        """Start a container in the background."""
        self("run", "--detach", "--name", name, *options, NAME)

    def ask(self, name: str, *command: str) -> str:
        """Run a command in a container, and give what it says."""
        return self("exec", name, *command).stdout

    def pings(self, name: str, address: str) -> bool:
        """Whether a container reaches an address."""
        return not self("exec", name, "ping", "-c1", "-W2", address, check=False).returncode

    def knows(self, name: str, other: str) -> bool:
        """Whether a container finds another by name."""
        return not self("exec", name, "busybox", "nslookup", other, check=False).returncode

    def fetch(self, address: str, port: int = 8080) -> str:
        """What the neighbour on the wire is served, once the server in the container listens."""
        host, deadline = f"[{address}]" if ":" in address else address, time.monotonic() + 5
        while True:
            try:
                return self.lab.neighbour.fetch(f"http://{host}:{port}/").text
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise

    def vethwork(self, *arguments: str) -> dict[str, Any]:
        """What vethwork lists, by name."""
        said = json.loads(self.host.vethwork(*arguments, "--json").stdout)
        return {each["name"]: each for each in said}

    def addresses(self, name: str, network: str) -> list[str]:
        """What Podman says are a container's addresses."""
        said = json.loads(self("inspect", name).stdout)[0]["NetworkSettings"]["Networks"][network]
        return [each for each in (said["IPAddress"], said["GlobalIPv6Address"]) if each]

    def clear(self) -> None:
        """Remove every pod and container."""
        self("pod", "rm", "--all", "--force", "--time", "0")
        self("rm", "--all", "--force", "--time", "0")
