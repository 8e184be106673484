"""One container with one published port comes and goes beside those that are there: the time of each call, by everybody.

Rules: the hosts of all contenders are filled side by side, and then take turns, the order turning too: A B C, B C A, ...
What a contender still does in the background is waited for, and is nobody's time. One who takes too long to fill, or fails,
is out from there on, and the results say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.agent import Agents, Failed
from bench.contenders import start_all
from bench.floor import Floor

if TYPE_CHECKING:
    from bench.run import Run

PART = "attach"
SIZES = (1, 20, 300, 1000)
WARM = {"podman-warm": "podman-cold", "cni-warm": "cni-cold"}
HANDED = 0.0005
"""Seconds that the service works for a call that was handed to it, at the least; more than it works for none."""


def measure(run: Run) -> None:
    """Measure it all."""
    sizes = SIZES[:3] if run.quick else SIZES
    with Agents() as agents:
        agents.start("floor", Floor)
        start_all(agents, run.peers.root)
        for who, why in agents.ready().items():
            _out(run, who, sizes[0], why)
        for who in agents.all.keys() & WARM.keys():
            for kind, size in agents.all[who].call("service_memory").items():
                run.results.add("memory", kind, who, 0, [size], "B")
        for size in sizes:
            run.say(f"attach: filling {len(agents.all)} hosts up to {size} containers")
            patience = 60.0 + size * (0.4 if run.quick else 0.6)
            for who, why in agents.each(list(agents.all), "fill", size, seconds=patience).items():
                _out(run, who, size, why)
            if size == sizes[0] and "floor" in agents.all:
                _compare(run, agents)
            _rounds(run, agents, size)
            run.results.save()


def _out(run: Run, who: str, size: int, why: Exception) -> None:
    run.say(f"attach: {who} is out at {size} containers: {str(why)[-1500:]}")
    for what in ("attach", "detach"):
        run.results.fail(
            PART,
            what,
            who,
            size,
            "took too long to get there, cut off" if isinstance(why, TimeoutError) else why,
        )


def _compare(run: Run, agents: Agents) -> None:
    """Say what an attach does and the floor does not; without a floor that works there is none."""
    try:
        run.note(
            PART, *[f"the floor does not do: {each}" for each in agents.all["floor"].call("differences")]
        )
    except Failed as why:
        agents.drop("floor")
        _out(run, "floor", SIZES[0], why)


def _rounds(run: Run, agents: Agents, size: int) -> None:
    """Everybody in turn, until there are enough values or the time is up."""
    third = {"library": "detach, left to a reaper", "floor": "links"}
    wanted = (6 if size < 300 else 4) if run.quick else {1: 30, 20: 30, 300: 20, 1000: 10}[size]
    run.say(f"attach: {wanted} rounds at {size} containers")
    worked = dict.fromkeys(agents.all, 0.0)
    for turn in range(wanted + 1):
        order = list(agents.all)
        for who in order[turn % len(order) :] + order[: turn % len(order)]:
            agent = agents.all[who]
            try:
                before = agent.call("service_cpu") if who in WARM else 0.0
                seconds = agent.call("once", seconds=60.0)
                worked[who] += agent.call("service_cpu") - before if who in WARM else 0.0
            except (Failed, TimeoutError) as why:
                agents.drop(who)
                _out(run, who, size, why)
                continue
            if turn:  # the first round warms up
                for what, value in zip(("attach", "detach", third.get(who, "")), seconds, strict=False):
                    run.results.add(PART, what, who, size, [value])
        if turn and "podman-cold" in agents.all:
            run.results.add(PART, "start", "python", size, [agents.all["podman-cold"].call("bare_start")])
    for who in agents.all.keys() & WARM.keys():
        if worked[who] < HANDED * 2 * (wanted + 1):
            run.note(
                PART,
                f"{who}: the service did not take part at {size} containers, so this is {WARM[who]} again",
            )
        if size != SIZES[0]:
            for kind, number in agents.all[who].call("service_memory").items():
                run.results.add("memory", kind, who, size, [number], "B")
