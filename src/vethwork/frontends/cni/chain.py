"""The plugin behind others in a list: what portmap, firewall and tuning do for an interface that another plugin has made.

Host ports lead to the addresses of the previous result; sysctls are set; the previous result is the answer, as it came. The
interface is on record as one on a foreign network, which is named after the configuration's and the link of the host behind
which it is: the bridge where the result names one, else the host's end.

Rules: what only the plugin that makes an interface can do is refused here, never ignored; an address or a MAC address that
the runtime asks for must be the one that the interface has. Where the result names no link of the host (macvlan, ipvlan,
host-device), no port can lead there: one is refused, and without one there is nothing to do and nothing on record.
"""

from __future__ import annotations

from vethwork.frontends.cni.document import CONFIG, UNSUPPORTED, VERSION, CniError
from vethwork.frontends.cni.interface import (
    parse_addresses,
    parse_bandwidth,
    parse_mac,
    parse_publishes,
    parse_sysctls,
)
from vethwork.frontends.cni.network import OWNER, parse_name
from vethwork.frontends.cni.result import parse_previous
from vethwork.frontends.json_document import parse_at
from vethwork.model.address import Interface, Mac
from vethwork.model.container import Join
from vethwork.model.names import IfName, Name
from vethwork.model.network import NetworkRequest
from vethwork.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vethwork.engine.engine import Engine
    from vethwork.frontends.cni.document import Section
    from vethwork.frontends.cni.protocol import Call
    from vethwork.frontends.cni.result import Previous
    from vethwork.model.ports import Publish

LABEL = "cni"
"""The label of a foreign network that holds the name which the configuration has."""

MAKERS = (
    "bridge", "isGateway", "isDefaultGateway", "ipMasq", "ipam", "mtu", "internal", "portIsolation", "isolate", "icc",
    "names",
)  # fmt: skip
"""Keys of the plugin that makes the interface."""


class Wish(Record):
    """What is asked for on an interface of another plugin's; ``links`` are the host's that the previous result names."""

    join: Join
    publishes: tuple[Publish, ...]
    links: tuple[IfName, ...]


def is_behind(call: Call, document: Section) -> bool:
    """Whether another plugin has made the interface already. Raises CniError."""
    if not document.has("prevResult"):
        return False
    return parse_previous(document.section("prevResult"), call.ifname).has_interface


def parse_wish(call: Call, document: Section, version: str) -> Wish:
    """Read what is asked for. Raises CniError."""
    previous = _parse_previous(call, document, version)
    for key in MAKERS:
        if document.raw(key) is not None:
            raise CniError(
                CONFIG,
                f"{key}: {call.ifname} is made already, by the plugin before",
                hint="this key is for the plugin that makes the interface",
            )
    if document.section("runtimeConfig").has("ipRanges"):
        raise CniError(UNSUPPORTED, "runtimeConfig.ipRanges: is for the plugin that makes the interface")
    if document.text("ingressPolicy") not in ("", "open"):
        raise CniError(UNSUPPORTED, "ingressPolicy: cannot be had on an interface of another plugin's")
    if parse_bandwidth(document) is not None:
        hint = "the reference plugin bandwidth does it, in the same list"
        raise CniError(UNSUPPORTED, "bandwidth: cannot be had on an interface of another plugin's", hint=hint)
    made = tuple([parse_at("prevResult.ips", each, Interface.parse) for each in previous.addresses])
    mac = parse_at("prevResult.interfaces", previous.mac, Mac.parse) if previous.mac else None
    _check_granted(call, document, made, mac)
    join = Join(
        network=parse_name(document),
        addresses=tuple([each.address for each in made]),
        mac=mac,
        ifname=call.ifname,
        sysctls=parse_sysctls(document, call.ifname),
        made=made,
    )
    links = tuple([parse_at("prevResult.interfaces", each, IfName.parse) for each in previous.links])
    return Wish(join, parse_publishes(document), links)


def _parse_previous(call: Call, document: Section, version: str) -> Previous:
    section = document.section("prevResult")
    said = section.text("cniVersion")
    if said not in ("", version):
        raise CniError(
            VERSION, f"prevResult.cniVersion: is {said!r:.40}, and the configuration's is {version}"
        )
    return parse_previous(section, call.ifname)


def _check_granted(call: Call, document: Section, made: tuple[Interface, ...], mac: Mac | None) -> None:
    """What the runtime asks for, the plugin before has given."""
    have = {each.address for each in made}
    for address in parse_addresses(call, document):
        if address not in have:
            raise CniError(
                CONFIG, f"{address}: is asked for, and the plugin before gave {call.ifname} another address"
            )
    asked = parse_mac(call, document)
    if asked is not None and asked != mac:
        raise CniError(CONFIG, f"{asked}: is asked for, and {call.ifname} has MAC address {mac or 'unknown'}")


def network_on_record(engine: Engine, call: Call, name: Name) -> Name:
    """The network, by its name with the engine, that an interface is on for a configuration of a name.

    A network of people's that is called alike is not meant. Where nothing is on record, it is the name itself.
    """
    for endpoint in engine.store.endpoints_of(call.container):
        if endpoint.ifname == call.ifname and (LABEL, name) in engine.network(endpoint.network).labels:
            return endpoint.network
    return name


def is_nothing_to_do(engine: Engine, call: Call, document: Section, version: str) -> bool:
    """Whether an ADD had nothing to do and left nothing on record: a CHECK has nothing to look for then."""
    behind = (
        is_behind(call, document) and not parse_previous(document.section("prevResult"), call.ifname).links
    )
    return behind and network_behind(engine, parse_wish(call, document, version)) is None


def networks_on_record(engine: Engine, name: Name) -> tuple[Name, ...]:
    """All of them."""
    return (name, *[each.name for each in engine.networks() if (LABEL, name) in each.labels])


def network_behind(engine: Engine, wish: Wish) -> NetworkRequest | None:
    """The foreign network that an interface is on; None where no link of the host leads to it. Raises CniError."""
    door = engine.kernel.door("")
    found = [link for link in map(door.link, wish.links) if link is not None and link.kind]  # else hardware
    device = next((link for link in found if link.kind == "bridge"), found[0] if found else None)
    if device is None or not wish.join.made:
        if wish.publishes:
            raise CniError(
                CONFIG,
                f"portMappings: no port can lead to {wish.join.ifname}: "
                + (
                    "it has no address"
                    if device is not None
                    else "the result before names no link of the host"
                ),
                hint="behind bridge or ptp they can; a macvlan has no way to its own host",
            )
        return None
    return NetworkRequest(
        name=parse_at("name", f"{wish.join.network[:110]}.{device.ifname}", Name.parse),
        driver="foreign",
        device=IfName(device.ifname),
        settled=(),
        managed=False,
        labels=((LABEL, wish.join.network),),
        owner=OWNER,
        transient=True,
    )
