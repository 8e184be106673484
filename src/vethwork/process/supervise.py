"""Staying with a process until it ends: in the foreground of a terminal, or as a small supervisor that was left behind.

Theory of the foreground. The process is in our own process group, on our own terminal. What the terminal driver has to
say (Ctrl-C, a hangup, a new window size) it says to the whole group, so to both of us; what somebody says to our process
id, only we hear. Signals are blocked and taken one by one with sigwaitinfo(2), which tells the two apart: si_code above 0
means the kernel, and is dropped; the rest is passed on, except what the process or its descendants sent themselves
(``kill 0`` reaches the whole group too). Ctrl-Z is not obeyed but followed: when the process has stopped, we stop, so
the shell sees its job stopped, and an editor that catches SIGTSTP has its time; when we are continued, so is it.
What a program sends to the whole group (``kill(-pgid)``, as timeout(1) does) cannot be told from what it sends to us
alone, and is heard twice.

Theory of the background. The caller forks twice (daemon(7)), so that the supervisor belongs to init and has no terminal.
The supervisor is what the caller is in the foreground: it starts the process, in a session of its own, and waits. It
passes on to its caller that the process is ready, and to the process the caller's word; so errors are the caller's.

When the process ends, all that is left of its process group is killed, and so is what left the group, which as orphans
have become our children (PR_SET_CHILD_SUBREAPER(2const)): a container ends with its process.

Rules: signals are blocked before the process is started, so none is lost. The process is not waited for before its group
was killed, for until then nobody else can have its id.
"""

from __future__ import annotations

import errno
import os
import signal

from vethwork.errors import KernelRefused
from vethwork.kernel import libc
from vethwork.process.pipe_channel import make_line
from vethwork.process.spawn import (
    GO,
    READY,
    WELL,
    Launch,
    NotExecuted,
    Process,
    is_stopped,
    parent_of,
    prepare_fork,
    redirect_stdio,
    spawn,
    stop,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn, Self

    from vethwork.process.enter import Spec
    from vethwork.process.pipe_channel import Line

    OnStarted = Callable[[Process], None]
    OnExit = Callable[[int], None]

# What happens to us by our own doing, or cannot be caught, is nobody else's.
_OURS = {
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGKILL,
    signal.SIGPIPE,
    signal.SIGSEGV,
    signal.SIGSTOP,
    signal.SIGSYS,
    signal.SIGTRAP,
    signal.SIGXCPU,
    signal.SIGXFSZ,
}
_TAKEN = signal.valid_signals() - _OURS


class _Blocked:
    """While in it, the signals that are passed on wait for sigwaitinfo."""

    def __enter__(self) -> None:
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _TAKEN)

    def __exit__(self, *_: object) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


class _Household:
    """While in it, orphans below this process come to it; ``end`` ends those that came."""

    def __enter__(self) -> Self:
        self._was_on = libc.child_subreaper()
        self._before = _children()
        libc.set_child_subreaper(True)
        return self

    def __exit__(self, *_: object) -> None:
        libc.set_child_subreaper(self._was_on)

    def end(self) -> None:
        """Kill what came, and what comes when its parents are killed, and wait for each."""
        while left := _children() - self._before:
            for pid in left:
                os.kill(pid, signal.SIGKILL)  # its id is its own until we wait for it
            for pid in left:
                os.waitpid(pid, 0)


def run(spec: Spec, on_started: OnStarted, on_exit: OnExit, detached: bool) -> int:
    """Run a process in a container from start to end; gives its exit status (128 + n if signal n killed it).

    ``on_started`` is called with the process before it executes anything. If it raises, the process is ended, its
    command never executed, and the error goes to the caller. ``on_exit`` is called with the status after the process, and
    what it left behind, ended; with the error's ``exit_status`` if the command could not be executed.

    ``detached`` leaves it to a supervisor, and gives 0 as soon as the command is executed. ``on_exit`` is then called
    there: see :func:`detach`.

    For a process that does nothing else meanwhile: signals are blocked, and every child that it gets counts as left
    behind. Raises what :func:`spawn` and ``Process.go`` raise.
    """
    with _Blocked():
        if detached:
            process = detach(spec, on_exit)
            _report(process, on_started)
            try:
                process.go()
            except KernelRefused as error:  # the supervisor is gone and cannot call it
                stop(
                    process.pid, process.start_time, 0
                )  # which may have begun before the supervisor could say so
                on_exit(error.exit_status)
                raise
            return 0
        with _Household() as household:
            process = spawn(spec)
            _report(process, on_started)
            try:
                process.go()
            except (NotExecuted, KernelRefused) as error:
                on_exit(error.exit_status)
                raise
            return _see_out(process, household, on_exit)


def execute(spec: Spec) -> int:
    """Run one more process in a container, in the foreground; what it leaves in the background may stay.

    Gives the exit status, and raises, as :func:`run` does.
    """
    with _Blocked():
        process = spawn(spec)
        process.go()
        return supervise(process)


def _report(process: Process, on_started: OnStarted) -> None:
    reported = False
    try:
        on_started(process)
        reported = True
    finally:
        if not reported:
            process.abort()


def _see_out(process: Process, household: _Household, on_exit: OnExit) -> int:
    """Stay until a child of ours has ended, and see to it that nothing of it is left."""
    status = _watch(process.pid, adopts=True)
    if os.getpgid(process.pid) == process.pid:
        os.killpg(process.pid, signal.SIGKILL)
    process.reap()
    household.end()
    on_exit(status)
    return status


def supervise(process: Process) -> int:
    """Pass signals on to a child until it ends, and wait for it; gives its exit status, 128 + n if signal n killed it.

    Call it in the foreground, from the main thread, after ``go``; see the module's docstring.
    """
    with _Blocked():
        status = _watch(process.pid, adopts=False)
        process.reap()
    return status


def _watch(pid: int, *, adopts: bool) -> int:
    """Pass signals on until it has ended; it is not waited for. Signals are blocked."""
    follows = _has_job_control()
    while True:
        status = _look_at(pid, follows)
        if status is not None:
            # What still waits was meant for it: the Ctrl-C that ended it was sent to us before its end was.
            while signal.sigtimedwait(_TAKEN, 0):
                pass
            return status
        if adopts:
            _reap_others(pid)
        info = signal.sigwaitinfo(_TAKEN)
        from_kernel = info.si_code > 0
        if info.si_signo != signal.SIGCHLD and not from_kernel and not _descends(info.si_pid):
            os.kill(pid, info.si_signo)


def _look_at(pid: int, follows: bool) -> int | None:
    """Give the status of a child that has ended; follow one that has stopped."""
    news = os.waitid(os.P_PID, pid, os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
    if news is None:
        return None
    if news.si_code == os.CLD_EXITED:
        return news.si_status
    if news.si_code in (os.CLD_KILLED, os.CLD_DUMPED):
        return 128 + news.si_status
    if os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG) and follows:
        os.kill(os.getpid(), signal.SIGSTOP)
        # Somebody has continued us: the shell both of us, kill(1) perhaps only us. If there is news of a stop again,
        # then it was continued too, and has stopped anew before we had our turn.
        signal.sigtimedwait((signal.SIGCONT,), 0)
        if is_stopped(pid) and not os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT):
            os.kill(pid, signal.SIGCONT)
    return None


def _reap_others(pid: int) -> None:
    """Wait for orphans that came to us and have ended."""
    while (news := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and news.si_pid != pid:
        os.waitpid(news.si_pid, 0)


def _has_job_control() -> bool:
    """Whether a shell sees it when we stop: there is a terminal, and we are not the shell in its place."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY))
    except OSError:
        return False
    return os.getsid(0) != os.getpid()


def _descends(pid: int) -> bool:
    """Whether a process is below this one."""
    while pid > 1:
        pid = parent_of(pid)
        if pid == os.getpid():
            return True
    return False


def _children() -> frozenset[int]:
    """List the children of this process, of all its threads; see proc_tid_children(5)."""
    try:
        found: list[str] = []
        for thread in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{thread}/children", encoding="ascii") as file:
                found += file.read().split()
        return frozenset([int(pid) for pid in found])
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN, or a thread that ended
        return _scan_for_children()


def _scan_for_children() -> frozenset[int]:
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return frozenset([pid for pid in pids if parent_of(pid) == os.getpid()])


def detach(spec: Spec, on_exit: OnExit) -> Process:
    """Leave a supervisor behind that starts a process; gives the process, which waits for the word to go, to us.

    The supervisor has no terminal, is in "/", and holds no descriptor of ours but the log. It waits until the process
    ends, ends what that left behind, calls ``on_exit``, and ends. If we end, or abort, before the word to go, it ends
    without calling it; if the command cannot be executed, it calls it before we hear of that.

    ``on_exit`` runs in a copy of this process, long after: it may use nothing that was open before. An SQLite database
    must not even be open while this is called (sqlite.org, "How To Corrupt An SQLite Database File", 2.6). What it
    raises goes to the log. It may end in ``os.execv``.

    Raises what :func:`spawn` raises.
    """
    launch = Launch(spec)
    try:
        ours = _fork_supervisor(launch, on_exit)
    finally:
        launch.close()
    word, _, rest = ours.receive().partition(b" ")
    if word == READY:
        pid, start_time = rest.split()
        return Process(int(pid), int(start_time), launch.command, launch.entry.warnings, ours, is_child=False)
    ours.close()
    raise KernelRefused(rest.decode(errors="replace") or "start a supervisor", int(word or errno.ESRCH))


def _fork_supervisor(launch: Launch, on_exit: OnExit) -> Line:
    ours, theirs, caller = make_line()
    mask = prepare_fork()
    try:
        middle = os.fork()
        if middle == 0:
            _become_supervisor(launch, theirs, caller, on_exit)
        os.waitpid(middle, 0)
    except OSError as error:
        ours.close()
        raise KernelRefused("fork a supervisor", error.errno or 0) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        os.close(caller)
    return ours


def _become_supervisor(launch: Launch, line: Line, caller: int, on_exit: OnExit) -> NoReturn:
    """Be the child that forks the supervisor, and be the supervisor. Nothing returns into the caller's code."""
    status = 1
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        for number in _TAKEN:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, _TAKEN)
        _cut_loose(launch, (line.incoming, line.outgoing, caller))
        with _Household() as household:
            _serve(launch, line, caller, on_exit, household)
        status = 0
    except Exception as error:  # the outermost frame of this process: nobody else is there to be told
        os.write(2, f"vethwork: the supervisor of {launch.command}: {error!r}\n".encode(errors="replace"))
    finally:
        os._exit(status)


def _cut_loose(launch: Launch, kept: tuple[int, ...]) -> None:
    """Keep no terminal and no descriptor of the caller's.

    The numbers are not closed but occupied by a descriptor on which nothing but close succeeds (O_PATH, open(2)): objects
    of the caller, copied by fork, believe that these numbers are theirs, and must not meet what is opened later.
    """
    redirect_stdio(launch.null, launch.log)
    blank = os.open("/", os.O_PATH | os.O_CLOEXEC)
    needed = {0, 1, 2, blank, launch.null, launch.log, *launch.entry.descriptors, *kept}
    for fd in {int(name) for name in os.listdir("/proc/self/fd")} - needed:
        os.dup2(blank, fd, inheritable=False)


def _serve(launch: Launch, line: Line, caller: int, on_exit: OnExit, household: _Household) -> None:
    """Stand between the caller and the process until it is started, then stay with it until it has ended."""
    try:
        process = launch.start(detached=True)
    except KernelRefused as error:
        line.send(b"%d %s" % (error.errno, os.fsencode(error.doing)))
        return
    launch.close()
    os.chdir("/")  # the process has the caller's directory; nobody else keeps it busy
    line.send(b"%s %d %d" % (READY, process.pid, process.start_time))
    word = line.receive(caller)
    os.close(caller)
    if word != GO:
        process.abort()
        return
    try:
        process.go()
    except NotExecuted as error:
        on_exit(error.exit_status)
        line.send(b"%d" % error.errno)
        return
    except KernelRefused as error:
        line.send(b"%d" % error.errno)
        return
    line.send(WELL)
    line.close()
    _see_out(process, household, on_exit)
