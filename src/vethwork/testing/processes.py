"""The processes that a lab has started, so that it can end exactly these.

Rules: whatever is started is on the list before anybody is told of it. A program leads a process group of its own, which is
killed as a whole; what its descendants do in groups of their own is found by the mark that they inherit with their
environment, or by the namespace that they are in: what was forked and executed nothing shows the environment that this
process was started with. Nothing is found by its name.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import subprocess
import sys
import time
import traceback
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

Result = TypeVar("Result")
LENGTH_BYTES = 8


class Bare(NamedTuple):
    """An exception without the work of its constructor."""

    kind: type[BaseException]
    args: tuple[object, ...]
    state: dict[str, object]

    def dress(self) -> BaseException:
        """The exception."""
        error = self.kind.__new__(self.kind, *self.args)
        error.__dict__.update(self.state)
        return error


class Child(Generic[Result]):
    """A function that runs in a child process of ours; see :meth:`Processes.fork`."""

    def __init__(self, pid: int, answer: int) -> None:
        self.pid = pid
        self.status: int | None = None
        self._pidfd = os.pidfd_open(pid)
        self._answer = answer

    def result(self, timeout: float) -> Result:
        """Wait for its end, and give what the function gave, or raise what it raised.

        Raises TimeoutError if it takes longer, ChildProcessError if it died without a word; it is gone in any case.
        """
        try:
            said = self._read(LENGTH_BYTES, deadline := time.monotonic() + timeout)
            said = self._read(int.from_bytes(said, "big"), deadline) if said else b""
        finally:
            self.kill()
        if not said:
            raise ChildProcessError(f"the child ended without a result, with wait status {self.status}")
        error, value, trace = pickle.loads(said)
        if error is None:
            result: Result = value
            return result
        if isinstance(error, Bare):
            error = error.dress()
        error.add_note(f"in a child process:\n{trace}")
        raise error

    def _read(self, length: int, deadline: float) -> bytes:
        """Read so much; empty if it dies before. Its own children may hold the pipe open, so its end is watched too."""
        poll = select.poll()
        poll.register(self._answer, select.POLLIN)
        poll.register(self._pidfd, select.POLLIN)
        data = b""
        while len(data) < length:
            ready = poll.poll(max(0, deadline - time.monotonic()) * 1000)
            if not ready:
                raise TimeoutError(f"the child {self.pid} gave no result in time")
            more = os.read(self._answer, length - len(data)) if self._answer in dict(ready) else b""
            if not more:
                return b""
            data += more
        return data

    def kill(self) -> None:
        """End it, if it has not ended, and take its status. Doing it twice is harmless."""
        if self.status is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self.status = os.waitpid(self.pid, 0)[1]
            os.close(self._pidfd)
            os.close(self._answer)


class Processes:
    """Starts programs and functions, and ends them all."""

    def __init__(self, mark: str) -> None:
        """``mark`` is a variable, as ``NAME=VALUE``, that the environment of everything started here has."""
        self._mark = mark
        self._programs: list[subprocess.Popen[str]] = []
        self._children: list[Child[object]] = []

    def start(self, program: Callable[[], subprocess.Popen[str]]) -> subprocess.Popen[str]:
        """Take a program in, which must lead a process group of its own (``start_new_session=True``)."""
        started = program()
        self._programs.append(started)
        return started

    def fork(self, function: Callable[[], Result]) -> Child[Result]:
        """Run a function in a child process. What it gives and what it raises is pickled.

        It inherits everything as it is now, and ends without cleaning up after its parent.
        """
        reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            # Python 3.12 warns of threads; those that we know of (pytest's watchdog) hold no lock a child could want.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            _answer(function, writing)
        os.close(writing)
        child = Child[Result](pid, reading)
        self._children.append(child)  # type: ignore[arg-type]
        return child

    def end(self, namespaces: Collection[tuple[int, int]] = ()) -> None:
        """Kill everything that still runs, and wait for its end.

        ``namespaces`` are the device and inode numbers of network namespaces in which nobody else has any business.
        """
        for program in self._programs:
            if program.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(program.pid, signal.SIGKILL)
                program.communicate()
        for child in self._children:
            child.kill()
        for pidfd in self._descendants(namespaces):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            select.select([pidfd], [], [], 5)
            os.close(pidfd)

    def _descendants(self, namespaces: Collection[tuple[int, int]]) -> Iterator[int]:
        """What is ours, opened: a process of the same id that comes later is not mistaken for it."""
        for pid in [int(name) for name in os.listdir("/proc") if name.isdecimal()]:
            with suppress(OSError):  # it ended while we looked, or is not ours to look at
                pidfd = os.pidfd_open(pid)
                if pid != os.getpid() and self._is_ours(pid, namespaces):
                    yield pidfd
                else:
                    os.close(pidfd)

    def _is_ours(self, pid: int, namespaces: Collection[tuple[int, int]]) -> bool:
        try:
            namespace = os.stat(f"/proc/{pid}/ns/net")
            with open(f"/proc/{pid}/environ", "rb") as file:
                marked = self._mark.encode() in file.read().split(b"\0")
        except OSError:
            return False
        return marked or (namespace.st_dev, namespace.st_ino) in namespaces


def _answer(function: Callable[[], object], pipe: int) -> None:
    """Be the child: run the function, say what became of it, and end."""
    try:
        try:
            said = _pickle((None, function(), ""))
        except BaseException as error:  # it belongs to the parent, whatever it is
            said = _pickle_error(error, traceback.format_exc())
        sys.stdout.flush()
        sys.stderr.flush()
        said = len(said).to_bytes(LENGTH_BYTES, "big") + said
        while said:
            said = said[os.write(pipe, said) :]
    finally:
        os._exit(0)


def _pickle(answer: tuple[object, ...]) -> bytes:
    said = pickle.dumps(answer)
    pickle.loads(said)  # some exceptions can be pickled, and cannot be read back
    return said


def _pickle_error(error: BaseException, trace: str) -> bytes:
    """As it is; or taken apart, if its constructor wants other arguments than it keeps; or told in words."""
    for spelled in (error, Bare(type(error), error.args, vars(error))):
        try:
            return _pickle((spelled, None, trace))
        except Exception:  # whatever a stranger's class raises when it is pickled, there is another way
            continue
    return _pickle((RuntimeError(f"{type(error).__name__}: {error}"), None, trace))
