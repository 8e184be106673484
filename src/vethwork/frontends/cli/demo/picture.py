"""The world of the demo as a drawing, made from the records: views of networks and containers.

Rules: pure. Every line is as long as it needs to be; the box of the host is as wide as its longest line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    View = dict[str, Any]

NAME_WIDTH = 9


def draw(
    networks: list[View], containers: list[View], host: str, neighbour: str, internet: str
) -> tuple[str, ...]:
    """The lines of the drawing; ``host`` and the others are the addresses that they have outside."""
    inner = [""]
    for network in networks:
        members = [each for each in containers if _on(each, network["name"])]
        inner += (
            _draw_cable(network, members) if network["driver"] == "p2p" else _draw_bridge(network, members)
        )
        inner += [line for each in members for line in _draw_sharers(each, containers)]
        inner.append("")
    outside = f"internet {internet} ─── router ─┬─ "
    width = max(len(outside) + 2, *[len(line) + 2 for line in inner])
    at = outside.index("┬")
    label = f" host {host} "
    top = "─" * (at - 1) + "┴" + "─" + label
    return (
        f"{outside}neighbour {neighbour}",
        f"{' ' * at}│",
        f"┌{top}{'─' * (width - len(top))}┐",
        *[f"│ {line:{width - 1}}│" for line in inner],
        f"└{'─' * width}┘",
    )


def _on(container: View, network: str) -> bool:
    return any(endpoint["network"] == network for endpoint in container["endpoints"])


def _bare(interfaces: Iterable[str]) -> str:
    return "  ".join(interface.partition("/")[0] for interface in interfaces)


def _addresses(container: View, network: str) -> str:
    found = next(each for each in container["endpoints"] if each["network"] == network)
    return _bare(found["addresses"])


def _draw_cable(network: View, members: list[View]) -> list[str]:
    name = network["name"]
    ends = [f"{each['name']} {_addresses(each, name)}" for each in members]
    if len(members) == 2:
        other = members[1]
        ends[1] = f"{_addresses(other, name)} {other['name']}"
    return [f"{name:{NAME_WIDTH}} {' ════════════ '.join(ends)}"]


def _draw_bridge(network: View, members: list[View]) -> list[str]:
    name = network["name"]
    gateways = "  ".join(subnet["gateway"] for subnet in network["subnets"] if subnet["gateway"])
    hung = [_hang("gateway", gateways, [])] if gateways else []
    hung += [_hang(each["name"], _addresses(each, name), _ports(each, name)) for each in members]
    lines = [f"{name:{NAME_WIDTH}} {network['device']}, {_describe(network)}"]
    for place, (first, *more) in enumerate(hung):
        last = place == len(hung) - 1
        lines.append(f"{'└── ' if last else '├── '}{first}")
        lines += [f"{'    ' if last else '│   '}{line}" for line in more]
    return lines


def _hang(name: str, addresses: str, ports: list[str]) -> list[str]:
    """One that is plugged into a bridge: its lines."""
    start = f"{name:{NAME_WIDTH}} {addresses}"
    if not ports:
        return [start]
    return [f"{start}  ◄── {ports[0]}", *[f"{' ' * len(start)}  ◄── {port}" for port in ports[1:]]]


def _ports(container: View, network: str) -> list[str]:
    """What leads to a container; drawn on its first network only."""
    home = container["endpoints"][0]["network"] == network
    return [spell_port(port) for port in container["ports"]] if home else []


def _describe(network: View) -> str:
    if network["isolated"]:
        return "isolated"
    if network["internal"]:
        return "internal"
    sources = [subnet["source"] for subnet in network["subnets"] if subnet["source"]]
    if sources:
        return f"leaves under {' '.join(sources)}"
    whose = "the host's" if network["masquerade"] else "its own"
    return f"leaves under {whose} address"


def _draw_sharers(container: View, containers: list[View]) -> list[str]:
    sharers = [each["name"] for each in containers if each["mode"] == f"container:{container['name']}"]
    return [f"          {name} lives in {container['name']}'s namespace" for name in sharers]


def spell_port(port: View) -> str:
    """A published range as people write it: ``*:8080→80/tcp``."""

    def spell(first: int) -> str:
        return f"{first}-{first + port['count'] - 1}" if port["count"] > 1 else str(first)

    host = f"[{port['host_ip']}]" if ":" in port["host_ip"] else port["host_ip"] or "*"
    shift = f"→{spell(port['container_port'])}" if port["container_port"] != port["host_port"] else ""
    return f"{host}:{spell(port['host_port'])}{shift}/{port['protocol']}"
