"""Networks, and what is asked of them.

Rules: a :class:`Network` is settled fact (its device, subnets and gateways are chosen); a :class:`NetworkRequest` is a
wish in which ``None`` and empty mean "choose for me".
"""

from __future__ import annotations

from vethwork.errors import RequestError
from vethwork.model.address import Address, Prefix
from vethwork.model.names import IfName, Name
from vethwork.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

DRIVERS = ("bridge", "p2p", "macvlan", "foreign")
MACVLAN_MODES = ("bridge", "private", "vepa", "passthru")
PEERINGS = ("none", "some", "all")
WAY_KINDS = ("unicast", "blackhole", "unreachable", "prohibit")
DEFAULT_NETWORK = "bridge"
DEFAULT_DEVICE = "vethwork0"


class Way(Record):
    """A route of a container: to ``prefix`` (None: everywhere), by ``gateway`` (None: what is there is on the link itself).

    ``metric`` 0 is the kernel's own choice. A ``kind`` other than ``unicast`` leads nowhere, and has no gateway.
    """

    prefix: Prefix | None
    gateway: Address | None
    metric: int = 0
    kind: str = "unicast"


class Subnet(Record):
    """One prefix of a network. ``gateway`` None: the host has no address in it. ``pool``: where addresses are taken from.

    ``source`` is the fixed address that leaves the host in place of a container's; None: the outgoing interface's own.
    """

    prefix: Prefix
    gateway: Address | None
    pool: Prefix
    source: Address | None = None


class Network(Record):
    """A network as it is on record.

    ``device`` is the bridge, for ``p2p`` the parked end of the cable, for ``macvlan`` the link that it sits on, and for
    ``foreign`` the link of the host behind which there are containers whose interfaces another program makes, addresses
    and all: ports can lead there, and nothing else is ours. ``mtu`` is in bytes, 68 to 65535. ``internal``: no way out of
    the network, the host's gateway address aside. ``isolated``: no gateway at all. ``icc``: containers of the network may
    talk to each other. ``masquerade``: what leaves hides behind the host. ``managed``: the bridge is ours to make and
    delete; False joins a bridge that somebody else keeps.

    ``ways`` are routes that every container on it gets; ``metric`` is that of the default route, which ``default_route``
    says there is. ``mode`` is that of a macvlan. ``peering``: which other networks its containers may talk to: ``none``,
    ``some`` (those of ``all``), or ``all`` that are not of ``none``. ``owner`` is the front-end that made it, empty for
    people. ``transient``: it goes with its last container. ``dns_port``: where a name server listens on its gateways, if
    not on port 53 (0: no). ``held`` are addresses that no container may have.
    """

    id: str
    name: Name
    driver: str
    device: IfName
    subnets: tuple[Subnet, ...]
    mtu: int
    internal: bool = False
    isolated: bool = False
    icc: bool = True
    masquerade: bool = True
    managed: bool = True
    labels: tuple[tuple[str, str], ...] = ()
    ways: tuple[Way, ...] = ()
    metric: int = 0
    default_route: bool = True
    mode: str = ""
    peering: str = "none"
    owner: str = ""
    transient: bool = False
    dns_port: int = 0
    held: tuple[Address, ...] = ()

    @property
    def routed(self) -> bool:
        """Whether the host is its gateway to the world, through us."""
        return self.driver == "bridge" and self.managed and self.has_way_out

    @property
    def takes_ports(self) -> bool:
        """Whether a published port can lead to who is on it."""
        return self.routed or self.driver == "foreign"

    @property
    def has_way_out(self) -> bool:
        """Whether its gateways, whoever keeps them, lead to the world."""
        return self.driver != "p2p" and not self.internal and not self.isolated

    @property
    def own_device(self) -> str | None:
        """The link that no other network may have. On somebody else's there may be several, unless its name is an element."""
        shared = self.driver == "macvlan" or not self.managed
        return self.device if self.driver == "foreign" or not shared else None

    @property
    def versions(self) -> tuple[int, ...]:
        """The IP versions it speaks."""
        return tuple(subnet.prefix.version for subnet in self.subnets)

    def subnet_of(self, address: Address) -> Subnet:
        """The subnet that an address lies in. Raises RequestError if none does."""
        for subnet in self.subnets:
            if address in subnet.prefix:
                return subnet
        have = ", ".join(str(subnet.prefix) for subnet in self.subnets)
        raise RequestError(
            f"network {self.name}: {address} lies in none of its subnets", hint=f"it has {have}"
        )


class NetworkRequest(Record):
    """The wish for a network. Empty ``subnets`` and None ask for a choice; ``source`` are fixed SNAT addresses.

    ``settled`` subnets are taken as they stand, in place of the four fields that leave a choice: there may be several of
    one IP version, without a gateway, or none at all. ``id`` is 32 hex digits; empty asks for a choice.
    """

    name: Name
    driver: str = "bridge"
    subnets: tuple[Prefix, ...] = ()
    gateways: tuple[Address, ...] = ()
    pools: tuple[Prefix, ...] = ()
    ipv6: bool = False
    internal: bool = False
    isolated: bool = False
    icc: bool = True
    masquerade: bool = True
    sources: tuple[Address, ...] = ()
    mtu: int | None = None
    device: IfName | None = None
    labels: tuple[tuple[str, str], ...] = ()
    id: str = ""
    settled: tuple[Subnet, ...] | None = None
    managed: bool = True
    ways: tuple[Way, ...] = ()
    metric: int = 0
    default_route: bool = True
    mode: str = ""
    peering: str = "none"
    owner: str = ""
    transient: bool = False
    dns_port: int = 0
    held: tuple[Address, ...] = ()

    @classmethod
    def default(cls) -> Self:
        """The ready-made network that a container gets when nobody names one."""
        return cls(Name(DEFAULT_NETWORK), device=IfName(DEFAULT_DEVICE))


class Forwarding(Record):
    """A row that says: forwarding of this IP version was off, and we turned it on (until the next boot)."""

    version: int
