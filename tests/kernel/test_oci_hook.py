"""The OCI hook against the kernel, where no runtime is needed: processes that linger, are killed, or whose id is another's."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.heard import Heard
from vethwork.frontends.oci.main import run
from vethwork.kernel import libc
from vethwork.testing.lab import Lab
from vethwork.testing.machine import SOURCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LAUNCHER = f"import sys; sys.path.append({SOURCE!r}); from vethwork.launch import oci; oci()"
SLEEP = [sys.executable, "-IS", "-c", "import time; time.sleep(600)"]


@pytest.fixture
def lab(tool: Callable[[str], str]) -> Iterator[Lab]:
    tool("ip")
    with Lab() as made:
        yield made


def state(status: str, pid: int, **wishes: str) -> str:
    """What a runtime says."""
    annotations = {f"io.vethwork.{key}": value for key, value in wishes.items()}
    return json.dumps({"id": "web", "status": status, "pid": pid, "annotations": annotations})


def hook(lab: Lab, data: str, *words: str) -> Heard:
    """One call on the host."""

    def call() -> Heard:
        out, err = io.StringIO(), io.StringIO()
        return Heard(run(words, {}, io.BytesIO(data.encode()), out, err), out.getvalue(), err.getvalue())

    return lab.host.call(call)


def containers(lab: Lab) -> list[dict[str, Any]]:
    """Who is on record."""
    found: list[dict[str, Any]] = json.loads(lab.host.vethwork("ps", "--json").stdout)
    return found


def process_in(lab: Lab) -> subprocess.Popen[str]:
    """A process in a namespace of its own that nothing else holds, as a runtime makes it."""

    def start() -> subprocess.Popen[str]:
        libc.unshare(libc.CLONE_NEWNET)
        return subprocess.Popen(SLEEP, text=True, start_new_session=True)

    # The thread that the process is started from has left the host, and ends.
    return lab._processes.start(lambda: lab.host.inside(start))


def test_a_life(lab: Lab) -> None:
    process = process_in(lab)
    assert hook(lab, state("creating", process.pid, publish="8080:80")) == Heard(0, "", "")
    (seen,) = containers(lab)
    assert (seen["name"], seen["owner"], seen["netns"]) == ("web", "oci", f"/proc/{process.pid}/ns/net")
    second = hook(lab, state("created", process.pid))
    assert second.status == 1
    assert "there is a container of that name" in second.err
    process.kill()
    process.wait()
    for _ in range(2):
        assert hook(lab, state("stopped", 0)) == Heard(0, "", "")
    assert containers(lab) == []


def test_a_process_that_lingers_is_waited_for(lab: Lab) -> None:
    process = process_in(lab)
    assert hook(lab, state("created", process.pid)).status == 0
    detaching = lab.host.popen(
        [sys.executable, "-IS", "-c", LAUNCHER, "detach"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert detaching.stdin is not None
    detaching.stdin.write(state("stopped", 0))
    detaching.stdin.close()
    detaching.stdin = None
    with pytest.raises(subprocess.TimeoutExpired):
        detaching.wait(0.5)
    process.kill()
    process.wait()
    assert detaching.communicate(timeout=10) == ("", "")
    assert detaching.returncode == 0
    assert containers(lab) == []


def test_what_lives_is_left_alone(lab: Lab) -> None:
    process = process_in(lab)
    assert hook(lab, state("created", process.pid)).status == 0
    heard = hook(lab, state("stopped", 0))
    assert heard.status == 1
    assert heard.err.startswith("vethwork-oci: detach web: it lives, so its network stays")
    assert len(containers(lab)) == 1
    process.kill()
    process.wait()
    assert hook(lab, state("stopped", 0)).status == 0


def test_a_process_id_that_is_another_s_by_now(lab: Lab) -> None:
    """The same number leads to another namespace, in which there is an eth0 too: it must be left as it is."""
    told, tell = os.pipe()
    heard, say = os.pipe()

    def move_on() -> None:
        libc.unshare(libc.CLONE_NEWNET)
        os.write(say, b".")
        os.read(told, 1)
        libc.unshare(libc.CLONE_NEWNET)
        subprocess.run(["ip", "link", "add", "eth0", "type", "veth", "peer", "eth1"], check=True)
        os.write(say, b".")
        os.read(told, 1)
        subprocess.run(["ip", "-o", "link", "show", "eth0"], check=True, stdout=subprocess.DEVNULL)

    process = lab.host.start(move_on)
    assert os.read(heard, 1) == b"."
    assert hook(lab, state("created", process.pid, publish="8080:80")).status == 0
    os.write(tell, b".")
    assert os.read(heard, 1) == b"."
    assert hook(lab, state("stopped", 0)) == Heard(0, "", "")
    assert containers(lab) == []
    os.write(tell, b".")
    process.result(10)
    for end in (told, tell, heard, say):
        os.close(end)


def test_containers_of_other_front_ends_are_left_alone(lab: Lab) -> None:
    box = lab.container("box")
    lab.host.vethwork("attach", "web", "--netns", box.path)
    process = process_in(lab)
    assert "there is a container of that name" in hook(lab, state("created", process.pid)).err
    assert hook(lab, state("stopped", 0)) == Heard(0, "", "")
    (seen,) = containers(lab)
    assert seen["owner"] == "cli"
    lab.host.vethwork("detach", "web")
    process.kill()


def test_a_hook_that_is_killed_is_undone_by_poststop(lab: Lab) -> None:
    """A runtime kills a hook that takes too long (config.md, "timeout"), then the container."""
    process = process_in(lab)
    data = state("created", process.pid, publish="8080:80").encode()

    def attach_and_die() -> None:
        from vethwork.engine.engine import Engine

        def die(milestone: object) -> None:
            if "CreateVeth" in type(milestone).__name__:
                os.kill(os.getpid(), signal.SIGKILL)

        streams = io.BytesIO(data), io.StringIO(), io.StringIO()
        run(["attach"], {}, *streams, engines=lambda: Engine(watch=die))

    with pytest.raises(ChildProcessError):
        lab.host.call(attach_and_die)
    process.kill()
    process.wait()
    assert hook(lab, state("stopped", 0)) == Heard(0, "", "")
    assert containers(lab) == []
    listed = lab.host.run(["ip", "-o", "link"]).stdout
    assert "vw" not in listed


def test_no_environment_and_no_streams(lab: Lab) -> None:
    """A hook may be started with an empty environment, and with its streams closed."""
    command = f"exec {sys.executable} -IS -c {LAUNCHER!r} detach <&- >&- 2>&-"
    done = lab.host.run(["env", "-i", "/bin/sh", "-c", command], check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
