"""What a packet and a connection cost, under everybody's rules and under none.

Rules: hosts stand side by side and take turns; a turn is short and there are many. ``connections`` go from outside to the last
of the published ports of a container, one after the other by one client; under no rules, to the container's own address.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench.agent import Agents, Failed
from bench.docker import DockerStreet, busybox_image
from bench.street import WAYS, NetavarkStreet, OurStreet, Plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.run import Run

RULES = ("none", "vethwork", "netavark", "docker-iptables", "docker-nftables")
PUBLISHED = {
    "vethwork": (1, 1000, 10000),
    "netavark": (1, 1000, 10000),
    "docker-iptables": (1, 1000),
    "docker-nftables": (1, 1000),
}
PATIENCE = {True: 45.0, False: 120.0}


def makers(run: Run) -> dict[str, Callable[[], object]]:
    """Who sets up which rules."""
    root = run.peers.root
    image = busybox_image(root)
    return {
        "none": lambda: Plain(root),
        "vethwork": lambda: OurStreet(root),
        "netavark": lambda: NetavarkStreet(root),
        "docker-iptables": lambda: DockerStreet(root, image),
        "docker-nftables": lambda: DockerStreet(root, image, "--firewall-backend=nftables"),
    }


def _built(run: Run, agents: Agents, part: str, worlds: dict[str, tuple[str, int]]) -> None:
    """Have the hosts built, all at once; who cannot be, or takes too long, is out, and the results say why."""
    make = makers(run)
    for name, (rules, _) in worlds.items():
        agents.start(name, make[rules])
    for step in ("ready", "tell build", "collect", "tell serve", "collect"):
        until = time.monotonic() + PATIENCE[run.quick]
        for name, (rules, ports) in worlds.items():
            if name not in agents.all:
                continue
            try:
                if step == "ready":
                    agents.all[name].ready()
                elif step == "collect":
                    agents.all[name].collect(max(1.0, until - time.monotonic()))
                else:
                    agents.all[name].tell(step.removeprefix("tell "), ports)
            except (Failed, TimeoutError) as why:
                agents.drop(name)
                run.say(f"{part}: {name} is out: {str(why)[-1000:]}")
                what = "connections" if part == "connections" else "host"
                late = f"over {PATIENCE[run.quick]:.0f} s to set up, cut off"
                run.results.fail(
                    part, what, rules, ports or "-", late if isinstance(why, TimeoutError) else why
                )


def measure(run: Run) -> None:
    """Throughput and round trips."""
    with Agents() as agents:
        run.say("traffic: building the hosts")
        _built(run, agents, "traffic", {rules: (rules, 0) for rules in RULES})
        rounds, times = (2, 500) if run.quick else (5, 2000)
        for turn in range(rounds):
            run.say(f"traffic: round {turn + 1} of {rounds}")
            for way in WAYS:
                for who in _turned(agents, turn):
                    for kind in ("tcp", "udp"):
                        _note(
                            run,
                            agents,
                            who,
                            f"{kind} round trip",
                            way,
                            "round_trip",
                            way,
                            kind,
                            times,
                            unit="s",
                        )
            for way in WAYS:
                for who in _turned(agents, turn):
                    if turn < 3:
                        _note(run, agents, who, "throughput", way, "throughput", way, 1.0, unit="bit/s")
            run.results.save()


def measure_connections(run: Run) -> None:
    """New connections per second."""
    with Agents() as agents:
        run.say("connections: building the hosts")
        worlds = {"none": ("none", 1)}
        worlds |= {f"{rules} {size}": (rules, size) for rules, sizes in PUBLISHED.items() for size in sizes}
        if run.quick:
            del worlds["netavark 10000"]  # which takes it long to set up
        _built(run, agents, "connections", worlds)
        rounds, seconds = (3, 0.2) if run.quick else (20, 0.4)
        for turn in range(rounds):
            run.say(f"connections: round {turn + 1} of {rounds}")
            for name in _turned(agents, turn):
                rules, size = worlds[name]
                port = 20000 + size - 1
                _note(
                    run,
                    agents,
                    name,
                    "connections",
                    size,
                    "connections",
                    port,
                    seconds,
                    unit="1/s",
                    rules=rules,
                )
            if "none" in agents.all and turn < 3:
                _note(
                    run,
                    agents,
                    "none",
                    "connections",
                    "loopback",
                    "loopback",
                    seconds,
                    unit="1/s",
                    rules="none",
                )
            run.results.save()


def _turned(agents: Agents, turn: int) -> list[str]:
    order = list(agents.all)
    return order[turn % len(order) :] + order[: turn % len(order)]


def _note(
    run: Run,
    agents: Agents,
    name: str,
    what: str,
    size: object,
    method: str,
    *arguments: object,
    unit: str,
    rules: str = "",
) -> None:
    """Have one host do something, and keep what it gives."""
    part = "connections" if what == "connections" else "traffic"
    try:
        value = agents.all[name].call(method, *arguments, seconds=60.0)
        run.results.add(part, what, rules or name, size, [value], unit)
    except (Failed, TimeoutError) as why:
        if isinstance(why, TimeoutError):
            agents.drop(name)  # it has been ended; else it may do better in the next turn
        run.say(f"{part}: {name}, {what}, {size}: {str(why)[-1000:]}")
        run.results.fail(part, what, rules or name, size, why)
