"""Network namespaces: opening, pinning, and the one place where a thread enters another.

Theory. A namespace belongs to a thread. A netlink socket belongs for ever to the namespace it was made in, and
``/proc/sys/net`` shows the namespace of the thread that reads it. So the caller's thread goes into the namespace, makes
the socket or writes the sysctl, and comes back. A thread of its own for that, which need not come back, takes ten times
as long: it is made, put on another processor that has to wake up, and waited for.

Rules: :func:`inside` is the only setns in the engine, and what goes in comes back, whatever is raised. Who cannot come back
must not go on, for every later line would mean another namespace: the process ends as if it were killed, and whoever comes
next clears up after it. A namespace is opened once and used by descriptor, so that what was checked is what is used.
"""

from __future__ import annotations

import fcntl
import os
from errno import ELOOP, ENOENT, ENOTDIR, ENXIO, ESRCH
from sys import byteorder

from vethwork.errors import BadNamespace, KernelRefused
from vethwork.kernel import libc
from vethwork.model.names import NetnsPath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Result = TypeVar("Result")

NS_GET_NSTYPE, NS_GET_ID = 0xB703, 0x8008B70D  # include/uapi/linux/nsfs.h
SOL_SOCKET, SO_NETNS_COOKIE = 1, 71  # include/uapi/asm-generic/socket.h
OWN = "/proc/thread-self/ns/net"


_GONE = {ENOENT, ENOTDIR, ENXIO, ESRCH, ELOOP}


class NetnsGone(BadNamespace):
    """A path leads to no network namespace, or no longer."""


def open_netns(path: str) -> int:
    """Open a network namespace by path; empty means the caller's own.

    Raises NetnsGone if it is not one, KernelRefused if that cannot be told (no descriptors are left, for one).
    """
    try:
        fd = os.open(NetnsPath.parse(path) if path else OWN, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno not in _GONE:
            raise KernelRefused(f"open namespace {path}", error.errno or 0) from error
        raise NetnsGone(f"open namespace {path}: {error.strerror}") from error
    try:
        if fcntl.ioctl(fd, NS_GET_NSTYPE) == libc.CLONE_NEWNET:
            return fd
    except OSError:
        pass  # not a namespace file at all
    os.close(fd)
    raise NetnsGone(f"open namespace {path}: is not a network namespace")


def has_netns(path: str, cookie: int = 0) -> bool:
    """Tell whether a path leads to a network namespace now; with a ``cookie``, to that one and to no other.

    Raises KernelRefused if that cannot be told.
    """
    try:
        fd = open_netns(path)
    except NetnsGone:
        return False
    try:
        return not cookie or cookie_of(fd) == cookie
    finally:
        os.close(fd)


def cookie_of(fd: int) -> int:
    """The number of a network namespace, which no other gets until the next boot; the number of an inode is given again."""
    number = bytearray(8)
    try:
        fcntl.ioctl(fd, NS_GET_ID, number)
    except OSError:
        return inside(fd, own_cookie)  # before Linux 6.18, only a socket that is made in it knows
    return int.from_bytes(number, byteorder)


def own_cookie() -> int:
    """That of the caller's own namespace; 0 before Linux 5.14."""
    import _socket

    one = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        return int.from_bytes(one.getsockopt(SOL_SOCKET, SO_NETNS_COOKIE, 8), byteorder)
    except OSError:
        return 0
    finally:
        one.close()


def same_netns(fd: int, other: int) -> bool:
    """Tell whether two descriptors are open on one namespace."""
    one, two = os.fstat(fd), os.fstat(other)
    return (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino)


def _is_own(fd: int) -> bool:
    one, two = os.fstat(fd), os.stat(OWN)
    return (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino)


def inside(fd: int, work: Callable[[], Result]) -> Result:
    """Do ``work`` inside the namespace; gives what it gives, and raises what it raises."""

    def enter() -> Result:
        libc.setns(fd, libc.CLONE_NEWNET)
        return work()

    return _and_back(enter)


def _and_back(work: Callable[[], Result]) -> Result:
    """Do ``work``, and bring the thread back to the namespace that it was in."""
    back = libc.function("setns")
    home = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return work()
    finally:
        # This comes first, and is no function of Python's: a signal's handler may raise before one is entered.
        if back(home, libc.CLONE_NEWNET) and not _is_own(home):  # who may not go anywhere has not left
            os.abort()
        os.close(home)


def pin(path: str) -> None:
    """Make a namespace and keep it at ``path`` by a bind mount. Raises KernelRefused; EEXIST if the path is taken."""
    directory = os.path.dirname(path)

    def make() -> None:
        libc.unshare(libc.CLONE_NEWNET)
        libc.mount(OWN, path, flags=libc.MS_BIND)

    try:
        os.makedirs(directory, mode=0o755, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o444))
        _and_back(make)
    except OSError as error:
        raise KernelRefused(f"pin a namespace at {path}", error.errno or 0) from error


def unpin(path: str) -> None:
    """Take the bind mount and its file away. One that is gone already is fine. Raises KernelRefused."""
    try:
        try:
            libc.umount(path, libc.MNT_DETACH)
        except OSError as error:
            # ENOENT: no file; EINVAL: nothing is mounted there; EPERM: nothing may be, so perhaps nothing is
            if error.errno not in (2, 22) and (error.errno != 1 or has_netns(path)):
                raise
        if os.path.exists(path):
            os.unlink(path)
    except OSError as error:
        raise KernelRefused(f"unpin the namespace at {path}", error.errno or 0) from error
