"""Processes in containers, started for real: what they see, how they start, and how they are ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel.containers import LISTEN, PYTHON, SOURCE, Container, Fifo, await_end, kill, start_detached
from vethwork.errors import KernelRefused, RequestError, StateError
from vethwork.process.enter import Spec, enter
from vethwork.process.spawn import PIDFD_SIGNAL_PROCESS_GROUP, is_alive, parent_of, spawn, start_time_of, stop

if TYPE_CHECKING:
    from collections.abc import Callable


# How it ends ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -KILL $$", 137)],
)
@pytest.mark.parametrize("detached", [False, True])
def test_the_exit_status_is_the_commands(
    box: Container, fifo: Fifo, script: str, status: int, detached: bool
) -> None:
    said = box.ask(
        f"""
def on_exit(status):
    with open(HERE + "/fifo", "w") as file:
        print(status, file=file)
tell(run(spec("sh", "-c", {script!r}), nothing, on_exit, {detached}))
"""
    )
    assert said == ("0\n" if detached else f"{status}\n")
    assert fifo.line() == str(status)


@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        ("no-such-command", 127, ("No such file", "in PATH?")),
        ("./no-such-command", 127, ("No such file", "in PATH?")),
        ("{here}/orphan-script", 127, ("No such file", "interpreter or loader is missing")),
        ("{here}/plain", 126, ("Permission denied",)),
        ("plain", 126, ("Permission denied",)),
        ("{here}", 126, ("Permission denied",)),
        ("{here}/plain/below", 126, ("Not a directory",)),
        ("{here}/headless", 126, ("Exec format error", "#!/bin/sh")),
    ],
)
def test_a_command_that_cannot_be_executed_is_a_precise_error(
    box: Container, command: str, status: int, words: tuple[str, ...], detached: bool
) -> None:
    (box.path / "orphan-script").write_text("#!/no/such/interpreter\n")
    (box.path / "headless").write_text("echo no first line\n")
    (box.path / "plain").write_text("")
    for name in ("orphan-script", "headless"):
        (box.path / name).chmod(0o755)
    said = box.ask(
        f"""
os.environ["PATH"] += ":" + HERE
try:
    run(spec({command.format(here=box.path)!r}),
        lambda process: tell("started", process.pid),
        lambda status: open(HERE + "/status", "w").write(str(status)), {detached})
except Exception as error:
    tell(type(error).__name__, error.exit_status, error)
    tell(os.path.exists(HERE + "/status") and open(HERE + "/status").read())
"""
    )
    _, error, recorded = said.splitlines()
    assert error.startswith(f"NotExecuted {status} execute ")
    assert all(word in error for word in words), error
    assert recorded == str(status)
    assert not box.inhabitants()


def test_path_is_searched_as_a_shell_does(box: Container) -> None:
    for name, mode in (("first", 0o644), ("second", 0o755)):
        (box.path / name).mkdir()
        tool = box.path / name / "tool"
        tool.write_text(f"#!/bin/sh\necho {name}\n")
        tool.chmod(mode)
    said = box.ask(
        """
os.environ["PATH"] = f"{HERE}/none:{HERE}/first:{HERE}/second"
raise SystemExit(execute(spec("tool")))
"""
    )
    assert said == "second\n"


def test_the_command_gets_its_arguments_its_environment_and_its_directory(box: Container) -> None:
    said = box.ask(
        """
os.environ["GREETING"] = "hello"
raise SystemExit(execute(spec("sh", "-c", 'echo "$GREETING|$1|$2"; pwd', "sh", "a b", "", cwd=HERE)))
"""
    )
    assert said == f"hello|a b|\n{box.path}\n"


# What it sees --------------------------------------------------------------------------------------------------------

LOOK = """
import json, os, socket
def read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return None
print(json.dumps({
    "name": socket.gethostname(),
    "files": [read("/etc/" + name) for name in ("hostname", "hosts", "resolv.conf")],
    "interfaces": sorted(os.listdir("/sys/class/net")),
    "cgroup": sorted(os.listdir("/sys/fs/cgroup")),
    "namespaces": {kind: os.readlink("/proc/self/ns/" + kind) for kind in ("net", "mnt", "uts", "pid", "user")},
    "mounts": read("/proc/self/mountinfo"),
    "status": dict(line.split(":", 1) for line in read("/proc/self/status").splitlines()),
    "fds": len(os.listdir("/proc/self/fd")) - 1,
}))
"""
SPAWN_LOOK = f"raise SystemExit(execute(spec({PYTHON!r}, '-c', {LOOK!r})))"


def look_here() -> dict[str, object]:
    """What this process sees."""
    found: dict[str, object] = json.loads(subprocess.check_output([PYTHON, "-c", LOOK]))
    return found


def test_it_sees_its_own_name_files_and_network_and_the_host_keeps_its_own(box: Container) -> None:
    before = look_here()
    inside = json.loads(box.ask(SPAWN_LOOK))
    assert inside["name"] == "inside"
    assert inside["files"] == ["inside\n", "10.77.0.5\tinside\n", "nameserver 10.77.0.1\n"]
    assert inside["namespaces"]["net"] == f"net:[{os.stat(box.netns).st_ino}]"
    for kind in ("net", "mnt", "uts"):
        assert inside["namespaces"][kind] != os.readlink(f"/proc/self/ns/{kind}")
    for kind in ("pid", "user"):
        assert inside["namespaces"][kind] == os.readlink(f"/proc/self/ns/{kind}")
    after = look_here()
    for key in ("name", "files", "interfaces", "cgroup", "mounts"):
        assert after[key] == before[key]


def test_sys_shows_its_own_interfaces_and_the_hosts_cgroups(
    box: Container, tool: Callable[[str], str]
) -> None:
    spec = Spec((), box.netns)
    link = [tool("ip"), "link", "add", "own0", "type", "veth", "peer", "name", "own1"]
    subprocess.run(link, check=True, preexec_fn=enter(spec))
    inside = json.loads(box.ask(SPAWN_LOOK))
    listed = subprocess.check_output([tool("ip"), "-j", "link"], preexec_fn=enter(spec))
    assert inside["interfaces"] == sorted(link["ifname"] for link in json.loads(listed))
    assert "own0" in inside["interfaces"]
    here = look_here()
    assert "own0" not in here["interfaces"]  # type: ignore[operator]
    assert inside["cgroup"] == here["cgroup"]
    assert inside["cgroup"]


def test_no_mount_reaches_the_host_but_the_hosts_later_ones_reach_it(box: Container) -> None:
    # A host whose mounts are shared, as systemd makes them: the worst case.
    said = box.ask(
        """
libc.unshare(libc.CLONE_NEWNS)
libc.mount("none", "/", flags=libc.MS_REC | libc.MS_PRIVATE)
libc.mount("none", "/", flags=libc.MS_REC | libc.MS_SHARED)
os.mkdir(HERE + "/later")
def mounts():
    return open("/proc/self/mountinfo").read()
before = mounts()
script = "grep -q ' / .* master:' /proc/self/mountinfo && grep -c resolv.conf /proc/self/mountinfo; read x; ls $1; exit 5"
read, write = os.pipe()
os.dup2(read, 0)
process = spawn(spec("sh", "-c", script, "sh", HERE + "/later"))
tell(before == mounts())
process.go()
tell(before == mounts())
libc.mount("tmpfs", HERE + "/later", "tmpfs")
open(HERE + "/later/seen", "w")
os.write(write, b"go on\\n")
tell(supervise(process))
libc.umount(HERE + "/later")
tell(before == mounts())
"""
    )
    assert sorted(said.splitlines()) == sorted(["True", "True", "1", "seen", "5", "True"])


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        ("os.symlink('../run/stub', ETC + '/resolv.conf')", ["hosts", "resolv.conf"]),
        ("os.symlink('../run/nowhere', ETC + '/resolv.conf')", ["hosts", "warning"]),
        ("None", ["hosts", "warning"]),
        ("os.mkdir(ETC + '/resolv.conf')", ["hosts", "warning"]),
    ],
)
def test_a_resolv_conf_that_is_a_link_or_missing_on_the_host(
    box: Container, make: str, expected: list[str]
) -> None:
    said = box.ask(
        f"""
libc.unshare(libc.CLONE_NEWNS)
libc.mount("none", "/", flags=libc.MS_REC | libc.MS_PRIVATE)
ETC = HERE + "/etc"
os.mkdir(ETC)
open(ETC + "/hosts", "w").write("the host's")
libc.mount("tmpfs", "/run", "tmpfs")
open("/run/stub", "w").write("the host's")
{make}
libc.mount(ETC, "/etc", flags=libc.MS_BIND)
before = sorted(os.listdir("/etc")), os.listdir("/run")
process = spawn(spec("sh", "-c", "cat /etc/hosts; cat /etc/resolv.conf 2>/dev/null"))
process.go()
supervise(process)
tell(process.warnings)
tell(before == (sorted(os.listdir("/etc")), os.listdir("/run")), open("/run/stub").read())
"""
    )
    *files, warnings, untouched = said.splitlines()
    texts = {"10.77.0.5\tinside": "hosts", "nameserver 10.77.0.1": "resolv.conf"}
    found = [texts[line] for line in files]
    found += ["warning"] if "/etc/resolv.conf is not given" in warnings else []
    assert found == expected
    assert "hostname" not in warnings  # the host has none either, and nobody misses it
    assert untouched == "True the host's"


def test_in_host_mode_no_namespace_is_entered(box: Container) -> None:
    said = box.ask(f"raise SystemExit(execute(Spec(({PYTHON!r}, '-c', {LOOK!r}))))")
    inside, here = json.loads(said), look_here()
    for key in ("name", "files", "interfaces", "namespaces", "mounts"):
        assert inside[key] == here[key]


def test_subprocess_can_run_in_a_container(box: Container) -> None:
    entry = enter(Spec((), box.netns, str(box.files), "inside"))
    inside = json.loads(subprocess.check_output([PYTHON, "-c", LOOK], preexec_fn=entry))
    entry.close()
    assert inside["name"] == "inside"
    assert inside["interfaces"] == ["lo"]
    assert inside["files"][0] == "inside\n"
    assert inside["fds"] == 3


# What is wrong with the ask is said before anything runs --------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"command": ()}, RequestError, "is empty"),
        ({"command": ("",)}, RequestError, "is empty"),
        ({"command": ("a\0b",)}, RequestError, "NUL"),
        ({"netns": "/no/such/namespace"}, RequestError, "open namespace /no/such/namespace: No such file"),
        ({"netns": "/proc/self/ns/uts"}, RequestError, "is not a network namespace"),
        ({"cwd": "/no/such/directory"}, RequestError, "working directory /no/such/directory"),
        ({"directory": "/no/such/directory"}, StateError, "/no/such/directory/hostname is not there"),
        ({"log": "/no/such/directory/log"}, StateError, "open /no/such/directory/log"),
    ],
)
def test_a_wrong_spec_is_refused_before_the_fork(
    box: Container, change: dict[str, object], error: type[Exception], words: str
) -> None:
    before = os.listdir("/proc/self/fd")
    spec = Spec(("true",), box.netns, str(box.files), "inside").replace(**change)
    with pytest.raises(error, match=words):
        spawn(spec)
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize("detached", [False, True])
def test_what_the_kernel_refuses_the_child_is_said_by_the_parent(box: Container, detached: bool) -> None:
    said = box.ask(
        f"""
try:
    run(spec("true", hostname="n" * 65), lambda process: tell("started"), lambda status: tell("ended"), {detached})
except Exception as error:
    tell(type(error).__name__, error.errno, error)
"""
    )
    assert said == f"KernelRefused 22 set the host name {'n' * 65}: EINVAL: Invalid argument\n"
    assert not box.inhabitants()


def test_what_is_refused_under_subprocess_fails_too(box: Container) -> None:
    with pytest.raises(subprocess.SubprocessError):
        subprocess.run(["true"], preexec_fn=enter(Spec((), hostname="n" * 65)), check=True)


# Before it executes anything -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("hoards", [False, True])
def test_if_its_starter_dies_first_it_never_executes(box: Container, detached: bool, hoards: bool) -> None:
    driver = box.drive(
        f"""
touch = spec("touch", HERE + "/executed", log=HERE + "/log")
on_exit = lambda status: open(HERE + "/ended", "w").close()
process = detach(touch, on_exit) if {detached} else spawn(touch)
# Somebody else who holds all that the starter held, so that no pipe ends with it.
hoarder = os.fork() if {hoards} else 1
if hoarder == 0:
    signal.pause()
tell(process.pid, parent_of(process.pid) if {detached} else 0, hoarder)
signal.pause()
"""
    )
    pid, supervisor, hoarder = map(int, driver.talk.line().split())
    assert is_alive(pid, start_time_of(pid))
    try:
        driver.popen.kill()
        await_end(pid)
        if supervisor:
            await_end(supervisor)
    finally:
        if hoarder > 1:
            kill(hoarder)
    assert not (box.path / "executed").exists()
    assert not (box.path / "ended").exists()


@pytest.mark.parametrize("detached", [False, True])
def test_an_error_before_the_word_surfaces_and_nothing_is_executed(box: Container, detached: bool) -> None:
    said = box.ask(
        f"""
def on_started(process):
    global started
    started = process.pid, parent_of(process.pid)
    raise LookupError("no record of it")
try:
    run(spec("touch", HERE + "/executed"), on_started,
        lambda status: open(HERE + "/ended", "w").close(), {detached})
except LookupError as error:
    tell(error, *started)
"""
    )
    *words, pid, supervisor = said.split()
    assert words == ["no", "record", "of", "it"]
    assert not is_alive(int(pid), start_time_of(int(pid)))
    await_end(int(supervisor))
    assert not (box.path / "executed").exists()
    assert not (box.path / "ended").exists()


@pytest.mark.parametrize("detached", [False, True])
def test_one_that_is_killed_before_the_word_is_an_error(box: Container, detached: bool) -> None:
    said = box.ask(
        f"""
def on_started(process):
    pidfd = os.pidfd_open(process.pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    __import__("select").select([pidfd], [], [])
try:
    run(spec("true"), on_started, lambda status: tell("ended", status), {detached})
except Exception as error:
    tell(type(error).__name__, error)
"""
    )
    assert said.startswith("ended 5\nKernelRefused start true: ESRCH: killed before it began")


def test_while_it_waits_it_holds_nothing_that_exec_would_close(box: Container) -> None:
    said = box.ask(
        """
held = open(HERE + "/held", "w")
process = spawn(spec("true"))
fds = [os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{process.pid}/fd")]
process.abort()
tell(HERE + "/held" in fds, sum(fd.startswith("pipe:") for fd in fds), fds.count("anon_inode:[pidfd]"))
""",
        stdin=subprocess.DEVNULL,
    )
    # Our standard output and standard error are the third and the fourth.
    assert said == "False 4 1\n"


def test_two_that_wait_do_not_hold_each_other_up(box: Container) -> None:
    said = box.ask(
        """
one, two = spawn(spec("echo", "one")), spawn(spec("echo", "two"))
one.go()
tell(supervise(one))
two.abort()
two.abort()
tell(__import__("threading").active_count())
""",
    )
    assert said == "one\n0\n1\n"


# What it inherits ----------------------------------------------------------------------------------------------------


def signals_in(mask: str) -> set[int]:
    """Read a mask of /proc/PID/status; without the C library's own two, which its posix_spawn leaves ignored."""
    return {number for number in signal.valid_signals() if int(mask, 16) >> number - 1 & 1}


@pytest.mark.parametrize("detached", [False, True])
def test_it_starts_with_clean_signals_but_for_what_nohup_asks(box: Container, detached: bool) -> None:
    body = f"""
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
status = run(spec({PYTHON!r}, '-I', '-S', '-c', 'print(open("/proc/self/status").read())', log=LOG),
    nothing, lambda status: None, {detached})
raise SystemExit(status)
"""
    log = str(box.path / "log") if detached else ""
    arguments = box.script(body.replace("LOG", repr(log)))
    environ = os.environ | {"PYTHONPATH": str(SOURCE)}
    script = 'trap "" HUP; exec "$@"'
    driver = subprocess.run(
        ["sh", "-c", script, "sh", *arguments],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    said = driver.stdout
    if detached:
        while inhabitants := box.inhabitants():
            await_end(inhabitants[0])
        said = Path(log).read_text()
    status = dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)
    assert int(status["SigBlk"], 16) == 0
    by_python = {signal.SIGPIPE, signal.SIGXFSZ}  # the reader is Python, which ignores these
    assert signals_in(status["SigIgn"]) - by_python == (set() if detached else {signal.SIGHUP})


def test_what_python_ignores_is_not_ignored_inside(box: Container) -> None:
    said = box.ask("raise SystemExit(execute(spec('grep', 'SigIgn', '/proc/self/status')))")
    assert signals_in(said.split()[1]) == set()


def test_standard_input_passes_and_descriptors_that_were_passed_on_purpose(box: Container) -> None:
    read, write = os.pipe()
    os.write(write, b"from the third\n")
    os.close(write)
    driver = box.drive(
        f"raise SystemExit(execute(spec('sh', '-c', 'cat; cat /dev/fd/{read}')))",
        stdin=subprocess.PIPE,
        pass_fds=[read],
    )
    os.close(read)
    said, _ = driver.popen.communicate(b"from standard input\n", timeout=20)
    assert said.decode() == "from standard input\nfrom the third\n"


def test_closed_standard_streams_do_no_harm(box: Container) -> None:
    body = "raise SystemExit(run(spec('sh', '-c', 'cat; echo to nobody; exit 6'), nothing, nothing, False))"
    closed = subprocess.run(
        ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *box.script(body)],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        timeout=20,
        check=False,
    )
    assert closed.returncode == 6


# Stopping ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", [PIDFD_SIGNAL_PROCESS_GROUP, 1 << 20])
def test_stop_ends_the_whole_group_and_who_left_it(
    box: Container, fifo: Fifo, monkeypatch: pytest.MonkeyPatch, flag: int
) -> None:
    # 1 << 20: a kernel that does not know the flag answers as it does to this one.
    monkeypatch.setattr("vethwork.process.spawn.PIDFD_SIGNAL_PROCESS_GROUP", flag)
    pid, start_time, supervisor = start_detached(
        box,
        "trap '' TERM; sleep 1000 & deaf=$!; setsid sleep 1000 & left=$!; trap - TERM; "
        f"echo $deaf $left >{fifo.path}; wait",
    )
    deaf, left = map(int, fifo.line().split())
    assert set(box.inhabitants()) == {pid, deaf, left}
    assert stop(pid, start_time, 20)
    await_end(supervisor)
    assert (box.path / "status").read_text() == "143"
    assert not box.inhabitants()
    assert not stop(pid, start_time, 20)


def test_one_that_ignores_the_wish_is_killed_after_the_grace(box: Container, fifo: Fifo) -> None:
    pid, start_time, supervisor = start_detached(
        box, f"trap '' TERM; echo >{fifo.path}; sleep 1000; sleep 1000"
    )
    assert fifo.line() == ""
    assert stop(pid, start_time, 0.05)
    await_end(supervisor)
    assert (box.path / "status").read_text() == "137"
    assert not box.inhabitants()


def test_one_that_is_stopped_hears_the_wish_to_end(box: Container, fifo: Fifo) -> None:
    pid, start_time, supervisor = start_detached(
        box, f"trap 'exit 5' TERM; sleep 1000 & echo >{fifo.path}; wait"
    )
    assert fifo.line() == ""
    os.kill(pid, signal.SIGSTOP)
    assert stop(pid, start_time, 20)
    await_end(supervisor)
    assert (box.path / "status").read_text() == "5"


def test_one_without_a_supervisor_is_stopped_with_its_group(box: Container, fifo: Fifo) -> None:
    pid, start_time, supervisor = start_detached(
        box, f"trap '' TERM; sleep 1000 & trap - TERM; echo $! >{fifo.path}; wait"
    )
    deaf = int(fifo.line())
    kill(supervisor)
    assert stop(pid, start_time, 20)
    await_end(deaf)
    assert not box.inhabitants()


def test_one_in_the_foreground_is_stopped_alone(box: Container) -> None:
    driver = box.drive(f"raise SystemExit(execute(spec({LISTEN})))", start_new_session=True)
    _, pid, *_ = driver.talk.line().split()
    assert stop(int(pid), start_time_of(int(pid)), 20)
    assert driver.rest().split() == ["SIGTERM"] or driver.popen.returncode == 9
    assert driver.wait() == 9  # not by a signal: the driver is in the same group


def test_an_id_that_was_used_again_gets_no_signal(box: Container) -> None:
    driver = box.drive(f"raise SystemExit(execute(spec({LISTEN})))", start_new_session=True)
    _, text, *_ = driver.talk.line().split()
    pid = int(text)
    start_time = start_time_of(pid)
    assert is_alive(pid, start_time)
    assert not is_alive(pid, start_time + 1)
    assert not stop(pid, start_time + 1, 0)
    os.kill(driver.pid, signal.SIGUSR1)
    assert driver.talk.line() == "SIGUSR1"


def test_who_has_ended_is_not_alive_even_if_nobody_waited() -> None:
    child = subprocess.Popen(["true"])
    try:
        await_end(child.pid)
        start_time = start_time_of(child.pid)
        assert start_time > 0
        assert not is_alive(child.pid, start_time)
    finally:
        child.wait()
    assert not is_alive(child.pid, start_time)
    assert not is_alive(0, 0)
    assert not is_alive(-1, 0)
    assert start_time_of(child.pid) == parent_of(child.pid) == 0
    assert not stop(child.pid, start_time, 0)
    assert not stop(0, 0, 0)


def test_what_may_not_be_forked_is_said(box: Container) -> None:
    said = box.ask(
        """
import resource
process = None
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 3,) * 2)
for start in (spawn, lambda spec: detach(spec, nothing)):
    try:
        start(Spec(("true",)))
    except Exception as error:
        tell(type(error).__name__, error)
"""
    )
    assert said == "KernelRefused make the pipes to a process: EMFILE: Too many open files\n" * 2
    assert KernelRefused.exit_status == 5
