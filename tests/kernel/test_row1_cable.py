"""Row 1: a veth pair between exactly two containers, and no bridge."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.kernel.stage import VERSIONS, Stage, address, eventually, ip, is_silent, links, pings

if TYPE_CHECKING:
    from vethwork.testing.machine import Machine


@pytest.fixture
def ends(stage: Stage) -> tuple[Machine, Machine]:
    """A cable, and both who hold it."""
    stage.network("cable", "--driver", "p2p")
    return stage.attach("left", "--net", "cable"), stage.attach("right", "--net", "cable")


def reach_each_other(left: Machine, right: Machine, version: int) -> bool:
    return pings(left, address(right, version)) and pings(right, address(left, version))


def test_two_containers_and_a_cable_by_the_command_line(stage: Stage) -> None:
    """The whole story by programs of their own, as a person types it."""
    assert stage.command("network", "create", "cable", "--driver", "p2p", "--ipv6") == (0, "cable\n", "")
    left, right = stage.lab.container("left"), stage.lab.container("right")
    for end in (left, right):
        said = stage.command("attach", end.name, "--netns", end.path, "--net", "cable")
        assert (said.status, said.err) == (0, "")
        assert said.out == f"eth0 {' '.join(interface(end))} on cable\n"
    right.serve_http(80)
    right.serve_udp_echo(80)
    for version in VERSIONS:
        assert reach_each_other(left, right, version)
        for protocol in ("tcp", "udp"):
            seen = left.connect(address(right, version), 80, protocol)
            assert (seen.name, seen.peer) == ("right", address(left, version))


def interface(end: Machine) -> list[str]:
    """An interface's addresses as ``ip`` shows them."""
    (shown,) = ip(end, "addr", "show", "eth0")
    return [f"{a['local']}/{a['prefixlen']}" for a in shown["addr_info"] if a["scope"] == "global"]


def test_the_ends_of_one_veth_pair_are_in_the_two_namespaces(ends: tuple[Machine, Machine]) -> None:
    left, right = (links(end)["eth0"] for end in ends)
    assert (left["linkinfo"]["info_kind"], left["operstate"], right["operstate"]) == ("veth", "UP", "UP")
    assert (left["link_index"], right["link_index"]) == (right["ifindex"], left["ifindex"])
    assert "master" not in left
    assert "master" not in right


def test_a_cable_leads_nowhere_else(stage: Stage, ends: tuple[Machine, Machine], version: int) -> None:
    for end in ends:
        assert ip(end, f"-{version}", "route", "show", "default") == []
        for target in (stage.host, stage.lab.internet):
            assert "unreachable" in end.run(["ping", "-nc1", address(target, version)], check=False).stderr


def test_nothing_is_seen_on_the_host_but_an_end_that_is_parked(stage: Stage) -> None:
    before = links(stage.host)
    made = stage.network("cable", "--driver", "p2p")
    assert links(stage.host) == before
    stage.attach("left", "--net", "cable")
    parked = links(stage.host)
    assert set(parked) - set(before) == {made["device"]}
    assert "UP" not in parked[made["device"]]["flags"]
    assert ip(stage.host, "addr", "show", made["device"])[0]["addr_info"] == []
    stage.attach("right", "--net", "cable")
    assert links(stage.host) == before


def test_a_third_is_told_who_holds_the_ends(stage: Stage, ends: tuple[Machine, Machine]) -> None:
    third = stage.lab.container("third")
    said = stage.refused("attach", "third", "--netns", third.path, "--net", "cable")
    assert said.status == 4
    assert said.err == "vethwork: join cable: a cable has two ends, and left and right hold them\n"
    assert set(links(third)) == {"lo"}
    assert stage.refused("inspect", "third").status == 3
    assert reach_each_other(*ends, 4)


@pytest.mark.parametrize("leaves", ["left", "right"])
def test_an_end_that_was_let_go_is_parked_and_taken_up_again(
    stage: Stage, ends: tuple[Machine, Machine], leaves: str
) -> None:
    leaver, stays = ends if leaves == "left" else reversed(ends)
    stage.do("detach", leaves)
    assert "eth0" not in links(leaver)
    assert "UP" not in links(stage.host)[stage.device("cable")]["flags"]
    assert is_silent(leaver, stays.v4)
    heir = stage.attach("heir", "--net", "cable")
    assert all(reach_each_other(heir, stays, version) for version in VERSIONS)
    assert stage.device("cable") not in links(stage.host)
    stage.do("detach", "heir")
    stage.do("attach", leaves, "--netns", leaver.path, "--net", "cable")
    assert all(reach_each_other(leaver, stays, version) for version in VERSIONS)


def test_both_let_go_and_nothing_is_left(stage: Stage, ends: tuple[Machine, Machine]) -> None:
    for end in ends:
        stage.do("detach", end.name)
        assert set(links(end)) == {"lo"}
    stage.do("network", "rm", "cable")
    assert set(links(stage.host)) == {"lo", "eth0", "eth1"}


def test_a_namespace_that_dies_takes_the_cable_and_the_next_one_gets_a_new_one(
    stage: Stage, version: int
) -> None:
    """The process that held the second namespace is killed; the kernel takes the veth pair away, both ends."""
    stage.network("cable", "--driver", "p2p")
    left = stage.attach("left", "--net", "cable")
    holder = stage.host.popen(["unshare", "--net", sys.executable, "-c", "import signal; signal.pause()"])
    own = stage.host.run(["readlink", "/proc/self/ns/net"]).stdout
    path = f"/proc/{holder.pid}/ns/net"
    assert eventually(lambda: stage.host.run(["readlink", path]).stdout != own)
    stage.do("attach", "right", "--pid", str(holder.pid), "--net", "cable")
    there = {each["network"]: each for each in stage.view("inspect", "right")["endpoints"]}["cable"]
    target = next(a for a in there["addresses"] if (":" in a) == (version == 6)).partition("/")[0]
    assert pings(left, target)
    holder.kill()
    assert eventually(lambda: "eth0" not in links(left))
    stage.do("detach", "right")
    heir = stage.attach("heir", "--net", "cable")
    assert reach_each_other(left, heir, version)
    assert set(links(stage.host)) == {"lo", "eth0", "eth1"}
