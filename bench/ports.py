"""One container with many published ports: what it costs to attach it, and then to publish one more.

Rules: ``singly`` is a list of ports, as ``-p 1:1 -p 2:2 ...`` gives; ``range`` is one range, where it can be said (CNI has no
ranges). One more port of a container that runs is ours alone to give: for the others it is one more container with one
port beside it, which is the nearest thing that they have. Who takes longer than the bound is cut off, and the results say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.agent import Agent, Failed
from bench.contenders import Chain, Library, Netavark, OursAsNetavark
from bench.host import PORT

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.run import Run

PART = "ports"
SIZES = (1, 1000, 10000)
MORE, BESIDE = 40000, 1
"""The port that comes on top, and the container that has it where a running one gets none."""


def measure(run: Run) -> None:
    """Measure it all."""
    root = run.peers.root
    contenders: dict[str, Callable[[], object]] = {
        "library": Library,
        "podman-cold": lambda: OursAsNetavark(False),
        "netavark": lambda: Netavark(root),
        "cni-chain": lambda: Chain(root),
    }
    for turn in range(1 if run.quick else 3):
        for size in SIZES[:2] if run.quick else SIZES:  # sizes are compared: each turn has them all
            for who, make in contenders.items():
                for shape in ("singly", "range"):
                    again = turn == 0 or who in ("library", "podman-cold")
                    if again and (shape == "singly" or (size > 1 and who != "cni-chain")):
                        _measure(run, who, make, shape, size)
        run.results.save()


def _measure(run: Run, who: str, make: Callable[[], object], shape: str, size: int) -> None:
    run.say(f"ports: {who}, {size} {shape}")
    bound = 20.0 if run.quick else 60.0
    label = f"{size} {shape}"
    agent = Agent(who, make)
    try:
        agent.ready()
        ports = (
            [(PORT, PORT, size)]
            if shape == "range"
            else [(PORT + each, PORT + each, 1) for each in range(size)]
        )
        agent.call("offer", 0, ports)
        agent.call("netns", 0)
        run.results.add(PART, "attach", who, label, [agent.call("attach", 0, seconds=bound)])
        _one_more(run, agent, who, label, bound)
        run.results.add(PART, "detach", who, label, [agent.call("detach", 0, seconds=bound)])
    except TimeoutError:
        run.results.fail(PART, "attach", who, label, f"over {bound:.0f} s, cut off")
    except Failed as why:
        run.say(str(why)[-1500:])
        run.results.fail(PART, "attach", who, label, why)
    finally:
        agent.end()


def _one_more(run: Run, agent: Agent, who: str, label: str, bound: float) -> None:
    times = 3 if run.quick else 10
    if who == "library":
        for _ in range(times):
            run.results.add(PART, "one more", who, label, [agent.call("publish", 0, MORE, seconds=bound)])
            agent.call("unpublish", 0, MORE)
        return
    agent.call("offer", BESIDE, [(MORE, 80, 1)])
    agent.call("netns", BESIDE)
    for _ in range(min(times, 3)):
        run.results.add(PART, "one more", who, label, [agent.call("attach", BESIDE, seconds=bound)])
        agent.call("detach", BESIDE, seconds=bound)
