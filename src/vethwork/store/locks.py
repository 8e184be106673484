"""Locks between processes, that end with the process that holds them.

Theory. An open file description lock (fcntl(2), F_OFD_SETLK) lies on a range of bytes of a file, and goes when the
last descriptor of its description is closed, also by kill -9. So a lock that can be taken is a lock whose holder is done or
dead, and that is how an intent is known to be abandoned: there is no process id to be mistaken for another's.

Rules: byte 0 is *the world*: shared by all who work on a container, exclusive to those who change networks or the whole
ruleset. Every container has a byte of its own by its name. Order: container first, then the world.
"""

from __future__ import annotations

import fcntl
import os
from struct import pack
from zlib import crc32

from vethwork.store.corruption import explain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_WORLD = 0


class Locks:
    """The locks of one operation; closing it lets them all go."""

    def __init__(self, path: str, *, rehearsal: bool = False) -> None:
        """Raises StateError if the file cannot be made. A rehearsal makes none: where there is none, nobody is at work."""
        try:
            if rehearsal and not os.path.exists(path):
                self._fd = os.memfd_create("locks", os.MFD_CLOEXEC)
            else:
                self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise explain(path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of every lock."""
        os.close(self._fd)

    def world(self, *, exclusive: bool) -> None:
        """Wait for the world, shared or exclusively; converts a lock that is held already, which may let others in between."""
        fcntl.fcntl(
            self._fd, fcntl.F_OFD_SETLKW, _flock(fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK, _WORLD)
        )

    def leave_world(self) -> None:
        """Let go of the world."""
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_UNLCK, _WORLD))

    def container(self, name: str) -> None:
        """Wait until nobody else works on a container."""
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLKW, _flock(fcntl.F_WRLCK, _byte(name)))

    def try_container(self, name: str) -> bool:
        """Take a container's lock if nobody has it."""
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK, _byte(name)))
        except BlockingIOError:
            return False
        return True


def _byte(name: str) -> int:
    """Two names may share a byte: they wait for each other, which is harmless."""
    return 1 + crc32(name.encode())


def _flock(kind: int, start: int) -> bytes:
    """struct flock of include/uapi/asm-generic/fcntl.h: type, whence, start, length, pid."""
    return pack("hhqqi4x", kind, os.SEEK_SET, start, 1, 0)
