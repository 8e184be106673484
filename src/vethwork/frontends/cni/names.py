"""Names of containers for one another, where a configuration says ``"names": true``.

A container is known by the name that the runtime gives it (K8S_POD_NAME in CNI_ARGS, which Podman sets too) and by the
capability ``aliases``, to who is on the same network. Podman's ``aardvark-dns`` answers, on the gateways, and asks the
servers of ``dns`` for what it does not know; so it is the gateways that the result names.

Rules: who asks for names and cannot have them is refused. Where nobody asks, aliases are not looked at, and the module of the
name server is not loaded. DEL and GC look at nothing but what the name server was told.
"""

from __future__ import annotations

import os

from vethwork.frontends.cni.document import CONFIG, CniError
from vethwork.frontends.json_document import parse_at
from vethwork.model.names import Name
from vethwork.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vethwork.engine.engine import Engine
    from vethwork.frontends.aardvark import NameServer
    from vethwork.frontends.cni.document import Section
    from vethwork.frontends.cni.interface import Dns
    from vethwork.frontends.cni.protocol import Call
    from vethwork.model.container import Endpoint
    from vethwork.model.network import Network

DOMAIN = "dns.podman"
"""What aardvark-dns takes for the end of a container's full name."""
PLACES = ("/usr/local/libexec/podman", "/usr/local/lib/podman", "/usr/libexec/podman", "/usr/lib/podman")
"""Where Podman looks for aardvark-dns, and distributions put it (containers.conf(5))."""


class Known(Record):
    """What a container is to be known by. ``own`` are the name servers that the runtime names for it alone."""

    names: tuple[Name, ...]
    own: tuple[str, ...]


def parse_known(call: Call, document: Section) -> Known | None:
    """None where the configuration does not ask for names. Raises CniError."""
    if not document.flag("names"):
        return None
    if not (document.flag("isGateway") or document.flag("isDefaultGateway")):
        raise CniError(CONFIG, "names: needs isGateway, for the name server answers on the gateway")
    if not _binary():
        hint = f"the Debian package is aardvark-dns; it is looked for in {', '.join(PLACES)}"
        raise CniError(CONFIG, "names: there is no aardvark-dns here", hint=hint)
    runtime = document.section("runtimeConfig")
    if isinstance(runtime.raw("aliases"), dict):  # by network, as Podman and CRI-O have it
        said = runtime.section("aliases").texts(document.text("name"))
    else:
        said = runtime.texts("aliases")
    own = (call.argument("K8S_POD_NAME"),)
    names = [parse_at("runtimeConfig.aliases", each, Name.parse) for each in (*own, *said) if each]
    return Known(tuple(dict.fromkeys(names)), runtime.section("dns").texts("servers"))


def announce(engine: Engine, known: Known, endpoint: Endpoint, network: Network, dns: Dns) -> None:
    """Tell the name server of a container. Raises StateError."""
    from vethwork.frontends.aardvark import Host, Zone

    servers = () if known.own else dns.nameservers
    addresses = tuple([str(interface.address) for interface in endpoint.addresses])
    host = Host(_identity(endpoint.container, endpoint.ifname), addresses, known.names, known.own)
    _server(engine).add(((Zone(network.name, network.internal, _gateways(network), servers), host),))


def resolved(network: Network, dns: Dns) -> Dns:
    """What the resolv.conf of a container with a name is to say."""
    return dns.replace(nameservers=_gateways(network), search=(*dns.search, DOMAIN))


def withdraw(engine: Engine, call: Call, network: Name) -> None:
    """Forget a container's interface. Raises StateError."""
    if os.path.isdir(_directory(engine)):
        _server(engine).remove(_identity(call.container, call.ifname), (network,))


def withdraw_unlisted(engine: Engine, network: Name) -> None:
    """Forget who is on a network no more. Raises StateError."""
    if os.path.isdir(_directory(engine)):
        there = [_identity(each.container, each.ifname) for each in engine.store.endpoints_on(network)]
        _server(engine).keep(network, frozenset(there))


def is_known(engine: Engine, call: Call, network: Name) -> bool:
    """Whether the name server was told of a container."""
    return _server(engine).knows(_identity(call.container, call.ifname), network)


def _gateways(network: Network) -> tuple[str, ...]:
    return tuple([str(subnet.gateway) for subnet in network.subnets if subnet.gateway is not None])


def _identity(container: Name, ifname: str) -> str:
    return f"{container}/{ifname}"


def _directory(engine: Engine) -> str:
    return f"{engine.run}/names"


def _binary() -> str:
    found = [f"{place}/aardvark-dns" for place in PLACES if os.access(f"{place}/aardvark-dns", os.X_OK)]
    return found[0] if found else ""


def _server(engine: Engine) -> NameServer:
    from vethwork.frontends.aardvark import NameServer

    # A call's own environment holds nothing that a name server wants.
    return NameServer(_directory(engine), _binary(), 0, os.environ, rootless=False, warn=lambda _: None)
