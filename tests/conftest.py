"""What every test stands on: a machine of its own, skips that are loud, and a count of what was left behind.

Rules:

* As root, the whole session runs in a network and a mount namespace of its own, with an empty /run and its own
  VETHWORK_ROOT. A test that goes wrong cannot reach the machine's own network, and two sessions do not see each other.
* A skip says why, and the end of the run lists every one. With CI=true only one reason is good enough: a kernel
  option that this kernel was built without, named (CONFIG_VLAN_8021Q). Any other skip, such as one for a tool
  that is not installed, fails the run.
* What is there after the last test was there before the first: named and pinned namespaces, links, nftables tables,
  processes. The run fails naming what is not.
* Two sessions may share the work (pytest-xdist): each is a process with all of this for itself, and what is left behind
  there, the process that started them tells.
"""

from __future__ import annotations

import fcntl
import gzip
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from vethwork.kernel import libc
from vethwork.testing.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
NEED_ROOT = ("kernel", "fault", "conformance")
MARK = f"VETHWORK_TEST_SESSION={os.getpid()}-{time.monotonic_ns()}"
OPTION = re.compile(r"\bCONFIG_[A-Z0-9_]+")
DEADLINE = 2.0
"""How long a process that was told to end may take to be gone."""
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # include/uapi/linux/sockios.h, include/uapi/linux/if.h

World = dict[str, frozenset[str]]


class Session:
    """What is known of this run: whether it is isolated, what was there first, what was skipped, what was left."""

    def __init__(self) -> None:
        self.not_isolated = ""
        self.before: World = {}
        self.skips: list[tuple[str, str]] = []
        self.left: list[str] = []
        self.root = ""

    @property
    def bad_skips(self) -> list[tuple[str, str]]:
        """The skips that CI does not accept."""
        return [(test, why) for test, why in self.skips if not OPTION.search(why)]


THIS = Session()


def in_ci() -> bool:
    """Whether nobody is watching: a skip that somebody could have prevented is a failure then."""
    return os.environ.get("CI", "").lower() in ("true", "1")


# A machine of its own ------------------------------------------------------------------------------------------------


def isolate() -> str:
    """Move this process into namespaces of its own; gives the reason where it may not."""
    try:
        libc.unshare(libc.CLONE_NEWNS | libc.CLONE_NEWNET)
    except OSError as error:
        return f"needs root, with CAP_SYS_ADMIN ({error.strerror})"
    libc.mount("none", "/", flags=libc.MS_REC | libc.MS_SLAVE)
    for (
        path
    ) in pinned():  # our copies of others' pins would keep namespaces alive that their makers have removed
        libc.umount(path, libc.MNT_DETACH)
    libc.mount("tmpfs", "/run", "tmpfs")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
    return ""


def pinned() -> list[str]:
    """Where namespaces are bind-mounted, as this process sees it."""
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    return [line.split()[1] for line in lines if line.split()[2] == "nsfs"]


def processes() -> Iterator[str]:
    """The processes that this session has started: they carry its mark, or live in its mount namespace."""
    own = os.stat("/proc/self/ns/mnt").st_ino
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):  # it ended while we looked, or is not ours to look at
            here = not THIS.not_isolated and os.stat(entry / "ns/mnt").st_ino == own
            if here or MARK.encode() in (entry / "environ").read_bytes().split(b"\0"):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                yield f"{entry.name} {command.strip()}"


def look_around() -> World:
    """What is there now, of each kind that a test could leave behind."""
    named = os.listdir("/run/netns") if os.path.isdir("/run/netns") else []
    links = Path("/proc/self/net/dev").read_text(encoding="ascii").splitlines()[2:]
    tables: list[str] = []
    if not THIS.not_isolated and (nft := shutil.which("nft")):
        listed = subprocess.run([nft, "list", "tables"], capture_output=True, text=True, check=True)
        tables = listed.stdout.splitlines()
    return {
        "named namespace": frozenset(named),
        "pinned namespace": frozenset(pinned()),
        "link of the machine's own namespace": frozenset(line.split(":")[0].strip() for line in links),
        "nftables table of the machine's own namespace": frozenset(tables),
        "process": frozenset(processes()),
    }


def left_behind() -> list[str]:
    """What is there now and was not before, once what is ending has had its time to end."""
    deadline = time.monotonic() + DEADLINE
    while True:
        now = look_around()
        left = [
            f"{kind}: {each}" for kind, all_of in now.items() for each in sorted(all_of - THIS.before[kind])
        ]
        ending = any(each.startswith("process") for each in left)
        if not ending or time.monotonic() > deadline:
            return left
        time.sleep(0.02)


# The run itself ------------------------------------------------------------------------------------------------------


def pytest_sessionstart() -> None:
    """Isolate the session and remember what is there."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    # A shell's & and nohup ignore these, and what we start would too.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    variable, _, value = MARK.partition("=")
    os.environ[variable] = value
    THIS.not_isolated = isolate()
    THIS.root = tempfile.mkdtemp(prefix="vethwork-tests-")
    os.environ["VETHWORK_ROOT"] = f"{THIS.root}/root"
    os.environ["VETHWORK_RUN"] = f"{THIS.root}/run"
    THIS.before = look_around()


def pytest_report_header() -> str:
    """Say where the tests run."""
    return f"vethwork: {THIS.not_isolated or 'in a network and a mount namespace of its own'}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, loudly, what cannot run without root."""
    for item in items:
        kind = item.path.relative_to(HERE).parts[0] if item.path.is_relative_to(HERE) else ""
        if THIS.not_isolated and kind in NEED_ROOT:
            item.add_marker(pytest.mark.skip(reason=THIS.not_isolated))


def note_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Remember a skip and its reason; an expected failure is none."""
    if report.skipped and not hasattr(report, "wasxfail"):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        THIS.skips.append((report.nodeid, why.removeprefix("Skipped: ")))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note each skipped test."""
    note_skip(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Note each file that was skipped whole."""
    note_skip(report)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run for what was left behind and, in CI, for skips that need not be; then clean up."""
    THIS.left += left_behind()
    if hasattr(session.config, "workeroutput"):  # which goes to the process that started this one
        session.config.workeroutput["left"] = THIS.left
    if THIS.left or (in_ci() and THIS.bad_skips):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    for process in look_around()["process"] - THIS.before["process"]:
        with suppress(ProcessLookupError):
            os.kill(int(process.split()[0]), signal.SIGKILL)
    shutil.rmtree(THIS.root, ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear from one that shared the work what it has left behind."""
    THIS.left += getattr(node, "workeroutput", {}).get("left", [])  # one that crashed has said nothing


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List every skip with its reason, and everything that was left behind."""
    if THIS.skips:
        terminalreporter.section(f"{len(THIS.skips)} skipped, {len(THIS.bad_skips)} not for a kernel option")
        for test, why in THIS.skips:
            terminalreporter.line(f"SKIPPED {test}: {why}")
        if in_ci() and THIS.bad_skips:
            terminalreporter.line(
                "CI=true: only a named kernel option (CONFIG_...) is a reason to skip", red=True
            )
    if THIS.left:
        terminalreporter.section("left behind", red=True)
        for each in THIS.left:
            terminalreporter.line(f"LEFT BEHIND {each}", red=True)


# What tests may ask for ----------------------------------------------------------------------------------------------


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A host, a neighbour, a router and an internet, for one test."""
    with Lab() as made:
        yield made


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """``tool("curl")`` gives the path of a program, or skips the test because it is not installed."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            pytest.skip(f"needs the tool {name}, which is not installed here")
        return path

    return find


@pytest.fixture(scope="session")
def kernel_option() -> Callable[[str], None]:
    """``kernel_option("CONFIG_VLAN_8021Q")`` skips the test where this kernel was built without it.

    A kernel that does not tell how it was built is taken to have everything: the test then shows.
    """
    text = ""
    if os.path.exists("/proc/config.gz"):
        text = gzip.decompress(Path("/proc/config.gz").read_bytes()).decode()
    elif os.path.exists(path := f"/boot/config-{os.uname().release}"):
        text = Path(path).read_text(encoding="utf-8")

    def need(option: str) -> None:
        if not OPTION.fullmatch(option):
            raise ValueError(f"{option} is not the name of a kernel option")
        if text and not re.search(rf"^{option}=[ym]$", text, re.MULTILINE):
            pytest.skip(f"needs a kernel built with {option}, which this one is not")

    return need
