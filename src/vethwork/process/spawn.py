"""Starting a process in a container, knowing it again, and ending it.

Theory. A process is started in two halves, so that its id can be written down before it does anything. The first half
forks (fork(2)), enters the container, and reports over a line (``kernel/line.py``); then the child waits for the word.
"go" makes it execute its command. The line is close-on-exec: that it ends without another word *is* the news that the
command was executed; if the kernel refuses to execute it, its errno comes first. If the parent dies before it said
go, so does the child.

A process id is used again after its process was waited for. So a process is known by its start time too, and signals go
through a pidfd (pidfd_open(2)), which stays with the process, or the process group, that it was opened on.

Rules:

* Between fork and exec there are no imports, no look-ups, no locks: what is needed was prepared (:class:`Launch`), and
  the collector is off. All signals are blocked from before the fork until just before the exec, so that no handler
  of the parent runs in the child.
* The child leaves by exec or by ``os._exit``; it never returns into its parent's code.
* The command starts with no signal blocked, and ignores only what whoever started us wanted ignored, as with
  nohup(1); detached, nothing. What Python itself ignores (SIGPIPE, SIGXFSZ) is not passed on.
* Exit status 127: the command was not found; 126: it was, but could not be executed. As with sh(1) and Docker.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import signal
import sys

from vethwork.errors import KernelRefused, RequestError, StateError
from vethwork.process.enter import Spec, enter
from vethwork.process.pipe_channel import Line, make_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

GO, NO, READY, WELL = b"go", b"no", b"ready", b"well"
PIDFD_SIGNAL_PROCESS_GROUP = 1 << 2  # include/uapi/linux/pidfd.h, Linux 6.9
KILL_SECONDS = 10.0
"""How long to wait for a process that was killed: one that the kernel holds (state D) may not go at all."""

_CATCHABLE = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
_IGNORED_BY_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}


class NotExecuted(RequestError):
    """The command could not be executed; ``errno`` is the kernel's reason, ``exit_status`` 127 or 126."""

    def __init__(self, command: str, reason: int) -> None:
        self.exit_status = 127 if reason == errno.ENOENT else 126
        hint = ""
        if reason == errno.ENOENT:
            there = "/" in command and os.path.exists(command)
            hint = "its interpreter or loader is missing" if there else "is it installed, and in PATH?"
        elif reason == errno.ENOEXEC:
            hint = "a script needs a first line such as #!/bin/sh"
        super().__init__(f"execute {command}: {os.strerror(reason)}", hint=hint)
        self.errno = reason


class Process:
    """A process that was started and waits for the word to execute its command.

    ``pid`` and ``start_time`` name it for good (:func:`is_alive`); ``warnings`` says what it will not see although it
    should. After ``go`` or ``abort`` there is nothing more to say to it.
    """

    def __init__(
        self,
        pid: int,
        start_time: int,
        command: str,
        warnings: tuple[str, ...],
        line: Line,
        *,
        is_child: bool,
    ) -> None:
        self.pid = pid
        self.start_time = start_time
        self.command = command
        self.warnings = warnings
        self._line = line
        self._is_child = is_child

    def go(self) -> None:
        """Let it execute its command; gives control back when that has happened.

        Raises NotExecuted if the kernel refused, and KernelRefused if the process was killed before; it is gone then.
        """
        answer = self._line.receive() if self._line.send(GO) else b"%d" % errno.ESRCH
        self._line.close()
        if answer == (b"" if self._is_child else WELL):
            return
        self.reap()
        reason = int(answer or errno.ESRCH)
        if reason == errno.ESRCH:
            raise KernelRefused(f"start {self.command}", reason, "killed before it began")
        raise NotExecuted(self.command, reason)

    def abort(self) -> None:
        """End it; its command is never executed. Gives control back when it is gone. After ``go`` it does nothing."""
        if self._line.outgoing < 0:
            return
        self._line.send(NO)
        if not self._is_child:
            self._line.receive()
        self._line.close()
        self.reap()

    def reap(self) -> None:
        """Wait for its end, if it is ours to wait for."""
        if self._is_child:
            os.waitpid(self.pid, 0)


def spawn(spec: Spec) -> Process:
    """Start a process in a container, up to where it would execute its command; see :class:`Process`.

    Raises RequestError (of the spec), StateError (of its files), KernelRefused (of a system call, by the child too).
    """
    launch = Launch(spec)
    try:
        return launch.start(detached=False)
    finally:
        launch.close()


class Launch:
    """A spec with everything looked up and opened, ready to be forked. Raises what :func:`spawn` raises."""

    def __init__(self, spec: Spec) -> None:
        if not spec.command or not spec.command[0] or any("\0" in word for word in spec.command):
            raise RequestError(f"command {spec.command!r:.200}: is empty, or has a NUL in it")
        occupy_stdio()
        self.command = spec.command[0]
        self._arguments = [os.fsencode(word) for word in spec.command]
        self._paths = _find(self.command)
        self.entry = enter(spec)
        self.null = self.log = -1
        try:
            self.null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            self.log = _open_log(spec.log) if spec.log else -1
        except OSError as error:
            self.close()
            raise StateError(
                f"open {error.filename} for what {self.command} says: {error.strerror}"
            ) from error

    def close(self) -> None:
        """Give the descriptors back."""
        self.entry.close()
        for fd in (self.null, self.log):
            if fd >= 0:
                os.close(fd)

    def start(self, *, detached: bool) -> Process:
        """Fork, and wait until the child is ready to execute. ``detached`` makes it the leader of its own session."""
        pid, line = self._fork(detached)
        word = line.receive()
        if word == READY:
            return Process(pid, start_time_of(pid), self.command, self.entry.warnings, line, is_child=True)
        line.close()
        os.waitpid(pid, 0)
        reason, _, doing = word.decode(errors="replace").partition(" ")
        raise KernelRefused(doing or f"start {self.command}", int(reason or errno.ESRCH))

    def _fork(self, detached: bool) -> tuple[int, Line]:
        ours, theirs, parent = make_line()
        mask = prepare_fork()
        kept = set() if detached else _ignored() - _IGNORED_BY_PYTHON
        resets = tuple(number for number in _CATCHABLE if number not in kept)
        try:
            pid = os.fork()
            if pid == 0:
                self._become(theirs, parent, detached, resets)
        except OSError as error:
            ours.close()
            raise KernelRefused("fork a process", error.errno or 0) from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()
            os.close(parent)
        return pid, ours

    def _become(self, line: Line, parent: int, detached: bool, resets: tuple[int, ...]) -> NoReturn:
        """Be the child: enter, report, wait for the word, execute."""
        try:
            gc.disable()
            if detached:
                os.setsid()
            for number in resets:
                signal.signal(number, signal.SIG_DFL)
            if self.log >= 0 or detached:
                redirect_stdio(self.null, self.log)
            self.entry()
            _drop_private((line.incoming, line.outgoing, parent))
            line.send(READY)
            if line.receive(parent) == GO:
                self._execute(line)
        except OSError as error:
            line.send(b"%d %s" % (error.errno or 0, os.fsencode(error.strerror or "")))
        finally:
            os._exit(127)

    def _execute(self, line: Line) -> None:
        """Try each path, as execvp(3) does: what is not there is passed over, any other refusal is remembered."""
        reason = 0
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for path in self._paths:
            try:
                os.execv(path, self._arguments)
            except OSError as error:
                if len(self._paths) == 1 or error.errno not in (errno.ENOENT, errno.ENOTDIR):
                    reason = reason or error.errno or 0
        line.send(b"%d" % (reason or errno.ENOENT))


def _find(command: str) -> tuple[bytes, ...]:
    """List where a command may be: in each directory of PATH, unless it is a path itself."""
    if "/" in command:
        return (os.fsencode(command),)
    return tuple(os.fsencode(os.path.join(directory, command)) for directory in os.get_exec_path())


def _open_log(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, 0o640)


def _drop_private(kept: tuple[int, ...]) -> None:
    """Close now what exec would close: while the child waits, nobody may miss the end of a pipe because of it."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) not in kept and not os.get_inheritable(int(name)):
                os.close(int(name))
        except OSError:
            continue  # it was the listing's own


def _ignored() -> set[int]:
    return {number for number in _CATCHABLE if signal.getsignal(number) is signal.SIG_IGN}


def prepare_fork() -> set[int]:
    """Make the next fork safe for what buffers and signals hold; gives the signal mask to put back after it."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()  # or the child has a copy of it
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(
            signal.SIGCHLD, signal.SIG_DFL
        )  # ignored, children vanish without a status; see wait(2)
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, _CATCHABLE))


def occupy_stdio() -> None:
    """Put /dev/null where a standard stream is closed, so that no other descriptor takes its number."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open("/dev/null", os.O_RDWR), True)


def redirect_stdio(null: int, log: int) -> None:
    """Read nothing, and write to the log, or to nowhere if it is -1."""
    os.dup2(null, 0)
    for fd in (1, 2):
        os.dup2(log if log >= 0 else null, fd)


def _stat(pid: int) -> list[bytes]:
    """Give the fields of /proc/PID/stat from the third (the state) on, see proc_pid_stat(5); empty if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def start_time_of(pid: int) -> int:
    """When a process was started, in clock ticks after boot; 0 if it is gone."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def parent_of(pid: int) -> int:
    """The process that another is a child of; 0 if it is gone."""
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def is_stopped(pid: int) -> bool:
    """Tell whether a process is stopped by a signal."""
    return _stat(pid)[:1] == [b"T"]


def is_alive(pid: int, start_time: int) -> bool:
    """Tell whether the process of that id and start time has not ended (one that nobody waited for has)."""
    fields = _stat(pid) if pid > 0 else []
    return bool(fields) and int(fields[19]) == start_time and fields[0] not in (b"Z", b"X")


def stop(pid: int, start_time: int, grace_seconds: float) -> bool:
    """End a process: SIGTERM, and after the grace SIGKILL. Gives False if it had ended before.

    If it leads its process group, as a detached one does, the whole group gets the signals, and SIGKILL in any case
    once the process has ended. One that is stopped is continued, so that SIGTERM reaches it. Raises KernelRefused if
    even SIGKILL does not end it.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (
            errno.ESRCH,
            errno.EINVAL,
            errno.ENOENT,
        ):  # no process has the id; perhaps a thread
            return False
        raise KernelRefused(f"open process {pid}", error.errno or 0) from error
    try:
        if not is_alive(pid, start_time):  # checked after it was opened: it is open on what was checked
            return False
        leads = _leads(pid)
        _send(pidfd, pid, signal.SIGTERM, leads)
        _send(pidfd, pid, signal.SIGCONT, leads)
        _has_ended(pidfd, grace_seconds)
        _send(pidfd, pid, signal.SIGKILL, leads)
        if not _has_ended(pidfd, KILL_SECONDS):
            raise KernelRefused(f"end process {pid}", errno.EBUSY, "it was killed and is still there")
        return True
    except PermissionError as error:
        raise KernelRefused(f"send process {pid} a signal", error.errno or 0) from error
    finally:
        os.close(pidfd)


def _leads(pid: int) -> bool:
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False


def _send(pidfd: int, pid: int, number: int, group: bool) -> None:
    try:
        signal.pidfd_send_signal(pidfd, number, None, PIDFD_SIGNAL_PROCESS_GROUP if group else 0)
    except ProcessLookupError:
        return
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        if not _has_ended(
            pidfd, 0
        ):  # a kernel without the flag: as long as it has not ended, its id is its own
            os.killpg(pid, number)


def _has_ended(pidfd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
