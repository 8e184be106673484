"""Private worlds: network, mount and process namespaces, and programs started in them.

Theory. A process namespace dies with its first process, and everything in it dies too; a mount namespace goes with its last
process, and a network namespace with its last process, mount and descriptor. So a part of the benchmark is a child that is
the first process of a process namespace of its own, and cleaning up after it is one kill, whatever it was doing.

Numbers are from sched.h, mount.h and rtnetlink.h in include/uapi/linux.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Result = TypeVar("Result")

CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x20000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED, MS_SLAVE = 0x1000, 0x4000, 1 << 18, 1 << 20, 1 << 19
RTMGRP_LINK, RTM_NEWLINK, RTM_DELLINK = 1, 16, 17
NLMSG, IFINFO = struct.Struct("=IHHII"), struct.Struct("=BxHiII")
PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
NOFILE = 1 << 16
CGROUP = "vethwork-bench"
"""The control group, in each hierarchy, that container runtimes make theirs in. Nothing else outlives a part."""

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(what: str, status: int) -> None:
    if status:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Leave namespaces for new ones."""
    _checked("unshare", _libc.unshare(flags))


def setns(fd: int) -> None:
    """Enter a network namespace with this thread."""
    _checked("setns", _libc.setns(fd, CLONE_NEWNET))


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount, or bind, or change how mounts are shared."""
    status = _libc.mount(
        source.encode(), target.encode(), kind.encode() or None, flags, data.encode() or None
    )
    _checked(f"mount {source} on {target}", status)


def inside(path: str, function: Callable[[], Result]) -> Result:
    """Run a function in the network namespace at a path, in a thread of its own. Raises what it raises."""
    done: list[Result] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            fd = os.open(path, os.O_RDONLY)
            try:
                setns(fd)
            finally:
                os.close(fd)
            done.append(function())
        except BaseException as error:  # it belongs to who called
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


def make_netns(path: str) -> None:
    """A new network namespace, kept by a mount on ``path``."""

    def run() -> None:
        unshare(CLONE_NEWNET)
        mount("/proc/thread-self/ns/net", path, flags=MS_BIND)

    os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o444))
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if os.stat(path).st_dev == os.stat(os.path.dirname(path)).st_dev:
        raise OSError(f"no namespace came to be at {path}")


def private_host(peers_root: str | None) -> None:
    """Make this process a host of its own: no links but lo, and an empty /run.

    With the root of the peers (a folder, or empty for the machine's own) they see the same, and what they write elsewhere is
    forgotten with the namespace.
    """
    unshare(CLONE_NEWNET | CLONE_NEWNS)
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc")
    mount("tmpfs", "/run", "tmpfs")
    mount(
        "none", "/run", flags=MS_SHARED
    )  # a namespace that is pinned later is seen in the peers' folder too
    for directory in ("/run/netns", "/run/lock", "/run/vethwork", "/run/stage"):
        os.mkdir(directory)
    if peers_root is not None:
        _forget_writes(peers_root)
    if peers_root:
        for directory in ("/proc", "/sys", "/dev", "/run"):
            mount(directory, f"{peers_root}{directory}", flags=MS_BIND | MS_REC)
    up("lo")
    write("/proc/sys/net/ipv4/ip_forward", "1")


def _forget_writes(root: str) -> None:
    if root:
        mount(root, root, flags=MS_BIND)  # programs that remount their root need it to be a mount
    # Container images and databases need a file system that is none of layers.
    for directory in ("/etc", "/tmp", "/var/lib"):
        upper, work = (f"/run/stage/{kind}{directory}" for kind in ("upper", "work"))
        os.makedirs(upper)
        os.makedirs(work)
        layers = f"lowerdir={root}{directory},upperdir={upper},workdir={work}"
        mount("overlay", f"{root}{directory}", "overlay", data=layers)
    for directory in ("/var/lib/containers", "/var/lib/docker"):
        os.makedirs(f"{root}{directory}", exist_ok=True)
        mount("tmpfs", f"{root}{directory}", "tmpfs")


def write(path: str, text: str) -> None:
    """Write a small file, of /proc/sys for example."""
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def up(ifname: str) -> None:
    """Set a link up (SIOCSIFFLAGS, IFF_UP)."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14x", ifname.encode(), 1))


class LinkWatch:
    """Hears of the links of a namespace that go. Made before they do."""

    def __init__(self, path: str) -> None:
        self._socket = inside(path, self._listen) if path else self._listen()

    @staticmethod
    def _listen() -> socket.socket:
        made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        made.bind((0, RTMGRP_LINK))
        return made

    def wait_gone(self, is_gone: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait until a condition holds, which is looked at whenever a link changed. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        with self._socket as heard:
            while not is_gone():
                ready, _, _ = select.select([heard], [], [], max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise TimeoutError("a link that was to go is still there")
                with suppress(OSError):  # ENOBUFS: more went than fits, which is news enough
                    heard.recv(1 << 16)


def named(path: str, into: str) -> None:
    """Give the namespace at a path (of a process, for example) a name of its own."""
    os.close(os.open(into, os.O_CREAT | os.O_EXCL, 0o444))
    mount(path, into, flags=MS_BIND)


def links(path: str = "") -> set[str]:
    """The names of the links of a namespace."""

    def read() -> set[str]:
        return {name for _, name in socket.if_nameindex()}

    return inside(path, read) if path else read()


def settle(run: Callable[[list[str]], object]) -> None:
    """Wait until namespaces that nobody holds any more are cleared away; ``run`` runs a command of iproute2.

    The kernel clears them one batch after the other (net/core/net_namespace.c, cleanup_net), so when a namespace that was
    dropped last is gone, which the other end of its cable tells, those before it are.
    """
    path = "/run/netns/last"
    make_netns(path)
    run(["ip", "link", "add", "settle", "type", "veth", "peer", "name", "eth0", "netns", path])
    watch = LinkWatch("")
    _checked("umount", _libc.umount2(path.encode(), 2))
    os.unlink(path)
    watch.wait_gone(lambda: "settle" not in links(), 120.0)


class Ran(NamedTuple):
    """What a program did: how long it took, its exit status and what it wrote to its output."""

    seconds: float
    status: int
    out: bytes


def spawn(argv: Sequence[str], environ: Mapping[str, str], given: bytes = b"", errors: int = -1) -> Ran:
    """Run a program to its end as a runtime does: input ready, output collected. Only that is in the time.

    It is started by posix_spawn(3), which costs the same whatever this process holds.
    """
    stdin, stdout = os.memfd_create("stdin"), os.memfd_create("stdout")
    try:
        os.write(stdin, given) if given else None
        os.lseek(stdin, 0, os.SEEK_SET)
        actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)]
        if errors >= 0:
            actions.append((os.POSIX_SPAWN_DUP2, errors, 2))
        start = time.perf_counter()
        pid = os.posix_spawn(argv[0], [*argv], environ, file_actions=actions)
        _, status = os.waitpid(pid, 0)
        seconds = time.perf_counter() - start
        size = os.lseek(stdout, 0, os.SEEK_END)
        return Ran(seconds, os.waitstatus_to_exitcode(status), os.pread(stdout, size, 0))
    finally:
        os.close(stdin)
        os.close(stdout)


def in_process_namespace(function: Callable[[], None]) -> int:
    """Run a function as the first process of a process namespace, and give its exit status.

    All it started has ended when this returns or raises, for a process namespace is waited for as a whole: the first process
    is a zombie until every other is gone (kernel/pid_namespace.c, zap_pid_ns_processes).
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            unshare(CLONE_NEWPID)
            first = os.fork()
            if first == 0:
                _be_first(function)
            signal.signal(signal.SIGTERM, lambda *_: os.kill(first, signal.SIGKILL))
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this one decides
            _, raw = os.waitpid(first, 0)
            status = os.waitstatus_to_exitcode(raw) & 0xFF
        except BaseException:  # a signal, before it was ours to handle: the other goes with this one
            status = 1
        finally:
            os._exit(status)
    try:
        _, raw = os.waitpid(child, 0)
    except BaseException:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        raise
    return os.waitstatus_to_exitcode(raw)


def remove_cgroups() -> None:
    """Remove the control groups that are left, which are empty once their processes have ended with their namespace."""
    for made in (*Path("/sys/fs/cgroup").glob(CGROUP), *Path("/sys/fs/cgroup").glob(f"*/{CGROUP}")):
        for directory, _, _ in os.walk(made, topdown=False):
            with suppress(OSError):
                os.rmdir(directory)


def _be_first(function: Callable[[], None]) -> None:
    import resource
    import traceback

    status = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # it ends with who started it
        unshare(CLONE_NEWNS)
        mount("none", "/", flags=MS_REC | MS_PRIVATE)
        mount("proc", "/proc", "proc")
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, NOFILE), hard))
        function()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
