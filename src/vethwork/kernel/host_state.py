"""Reading the host: what a new network must keep clear of.

Rules: nothing here changes anything. A route that is wider than a /8 says where the world is, not where a network is (a VPN's
0.0.0.0/1 and 128.0.0.0/1), and keeps nobody from choosing a subnet.
"""

from __future__ import annotations

import os

from vethwork.errors import RequestError
from vethwork.kernel import sysctl
from vethwork.model.address import BITS, Address, Prefix
from vethwork.model.state import HostSeen, LinkSeen
from vethwork.model.steps import LINK_GROUP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from vethwork.kernel.executor import Kernel
    from vethwork.kernel.rtnl import RouteDoor
    from vethwork.wire.rtnetlink import Link, Route

DEFAULT_MTU = 1500
MANY = 20
"""To ask for so many links one by one costs about as much as to ask for a thousand at once."""
FORWARDING = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}
RESOLV_CONF = "/etc/resolv.conf"


def see_host(kernel: Kernel) -> HostSeen:
    """The host's links, routes, addresses, resolvers and forwarding."""
    door = kernel.door("")
    links, routes = door.links(), door.routes()
    held = [interface.prefix for _, interface in door.addresses()]
    ways = [route.prefix for route in routes]
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
        ipv6=has_ipv6(),
    )


def forwarded() -> tuple[int, ...]:
    """The IP versions that the host forwards."""
    return tuple([version for version, path in FORWARDING.items() if sysctl.read(path) == "1"])


def has_ipv6() -> bool:
    """Whether the kernel has IPv6 at all."""
    return os.path.isdir(sysctl.ROOT + "ipv6")


def see_links(kernel: Kernel, ifnames: Collection[str], *, whole: bool = False) -> dict[str, LinkSeen]:
    """Those of the links that the host has; ``whole``: with their addresses and routes."""
    door = kernel.door("")
    if len(ifnames) > MANY:
        found = [link for link in door.links() if link.ifname in ifnames]
    else:
        found = [link for link in map(door.link, ifnames) if link is not None]
    return {link.ifname: _see(door, link, whole=whole) for link in found}


def _see(door: RouteDoor, link: Link, *, whole: bool) -> LinkSeen:
    addresses = door.addresses(link.index) if whole else ()
    routes = door.routes(link.index) if whole else ()
    return LinkSeen(
        index=link.index,
        ours=link.group == LINK_GROUP,
        up=link.up,
        mac=link.mac,
        mtu=link.mtu,
        master=link.master,
        hairpin=link.hairpin,
        addresses=tuple([interface for _, interface in addresses]),
        routes=tuple([route.prefix for route in routes]),
    )


def see_sysctls(paths: Iterable[str]) -> dict[str, str | None]:
    """The values of the host's sysctls; None where the kernel has no such one."""
    return {path: sysctl.read(path) for path in paths}


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
