"""The command line where its standard streams are closed, full, or nobody reads them; and where nobody is root."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.kernel.stage import eventually
from vethwork.testing.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vethwork.testing.machine import Machine

VETHWORK = f"{sys.executable} -m vethwork"


@pytest.fixture(scope="module")
def host(needs: None) -> Iterator[Machine]:
    """A host with two networks on it."""
    with Lab() as lab:
        for name in ("blue", "red"):
            assert lab.host.vethwork("network", "create", name).returncode == 0
        assert lab.host.vethwork("run", "-d", "--name", "box", "--", "echo", "hello").returncode == 0
        assert eventually(lambda: "exited" in lab.host.vethwork("ps").stdout)
        yield lab.host


def shell(host: Machine, command: str, unbuffered: str = "") -> tuple[int, str, str]:
    """What becomes of a command: its status, what it says, and what it complains about."""
    done = host.run(["sh", "-c", command], check=False, env={"PYTHONUNBUFFERED": unbuffered})
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("command", ["network ls", "network inspect blue", "logs box"])
def test_a_closed_stream_does_no_harm(host: Machine, command: str) -> None:
    said = shell(host, f"{VETHWORK} {command}")
    assert said[0] == 0
    assert shell(host, f"{VETHWORK} {command} <&- 2>&-") == said
    assert shell(host, f"{VETHWORK} {command} >&-") == (0, "", "")


def test_what_a_closed_stream_was_is_not_the_state_file(host: Machine) -> None:
    """Else what a container says would be written into it."""
    said = shell(
        host,
        f"{VETHWORK} run --rm --net none -- sh -c 'readlink /proc/self/fd/2; echo oops >&2; echo fine' 2>&-",
    )
    assert said[0] == 0
    assert said[1].splitlines()[-1] == "fine"
    assert shell(host, f"{VETHWORK} ps >&- 2>&-") == (0, "", "")
    assert shell(host, f"{VETHWORK} network ls --json")[0] == 0


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["network ls", "logs box", "run --dry-run -- true"])
def test_a_full_disk_behind_the_output_is_told(host: Machine, command: str, unbuffered: str) -> None:
    status, _, complaint = shell(host, f"{VETHWORK} {command} > /dev/full", unbuffered)
    assert (status, complaint.splitlines()[0]) == (
        74,
        "vethwork: write to standard output: No space left on device",
    )
    assert "internal" not in complaint
    assert "Exception ignored" not in complaint


@pytest.mark.parametrize("command", ["network ls", "network create new --dry-run"])
def test_nobody_reads_on(host: Machine, command: str) -> None:
    _, said, complaint = shell(host, f"{VETHWORK} {command} | head -1")
    assert len(said.splitlines()) == 1
    assert complaint == ""


def test_who_is_not_root_is_told_and_leaves_nothing(host: Machine) -> None:
    """Every command that needs it says so; what was begun is undone."""
    place = f"{os.path.dirname(host.environment['VETHWORK_ROOT'])}/nobody"
    os.makedirs(place)
    os.chown(place, 65534, 65534)
    for parent in (place, os.path.dirname(place), os.path.dirname(os.path.dirname(place))):
        os.chmod(parent, 0o755)
    places = f"VETHWORK_ROOT={place}/root VETHWORK_RUN={place}/run"
    nobody = f"{places} setpriv --reuid 65534 --regid 65534 --clear-groups {VETHWORK}"
    for command in ("run --net none -- true", "run -- true", "network create x", "gc"):
        status, said, complaint = shell(host, f"{nobody} {command}")
        assert (status, said) == (5, "")
        assert "EPERM" in complaint
        assert "it takes" in complaint
    assert shell(host, f"{nobody} ps")[1].count("\n") == 1
    assert os.listdir(f"{place}/run/netns") == []
    status, _, complaint = shell(
        host, f"VETHWORK_ROOT=/root/x setpriv --reuid 65534 --clear-groups {VETHWORK} ps"
    )
    assert (status, "it takes root" in complaint) == (6, True)
