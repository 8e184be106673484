"""What goes wrong with a state file: told in words, and a damaged file moved aside.

Rules: a file that SQLite or we cannot make sense of is kept as ``state.db.damaged-N`` and never written again; the next
one begins empty. It is moved by whoever finds it first, and only while it is still the file that was found damaged:
somebody else may have begun the next one meanwhile.
"""

from __future__ import annotations

import fcntl
import os

from vethwork.errors import StateError
from vethwork.store.sqlite import sqlite3

TYPE_CHECKING = False
if TYPE_CHECKING:
    Identity = tuple[int, int]

WAIT_SECONDS = 30.0
_NO_SENSE = (
    "no such table",
    "no such column",
    "no such index",
    "Could not decode",
    "unsupported file format",
)
"""What SQLite says, as an operational error, of a file whose schema or text is not what we wrote."""
_IOERR_SHORT_READ, _IOERR_SHMSIZE = 522, 4874  # sqlite.org/rescode.html


def identity_of(path: str) -> Identity | None:
    """Which file is at a path; None if there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def is_damage(error: BaseException) -> bool:
    """Whether it means that the file is damaged, and not that it could not be used just now."""
    if type(error) is sqlite3.DatabaseError:  # SQLITE_CORRUPT and SQLITE_NOTADB have no class of their own
        return True
    if not isinstance(error, sqlite3.OperationalError):
        return isinstance(error, sqlite3.DataError)
    return _code(error) == _IOERR_SHORT_READ or str(error).startswith(_NO_SENSE)


def explain(path: str, error: BaseException) -> StateError:
    """Our error for one that is no damage."""
    text, hint = str(error), ""
    if isinstance(error, OSError):
        text = error.strerror or text
    if "full" in text or _code(error) == _IOERR_SHMSIZE or getattr(error, "errno", 0) == 28:  # ENOSPC
        text, hint = "the disk is full", "make room on that file system, and do it again"
    elif "readonly" in text or _is_read_only(path):
        text, hint = "it is read-only", "is its file system mounted read-only?"
    elif os.geteuid() != 0 and ("unable to open" in text or getattr(error, "errno", 0) == 13):  # EACCES
        hint = "it takes root; VETHWORK_ROOT names another place"
    elif "locked" in text:
        hint = f"another vethwork held it for {WAIT_SECONDS:.0f} seconds"
    return StateError(f"use {path}: {text}", hint=hint)


def _is_read_only(path: str) -> bool:
    """SQLite only says that it cannot open a file where it may not make its log."""
    try:
        return bool(os.statvfs(os.path.dirname(path)).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _code(error: BaseException) -> int:
    return getattr(error, "sqlite_errorcode", 0)


def keep_aside(path: str, found: Identity | None, why: str) -> StateError:
    """Rename a damaged file, with its log, to the first free ``.damaged-N``; gives the error that says so."""
    kept = ""
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        if found is None or identity_of(path) == found:
            kept = _rename(path)
    except OSError as error:
        return StateError(f"read {path}: {why}", hint=f"it could not be moved aside: {error.strerror}")
    finally:
        os.close(directory)
    hint = f"kept as {kept}" if kept else f"kept beside it as {os.path.basename(path)}.damaged-N"
    return StateError(
        f"read {path}: {why}",
        hint=f"{hint}; the next call starts with no records, and 'vethwork gc' removes what they described",
    )


def _rename(path: str) -> str:
    number = 1
    while os.path.exists(f"{path}.damaged-{number}"):
        number += 1
    for suffix in ("-wal", "-shm", ""):
        if os.path.exists(path + suffix):
            os.rename(path + suffix, f"{path}.damaged-{number}{suffix}")
    return f"{path}.damaged-{number}"
