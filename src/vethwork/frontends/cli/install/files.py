"""Files that we put into directories of others, and take back.

Rules: a file of ours carries our mark, which holds a digest of the rest of it. So three kinds are told apart without any
record: what we wrote, what we wrote and somebody has changed since, and what is somebody else's. Only the first is ever
written over or removed. A file appears whole or not at all, and never in the place of one that came meanwhile. The mark
also counts the directories that were made for the file, which go with it if they are empty then.
"""

from __future__ import annotations

import os
import re
import shlex
from hashlib import sha256

from vethwork.errors import ConflictError, KernelRefused, VethworkError
from vethwork.model.record import Record

BLANK = "@mark@"
"""Where a file's mark goes; the digest is that of the text with this in the mark's place."""
MARK = re.compile(r"written by 'vethwork install ([a-z]+)' \(sha256 ([0-9a-f]{32}), directories (\d{1,2})\)")

ABSENT, SAME, OLDER, CHANGED, FOREIGN = "absent", "same", "older", "changed", "foreign"


class File(Record):
    """A file as it is to be. ``text`` has BLANK where the mark goes. ``editable``: people may make it their own."""

    tool: str
    path: str
    text: str
    mode: int
    editable: bool = False


class Found(Record):
    """What is in the place of a file: which of the five kinds, and how many directories its mark counts."""

    kind: str
    directories: int = 0


def stamp(file: File, directories: int) -> str:
    """The file's text with its mark."""
    digest = sha256(file.text.encode()).hexdigest()[:32]
    mark = f"written by 'vethwork install {file.tool}' (sha256 {digest}, directories {directories})"
    return file.text.replace(BLANK, mark)


def look(file: File) -> Found:
    """What is in a file's place. Raises KernelRefused if that cannot be told."""
    try:
        if os.path.islink(file.path) or not os.path.isfile(file.path):
            return Found(FOREIGN if os.path.lexists(file.path) else ABSENT)
        with open(file.path, encoding="utf-8", errors="surrogateescape", newline="") as opened:
            text = opened.read()
    except OSError as error:
        raise KernelRefused(f"read {file.path}", error.errno or 0) from error
    mark = MARK.search(text)
    if mark is None or mark[1] != file.tool:
        return Found(FOREIGN)
    blank = text[: mark.start()] + BLANK + text[mark.end() :]
    if sha256(blank.encode(errors="surrogateescape")).hexdigest()[:32] != mark[2]:
        return Found(CHANGED)
    same = blank == file.text and os.stat(file.path).st_mode & 0o777 == file.mode
    return Found(SAME if same else OLDER, int(mark[3]))


def place(files: tuple[File, ...], dry: bool) -> tuple[str, ...]:
    """Put files into their places; gives a line for each, or, ``dry``, the commands that would do it.

    Raises ConflictError if one of them is somebody else's, KernelRefused if one cannot be written. Nothing is changed then.
    """
    found = [look(file) for file in files]
    for file, seen in zip(files, found, strict=True):
        if seen.kind == FOREIGN:
            raise ConflictError(
                f"install {file.tool}: {file.path} is there, and is not ours",
                hint="move it away, or choose another directory",
            )
        if seen.kind == CHANGED and not file.editable:
            raise ConflictError(
                f"install {file.tool}: {file.path} was changed since we wrote it", hint="move it away"
            )
    said: list[str] = []
    fresh: list[File] = []
    planned: set[str] = set()
    for file, seen in zip(files, found, strict=True):
        if seen.kind == CHANGED:
            said.append(f"# {file.path}: was changed since we wrote it, and stays as it is")
        elif seen.kind == SAME:
            said.append(f"# {file.path}: is in its place")
        elif dry:
            said += _commands(file, planned)
        else:
            _place_or_undo(file, seen, fresh)
            said.append(f"{'wrote' if seen.kind == ABSENT else 'renewed'} {file.path}")
    return tuple(said)


def _place_or_undo(file: File, seen: Found, fresh: list[File]) -> None:
    """Write one file; if it cannot be, those that this call has made before it go again."""
    try:
        _write(file, seen)
    except VethworkError:
        for other in reversed(fresh):
            _remove(other, look(other).directories)
        raise
    if seen.kind == ABSENT:
        fresh.append(file)


def _missing(path: str) -> list[str]:
    """The directories above a path that are not there, the innermost first."""
    found = []
    while not os.path.lexists(path := os.path.dirname(path)):
        found.append(path)
    return found


def _write(file: File, seen: Found) -> None:
    made: list[str] = []
    temporary = f"{os.path.dirname(file.path)}/.{os.path.basename(file.path)}.{os.getpid()}"
    try:
        for directory in reversed(_missing(file.path)):
            os.mkdir(directory, 0o755)
            made.append(directory)
        text = stamp(file, len(made) if seen.kind == ABSENT else seen.directories)
        with open(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, file.mode), "w", encoding="utf-8"
        ) as opened:
            os.fchmod(opened.fileno(), file.mode)
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        if seen.kind == ABSENT:
            os.link(temporary, file.path)  # unlike a rename, never over what came meanwhile
            os.unlink(temporary)
        else:
            os.rename(temporary, file.path)
    except OSError as error:
        _discard(temporary, made)
        if isinstance(error, FileExistsError):
            raise ConflictError(f"install {file.tool}: {file.path} came meanwhile") from error
        raise KernelRefused(f"write {file.path}", error.errno or 0) from error


def _discard(temporary: str, made: list[str]) -> None:
    try:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        for directory in reversed(made):
            os.rmdir(directory)
    except OSError:
        return  # what prevents it prevented the writing too, and that is told


def _commands(file: File, planned: set[str]) -> tuple[str, ...]:
    """The commands that make a file; ``planned`` are directories that commands before these make."""
    path = shlex.quote(file.path)
    missing = [directory for directory in _missing(file.path) if directory not in planned]
    planned.update(missing)
    directories = (f"mkdir -p {shlex.quote(missing[0])}",) if missing else ()
    here = f"cat > {path} <<'END'\n{stamp(file, len(missing)).rstrip()}\nEND"
    return (*directories, here, f"chmod {file.mode:04o} {path}")


def take_back(files: tuple[File, ...], dry: bool) -> tuple[str, ...]:
    """Remove what we wrote, the last first; gives a line for each, or, ``dry``, the commands that would do it.

    What was changed since, and what is somebody else's, stays, and is told. Raises KernelRefused.
    """
    said: list[str] = []
    for file in reversed(files):
        seen = look(file)
        if seen.kind == ABSENT:
            said.append(f"# {file.path}: is not there")
        elif seen.kind == FOREIGN:
            said.append(f"# {file.path}: is not ours, and stays")
        elif seen.kind == CHANGED:
            said.append(f"# {file.path}: was changed since we wrote it, and stays; remove it yourself")
        elif dry:
            said.append(f"rm {shlex.quote(file.path)}")
        else:
            _remove(file, seen.directories)
            said.append(f"removed {file.path}")
    return tuple(said)


def _remove(file: File, directories: int) -> None:
    try:
        os.unlink(file.path)
    except OSError as error:
        raise KernelRefused(f"remove {file.path}", error.errno or 0) from error
    directory = file.path
    for _ in range(directories):
        directory = os.path.dirname(directory)
        try:
            os.rmdir(directory)
        except OSError:
            return  # others have put something there
