"""Somebody deletes what is ours: a namespace, a link, a bridge, the ruleset; at rest and in the middle of an attach."""

from __future__ import annotations

import os
import signal
from errno import ENOMEM
from itertools import count
from typing import TYPE_CHECKING

import pytest

from tests.fault.world import RUN, World, bare_netns, in_world, network, our_links, pins, request, run, sql
from vethwork.errors import BadNamespace, ConflictError, KernelRefused, VethworkError
from vethwork.kernel import libc, netns
from vethwork.maintenance import gc
from vethwork.model.address import Prefix
from vethwork.model.container import Join
from vethwork.model.names import IfName, Name
from vethwork.model.network import Way
from vethwork.model.steps import LINK_GROUP, CreateBridge, CreateMacvlan
from vethwork.process import lifecycle

if TYPE_CHECKING:
    from collections.abc import Callable

OLD = "vw-3c6ef372fe94"
SETTLED = "vw736574746c00"
PIN = f"{RUN}/netns/736574746c65"


def flush_table() -> None:
    """Every rule goes; sets and their elements stay."""
    for family in ("inet", "bridge"):
        run(f"nft flush table {family} vethwork")


RULES: dict[str, Callable[[], object]] = {
    "flush ruleset": lambda: run("nft flush ruleset"),
    "delete table inet": lambda: run("nft delete table inet vethwork"),
    "delete table bridge": lambda: run("nft delete table bridge vethwork"),
    "flush table": flush_table,
    "delete the port": lambda: run("nft delete element inet vethwork port4 { tcp . 8080 }"),
    "delete the speaker": lambda: run(f'nft delete element bridge vethwork ports {{ "{SETTLED}" }}'),
    "delete the bridge's element": lambda: run(f'nft delete element inet vethwork bridges {{ "{OLD}" }}'),
    "flush a chain": lambda: run("nft flush chain inet vethwork publish"),
}
LINKS: dict[str, Callable[[], object]] = {
    "delete the bridge": lambda: run(f"ip link del {OLD}"),
    "delete the host's end": lambda: run(f"ip link del {SETTLED}"),
    "delete the container's end": lambda: run(f"nsenter --net={PIN} ip link del eth0"),
    "rename the host's end": lambda: rename("", SETTLED, "stolen"),
    "take the host's end out of the bridge": lambda: run(f"ip link set {SETTLED} nomaster"),
}


def rename(netns: str, old: str, new: str) -> None:
    """Rename a link, as only one that is down can be everywhere."""
    enter = f"nsenter --net={netns} " if netns else ""
    for change in (f"{old} down", f"{old} name {new}", f"{new} up"):
        run(f"{enter}ip link set {change}")


@pytest.mark.parametrize("name", RULES | LINKS)
def test_restore_brings_back_what_somebody_deleted(name: str) -> None:
    def scenario(world: World) -> None:
        world.settle()
        before = world.seen()
        (RULES | LINKS)[name]()
        with world.engine() as engine:
            if "rename" in name:  # what bears a wrong name stands in the way
                gc.collect_garbage(engine)
            assert gc.restore(engine), "restore saw nothing to do"
        assert not world.seen().against(before)
        world.assert_settled()
        with world.engine() as engine:
            assert not gc.restore(engine), "restore does it again"

    in_world(scenario)


@pytest.mark.parametrize(
    "name", ["flush ruleset", "delete table inet", "delete table bridge", "delete the bridge"]
)
def test_the_next_attach_brings_back_what_it_finds_missing(name: str) -> None:
    def scenario(world: World) -> None:
        world.settle()
        with world.engine() as engine:
            engine.attach(request("x", "81:80", nets=("old",), ip="10.9.0.9"))
        before = world.seen()
        with world.engine() as engine:
            engine.detach("x")
        sql("DELETE FROM cursors")
        (RULES | LINKS)[name]()
        with world.engine() as engine:
            engine.attach(request("x", "81:80", nets=("old",), ip="10.9.0.9"))
        assert not world.seen().against(before)
        world.assert_settled()

    in_world(scenario)


@pytest.mark.parametrize("name", RULES | LINKS)
def test_detach_and_gc_leave_nothing_whatever_was_deleted(name: str) -> None:
    def scenario(world: World) -> None:
        world.settle()
        (RULES | LINKS)[name]()
        with world.engine() as engine:
            assert engine.detach("settled")
            assert not engine.detach("settled")
            engine.remove_network("old")
            gc.collect_garbage(engine)
            assert not gc.collect_garbage(engine), "gc does it again"
        assert not our_links()
        assert not list(pins())
        left = world.seen().mentions("10.9.0", "8080", OLD, SETTLED)
        assert not left, left

    in_world(scenario)


@pytest.mark.parametrize("name", ["flush ruleset", "delete table inet", "flush table", "delete the port"])
def test_rules_deleted_at_every_milestone_of_an_attach(name: str) -> None:
    """It works, or is refused and leaves nothing; then a restore puts right what is left to be put right."""

    def scenario(world: World) -> None:
        world.settle()
        with world.engine() as engine:
            engine.attach(request("x", "81:80", nets=("old",), ip="10.9.0.9"))
        attached = world.seen()
        for at in count():
            with world.engine() as engine:
                engine.detach("x")
            sql("DELETE FROM cursors")
            reached = disturb(world, at, RULES[name])
            with world.engine() as engine:
                gc.restore(engine)
            difference = world.seen().against(attached)
            assert not difference, f"deleted at {at}:\n{difference}"
            world.assert_settled()
            if not reached:
                break

    in_world(scenario)


def disturb(world: World, at: int, disturbance: Callable[[], object]) -> bool:
    """Attach while somebody does something at a milestone; gives whether there was such a milestone."""
    reached = False
    seen = 0

    def watch(_: object) -> None:
        nonlocal reached, seen
        if seen == at:
            reached = True
            disturbance()
        seen += 1

    with world.engine(watch=watch) as engine:
        engine.attach(request("x", "81:80", nets=("old",), ip="10.9.0.9"))
    return reached


NEW_PIN = f"{RUN}/netns/{b'x'.hex().ljust(12, '0')}"
NEW_LINK = f"vw{b'x'.hex().ljust(12, '0')}"
GONE: dict[str, Callable[[], object]] = {
    "the bridge": lambda: run(f"ip link del {OLD}"),
    "the link": lambda: run(f"ip link del {NEW_LINK}", check=False),
    "the container's end": lambda: run(f"nsenter --net={NEW_PIN} ip link del eth0", check=False),
    "the pin": lambda: run(f"umount -l {NEW_PIN}", check=False),
    "the pin and its file": lambda: run(f"umount -l {NEW_PIN}", check=False) + run(f"rm -f {NEW_PIN}"),
}


@pytest.mark.parametrize("name", GONE)
def test_things_deleted_at_every_milestone_of_an_attach(name: str) -> None:
    """It is refused and leaves nothing, or it is on record; then detach leaves nothing."""

    def scenario(world: World) -> None:
        world.settle()
        before = world.seen()
        for at in count():
            reached, refused = False, False
            try:
                reached = disturb(world, at, GONE[name])
            except VethworkError:
                reached = refused = True
            with world.engine() as engine:
                gc.restore(engine)
                if refused:
                    assert engine.store.container("x") is None
                engine.detach("x")
            difference = world.seen().against(before)
            assert not difference, f"deleted at {at}:\n{difference}"
            world.assert_settled()
            if not reached:
                break

    in_world(scenario)


def test_a_process_that_died_takes_its_namespace_with_it() -> None:
    def scenario(world: World) -> None:
        world.settle()
        before = world.seen()
        pid = sleeper()
        with world.engine() as engine:
            engine.attach(request("x", "81:80", nets=("old",), ip="10.9.0.9", netns=f"/proc/{pid}/ns/net"))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            with pytest.raises(BadNamespace):
                engine.attach(request("y", nets=("old",), netns=f"/proc/{pid}/ns/net"))
            assert gc.collect_garbage(engine)
            assert engine.store.container("x") is None
        assert not world.seen().against(before)
        again = sleeper()
        with world.engine() as engine:
            engine.attach(request("x", "81:80", nets=("old",), netns=f"/proc/{again}/ns/net"))
            os.kill(again, signal.SIGKILL)
            os.waitpid(again, 0)
            assert engine.detach("x")
        assert not world.seen().against(before)
        world.assert_settled()

    in_world(scenario)


def test_a_process_id_that_is_given_again_is_not_the_container() -> None:
    """Nor is its namespace, though it may even have the number (inode) of the one before."""

    def scenario(world: World) -> None:
        world.settle()
        before = world.seen()
        pid = sleeper()
        path = f"/proc/{pid}/ns/net"
        with world.engine() as engine:
            engine.attach(request("x", "81:80", nets=("old",), ip="10.9.0.9", netns=path))
            assert engine.lives(engine.inspect("x").container)
            engine.attach(request("sharer", nets=("container:x",)))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            with open("/proc/sys/kernel/ns_last_pid", "w") as file:
                file.write(str(pid - 1))
            assert sleeper() == pid
            for name in ("x", "sharer"):
                assert not engine.lives(engine.inspect(name).container)
            with pytest.raises(BadNamespace, match="the namespace of x is gone"):
                engine.connect("x", Join(Name("old"), ifname=IfName("eth7")))
            with pytest.raises(BadNamespace, match="the namespace of x is gone"):
                engine.attach(request("y", nets=("container:x",)))
            with pytest.raises(BadNamespace, match="the namespace of x is gone"):
                lifecycle.execute_in(engine, "x", ("true",))
        with world.engine() as engine:
            engine.attach(
                request("y", nets=("old",), netns=path)
            )  # whoever lives there now is no lodger of the dead
            assert {each.name for each in engine.containers()} == {"settled", "y"}
            engine.detach("y")
        assert not world.seen().against(before)

    in_world(scenario)


def test_a_namespace_has_one_cookie_whoever_is_asked_for_it() -> None:
    """The file that it is opened by, from Linux 6.18 on, and a socket that was made in it before that."""

    def scenario(_: World) -> None:
        found = set()
        for name in ("one", "two"):
            fd = netns.open_netns(bare_netns(name))
            found.add(netns.cookie_of(fd))
            assert netns.inside(fd, netns.own_cookie) == netns.cookie_of(fd) != 0
        assert len(found) == 2
        assert netns.own_cookie() not in found

    in_world(scenario)


def test_gc_collects_a_container_and_those_who_shared_its_namespace() -> None:
    def scenario(world: World) -> None:
        world.settle()
        before = world.seen()
        with world.engine() as engine:
            engine.attach(request("a", "81:80", nets=("old",), ip="10.9.0.9"))
            engine.attach(request("b", nets=("container:a",)))
            run(f"umount {engine.inspect('a').container.netns}")
            gc.collect_garbage(engine)
        assert not world.seen().against(before)

    in_world(scenario)


def test_gc_collects_a_container_in_whose_place_there_is_another() -> None:
    def scenario(world: World) -> None:
        world.settle()
        with world.engine() as engine:
            engine.create_network(network("wire", driver="macvlan", device=IfName(OLD)))
            path = bare_netns("o")
            engine.attach(request("x", nets=("wire",), netns=path))
            run(f"umount {path}")
            os.unlink(path)
            assert bare_netns("o") == path
            # A macvlan of the same mark and name: it was made for somebody else.
            run(f"ip link add eth0 link {OLD} netns {path} group {LINK_GROUP} type macvlan")
            assert gc.collect_garbage(engine)
            assert [each.name for each in engine.containers()] == ["settled"]
        assert "eth0" in run(f"nsenter --net={path} ip link")

    in_world(scenario)


def sleeper() -> int:
    """A process in a network namespace of its own."""
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        libc.unshare(libc.CLONE_NEWNET)
        os.write(done, b"x")
        while True:
            signal.pause()
    os.read(ready, 1)
    return pid


def test_an_undo_leaves_what_somebody_made_in_the_place_of_ours() -> None:
    """A link of the same name and the same mark, but not of the MAC address that we gave."""

    def scenario(world: World) -> None:
        world.settle()
        path = bare_netns("o")
        with world.engine() as engine:
            engine.create_network(network("wire", driver="macvlan", device=IfName(OLD)))
        devices = {
            CreateBridge: ("", "vw-new", "type bridge"),
            CreateMacvlan: (f"nsenter --net={path} ", "eth0", "type bridge"),
        }

        def replace(milestone: object) -> None:
            if type(milestone) in devices:
                enter, name, kind = devices[type(milestone)]  # type: ignore[index]
                run(f"{enter}ip link del {name}")
                run(f"{enter}ip link add {name} address 02:00:00:00:00:01 group {LINK_GROUP} {kind}")
                raise KernelRefused("go on", ENOMEM)

        with world.engine(watch=replace) as engine:
            with pytest.raises(KernelRefused):
                engine.create_network(network("new", device=IfName("vw-new")))
            with pytest.raises(KernelRefused):
                engine.attach(request("x", nets=("wire",), netns=path))
        for enter, name, _ in devices.values():
            assert "02:00:00:00:00:01" in run(f"{enter}ip link show {name}")
        assert not sql("SELECT * FROM intents")

    in_world(scenario)


@pytest.mark.parametrize("what", ["unmounted", "unmounted and deleted", "another file is there"])
def test_a_pin_that_somebody_took_away(what: str) -> None:
    def scenario(world: World) -> None:
        world.settle()
        before = world.seen()
        with world.engine() as engine:
            engine.attach(request("x", "81:80", nets=("old",), ip="10.9.0.9"))
            netns = engine.inspect("x").container.netns
            run(f"umount {netns}")
            if what != "unmounted":
                os.unlink(netns)
            if what == "another file is there":
                with open(netns, "w") as file:
                    file.write("hello")
            gc.restore(engine)
            with pytest.raises((BadNamespace, ConflictError)):
                engine.attach(request("y", nets=("container:x",)))
            gc.collect_garbage(engine)
            assert engine.store.container("x") is None
        assert not world.seen().against(before)
        world.assert_settled()

    in_world(scenario)


def test_a_container_that_lives_is_not_taken_for_gone_when_descriptors_run_out() -> None:
    def scenario(world: World) -> None:
        import resource

        world.settle()
        before = world.seen()
        with world.engine() as engine:
            engine.networks()
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            used = len(os.listdir("/proc/self/fd"))
            for spare in range(8):
                resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, hard))
                try:
                    gc.collect_garbage(engine)
                except (VethworkError, OSError):
                    continue
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert not world.seen().against(before)
        world.assert_settled()

    in_world(scenario)


def test_what_is_not_ours_is_not_touched() -> None:
    """Links of others, also where they bear our names; tables of others; pins elsewhere."""

    def scenario(world: World) -> None:
        world.settle()
        path = bare_netns("theirs")
        run("ip link add vw-theirs type bridge")
        run("nft add table inet theirs")
        run("ip link add vw000000000001 type veth peer name other")
        before = world.seen()
        with world.engine() as engine:
            gc.collect_garbage(engine)
            gc.restore(engine)
        assert not world.seen().against(before)
        assert "theirs" in run("nft list tables")
        assert os.path.exists(path)

    in_world(scenario)


@pytest.mark.parametrize("version", [4, 6])
def test_a_route_that_a_namespace_had_is_neither_replaced_nor_deleted(version: int) -> None:
    gateway, prefix = {4: ("192.0.2.1", "10.99.0.0/16"), 6: ("fd99::1", "fd98::/64")}[version]

    def scenario(world: World) -> None:
        world.settle()
        path = bare_netns("theirs")
        enter = f"nsenter --net={path} "
        run(f"{enter}ip link add their0 type bridge")
        run(f"{enter}ip addr add {gateway[:-1]}9/{24 if version == 4 else 64} dev their0")
        run(f"{enter}ip link set their0 up")
        run(f"{enter}ip route add default via {gateway} dev their0")
        run(f"{enter}ip route add blackhole {prefix} metric 7 proto static")
        before = run(f"{enter}ip -{version} route"), world.seen()
        nowhere = Way(Prefix.parse(prefix), None, 7, "blackhole")
        wish = request("x", "81:80", nets=("old",), ip="10.9.0.9", netns=path)
        with world.engine() as engine:
            with pytest.raises(KernelRefused, match=r"add route default via .*EEXIST.*delete it first"):
                engine.attach(wish)
            join = wish.joins[0].replace(ways=(nowhere,), default_route=False)
            with pytest.raises(KernelRefused, match=r"add route .* blackhole: EEXIST.*delete it first"):
                engine.attach(wish.replace(joins=(join,)))
            assert (run(f"{enter}ip -{version} route"), world.seen()) == before
            run(f"{enter}ip -{version} route del default")
            run(f"{enter}ip -{version} route del blackhole {prefix} metric 7")
            engine.attach(wish.replace(joins=(wish.joins[0].replace(ways=(nowhere,)),)))
            run(f"{enter}ip route add blackhole {prefix} metric 8")
            engine.detach("x")
            assert "metric 7" not in run(f"{enter}ip -{version} route")
            assert "metric 8" in run(f"{enter}ip -{version} route")

    in_world(scenario)
