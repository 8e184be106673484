"""Where the container runtimes of a run live: on this machine, or in a folder with another distribution.

VETHWORK_RUNTIMES names such a folder (``make conformance-sid`` makes one). A writable layer is laid over it, so it stays as it
is; in it there are this machine's /proc, /sys, /dev, /run, temporary files and sources, under the same names. So a path
means the same inside and outside, and only what is executed must say where: by :meth:`Home.words`.

Theory. The folder is the root of a mount namespace, not of a process (chroot): where a runtime pivots below a process's root
only, who enters its container later (``podman exec``) finds himself in the root of this machine.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from vethwork.kernel import libc
from vethwork.testing.machine import SOURCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LAUNCHER = """#!{python} -IS
import os, posix, sys
os.environ.update({environ!r})
posix.environ.update(os.environb)  # which is what launch looks at
sys.path.insert(0, {source!r})
from vethwork.launch import {front_end}
{front_end}()
"""

ENTER = """set -e
cd "$1"
mkdir -p .machine
pivot_root . .machine
mount --make-rslave /.machine
umount -l /.machine
echo ready
exec cat
"""


class Home(NamedTuple):
    """``root`` is the directory that is / to the runtimes, ``python`` an interpreter there, ``mounts`` their namespace."""

    root: str
    python: str
    mounts: str = ""

    def words(self, *command: str) -> list[str]:
        """The command line that runs a program of this home."""
        return ["nsenter", f"--mount={self.mounts}", "--", *command] if self.mounts else list(command)

    def path(self, path: str) -> Path:
        """Where a path of this home is for us."""
        return Path(self.root, path.lstrip("/"))

    def need(self, *names: str) -> None:
        """Skip the test unless programs are there, by name or path."""
        for name in names:
            self.find(name)

    def find(self, name: str) -> Path:
        """Where a program is for us; skips the test if it is not there."""
        places = [name] if "/" in name else [f"{each}/{name}" for each in ("/usr/bin", "/usr/sbin")]
        found = next((self.path(place) for place in places if self.path(place).exists()), None)
        if found is None:
            pytest.skip(f"needs the tool {name}, which is not installed in {self.root}")
        return found

    def version(self, program: str) -> str:
        """What a program says of itself."""
        return subprocess.run(
            self.words(program, "--version"), capture_output=True, text=True, check=True, timeout=20
        ).stdout

    def launch(self, path: Path, front_end: str, environ: Mapping[str, str]) -> None:
        """Put a front-end's launcher in its place.

        It says itself where the records are: what a runtime does late, it may do without its environment.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        said = {"python": self.python, "environ": dict(environ), "source": SOURCE, "front_end": front_end}
        path.write_text(LAUNCHER.format(**said))
        path.chmod(0o755)

    @contextmanager
    def covered(self, scratch: Path, *paths: str) -> Iterator[None]:
        """Lay a writable layer over directories of this machine, until the end: what is written goes to ``scratch``.

        A folder has such a layer as a whole.
        """
        with ExitStack() as stack:
            for path in () if self.mounts else paths:
                stack.enter_context(_layer(scratch / path.strip("/"), self.path(path), self.path(path)))
            yield


@contextmanager
def entered(folder: str, scratch: Path) -> Iterator[Home]:
    """The home in a folder; of an empty name, this machine."""
    if not folder:
        yield Home("/", sys.executable)
        return
    root = scratch / "root"
    root.mkdir()
    # What is mounted below /run inside is there outside too, and the other way round: a container's namespace for one.
    mount("--make-shared", "/run")
    with _layer(scratch / "layer", Path(folder), root):
        for path in ("/proc", "/sys", "/dev", "/run", tempfile.gettempdir(), SOURCE):
            place = Path(f"{root}{path}")
            place.mkdir(parents=True, exist_ok=True)
            mount("--rbind", path, str(place))
        command = ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", ENTER, "sh", str(root)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"ready\n"
            yield Home(str(root), "/usr/bin/python3", f"/proc/{holder.pid}/ns/mnt")
            holder.communicate()


@contextmanager
def _layer(scratch: Path, lower: Path, at: Path) -> Iterator[None]:
    upper, work = scratch / "upper", scratch / "work"
    for each in (upper, work):
        each.mkdir(parents=True)
    mount(
        "-t", "overlay", "vethwork-tests", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", str(at)
    )
    try:
        yield
    finally:
        libc.umount(str(at), libc.MNT_DETACH)


def mount(*words: str) -> None:
    """mount(8), in the session's mount namespace."""
    subprocess.run(["mount", *words], check=True, timeout=10)
