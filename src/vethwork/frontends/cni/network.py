"""From a configuration to the network that it describes.

Keys mean what they mean to the reference plugins ``bridge``, ``host-local``, ``firewall`` and ``tuning``, defaults included:
without ``isGateway`` the host has no address in the network, without ``ipMasq`` nothing hides behind the host. What is always
on in vethwork (hairpin, anti-spoofing, networks that do not see each other) may be asked for, and changes nothing.

Rules: what would change the meaning of the network, and cannot be had, is error 2. A key that nobody here knows is let
pass, as the specification has it.
"""

from __future__ import annotations

from vethwork.frontends.cni.document import CONFIG, UNSUPPORTED, CniError
from vethwork.model.address import Address, Prefix
from vethwork.model.container import Range
from vethwork.model.names import IfName, Name
from vethwork.model.network import NetworkRequest
from vethwork.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vethwork.frontends.cni.document import Section

OWNER = "cni"
"""What the records of our containers bear. Networks are everybody's: one that people have made may be named too."""

REFUSED = {
    "vlan": "VLANs on the bridge",
    "vlanTrunk": "VLANs on the bridge",
    "promiscMode": "a bridge in promiscuous mode",
    "disableContainerInterface": "an interface that stays down",
    "master": "an interface on a link of the host: this plugin makes bridges",
    "allmulti": "an interface that hears all multicast",
    "promisc": "an interface in promiscuous mode",
    "txQLen": "a queue length",
}
"""Keys of the reference plugins that ask for what vethwork does not have."""

ALLOCATORS = ("internal", "host-local", "")
"""Who gives addresses: in each case vethwork does, from its own records. ``host-local`` names the keys that it shares."""

PEERINGS = {"": "none", "same-bridge": "none", "strict": "none", "isolated": "none", "open": "all"}


class Described(Record):
    """What a configuration says of one subnet. ``ranges`` narrow what addresses are chosen from; empty: all of it."""

    prefix: Prefix
    gateway: Address | None
    ranges: tuple[Range, ...]


def parse_name(document: Section) -> Name:
    """The network's name. Raises CniError (7)."""
    name = document.parsed("name", Name.parse)
    if name is None:
        raise CniError(CONFIG, "name: is missing")
    return name


def parse_network(document: Section) -> NetworkRequest:
    """The network that a configuration describes. Raises CniError."""
    _refuse(document)
    gateway = document.flag("isGateway") or document.flag("isDefaultGateway")
    masquerade = document.flag("ipMasq")
    if masquerade and not gateway:
        raise CniError(CONFIG, "ipMasq: needs isGateway, for what leaves must come through the host")
    peering, icc = _parse_policy(document)
    internal = document.flag("internal")
    subnets = parse_subnets(document)
    return NetworkRequest(
        name=parse_name(document),
        subnets=tuple([subnet.prefix for subnet in subnets]),
        gateways=tuple([subnet.gateway for subnet in subnets if subnet.gateway is not None]),
        internal=internal and gateway,
        isolated=not gateway,
        icc=icc,
        masquerade=masquerade,
        mtu=document.number("mtu") or None,
        device=document.parsed("bridge", IfName.parse),
        peering=peering,
    )


def _refuse(document: Section) -> None:
    for key, what in REFUSED.items():
        if document.has(key):
            raise CniError(UNSUPPORTED, f"{key}: {what} cannot be had")
    allocator = document.section("ipam").text("type")
    if allocator not in ALLOCATORS:
        hint = "leave ipam.type out, or say internal"
        raise CniError(UNSUPPORTED, f"ipam.type: {allocator!r:.40} is not supported", hint=hint)
    if document.section("ipam").has("resolvConf"):
        raise CniError(
            UNSUPPORTED, "ipam.resolvConf: is not read", hint="name the servers in dns.nameservers"
        )


def _parse_policy(document: Section) -> tuple[str, bool]:
    """Which other networks its containers may talk to, and whether they may talk to each other."""
    if isinstance(document.raw("isolate"), bool):
        key, said = "isolate", "same-bridge" if document.flag("isolate") else "open"
    else:
        key = "isolate" if document.has("isolate") else "ingressPolicy"
        said = document.text(key)
    if said not in PEERINGS:
        words = ", ".join(filter(None, PEERINGS))
        raise CniError(CONFIG, f"{key}: {said!r:.40} is none of {words}")
    closed = said == "isolated" or document.flag("portIsolation")
    return PEERINGS[said], document.flag("icc", True) and not closed


def parse_subnets(document: Section) -> tuple[Described, ...]:
    """The subnets of ``ipam``, in its old style or as sets of ranges, and of the capability ipRanges. Raises CniError.

    What the runtime asks for by ipRanges takes the place of what the configuration says for the same IP version.
    """
    ipam = document.section("ipam")
    old = ((ipam,),) if ipam.has("subnet") else ()
    asked = _by_version(document.section("runtimeConfig").groups("ipRanges"))
    said = _by_version(old + ipam.groups("ranges"))
    return tuple([(said | asked)[version] for version in sorted(said | asked)])


def _by_version(groups: tuple[tuple[Section, ...], ...]) -> dict[int, Described]:
    found: dict[int, Described] = {}
    for group in groups:
        if not group:
            continue
        subnet = _parse_set(group)
        version = subnet.prefix.version
        if version in found:
            raise CniError(
                UNSUPPORTED,
                f"{group[0].where}: a second set of IPv{version} ranges: an interface has one IPv{version} address",
            )
        found[version] = subnet
    return found


def _parse_set(group: tuple[Section, ...]) -> Described:
    """A set of ranges, of which one address is chosen."""
    ranges = [_parse_range(section) for section in group]
    first = ranges[0]
    for section, other in zip(group, ranges, strict=True):
        if other.prefix != first.prefix:
            raise CniError(
                UNSUPPORTED, f"{section.where}: the ranges of a set must lie in one subnet, {first.prefix}"
            )
        if None not in (other.gateway, first.gateway) and other.gateway != first.gateway:
            raise CniError(CONFIG, f"{section.where}: {first.prefix} has the gateway {first.gateway} already")
    gateway = next((each.gateway for each in ranges if each.gateway is not None), None)
    whole = any(not each.ranges for each in ranges)
    return Described(first.prefix, gateway, () if whole else sum([each.ranges for each in ranges], ()))


def _parse_range(section: Section) -> Described:
    prefix = section.parsed("subnet", Prefix.parse)
    if prefix is None:
        raise CniError(CONFIG, f"{section.place('subnet')}: is missing")
    first, last, gateway = (
        section.parsed(key, Address.parse) for key in ("rangeStart", "rangeEnd", "gateway")
    )
    for key, address in (("rangeStart", first), ("rangeEnd", last), ("gateway", gateway)):
        if address is not None and address not in prefix:
            raise CniError(CONFIG, f"{section.place(key)}: {address} does not lie in {prefix}")
    if first is None and last is None:
        return Described(prefix, gateway, ())
    whole = Range(first or prefix.address, last or prefix.last)
    if whole.last.value < whole.first.value:
        raise CniError(CONFIG, f"{section.place('rangeEnd')}: {whole.last} comes before {whole.first}")
    return Described(prefix, gateway, (whole,))
