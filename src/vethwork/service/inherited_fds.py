"""What a process finds open when it starts, and should not keep: the service outlives whoever started it.

Rules: what systemd hands over (sd_listen_fds(3): from 3 on, as many as LISTEN_FDS says, if LISTEN_PID is us) is left open, and
so are the three standard streams. Where one of these is closed, /dev/null takes its place, so that no socket ever gets its
number and is written to by a ``print``.
"""

from __future__ import annotations

import os

FIRST = 3


def close_inherited() -> None:
    """Close everything else. For the start of a process, before it opens anything itself."""
    for fd in range(FIRST):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    first = FIRST + _handed_over()
    with os.scandir("/proc/self/fd") as entries:
        found = [int(entry.name) for entry in entries]
    for fd in found:
        if fd >= first:
            try:
                os.close(fd)
            except OSError:
                continue  # it was the directory's own


def _handed_over() -> int:
    """How many descriptors systemd has given us."""
    count = os.environ.get("LISTEN_FDS", "")
    mine = os.environ.get("LISTEN_PID", "") == str(os.getpid())
    return int(count) if mine and count.isdecimal() else 0
