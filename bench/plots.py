"""The pictures, from the results alone. Without matplotlib there are none, and the table comes without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.results import Results

STYLES = {
    "floor": ("floor (raw netlink)", "black", ":"),
    "library": ("vethwork, library", "tab:green", "-"),
    "podman-warm": ("vethwork as netavark, warm", "tab:blue", "-"),
    "podman-cold": ("vethwork as netavark, cold", "tab:blue", "--"),
    "netavark": ("netavark", "tab:red", "-"),
    "cni-warm": ("vethwork as CNI plugin, warm", "tab:cyan", "-"),
    "cni-cold": ("vethwork as CNI plugin, cold", "tab:cyan", "--"),
    "cni-chain": ("CNI chain", "tab:orange", "-"),
}
RULES = {
    "vethwork": ("vethwork", "tab:green"),
    "netavark": ("netavark", "tab:red"),
    "docker-iptables": ("Docker (iptables)", "tab:purple"),
    "docker-nftables": ("Docker (nftables)", "tab:pink"),
}


def draw(results: Results, out: Path) -> list[str]:
    """Write what there are numbers for; gives the files' names."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        return []
    mpl.use("Agg")
    from matplotlib.figure import Figure

    drawn = []
    painters: dict[str, Callable[[Results, Any], bool]] = {
        "attach.png": lambda found, axes: _sizes(found, axes, "attach"),
        "detach.png": lambda found, axes: _sizes(found, axes, "detach"),
        "connections.png": _connections,
        "runtimes.png": _runtimes,
    }
    for name, paint in painters.items():
        figure = Figure(figsize=(8, 4.8), layout="constrained")
        if paint(results, figure.subplots()):
            figure.savefig(out / name, dpi=110, metadata={"Software": None})
            drawn.append(name)
    return drawn


def _sizes(results: Results, axes: Any, what: str) -> bool:
    """Time over the number of containers that are there, with the quartiles as a band."""
    seen = False
    for who, (name, colour, line) in STYLES.items():
        found = [
            (int(size), spread)
            for each, other, size in results.of("attach")
            if (each, other) == (what, who) and (spread := results.spread("attach", what, who, size))
        ]
        if found:
            sizes = [size for size, _ in found]
            axes.plot(
                sizes,
                [each.median * 1e3 for _, each in found],
                line,
                color=colour,
                label=name,
                marker="o",
                ms=3,
            )
            low, high = (
                [value * 1e3 for value in ends]
                for ends in zip(*[(each.low, each.high) for _, each in found], strict=True)
            )
            axes.fill_between(sizes, low, high, color=colour, alpha=0.15)
            seen = True
    axes.set(xscale="log", yscale="log", xlabel="containers there already", ylabel="milliseconds")
    axes.set_title(f"{what}: one container with one published port")
    axes.grid(visible=True, which="both", alpha=0.2)
    if seen:
        axes.legend(fontsize=8)
    return seen


def _connections(results: Results, axes: Any) -> bool:
    """The share of the connections that plain routing has, over the number of published ports."""
    free = results.median("connections", "connections", "none", 1)
    seen = False
    for who, (name, colour) in RULES.items():
        found = [
            (int(size), value / free)
            for _, other, size in results.of("connections")
            if other == who and free and (value := results.median("connections", "connections", who, size))
        ]
        if found:
            axes.plot(*zip(*found, strict=True), "-o", color=colour, label=name)
            seen = True
    axes.set(xscale="log", ylim=(0, None), xlabel="published ports", ylabel="of plain routing without rules")
    axes.set_title("new TCP connections per second, through the last of the published ports")
    axes.grid(visible=True, alpha=0.2)
    if seen:
        axes.legend(fontsize=8)
    return seen


def _runtimes(results: Results, axes: Any) -> bool:
    """What ``run --rm`` takes as a whole."""
    found = [
        (who, spread)
        for _, who, size in sorted(results.of("runtimes"), key=lambda key: key[1].partition(",")[0])
        if (spread := results.spread("runtimes", "run", who, size))
    ]
    if found:
        middle = [each.median * 1e3 for _, each in found]
        ends = [
            [(each.median - each.low) * 1e3 for _, each in found],
            [(each.high - each.median) * 1e3 for _, each in found],
        ]
        colours = ["tab:green" if "vethwork" in who else "tab:gray" for who, _ in found]
        axes.barh([who for who, _ in found], middle, xerr=ends, color=colours)
        axes.invert_yaxis()
    axes.set(xlabel="milliseconds")
    axes.set_title("run --rm, with a published port")
    return bool(found)
