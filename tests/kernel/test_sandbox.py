"""The library's face: a sandbox lives as long as its block, however the block ends."""

from __future__ import annotations

import doctest
import os
import signal
from typing import TYPE_CHECKING

import pytest

import vethwork
from vethwork import sandbox
from vethwork.errors import ConflictError, RequestError

if TYPE_CHECKING:
    from vethwork.testing.lab import Lab


def names(lab: Lab) -> list[str]:
    """Who is on record on the lab's host."""

    def look() -> list[str]:
        with vethwork.Engine() as engine:
            return [str(container.name) for container in engine.containers()]

    return lab.host.call(look)


def links(lab: Lab) -> set[str]:
    """The links of the lab's host, less the default network's bridge, which stays."""
    said = lab.host.run(["ip", "-brief", "link"]).stdout
    return {line.split()[0].partition("@")[0] for line in said.splitlines()} - {"vethwork0"}


def test_the_example_of_its_docstring_is_true(lab: Lab) -> None:
    def run_example() -> tuple[int, int]:
        result = doctest.testmod(sandbox, verbose=False)
        return result.failed, result.attempted

    failed, attempted = lab.host.call(run_example)
    assert attempted > 1
    assert failed == 0


def test_it_serves_the_neighbour_and_is_gone_with_its_block(lab: Lab) -> None:
    before = links(lab)

    def serve() -> tuple[int, str, str]:
        with vethwork.Sandbox(
            publish=["8080:80"], name="box", hosts={"db": "10.9.9.9"}, dns=["9.9.9.9"]
        ) as box:
            inside = lab.at(box.inspect().container.netns, "inside")
            inside.serve_http(80)
            child = box.popen(["sleep", "infinity"])
            files = box.run(["cat", "/etc/hosts", "/etc/resolv.conf"], capture_output=True, text=True).stdout
            seen = lab.neighbour.connect(lab.host.v4, 8080)
            box.publish("8081:80")
            assert lab.neighbour.reaches(lab.host.v4, 8081)
            box.unpublish("8081:80")
            assert not lab.neighbour.reaches(lab.host.v4, 8081, timeout=0.4)
        assert child.returncode == -signal.SIGKILL
        return child.pid, files, seen.peer

    pid, files, peer = lab.host.call(serve)
    assert "10.9.9.9\tdb" in files
    assert "nameserver 9.9.9.9" in files
    assert peer == lab.neighbour.v4
    assert not os.path.exists(f"/proc/{pid}")
    assert names(lab) == []
    assert links(lab) == before


def test_an_exception_in_the_block_comes_through_and_nothing_stays(lab: Lab) -> None:
    before = links(lab)

    def fail() -> None:
        with vethwork.Sandbox(["bridge"], publish=["80"]) as box:
            assert box.ports["80/tcp"] >= 49152
            raise LookupError("in the block")

    with pytest.raises(LookupError, match="in the block"):
        lab.host.call(fail)
    assert names(lab) == []
    assert links(lab) == before


def test_one_whose_process_was_killed_is_removed_by_the_next_ps(lab: Lab) -> None:
    before = links(lab)

    def be_killed() -> None:
        with vethwork.Sandbox(name="orphan"):
            os.kill(os.getpid(), signal.SIGKILL)

    killed = lab.host.start(be_killed)
    with pytest.raises(Exception):  # noqa: B017, PT011
        killed.result(20)
    assert names(lab) == ["orphan"]
    assert "orphan" not in lab.host.vethwork("ps").stdout
    assert names(lab) == []
    assert links(lab) == before


def test_what_is_wrong_is_refused_before_or_at_the_door(lab: Lab) -> None:
    with pytest.raises(RequestError):
        vethwork.Sandbox(publish=["http"])
    with pytest.raises(RuntimeError, match="not entered"):
        vethwork.Sandbox().addresses  # noqa: B018

    def enter_twice() -> None:
        with vethwork.Sandbox(name="same"), vethwork.Sandbox(name="same"):
            pass

    with pytest.raises(ConflictError, match="same"):
        lab.host.call(enter_twice)
    assert names(lab) == []
