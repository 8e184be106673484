"""The four system calls that Python 3.11 has no words for: setns, unshare, mount, umount2.

Rules: one thin wrapper for each, which raises OSError; flags carry the kernel's names, in alphabetical order, with the
header they are from. ``ctypes`` is loaded on the first call, for only some paths need one.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes

# include/uapi/linux/sched.h
CLONE_NEWNET = 0x40000000
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
# include/uapi/linux/mount.h, and umount2(2)
MNT_DETACH = 2
MS_BIND = 4096
MS_PRIVATE = 1 << 18
MS_REC = 16384
MS_SHARED = 1 << 20
MS_SLAVE = 1 << 19

_libc: ctypes.CDLL | None = None


def _call(name: str, *args: object) -> None:
    global _libc
    import ctypes

    if _libc is None:
        _libc = ctypes.CDLL(None, use_errno=True)
    if getattr(_libc, name)(*args) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into the namespace that ``fd`` is open on; see setns(2)."""
    _call("setns", fd, kind)


def unshare(kinds: int) -> None:
    """Give the calling thread namespaces of its own; see unshare(2)."""
    _call("unshare", kinds)


def mount(source: str, target: str, kind: str = "none", flags: int = 0) -> None:
    """Mount ``source`` at ``target``; see mount(2)."""
    _call("mount", source.encode(), target.encode(), kind.encode(), flags, None)


def umount(target: str, flags: int = 0) -> None:
    """Unmount what is at ``target``; see umount2(2)."""
    _call("umount2", target.encode(), flags)
