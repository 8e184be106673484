"""What ADD answers, in the shape of every version (SPEC 1.1, section 5; SPEC 0.2.0, 0.3.1 and 0.4.0 for the others).

    0.1.0 0.2.0          ``ip4`` and ``ip6``, each with its address, gateway and routes
    0.3.0 0.3.1 0.4.0    lists: ``interfaces``, ``ips`` with their ``version``, ``routes``
    1.0.0                the same, ``ips`` without ``version``
    1.1.0                the same, ``interfaces`` with their ``mtu``

Rules: the interfaces are the bridge, the host's end and the container's, in this order; addresses point to the last. Routes
are those that lead out of the container by this interface.
"""

from __future__ import annotations

from vethwork.frontends.cni.protocol import VERSIONS
from vethwork.model.address import Interface
from vethwork.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vethwork.frontends.cni.document import Section
    from vethwork.frontends.cni.interface import Dns
    from vethwork.model.address import Mac
    from vethwork.model.container import Endpoint
    from vethwork.model.network import Network, Subnet
    from vethwork.model.steps import AddRoute


EVERYWHERE = {4: "0.0.0.0/0", 6: "::/0"}


class Added(Record):
    """What was added. A MAC address is None where its link is gone already."""

    endpoint: Endpoint
    network: Network
    netns: str
    bridge_mac: Mac | None
    host_mac: Mac | None
    routes: tuple[AddRoute, ...]
    dns: Dns


def result_document(version: str, added: Added) -> dict[str, Any]:
    """The answer to ADD."""
    place = VERSIONS.index(version)
    if place < VERSIONS.index("0.3.0"):
        return {"cniVersion": version, **_old_shape(added), "dns": _dns(added.dns)}
    return {
        "cniVersion": version,
        "interfaces": _interfaces(added, with_mtu=place >= VERSIONS.index("1.1.0")),
        "ips": _ips(added, with_version=place < VERSIONS.index("1.0.0")),
        "routes": _routes(added, (4, 6)),
        "dns": _dns(added.dns),
    }


def _subnet_of(interface: Interface, network: Network) -> Subnet | None:
    return next((each for each in network.subnets if interface.address in each.prefix), None)


def _gateway(interface: Interface, network: Network) -> dict[str, str]:
    subnet = _subnet_of(interface, network)
    return {"gateway": str(subnet.gateway)} if subnet is not None and subnet.gateway is not None else {}


def _interfaces(added: Added, *, with_mtu: bool) -> list[dict[str, Any]]:
    endpoint = added.endpoint
    found: list[dict[str, Any]] = [
        {"name": added.network.device, "mac": str(added.bridge_mac)},
        {"name": endpoint.host_ifname, "mac": str(added.host_mac)},
        {"name": endpoint.ifname, "mac": str(endpoint.mac), "sandbox": added.netns},
    ]
    if with_mtu:
        found = [each | {"mtu": endpoint.mtu or added.network.mtu} for each in found]
    return found


def _ips(added: Added, *, with_version: bool) -> list[dict[str, Any]]:
    return [
        ({"version": str(interface.address.version)} if with_version else {})
        | {"address": str(interface), **_gateway(interface, added.network), "interface": 2}
        for interface in added.endpoint.addresses
    ]


def _routes(added: Added, versions: tuple[int, ...]) -> list[dict[str, str]]:
    return [
        {"dst": str(route.prefix or EVERYWHERE[route.gateway.version]), "gw": str(route.gateway)}
        for route in added.routes
        if route.gateway is not None and route.gateway.version in versions
    ]


def _dns(dns: Dns) -> dict[str, Any]:
    said = {
        "nameservers": list(dns.nameservers),
        "domain": dns.domain,
        "search": list(dns.search),
        "options": list(dns.options),
    }
    return {key: value for key, value in said.items() if value}


def _old_shape(added: Added) -> dict[str, Any]:
    """At most one address of each IP version."""
    found: dict[str, Any] = {}
    for interface in reversed(added.endpoint.addresses):
        version = interface.address.version
        routes = _routes(added, (version,))
        found[f"ip{version}"] = {"ip": str(interface), **_gateway(interface, added.network), "routes": routes}
    return found


class Previous(Record):
    """What a result of any version says of one interface: its MAC address (empty: nothing), addresses, and all routes.

    ``links`` are the interfaces of the result that are the host's.
    """

    has_interface: bool
    mac: str
    addresses: tuple[str, ...]
    routes: tuple[str, ...]
    links: tuple[str, ...]


def parse_previous(result: Section, ifname: str) -> Previous:
    """Read a prevResult of any version. Raises CniError."""
    old = [result.section(key) for key in ("ip4", "ip6") if result.has(key)]
    interfaces = result.sections("interfaces")
    ours = [
        place for place, each in enumerate(interfaces) if each.text("name") == ifname and each.has("sandbox")
    ]
    addresses = [each.text("ip") for each in old]
    addresses += [
        each.text("address") for each in result.sections("ips") if each.raw("interface") in (None, *ours)
    ]
    routes = [*result.sections("routes"), *[route for each in old for route in each.sections("routes")]]
    return Previous(
        bool(ours or old),
        interfaces[ours[0]].text("mac") if ours else "",
        tuple(addresses),
        tuple([route.text("dst") for route in routes]),
        tuple([each.text("name") for each in interfaces if not each.has("sandbox")]),
    )


def joined_document(previous: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """The answer to ADD behind plugins that made other interfaces (loopback): what they said, and then ours.

    Only where results have lists (0.3.0); before that there were no lists of plugins either.
    """
    if "ips" not in answer:
        return answer
    before = {key: previous.get(key) or [] for key in ("interfaces", "ips", "routes")}
    place = len(before["interfaces"])
    ours = [each | {"interface": each["interface"] + place} for each in answer["ips"]]
    return answer | {
        "interfaces": [*before["interfaces"], *answer["interfaces"]],
        "ips": [*before["ips"], *ours],
        "routes": [*before["routes"], *answer["routes"]],
        "dns": answer["dns"] or previous.get("dns") or {},
    }
