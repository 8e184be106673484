"""What others change on a host that the service guards is put back, and said, within a second; what is under way is let be."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from errno import EPERM
from typing import TYPE_CHECKING

import pytest

from tests.kernel.guarded import Guarded, guarded
from tests.kernel.stage import eventually, ip, links
from vethwork.engine.engine import Engine
from vethwork.engine.networks import new_id
from vethwork.engine.reaper import reaping
from vethwork.errors import KernelRefused
from vethwork.kernel.events import BUFFER_BYTES, Events
from vethwork.maintenance import reconciler as guards
from vethwork.maintenance.reconciler import Guard
from vethwork.model.container import AttachRequest, Join, Mode
from vethwork.model.names import Name, NetnsPath
from vethwork.model.network import NetworkRequest
from vethwork.model.plan import Plan
from vethwork.model.ports import Publish
from vethwork.store.locks import Locks
from vethwork.testing.machine import SOURCE

if TYPE_CHECKING:
    from collections.abc import Iterator

SECOND = 1.0


@pytest.fixture(scope="module")
def steady(needs: None) -> Iterator[Guarded]:
    """One that lives through all that is done to it."""
    with guarded() as made:
        yield made


# What is done, by a name that tells it; with what the service must say of it. BRIDGE, LINK and SUBNET are ours.
DAMAGE = {
    "bridge deleted": ("ip link del BRIDGE", "bridge BRIDGE was gone"),
    "bridge down": ("ip link set BRIDGE down", "bridge BRIDGE was down"),
    "bridge mtu": ("ip link set BRIDGE mtu 1000", "bridge BRIDGE had an MTU of 1000"),
    "bridge mac": ("ip link set BRIDGE address 02:00:00:00:00:99", "bridge BRIDGE had the MAC address"),
    "bridge mark": ("ip link set BRIDGE group 0", "bridge BRIDGE did not bear our mark"),
    "bridge addresses": ("ip addr flush dev BRIDGE", "bridge BRIDGE did not have the address"),
    "route": ("ip route del SUBNET dev BRIDGE", "route SUBNET was gone"),
    "route replaced": ("ip route replace SUBNET dev eth0", "route SUBNET was gone"),
    "port out": ("ip link set LINK nomaster", "link LINK was not in its bridge"),
    "port down": ("ip link set LINK down", "link LINK was down"),
    "port mtu": ("ip link set LINK mtu 1000", "link LINK had an MTU of 1000"),
    "port mark": ("ip link set LINK group 0", "link LINK did not bear our mark"),
    "port hairpin": ("bridge link set dev LINK hairpin off", "link LINK was not in hairpin mode"),
    "port deleted": ("ip link del LINK", "link LINK was gone"),
    "forwarding": ("sysctl -qw net.ipv4.ip_forward=0", "IPv4 forwarding was off"),
    "forwarding 6": ("sysctl -qw net.ipv6.conf.all.forwarding=0", "IPv6 forwarding was off"),
    "bridge forwarding": (
        "sysctl -qw net.ipv4.conf.BRIDGE.forwarding=0",
        "ipv4/conf/BRIDGE/forwarding was 0",
    ),
    "route_localnet": ("sysctl -qw net.ipv4.conf.BRIDGE.route_localnet=0", "route_localnet was 0"),
    "accept_ra": ("sysctl -qw net.ipv6.conf.BRIDGE.accept_ra=2", "accept_ra was 2"),
    "disable_ipv6": ("sysctl -qw net.ipv6.conf.BRIDGE.disable_ipv6=1", "did not have the address"),
}


def state(stage: Guarded) -> dict[str, object]:
    """What ip(8) says of our links, less what is another each time."""
    found: dict[str, object] = {}
    for name, link in links(stage.host).items():
        if name.startswith("vw"):
            slave = link.get("linkinfo", {}).get("info_slave_data", {})
            found[name] = (
                link["mtu"],
                link["group"],
                link.get("master"),
                "UP" in link["flags"],
                slave.get("hairpin"),
            )
    bridge = ip(stage.host, "addr", "show", "dev", stage.bridge)[0]
    found["addresses"] = sorted(each["local"] for each in bridge["addr_info"] if each["scope"] == "global")
    found["mac"] = bridge["address"]
    shown = [ip(stage.host, version, "route", "show", "dev", stage.bridge) for version in ("-4", "-6")]
    found["routes"] = sorted(each["dst"] for all_of in shown for each in all_of if each["dst"] != "fe80::/64")
    return found


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_put_back_within_a_second(steady: Guarded, name: str) -> None:
    subnet = next(each["dst"] for each in ip(steady.host, "route", "show", "dev", steady.bridge))
    words = {"BRIDGE": steady.bridge, "LINK": steady.link, "SUBNET": subnet}
    command, said = DAMAGE[name]
    for word, real in words.items():
        command, said = command.replace(word, real), said.replace(word, real)
    whole, before = state(steady), len(steady.lines())
    steady.host.run(command.split())
    assert steady.is_put_back(said, before) < SECOND
    assert eventually(lambda: state(steady) == whole), (state(steady), whole)
    assert eventually(steady.answers)
    assert eventually(lambda: steady.lab.neighbour.reaches(steady.container.v4, 80) is False)
    assert all(line.endswith("put back") for line in steady.lines()[before:])


def test_a_link_that_is_deleted_in_its_container_is_laid_anew(steady: Guarded) -> None:
    before = len(steady.lines())
    steady.container.run(["ip", "link", "del", "eth0"])
    assert steady.is_put_back("eth0 on blue was cut off", before) < SECOND
    assert eventually(steady.answers)


def test_two_things_at_once(steady: Guarded) -> None:
    before = len(steady.lines())
    steady.host.run(["ip", "link", "del", steady.bridge])
    steady.container.run(["ip", "link", "del", "eth0"])
    assert steady.is_put_back("eth0 on blue was cut off", before) < SECOND * 2
    assert eventually(steady.answers)


def test_what_others_do_to_their_own_is_theirs(steady: Guarded) -> None:
    before = len(steady.lines())
    for command in (
        "ip link add their0 type bridge",
        "ip link set their0 up",
        "ip addr add 10.99.0.1/24 dev their0",
        f"ip addr add 10.98.0.1/24 dev {steady.bridge}",
        "ip link set their0 down",
        "ip link del their0",
        f"ip addr del 10.98.0.1/24 dev {steady.bridge}",
        f"ip link set {steady.bridge} mtu 9000",
        f"ip link set {steady.bridge} mtu 1500",
    ):
        steady.host.run(command.split())
    time.sleep(0.7)  # longer than the guard takes to hear, and to read what nobody tells of
    assert steady.lines()[before:] == []


def test_nothing_is_repaired_that_is_only_under_way(steady: Guarded) -> None:
    """Other processes attach, detach, make networks and remove them; there is nothing to put back."""
    before = len(steady.lines())

    netns = NetnsPath(steady.bare("busy").path)
    blue, red = Join(Name("blue")), NetworkRequest(Name("red"), ipv6=True)

    def work() -> None:
        for number in range(50):
            with reaping() if number % 2 else Engine() as engine:
                request = AttachRequest(new_id(), Name("busy"), Mode("network", "blue"), (blue,), netns=netns)
                engine.attach(request)
                if number % 5 == 0:
                    engine.create_network(red)
                    engine.connect("busy", Join(Name("red")))
                engine.publish("busy", Publish.parse("8085:80"))
                engine.detach("busy", wait=number % 2 == 0)
                if number % 5 == 0:
                    engine.remove_network("red")

    steady.host.call(work)
    time.sleep(0.7)  # longer than the guard takes to hear, and to read what nobody tells of
    assert steady.lines()[before:] == []


def test_repairs_are_counted(steady: Guarded) -> None:
    before = len(steady.lines())
    steady.host.run(["ip", "link", "set", steady.link, "down"])
    assert steady.is_put_back("was down", before) < SECOND
    with socket.socket(socket.AF_UNIX) as made, made.makefile("rb") as answer:
        made.connect(f"{steady.host.environment['VETHWORK_RUN']}/service.sock")
        made.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        counted = re.findall(rb'vethwork_repairs_total{kind="(\w+)"} (\d+)', answer.read())
    assert int(dict(counted)[b"link"]) > 0


def test_a_container_whose_process_is_gone_is_let_go_of(steady: Guarded) -> None:
    before = len(steady.lines())
    process = steady.host.popen(["unshare", "--net", "sleep", "100"])
    path = f"/proc/{process.pid}/ns/net"
    assert eventually(
        lambda: (
            os.stat(path).st_ino not in (os.stat("/proc/self/ns/net").st_ino, os.fstat(steady.host.fd).st_ino)
        )
    )
    steady.do("attach", "mortal", "--pid", str(process.pid), "--net", "blue", "-p", "8086:80")
    process.kill()
    process.wait()
    assert steady.is_put_back("container mortal: its namespace", before) < SECOND
    assert [view["name"] for view in steady.view("ps")] == ["c"]
    assert "8086" not in steady.listing()


def test_who_stands_in_the_way_is_told_once(steady: Guarded) -> None:
    """Another bridge of our bridge's name is not ours to change; when it is gone, ours comes back."""
    before = len(steady.lines())
    network = steady.bridge
    steady.host.run(["ip", "link", "add", "their0", "type", "bridge"])
    steady.process.send_signal(signal.SIGSTOP)  # else ours may be back before the name is theirs
    try:
        steady.host.run(["ip", "-batch", "-"], stdin=f"link del {network}\nlink set their0 name {network}\n")
    finally:
        steady.process.send_signal(signal.SIGCONT)
    assert steady.is_put_back("cannot be put back", before) < SECOND
    time.sleep(1.5)  # it is looked at again, a second later
    said = [line for line in steady.lines()[before:] if line.startswith("network blue")]
    assert len(said) == 1
    assert "another bridge" in said[0]
    assert links(steady.host)[network]["group"] == "default"
    steady.host.run(["ip", "link", "del", network])
    assert eventually(steady.answers)


# The guard alone, a turn at a time ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def host(needs: None) -> Iterator[Guarded]:
    """A host whose service has ended, for guards that the tests make."""
    with guarded() as made:
        made.stop()
        yield made


def bridge_of(engine: Engine) -> str:
    return engine.network("blue").device


def test_who_may_not_hear_is_told_so(host: Guarded) -> None:
    def as_nobody() -> int:
        os.setresuid(65534, 65534, 65534)
        with pytest.raises(KernelRefused) as refused:
            Events(BUFFER_BYTES)
        return refused.value.errno

    assert host.host.call(as_nobody) == EPERM


def test_where_nobody_listens_any_more_the_watch_goes_on(host: Guarded) -> None:
    """Standard error is a pipe, and its reader is gone."""
    bridge = host.bridge
    command = [sys.executable, "-m", "vethwork", "serve", "--docker", host.socket]
    process = host.host.popen(
        command, env={"PYTHONPATH": SOURCE}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith("listening at")
    process.stdout.close()
    process.stderr.close()
    for _ in range(2):
        host.host.run(["ip", "link", "set", bridge, "down"])
        assert eventually(lambda: "UP" in links(host.host)[bridge]["flags"])
    process.terminate()
    assert process.wait(20) == 0


def test_what_was_not_heard_is_found(host: Guarded) -> None:
    """More happened than the socket holds, and then the damage (ENOBUFS)."""

    def work() -> tuple[list[str], list[str]]:
        said: list[str] = []
        with Engine() as engine, Guard(engine.owner_path, said.append, buffer_bytes=1) as guard:
            guard.begin(engine)
            guard.turn(0)
            before = list(said)
            for number in range(50):
                subprocess.run(["ip", "link", "set", "lo", "mtu", str(60000 + number)], check=True)
            subprocess.run(["ip", "link", "set", bridge_of(engine), "down"], check=True)
            subprocess.run(["ip", "link", "set", "lo", "mtu", "65536"], check=True)
            time.sleep(guards.REST_SECONDS)
            guard.turn(0)
            return before, said

    before, said = host.host.call(work)
    assert before == []
    assert any("was down: put back" in line for line in said)


def test_a_storm_is_one_look(host: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happens within a breath, and however much of it is lost, everything is looked at twice a second at most."""

    def work() -> int:
        looks = 0
        everything = Guard._everything

        def counted(self: Guard) -> set[tuple[str, str]]:
            nonlocal looks
            looks += 1
            return everything(self)

        monkeypatch.setattr(Guard, "_everything", counted)
        with Engine() as engine, Guard(engine.owner_path, print, buffer_bytes=1) as guard:
            guard.begin(engine)
            until = time.monotonic() + 2
            storm = subprocess.Popen(
                ["sh", "-c", "while ip link set lo mtu 60000; do ip link set lo mtu 65536; done"]
            )
            while time.monotonic() < until:
                guard.turn(0.1)
            storm.kill()
            storm.wait()
        return looks

    assert 2 <= host.host.call(work) <= 5


def test_where_the_kernel_knows_no_owner_the_ruleset_is_put_back(host: Guarded) -> None:
    def work() -> list[str]:
        said: list[str] = []
        with Engine() as engine, Guard(engine.owner_path, said.append, flags=0x40) as guard:
            guard.begin(engine)
            assert not guard.owns
            guard.turn(0)
            for attack in (
                "flush ruleset",
                "flush table inet vethwork",
                "delete element inet vethwork bridges { NAME }",
            ):
                before = len(said)
                words = attack.replace("NAME", bridge_of(engine)).split()
                subprocess.run(["nft", *words], check=True)
                until = time.monotonic() + 2 * guards.RULES_SECONDS
                while len(said) == before and time.monotonic() < until:
                    guard.turn(0.1)
        return said

    # What was owned once is anybody's, but has the flag that is left of it: it is loaded anew, as on an old kernel.
    host.host.run(["nft", "flush", "ruleset"])
    before = host.do("restore") and host.listing()
    assert host.host.call(work) == ["ruleset: was not what the records say: put back"] * 3
    assert host.listing() == before


def test_what_an_intent_explains_is_waited_for(host: Guarded) -> None:
    """Somebody lays a link and is not done: the guard does not wait for him, nor does it take his work for damage."""

    def work() -> tuple[list[str], int, list[str]]:
        said: list[str] = []
        with Engine() as engine, Guard(engine.owner_path, said.append) as guard:
            guard.begin(engine)
            guard.turn(0)
            endpoint = engine.store.endpoints()[0]
            with Locks(f"{engine.root}/locks") as locks:
                locks.container("c")
                locks.world(exclusive=False)
                with engine.store.transaction():
                    number = engine.store.intend(plan := Plan("restore", "c", ()))
                subprocess.run(["ip", "link", "set", endpoint.host_ifname, "down"], check=True)
                started = time.monotonic()
                for _ in range(5):
                    guard.turn(0)
                waited = time.monotonic() - started
                meanwhile = list(said)
                with engine.store.transaction():
                    engine.store.settle(number, plan)
            time.sleep(guards.WAIT_SECONDS)
            guard.turn(0)
            return meanwhile, int(waited), said

    meanwhile, waited, said = host.host.call(work)
    assert (meanwhile, waited) == ([], 0)
    assert [line.endswith("was down: put back") for line in said] == [True]


def test_who_never_stops_is_left_alone_for_a_while(host: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> tuple[list[str], list[str]]:
        said: list[str] = []
        repaired: list[str] = []
        monkeypatch.setattr(guards, "OFTEN", 3)
        with Engine() as engine, Guard(engine.owner_path, said.append, repaired.append) as guard:
            guard.begin(engine)
            guard.turn(0)
            for _ in range(6):
                subprocess.run(["ip", "link", "set", bridge_of(engine), "down"], check=True)
                guard.turn(1)
            monkeypatch.setattr(guards, "monotonic", lambda: time.monotonic() + guards.TRUCE_SECONDS + 1)
            guard.turn(0)
            return [line for line in said if "down" in line or "keeps" in line], repaired

    said, repaired = host.host.call(work)
    assert ["keeps" in line for line in said] == [False] * 4 + [True, False]
    assert repaired == ["network"] * 5
