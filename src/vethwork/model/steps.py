"""Steps: the small facts that a plan is made of. Each says itself as commands, and names its own opposite.

Rules: a step is data; ``kernel`` does it. ``describe()`` gives shell commands that do the same job when pasted as root.
``undo()`` gives the steps that take it back, which must be harmless where the step was never done, or is undone already.
A namespace is named by its path; the empty path is the host's own. Doing a step twice is harmless wherever the kernel
can tell (an address that is there already is fine); a link that exists already is a refusal, for it may be somebody's.
"""

from __future__ import annotations

from vethwork.model.address import Address, Interface, Mac, Prefix
from vethwork.model.record import Record
from vethwork.model.ruleset import Element, Table

LINK_GROUP = 0x76657468
"""The link group ("veth" in ASCII) that every link of ours carries from its first moment: our mark in the kernel."""
RETIRED_GROUP = LINK_GROUP + 1
"""The group of those that are down for ever, and will be deleted together."""

ROUTE_MARK = 0x76
"""The routing protocol ("v" in ASCII) of our routes that lead nowhere, and so carry the mark of no link."""

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-")


def quoted(path: str) -> str:
    """Spell a path so that a shell takes it as one word, whatever is in it."""
    if path and _PLAIN.issuperset(path):
        return path
    return "'" + path.replace("'", "'\\''") + "'"


def in_netns(netns: str, command: str) -> str:
    """Spell a command so that it runs in a namespace."""
    return f"nsenter --net={quoted(netns)} {command}" if netns else command


def ip_in(netns: str, rest: str) -> str:
    """Spell an ``ip`` command for a namespace."""
    return in_netns(netns, f"ip {rest}")


def _nft(*lines: str) -> str:
    return "nft -f - <<'END'\n" + "".join([f"{line}\n" for line in lines]) + "END"


def _replace_table(table: Table) -> tuple[str, ...]:
    name = f"table {table.family} {table.name}"
    return (f"add {name}", f"delete {name}", str(table).rstrip("\n"))


def _lines(verb: str, elements: tuple[Element, ...]) -> list[str]:
    return [f"{verb} element {each.family} vethwork {each.set} {{ {each} }}" for each in elements]


class Step(Record):
    """The base of all steps."""

    def describe(self) -> tuple[str, ...]:
        """The commands that a person would have typed for it."""
        raise NotImplementedError

    def undo(self) -> tuple[Step, ...]:
        """The steps that take it back; none where there is nothing to take back."""
        return ()


class PinNetns(Step):
    """Make a network namespace and keep it alive by a bind mount at ``path``, so that it outlives its processes."""

    path: str

    def describe(self) -> tuple[str, ...]:
        directory, path = quoted(self.path.rpartition("/")[0]), quoted(self.path)
        return (f"mkdir -p {directory} && touch {path} && unshare --net={path} true",)

    def undo(self) -> tuple[Step, ...]:
        return (UnpinNetns(self.path),)


class UnpinNetns(Step):
    """Let go of a pinned namespace; the kernel takes it down, and every veth in it, when its last process ends."""

    path: str

    def describe(self) -> tuple[str, ...]:
        return (f"umount -lq {quoted(self.path)} || true; rm -f {quoted(self.path)}",)


class CreateBridge(Step):
    """Make a bridge on the host, with a MAC address of its own that does not follow its ports."""

    ifname: str
    mac: Mac
    mtu: int

    def describe(self) -> tuple[str, ...]:
        return (
            f"ip link add {self.ifname} mtu {self.mtu} address {self.mac} group {LINK_GROUP} type bridge",
        )

    def undo(self) -> tuple[Step, ...]:
        return (DeleteLink("", self.ifname, self.mac),)


class CreateVeth(Step):
    """Make a veth pair, each end in its final namespace under its final name; the host end up and in its bridge.

    ``master`` empty leaves the host end down and in no bridge. ``mtu`` is in bytes. With an empty ``netns`` the inner end
    stays on the host, down, for somebody else to move.
    """

    host_ifname: str
    master: str
    netns: str
    ifname: str
    mac: Mac
    mtu: int

    def describe(self) -> tuple[str, ...]:
        mark = "" if self.master else f" group {LINK_GROUP}"
        where = f" netns {quoted(self.netns)}" if self.netns else ""
        peer = f"peer name {self.ifname} address {self.mac} mtu {self.mtu}{mark}{where}"
        make = f"ip link add {self.host_ifname} mtu {self.mtu} group {LINK_GROUP} type veth {peer}"
        return (make, f"ip link set {self.host_ifname} master {self.master} up") if self.master else (make,)

    def undo(self) -> tuple[Step, ...]:
        return (DeleteLink("", self.host_ifname),)


class MoveLink(Step):
    """Move a link to another namespace under another name and MAC address; it arrives down."""

    netns: str
    ifname: str
    mac: Mac
    to_netns: str
    to_ifname: str
    to_mac: Mac

    def describe(self) -> tuple[str, ...]:
        target = quoted(self.to_netns) if self.to_netns else "/proc/$$/ns/net"
        move = f"ip link set {self.ifname} down name {self.to_ifname} address {self.to_mac} netns {target}"
        return (in_netns(self.netns, move),)

    def undo(self) -> tuple[Step, ...]:
        return (MoveLink(self.to_netns, self.to_ifname, self.to_mac, self.netns, self.ifname, self.mac),)


class DeleteLink(Step):
    """Delete a link (with a veth, its peer too). One that is gone already is fine; one without our mark is not touched.

    Nor is one that has another MAC address than ``mac``, if that is known: somebody made it in the place of ours.
    """

    netns: str
    ifname: str
    mac: Mac | None = None

    def describe(self) -> tuple[str, ...]:
        return (ip_in(self.netns, f"link del {self.ifname}"),)


class CreateMacvlan(Step):
    """Make a macvlan on a link of the host, directly in a container. ``mac`` None is the parent's own (passthru)."""

    parent: str
    netns: str
    ifname: str
    mac: Mac | None
    mtu: int
    mode: str

    def describe(self) -> tuple[str, ...]:
        mac = f" address {self.mac}" if self.mac else ""
        made = f"ip link add {self.ifname} link {self.parent} mtu {self.mtu}{mac} group {LINK_GROUP}"
        return (f"{made} netns {quoted(self.netns)} type macvlan mode {self.mode}",)

    def undo(self) -> tuple[Step, ...]:
        return (DeleteLink(self.netns, self.ifname, self.mac),)


class SetLinkUp(Step):
    """Bring a link up."""

    netns: str
    ifname: str

    def describe(self) -> tuple[str, ...]:
        return (ip_in(self.netns, f"link set {self.ifname} up"),)


class SetLink(Step):
    """Give a link of the host its MAC address and its MTU back."""

    ifname: str
    mac: Mac
    mtu: int

    def describe(self) -> tuple[str, ...]:
        return (f"ip link set {self.ifname} address {self.mac} mtu {self.mtu} group {LINK_GROUP}",)


class AddAddress(Step):
    """Give a link an address. IPv6 skips duplicate address detection: who has which address is on record."""

    netns: str
    ifname: str
    interface: Interface

    def describe(self) -> tuple[str, ...]:
        more = " nodad" if self.interface.address.version == 6 else ""
        if self.interface.address.version == 4 and self.interface.length < 31:
            more = f" brd {self.interface.prefix.last}"
        return (ip_in(self.netns, f"addr replace {self.interface} dev {self.ifname}{more}"),)


class AddRoute(Step):
    """Add a route; ``prefix`` None is the default route. ``gateway`` None: what is there is on the link itself.

    ``metric`` 0 is the kernel's own choice. A ``kind`` other than ``unicast`` leads nowhere, by no link. ``instead`` is the
    interface whose route it takes the place of; any other's is refused.
    """

    netns: str
    ifname: str
    prefix: Prefix | None
    gateway: Address | None
    metric: int = 0
    kind: str = "unicast"
    instead: str = ""

    def describe(self) -> tuple[str, ...]:
        add = f"route {'replace' if self.instead else 'add'}"
        metric = f" metric {self.metric}" if self.metric else ""
        to = f"{self.prefix or 'default'}"
        if self.kind != "unicast":
            return (ip_in(self.netns, f"{add} {self.kind} {to} proto {ROUTE_MARK}{metric}"),)
        via = f" via {self.gateway}" if self.gateway else ""
        return (ip_in(self.netns, f"{add} {to}{via} dev {self.ifname} proto static{metric}"),)

    def undo(self) -> tuple[Step, ...]:
        if self.kind == "unicast" or self.prefix is None:
            return ()  # it goes with its link
        return (DeleteRoute(self.netns, self.prefix, self.metric, self.kind),)


class DeleteRoute(Step):
    """Delete a route of ours that leads nowhere, and so does not go with a link. One that is gone already is fine."""

    netns: str
    prefix: Prefix
    metric: int
    kind: str

    def describe(self) -> tuple[str, ...]:
        metric = f" metric {self.metric}" if self.metric else ""
        route = f"{self.kind} {self.prefix} proto {ROUTE_MARK}{metric}"
        return (ip_in(self.netns, f"route del {route} 2>/dev/null || true"),)


class JoinBridge(Step):
    """Put a link that lost its bridge back into it, and bring it up; ``hairpin`` as it was. One that is gone is fine."""

    ifname: str
    bridge: str
    hairpin: bool = False

    def describe(self) -> tuple[str, ...]:
        join = f"ip link set {self.ifname} master {self.bridge} up"
        return (join, *HairpinPort(self.ifname).describe()) if self.hairpin else (join,)


class HairpinPort(Step):
    """Let a bridge send a frame back by the port that it came by (IFLA_BRPORT_MODE).

    With br_netfilter, that is the way of a container to its own published port: the kernel bridges what was rewritten
    to the bridge that it came from.
    """

    ifname: str

    def describe(self) -> tuple[str, ...]:
        return (f"bridge link set dev {self.ifname} hairpin on",)


class SetSysctl(Step):
    """Write a sysctl of a namespace, given as its path under /proc/sys/net; not written where it has the value already.

    ``before`` is the value that it had, for one that does not go with its link; empty where nothing is to be taken back.
    """

    netns: str
    path: str
    value: str
    before: str = ""

    def describe(self) -> tuple[str, ...]:
        # With slashes, sysctl(8) takes a path: the dots in an interface's name stay dots.
        setting = f"{quoted(f'net/{self.path}')}={quoted(self.value)}"
        return (in_netns(self.netns, f"sysctl -qw {setting}"),)

    def undo(self) -> tuple[Step, ...]:
        return (SetSysctl(self.netns, self.path, self.before, self.value),) if self.before else ()


class LoadRuleset(Step):
    """Replace the whole of our two tables by the static ruleset and these elements, in one atomic batch."""

    tables: tuple[Table, ...]
    elements: tuple[Element, ...]

    def describe(self) -> tuple[str, ...]:
        return (
            _nft(
                *[line for table in self.tables for line in _replace_table(table)],
                *_lines("add", self.elements),
            ),
        )


class ChangeElements(Step):
    """Delete and add elements of our sets in one atomic batch; deletions go first."""

    deletes: tuple[Element, ...]
    adds: tuple[Element, ...]

    def describe(self) -> tuple[str, ...]:
        return (_nft(*_lines("delete", self.deletes), *_lines("add", self.adds)),)

    def undo(self) -> tuple[Step, ...]:
        return (ChangeElements(self.adds, self.deletes),)


class ForgetFlows(Step):
    """Delete the conntrack entries that were sent to a range of this host's ports, so that no flow keeps an old way.

    ``host_ip`` None: to any address of the host. Flows that merely pass through the host are left alone.
    """

    protocol: str
    host_ip: Address | None
    first: int
    last: int

    def describe(self) -> tuple[str, ...]:
        to = f" --orig-dst {self.host_ip}" if self.host_ip and not self.host_ip.is_any else ""
        family = f"-f ipv{self.host_ip.version} " if self.host_ip else ""
        one = self.first == self.last
        port = str(self.first) if one else "$port"
        forget = f"conntrack -D {family}-p {self.protocol} --dport {port}{to} 2>/dev/null || true"
        return (forget if one else f"for port in $(seq {self.first} {self.last}); do {forget}; done",)
