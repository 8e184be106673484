"""From Podman's words to the engine's: networks, joins and ports.

Sources: the types of containers/common ``libnetwork/types/network.go`` (Podman 4.3 to 5.8) and netavark's
``src/network/types.rs``. Nothing here looks at the machine: what cannot be translated is refused before anything is touched.
"""

from __future__ import annotations

from vethwork.errors import RequestError
from vethwork.model.address import Address, Interface, Mac, Prefix
from vethwork.model.container import Join
from vethwork.model.names import IfName, Name
from vethwork.model.network import NetworkRequest, Subnet, Way
from vethwork.model.ports import Publish
from vethwork.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vethwork.frontends.netavark.document import Fields

OWNER = "netavark"
METRIC = 100
"""What netavark gives every route that names no metric."""
DRIVERS = ("bridge", "macvlan")
NOT_HERE = ("vlan", "vrf", "bclim")
"""Options that the engine has nothing for: a network that asked for them would not be what its maker thinks."""
PEERING = {"": "none", "strict": "none", "true": "some", "false": "all"}
"""netavark's ``isolate`` in our words. Where nothing is said, ours is closed, as netavark 2 is."""


class Wanted(Record):
    """One network that a container is to be on: what it is, how it is joined, and what is told to the name server."""

    name: str
    request: NetworkRequest
    join: Join
    dns: bool
    dns_servers: tuple[str, ...]
    aliases: tuple[str, ...]


class Document(Record):
    """What ``setup`` is asked for."""

    container_id: str
    container_name: str
    wanted: tuple[Wanted, ...]
    publishes: tuple[Publish, ...]
    dns_servers: tuple[str, ...]


def parse_setup(document: Fields, dns_port: int) -> Document:
    """Read the whole of a document. Raises RequestError."""
    infos = dict(document.named("network_info"))
    wanted = []
    for name, options in document.named("networks"):
        if name not in infos or not infos[name].data():
            raise RequestError(f"network {name!r:.80}: is not described in network_info")
        wanted.append(_parse_wanted(name, options, infos[name], dns_port))
    ifnames = [each.join.ifname for each in wanted]
    if len(set(ifnames)) < len(ifnames):
        raise RequestError(f"networks: two have one interface name: {', '.join(map(str, ifnames))}")
    if not isinstance(
        document.data().get("networks"), list
    ):  # an object has no order, but eth0 comes before eth1
        wanted.sort(key=lambda each: (len(each.join.ifname or ""), each.join.ifname or ""))
    return Document(
        identity(document.text("container_id")),
        document.text("container_name"),
        tuple(wanted),
        parse_publishes(document),
        tuple([str(Address.parse(each)) for each in document.texts("dns_servers")]),
    )


def identity(container_id: str) -> str:
    """The id that a container has with us: Podman's own, which is 64 hex digits. Raises RequestError if there is none."""
    if not container_id:
        raise RequestError("failed to load network options: missing field container_id")
    return container_id if _is_hex(container_id, 32) else _digest(container_id)


def network_identity(info: Fields, name: str) -> str:
    """The id that a network has with us: the first half of Podman's own. Where it has none, its name's digest."""
    own = info.text("id")
    return own[:32] if _is_hex(own, 32) else _digest(f"{name} {own}")[:32]


def _is_hex(text: str, least: int) -> bool:
    return least <= len(text) <= 64 and not text.strip("0123456789abcdef")


def _digest(text: str) -> str:
    from hashlib import sha256  # seldom needed: Podman's own ids are hex

    return sha256(text.encode(errors="replace")).hexdigest()


def _parse_wanted(name: str, options: Fields, info: Fields, dns_port: int) -> Wanted:
    request = parse_network(name, info, dns_port)
    addresses = tuple([Address.parse(each) for each in options.texts("static_ips")])
    if not addresses and info.section("ipam_options").text("driver") != "none":
        raise RequestError(f"network {name}: no static ips provided")
    for address in addresses:
        if not any(address in subnet.prefix for subnet in request.settled or ()):
            raise RequestError(f"network {name}: {address} lies in none of its subnets")
    words = info.words("options") | options.words("options")
    metric = _number(name, words, "metric", 1 << 32)
    join = Join(
        network=request.name,
        addresses=addresses,
        mac=Mac.parse(options.text("static_mac")) if "static_mac" in options else None,
        ifname=IfName.parse(options.text("interface_name")),
        host_ifname=IfName.parse(words["host_interface_name"]) if "host_interface_name" in words else None,
        ways=_parse_ways(info),
        metric=METRIC if metric is None else metric,
        default_route=not _flag(name, words, "no_default_route"),
        mtu=_number(name, words, "mtu", 65536) or None,
    )
    return Wanted(
        name,
        request,
        join,
        info.flag("dns_enabled") and request.driver == "bridge",
        tuple([str(Address.parse(each)) for each in info.texts("network_dns_servers")]),
        options.texts("aliases"),
    )


def parse_network(name: str, info: Fields, dns_port: int) -> NetworkRequest:
    """Read a ``network_info`` as a wish for a network. Raises RequestError."""
    words, driver = info.words("options"), info.text("driver") or "bridge"
    if driver not in DRIVERS:
        raise RequestError(
            f"network {name}: unknown network driver {driver!r:.40}", hint=f"it is one of {DRIVERS}"
        )
    for option in NOT_HERE:
        if option in words:
            raise RequestError(f"network {name}: option {option} is not supported by vethwork")
    mode = words.get("mode", "")
    managed = not (driver == "bridge" and mode == "unmanaged")
    _check_ipam(info, managed=managed, driver=driver)
    if driver == "bridge" and mode not in ("", "managed", "unmanaged"):
        raise RequestError(f"network {name}: invalid bridge mode {mode!r:.40}")
    isolate = words.get("isolate", "")
    if isolate not in PEERING:
        raise RequestError(f"network {name}: option isolate is {isolate!r:.40}, not true, false or strict")
    device = info.text("network_interface") or (words.get("parent", "") if driver == "macvlan" else "")
    return NetworkRequest(
        name=Name.parse(name),
        driver=driver,
        device=IfName.parse(device) if device else None,
        id=network_identity(info, name),
        settled=_parse_subnets(name, info, words),
        internal=info.flag("internal"),
        mtu=_number(name, words, "mtu", 65536) or None,
        managed=managed,
        mode=mode if driver == "macvlan" else "",
        peering=PEERING[isolate],
        owner=OWNER,
        transient=True,
        dns_port=dns_port if info.flag("dns_enabled") else 0,
    )


def _check_ipam(info: Fields, *, managed: bool, driver: str) -> None:
    ipam = info.section("ipam_options").text("driver")
    if ipam == "dhcp" and driver == "bridge" and managed:
        raise RequestError("cannot use dhcp ipam driver without using the option mode=unmanaged")
    if ipam == "none" and driver == "bridge":
        raise RequestError(
            "unsupported ipam driver none: on a bridge, vethwork lets only leased addresses speak",
            hint="give the network a subnet, or use macvlan",
        )
    if ipam not in ("", "host-local", "none"):
        raise RequestError(f"unsupported ipam driver {ipam:.80}")


def _parse_subnets(name: str, info: Fields, words: dict[str, str]) -> tuple[Subnet, ...]:
    """Podman gives out the lower addresses of a subnet; who joins its network by other means gets one of the upper half."""
    found = []
    for each in info.sections("subnets"):
        prefix = Interface.parse(each.text("subnet")).prefix
        gateway = Address.parse(each.text("gateway")) if "gateway" in each else None
        outbound = words.get(f"outbound_addr{prefix.version}")
        source = Address.parse(outbound) if outbound else None
        if source is not None and source.version != prefix.version:
            raise RequestError(
                f"network {name}: outbound_addr{prefix.version} is {source}, of the other IP version"
            )
        pool = prefix
        if prefix.size > 4:
            pool = Prefix(prefix.address + prefix.size // 2, prefix.length + 1)
        found.append(Subnet(prefix, gateway, pool, source))
    return tuple(found)


def _parse_ways(info: Fields) -> tuple[Way, ...]:
    found = []
    for each in info.sections("routes"):
        prefix = Interface.parse(each.text("destination")).prefix
        gateway = Address.parse(each.text("gateway")) if "gateway" in each else None
        metric = each.number("metric") if "metric" in each else METRIC
        found.append(Way(prefix, gateway, metric, each.text("route_type") or "unicast"))
    return tuple(found)


def _number(name: str, words: dict[str, str], key: str, end: int) -> int | None:
    text = words.get(key)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < end):
        raise RequestError(f"network {name}: unable to parse {key} {text!r:.40}: it is 0 to {end - 1}")
    return int(text)


def _flag(name: str, words: dict[str, str], key: str) -> bool:
    text = words.get(key, "false")
    if text not in ("true", "false"):
        raise RequestError(f"network {name}: unable to parse {key} {text!r:.40}: it is true or false")
    return text == "true"


def parse_publishes(document: Fields) -> tuple[Publish, ...]:
    """Read ``port_mappings``. Raises RequestError."""
    found = []
    for each in document.sections("port_mappings"):
        host_port, text = each.number("host_port"), each.text("host_ip")
        try:
            host_ip = Address.parse(text) if text else None
        except RequestError:
            raise RequestError(f"invalid host ip {text!r:.80} provided for port {host_port}") from None
        if not 1 <= host_port <= 65535:
            raise RequestError(f"publish: host port {host_port}: a port is 1 to 65535")
        for protocol in (each.text("protocol") or "tcp").split(","):
            count = each.number("range") or 1
            found.append(Publish.check(protocol, host_ip, host_port, each.number("container_port"), count))
    return tuple(found)
