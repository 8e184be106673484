"""A detach that need not wait: nothing passes any more when it comes back, and the kernel's part follows, whatever happens."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.fault.world import request
from tests.kernel.stage import eventually
from vethwork.engine import reaper
from vethwork.engine.engine import Engine
from vethwork.engine.reaper import Reaper, detach_all
from vethwork.model.names import Name
from vethwork.model.network import NetworkRequest
from vethwork.model.steps import LINK_GROUP, RETIRED_GROUP
from vethwork.store.locks import Locks

if TYPE_CHECKING:
    from typing import Any

    from tests.kernel.stage import Stage


def patience(seconds: float) -> None:
    """Let reapers of this process wait that long for more."""
    reaper.QUIET_SECONDS = reaper.LONGEST_SECONDS = seconds


def links(stage: Stage) -> dict[int, list[dict[str, Any]]]:
    """The links of ours on the host, less bridges, by their group."""
    found = json.loads(stage.host.run(["ip", "-j", "-d", "link"]).stdout)
    veths = [link for link in found if link.get("linkinfo", {}).get("info_kind") == "veth"]
    return {
        group: [link for link in veths if link["group"] == str(group)]
        for group in (LINK_GROUP, RETIRED_GROUP)
    }


def test_nothing_passes_any_more_before_the_link_is_deleted(stage: Stage) -> None:
    def left() -> tuple[bool, bool, dict[int, int], list[str]]:
        patience(600)
        with Engine() as engine:
            engine.create_network(NetworkRequest(Name("blue")))
            web, other = (engine.attach(request(name, port, nets=("blue",))) for name, port in WISHES)
            inside = stage.lab.at(web.container.netns, "web")
            inside.serve_http(80)
            beside = stage.lab.at(other.container.netns, "beside")
            to = str(web.endpoints[0].addresses[0].address)
            assert stage.lab.neighbour.reaches(stage.host.v4, 8080)
            assert beside.ping(to)
        last = Reaper(engine.root, engine.run)
        with Engine(reaper=last) as engine:
            engine.detach("web", wait=False)
            reached = stage.lab.neighbour.reaches(stage.host.v4, 8080, timeout=0.3)
            answered = beside.ping(to, timeout=0.3)
            states = {group: len(found) for group, found in links(stage).items()}
            assert all(link["operstate"] == "DOWN" for link in links(stage)[RETIRED_GROUP])
            last.close()
            return reached, answered, states, [each.name for each in engine.containers()]

    assert stage.host.call(left) == (False, False, {LINK_GROUP: 1, RETIRED_GROUP: 1}, ["other"])
    assert {group: len(found) for group, found in links(stage).items()} == {LINK_GROUP: 1, RETIRED_GROUP: 0}
    stage.do("rm", "other")
    assert links(stage) == {LINK_GROUP: [], RETIRED_GROUP: []}


WISHES = (("web", "8080:80"), ("other", "8081:80"))


def test_who_comes_back_or_wants_the_network_waits_no_longer_than_it_takes(stage: Stage) -> None:
    """The reaper would wait ten minutes for more; both of these hurry it."""

    def come_back() -> tuple[list[str], list[str]]:
        patience(600)
        with Engine() as engine:
            engine.create_network(NetworkRequest(Name("blue")))
            last = Reaper(engine.root, engine.run)
        with Engine(reaper=last) as engine:
            first = engine.attach(request("web", "8080:80", nets=("blue",)))
            engine.detach("web", wait=False)
            second = engine.attach(
                request("web", "8080:80", nets=("blue",), ip=str(first.endpoints[0].addresses[0].address))
            )
            engine.detach("web", wait=False)
            engine.attach(
                request("other", "8080:80", nets=("blue",))
            )  # the port is still web's, for a moment
            engine.create_network(NetworkRequest(Name("red")))
            last.close()
            names = [str(each.name) for each in engine.networks()]
        return [str(each.endpoints[0].mac) for each in (first, second)], names

    macs, names = stage.host.call(come_back, 20)
    assert macs[0] == macs[1]
    assert names == ["blue", "red"]


def test_the_next_command_finishes_for_a_reaper_that_was_killed(stage: Stage) -> None:
    own = stage.lab.container(
        "own"
    ).path  # with one of ours the link would go by itself, as its namespace does

    def die() -> None:
        patience(600)
        with Engine() as engine:
            engine.create_network(NetworkRequest(Name("blue")))
            engine.attach(request("web", "8080:80", nets=("blue",), netns=own))
            engine.attach(request("other", nets=("blue",)))
            last = Reaper(engine.root, engine.run)
        with Engine(reaper=last) as engine:
            engine.detach("web", wait=False)
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(ChildProcessError, match="ended without a result"):
        stage.host.start(die).result(20)
    assert len(links(stage)[RETIRED_GROUP]) == 1
    stage.do("detach", "other")
    assert links(stage) == {LINK_GROUP: [], RETIRED_GROUP: []}
    assert json.loads(stage.do("ps", "--json")) == []
    assert "web" not in stage.do("doctor")


def test_a_command_detaches_several(stage: Stage) -> None:
    for name in ("one", "two", "three"):
        stage.do("attach", name, "--netns", stage.lab.container(name).path)
    stage.do("detach", "one", "nobody", "three")
    assert [each["name"] for each in json.loads(stage.do("ps", "--json"))] == ["two"]
    assert len(links(stage)[LINK_GROUP]) == 1
    assert links(stage)[RETIRED_GROUP] == []


def test_many_are_detached_at_once(stage: Stage) -> None:
    def come_and_go() -> tuple[int, list[int]]:
        open_files: list[int] = []
        with Engine() as engine:
            engine.create_network(NetworkRequest(Name("blue")))
            for _ in range(3):
                names = [f"c{number}" for number in range(10)]
                for number, name in enumerate(names):
                    engine.attach(request(name, f"{9000 + number}:80", nets=("blue",)))
                detach_all(engine, [*names, "nobody"])
                open_files.append(len(os.listdir("/proc/self/fd")))
            return len(engine.containers()), open_files

    left, open_files = stage.host.call(come_and_go, 30)
    assert left == 0
    # SQLite keeps a descriptor of a file for later while another of the process is locked: one, not one each time.
    assert open_files[1] == open_files[2]
    assert links(stage) == {LINK_GROUP: [], RETIRED_GROUP: []}


def test_a_network_that_goes_keeps_no_detach_waiting(stage: Stage) -> None:
    """Who removes a network waits for all who share the world, and who is left to the reaper shares it until he is reaped."""
    paths = {name: stage.lab.container(name).path for name in ("one", "two")}

    def both_go() -> list[str]:
        patience(0)
        with Engine() as engine:
            engine.create_network(NetworkRequest(Name("goes"), transient=True))
            engine.create_network(NetworkRequest(Name("stays")))
            engine.attach(request("one", nets=("goes",), netns=paths["one"]))
            engine.attach(request("two", nets=("stays",), netns=paths["two"]))
            with Reaper(engine.root, engine.run) as last, Engine(reaper=last) as prompt:
                with Locks(f"{engine.root}/locks") as held:
                    held.world(exclusive=False)
                    prompt.detach("one", wait=False)
                    assert eventually(lambda: engine.store.container("one") is None)
                    prompt.detach("two", wait=False)
                    assert eventually(lambda: engine.store.container("two") is None)
                assert eventually(lambda: engine.store.network("goes") is None)
            return [str(each.name) for each in engine.networks()]

    assert stage.host.call(both_go, 40) == ["stays"]
