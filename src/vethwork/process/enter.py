"""What a process of a container sees: the container's network, its host name, its files in /etc, its own /sys.

Theory. Everything here is done by a process to itself between fork(2) and execve(2), and is over with it. The network
namespace is entered first. A mount namespace of its own follows, in which every mount is made a slave at once
(mount_namespaces(7)): what the host mounts later still appears, what is mounted here never reaches the host. There the
container's hosts, resolv.conf and hostname are bound over the host's; nothing is created or written, so a file that the
host does not have cannot be given. A sysfs shows the network namespace of whoever mounted it (sysfs(5)), so a fresh one
is laid over /sys. It hides what was mounted below the old one, such as /sys/fs/cgroup; descriptors opened before
still lead there, and from them these mounts are bound into the new one.

Rules: all is looked up, opened and loaded before the fork; after it only system calls are made. The parts that are not
asked for are not touched: a process in the host's own network gets no namespace at all.

Limits: the kernel takes a bind mount away when the host *replaces* the file under it (rename(2)), as editors and
resolvconf do; a process that runs then sees the host's new file, one that starts later the container's again.
"""

from __future__ import annotations

import os

from vethwork.errors import RequestError, StateError
from vethwork.kernel import libc
from vethwork.kernel.netns import open_netns
from vethwork.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Act = Callable[[], None]

FILES = ("hostname", "hosts", "resolv.conf")
"""What a container's directory holds, under the names that they have in /etc."""


class Spec(Record):
    """What to start, and where.

    ``netns`` is the path of a network namespace, empty for the host's. ``directory`` holds the :data:`FILES` that the
    process sees, empty for the host's. ``hostname`` and ``cwd`` empty: as they are. ``log`` takes what the process
    says, empty to leave it our standard streams (or, detached, none).
    """

    command: tuple[str, ...]
    netns: str = ""
    directory: str = ""
    hostname: str = ""
    cwd: str = ""
    log: str = ""


class Entry:
    """The way into a container, prepared: call it in the child, between fork and exec.

    It raises OSError whose ``strerror`` is what could not be done, in words. ``warnings`` says what the process will not
    see although it should. Close it when nobody will call it any more, or let it be collected.
    """

    def __init__(self, netns: int, acts: tuple[tuple[str, Act], ...], warnings: tuple[str, ...]) -> None:
        self._netns = netns
        self._acts = acts
        self.warnings = warnings

    def __call__(self) -> None:
        """Enter. There is no way back: the process is to execute something, or to end."""
        for doing, act in self._acts:
            try:
                act()
            except OSError as error:
                raise OSError(error.errno, doing) from error

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What must stay open until it is called."""
        return (self._netns,) if self._netns >= 0 else ()

    def close(self) -> None:
        """Give the descriptor of the namespace back."""
        if self._netns >= 0:
            os.close(self._netns)
            self._netns = -1

    __del__ = close


def enter(spec: Spec) -> Entry:
    """Prepare to enter a container, for a process that is forked later.

    Made for ``subprocess``: ``subprocess.run(arguments, preexec_fn=enter(spec))`` runs the arguments in the container
    (``spec.command`` and ``spec.log`` are not looked at). Needs CAP_SYS_ADMIN when it is called.

    Raises RequestError if the namespace or the working directory is not there, StateError if one of the files is not.
    """
    libc.load("setns", "unshare", "mount", "sethostname")
    if spec.cwd and not os.path.isdir(spec.cwd):
        raise RequestError(f"working directory {spec.cwd}: is not a directory")
    binds, warnings = _plan_binds(spec.directory) if spec.directory else ((), ())
    netns = open_netns(spec.netns) if spec.netns else -1
    kinds = (libc.CLONE_NEWNS if spec.netns or binds else 0) | (libc.CLONE_NEWUTS if spec.hostname else 0)
    acts: list[tuple[str, Act]] = []
    if spec.netns:
        acts.append((f"enter network namespace {spec.netns}", lambda: libc.setns(netns, libc.CLONE_NEWNET)))
    if kinds:
        acts.append(("make namespaces for a process", lambda: libc.unshare(kinds)))
    if kinds & libc.CLONE_NEWNS:
        acts.append(("keep mounts from the host", _cut_propagation))
    acts += [(f"bind {source} over {target}", _binder(source, target)) for source, target in binds]
    if spec.netns:
        acts.append(("mount a sysfs", _sysfs_mounter()))
    if spec.hostname:
        acts.append((f"set the host name {spec.hostname}", lambda: libc.sethostname(spec.hostname)))
    if spec.cwd:
        acts.append((f"change to directory {spec.cwd}", lambda: os.chdir(spec.cwd)))
    return Entry(netns, tuple(acts), warnings)


def _cut_propagation() -> None:
    libc.mount("none", "/", flags=libc.MS_REC | libc.MS_SLAVE)


def _plan_binds(directory: str) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Pair each of the container's files with what its name in /etc leads to; warn of what cannot be bound."""
    binds, warnings = [], []
    for name in FILES:
        source, target = f"{directory}/{name}", os.path.realpath(f"/etc/{name}")
        if not os.path.isfile(source):
            raise StateError(f"give the container its /etc/{name}: {source} is not there")
        if os.path.isfile(target):
            binds.append((source, target))
        elif name != "hostname":  # that one is only for people; the name itself is in the UTS namespace
            warnings.append(f"/etc/{name} is not given to the container: the host has none to bind it over")
    return tuple(binds), tuple(warnings)


def _binder(source: str, target: str) -> Act:
    return lambda: libc.mount(source, target, flags=libc.MS_BIND)


def _sysfs_mounter() -> Act:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        flags, below = parse_sysfs(file.read())

    def mount() -> None:
        if flags is None:
            return
        kept = []
        for path in below:
            try:
                kept.append((path, os.open(path, os.O_PATH | os.O_CLOEXEC)))
            except OSError:
                continue
        try:
            libc.mount("sysfs", "/sys", "sysfs", flags)
        except OSError:
            return  # refused where /sys is locked (a user namespace), or is this namespace's already: it stays
        for path, fd in kept:
            try:
                libc.mount(f"/proc/self/fd/{fd}", path, flags=libc.MS_BIND | libc.MS_REC)
            except OSError:
                continue
            finally:
                os.close(fd)

    return mount


def parse_sysfs(mountinfo: str) -> tuple[int | None, tuple[str, ...]]:
    """Read from mountinfo, proc_pid_mountinfo(5), how to mount a sysfs over /sys, and what lies directly below.

    The flags are None if /sys is no sysfs: then there is nothing to lay over.
    """
    flags: int | None = None
    below: list[str] = []
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        path = _unescape(fields[4])
        if path == "/sys":
            sysfs = fields[fields.index("-", 6) + 1] == "sysfs"
            read_only = libc.MS_RDONLY if "ro" in fields[5].split(",") else 0
            flags = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC | read_only if sysfs else None
            below.clear()  # hidden by this one, unless mounted on it later
        elif path.startswith("/sys/") and not any(path == top or path.startswith(f"{top}/") for top in below):
            below.append(path)
    return flags, tuple(below)


def _unescape(path: str) -> str:
    """Undo the octal escapes of mountinfo: space, tab, newline and backslash."""
    for char in " \t\n\\":
        path = path.replace(f"\\{ord(char):03o}", char)
    return path
