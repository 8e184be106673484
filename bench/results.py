"""All numbers of the benchmark, as they are kept: one JSON file, from which the table and the plots are made.

    {"format": 1,
     "parts": {"attach": {"began": "...", "seconds": 123.0, "mode": "full", "machine": {...}, "peers": {...}, "notes": [...]}},
     "series": [{"part": "attach", "what": "attach", "who": "library", "size": "20", "unit": "s", "values": [...],
                 "failed": ""}]}

A series is what was measured of one thing (``what``), by one contender (``who``), at one ``size`` (of containers, ports, or a
way through the host). ``failed`` says why there are no values, or fewer. A part that is measured again replaces what it
measured before. Written after every step, under another name first, so an interrupted run keeps what it has.
"""

from __future__ import annotations

import json
import os
import statistics
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

FORMAT = 1
Key = tuple[str, str, str]


class Spread(NamedTuple):
    """The middle, the ends and the quartiles of some values."""

    median: float
    least: float
    low: float
    high: float
    most: float
    values: int


class Results:
    """The numbers, and the file they are in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts: dict[str, dict[str, Any]] = {}
        self._series: dict[tuple[str, str, str, str], dict[str, Any]] = {}
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept.get("format") != FORMAT:
                raise ValueError(f"{path}: format {kept.get('format')} is not {FORMAT}; move it away")
            self.parts = kept["parts"]
            for each in kept["series"]:
                self._series[(each["part"], each["what"], each["who"], each["size"])] = each

    def begin(self, part: str, about: dict[str, Any]) -> None:
        """Forget what a part measured before."""
        self.parts[part] = about
        self._series = {key: each for key, each in self._series.items() if key[0] != part}

    def add(
        self, part: str, what: str, who: str, size: object, values: Iterable[float], unit: str = "s"
    ) -> None:
        """More values of a series."""
        series = self._one(part, what, who, str(size), unit)
        series["values"] += [float(f"{value:.6g}") for value in values]

    def fail(self, part: str, what: str, who: str, size: object, why: object) -> None:
        """Say why a series has no values, or no more."""
        self._one(part, what, who, str(size), "s")["failed"] = (
            str(why).strip().splitlines()[-1][:300] if str(why) else "?"
        )

    def _one(self, part: str, what: str, who: str, size: str, unit: str) -> dict[str, Any]:
        fresh = {
            "part": part,
            "what": what,
            "who": who,
            "size": size,
            "unit": unit,
            "values": [],
            "failed": "",
        }
        return self._series.setdefault((part, what, who, size), fresh)

    def save(self) -> None:
        """Write it all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        head = {"format": FORMAT, "parts": self.parts}
        lines = ",\n".join(json.dumps(each, sort_keys=True) for each in self._series.values())
        text = (
            json.dumps(head, indent=1, sort_keys=True).removesuffix("\n}")
            + f',\n "series": [\n{lines}\n]}}\n'
        )
        unfinished = self.path.with_suffix(".unfinished")
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, self.path)

    def values(self, part: str, what: str, who: str, size: object) -> list[float]:
        """The values of a series, in the order in which they came."""
        found: list[float] = self._series.get((part, what, who, str(size)), {}).get("values", [])
        return found

    def spread(self, part: str, what: str, who: str, size: object) -> Spread | None:
        """What is known of a series; None if it has no values."""
        values = self.values(part, what, who, size)
        return spread(values) if values else None

    def median(self, part: str, what: str, who: str, size: object) -> float | None:
        """The middle value of a series."""
        found = self.spread(part, what, who, size)
        return found.median if found else None

    def failed(self, part: str, what: str, who: str, size: object) -> str:
        """Why a series has no values."""
        return str(self._series.get((part, what, who, str(size)), {}).get("failed", ""))

    def of(self, part: str) -> Iterator[Key]:
        """What was measured in a part: (what, who, size), in the order it came."""
        return iter([key[1:] for key in self._series if key[0] == part])


def spread(values: list[float]) -> Spread:
    """The middle, the ends and the quartiles."""
    low, high = (
        (statistics.quantiles(values, n=4, method="inclusive")[::2])
        if len(values) > 1
        else (values[0], values[0])
    )
    return Spread(statistics.median(values), min(values), low, high, max(values), len(values))
