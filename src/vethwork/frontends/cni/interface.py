"""From a configuration, its runtimeConfig and CNI_ARGS to one interface with its ports, routes and name servers.

Where the same thing may be said in several places, runtimeConfig comes before ``args.cni``, and that before CNI_ARGS.
Addresses are the sum of all (CONVENTIONS.md of the CNI project).
"""

from __future__ import annotations

from vethwork.errors import RequestError
from vethwork.frontends.cni.document import CONFIG, UNSUPPORTED, CniError
from vethwork.frontends.cni.network import parse_name, parse_subnets
from vethwork.frontends.json_document import parse_at
from vethwork.model.address import Address, Interface, Mac, Prefix
from vethwork.model.container import Join
from vethwork.model.network import Way
from vethwork.model.ports import Publish, merged
from vethwork.model.record import Record
from vethwork.model.shaping import Bandwidth, Rate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vethwork.frontends.cni.document import Section
    from vethwork.frontends.cni.protocol import Call
    from vethwork.model.network import Network


PATH = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
VALUE = PATH | frozenset(" ,:/+")  # what a plan may show as a shell command as it is
RATES = ("ingressRate", "ingressBurst", "egressRate", "egressBurst")


class Dns(Record):
    """What a container's resolv.conf should say; vethwork passes it on, and the runtime writes it."""

    nameservers: tuple[str, ...]
    domain: str
    search: tuple[str, ...]
    options: tuple[str, ...]


def parse_join(call: Call, document: Section) -> Join:
    """The wish for the interface; a route without a gateway is yet to be settled. Raises CniError."""
    return Join(
        network=parse_name(document),
        addresses=parse_addresses(call, document),
        mac=parse_mac(call, document),
        ifname=call.ifname,
        ranges=tuple([each for subnet in parse_subnets(document) for each in subnet.ranges]),
        ways=tuple([_parse_route(section) for section in document.section("ipam").sections("routes")]),
        default_route=document.flag("isDefaultGateway"),
        bandwidth=parse_bandwidth(document),
        sysctls=parse_sysctls(document, call.ifname),
    )


def settle_routes(join: Join, network: Network) -> Join:
    """Lead the routes that name no gateway by the network's own, or say that their end is on the link itself.

    A default route by the network's own gateway is the network's own default route. Only where one of two IP versions is
    to have one, it is a route like others.
    """
    gateways = {subnet.gateway.version: subnet.gateway for subnet in network.subnets if subnet.gateway}
    wanted = set(gateways) if join.default_route else set()
    others: list[Way] = []
    for way in join.ways:
        version = way.prefix.version if way.prefix is not None else 0
        settled = way if way.gateway is not None else way.replace(gateway=gateways.get(version))
        is_default = way.prefix is not None and way.prefix.length == 0
        if is_default and settled.gateway is None:
            raise CniError(CONFIG, f"ipam.routes: {way.prefix} needs a gateway, and {network.name} has none")
        if is_default and settled.gateway == gateways.get(version) and not way.metric:
            wanted.add(version)
        else:
            others.append(settled.replace(prefix=None) if is_default else settled)
    if wanted and wanted < gateways.keys():
        others += [Way(None, gateways[version]) for version in sorted(wanted)]
        wanted = set()
    return join.replace(ways=tuple(others), default_route=bool(wanted))


def parse_addresses(call: Call, document: Section) -> tuple[Address, ...]:
    """The addresses that are asked for. Raises CniError."""
    runtime, cni = document.section("runtimeConfig"), document.section("args").section("cni")
    said = [(runtime.place("ips"), text) for text in runtime.texts("ips")]
    said += [(cni.place("ips"), text) for text in cni.texts("ips")]
    said += [("CNI_ARGS IP", text) for text in call.argument("IP").split(",") if text]
    found = [parse_at(where, text, _parse_host) for where, text in said if text]
    return tuple(dict.fromkeys(found))


def _parse_host(text: str) -> Address:
    """``10.0.0.5``, or ``10.0.0.5/24``, of which the subnet is known already."""
    return Interface.parse(text).address if "/" in text else Address.parse(text)


def parse_mac(call: Call, document: Section) -> Mac | None:
    """The MAC address that is asked for. Raises CniError."""
    runtime, cni = document.section("runtimeConfig"), document.section("args").section("cni")
    found = [section.parsed("mac", Mac.parse) for section in (runtime, cni, document)]
    if text := call.argument("MAC"):
        found.append(parse_at("CNI_ARGS MAC", text, Mac.parse))
    return next((mac for mac in found if mac is not None), None)


def _parse_route(section: Section) -> Way:
    for key in ("table", "scope", "mtu", "advmss"):
        if section.has(key):
            raise CniError(UNSUPPORTED, f"{section.place(key)}: cannot be had")
    prefix = section.parsed("dst", Prefix.parse)
    if prefix is None:
        raise CniError(CONFIG, f"{section.place('dst')}: is missing")
    gateway = section.parsed("gw", Address.parse)
    if gateway is not None and gateway.version != prefix.version:
        raise CniError(CONFIG, f"{section.place('gw')}: {gateway} cannot lead to {prefix}")
    metric = section.number("priority")
    if not 0 <= metric < 1 << 32:
        raise CniError(CONFIG, f"{section.place('priority')}: is not a metric")
    return Way(prefix, gateway, metric)


def parse_publishes(document: Section) -> tuple[Publish, ...]:
    """The capability portMappings."""
    sections = document.section("runtimeConfig").sections("portMappings")
    return merged([_parse_mapping(section) for section in sections])


def _parse_mapping(section: Section) -> Publish:
    host_port, container_port = section.number("hostPort"), section.number("containerPort")
    for key, port in (("hostPort", host_port), ("containerPort", container_port)):
        if not 1 <= port <= 65535:
            raise CniError(CONFIG, f"{section.place(key)}: {port} is not a port, 1 to 65535")
    host_ip = section.parsed("hostIP", Address.parse)
    protocol = section.text("protocol").lower() or "tcp"
    return parse_at(section.where, "", lambda _: Publish.check(protocol, host_ip, host_port, container_port))


def parse_bandwidth(document: Section) -> Bandwidth | None:
    """The capability bandwidth, or the keys of the reference plugin of that name; in bits, and bits in a second."""
    asked = document.section("runtimeConfig").section("bandwidth")
    section = asked if any(asked.has(key) for key in RATES) else document
    rates = [section.number(key) for key in RATES]
    try:
        made = Bandwidth(
            Rate.check(section.place(RATES[0]), *rates[:2]), Rate.check(section.place(RATES[2]), *rates[2:])
        )
    except RequestError as error:
        raise CniError(CONFIG, error.message, hint=error.hint) from error
    return made if made != Bandwidth(None, None) else None


def parse_sysctls(document: Section, ifname: str) -> tuple[tuple[str, str], ...]:
    """The key ``sysctl`` of the reference plugin ``tuning``: ``net.core.somaxconn``, or with the interface as ``IFNAME``.

    Only those of the network are the container's own, and not the host's. A dot divides, unless there is a slash.
    """
    found: list[tuple[str, str]] = []
    for name, value in document.pairs("sysctl"):
        parts = name.split("/" if "/" in name else ".")
        words = [ifname if part == "IFNAME" else part for part in parts]
        fits = len(words) > 2 and all(PATH.issuperset(word) and word not in ("", ".", "..") for word in words)
        if words[0] != "net" or not fits or not VALUE.issuperset(value):
            raise CniError(
                CONFIG, f"sysctl: {name!r:.80}: is not a sysctl below net", hint="as in net.core.somaxconn"
            )
        found.append(("/".join(words[1:]), value))
    return tuple(found)


def parse_dns(document: Section) -> Dns:
    """The name servers: the runtime's, where it names any, in place of the configuration's."""
    said, asked = document.section("dns"), document.section("runtimeConfig").section("dns")
    pairs = (("nameservers", "servers"), ("search", "searches"), ("options", "options"))
    servers, search, options = ((said.texts(one), asked.texts(other)) for one, other in pairs)
    return Dns(
        servers[1] or servers[0], said.text("domain"), search[1] or search[0], options[1] or options[0]
    )
