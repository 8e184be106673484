"""What the tests of processes share: a container to run in, programs that act as the command line, and a terminal.

Rules: every test that forks does so in a program of its own (a *driver*), for what forks blocks signals and adopts
orphans. Whatever was started is killed at the end, found by its network namespace or by the script that it runs.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vethwork.kernel import libc

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

DEADLINE = 20.0
SOURCE = Path(__file__).parents[2] / "src"
PYTHON = sys.executable

PRELUDE = """
import os, signal, subprocess, sys
from vethwork.kernel import libc
from vethwork.process.enter import Spec, enter
from vethwork.process.spawn import is_alive, parent_of, spawn, start_time_of
from vethwork.process.supervise import detach, execute, run, supervise
NETNS, FILES, HERE = sys.argv[1:4]
def spec(*command, **more):
    return Spec(command, **({"netns": NETNS, "directory": FILES, "hostname": "inside"} | more))
def nothing(*_):
    pass
def tell(*words):
    print(*words, flush=True)
"""


# Says who it is, then the name of each signal it gets; SIGTERM ends it with status 9.
LISTENER = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
size = os.get_terminal_size() if sys.stdin.isatty() else (0, 0)
print("ready", os.getpid(), os.getppid(), *[os.isatty(fd) for fd in (0, 1, 2)], *size, flush=True)
while True:
    number = signal.sigwaitinfo(signal.valid_signals()).si_signo
    print(signal.Signals(number).name, flush=True)
    if number == signal.SIGWINCH and sys.stdin.isatty():
        print(*os.get_terminal_size(), flush=True)
    if number == signal.SIGTERM:
        raise SystemExit(9)
"""
LISTEN = f"{PYTHON!r}, '-c', {LISTENER!r}"


class Talk:
    """What comes out of a descriptor, piece by piece."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.seen = ""
        self.rest = ""

    def expect(self, text: str) -> str:
        """Wait until it says this; gives what it said since the last time, this included."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        until = time.monotonic() + DEADLINE
        while text not in self.rest:
            left = until - time.monotonic()
            if left < 0 or not poll.poll(left * 1000):
                raise AssertionError(f"no {text!r} in time, but: {self.seen!r}")
            try:
                piece = os.read(self.fd, 65536).decode(errors="replace")
            except OSError:  # EIO: nobody holds the other end of a pseudo-terminal
                piece = ""
            if not piece:
                raise AssertionError(f"no {text!r} before the end, but: {self.seen!r}")
            self.seen += piece
            self.rest += piece
        said, found, self.rest = self.rest.partition(text)
        return said + found

    def line(self) -> str:
        """Wait for one line."""
        return self.expect("\n").strip()


class Driver:
    """A running program, and what it says."""

    def __init__(self, arguments: list[str], **named: Any) -> None:
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self.popen: subprocess.Popen[bytes] = subprocess.Popen(arguments, **(streams | named))
        self.pid = self.popen.pid
        self.talk = Talk(self.popen.stdout.fileno() if self.popen.stdout else -1)

    def wait(self) -> int:
        """Wait for its end; gives its exit status."""
        return self.popen.wait(DEADLINE)

    def rest(self) -> str:
        """Wait until nobody holds its output any more; gives what was not read yet."""
        output, _ = self.popen.communicate(timeout=DEADLINE)
        return self.talk.rest + (output or b"").decode()


class Terminal:
    """A shell in a session of its own, on a terminal of its own, and somebody at the keyboard."""

    def __init__(self, arguments: list[str], columns: int = 91, rows: int = 37) -> None:
        self.master, slave = os.openpty()
        self.resize(columns, rows)
        self.popen = subprocess.Popen(
            arguments,
            env=os.environ | {"PS1": "$ ", "TERM": "dumb", "INPUTRC": "/dev/null", "PYTHONPATH": str(SOURCE)},
            preexec_fn=lambda: os.login_tty(slave),
        )
        os.close(slave)
        self.talk = Talk(self.master)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.master, text.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Drag the corner of the window."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close(self) -> None:
        """Hang up."""
        os.close(self.master)
        self.popen.kill()
        self.popen.wait(DEADLINE)


class Container:
    """A network namespace and the three files of a container, and everything that was started for it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = path / "files"
        self.files.mkdir()
        (self.files / "hostname").write_text("inside\n")
        (self.files / "hosts").write_text("10.77.0.5\tinside\n")
        (self.files / "resolv.conf").write_text("nameserver 10.77.0.1\n")
        self._fd = _make_netns()
        self.netns = f"/proc/{os.getpid()}/fd/{self._fd}"
        self._drivers: list[Driver] = []
        self._terminals: list[Terminal] = []
        self._count = 0

    def script(self, body: str) -> list[str]:
        """Write a driver down; gives the arguments that start it."""
        self._count += 1
        path = self.path / f"driver{self._count}.py"
        path.write_text(PRELUDE + body)
        return [PYTHON, str(path), self.netns, str(self.files), str(self.path)]

    def drive(self, body: str, **named: Any) -> Driver:
        """Start a driver."""
        environ = os.environ | {"PYTHONPATH": str(SOURCE)}
        driver = Driver(self.script(body), **({"env": environ} | named))
        self._drivers.append(driver)
        return driver

    def ask(self, body: str, status: int = 0, **named: Any) -> str:
        """Let a driver run to its end; gives what it said."""
        driver = self.drive(body, **named)
        said = driver.rest()
        assert driver.wait() == status, said
        return said

    def sit_down(self, *arguments: str) -> Terminal:
        """Start a shell on a terminal."""
        terminal = Terminal(list(arguments))
        self._terminals.append(terminal)
        return terminal

    def inhabitants(self) -> list[int]:
        """The processes in the namespace."""
        own = os.fstat(self._fd)
        return _processes(lambda entry: os.path.samestat(os.stat(f"{entry}/ns/net"), own))

    def drivers(self) -> list[int]:
        """The drivers, and the supervisors that they left behind."""
        scripts = f"{self.path}/driver".encode()
        return _processes(lambda entry: scripts in Path(entry, "cmdline").read_bytes())

    def close(self) -> None:
        """Kill all that was started, and give the namespace back."""
        for terminal in self._terminals:
            terminal.close()
        for driver in self._drivers:
            driver.popen.kill()
            driver.popen.wait(DEADLINE)
            if driver.popen.stdout is not None:
                driver.popen.stdout.close()
        while found := self.inhabitants() + self.drivers():
            for pid in found:
                kill(pid)
        os.close(self._fd)


def _processes(meant: Callable[[str], bool]) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        with suppress(OSError):  # it has ended
            if name.isdecimal() and meant(f"/proc/{name}"):
                found.append(int(name))
    return found


def _make_netns() -> int:
    made: list[int] = []

    def work() -> None:
        libc.unshare(libc.CLONE_NEWNET)
        made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return made[0]


def kill(pid: int) -> None:
    """Kill a process, and wait until it has ended."""
    with suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        await_readable(fd)
        os.close(fd)


def await_end(pid: int) -> None:
    """Wait until a process has ended; one that is not there has."""
    with suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        await_readable(fd)
        os.close(fd)


def await_readable(fd: int) -> None:
    """Wait until there is something to read, or nobody left to write it; of a pidfd, until its process has ended."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(DEADLINE * 1000), "nothing happened in time"


class Fifo:
    """A named pipe that somebody in a container writes to."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # also a writer, so that it never ends
        self.talk = Talk(self.fd)

    def line(self) -> str:
        """Wait for a line."""
        return self.talk.line()

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)


def start_detached(box: Container, script: str) -> tuple[int, int, int]:
    """Leave a script in the background; gives its process, start time and supervisor."""
    said = box.ask(
        f"""
run(spec("sh", "-c", {script!r}, log=HERE + "/log"),
    lambda process: tell(process.pid, process.start_time, parent_of(process.pid)),
    lambda status: open(HERE + "/status", "w").write(str(status)), True)
"""
    )
    pid, start_time, supervisor = map(int, said.split())
    return pid, start_time, supervisor
