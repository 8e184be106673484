"""Many at once: a host boots and 300 containers want their network, by 8 at a time; and 300 are taken down.

Rules: where the runtime holds a lock round each call, as Podman does, so does the one that plays it here: eight callers, and
one at a time. CNI has no such lock. Taking down goes one after the other, but for the library, which has a call for many. An
engine is one thread's, so the library attaches one after the other too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.agent import Agents, Failed
from bench.contenders import start_all

if TYPE_CHECKING:
    from bench.run import Run

PART = "bulk"
WORKERS = 8
OURS = ("library", "podman-cold", "podman-warm", "cni-cold", "cni-warm")
PATIENCE = 240.0
SHORT = 3
"""How often in one turn what takes a second; the others take many, over which noise is small."""


def measure(run: Run) -> None:
    """Measure it all."""
    count = 40 if run.quick else 300
    with Agents() as agents:
        start_all(agents, run.peers.root)
        for who, why in agents.ready().items():
            _out(run, who, count, why)
        for turn in range(1 if run.quick else 2):
            for who in list(agents.all):
                if turn and who not in OURS:
                    continue  # once takes them minutes, and over so many calls noise is small
                run.say(f"bulk: {who}: {count} up by {WORKERS}, and down")
                try:
                    _up_and_down(run, agents, who, count)
                except (Failed, TimeoutError) as why:
                    agents.drop(who)
                    _out(run, who, count, why)
            run.results.save()


def _out(run: Run, who: str, count: int, why: Exception) -> None:
    run.say(str(why)[-1500:])
    late = f"over {PATIENCE:.0f} s, cut off"
    for what in ("boot", "down"):
        run.results.fail(PART, what, who, count, late if isinstance(why, TimeoutError) else why)


def _up_and_down(run: Run, agents: Agents, who: str, count: int) -> None:
    agent = agents.all[who]
    for _ in range(SHORT if who == "library" else 1):
        seconds = agent.call("all_at_once", "attach", count, WORKERS, seconds=PATIENCE)
        run.results.add(PART, "boot", who, count, [seconds])
        seconds = agent.call("all_at_once", "detach", count, 1, seconds=PATIENCE)
        run.results.add(PART, "down", who, count, [seconds])
        agent.call("idle")
