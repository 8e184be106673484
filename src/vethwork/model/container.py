"""Containers and their endpoints, as they are on record, and what is asked of them.

Rules: a *container* is a network namespace with a name; what runs inside is a process that comes and goes. An *endpoint*
is one interface of a container on one network. A *publication* is one published range of ports, and belongs to an endpoint.
"""

from __future__ import annotations

from vethwork.errors import RequestError
from vethwork.model.address import Address, Interface, Mac
from vethwork.model.names import IfName, Name, NetnsPath
from vethwork.model.network import DEFAULT_NETWORK, Way
from vethwork.model.ports import Publish
from vethwork.model.process import ProcessRow
from vethwork.model.record import Record
from vethwork.model.shaping import Bandwidth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self


class Mode(Record):
    """How a container gets its network: ``host``, ``none``, ``container`` (of another), ``ns`` (at a path), or ``network``."""

    kind: str
    target: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``--net`` takes. Raises RequestError.

        >>> Mode.parse("container:web")
        Mode(kind='container', target='web')
        """
        kind, colon, target = text.partition(":")
        if not colon and kind in ("host", "none"):
            return cls(kind)
        if colon and kind == "container":
            return cls(kind, Name.parse(target))
        if colon and kind == "ns":
            return cls(kind, NetnsPath.parse(target))
        if colon:
            raise RequestError(
                f"network mode {text!r:.80}: unknown",
                hint="host, none, container:NAME, ns:PATH or a network's name",
            )
        return cls("network", Name.parse(text))

    def __str__(self) -> str:
        return (
            self.target
            if self.kind == "network"
            else f"{self.kind}:{self.target}"
            if self.target
            else self.kind
        )


AWAITED = NetnsPath("/proc/0/ns/net")
"""In place of a namespace that nobody has named yet: a path at which none can ever be, for no process has the number 0."""


class Container(Record):
    """A container on record.

    ``netns`` is the path of its namespace, empty for the host's own. ``pinned``: we made the namespace and unpin it when
    the container goes. ``mode`` is what was asked for, in ``--net``'s words. ``owner`` is the front-end that made it
    ("cli", "cni", ...), so that each collects only what is its own.

    ``handed``: somebody else moves the links that we make into a namespace of his, and configures them. Then ``netns`` is
    where he says that it is, which we may be unable to see, or ``AWAITED`` until he does; it lives while its links do.

    ``netns_cookie`` tells its namespace from another that comes to be at the same path, as when a process id is given
    again; 0 where nobody looked, or the path is ours.
    """

    id: str
    name: Name
    mode: str
    netns: str
    pinned: bool
    owner: str = "cli"
    handed: bool = False
    netns_cookie: int = 0


class Endpoint(Record):
    """One interface of a container: ``ifname`` inside it, ``host_ifname`` on the host (empty where there is none).

    ``gateways`` are those of its subnets that lead to the world; ``default_route``: it wants its default routes by them,
    of that ``metric``. ``ways`` are its other routes. ``mtu`` 0 is the network's. ``bandwidth`` None is all there is.
    ``sysctls`` are paths below /proc/sys/net of the container, and values.
    """

    id: str
    container: Name
    network: Name
    ifname: IfName
    host_ifname: str
    mac: Mac
    addresses: tuple[Interface, ...]
    gateways: tuple[Address, ...]
    ways: tuple[Way, ...] = ()
    metric: int = 0
    default_route: bool = True
    mtu: int = 0
    bandwidth: Bandwidth | None = None
    sysctls: tuple[tuple[str, str], ...] = ()

    @property
    def ifb(self) -> str:
        """The link of the host that what it sends is led over; empty if it may send as fast as it can."""
        limited = self.bandwidth is not None and self.bandwidth.egress is not None
        return f"vb{self.id}" if limited else ""

    @property
    def defaults(self) -> tuple[Way, ...]:
        """The default routes that it wants: by the first gateway of each IP version."""
        if not self.default_route:
            return ()
        first = {gateway.version: gateway for gateway in reversed(self.gateways)}
        return tuple([Way(None, first[version], self.metric) for version in sorted(first)])


class Publication(Record):
    """A published range of ports of an endpoint. ``publish.host_port`` is never 0 here."""

    container: Name
    endpoint: str
    publish: Publish


class Range(Record):
    """The addresses from ``first`` to ``last``, both included, of one IP version."""

    first: Address
    last: Address


class Join(Record):
    """The wish for one endpoint. A subnet in which none of ``addresses`` lies, and None, ask for a choice.

    ``ranges`` narrow the choice: where some lie in a subnet, its address is chosen from them and not from its pool.
    ``ways`` come on top of the network's; ``metric``, ``default_route`` and ``mtu`` in place of the network's.
    ``requested``: its addresses were requested of the network's pool before (see ``pools``). ``made``: on a foreign
    network, the addresses that the interface has.
    """

    network: Name
    addresses: tuple[Address, ...] = ()
    mac: Mac | None = None
    ifname: IfName | None = None
    ranges: tuple[Range, ...] = ()
    host_ifname: IfName | None = None
    ways: tuple[Way, ...] = ()
    metric: int | None = None
    default_route: bool | None = None
    mtu: int | None = None
    requested: bool = False
    bandwidth: Bandwidth | None = None
    sysctls: tuple[tuple[str, str], ...] = ()
    made: tuple[Interface, ...] = ()


class AttachRequest(Record):
    """The wish for a container's network. ``netns`` None asks for a namespace of our own making, pinned by us.

    ``process`` is what will run in it, where we start that; it is on record from the same moment as the container.
    ``reserved``: who asks holds the host ports by sockets of his own, so local sockets on them are no conflict.
    ``handed`` as in Container: only what is on record and in the ruleset is made, links come later (see ``handover``).
    """

    id: str
    name: Name
    mode: Mode
    joins: tuple[Join, ...] = ()
    publishes: tuple[Publish, ...] = ()
    netns: NetnsPath | None = None
    process: ProcessRow | None = None
    owner: str = "cli"
    reserved: bool = False
    handed: bool = False

    @property
    def path(self) -> str:
        """The path of the namespace that is asked for; empty where none is."""
        return self.netns or (self.mode.target if self.mode.kind == "ns" else "")


def parse_modes(texts: tuple[str, ...]) -> tuple[Mode, tuple[Join, ...]]:
    """Read all the ``--net`` of one command. Raises RequestError where they contradict each other."""
    modes = [Mode.parse(text) for text in texts] or [Mode("network", DEFAULT_NETWORK)]
    if any(mode.kind != "network" for mode in modes):
        if len(modes) > 1:
            said = ", ".join(str(mode) for mode in modes)
            raise RequestError(f"--net {said}: only networks can be combined")
        return modes[0], ()
    names = [mode.target for mode in modes]
    if len(set(names)) < len(names):
        raise RequestError(f"--net {', '.join(names)}: a network is named twice")
    return modes[0], tuple(Join(Name.parse(name)) for name in names)
