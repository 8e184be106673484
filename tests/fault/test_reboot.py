"""After a reboot, and after a flush: networks are there, endpoints are not, and restore is one atomic batch."""

from __future__ import annotations

import os
import socket
import struct
from functools import partial

import pytest

from tests.fault.world import (
    HOME,
    ROOT,
    RUN,
    World,
    in_world,
    network,
    our_links,
    request,
    rows,
    ruleset,
    run,
    sql,
)
from vethwork.kernel import libc
from vethwork.maintenance import gc

BOOT_ID = "/proc/sys/kernel/random/boot_id"


def reboot() -> None:
    """The same root on a machine that has just started: another boot id, a network without anything, no pins."""
    with open(f"{HOME}/boot_id", "w") as file:
        file.write("00000000-0000-4000-8000-000000000000\n")
    libc.mount(f"{HOME}/boot_id", BOOT_ID, flags=libc.MS_BIND)
    for name in os.listdir(f"{RUN}/netns"):
        libc.umount(f"{RUN}/netns/{name}", libc.MNT_DETACH)
    run(f"rm -rf {RUN}")
    libc.unshare(libc.CLONE_NEWNET)
    run("ip link set lo up")


def reboot_again() -> None:
    """Once more."""
    with open(f"{HOME}/boot_id", "w") as file:
        file.write("00000000-0000-4000-8000-000000000001\n")
    libc.unshare(libc.CLONE_NEWNET)


def furnish(world: World) -> None:
    """Networks of every kind, with containers and ports."""
    world.settle()
    with world.engine() as engine:
        engine.create_network(network("plain", ipv6=True))
        engine.create_network(network("isolated", ipv6=True, isolated=True))
        engine.create_network(network("internal", ipv6=True, internal=True))
        engine.create_network(network("cable", driver="p2p"))
        engine.attach(request("x", "81:80", "9000-9010:9000-9010", nets=("plain", "old", "isolated")))
        engine.attach(request("y", nets=("cable",)))


def of_networks(elements: tuple[str, ...]) -> list[str]:
    """The elements that belong to networks and not to containers."""
    of_containers = (" port", " range", " traffic")
    return [
        each
        for each in elements
        if each.startswith("inet") and not any(name in each for name in of_containers)
    ]


def test_networks_stay_and_containers_go() -> None:
    def scenario(world: World) -> None:
        furnish(world)
        networks = [each for each in rows() if each.startswith("networks")]
        reboot()
        with world.engine() as engine:
            assert [network.name for network in engine.networks()] == [
                "cable",
                "internal",
                "isolated",
                "old",
                "plain",
            ]
            assert engine.containers() == ()
            assert not engine.detach("settled")
        left = [each for each in rows() if not each.startswith("networks")]
        assert not left, left
        assert sorted(networks) == sorted(rows())

    in_world(scenario)


def test_attach_brings_its_bridge_back_and_the_others_stay_away() -> None:
    def scenario(world: World) -> None:
        furnish(world)
        before = world.seen()
        reboot()
        assert not our_links()
        with world.engine() as engine:
            engine.attach(request("settled", "8080:80", nets=("old",), ip="10.9.0.7"))
            netns = engine.inspect("settled").container.netns
        world.serve(netns, 80, "settled")
        world.assert_settled()
        assert sorted(our_links()) == ["vw-3c6ef372fe94", "vw736574746c00"]
        again = [each for each in before.links if each.startswith(("vw-3c6ef372fe94", "vw736574746c00"))]
        assert [each for each in world.seen().links if each in again] == again

    in_world(scenario)


def test_restore_brings_the_hosts_side_of_every_network_back() -> None:
    def scenario(world: World) -> None:
        furnish(world)
        before = world.seen()
        reboot()
        with world.engine() as engine:
            report = gc.restore(engine)
            assert len([line for line in report if "was gone" in line]) == 4, report
        after = world.seen()
        bridges = [each for each in before.links if " bridge " in each]
        assert [each for each in after.links if " bridge " in each] == bridges
        assert after.addresses == before.addresses
        assert of_networks(after.elements) == of_networks(before.elements)
        with world.engine() as engine:
            assert not gc.restore(engine)
            assert not gc.collect_garbage(engine)
            engine.attach(request("settled", "8080:80", nets=("old",), ip="10.9.0.7"))
            netns = engine.inspect("settled").container.netns
        world.serve(netns, 80, "settled")
        world.assert_settled()

    in_world(scenario)


def test_who_opens_the_file_second_after_a_reboot_forgets_nothing() -> None:
    """Two start at once: what the faster one has done is of this boot."""

    def scenario(world: World) -> None:
        furnish(world)
        reboot()

        def work(number: int) -> None:
            with world.engine() as engine:
                engine.attach(request(f"c{number}", nets=("old",)))

        for child in [world.processes.fork(partial(work, number)) for number in range(8)]:
            child.result(30)
        assert sql("SELECT count(*) FROM containers") == [(8,)]

    in_world(scenario)


def test_an_intent_of_the_last_boot_is_void() -> None:
    """Who died in the middle of something when the machine went down is not cleared up after: there is nothing."""

    def scenario(world: World) -> None:
        world.settle()
        assert not world.victim(lambda engine: engine.attach(request("x", "81:80", nets=("old",))), 5)
        assert sql("SELECT * FROM intents")
        reboot()
        with world.engine() as engine:
            assert not [line for line in gc.collect_garbage(engine) if "ruleset" not in line]
            engine.attach(request("x", "81:80", nets=("old",)))
        assert not sql("SELECT * FROM intents")

    in_world(scenario)


def test_a_network_that_was_being_made_when_the_machine_went_down_is_not_there() -> None:
    def scenario(world: World) -> None:
        world.settle()
        make = network("new", "10.8.0.0/24")
        assert not world.victim(lambda engine: engine.create_network(make), 3)
        reboot()
        with world.engine() as engine:
            assert [network.name for network in engine.networks()] == ["old"]
            engine.create_network(make)
        assert not world.victim(lambda engine: engine.remove_network("new"), 0)
        reboot_again()
        with world.engine() as engine:
            assert [network.name for network in engine.networks()] == ["old"]

    in_world(scenario)


def test_a_flushed_ruleset_comes_back_in_one_atomic_batch() -> None:
    """The first change to the ruleset is one generation of it, which holds everything."""

    def scenario(world: World) -> None:
        furnish(world)
        before = ruleset()
        run("nft flush ruleset")
        flushed = generation_id()
        changed: list[bool] = []

        def watch(_: object) -> None:
            if not changed and generation_id() != flushed:
                changed.append(generation_id() == flushed + 1 and ruleset() == before)

        with world.engine(watch=watch) as engine:
            assert gc.restore(engine)
        assert changed == [True]
        assert ruleset() == before
        world.assert_settled()

    in_world(scenario)


def generation_id() -> int:
    """How often the ruleset of this namespace was changed, by the kernel's count (NFT_MSG_GETGEN)."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:
        kind = 10 << 8 | 16  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN
        netlink.send(struct.pack("=IHHIIBBH", 20, kind, 1, 1, 0, 0, 0, 0))
        answer = netlink.recv(4096)
    (number,) = struct.unpack_from(">I", answer, 24)
    return int(number)


@pytest.mark.parametrize("times", [1, 3])
def test_restore_changes_nothing_where_nothing_is_missing(times: int) -> None:
    def scenario(world: World) -> None:
        furnish(world)
        before = world.seen()
        for _ in range(times):
            with world.engine() as engine:
                assert not gc.restore(engine)
        assert not world.seen().against(before)
        assert os.path.exists(ROOT)
        world.assert_settled()

    in_world(scenario)
