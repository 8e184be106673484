"""Who goes into a namespace comes back, whatever happens there."""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest

from vethwork.kernel import libc, netns
from vethwork.kernel.netns import inside, open_netns
from vethwork.testing.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

TRIPS = 20_000


def where() -> int:
    """The namespace of the calling thread."""
    return os.stat("/proc/thread-self/ns/net").st_ino


@pytest.fixture
def path() -> Iterator[str]:
    """A namespace."""
    with Lab() as lab:
        yield lab.container("one").path


def test_what_is_done_inside(path: str) -> None:
    fd = open_netns(path)
    home = where()
    assert inside(fd, where) == os.fstat(fd).st_ino != home
    with pytest.raises(ZeroDivisionError):
        inside(fd, lambda: 1 // 0)
    assert where() == home
    with pytest.raises(OSError, match="setns"):
        inside(os.open("/", os.O_RDONLY), where)
    assert where() == home


def interrupt_trips(path: str) -> tuple[int, int]:
    """Go there again and again, while a signal's handler raises wherever it comes; how many did not end, and strayed."""
    fd, home = open_netns(path), where()

    def raise_it(_: int, frame: FrameType | None) -> None:
        if frame is not None and frame.f_code.co_filename in (netns.__file__, libc.__file__):
            raise InterruptedError

    signal.signal(signal.SIGALRM, raise_it)
    interrupted = strayed = 0
    for number in range(TRIPS):
        signal.setitimer(signal.ITIMER_REAL, (1 + number % 80) * 1e-6)
        try:
            inside(fd, where)
        except InterruptedError:
            interrupted += 1
        strayed += where() != home
    return interrupted, strayed


def test_a_signal_at_any_line(path: str) -> None:
    with Lab() as lab:
        interrupted, strayed = lab.host.call(partial(interrupt_trips, path))
    assert interrupted > TRIPS // 100
    assert not strayed


def refuse_return(path: str) -> None:
    fd = open_netns(path)
    real = libc.function("setns")
    libc._functions["setns"] = lambda to, kind: real(to, kind) if to == fd else -1
    inside(fd, where)


def test_who_cannot_come_back_ends(path: str) -> None:
    with Lab() as lab:
        child = lab.host.start(partial(refuse_return, path))
        with pytest.raises(ChildProcessError, match=str(int(signal.SIGABRT))):
            child.result(30)
