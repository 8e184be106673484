"""Sysctls below /proc/sys/net, of the namespace that the calling thread is in.

Rules: a value is written only where it differs, so that a read-only /proc with the right values is fine. Paths are made by
us from checked interface names, and are paths (``ipv4/conf/eth0.5/forwarding``), never dotted names.
"""

from __future__ import annotations

import os
from errno import EACCES, ENOENT, EPERM, EROFS

from vethwork.errors import KernelRefused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = "/proc/sys/net/"
KEPT = 200


def read(path: str) -> str | None:
    """A sysctl's value; None where this kernel has no such sysctl."""
    try:
        fd = os.open(ROOT + path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return os.read(fd, 4096).decode().strip()
    finally:
        os.close(fd)


class Readings:
    """Sysctls that are read again and again. To open one takes twenty times as long as to read it: the first are kept open."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = tuple(paths)
        self._fds: dict[str, int] = {}

    def close(self) -> None:
        """Give the descriptors back."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds = {}

    def values(self) -> dict[str, str | None]:
        """The value of each; None where this kernel has no such sysctl (any more)."""
        return {path: self._value(path) for path in self._paths}

    def _value(self, path: str) -> str | None:
        if path in self._fds:
            try:
                return os.pread(self._fds[path], 64, 0).decode().strip()
            except OSError:  # its link has gone, and may have come back
                os.close(self._fds.pop(path))
        if len(self._fds) >= KEPT:
            return read(path)
        try:
            self._fds[path] = fd = os.open(ROOT + path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        return os.pread(fd, 64, 0).decode().strip()


def ensure(path: str, value: str) -> None:
    """Write a sysctl unless it has the value already. Raises KernelRefused."""
    try:
        fd = os.open(ROOT + path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.read(fd, 4096).decode().strip() != value:
                # Anywhere but at 0, the kernel passes it over (sysctl_writes_strict).
                os.pwrite(fd, value.encode(), 0)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno == ENOENT and path.endswith("/disable_ipv6"):
            return  # a kernel without IPv6 has nothing to turn off
        if error.errno in (EROFS, EACCES, EPERM) and read(path) == value:
            return
        raise KernelRefused(
            f"set sysctl net/{path} to {value}", error.errno or 0, hint=_hint(path, error.errno)
        ) from error


def _hint(path: str, errno: int | None) -> str:
    if errno == EROFS:
        return "/proc/sys is read-only here: set it from outside"
    if path.startswith("ipv6/"):
        return "is IPv6 enabled in this kernel (CONFIG_IPV6)?"
    return ""
