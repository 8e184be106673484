"""What was seen before a plan was made: records and the kernel, frozen.

Rules: a planner gets all it may know in one of these, and nothing else. What is costly to see (every route of the host) is
only in the snapshot of the verb that needs it.
"""

from __future__ import annotations

from vethwork.model.address import Address, Interface, Mac, Prefix
from vethwork.model.container import Container, Endpoint, Publication
from vethwork.model.network import Network
from vethwork.model.record import Record


class HostSeen(Record):
    """The host, as a new network must know it.

    ``taken`` are prefixes that are routed, held or resolved by; ``mtu`` that of the default route's link, in bytes, and
    ``way_out`` its name; ``mtus`` those of all ``links``, and ``bridges`` which of them are bridges;
    ``forwarding`` the IP versions it forwards already; ``ra_links`` the links on which turning IPv6 forwarding on would
    end router advertisements; ``ipv6`` whether the kernel has IPv6 at all; ``guarded`` the IP versions that are on record as
    forwarded for us alone.
    """

    taken: tuple[Prefix, ...]
    links: tuple[str, ...]
    mtu: int
    forwarding: tuple[int, ...]
    ra_links: tuple[str, ...]
    ipv6: bool
    way_out: str = ""
    mtus: tuple[int, ...] = ()
    bridges: tuple[str, ...] = ()
    guarded: tuple[int, ...] = ()


class LinkSeen(Record):
    """A link of the host. ``master`` is the index of its bridge, or 0; ``ours``: it bears our mark.

    ``addresses`` and ``routes`` (the prefixes that are reached by it) are those of a bridge, and empty otherwise.
    """

    index: int
    ours: bool
    up: bool
    mac: Mac
    mtu: int
    master: int
    hairpin: bool
    addresses: tuple[Interface, ...] = ()
    routes: tuple[Prefix, ...] = ()


class NetworkSeen(Record):
    """A network and who is on it. ``free``: for each subnet, an address that nobody has (None: it is full).

    ``host_ends`` are the links that the join would make or take on the host and that are there already. ``parent_mac`` is
    that of the link that a macvlan sits on. ``macs`` are MAC addresses that the join may want, and who holds them.
    """

    network: Network
    free: tuple[Address | None, ...]
    leased: tuple[tuple[Address, str], ...]
    endpoints: tuple[Endpoint, ...]
    host_ends: tuple[str, ...]
    netns: tuple[tuple[str, str], ...]
    parent_mac: Mac | None = None
    macs: tuple[tuple[Mac, str], ...] = ()


class PortSeen(Record):
    """Who holds a port that somebody asks for; ``holder`` is empty if nobody does. ``port`` is a free one, for 0."""

    holder: str
    port: int


class ContainerSeen(Record):
    """A container with all that hangs on it, and who shares its namespace.

    ``lodger`` is another container that has interfaces of its own in the namespace; empty if there is none.
    """

    container: Container
    endpoints: tuple[Endpoint, ...]
    publications: tuple[Publication, ...]
    networks: tuple[Network, ...]
    sharers: tuple[str, ...]
    lodger: str = ""


class AttachSeen(Record):
    """What an attach must know. ``networks`` in the order of the joins, ``ports`` in the order of the publishes.

    ``lodger`` is the container that has interfaces in the namespace that is asked for; empty if there is none.
    ``netns_cookie`` is that of the namespace that is asked for by path.
    """

    networks: tuple[NetworkSeen, ...]
    ports: tuple[PortSeen, ...]
    target: Container | None
    pin_path: str
    existing: ContainerSeen | None = None
    lodger: str = ""
    netns_cookie: int = 0


class Tally(Record):
    """What an element of a set that counts was found for."""

    packets: int
    bytes: int


class Carried(Record):
    """What a link has received and sent since it was made."""

    received_packets: int
    received_bytes: int
    sent_packets: int
    sent_bytes: int
