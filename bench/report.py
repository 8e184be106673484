"""The table: docs/benchmarks/results.md, from the results alone. Ratios come first; nothing here is typed by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import plots
from bench.attach import SIZES
from bench.targets import ratio, verdicts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bench.results import Results

NAMES = {
    "library": "vethwork, library",
    "podman-cold": "vethwork as netavark, cold",
    "podman-warm": "vethwork as netavark, warm",
    "cni-cold": "vethwork as CNI plugin, cold",
    "cni-warm": "vethwork as CNI plugin, warm",
    "netavark": "netavark",
    "cni-chain": "CNI chain",
    "floor": "floor (raw netlink)",
    "none": "no rules",
    "vethwork": "vethwork",
    "docker-iptables": "Docker (iptables)",
    "docker-nftables": "Docker (nftables)",
}
BESIDE = {
    "library": "floor",
    "podman-cold": "netavark",
    "podman-warm": "netavark",
    "cni-cold": "cni-chain",
    "cni-warm": "cni-chain",
}
"""Whom each of ours is compared with."""
RULES = ("none", "vethwork", "netavark", "docker-iptables", "docker-nftables")
Row = tuple[str, ...]


def write(results: Results, out: Path) -> None:
    """Write the table, and the plots where matplotlib is installed."""
    out.mkdir(parents=True, exist_ok=True)
    drawn = plots.draw(results, out)
    (out / "results.md").write_text("\n".join(_document(results, drawn)) + "\n", encoding="utf-8")


def _document(results: Results, drawn: Sequence[str]) -> Iterator[str]:
    yield "# Results"
    yield ""
    yield "Written by `python -m bench report` from `results.json`; how it is measured is in [README.md](README.md)."
    yield "Times are medians, with the quartiles behind them. A ratio says how many times faster ours is;"
    yield "beside the floor, how many times slower."
    yield ""
    yield from _circumstances(results)
    yield from _section("Targets", ("target", "bound", "this run", ""), _targets(results))
    for what in ("attach", "detach"):
        head = ("", *[f"{size} there" for size in SIZES])
        title = f"{what.capitalize()} of one container with one published port"
        yield from _section(title, head, _attach(results, what))
    yield from _section("Many at once", ("", "up, by 8", "down"), _bulk(results))
    yield from _section(
        "One container with many published ports",
        ("", "ports", "attach", "one more port", "detach"),
        _ports(results),
    )
    yield from _section(
        "New TCP connections per second from outside, through the last published port",
        ("rules", "published", "per second", "of no rules", "of the only port"),
        _connections(results),
    )
    for what, unit in (("tcp round trip", "us"), ("udp round trip", "us"), ("throughput", "Gbit/s")):
        ways = ("container-container", "host-container", "outside-container")
        yield from _section(f"{what.capitalize()}", ("rules", *ways), _traffic(results, what, unit, ways))
    yield from _section(
        "Memory of the service", ("", "containers", "resident", "its share (PSS)"), _memory(results)
    )
    yield from _section(
        "`podman run --rm` and `docker run --rm` as a whole", ("", "time", "of its own"), _runtimes(results)
    )
    for name in drawn:
        yield f"![{name}]({name})"
        yield ""
    yield from _notes(results)


def _section(title: str, head: Row, rows: Iterator[Row]) -> Iterator[str]:
    """A table with a title; nothing where there are no rows."""
    found = list(rows)
    if not found:
        return
    yield f"## {title}"
    yield ""
    for row in (head, ("---",) * len(head), *found):
        yield "| " + " | ".join(row) + " |"
    yield ""


def _circumstances(results: Results) -> Iterator[str]:
    for part, about in results.parts.items():
        machine = about["machine"]
        yield (
            f"- **{part}**: {about['mode']} run of {about['seconds']:.0f} s, {about['began']}, commit {about['commit']}; "
            f"{machine['cpus']} CPUs ({machine['cpu']}), kernel {machine['kernel']}, Python {machine['python']}, "
            f"load before {machine['load_before']:.1f}"
        )
    origins = {about["peers"]["origin"]: about["peers"]["versions"] for about in results.parts.values()}
    for origin, versions in origins.items():
        yield f"- peers: {origin}: " + ", ".join(
            f"{name} {version}" for name, version in sorted(versions.items())
        )
    yield ""


def _targets(results: Results) -> Iterator[Row]:
    for each in verdicts(results):
        bound = f"{'at most' if each.most else 'at least'} {_amount(each.bound, each.unit)}"
        yield each.text, bound, "" if each.value is None else _amount(each.value, each.unit), each.word


def _amount(value: float, unit: str) -> str:
    """A value as people read it.

    >>> _amount(0.00123, "s"), _amount(12.3, "s"), _amount(1.234, "x")
    ('1.23 ms', '12.3 s', '1.23 x')
    """
    if unit == "":
        return f"{value:,.0f}"
    for least, factor, name in ((1, 1, "s"), (1e-3, 1e3, "ms"), (0, 1e6, "us")):
        if unit == "s" and value >= least:
            return f"{value * factor:.3g} {name}"
    return f"{value:.3g} {unit}"


def _cell(results: Results, part: str, what: str, who: str, size: object, unit: str = "s") -> str:
    """The middle value, and the quartiles; or why there is none."""
    seen = results.spread(part, what, who, size)
    if seen is None:
        return results.failed(part, what, who, size) or "not measured"
    middle = _amount(seen.median, unit)
    return middle if seen.values < 2 else f"{middle} ({_amount(seen.low, unit)} - {_amount(seen.high, unit)})"


def _attach(results: Results, what: str) -> Iterator[Row]:
    for who in (
        "library",
        "floor",
        "podman-cold",
        "podman-warm",
        "netavark",
        "cni-cold",
        "cni-warm",
        "cni-chain",
    ):
        cells = [_cell(results, "attach", what, who, size) for size in SIZES]
        if other := BESIDE.get(who):
            for place, size in enumerate(SIZES):
                pair = (what, other, size), (what, who, size)
                times = ratio(results, "attach", *(reversed(pair) if other == "floor" else pair))
                cells[place] = f"**{times:.2g} x** {cells[place]}" if times else cells[place]
        yield NAMES[who], *cells
    more = {
        "attach": (("links", "floor", "floor, links alone"), ("start", "python", "`python3 -I -S -c pass`")),
        "detach": (("detach, left to a reaper", "library", "vethwork, library, links left to a reaper"),),
    }
    for other, who, name in more[what]:
        yield name, *[_cell(results, "attach", other, who, size) for size in SIZES]


def _bulk(results: Results) -> Iterator[Row]:
    seen = dict.fromkeys((who, size) for _, who, size in results.of("bulk"))
    for who, size in seen:
        yield f"{NAMES[who]}, {size}", *[_cell(results, "bulk", what, who, size) for what in ("boot", "down")]


def _ports(results: Results) -> Iterator[Row]:
    seen = dict.fromkeys((size, who) for _, who, size in results.of("ports"))
    for size, who in seen:
        yield (
            NAMES[who],
            size,
            *[_cell(results, "ports", what, who, size) for what in ("attach", "one more", "detach")],
        )


def _connections(results: Results) -> Iterator[Row]:
    for what, who, size in results.of("connections"):
        free = ratio(results, "connections", (what, who, size), (what, "none", 1))
        only = ratio(results, "connections", (what, who, size), (what, who, 1))
        shown = f"{int(size):,}" if size.isdecimal() and who != "none" else "" if size == "1" else "over lo"
        cell = _cell(results, "connections", what, who, size, "")
        yield (
            NAMES[who],
            shown,
            cell,
            f"{free:.2f}" if free else "",
            f"{only:.2f}" if only and who != "none" else "",
        )


def _traffic(results: Results, what: str, unit: str, ways: tuple[str, ...]) -> Iterator[Row]:
    scale = {"us": 1e6, "Gbit/s": 1e-9}[unit]
    for who in RULES:
        cells = []
        for way in ways:
            value = results.median("traffic", what, who, way)
            share = ratio(results, "traffic", (what, who, way), (what, "none", way))
            cells.append(f"**{share:.2f}** {value * scale:.3g} {unit}" if value and share else "")
        if any(cells):
            yield NAMES[who], *cells


def _memory(results: Results) -> Iterator[Row]:
    for who, size in dict.fromkeys((who, size) for _, who, size in results.of("memory")):
        sizes = [results.median("memory", kind, who, size) for kind in ("rss", "pss")]
        yield NAMES[who], size, *[f"{value / 2**20:.1f} MiB" if value else "" for value in sizes]


def _runtimes(results: Results) -> Iterator[Row]:
    for _, who, size in sorted(
        results.of("runtimes"), key=lambda key: key[1].partition(",")[0], reverse=True
    ):
        own = ratio(results, "runtimes", ("run", who, size), ("run", who.partition(",")[0] + ", own", size))
        yield who, _cell(results, "runtimes", "run", who, size), f"{own:.2f}" if own else ""


def _notes(results: Results) -> Iterator[str]:
    notes = [f"- {part}: {note}" for part, about in results.parts.items() for note in about["notes"]]
    if notes:
        yield "## Notes of this run"
        yield ""
        yield from notes
        yield ""
