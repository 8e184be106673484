"""A small world on one machine: a host, its neighbour, and an internet, each in a private network namespace.

    internet ---- router ---- wire ---- host        (an engine plays here)
                                |
                             neighbour

Both IPv4 and IPv6 everywhere, in the ranges kept for documentation (RFC 5737, RFC 3849). The host and the neighbour send what
they do not know to the router. The router forwards, and the internet knows the way to the wire, but neither has ever
heard of a container's subnet: a packet that leaves the host under a container's address gets no answer. With
``other_wire`` the host has a second interface, ``eth1``, and a second neighbour there.

    >>> from vethwork.testing.lab import Lab
    >>> with Lab() as lab:
    ...     server = lab.host.serve_http(8080)
    ...     seen = lab.neighbour.connect(lab.host.v4, 8080)
    >>> seen.peer
    '192.0.2.3'

A container is a bare namespace, as a runtime makes them, for an engine on the host to attach:

    >>> with Lab() as lab:
    ...     container = lab.container("web")
    ...     print(container.ping("127.0.0.1"), len(container.addresses))
    False 0

Rules: nothing of the machine's own network is read or changed. Namespaces are pinned below a private temporary directory, as
is everything that an engine on one of the machines writes (VETHWORK_ROOT, VETHWORK_RUN). At the end, also after an
exception, what the lab started is killed and what is mounted below that directory is unmounted; then it is removed.
Needs root, or CAP_SYS_ADMIN and CAP_NET_ADMIN.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from typing import TYPE_CHECKING

from vethwork.kernel import libc
from vethwork.kernel.netns import pin
from vethwork.model.address import Address, Interface, Mac, Prefix
from vethwork.model.steps import AddAddress, CreateBridge, CreateVeth, SetLinkUp
from vethwork.testing.machine import Machine
from vethwork.testing.processes import Processes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

MTU = 1500
SETTLE_SECONDS = 5.0
MARK = "VETHWORK_LAB"
ROUTER, HOST, NEIGHBOUR = 1, 2, 3
"""A machine's number on a wire is the last of its addresses."""

# What a namespace takes over from the machine it is made on is set here instead, so that a lab is the same everywhere.
SYSCTLS = {
    "ipv4/ip_forward": "0",
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
    "ipv4/conf/all/route_localnet": "0",
    "ipv4/conf/default/route_localnet": "0",
    "ipv6/conf/all/forwarding": "0",
}
ROUTER_SYSCTLS = {"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"}
# A switch has no business with IP: no address of its own on any port, and no firewall.
SWITCH_SYSCTLS = {
    "ipv6/conf/all/disable_ipv6": "1",
    "ipv6/conf/default/disable_ipv6": "1",
    "bridge/bridge-nf-call-iptables": "0",
    "bridge/bridge-nf-call-ip6tables": "0",
    "bridge/bridge-nf-call-arptables": "0",
}


class Wire:
    """An Ethernet that machines are plugged into: a bridge in a namespace of its own."""

    def __init__(self, switch: Machine, number: int, *prefixes: str) -> None:
        self.prefixes = tuple(Prefix.parse(prefix) for prefix in prefixes)
        self._switch = switch
        self._number = number
        self._ends: list[tuple[Machine, str, tuple[Address, ...]]] = []
        for path, value in SWITCH_SYSCTLS.items():
            if switch.sysctl(path) is not None:
                switch.set_sysctl(path, value)
        with switch.door() as door:
            door.create_bridge(CreateBridge("switch", self.mac(0), MTU))
            door.set_up(SetLinkUp("", "switch"))

    def mac(self, number: int) -> Mac:
        """The Ethernet address of the machine with that number."""
        return Mac(0x02 << 40 | self._number << 8 | number)

    def addresses(self, number: int) -> tuple[Interface, ...]:
        """The addresses of the machine with that number."""
        return tuple(Interface(prefix.address + number, prefix.length) for prefix in self.prefixes)

    def plug(self, machine: Machine, ifname: str, number: int) -> None:
        """Give a machine an interface on the wire, with the addresses of its number."""
        port = f"port{len(self._ends) // 2 + 1}"
        awaited = tuple(each.address for each in self.addresses(number) if each.address.version == 6)
        self._ends += [(self._switch, port, ()), (machine, ifname, awaited)]
        step = CreateVeth(port, "switch", machine.path, ifname, self.mac(number), MTU)
        with self._switch.door() as door:
            door.create_veth(step, machine.fd)
        # Nobody else can have the addresses, so nobody needs to wait a second to find out.
        machine.set_sysctl(f"ipv6/conf/{ifname}/accept_dad", "0")
        with machine.door() as door:
            door.set_up(SetLinkUp("", ifname))
            for interface in self.addresses(number):
                door.add_address(AddAddress("", ifname, interface))

    def settle(self) -> None:
        """Wait until its machines hear each other. Raises TimeoutError.

        The kernel activates a link, opens its bridge port and joins the multicast group of an IPv6 address in workers
        (net/core/link_watch.c, net/ipv6/addrconf.c), mostly within a millisecond. What asks for an address before
        is not heard, and asks again only after a second.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        waiting = list(self._ends)
        while waiting:
            machine, ifname, addresses = waiting[0]
            if machine.is_running(ifname) and all(machine.listens_for(each, ifname) for each in addresses):
                waiting.pop(0)
            elif time.monotonic() < deadline:
                time.sleep(0.0005)
            else:
                raise TimeoutError(f"{ifname} of {machine.name} did not come up")
        with self._switch.door() as door:
            door.set_up(
                SetLinkUp("", "switch")
            )  # no news to it, but it waits for the lock that the worker holds


class Lab:
    """The world in the module's docstring; a context manager.

    ``directory`` is its private one. ``other_neighbour`` is there with ``other_wire`` only.
    """

    directory: str
    host: Machine
    neighbour: Machine
    router: Machine
    internet: Machine
    other_neighbour: Machine

    def __init__(self, *, other_wire: bool = False) -> None:
        self._wants_other_wire = other_wire
        self._machines: list[Machine] = []

    def __enter__(self) -> Self:
        self.directory = tempfile.mkdtemp(prefix="vethwork-lab-")
        self._processes = Processes(f"{MARK}={self.directory}")
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything in it and remove it. Doing it twice is harmless."""
        try:
            seen = [os.fstat(machine.fd) for machine in self._machines]
            self._processes.end({(each.st_dev, each.st_ino) for each in seen} - {_own_namespace()})
        finally:
            while self._machines:
                self._machines.pop().close()
            for path in reversed(mounts_below(self.directory)):
                libc.umount(path, libc.MNT_DETACH)
            shutil.rmtree(self.directory, ignore_errors=True)

    def container(self, name: str) -> Machine:
        """A bare namespace, pinned: its loopback is down, and nothing else is there."""
        path = f"{self.directory}/netns/{name}"
        pin(path)
        return self.at(path, name)

    def at(self, path: str, name: str = "") -> Machine:
        """A namespace that somebody else made, for instance an engine, as a machine of this lab."""
        name = name or os.path.basename(path)
        environment = {
            MARK: self.directory,
            "VETHWORK_ROOT": f"{self.directory}/{name}/root",
            "VETHWORK_RUN": f"{self.directory}/{name}/run",
        }
        machine = Machine(name, path, self._processes, environment)
        self._machines.append(machine)
        return machine

    def _build(self) -> None:
        wire = Wire(self.container("wire"), 1, "192.0.2.0/24", "2001:db8:1::/64")
        cable = Wire(self.container("cable"), 2, "203.0.113.0/24", "2001:db8:2::/64")
        self.router = self._machine("router", ROUTER_SYSCTLS)
        self.host, self.neighbour, self.internet = map(self._machine, ("host", "neighbour", "internet"))
        wire.plug(self.router, "eth0", ROUTER)
        wire.plug(self.host, "eth0", HOST)
        wire.plug(self.neighbour, "eth0", NEIGHBOUR)
        # A veth whose ends have the same index, each in its namespace, is up up to a second late: its link event is
        # not urgent (linkwatch_urgent_event, net/core/link_watch.c). So what has an eth1 comes last on a wire.
        cable.plug(self.internet, "eth0", HOST)
        cable.plug(self.router, "eth1", ROUTER)
        for gateway in wire.addresses(ROUTER):
            self.host.add_route("default", gateway.address)
            self.neighbour.add_route("default", gateway.address)
        for prefix, gateway in zip(wire.prefixes, cable.addresses(ROUTER), strict=True):
            self.internet.add_route(prefix, gateway.address)
        if self._wants_other_wire:
            other = Wire(self.container("other-wire"), 3, "198.51.100.0/24", "2001:db8:3::/64")
            self.other_neighbour = self._machine("other-neighbour")
            other.plug(self.other_neighbour, "eth0", NEIGHBOUR)
            other.plug(self.host, "eth1", HOST)
            other.settle()
        wire.settle()
        cable.settle()

    def _machine(self, name: str, sysctls: Mapping[str, str] | None = None) -> Machine:
        machine = self.container(name)
        for path, value in (SYSCTLS | dict(sysctls or {})).items():
            machine.set_sysctl(path, value)
        with machine.door() as door:
            door.set_up(SetLinkUp("", "lo"))
        return machine


def _own_namespace() -> tuple[int, int]:
    """The namespace that this process is in, which may be one that it gave a lab itself (:meth:`Lab.at`)."""
    own = os.stat("/proc/self/ns/net")
    return own.st_dev, own.st_ino


def mounts_below(directory: str) -> list[str]:
    """What is mounted below a directory, in the order it was."""
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
        paths = [line.split(" ")[1] for line in file]
    # The kernel spells a space, a tab, a newline and a backslash in octal.
    spelled = [re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), path) for path in paths]
    return [path for path in spelled if path.startswith(f"{directory}/")]
