"""Sysctls below /proc/sys/net, of the namespace that the calling thread is in.

Rules: a value is written only where it differs, so that a read-only /proc with the right values is fine. Paths are made by
us from checked interface names, and are paths (``ipv4/conf/eth0.5/forwarding``), never dotted names.
"""

from __future__ import annotations

import os

from vethwork.errors import KernelRefused

ROOT = "/proc/sys/net/"


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


def ensure(path: str, value: str) -> None:
    """Write a sysctl unless it has the value already. Raises KernelRefused."""
    try:
        have = read(path)
        if have == value or (have is None and path.endswith("/disable_ipv6")):
            return  # a kernel without IPv6 has nothing to turn off
        fd = os.open(ROOT + path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise KernelRefused(
            f"set sysctl net/{path} to {value}", error.errno or 0, hint=_hint(path, error.errno)
        ) from error


def _hint(path: str, errno: int | None) -> str:
    if errno == 30:  # EROFS
        return "/proc/sys is read-only here: set it from outside"
    if path.startswith("ipv6/"):
        return "is IPv6 enabled in this kernel (CONFIG_IPV6)?"
    return ""
