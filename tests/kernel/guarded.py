"""A host that the service guards: a network with a container that answers on a published port, and all that is said of it."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.kernel.stage import Stage, eventually, links
from vethwork.testing.lab import Lab
from vethwork.testing.machine import SOURCE

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

PORT = 8080


class Guarded(Stage):
    """Container ``c`` on network ``blue``, which answers at :data:`PORT`; the service runs."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.said = Path(lab.directory, "said")
        self.socket = f"{lab.directory}/plugin.sock"
        self.bridge = str(self.network("blue")["device"])
        self.container = self.settle("c", "--net", "blue", "-p", f"{PORT}:80")
        self.process: subprocess.Popen[str]
        self.start()

    @property
    def link(self) -> str:
        """The host's end of the container's link."""
        (found,) = [name for name in links(self.host) if name.startswith("vw") and name != self.bridge]
        return found

    def start(self) -> None:
        """Start the service, and wait until it listens."""
        before = self.said.stat().st_size if self.said.exists() else 0
        command = [sys.executable, "-m", "vethwork", "serve", "--docker", self.socket]
        with self.said.open("a", encoding="utf-8") as said:
            self.process = self.host.popen(command, env={"PYTHONPATH": SOURCE}, stdout=said, stderr=said)
        assert eventually(lambda: "listening at" in self.said.read_text(encoding="utf-8")[before:])

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the service."""
        self.process.send_signal(number)
        self.process.wait(20)

    def lines(self) -> list[str]:
        """What was said of repairs so far."""
        return [
            line.removeprefix("vethwork: ")
            for line in self.said.read_text(encoding="utf-8").splitlines()
            if line.startswith("vethwork: ")
        ]

    def nft(self, *words: str) -> str:
        """What nft complains about; empty if it does what it is told."""
        return self.host.run(["nft", *words], check=False).stderr

    def listing(self) -> str:
        """Our two tables, as nft lists them, less what it says of the owner and what has been counted."""
        text = "".join(
            self.host.run(["nft", "-s", "list", "table", each, "vethwork"]).stdout
            for each in ("inet", "bridge")
        )
        lines = [line.partition(" # progname")[0] for line in text.splitlines()]
        return "\n".join(line for line in lines if line and not line.startswith("\tflags"))

    def answers(self) -> bool:
        """Whether the published port answers the neighbour."""
        return self.lab.neighbour.reaches(self.host.v4, PORT)

    def is_put_back(self, word: str, before: int) -> float:
        """Wait for a line with a word in it; how long it took in seconds, or infinity."""
        started = time.monotonic()
        found = eventually(lambda: any(word in line for line in self.lines()[before:]), 5)
        return time.monotonic() - started if found else float("inf")


@contextmanager
def guarded() -> Iterator[Guarded]:
    """Everything, until the end of the block."""
    with Lab() as lab:
        made = Guarded(lab)
        try:
            yield made
        finally:
            if made.process.poll() is None:
                made.stop()
