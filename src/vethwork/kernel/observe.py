"""Reading the host: what a new network must keep clear of.

Rules: nothing here changes anything. A route that is wider than a /8 says where the world is, not where a network is (a VPN's
0.0.0.0/1 and 128.0.0.0/1), and keeps nobody from choosing a subnet.
"""

from __future__ import annotations

import os

from vethwork.errors import RequestError
from vethwork.kernel import sysctl
from vethwork.model.address import BITS, Address, Prefix
from vethwork.model.snapshot import HostSeen
from vethwork.model.steps import LINK_GROUP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vethwork.kernel.apply import Kernel
    from vethwork.wire.rtnetlink import Link, Route

DEFAULT_MTU = 1500
RESOLV_CONF = "/etc/resolv.conf"


def see_host(kernel: Kernel) -> HostSeen:
    """The host's links, routes, addresses, resolvers and forwarding."""
    door = kernel.door("")
    links, routes = door.links(), door.routes()
    held = [interface.prefix for _, interface in door.addresses()]
    ways = [route.prefix for route in routes]
    ipv6 = os.path.isdir(sysctl.ROOT + "ipv6")
    mtu, way_out = _way_out(links, routes)
    return HostSeen(
        taken=tuple([prefix for prefix in (*held, *ways, *_resolvers()) if _is_place(prefix)]),
        links=tuple([link.ifname for link in links]),
        mtu=mtu,
        way_out=way_out,
        mtus=tuple([link.mtu for link in links]),
        bridges=tuple([link.ifname for link in links if link.kind == "bridge"]),
        forwarding=forwarded(),
        ra_links=tuple([link.ifname for link in links if _hears_routers(link)]),
        ipv6=ipv6,
    )


def forwarded() -> tuple[int, ...]:
    """The IP versions that the host forwards."""
    switches = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}
    return tuple([version for version, path in switches.items() if sysctl.read(path) == "1"])


def _hears_routers(link: Link) -> bool:
    ours = link.group == LINK_GROUP or link.ifname == "lo"
    return not ours and sysctl.read(f"ipv6/conf/{link.ifname}/accept_ra") == "1"


def _is_place(prefix: Prefix) -> bool:
    return prefix.length >= 8 and not prefix.address.is_multicast and not prefix.address.is_link_local


def _way_out(links: tuple[Link, ...], routes: tuple[Route, ...]) -> tuple[int, str]:
    """The MTU and the name of the default route's link: a larger MTU in a container would black-hole what is not
    fragmented."""
    found = {link.index: (link.mtu, link.ifname) for link in links}
    return next(
        (found[route.oif] for route in routes if route.prefix.length == 0 and route.oif in found),
        (DEFAULT_MTU, ""),
    )


def _resolvers() -> list[Prefix]:
    found: list[Prefix] = []
    try:
        with open(RESOLV_CONF, errors="replace") as file:
            words = [line.split() for line in file]
    except OSError:
        return found
    for line in words:
        if len(line) > 1 and line[0] == "nameserver":
            try:
                address = Address.parse(line[1])
            except RequestError:
                continue
            found.append(Prefix(address, BITS[address.version]))
    return found
