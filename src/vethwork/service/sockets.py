"""Sockets that are listened at: files that only root may speak to, and ports of the loopback interface.

Rules: a socket file whose process is dead is replaced; one that somebody answers at is not, nor is any other file. Two who
start at the same time wait for each other, by a lock on the directory. The file goes with the service, unless it is another's
by then. Who connects is asked of the kernel besides (``peers``), whatever the file's mode has become.
"""

from __future__ import annotations

import errno as os_error
import fcntl
import os
import socket
import stat
from contextlib import contextmanager

from vethwork.errors import ConflictError, RequestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from vethwork.model.address import Address

BACKLOG = 128
LONGEST = 107
"""Bytes of a path that fit in struct sockaddr_un with its NUL (include/uapi/linux/un.h)."""


@contextmanager
def listening(path: str) -> Iterator[socket.socket]:
    """A socket that listens at a path, mode 0600, until the end of the block.

    Raises ConflictError if another process listens there, RequestError if the path cannot be used.
    """
    bound = _bind(path)
    mine = os.stat(path).st_ino
    try:
        with bound:
            yield bound
    finally:
        if os.path.exists(path) and os.stat(path).st_ino == mine:
            os.unlink(path)


@contextmanager
def listening_tcp(address: Address, port: int) -> Iterator[socket.socket]:
    """A socket that listens at a port of this machine alone, until the end of the block.

    Raises RequestError if the address is not a loopback address, or nobody can listen there.
    """
    where = f"{address} port {port}"
    if not address.is_loopback:
        raise RequestError(f"listen at {where}: is not a loopback address", hint="as in 127.0.0.1:9273")
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_STREAM) as made:
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((str(address), port))
            made.listen(BACKLOG)
        except OSError as error:
            raise RequestError(f"listen at {where}: {error.strerror}") from error
        yield made


def _bind(path: str) -> socket.socket:
    if not path.startswith("/") or len(os.fsencode(path)) > LONGEST:
        raise RequestError(f"listen at {path!r:.120}: needs an absolute path of at most {LONGEST} bytes")
    directory = os.path.dirname(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.makedirs(directory, mode=0o755, exist_ok=True)
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _make_room(path)
            _bind_private(made, path)
        finally:
            os.close(lock)
    except OSError as error:
        made.close()
        raise RequestError(f"listen at {path}: {error.strerror}") from error
    except BaseException:
        made.close()
        raise
    return made


def _bind_private(made: socket.socket, path: str) -> None:
    mask = os.umask(0o177)
    try:
        made.bind(path)
    finally:
        os.umask(mask)
    made.listen(BACKLOG)


def _make_room(path: str) -> None:
    """Take a socket away that nobody listens at."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise RequestError(f"listen at {path}: there is something that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)  # a full queue (EAGAIN) is somebody's too
        refused = asking.connect_ex(path)
    if refused not in (os_error.ECONNREFUSED, os_error.ENOENT):
        raise ConflictError(
            f"listen at {path}: another process does", hint="is 'vethwork serve' running already?"
        )
    os.unlink(path)
