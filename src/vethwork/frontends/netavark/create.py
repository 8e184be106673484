"""Completing the description of a network (``netavark create``): what its maker left open is chosen, what is wrong refused.

Source: netavark's ``docs/netavark-create-input.md`` and ``libnetwork/netavark/config.go`` of containers/common, which did the
same before. Nothing is made, and nothing is kept: the caller writes the description down, and names what is in use.
"""

from __future__ import annotations

import os
import time

from vethwork.errors import ConflictError, RequestError
from vethwork.frontends.netavark.translate import parse_network
from vethwork.model.address import BITS, Address, Interface, Prefix
from vethwork.model.names import IfName, Name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vethwork.frontends.netavark.document import Fields

OPTIONS = {
    "bridge": ("mtu", "isolate", "metric", "no_default_route", "mode", "outbound_addr4", "outbound_addr6"),
    "macvlan": ("mtu", "metric", "no_default_route", "mode", "parent"),
}


def complete(document: Fields) -> dict[str, Any]:
    """Give the network that a document asks for, whole. Raises RequestError or ConflictError."""
    asked, used, options = (document.section(key) for key in ("network", "used", "options"))
    name = Name.parse(asked.text("name"))
    if name in used.words("names"):
        raise ConflictError(f"network name {name} already used")
    identity = asked.text("id")
    if len(identity) != 64 or identity.strip("0123456789abcdef"):
        raise RequestError(f"invalid network ID {identity!r:.80}: it is 64 hex digits")
    driver = asked.text("driver") or "bridge"
    made = asked.data() | {"driver": driver, "created": asked.text("created") or _now()}
    for option in asked.words("options"):
        if driver in OPTIONS and option not in OPTIONS[driver]:
            raise RequestError(f"unsupported {driver} network option {option!r:.80}")
    ipam = asked.section("ipam_options").text("driver")
    managed = asked.words("options").get("mode") != "unmanaged"
    if driver == "bridge":
        made["network_interface"] = _device(asked, used, options, managed=managed)
    else:
        made["dns_enabled"] = False
    if ipam not in ("none", "dhcp"):
        made["subnets"] = _subnets(asked, used, options, wants_some=driver == "bridge")
        ipam = "host-local" if made["subnets"] else "none"
    made["ipam_options"] = {**asked.words("ipam_options"), "driver": ipam}
    made["ipv6_enabled"] = asked.flag("ipv6_enabled") or any(
        ":" in each["subnet"] for each in made.get("subnets", [])
    )
    parse_network(name, type(document)(made, "network"), 0)
    return made


def _now() -> str:
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09d}Z"


def _device(asked: Fields, used: Fields, options: Fields, *, managed: bool) -> str:
    taken = used.texts("interfaces")
    given = asked.text("network_interface")
    if given:
        if managed and given in taken:
            raise ConflictError(f"bridge name {given} already in use")
        return str(IfName.parse(given))
    if not managed:
        raise RequestError("in unmanaged mode, the bridge must be named by network_interface")
    base = IfName.parse(options.text("default_interface_name") or "podman")
    return next(name for name in (f"{base}{n}" for n in range(len(taken) + 1)) if name not in taken)


def _subnets(asked: Fields, used: Fields, options: Fields, *, wants_some: bool) -> list[dict[str, Any]]:
    taken = [Interface.parse(each).prefix for each in used.texts("subnets")]
    found: list[dict[str, Any]] = []
    for each in asked.sections("subnets"):
        prefix = Interface.parse(each.text("subnet")).prefix
        checked = taken if options.flag("check_used_subnets") else []
        if any(prefix.overlaps(other) for other in checked):
            raise ConflictError(f"subnet {prefix} is already used on the host or by another config")
        found.append(each.data() | {"subnet": str(prefix)} | _gateway(asked, each, prefix))
        taken.append(prefix)
    versions = {Prefix.parse(each["subnet"]).version for each in found}
    chosen: list[Prefix] = []
    if wants_some and 4 not in versions and (not found or asked.flag("ipv6_enabled")):
        chosen.append(_free(options, taken))
    if 6 not in versions and asked.flag("ipv6_enabled") and (found or wants_some):
        chosen.append(_local(taken))
    blank = type(asked)({}, "network.subnets")
    return [*found, *[{"subnet": str(prefix)} | _gateway(asked, blank, prefix) for prefix in chosen]]


def _gateway(asked: Fields, subnet: Fields, prefix: Prefix) -> dict[str, str]:
    """The gateway of a subnet: as given, or its first address; an internal network without names needs none."""
    if "gateway" in subnet:
        gateway = Address.parse(subnet.text("gateway"))
        if gateway not in prefix:
            raise RequestError(f"gateway {gateway} not in subnet {prefix}")
        return {"gateway": str(gateway)}
    lease = subnet.section("lease_range")
    for end in ("start_ip", "end_ip"):
        if end in lease and Address.parse(lease.text(end)) not in prefix:
            raise RequestError(f"lease range {end} {lease.text(end)} not in subnet {prefix}")
    if (asked.flag("internal") and not asked.flag("dns_enabled")) or BITS[prefix.version] - prefix.length < 2:
        return {}
    return {"gateway": str(prefix.address + 1)}


def _free(options: Fields, taken: list[Prefix]) -> Prefix:
    """The first subnet of the caller's pools that overlaps nothing in use. Raises ConflictError."""
    for pool in options.sections("subnet_pools"):
        base, size = Interface.parse(pool.text("base")).prefix, pool.number("size")
        if not base.length <= size <= BITS[base.version]:
            raise RequestError(f"subnet pool {base}: size {size} does not fit into it")
        step = 1 << (BITS[base.version] - size)
        start = base.address.value
        while start <= base.last.value:
            candidate = Prefix(Address(base.version, start), size)
            met = next((other for other in taken if candidate.overlaps(other)), None)
            if met is None:
                return candidate
            start = max(start + step, (met.last.value // step + 1) * step)
    raise ConflictError("could not find free subnet from subnet pools")


def _local(taken: list[Prefix]) -> Prefix:
    """A /64 of unique local addresses with a random global id (RFC 4193)."""
    while True:
        value = 0xFD << 120 | int.from_bytes(os.urandom(7), "big") << 64
        candidate = Prefix(Address(6, value), 64)
        if not any(candidate.overlaps(other) for other in taken):
            return candidate
