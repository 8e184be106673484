"""Staying with a process: what it hears in the foreground of a terminal, and how it is left in the background."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel.containers import (
    LISTEN,
    PYTHON,
    Container,
    Fifo,
    Terminal,
    await_end,
    await_readable,
    start_detached,
)
from tests.kernel.stage import eventually
from vethwork.process.spawn import is_alive, is_stopped

if TYPE_CHECKING:
    from collections.abc import Callable


# What it hears in the foreground -------------------------------------------------------------------------------------

PASSED = [
    "HUP",
    "INT",
    "QUIT",
    "ABRT",
    "USR1",
    "USR2",
    "ALRM",
    "CONT",
    "TSTP",
    "TTIN",
    "TTOU",
    "URG",
    "WINCH",
    "RTMIN",
]


@pytest.mark.parametrize("function", ["execute(spec({}))", "run(spec({}), nothing, nothing, False)"])
def test_what_is_sent_to_us_is_passed_on_once(box: Container, function: str) -> None:
    driver = box.drive(f"raise SystemExit({function.format(LISTEN)})", start_new_session=True)
    assert driver.talk.line().startswith("ready")
    heard = []
    for name in PASSED:
        os.kill(driver.pid, getattr(signal, f"SIG{name}"))
        heard.append(driver.talk.line())
    os.kill(driver.pid, signal.SIGTERM)
    heard += driver.rest().split()
    assert heard == [*(f"SIG{name}" for name in PASSED), "SIGTERM"]
    assert driver.wait() == 9


def test_what_it_sends_to_its_whole_group_does_not_come_back(box: Container) -> None:
    code = """
import os, signal, sys
heard = {signal.SIGUSR1, signal.SIGUSR2}
signal.pthread_sigmask(signal.SIG_BLOCK, heard)
print("ready", flush=True)
sys.stdin.readline()
os.kill(0, signal.SIGUSR1)
while True:
    print(signal.Signals(signal.sigwait(heard)).name, flush=True)
"""
    driver = box.drive(
        f"raise SystemExit(execute(spec({PYTHON!r}, '-c', {code!r})))",
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    assert driver.talk.line() == "ready"
    os.kill(driver.pid, signal.SIGSTOP)  # so that the process has its own before we take ours
    os.waitid(os.P_PID, driver.pid, os.WSTOPPED)
    assert driver.popen.stdin is not None
    driver.popen.stdin.write(b"now\n")
    driver.popen.stdin.close()
    assert driver.talk.line() == "SIGUSR1"
    os.kill(driver.pid, signal.SIGUSR2)  # taken after SIGUSR1, which has the lower number
    os.kill(driver.pid, signal.SIGCONT)
    assert driver.talk.line() == "SIGUSR2"


RUN = "status = run(spec(COMMAND), nothing, nothing, False)"


def shell_with(
    box: Container, tool: Callable[[str], str], command: str, body: str = RUN
) -> tuple[int, int, Terminal, list[str]]:
    """Sit down at a shell and run a driver in its foreground; gives the process, the driver, and the rest it says."""
    terminal = box.sit_down(tool("bash"), "--norc", "--noprofile", "-i")
    arguments = box.script(body.replace("COMMAND", command) + "\nraise SystemExit(status)")
    terminal.talk.expect("$ ")
    terminal.type(" ".join(arguments) + "; echo status=$?\n")
    terminal.talk.expect("ready ")
    pid, driver, *rest = terminal.talk.line().split()
    return int(pid), int(driver), terminal, rest


def test_the_terminal_passes_and_ctrl_c_is_heard_once(box: Container, tool: Callable[[str], str]) -> None:
    _, driver, terminal, rest = shell_with(box, tool, LISTEN)
    assert rest == ["True", "True", "True", "91", "37"]
    for key, name in (("\x03", "SIGINT"), ("\x1c", "SIGQUIT")):
        terminal.type(key)
        terminal.talk.expect(f"{name}\r\n")
        os.kill(driver, signal.SIGUSR2)  # taken after the other, which has the lower number
        assert terminal.talk.line() == "SIGUSR2"
    terminal.resize(100, 40)
    assert terminal.talk.line() == "SIGWINCH"
    assert terminal.talk.line() == "100 40"
    os.kill(driver, signal.SIGTERM)
    assert terminal.talk.line() == "SIGTERM"
    assert terminal.talk.line() == "status=9"


# Looks after the process only when it has ended, and Ctrl-C waits for both.
LATE = """
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
process = spawn(spec(COMMAND))
process.go()
os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
status = supervise(process)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
"""


@pytest.mark.parametrize("body", [RUN, LATE])
def test_ctrl_c_ends_what_does_not_listen(box: Container, tool: Callable[[str], str], body: str) -> None:
    _, _, terminal, _ = shell_with(box, tool, "'sh', '-c', 'echo ready $$ $PPID; exec sleep 1000'", body)
    terminal.type("\x03")
    # An interactive shell leaves out the rest of the line if its command died of SIGINT; ours exited, so it goes on.
    terminal.talk.expect("status=130")


@pytest.mark.parametrize("tidies", [False, True])
def test_ctrl_z_and_fg(box: Container, tool: Callable[[str], str], tidies: bool) -> None:
    # Waits in select, which a signal wakes however early it comes; a read that begins just after would sleep through it.
    code = """
import os, select, signal, sys
def tidy(*_):
    print("tidy", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
woken, wakes = os.pipe()
for end in (woken, wakes):
    os.set_blocking(end, False)
signal.set_wakeup_fd(wakes)
if len(sys.argv) > 1:
    signal.signal(signal.SIGTSTP, tidy)
signal.signal(signal.SIGCONT, lambda *_: print("continued", flush=True))
print("ready", os.getpid(), os.getppid(), flush=True)
while True:
    ready, _, _ = select.select([0, woken], [], [])
    if woken in ready:
        os.read(woken, 100)
    if 0 in ready:
        line = os.read(0, 1000)
        if not line:
            raise SystemExit(7)
        print("got", line.decode(), flush=True)
"""
    more = ", 'tidies'" if tidies else ""
    pid, driver, terminal, _ = shell_with(box, tool, f"{PYTHON!r}, '-c', {code!r}{more}")
    for _ in range(2):
        terminal.type("\x1a")
        said = terminal.talk.expect("Stopped")
        assert ("tidy" in said) == tidies
        assert is_stopped(pid)
        assert is_stopped(driver)
        terminal.talk.expect("$ ")
        terminal.type("fg\n")
        terminal.talk.expect("continued\r\n")
        terminal.type("a line\n")
        assert "continued" not in terminal.talk.expect("got a line\r\n")
        assert not is_stopped(driver)
    terminal.type("\x04")
    terminal.type("echo status=$?\n")
    terminal.talk.expect("status=7")


def test_one_that_is_stopped_by_somebody_else_gives_the_shell_its_prompt_back(
    box: Container, tool: Callable[[str], str]
) -> None:
    door = box.path / "door"
    os.mkfifo(door)
    command = f"'sh', '-c', 'echo ready $$ $PPID; read line <{door}; echo got $line'"
    pid, driver, terminal, _ = shell_with(box, tool, command)
    os.kill(pid, signal.SIGSTOP)
    terminal.talk.expect("Stopped")
    assert is_stopped(driver)
    os.kill(driver, signal.SIGCONT)  # only us: what stopped with us continues with us
    door.write_text("a line\n")
    terminal.talk.expect("got a line")


def test_without_a_shell_that_could_continue_us_we_do_not_stop(box: Container) -> None:
    driver = box.drive(f"raise SystemExit(execute(spec({LISTEN})))", start_new_session=True)
    _, pid, *_ = driver.talk.line().split()
    os.kill(int(pid), signal.SIGSTOP)
    os.kill(driver.pid, signal.SIGUSR1)  # passed on by one that runs, to one that is stopped
    os.kill(int(pid), signal.SIGCONT)
    assert {driver.talk.line(), driver.talk.line()} == {"SIGUSR1", "SIGCONT"}


def test_what_it_leaves_behind_ends_with_it_but_not_after_exec(box: Container) -> None:
    script = "setsid sleep 1000 & echo $!; sleep 1000 & echo $!; exit 3"
    said = box.ask(f"raise SystemExit(run(spec('sh', '-c', {script!r}, ), nothing, nothing, False))", 3)
    assert len(said.split()) == 2
    assert not box.inhabitants()
    driver = box.drive(f"raise SystemExit(execute(spec('sh', '-c', {script!r})))")
    left = {int(driver.talk.line()), int(driver.talk.line())}
    assert driver.wait() == 3
    assert set(box.inhabitants()) == left


def test_children_that_were_there_before_are_not_ours_to_end(box: Container) -> None:
    said = box.ask(
        """
from vethwork.process import supervise as module
other = subprocess.Popen(["sleep", "1000"])
try:
    assert module._children() == module._scan_for_children() == {other.pid}
    tell(run(spec("true"), nothing, nothing, False), libc.child_subreaper(), other.poll())
finally:
    other.kill()
    other.wait()
"""
    )
    assert said == "0 False None\n"


# In the background ---------------------------------------------------------------------------------------------------


def held_by(pid: int) -> set[str]:
    """What a process has open."""
    held = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # one that it had open for a moment
            held.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return held


def test_a_detached_one_is_left_alone(box: Container, fifo: Fifo, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "door")
    read, write = os.pipe()
    log = tmp_path / "log"
    log.write_text("from before\n")
    log.chmod(0o600)
    driver = box.drive(
        f"""
held = open(HERE + "/held", "w")
def on_exit(status):
    try:
        os.waitpid(-1, 0)
    except ChildProcessError:
        with open(HERE + "/fifo", "w") as file:
            print(status, file=file)
def on_started(process):
    tell(process.pid, process.start_time, parent_of(process.pid))
script = 'echo begun; echo warned >&2; cat; echo >{fifo.path}; read x <$1; echo $x; exit 4'
status = run(spec("sh", "-c", script, "sh", HERE + "/door", log=HERE + "/log"), on_started, on_exit, True)
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    raise SystemExit(status)
""",
        pass_fds=[write],
        stdin=subprocess.PIPE,
    )
    os.close(write)
    pid, start_time, supervisor = map(int, driver.talk.line().split())
    assert driver.rest() == ""  # its output has ended: nobody else holds it
    assert driver.wait() == 0
    await_readable(read)
    assert os.read(read, 1) == b""  # nor the pipe that it had inherited
    os.close(read)
    assert fifo.line() == ""
    assert is_alive(pid, start_time)
    assert os.getsid(pid) == os.getpgid(pid) == pid
    assert os.getsid(supervisor) not in (os.getsid(0), pid, supervisor)
    assert os.readlink(f"/proc/{pid}/cwd") == os.getcwd()  # as for anything that is started in the background
    assert os.readlink(f"/proc/{supervisor}/cwd") == "/"
    assert eventually(lambda: held_by(supervisor) == {"/dev/null", str(log), "/"})
    # It has told us, and lets go of the pipe.
    assert eventually(lambda: held_by(pid) == {"/dev/null", str(log)})
    (tmp_path / "door").write_text("to the end\n")
    assert fifo.line() == "4"  # and there was no child left to wait for
    await_end(supervisor)
    assert log.read_text() == "from before\nbegun\nwarned\nto the end\n"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_a_log_is_for_its_owner_and_group(box: Container, tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        box.ask("run(spec('true', log=HERE + '/log'), nothing, nothing, True)")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o640


def test_without_a_log_it_speaks_to_nobody(box: Container, fifo: Fifo) -> None:
    script = f"echo lost; ls -l /proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/2 | grep -c /dev/null >{fifo.path}"
    assert box.ask(f"run(spec('sh', '-c', {script!r}), nothing, nothing, True)") == ""
    assert fifo.line() == "3"


def test_what_goes_wrong_at_the_end_goes_to_the_log(box: Container, tmp_path: Path) -> None:
    said = box.ask(
        """
def on_exit(status):
    raise LookupError("no record of it")
run(spec("true", log=HERE + "/log"), lambda process: tell(parent_of(process.pid)), on_exit, True)
"""
    )
    await_end(int(said))
    assert (tmp_path / "log").read_text() == (
        "vethwork: the supervisor of true: LookupError('no record of it')\n"
    )


def test_on_exit_may_become_another_program(box: Container, fifo: Fifo) -> None:
    box.ask(
        f"""
def on_exit(status):
    os.execv("/bin/sh", ["sh", "-c", f"echo ended with {{status}} >{fifo.path}"])
run(spec("sh", "-c", "exit 8"), nothing, on_exit, True)
"""
    )
    assert fifo.line() == "ended with 8"


def test_signals_to_the_supervisor_reach_the_process(box: Container, fifo: Fifo) -> None:
    pid, start_time, supervisor = start_detached(
        box, f"trap 'exit 6' USR1; sleep 1000 & echo >{fifo.path}; wait"
    )
    assert fifo.line() == ""
    os.kill(pid, signal.SIGSTOP)
    os.kill(supervisor, signal.SIGUSR1)
    os.kill(supervisor, signal.SIGCONT)
    await_end(supervisor)
    assert (box.path / "status").read_text() == "6"
    assert not is_alive(pid, start_time)
    assert not box.inhabitants()
