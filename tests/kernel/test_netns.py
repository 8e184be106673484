"""Who goes into a namespace comes back, whatever happens there."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from vethwork.kernel import libc, netns
from vethwork.kernel.netns import inside, open_netns
from vethwork.testing.lab import Lab
from vethwork.testing.machine import SOURCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

TRIPS = 20_000
PR_CAPBSET_DROP, CAP_SYS_ADMIN = 24, 21  # include/uapi/linux/{prctl,capability}.h
WITHOUT_LEAVE = f"""if True:
    import sys
    sys.path[:0] = [{SOURCE!r}]
    from vethwork.kernel.netns import inside, open_netns, own_cookie
    try:
        inside(open_netns(sys.argv[1]), own_cookie)
    except PermissionError:
        sys.exit(0)
    sys.exit("it went")
"""


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
    faulthandler.disable()  # whose report would be for a person
    fd = open_netns(path)
    real = libc.function("setns")
    libc._functions["setns"] = lambda to, kind: real(to, kind) if to == fd else -1
    inside(fd, where)


def test_who_cannot_come_back_ends(path: str) -> None:
    with Lab() as lab:
        child = lab.host.start(partial(refuse_return, path))
        with pytest.raises(ChildProcessError, match=str(int(signal.SIGABRT))):
            child.result(30)


def go_without_leave(path: str) -> bool:
    libc.call("prctl", PR_CAPBSET_DROP, CAP_SYS_ADMIN)
    if os.fork() == 0:
        os.execv(sys.executable, [sys.executable, "-c", WITHOUT_LEAVE, path])
    return os.wait()[1] == 0


def test_who_may_not_go_is_told(path: str) -> None:
    with Lab() as lab:
        assert lab.host.call(partial(go_without_leave, path))
