"""A lab with the command line at hand, for the tests that tell what vethwork does.

Rules: what a test wants done it says to the command line: :meth:`Stage.do` runs it in a fork of this process, which saves
the interpreter's start, :meth:`Stage.command` as a program of its own. What became of it is read by ``ip``, ``nft`` and
``ping``, and by what servers saw.
"""

from __future__ import annotations

import io
import json
import time
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, NamedTuple

from vethwork.engine.engine import Engine
from vethwork.frontends.cli.main import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vethwork.testing.lab import Lab
    from vethwork.testing.machine import Machine

LONG_ENOUGH = 0.3
"""Seconds for an answer within one machine; where none comes by then, none comes."""
DEADLINE = 10.0
ANY = {4: "0.0.0.0", 6: "::"}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
BITS = {4: 32, 6: 128}
VERSIONS = (4, 6)


class Said(NamedTuple):
    """What a command said, and its exit status."""

    status: int
    out: str
    err: str


def address(machine: Machine, version: int) -> str:
    """A machine's first address of an IP version."""
    return machine.v4 if version == 4 else machine.v6


def bracketed(text: str) -> str:
    """An address as it stands before a colon."""
    return f"[{text}]" if ":" in text else text


def eventually(condition: Callable[[], bool], seconds: float = DEADLINE) -> bool:
    """Wait for what the kernel or a process does in its own time, and sends no word of."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class Stage:
    """A lab, and an engine on its host that is told what to do."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.host = lab.host
        self._serving: set[tuple[str, str, int]] = set()
        self._made = 0

    # To say.

    def ask(self, *arguments: str, first: Callable[[], None] | None = None) -> Said:
        """Give one command, and take what it says whatever that is. ``first`` is done there before."""

        def on_host() -> Said:
            if first is not None:
                first()
            out, err = (io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2))
            with redirect_stdout(out), redirect_stderr(err):
                status = run(list(arguments))
            return Said(status, *(each.buffer.getvalue().decode() for each in (out, err)))

        return self.host.call(on_host)

    def do(self, *arguments: str) -> str:
        """Give one command that works."""
        said = self.ask(*arguments)
        assert said.status == 0, f"vethwork {' '.join(arguments)}: {said.err}"
        return said.out

    def do_or_empty(self, *arguments: str) -> str:
        """Give one command that may not work yet."""
        return self.ask(*arguments).out

    def refused(self, *arguments: str) -> Said:
        """Give one command that does not, and look that it said so and nothing else."""
        said = self.ask(*arguments)
        assert said.status != 0
        assert said.out == ""
        assert said.err.startswith("vethwork: ")
        assert "internal error" not in said.err
        return said

    def command(self, *arguments: str, **options: Any) -> Said:
        """Give one command to a program of its own, as a shell does."""
        done = self.host.vethwork(*arguments, **{"check": False, **options})
        return Said(done.returncode, done.stdout, done.stderr)

    def view(self, *arguments: str) -> Any:
        """Give a command with ``--json``, and take the document."""
        return json.loads(self.do(*arguments, "--json"))

    # To make.

    def network(self, name: str, *options: str) -> Any:
        """Make a dual-stack network."""
        return self.view("network", "create", name, "--ipv6", *options)

    def attach(self, name: str, *options: str) -> Machine:
        """Make a bare namespace a container."""
        machine = self.bare(name)
        self.do("attach", name, "--netns", machine.path, *options)
        return machine

    def bare(self, name: str) -> Machine:
        """A namespace for a container, also where an earlier one of the lab had the name."""
        self._made += 1
        machine = self.lab.container(f"{name}-{self._made}")
        machine.name = name
        return machine

    def settle(self, name: str, *options: str, port: int = 80) -> Machine:
        """The same, with servers on a port of it, tcp and udp."""
        machine = self.attach(name, *options)
        for protocol in ("tcp", "udp"):
            self.serve(machine, port, protocol)
        return machine

    def serve(self, machine: Machine, port: int, protocol: str) -> None:
        """Answer on a port of a machine, until the lab ends."""
        if (machine.path, protocol, port) not in self._serving:
            self._serving.add((machine.path, protocol, port))
            (machine.serve_http if protocol == "tcp" else machine.serve_udp_echo)(port)

    def clear(self, keep: str = "") -> None:
        """Detach every container, or every one but one, and close its ports."""

        def on_host() -> None:
            with Engine() as engine:
                for container in engine.containers():
                    if container.name != keep:
                        engine.detach(container.name)
                for publication in engine.inspect(keep).publications if keep else ():
                    engine.unpublish(keep, publication.publish)

        self.host.call(on_host)

    # To look.

    def gateway(self, network: str, version: int) -> str:
        """The host's address on a network."""
        subnets = self.view("network", "inspect", network)["subnets"]
        return next(str(each["gateway"]) for each in subnets if (":" in each["subnet"]) == (version == 6))

    def device(self, network: str) -> str:
        """A network's bridge, or the parked end of its cable."""
        return str(self.view("network", "inspect", network)["device"])

    def elements(self, name: str) -> list[Any]:
        """What nft lists as the elements of a set or a map of ours."""
        kind = "map" if name.startswith(("range", "port", "source")) else "set"
        listed = json.loads(self.host.run(["nft", "-j", "list", kind, "inet", "vethwork", name]).stdout)
        return next(each[kind].get("elem", []) for each in listed["nftables"] if kind in each)


def ip(machine: Machine, *words: str) -> Any:
    """What ``ip -j`` says there."""
    return json.loads(machine.run(["ip", "-j", *words]).stdout or "[]")


def links(machine: Machine) -> dict[str, Any]:
    """A machine's links, by name."""
    return {link["ifname"]: link for link in ip(machine, "-d", "link")}


def pings(machine: Machine, target: str, *, seconds: float = 2) -> bool:
    """Tell whether ping(8) gets an answer."""
    return machine.run(["ping", "-nc1", f"-W{seconds}", target], check=False).returncode == 0


def is_silent(machine: Machine, target: str) -> bool:
    """Tell whether ping(8) gets none."""
    return not pings(machine, target, seconds=LONG_ENOUGH)


def complaint(machine: Machine, target: str) -> str:
    """What ping(8) says that does not get through."""
    done = machine.run(["ping", "-nc1", "-W1", target], check=False)
    assert done.returncode != 0
    return done.stdout + done.stderr
