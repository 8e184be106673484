"""A line between a process and one that it forked: words in both directions, and the news that the other is gone.

Theory. Two pipes (pipe(7)), close-on-exec. The end of a pipe tells that its last writer is gone, but any other process
that was forked meanwhile may hold a copy of the writing end. So who must not miss the death of the other also watches a
pidfd of it (pidfd_open(2)), which becomes readable when that process ends, whoever holds what.

Rules: a word is at most PIPE_BUF bytes, so that it is written and read whole; nobody says two words in a row without an
answer in between, so that they cannot run together.
"""

from __future__ import annotations

import os
import select

from vethwork.errors import KernelRefused


class Line:
    """One end of a conversation over two pipes. See the module's docstring."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self.incoming, self.outgoing = incoming, outgoing

    def send(self, word: bytes) -> bool:
        """Say a word; gives False if nobody is there any more."""
        try:
            os.write(self.outgoing, word[: select.PIPE_BUF])
        except BrokenPipeError:
            return False
        return True

    def receive(self, watched: int = -1) -> bytes:
        """Wait for a word; empty if the other end closed, or if the process that ``watched`` is a pidfd of ended."""
        if watched >= 0:
            poll = select.poll()
            poll.register(self.incoming, select.POLLIN)
            poll.register(watched, select.POLLIN)
            if self.incoming not in [fd for fd, _ in poll.poll()]:
                return b""
        return os.read(self.incoming, select.PIPE_BUF)

    def close(self) -> None:
        """Hang up."""
        for fd in (self.incoming, self.outgoing):
            if fd >= 0:
                os.close(fd)
        self.incoming = self.outgoing = -1


def make_line() -> tuple[Line, Line, int]:
    """Make both ends of a line, and a pidfd of this process for the other end to watch. All are close-on-exec."""
    fds: list[int] = []
    try:
        fds += os.pipe()
        fds += os.pipe()
        fds.append(os.pidfd_open(os.getpid()))
    except OSError as error:
        for fd in fds:
            os.close(fd)
        raise KernelRefused("make the pipes to a process", error.errno or 0) from error
    return Line(fds[0], fds[3]), Line(fds[2], fds[1]), fds[4]
