"""Containers and their endpoints, as they are on record, and what is asked of them.

Rules: a *container* is a network namespace with a name; what runs inside is a process that comes and goes. An *endpoint*
is one interface of a container on one network. A *publication* is one published range of ports, and belongs to an endpoint.
"""

from __future__ import annotations

from vethwork.errors import RequestError
from vethwork.model.address import Address, Interface, Mac
from vethwork.model.names import IfName, Name, NetnsPath
from vethwork.model.ports import Publish
from vethwork.model.process import ProcessRow
from vethwork.model.record import Record

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


class Container(Record):
    """A container on record.

    ``netns`` is the path of its namespace, empty for the host's own. ``pinned``: we made the namespace and unpin it when
    the container goes. ``mode`` is what was asked for, in ``--net``'s words. ``owner`` is the front-end that made it
    ("cli", "cni", ...), so that each collects only what is its own.
    """

    id: str
    name: Name
    mode: str
    netns: str
    pinned: bool
    owner: str = "cli"


class Endpoint(Record):
    """One interface of a container: ``ifname`` inside it, ``host_ifname`` on the host (empty for a cable's end)."""

    id: str
    container: Name
    network: Name
    ifname: IfName
    host_ifname: str
    mac: Mac
    addresses: tuple[Interface, ...]
    gateways: tuple[Address, ...]


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
    """The wish for one endpoint. ``addresses`` at most one for each subnet; None asks for a choice.

    ``ranges`` narrow the choice: where some lie in a subnet, its address is chosen from them and not from its pool.
    """

    network: Name
    addresses: tuple[Address, ...] = ()
    mac: Mac | None = None
    ifname: IfName | None = None
    ranges: tuple[Range, ...] = ()


class AttachRequest(Record):
    """The wish for a container's network. ``netns`` None asks for a namespace of our own making, pinned by us.

    ``process`` is what will run in it, where we start that; it is on record from the same moment as the container.
    """

    id: str
    name: Name
    mode: Mode
    joins: tuple[Join, ...] = ()
    publishes: tuple[Publish, ...] = ()
    netns: NetnsPath | None = None
    process: ProcessRow | None = None
    owner: str = "cli"
