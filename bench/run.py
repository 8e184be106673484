"""One run of the benchmark: what every part needs to know, and where it puts what it finds."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.peers import Peers
    from bench.results import Results

PROJECT = Path(__file__).parents[1]


class Run:
    """How much is measured, beside whom, and the results."""

    def __init__(self, results: Results, peers: Peers, *, quick: bool) -> None:
        self.results, self.peers, self.quick = results, peers, quick
        self.start = time.monotonic()

    def say(self, text: str) -> None:
        """Tell who watches."""
        print(f"[{time.monotonic() - self.start:6.1f} s] {text}", flush=True)

    def note(self, part: str, *notes: str) -> None:
        """Keep a remark with the results of a part."""
        for each in notes:
            if each not in self.results.parts[part]["notes"]:
                self.results.parts[part]["notes"].append(each)
                self.say(f"note: {each}")

    def begin(self, part: str) -> None:
        """Say under what circumstances a part is measured."""
        self.results.begin(
            part,
            {
                "began": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
                "mode": "quick" if self.quick else "full",
                "commit": commit(),
                "machine": machine(),
                "peers": {"origin": self.peers.origin, "versions": self.peers.versions},
                "notes": [],
                "seconds": 0.0,
            },
        )


def machine() -> dict[str, Any]:
    """What it is measured on, without names."""
    cpus = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in cpus if line.startswith("model name")), platform.machine()
    )
    memory = int(Path("/proc/meminfo").read_text(encoding="ascii").split()[1]) >> 10
    return {
        "cpus": os.cpu_count(),
        "cpu": model,
        "memory_mib": memory,
        "kernel": platform.release().split("-")[0],
        "python": sys.version.split()[0],
        "load_before": os.getloadavg()[0],
    }


def commit() -> str:
    """Which state of the project is measured; ``+`` where files have been changed since."""
    git = ["git", "-C", str(PROJECT)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        ).stdout
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no", "--", "src"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.strip() + ("+" if changed.strip() else "")
