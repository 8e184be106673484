"""What the service counts while it runs: how long calls took, and what had to be repaired.

Rules: counting loads nothing and is cheap; several threads do it at once. Whoever wants to see it reads a copy (``metrics``).
"""

from __future__ import annotations

import threading
from bisect import bisect_left

BOUNDS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 4.096, 16.384)
"""Upper bounds of the histogram's buckets, in seconds; there is one more for what took longer."""


class Latency:
    """How often, how long in all, and how often in each bucket."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.buckets = [0] * (len(BOUNDS) + 1)


class Counters:
    """The counters of one service."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[tuple[str, str, str], Latency] = {}
        self._repairs: dict[str, int] = {}

    def called(self, tool: str, verb: str, good: bool, seconds: float) -> None:
        """A call was served."""
        with self._lock:
            latency = self._calls.setdefault((tool, verb, "ok" if good else "error"), Latency())
            latency.seconds += seconds
            latency.buckets[bisect_left(BOUNDS, seconds)] += 1

    def repaired(self, kind: str) -> None:
        """Something of ours that somebody had changed was put back; ``kind`` is one of few words, such as ``link``."""
        with self._lock:
            self._repairs[kind] = self._repairs.get(kind, 0) + 1

    def calls(self) -> dict[tuple[str, str, str], tuple[float, list[int]]]:
        """By tool, verb and outcome: the seconds in all, and the buckets, each with those below it."""
        with self._lock:
            held = {key: (each.seconds, list(each.buckets)) for key, each in self._calls.items()}
        for _, buckets in held.values():
            for place in range(1, len(buckets)):
                buckets[place] += buckets[place - 1]
        return held

    def repairs(self) -> dict[str, int]:
        """How often each kind was repaired."""
        with self._lock:
            return dict(self._repairs)
