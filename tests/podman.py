"""Documents as Podman hands them to netavark: those of 4.3, and those of 5.8 with all that came in between."""

from __future__ import annotations

import hashlib
import io
import json
from typing import TYPE_CHECKING, Any

from tests.heard import Heard
from vethwork.frontends.netavark.main import run

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTAINER = "2d5eee87b4f9c3a0cb6f7e1c0a4f0e7b6d1c2b3a49586776655443322110ffee"
Document = dict[str, Any]


def call(*words: str, document: object = None, environ: Mapping[str, str] | None = None) -> Heard:
    """Call the front-end in this process, with streams of its own."""
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    out, err = io.StringIO(), io.StringIO()
    status = run(words, dict(environ or {}), io.BytesIO(data), out, err)
    return Heard(status, out.getvalue(), err.getvalue())


def network_id(name: str) -> str:
    """64 hex digits."""
    return hashlib.sha256(name.encode()).hexdigest()


def info(name: str = "blue", *subnets: str, **more: Any) -> Document:
    """A network as Podman 4.3 describes it; the first address of each subnet is its gateway."""
    prefixes = subnets or ("10.99.0.0/24",)
    return {
        "name": name,
        "id": network_id(name),
        "driver": "bridge",
        "network_interface": f"pm-{name[:10]}",
        "created": "2026-01-02T03:04:05.678901234Z",
        "subnets": [{"subnet": each, "gateway": gateway(each)} for each in prefixes],
        "ipv6_enabled": any(":" in each for each in prefixes),
        "internal": False,
        "dns_enabled": False,
        "ipam_options": {"driver": "host-local"},
    } | more


def newest(described: Document) -> Document:
    """The same as Podman 5.8 describes it: with everything that may be there, there, some of it as null."""
    return {"routes": None, "network_dns_servers": None, "labels": {}, "options": None} | described


def gateway(subnet: str) -> str:
    """The first address of a subnet."""
    head = subnet.partition("/")[0]
    return f"{head}1" if head.endswith("::") else head.rpartition(".")[0] + ".1"


def joined(*addresses: str, ifname: str = "eth0", **more: Any) -> Document:
    """How a container is on a network."""
    return {"interface_name": ifname, "static_ips": list(addresses or ("10.99.0.55",))} | more


def mapped(host_port: int, container_port: int = 80, **more: Any) -> Document:
    """A published port."""
    return {
        "host_ip": "",
        "container_port": container_port,
        "host_port": host_port,
        "range": 1,
        "protocol": "tcp",
    } | more


def container(joins: Document | None = None, *infos: Document, name: str = "web", **more: Any) -> Document:
    """The whole document, on network blue unless others are given."""
    described = infos or (info(),)
    return {
        "container_id": CONTAINER,
        "container_name": name,
        "networks": {"blue": joined()} if joins is None else joins,
        "network_info": {each["name"]: each for each in described},
    } | more
