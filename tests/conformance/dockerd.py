"""A dockerd with the plugin beside it, on the host of a lab.

Source: dockerd(8). dockerd looks for the plugin in /run/docker/plugins, which is the session's own: so there is one at a time.
Its data, its sockets and its containerd are private.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tests.conformance.images import NAME, make_image
from vethwork.kernel import libc
from vethwork.testing.lab import Lab, mounts_below
from vethwork.testing.machine import SOURCE

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack
    from pathlib import Path
    from subprocess import CompletedProcess, Popen

    from tests.conformance.home import Home

PLUGIN = "/run/docker/plugins/vethwork.sock"
SERVER = ("httpd", "-f", "-h", "/www")
HELLO = "hello from a container\n"
DEADLINE = 60.0
BLUE = ("--subnet", "10.55.0.0/24")
BLUE6 = ("--ipv6", "--subnet", "fd55::/64")


class Docker:
    """A dockerd of its own on the host of a lab, with the plugin beside it."""

    def __init__(self, lab: Lab, home: Home, scratch: Path, *options: str) -> None:
        self.lab, self.host, self.home = lab, lab.host, home
        self.scratch, self.options = scratch, options
        self.socket = f"unix:///run/docker-{scratch.name}.sock"
        self.daemon: Popen[str] | None = None
        self.start_containerd()
        self.start_plugin()
        self.start_daemon()

    # The processes.

    def _daemon(self, log: str, command: list[str], **environ: str) -> Popen[str]:
        with open(self.scratch / log, "ab") as file:
            return self.host.popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environ)

    def start_containerd(self) -> None:
        """Start containerd, which outlives dockerd, as where systemd starts both."""
        self.containerd = f"/run/docker-{self.scratch.name}/containerd.sock"
        config = self.scratch / "containerd.toml"
        config.write_text(
            f'version = 2\nroot = "{self.scratch}/containerd"\nstate = "/run/docker-{self.scratch.name}/containerd"\n'
            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{self.containerd}"\n'
        )
        self._daemon("containerd.log", self.home.words("containerd", "--config", str(config)))
        self.until(lambda: os.path.exists(self.containerd))

    def start_plugin(self) -> None:
        """Start the plugin, and wait for its socket."""
        command = [sys.executable, "-m", "vethwork", "serve"]
        self.plugin = self._daemon("plugin.log", command, PYTHONPATH=SOURCE, VETHWORK_DEBUG="1")
        self.until(lambda: os.path.exists(PLUGIN) and self.plugin.poll() is None)

    def stop_plugin(self, number: int = signal.SIGTERM) -> None:
        """End the plugin."""
        self.plugin.send_signal(number)
        self.plugin.wait(30)

    def start_daemon(self) -> None:
        """Start dockerd, and wait until it answers."""
        places = ["--data-root", f"{self.scratch}/data", "--exec-root", f"/run/docker-{self.scratch.name}"]
        places += ["--pidfile", f"{self.scratch}/pid", "--host", self.socket, "--storage-driver", "vfs"]
        places += ["--containerd", self.containerd]
        # Up to 20.10 it makes itself a key, below /etc unless it is told otherwise.
        settings = (
            {"deprecated-key-path": f"{self.scratch}/key.json"}
            if "version 20." in self.home.version("dockerd")
            else {}
        )
        (self.scratch / "daemon.json").write_text(json.dumps(settings))
        places += ["--config-file", f"{self.scratch}/daemon.json"]
        self.daemon = self._daemon(
            "dockerd.log", self.home.words("dockerd", "--debug", *places, *self.options)
        )
        self.until(lambda: self("version", check=False).returncode == 0)

    def stop_daemon(self, number: int = signal.SIGTERM) -> None:
        """End dockerd, with its containers where it may."""
        if self.daemon is not None:
            self.daemon.send_signal(number)
            self.daemon.wait(DEADLINE)
        self.daemon = None

    def daemon_lives(self) -> bool:
        """Whether dockerd has not ended, if it was started."""
        return self.daemon is None or self.daemon.poll() is None

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what takes its time."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert self.daemon_lives(), (self.scratch / "dockerd.log").read_text()[-3000:]
            assert time.monotonic() < deadline, (self.scratch / "dockerd.log").read_text()[-3000:]
            time.sleep(0.05)

    def close(self) -> None:
        """End dockerd and the plugin; the rest goes with the lab, but for the namespaces that a killed dockerd had."""
        with suppress(subprocess.TimeoutExpired):
            self.stop_daemon()
        self.stop_plugin()
        for path in mounts_below(f"/run/docker-{self.scratch.name}"):
            libc.umount(path, libc.MNT_DETACH)

    # What is said to it.

    def command(self, *arguments: str) -> list[str]:
        """The client of the daemon's own release, even where another docker comes first in the path: each refuses what the
        other says."""
        return self.home.words("/usr/bin/docker", *arguments)

    def __call__(self, *arguments: str, check: bool = True) -> CompletedProcess[str]:
        """Call the docker client."""
        environ = {"DOCKER_HOST": self.socket, "DOCKER_CONFIG": str(self.scratch)}
        return self.host.run(self.command(*arguments), check=check, timeout=DEADLINE, env=environ)

    def network(self, name: str, *options: str) -> None:
        """Make a network of ours."""
        self("network", "create", "--driver", "vethwork", *options, name)

    def run(self, name: str, network: str, *options: str) -> None:
        """Start a container with a web server in the background."""
        self("run", "--detach", "--name", name, "--network", network, *options, NAME)

    def ask(self, name: str, *command: str, check: bool = True) -> str:
        """Run a command in a container, and give what it says."""
        return self("exec", name, *command, check=check).stdout

    def endpoint(self, name: str, network: str) -> Any:
        """What Docker says of a container on a network."""
        said = json.loads(self("inspect", name).stdout)
        return said[0]["NetworkSettings"]["Networks"][network]

    def vethwork(self, *arguments: str) -> Any:
        """What vethwork says."""
        return json.loads(self.host.vethwork(*arguments, "--json").stdout)

    def serves(self, port: int, address: str = "") -> bool:
        """Whether the neighbour on the wire is served at a port of the host."""
        try:
            at = address or self.host.v4
            bracketed = f"[{at}]" if ":" in at else at
            return self.lab.neighbour.fetch(f"http://{bracketed}:{port}/", 1).text == HELLO
        except OSError:
            return False

    def links(self) -> set[str]:
        """The links of the host."""
        return {each["ifname"] for each in json.loads(self.host.run(["ip", "-j", "link"]).stdout)}


def prepared(stack: ExitStack, home: Home, scratch: Path, *options: str) -> Docker:
    """A Docker that has the image, until the stack is unwound."""
    home.need("dockerd", "docker", "containerd", "runc")
    made = Docker(stack.enter_context(Lab()), home, scratch, *options)
    stack.callback(made.close)
    make_image(scratch / "image.tar", str(home.find("busybox")), SERVER)
    made("load", "--input", str(scratch / "image.tar"))
    return made
