"""A kernel made of dicts: it does every step and refuses what the real one refuses, so that whole plans can be tried purely.

Where ``kernel`` makes a step harmless (a link that is gone, an element that is there), so does this one. What it is held
against is the machine itself: the kernel tests do the same steps there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from errno import EACCES, EEXIST, EINVAL, ENETUNREACH, ENODEV, ENOENT, EXFULL
from typing import TYPE_CHECKING, Any

from vethwork.model import steps as do
from vethwork.model.address import Address, Interface, Mac, Prefix
from vethwork.model.ruleset import Span
from vethwork.model.shaping import CreateIfb, DivertIngress, Rate, ShapeLink
from vethwork.plan.ruleset import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vethwork.model.ruleset import Element, Set

BRIDGE_PORTS = 1023
HOST = ""


class Refused(Exception):
    """The fake says no, as the kernel would."""

    def __init__(self, errno: int, step: do.Step) -> None:
        super().__init__(errno, step)
        self.errno = errno


@dataclass
class FakeLink:
    """A link; ``number`` is its identity, ``peer`` that of a veth's other end."""

    number: int
    kind: str
    mac: Mac
    mtu: int
    ours: bool = True
    up: bool = False
    master: int = 0
    peer: int = 0
    hairpin: bool = False
    rate: Rate | None = None
    diverted: str = ""
    addresses: frozenset[Interface] = frozenset()
    sysctls: dict[str, str] = field(default_factory=dict)


Route = tuple[Prefix | int, int, str, int, Address | None]
"""Where to (an IP version: everywhere), metric, kind, the link's number (0: none), and by which gateway."""
Key = tuple[str, str, tuple[Any, ...]]


@dataclass
class FakeKernel:
    """The machine: links and routes by namespace, sysctls that go with no link, elements, and pinned paths."""

    links: dict[str, dict[str, FakeLink]] = field(default_factory=lambda: {HOST: {}})
    routes: dict[str, frozenset[Route]] = field(default_factory=lambda: {HOST: frozenset()})
    sysctls: dict[str, str] = field(default_factory=dict)
    elements: dict[Key, tuple[Any, ...]] = field(default_factory=dict)
    pins: frozenset[str] = frozenset()
    made: int = 0

    def copy(self) -> FakeKernel:
        """Another machine, just like this one. What does not change is shared."""
        links = {
            netns: {name: replace(link, sysctls=dict(link.sysctls)) for name, link in there.items()}
            for netns, there in self.links.items()
        }
        return FakeKernel(
            links, dict(self.routes), dict(self.sysctls), dict(self.elements), self.pins, self.made
        )

    def state(self) -> FakeKernel:
        """A copy to compare with later. How many links were ever made does not count, nor the MAC address of a cable's end
        that nobody uses."""
        found = replace(self.copy(), made=0)
        for link in found.links[HOST].values():
            if link.kind == "veth" and not link.up:
                link.mac = Mac(0)
        return found

    def add_namespace(self, path: str) -> None:
        """A namespace; in one that somebody else made, loopback is up."""
        self.links[path] = {"lo": FakeLink(0, "", Mac(0), 65535, ours=False, up=path not in self.pins)}
        self.routes[path] = frozenset()

    def end_namespace(self, path: str) -> None:
        """Its last process ends, and everything in it goes."""
        for name in list(self.links[path]):
            self._delete(path, name)
        del self.links[path], self.routes[path]

    def apply(self, steps: Iterable[do.Step]) -> None:
        """Do steps in order. Raises Refused at the first that fails."""
        for step in steps:
            DOERS[type(step)](self, step)

    def attempt(self, steps: Iterable[do.Step]) -> list[Refused]:
        """Do every step, whatever becomes of the others; give what failed."""
        failed: list[Refused] = []
        for step in steps:
            try:
                self.apply((step,))
            except Refused as error:
                failed.append(error)
        return failed

    # Links.

    def _number(self) -> int:
        self.made += 1
        return self.made

    def _links(self, netns: str, step: do.Step) -> dict[str, FakeLink]:
        if netns not in self.links:
            raise Refused(ENOENT, step)
        return self.links[netns]

    def _link(self, netns: str, ifname: str, step: do.Step) -> FakeLink:
        found = self._links(netns, step).get(ifname)
        if found is None:
            raise Refused(ENODEV, step)
        return found

    def _make(self, netns: str, ifname: str, link: FakeLink, step: do.Step) -> None:
        if (
            not 0 < len(ifname) <= 15
            or ifname in ("all", "default", ".", "..")
            or not 68 <= link.mtu <= 65535
        ):
            raise Refused(EINVAL, step)
        if ifname in self._links(netns, step):
            raise Refused(EEXIST, step)
        self.links[netns][ifname] = link

    def _delete(self, netns: str, ifname: str) -> None:
        link = self.links[netns].pop(ifname)
        self.routes[netns] = frozenset(
            each for each in self.routes[netns] if not each[3] or each[3] != link.number
        )
        for other_netns, links in self.links.items():
            for name, other in list(links.items()):
                if link.peer and other.number == link.peer:
                    other.peer = 0
                    self._delete(other_netns, name)
                elif other.master == link.number and link.number:
                    other.master = 0

    def pin(self, step: do.PinNetns) -> None:
        """EEXIST if the path is taken."""
        if step.path in self.links:
            raise Refused(EEXIST, step)
        self.pins |= {step.path}
        self.add_namespace(step.path)

    def unpin(self, step: do.UnpinNetns) -> None:
        """No process lives in it here, so it ends."""
        if step.path in self.pins:
            self.end_namespace(step.path)
            self.pins -= {step.path}

    def create_bridge(self, step: do.CreateBridge) -> None:
        """Its very own bridge may be there."""
        there = self.links[HOST].get(step.ifname)
        if there is None or not there.ours or there.mac != step.mac:
            self._make(HOST, step.ifname, FakeLink(self._number(), "bridge", step.mac, step.mtu), step)

    def create_veth(self, step: do.CreateVeth) -> None:
        """Both ends or none."""
        master = 0
        if step.master:
            bridge = self._link(HOST, step.master, step)
            master = bridge.number
            if sum(link.master == master for link in self.links[HOST].values()) >= BRIDGE_PORTS:
                raise Refused(EXFULL, step)
        if step.ifname in self._links(step.netns, step):
            raise Refused(EEXIST, step)
        near, far = self._number(), self._number()
        link = FakeLink(near, "veth", Mac(0), step.mtu, up=bool(master), master=master, peer=far)
        self._make(HOST, step.host_ifname, link, step)
        # A container's end of a bridged pair does not carry our mark: it goes with the other end.
        end = FakeLink(far, "veth", step.mac, step.mtu, ours=not step.master, peer=near)
        self._make(step.netns, step.ifname, end, step)

    def create_macvlan(self, step: do.CreateMacvlan) -> None:
        """It cannot be larger than what it sits on."""
        parent = self._link(HOST, step.parent, step)
        if step.mtu > parent.mtu:
            raise Refused(EINVAL, step)
        link = FakeLink(self._number(), f"macvlan {step.mode}", step.mac or parent.mac, step.mtu)
        self._make(step.netns, step.ifname, link, step)

    def move_link(self, step: do.MoveLink) -> None:
        """It arrives down and bare. One that is gone, and one without our mark, is left alone."""
        link = self.links.get(step.netns, {}).get(step.ifname)
        if link is None or not link.ours:
            return
        if step.to_ifname in self._links(step.to_netns, step):
            raise Refused(EEXIST, step)
        self.routes[step.netns] = frozenset(
            each for each in self.routes[step.netns] if each[3] != link.number
        )
        del self.links[step.netns][step.ifname]
        moved = replace(
            link, up=False, master=0, hairpin=False, addresses=frozenset(), sysctls={}, mac=step.to_mac
        )
        self.links[step.to_netns][step.to_ifname] = moved

    def delete_link(self, step: do.DeleteLink) -> None:
        """One that is gone, and one without our mark, is left alone."""
        link = self.links.get(step.netns, {}).get(step.ifname)
        if link is not None and link.ours:
            self._delete(step.netns, step.ifname)

    def set_up(self, step: do.SetLinkUp) -> None:
        """Up."""
        self._link(step.netns, step.ifname, step).up = True

    def set_link(self, step: do.SetLink) -> None:
        """The mark comes with it."""
        link = self._link(HOST, step.ifname, step)
        link.mac, link.mtu, link.ours = step.mac, step.mtu, True

    def join_bridge(self, step: do.JoinBridge) -> None:
        """One that is gone is left alone."""
        bridge = self._link(HOST, step.bridge, step)
        link = self.links[HOST].get(step.ifname)
        if link is not None:
            link.master, link.up, link.hairpin = bridge.number, True, step.hairpin

    def hairpin(self, step: do.HairpinPort) -> None:
        """Only a bridge's port has it."""
        link = self._link(HOST, step.ifname, step)
        if not link.master:
            raise Refused(EINVAL, step)
        link.hairpin = True

    def create_ifb(self, step: CreateIfb) -> None:
        """Up."""
        self._make(HOST, step.ifname, FakeLink(self._number(), "ifb", Mac(0), step.mtu, up=True), step)

    def divert(self, step: DivertIngress) -> None:
        """To a link that is there."""
        self._link(HOST, step.ifb, step)
        self._link(HOST, step.ifname, step).diverted = step.ifb

    def shape(self, step: ShapeLink) -> None:
        """What leaves."""
        self._link(HOST, step.ifname, step).rate = step.rate

    # Addresses, routes, sysctls.

    def add_address(self, step: do.AddAddress) -> None:
        """IPv6 is refused where it is turned off, or where the MTU is too small for it."""
        link = self._link(step.netns, step.ifname, step)
        if step.interface.address.version == 6:
            if link.sysctls.get("ipv6/disable_ipv6") == "1":
                raise Refused(EACCES, step)
            if link.mtu < 1280:
                raise Refused(EINVAL, step)
        link.addresses |= {step.interface}

    def add_route(self, step: do.AddRoute) -> None:
        """One to the same place of the same metric is refused, or replaced; the gateway must be on a link that is up."""
        self._links(step.netns, step)
        number = 0
        if step.kind == "unicast":
            link = self._link(step.netns, step.ifname, step)
            near = any(step.gateway in each.prefix for each in link.addresses if step.gateway is not None)
            if not link.up or (step.gateway is not None and not near):
                raise Refused(ENETUNREACH, step)
            number = link.number
        assert step.prefix is not None or step.gateway is not None
        to = step.prefix or (step.gateway.version if step.gateway is not None else 0)
        kept = [each for each in self.routes[step.netns] if each[:2] != (to, step.metric)]
        held = [each for each in self.routes[step.netns] if each not in kept]
        if not step.instead and any(each[3] != number for each in held):
            raise Refused(EEXIST, step)
        self.routes[step.netns] = frozenset([*kept, (to, step.metric, step.kind, number, step.gateway)])

    def delete_route(self, step: do.DeleteRoute) -> None:
        """One that is gone is fine, and so is a namespace that is gone."""
        if step.netns in self.routes:
            gone = (step.prefix, step.metric, step.kind)
            self.routes[step.netns] = frozenset(each for each in self.routes[step.netns] if each[:3] != gone)

    def set_sysctl(self, step: do.SetSysctl) -> None:
        """Those of a link go with it."""
        family, kind, *rest = step.path.split("/")
        if kind == "conf" and rest[0] not in ("all", "default"):
            self._link(step.netns, "/".join(rest[:-1]), step).sysctls[f"{family}/{rest[-1]}"] = step.value
        else:
            self.sysctls[step.path] = step.value

    # The ruleset.

    def load_ruleset(self, step: do.LoadRuleset) -> None:
        """All anew."""
        self.elements = {}
        self._add(step.elements, step)

    def change_elements(self, step: do.ChangeElements) -> None:
        """All or nothing; to delete what is gone, and to add what is there, is fine."""
        before = dict(self.elements)
        for each in step.deletes:
            self.elements.pop((each.family, each.set, each.key), None)
        try:
            self._add(step.adds, step)
        except Refused:
            self.elements = before
            raise

    def _add(self, elements: Iterable[Element], step: do.Step) -> None:
        for each in elements:
            declared = _SETS.get((each.family, each.set))
            if declared is None:
                raise Refused(ENOENT, step)
            if len(each.key) != len(declared.key) or len(each.data) != len(declared.data):
                raise Refused(EINVAL, step)
            key = (each.family, each.set, each.key)
            if key in self.elements and self.elements[key] != each.data:
                raise Refused(EEXIST, step)
            if (
                declared.interval
                and key not in self.elements
                and any(_clash(key, other) for other in self.elements)
            ):
                raise Refused(EEXIST, step)
            self.elements[key] = each.data

    def forget_flows(self, step: do.ForgetFlows) -> None:
        """There are no flows here."""


_SETS: dict[tuple[str, str], Set] = {
    (table.family, each.name): each for table in TABLES for each in table.sets
}


def _clash(one: Key, other: Key) -> bool:
    """Whether two keys of a set with intervals overlap."""
    return one[:2] == other[:2] and all(_meet(*pair) for pair in zip(one[2], other[2], strict=True))


def _meet(one: Any, other: Any) -> bool:
    (low, high), (other_low, other_high) = _range(one), _range(other)
    return bool(low <= other_high and other_low <= high)


def _range(atom: Any) -> tuple[Any, Any]:
    if isinstance(atom, Span):
        return atom.first, atom.last
    if isinstance(atom, Prefix):
        return atom.address.value, atom.last.value
    if isinstance(atom, Address):
        return atom.value, atom.value
    return atom, atom


DOERS: dict[type[do.Step], Callable[[FakeKernel, Any], None]] = {
    do.PinNetns: FakeKernel.pin,
    do.UnpinNetns: FakeKernel.unpin,
    do.CreateBridge: FakeKernel.create_bridge,
    do.CreateVeth: FakeKernel.create_veth,
    do.CreateMacvlan: FakeKernel.create_macvlan,
    do.MoveLink: FakeKernel.move_link,
    do.DeleteLink: FakeKernel.delete_link,
    CreateIfb: FakeKernel.create_ifb,
    DivertIngress: FakeKernel.divert,
    ShapeLink: FakeKernel.shape,
    do.SetLinkUp: FakeKernel.set_up,
    do.SetLink: FakeKernel.set_link,
    do.JoinBridge: FakeKernel.join_bridge,
    do.HairpinPort: FakeKernel.hairpin,
    do.AddAddress: FakeKernel.add_address,
    do.AddRoute: FakeKernel.add_route,
    do.DeleteRoute: FakeKernel.delete_route,
    do.SetSysctl: FakeKernel.set_sysctl,
    do.LoadRuleset: FakeKernel.load_ruleset,
    do.ChangeElements: FakeKernel.change_elements,
    do.ForgetFlows: FakeKernel.forget_flows,
}
