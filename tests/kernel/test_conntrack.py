"""Flows are forgotten that were sent to the host's ports, and no others. ``conntrack`` makes them, and tells what is left."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from vethwork.errors import KernelRefused
from vethwork.kernel import conntrack
from vethwork.kernel.conntrack import AT_ONCE, FLOWS_IN_A_WALK, forget_all
from vethwork.kernel.netlink import NETLINK_NETFILTER, NetlinkSocket
from vethwork.kernel.netns import inside, open_netns, pin, unpin
from vethwork.model.address import Address
from vethwork.model.steps import ForgetFlows
from vethwork.wire import conntrack as wire_conntrack
from vethwork.wire.conntrack import delete_flow, list_flows, parse_flow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

A = Address.parse
HOST4, HOST6, CONTAINER4, CONTAINER6 = "192.0.2.1", "2001:db8::1", "10.77.0.2", "fd00::2"
STATE = {
    "tcp": "--state ESTABLISHED -u SEEN_REPLY",
    "udp": "-u SEEN_REPLY",
    "sctp": "--state ESTABLISHED --orig-vtag 1 --reply-vtag 2",
}


class Host:
    """A namespace with conntrack entries in it."""

    def __init__(self, path: str) -> None:
        self.path = path
        pin(path)
        fd = open_netns(path)
        try:
            self.netlink = inside(fd, lambda: NetlinkSocket(NETLINK_NETFILTER))
        finally:
            os.close(fd)
        self.asked: list[Address] = []
        self.source_port = 40000

    def close(self) -> None:
        self.netlink.close()
        unpin(self.path)

    def run(self, *command: str) -> str:
        inner = ["nsenter", f"--net={self.path}", *command]
        return subprocess.run(inner, capture_output=True, text=True, timeout=60, check=True).stdout

    def flow(
        self, protocol: str, to: str, port: int, answers: str = "", zone: int = 0, source: str = ""
    ) -> str:
        """Add an entry, whose destination is rewritten where ``answers`` is given; gives how :meth:`left` tells of it."""
        source = source or ("198.51.100.9" if "." in to else "2001:db8:9::9")
        self.source_port += 1
        command = f"conntrack -I -p {protocol} -s {source} -d {to} --sport {self.source_port} --dport {port} -t 300 "
        command += f"-r {answers or to} -q {source} --reply-port-src {8080 if answers else port} "
        command += f"--reply-port-dst {self.source_port} "
        self.run(*command.split(), *STATE[protocol].split(), *(["--zone", str(zone)] if zone else []))
        return f"{protocol} {source} > {to} {port}" + (f" zone {zone}" if zone else "")

    def left(self) -> set[str]:
        """Which entries there are."""
        lines = [
            line
            for family in ("ipv4", "ipv6")
            for line in self.run("conntrack", "-L", "-f", family).splitlines()
        ]
        found = set()
        for line in lines:
            one = re.match(
                r"(\w+) .*? src=(\S+) dst=(\S+) sport=\d+ dport=(\d+) .*?(zone=(\d+))?( use=|$)", line
            )
            assert one, line
            found.add(f"{one[1]} {one[2]} > {one[3]} {one[4]}" + (f" zone {one[6]}" if one[6] else ""))
        return found

    def is_local(self, address: Address) -> bool:
        self.asked.append(address)
        return address in (A(HOST4), A(HOST6), A("192.0.2.2")) or address.is_loopback

    def forget(self, protocol: str, host_ip: str | None, first: int, last: int) -> int:
        where = None if host_ip is None else A(host_ip)
        return forget_all(self.netlink, [ForgetFlows(protocol, where, first, last)], self.is_local)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(str(tmp_path / "host"))
    try:
        yield host
    finally:
        host.close()


@pytest.mark.parametrize("protocol", ["tcp", "udp", "sctp"])
@pytest.mark.parametrize(("last", "walks"), [(443, "one walk"), (444, "many walks")], ids=str)
@pytest.mark.parametrize(
    ("host_ip", "hit"),
    [
        (None, {HOST4, HOST6, "192.0.2.2"}),
        ("0.0.0.0", {HOST4, "192.0.2.2"}),
        ("::", {HOST6}),
        (HOST4, {HOST4}),
        (HOST6, {HOST6}),
        ("192.0.2.7", set()),
        ("198.51.100.7", set()),
    ],
)
def test_only_what_was_sent_to_the_range_is_forgotten(
    host: Host,
    protocol: str,
    last: int,
    walks: str,
    host_ip: str | None,
    hit: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conntrack, "FLOWS_IN_A_WALK", FLOWS_IN_A_WALK if walks == "one walk" else 0)
    doomed: set[str] = set()
    safe: set[str] = set()
    for to, answers in (
        (HOST4, ""),
        (HOST6, ""),
        ("192.0.2.2", CONTAINER4),
        ("198.51.100.7", ""),
        ("2001:db8:8::7", ""),
    ):
        for port in (443, 444):
            (doomed if to in hit and port <= last else safe).add(host.flow(protocol, to, port, answers))
        safe.add(host.flow(protocol, to, 442))
        safe.add(host.flow(protocol, to, 445, answers))
        safe |= {host.flow(other, to, 443) for other in STATE if other != protocol}
    assert host.left() == doomed | safe
    assert host.forget(protocol, host_ip, 443, last) == len(doomed)
    assert host.left() == safe
    assert host.forget(protocol, host_ip, 443, last) == 0


def test_what_passes_through_is_left_alone(host: Host) -> None:
    """A container's own connections to port 443 of the world, and of a cluster's service address, which others rewrite."""
    passing = {
        host.flow("tcp", "198.51.100.7", 443, source=CONTAINER4),
        host.flow("tcp", "10.96.0.1", 443, answers="10.244.0.5", source=CONTAINER4),
        host.flow("tcp", "2001:db8:8::7", 443, source=CONTAINER6),
        host.flow("tcp", HOST4, 443, zone=7),
    }
    host.flow("tcp", HOST4, 443, answers=CONTAINER4)
    host.flow("tcp", HOST6, 443, answers=CONTAINER6)
    assert host.forget("tcp", None, 443, 443) == 2
    assert host.left() == passing


def test_the_host_is_asked_for_its_addresses_only_where_it_matters(host: Host) -> None:
    host.flow("tcp", HOST4, 80)
    host.flow("tcp", "198.51.100.7", 443)
    host.flow("udp", HOST4, 443)
    assert host.forget("tcp", HOST4, 443, 443) == 0
    assert host.asked == []
    host.flow("tcp", HOST4, 443)
    host.flow("tcp", HOST4, 443, source="198.51.100.10")
    assert host.forget("tcp", None, 443, 443) == 2
    assert sorted(host.asked) == [A(HOST4), A("198.51.100.7")]


@pytest.mark.parametrize("walks", ["one walk", "many walks"])
def test_many_steps_are_done_as_one(host: Host, walks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conntrack, "FLOWS_IN_A_WALK", FLOWS_IN_A_WALK if walks == "one walk" else 0)
    host.flow("udp", HOST4, 53)
    host.flow("tcp", HOST6, 443)
    host.flow("sctp", HOST4, 7)
    safe = {host.flow("tcp", HOST4, 53), host.flow("udp", HOST6, 53), host.flow("sctp", HOST4, 10)}
    steps = [
        ForgetFlows("udp", A(HOST4), 53, 53),
        ForgetFlows("tcp", None, 443, 443),
        ForgetFlows("tcp", None, 443, 443),
        ForgetFlows("sctp", A("0.0.0.0"), 6, 9),
    ]
    assert forget_all(host.netlink, steps, host.is_local) == 3
    assert host.left() == safe
    assert forget_all(host.netlink, [], host.is_local) == 0


def test_more_flows_than_one_datagram_deletes(host: Host) -> None:
    count = 2 * AT_ONCE + 3
    lines = [host.flow("udp", HOST4, 53, source=str(A("198.51.100.0") + n)) for n in range(count)]
    assert len(set(lines)) == count
    assert host.forget("udp", HOST4, 53, 53) == count
    assert host.left() == set()


def test_a_flow_that_went_by_itself_is_fine(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        host.flow("udp", HOST4, 53, source=str(A("198.51.100.0") + number))
    is_local = host.is_local

    def interfere(address: Address) -> bool:
        host.run("conntrack", "-D", "-p", "udp", "-s", "198.51.100.3")
        return is_local(address)

    monkeypatch.setattr(host, "is_local", interfere)
    host.forget("udp", None, 53, 53)
    assert host.left() == set()


def test_a_deletion_is_of_one_entry_only(host: Host) -> None:
    host.flow("udp", HOST4, 53)
    other = host.flow("udp", HOST4, 53, source="198.51.100.10")
    (flow,) = [
        flow
        for body in host.netlink.dump(list_flows(4, 17, None), "list")
        if (flow := parse_flow(body)).source == A("198.51.100.9")
    ]
    with pytest.raises(KernelRefused, match="ENOENT"):
        host.netlink.ask(delete_flow(flow.replace(identity=flow.identity ^ 1)), "delete what is like it")
    host.netlink.ask(delete_flow(flow), "delete it")
    assert host.left() == {other}


def test_without_conntrack_the_option_is_named(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel answers that knows no such subsystem: here, one that nobody has registered."""
    monkeypatch.setattr(wire_conntrack, "CT_GET_STATS", 99 << 8)
    with pytest.raises(KernelRefused, match=r"EINVAL.*CONFIG_NF_CT_NETLINK"):
        host.forget("tcp", None, 443, 443)
