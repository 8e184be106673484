"""The lab itself: what it is made of, what its tools say, and that nothing of it is left."""

from __future__ import annotations

import doctest
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vethwork.testing import lab as lab_module
from vethwork.testing.lab import Lab, mounts_below

if TYPE_CHECKING:
    from collections.abc import Callable

    from vethwork.testing.machine import Machine

BOTH = pytest.mark.parametrize("version", ["v4", "v6"])


def address(machine: Machine, version: str) -> str:
    return machine.v4 if version == "v4" else machine.v6


# The world ---------------------------------------------------------------------------------------------------------------


@BOTH
def test_the_neighbour_pings_the_host(lab: Lab, version: str, tool: Callable[[str], str]) -> None:
    assert lab.neighbour.ping(address(lab.host, version))
    lab.neighbour.run([tool("ping"), "-c1", "-W1", address(lab.host, version)])


@BOTH
def test_the_internet_and_the_host_reach_each_other(
    lab: Lab, version: str, tool: Callable[[str], str]
) -> None:
    assert lab.internet.ping(address(lab.host, version))
    lab.host.run([tool("ping"), "-c1", "-W1", address(lab.internet, version)])


@pytest.mark.parametrize("target", ["10.77.0.1", "fd00:77::1"])
def test_the_internet_has_no_way_to_containers(lab: Lab, target: str, tool: Callable[[str], str]) -> None:
    said = lab.internet.run([tool("ip"), "route", "get", target], check=False)
    assert "unreachable" in said.stderr
    assert not lab.internet.ping(target)


@pytest.mark.parametrize("inner", ["10.77.0.1/32", "fd00:77::1/128"])
def test_what_leaves_under_a_containers_address_gets_no_answer(lab: Lab, inner: str) -> None:
    """It does arrive: a lab shows a masquerade that is missing, it does not hide it."""
    lab.host.add_address(inner)
    source = inner.partition("/")[0]
    target = address(lab.internet, "v6" if ":" in inner else "v4")
    with lab.internet.tap() as tap:
        with pytest.raises((TimeoutError, ConnectionRefusedError)):
            lab.host.connect(target, 80, "udp", source=(source, 0), timeout=0.3)
        assert tap.wait_for(lambda frame: frame.to == target and frame.protocol == "udp").source == source


def test_the_other_wire_is_another_wire() -> None:
    with Lab(other_wire=True) as lab:
        assert lab.other_neighbour.ping("198.51.100.2")
        assert lab.other_neighbour.ping("2001:db8:3::2")
        assert not lab.other_neighbour.ping(lab.host.v4, timeout=0.2)
        assert [str(each) for each in lab.host.addresses] == [
            "192.0.2.2",
            "198.51.100.2",
            "2001:db8:1::2",
            "2001:db8:3::2",
        ]


def test_addresses_are_those_that_ip_shows(lab: Lab, tool: Callable[[str], str]) -> None:
    shown = json.loads(lab.host.run([tool("ip"), "-j", "addr", "show", "eth0"]).stdout)[0]
    assert {each["local"] for each in shown["addr_info"] if each["scope"] == "global"} == {
        lab.host.v4,
        lab.host.v6,
    }
    assert shown["address"] == str(lab.host.mac())


def test_a_container_is_bare(lab: Lab, tool: Callable[[str], str]) -> None:
    container = lab.container("web")
    links = json.loads(container.run([tool("ip"), "-j", "link"]).stdout)
    assert [(link["ifname"], link["operstate"]) for link in links if "UP" in link["flags"]] == []
    assert not container.ping("127.0.0.1")
    assert not container.ping(lab.host.v4)


# Nothing is touched, and nothing is left ---------------------------------------------------------------------------------


def machine_state(tool: Callable[[str], str]) -> list[str]:
    """What this very namespace looks like to the usual tools."""
    questions = ["ip -j link", "ip -j addr", "ip -j route", "ip -6 -j route", "ip netns", "nft list ruleset"]
    return [
        subprocess.run(
            [tool(words[0]), *words[1:]], capture_output=True, text=True, check=True, timeout=10
        ).stdout
        for words in map(str.split, questions)
    ]


def test_the_machines_own_network_is_not_touched(tool: Callable[[str], str]) -> None:
    before = machine_state(tool)
    with Lab(other_wire=True):
        assert machine_state(tool) == before
    assert machine_state(tool) == before


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_everything_is_gone_at_the_end() -> None:
    """Servers, a program that runs, and one that it left behind in a session of its own."""
    with Lab() as lab:
        directory = lab.directory
        lab.container("web")
        lab.host.serve_http(80)
        lab.host.serve_udp_echo(53)
        waiting = lab.host.start(signal.pause)
        program = lab.host.popen(["sleep", "1000"])
        left = int(lab.host.run(["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!"]).stdout)
        assert mounts_below(directory)
        assert is_running(left)
    assert not mounts_below(directory)
    assert not os.path.exists(directory)
    assert program.returncode == -signal.SIGKILL
    assert waiting.status == signal.SIGKILL
    assert not is_running(left) or b"Z" in Path(f"/proc/{left}/stat").read_bytes().split()[2:3]


def test_everything_is_gone_after_an_exception() -> None:
    directory = ""

    def fail() -> None:
        nonlocal directory
        with Lab() as lab:
            directory = lab.directory
            lab.host.popen(["sleep", "1000"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not mounts_below(directory)
    assert not os.path.exists(directory)


def test_a_lab_that_cannot_be_built_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setitem(lab_module.SYSCTLS, "ipv4/no_such_thing", "1")
    with pytest.raises(Exception, match="no_such_thing"), Lab():
        pass
    assert not mounts_below(str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_what_an_engine_pinned_is_unmounted(lab: Lab) -> None:
    pinned = f"{lab.host.environment['VETHWORK_RUN']}/netns/left"
    script = 'mkdir -p "${1%/*}" && touch "$1" && unshare --net="$1" true'
    lab.host.run(["sh", "-c", script, "sh", pinned])
    assert pinned in mounts_below(lab.directory)
    lab.close()
    assert not mounts_below(lab.directory)


def test_what_left_its_parents_without_executing_anything_is_ended_too() -> None:
    """As the supervisor of a detached container does that is started by a fork: it shows its first parent's environment."""

    def leave() -> int:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            while True:
                signal.pause()
        return pid

    with Lab() as lab:
        left = os.pidfd_open(lab.host.call(leave))
    ended, _, _ = select.select([left], [], [], 0)
    os.close(left)
    assert ended


def test_servers_end_with_who_started_them() -> None:
    """Even if that one is killed and can do nothing about it."""
    source = """
import os, signal, sys
from vethwork.testing.lab import Lab
from vethwork.testing.machine import Machine
from vethwork.kernel import libc
libc.unshare(libc.CLONE_NEWNS)
libc.mount("none", "/", flags=libc.MS_REC | libc.MS_PRIVATE)
lab = Lab().__enter__()
server = lab.host.serve_http(80)
print(server._child.pid, lab.directory, flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        pid, directory = program.stdout.readline().split()
        pidfd = os.pidfd_open(int(pid))
        program.kill()
    ended, _, _ = select.select([pidfd], [], [], 5)
    os.close(pidfd)
    shutil.rmtree(directory)
    assert ended


def test_the_examples_of_the_documentation() -> None:
    assert doctest.testmod(lab_module).failed == 0
