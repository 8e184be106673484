"""What the numbers are to be, as issue 4 says it, and whether a run's are: computed from the results, never typed.

A ratio of two series that took turns is the middle of the ratios of their turns, so what disturbed both does not count.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.results import Results


class Verdict(NamedTuple):
    """One target: what it says, what was measured (None: nothing), the bound, and whether it is a ``most`` or a least."""

    text: str
    value: float | None
    bound: float
    most: bool
    unit: str = "x"

    @property
    def met(self) -> bool | None:
        """Whether it is met; None if it was not measured."""
        if self.value is None:
            return None
        return self.value <= self.bound if self.most else self.value >= self.bound

    @property
    def word(self) -> str:
        """The same in a word."""
        return {True: "met", False: "**missed**", None: "not measured"}[self.met]


def ratio(
    results: Results, part: str, above: tuple[str, str, object], below: tuple[str, str, object]
) -> float | None:
    """How many times the one is the other: (what, who, size) each."""
    upper, lower = results.values(part, *above), results.values(part, *below)
    if not upper or not lower:
        return None
    if len(upper) == len(lower):
        return statistics.median([one / other for one, other in zip(upper, lower, strict=True)])
    return statistics.median(upper) / statistics.median(lower)


def verdicts(results: Results) -> Iterator[Verdict]:
    """Every target."""

    def times(what: str, fast: str, slow: str, size: object, part: str = "attach") -> float | None:
        return ratio(results, part, (what, slow, size), (what, fast, size))

    for size in (1, 20, 300, 1000):
        yield Verdict(
            f"library attach over the floor, at {size} containers",
            times("attach", "floor", "library", size),
            1.5,
            True,
        )
    for who, name, rival, wanted in (
        ("library", "library attach", "netavark", {20: 20.0, 300: 60.0}),
        ("podman-cold", "in netavark's place, cold: setup", "netavark", {20: 1.0, 300: 3.0}),
        ("podman-warm", "in netavark's place, warm: setup", "netavark", {20: 3.0, 300: 8.0}),
        ("cni-cold", "CNI plugin, cold: ADD", "cni-chain", {20: 3.0, 300: 3.0}),
        ("cni-warm", "CNI plugin, warm: ADD", "cni-chain", {20: 8.0, 300: 8.0}),
    ):
        than = "netavark" if rival == "netavark" else "the chain"
        for size, bound in wanted.items():
            yield Verdict(
                f"{name} faster than {than}, at {size} containers",
                times("attach", who, rival, size),
                bound,
                False,
            )
    down = results.median("bulk", "down", "library", 300)
    yield Verdict("300 containers down at once (library)", down, 0.5, True, "s")
    for what, who, name in (
        ("detach, left to a reaper", "library", "in its engine"),
        ("detach", "podman-warm", "as a process, in netavark's place"),
        ("detach", "cni-warm", "as a process, CNI"),
    ):
        detach = results.median("attach", what, who, 300)
        yield Verdict(
            f"single detach with the service running, {name}, at 300 containers", detach, 0.005, True, "s"
        )
    last = ratio(results, "connections", ("connections", "vethwork", 10000), ("connections", "vethwork", 1))
    yield Verdict(
        "connections per second through the last of 10,000 ports, of those through the only one",
        last,
        0.97,
        False,
    )
    more = ratio(
        results, "ports", ("one more", "library", "10000 singly"), ("one more", "library", "1 singly")
    )
    yield Verdict(
        "publishing one more port at 10,000 is what it is at 1 (a quarter more is noise)", more, 1.25, True
    )
