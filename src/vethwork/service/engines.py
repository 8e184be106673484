"""Engines that stay open: one for each thread of work, with its records and its sockets.

Theory. Opening the state file and the netlink sockets costs more than many a call. An engine is one thread's, for SQLite's
connection is. A namespace is not kept: it lives while it is open, and its path may lead to another one tomorrow.

Rules: who borrows an engine gives it back at the end of his block, with nothing of a container open any more. One that was in
use when anything was raised is closed, whatever it was: the next call has a fresh one. An engine for other records than the
service's own is made for that call. All leave what the kernel is slow at to one reaper.
"""

from __future__ import annotations

import threading

from vethwork.engine import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from vethwork.reaper import Reaper


class Engines:
    """The engines of one service. Called as ``Engine`` is, it gives what is used as an engine is."""

    def __init__(self, root: str, run: str, reaper: Reaper) -> None:
        self.root, self.run = root, run
        self._reaper = reaper
        self._own = threading.local()

    def __call__(self, root: str = "", run: str = "") -> AbstractContextManager[Engine]:
        """Lend the calling thread its engine. Raises StateError if one cannot be had."""
        if (root or self.root, run or self.run) != (self.root, self.run):
            return Engine(root, run)
        return self._lend()

    def _lend(self) -> _Loan:
        engine = getattr(self._own, "engine", None)
        if engine is None:
            engine = self._own.engine = Engine(self.root, self.run, reaper=self._reaper)
        return _Loan(self, engine)

    def drop(self) -> None:
        """Close the calling thread's engine, if it has one."""
        engine = getattr(self._own, "engine", None)
        if engine is not None:
            self._own.engine = None
            engine.close()


class _Loan:
    """An engine in use."""

    def __init__(self, engines: Engines, engine: Engine) -> None:
        self._engines, self._engine = engines, engine

    def __enter__(self) -> Engine:
        return self._engine

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self._engine.kernel.leave_namespaces()
        else:
            self._engines.drop()
