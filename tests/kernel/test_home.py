"""One state file and two network namespaces: what is on record of one is not touched from the other."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.fault.world import request
from tests.kernel.stage import Said, Stage, eventually, links
from vethwork import Engine, detach_all
from vethwork.errors import ConflictError
from vethwork.kernel import libc

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vethwork.testing.lab import Lab
    from vethwork.testing.machine import Machine

PORT = 8080
ROUNDS = 15
CHANGES = (
    "attach two --netns {netns}", "detach one", "publish one 8081:80", "unpublish one 8080:80", "rm one", "gc", "restore",
    "network create blue", "network rm bridge", "network connect bridge one", "detach one --dry-run", "serve",
)  # fmt: skip


@pytest.fixture
def stage(lab: Lab) -> Stage:
    """A lab whose host has a container with a published port."""
    stage = Stage(lab)
    stage.settle("one", "-p", f"{PORT}:80")
    return stage


def ask(stage: Stage, machine: Machine, command: str) -> Said:
    """Give a command on another machine, on the host's records."""
    places = {name: stage.host.environment[name] for name in ("VETHWORK_ROOT", "VETHWORK_RUN")}
    done = machine.vethwork(*command.split(), env=places, check=False)
    return Said(done.returncode, done.stdout, done.stderr)


def state(stage: Stage) -> str:
    return f"{stage.host.environment['VETHWORK_ROOT']}/state.db"


def is_served(stage: Stage) -> bool:
    try:
        with stage.lab.neighbour.dial(stage.host.v4, PORT) as dialog:
            return dialog.ask().name == "one"
    except OSError:
        return False


@contextmanager
def short_lived(stage: Stage) -> Iterator[Machine]:
    """A namespace that is gone at the end, with all its links."""
    machine = stage.lab.container("short-lived")
    machine.run(["ip", "link", "set", "lo", "up"])
    yield machine
    libc.umount(machine.path, libc.MNT_DETACH)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), machine.fd)  # which the lab closes


@pytest.mark.parametrize("command", CHANGES)
def test_nothing_is_changed_from_another_namespace(stage: Stage, command: str) -> None:
    elsewhere = stage.lab.neighbour
    before = set(links(elsewhere))
    said = ask(stage, elsewhere, command.format(netns=stage.bare("two").path))
    assert said.status == 4
    assert said.out == ""
    assert said.err == (
        f"vethwork: use {state(stage)}: it is about another network namespace, where one lives\n"
        "  hint: work there, or set VETHWORK_ROOT to a directory of this one's own\n"
    )
    assert set(links(elsewhere)) == before
    assert "vethwork" not in elsewhere.run(["nft", "list", "tables"]).stdout
    assert is_served(stage)
    stage.do("detach", "one")
    assert not is_served(stage)


def test_what_is_on_record_can_be_read_there_and_the_doctor_says_what_it_is_about(stage: Stage) -> None:
    assert "one" in ask(stage, stage.lab.neighbour, "ps").out
    findings = json.loads(ask(stage, stage.lab.neighbour, "doctor --json").out)
    (found,) = [each["found"] for each in findings if each["subject"] == "records"]
    assert found.startswith(f"{state(stage)} is about another network namespace")
    assert not [each for each in stage.view("doctor") if each["subject"] == "records"]


def test_many_are_not_all_named(stage: Stage) -> None:
    for name in ("two", "three", "four", "five"):
        stage.attach(name)
    said = ask(stage, stage.lab.neighbour, "gc")
    assert "where five, four, one and 2 more live\n" in said.err


def test_one_without_links_holds_the_records_too(stage: Stage) -> None:
    stage.attach("lone", "--net", "none")
    stage.do("detach", "one")
    assert ask(stage, stage.lab.neighbour, "gc").status == 4
    stage.do("detach", "lone")
    assert ask(stage, stage.lab.neighbour, "gc").status == 0


def test_a_host_that_is_gone_took_its_containers_and_its_guard_along(lab: Lab) -> None:
    """Networks stay, as after a reboot; what was forwarded there says nothing of what is forwarded here."""
    stage = Stage(lab)
    pod = stage.bare("pod")
    with short_lived(stage) as gone:
        assert ask(stage, gone, "network create blue").status == 0
        assert ask(stage, gone, f"attach pod --net blue --netns {pod.path} -p {PORT}:80").status == 0
        assert stage.refused("detach", "pod").status == 4
    assert eventually(lambda: set(links(pod)) == {"lo"})
    stage.host.set_sysctl("ipv4/ip_forward", "1")
    stage.do("attach", "pod", "--net", "blue", "--netns", pod.path, "-p", f"{PORT}:80")
    assert [each["name"] for each in stage.view("ps")] == ["pod"]
    assert stage.elements("guarded") == []
    assert [each for each in stage.view("doctor") if each["level"] == "problem"] == []


def test_records_from_before_they_named_their_namespace_are_kept(stage: Stage) -> None:
    with closing(sqlite3.connect(state(stage), isolation_level=None)) as database:
        assert database.execute("DELETE FROM meta WHERE key = 'host'").rowcount == 1
    stage.do("publish", "one", f"{PORT + 1}:80")
    assert is_served(stage)
    assert ask(stage, stage.lab.neighbour, "detach one").status == 4


def test_of_two_who_begin_at_the_same_time_one_gets_the_records(lab: Lab, tmp_path: Path) -> None:
    places = (str(tmp_path / "root"), str(tmp_path / "run"))
    hosts = (lab.host, lab.neighbour)
    pods = [lab.container(name) for name in ("one", "two")]

    def attach(pod: Machine) -> str:
        with Engine(*places) as engine:
            try:
                engine.attach(request(pod.name, netns=pod.path))
            except ConflictError as error:
                return error.message
            return ""

    def give_up() -> None:
        with Engine(*places) as engine:
            detach_all(engine, [container.name for container in engine.containers()])
            engine.remove_network("bridge")

    for _ in range(ROUNDS):
        begun = [host.start(partial(attach, pod)) for host, pod in zip(hosts, pods, strict=True)]
        said = [each.result(20) for each in begun]
        first = said.index("")
        told = (
            f"use {places[0]}/state.db: it is about another network namespace, where {pods[first].name} lives"
        )
        assert said[1 - first] == told
        hosts[first].call(give_up)
        hosts[1 - first].run(["ip", "link", "del", "vethwork0"], check=False)  # made before it was told
        for each in (tmp_path / "root").glob("state.db*"):
            each.unlink()
