"""From CreateNetwork to the wish for a network.

What ``docker network create`` says with ``-o`` is in vethwork's own words; those that Docker's bridge driver has for the same
are understood too, so that a compose file need not change:

    internal=BOOL  isolated=BOOL  icc=BOOL  masquerade=BOOL  mtu=BYTES  bridge=IFNAME  name=NAME

Docker does not tell a plugin the name of a network; ours is ``name``, or ``docker-`` and the id as ``docker network ls``
shows it.
"""

from __future__ import annotations

from vethwork.errors import RequestError
from vethwork.frontends.docker.document import Section, engine_id, parse_id
from vethwork.frontends.json_document import parse_at
from vethwork.model.address import Address, Interface, Prefix
from vethwork.model.names import IfName, Name
from vethwork.model.network import NetworkRequest

OWNER = "docker"
GENERIC = "com.docker.network.generic"
EVERYWHERE = ("0.0.0.0/0", "::/0")
"""The pools of Docker's ``null`` IPAM: addresses are the driver's business."""

WORDS = ("internal", "isolated", "icc", "masquerade", "mtu", "bridge", "name")
DOCKERS_WORDS = {
    "com.docker.network.bridge.name": "bridge",
    "com.docker.network.bridge.enable_icc": "icc",
    "com.docker.network.bridge.enable_ip_masquerade": "masquerade",
    "com.docker.network.driver.mtu": "mtu",
}


def parse_network(document: Section) -> NetworkRequest:
    """The wish for a network. Raises RequestError."""
    network_id, options = parse_id(document, "NetworkID"), document.section("Options")
    said = parse_options(options)
    data = [*document.sections("IPv4Data"), *document.sections("IPv6Data")]
    subnets = [each.parsed("Pool", Prefix.parse) for each in data if each.text("Pool") not in EVERYWHERE]
    gateways = [each.parsed("Gateway", parse_host) for each in data]
    isolated = said.flag("isolated")
    wants_6 = options.flag("com.docker.network.enable_ipv6")
    if not subnets and not options.flag("com.docker.network.enable_ipv4", True):
        raise RequestError("create network: one without IPv4 needs an IPv6 subnet")
    return NetworkRequest(
        name=said.parsed("name", Name.parse) or Name.parse(f"docker-{network_id[:12]}"),
        id=engine_id(network_id),
        subnets=tuple([subnet for subnet in subnets if subnet is not None]),
        gateways=() if isolated else tuple([each for each in gateways if each is not None]),
        ipv6=wants_6 and not subnets,
        internal=is_internal(document) and not isolated,
        isolated=isolated,
        icc=said.flag("icc", True),
        masquerade=said.flag("masquerade", True),
        mtu=_parse_mtu(said),
        device=said.parsed("bridge", IfName.parse),
        held=tuple([address for each in data for address in _parse_held(each)]),
        owner=OWNER,
    )


def parse_options(options: Section) -> Section:
    """What was said with ``-o``, in our words. Raises RequestError for words that we do not know."""
    generic = options.section(GENERIC)
    said: dict[str, str] = {}
    for key in generic:
        word = DOCKERS_WORDS.get(key, key)
        if word not in WORDS:
            raise RequestError(f"option {key!r:.80}: unknown", hint=f"known are {', '.join(WORDS)}")
        said[word] = generic.text(key)
    return Section(said, "-o")


def is_internal(document: Section) -> bool:
    """Whether it was made with ``--internal``, or ``-o internal``."""
    options = document.section("Options")
    return options.flag("com.docker.network.internal") or parse_options(options).flag("internal")


def parse_host(text: str) -> Address:
    """``10.0.0.1``, or ``10.0.0.1/24``, of which the subnet is known already."""
    return Interface.parse(text).address if "/" in text else Address.parse(text)


def _parse_held(data: Section) -> list[Address]:
    """What ``--aux-address`` keeps free of containers."""
    aux = data.section("AuxAddresses")
    return [parse_at(aux.place(key), aux.text(key), parse_host) for key in aux]


def _parse_mtu(said: Section) -> int | None:
    text = said.text("mtu")
    if text and not (text.isascii() and text.isdecimal() and len(text) <= 5):
        raise RequestError(f"-o mtu={text!r:.40}: is no number of bytes")
    return int(text) if text and int(text) else None
