"""Engines that stay open, for whoever works next: with their records and their sockets.

Theory. Opening the state file and the netlink sockets costs more than many a call, and what was used last is nearest at hand:
SQLite's pages, the processor's caches. So who comes next gets the engine that came back last, in whichever thread, and as
many are open as have worked at the same time. A namespace is not kept: it lives while it is open, and its path may lead to
another one tomorrow.

Rules: who borrows an engine gives it back at the end of his block, with nothing of a container open any more. One that was in
use when anything was raised is closed, whatever it was: the next call has a fresh one. An engine for other records than the
service's own is made for that call. All leave what the kernel is slow at to one reaper.
"""

from __future__ import annotations

from vethwork.engine.engine import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Self

    from vethwork.engine.reaper import Reaper


class Engines:
    """The engines of one service. Called as ``Engine`` is, it gives what is used as an engine is. A context manager."""

    def __init__(self, root: str, run: str, reaper: Reaper) -> None:
        self.root, self.run = root, run
        self._reaper = reaper
        self._idle: list[Engine] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._idle:
            self._idle.pop().close()

    def __call__(self, root: str = "", run: str = "") -> AbstractContextManager[Engine]:
        """Lend an engine. Raises StateError if one cannot be had."""
        if (root or self.root, run or self.run) != (self.root, self.run):
            return Engine(root, run)
        return _Loan(self._idle, self._take())

    def _take(self) -> Engine:
        try:
            return self._idle.pop()  # at once: two threads never get the same
        except IndexError:
            return Engine(self.root, self.run, reaper=self._reaper)


class _Loan:
    """An engine in use."""

    def __init__(self, idle: list[Engine], engine: Engine) -> None:
        self._idle, self._engine = idle, engine

    def __enter__(self) -> Engine:
        return self._engine

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self._engine.kernel.leave_namespaces()
            self._idle.append(self._engine)
        else:
            self._engine.close()
