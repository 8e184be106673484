"""Deleting links behind the caller's back, many at once.

Theory. The kernel takes 20 ms and more to delete a link: it waits until no packet can be in flight any more. For a hundred
links that it deletes together it waits hardly longer; and a walk through its table of flows, 10 ms, ends the flows of one
container or of many. So a detach that has somebody to leave the rest to does all that closes: the ruleset's elements go, by
which the link is mute, and it goes down, unless all is awaited in any case. A :class:`Reaper` ends the flows and deletes the
links that have come together. Whatever happens to it, nothing is half done: the intent is on record until then, and its lock
is held. So the container is on record too, with its addresses and ports; who is refused one of those waits for the reaper,
and asks again. When the process dies, whoever comes next finishes.

Rules: a reaper is a thread with an engine of its own, in the namespace of the thread that made it. It waits a moment for more,
but not when somebody waits for it: ``hurry``. What it fails to delete stays intended.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, contextmanager, suppress

from vethwork.engine.engine import Engine
from vethwork.errors import VethworkError
from vethwork.model.container import Endpoint
from vethwork.model.steps import DeleteLink, ForgetFlows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Self, TypeAlias

    from vethwork.model.network import Network
    from vethwork.model.plan import Plan
    from vethwork.store.locks import Locks

    Left: TypeAlias = tuple[Locks, int, Plan]

QUIET_SECONDS, LONGEST_SECONDS = 0.1, 0.5
"""How long nobody must have come, and how long at most is waited, before what has come together is deleted.

While the kernel deletes links, whoever changes one waits: better seldom than often.
"""
MOST = 400
"""How many wait at most; each holds a descriptor, its lock."""


class Reaper:
    """Finishes the detaches that are left to it. A context manager; its end waits until all is done."""

    def __init__(self, root: str, run: str, *, is_awaited: bool = False) -> None:
        """``is_awaited``: nobody goes on before :meth:`close`, so wait for more until then, as far as MOST allows."""
        self._root, self._run = root, run
        self.is_awaited = is_awaited
        self._left: list[Left] = []
        self._numbers: set[int] = set()
        self._leavers: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._first = self._last = 0.0
        self._wanted = self._ending = False
        self._thread = threading.Thread(target=self._work, name="reaper", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Delete what is left and end."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join()
        for each in self._leavers:
            each.join()

    def take(self, locks: Locks, number: int, plan: Plan) -> None:
        """Finish a plan of which nothing but flows and links is left. Its lock is the reaper's now."""
        with self._changed:
            self._last = time.monotonic()
            if not self._left:
                self._first = self._last
            self._left.append((locks, number, plan))
            self._numbers.add(number)
            self._changed.notify()

    def holds(self, number: int) -> bool:
        """Whether it has the intent of that number."""
        return number in self._numbers

    def hurry(self) -> None:
        """Somebody is going to wait for what is left, or may: wait for no more of it."""
        if self._left:
            with self._changed:
                self._wanted = True
                self._changed.notify()

    def _work(self) -> None:
        while batch := self._next():
            try:
                self._reap(batch)
            except VethworkError:
                continue  # the intents stay, and nobody holds their locks: the next call goes on

    def _reap(self, batch: list[Left]) -> None:
        with ExitStack() as held:
            for locks, number, _ in batch:
                held.enter_context(locks)
                held.callback(self._numbers.discard, number)
            with Engine(self._root, self._run) as engine:
                networks = tuple([each for each in _finish(engine, batch) if each.transient])
        if networks:
            self._leavers = [each for each in self._leavers if each.is_alive()]
            self._leavers.append(threading.Thread(target=self._remove_idle, args=(networks,)))
            self._leavers[-1].start()

    def _remove_idle(self, networks: tuple[Network, ...]) -> None:
        """In a thread of its own: it must have the world to itself, and whoever waits for the reaper shares that."""
        with suppress(VethworkError), Engine(self._root, self._run) as engine:
            engine.remove_idle_networks(networks)

    def _next(self) -> list[Left]:
        """Wait for a batch; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._left or self._ending)
            while (pause := self._pause()) > 0:
                self._changed.wait(pause)
            batch, self._left = self._left[:MOST], self._left[MOST:]
            self._wanted = self._wanted and bool(self._left)
            return batch

    def _pause(self) -> float:
        """How much longer to wait for more, in seconds."""
        if self._ending or self._wanted or len(self._left) >= MOST:
            return 0
        if self.is_awaited:
            return LONGEST_SECONDS
        return min(self._last + QUIET_SECONDS, self._first + LONGEST_SECONDS) - time.monotonic()


@contextmanager
def reaping(root: str = "", run: str = "") -> Iterator[Engine]:
    """An engine whose detaches need not wait; at the end of the block all are done."""
    with Reaper(root, run, is_awaited=True) as last, Engine(root, run, reaper=last) as engine:
        yield engine


def detach_all(engine: Engine, names: Iterable[str]) -> None:
    """Detach many, and wait for the kernel once for all of them. Those that are not there are passed over.

    Raises as ``Engine.detach``, at the first that fails.
    """
    with reaping(engine.root, engine.run) as prompt:
        for name in names:
            prompt.detach(name, wait=False)


def _finish(engine: Engine, batch: list[Left]) -> tuple[Network, ...]:
    """Forget the flows, delete the links, all at once, and look that each is gone. Gives the networks that they were on."""
    plans = [(number, plan) for _, number, plan in batch]
    engine.kernel.forget([step for _, plan in plans for step in plan.steps if isinstance(step, ForgetFlows)])
    engine.kernel.delete_retired()
    done = [(number, plan) for number, plan in plans if not engine.kernel.attempt(_deletions(plan))]
    with engine.store.transaction():
        for number, plan in done:
            engine.store.settle(number, plan)
    left = {row.network for _, plan in done for row in plan.removes if isinstance(row, Endpoint)}
    return tuple([network for network in engine.networks() if network.name in left])


def _deletions(plan: Plan) -> list[DeleteLink]:
    return [step for step in plan.steps if isinstance(step, DeleteLink)]
