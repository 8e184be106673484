"""IpamDriver.*: addresses from the engine's own leases, for ``docker network create --ipam-driver vethwork``.

The calls come in this order: RequestPool and RequestAddress (the gateway, and what ``--aux-address`` keeps free) before
CreateNetwork; RequestAddress before each CreateEndpoint; ReleaseAddress and ReleasePool at the ends (libnetwork/docs/ipam.md).
A pool's id says all that is to be known of it, so it is good after any restart.
"""

from __future__ import annotations

from vethwork.engine import ipam
from vethwork.errors import RequestError
from vethwork.frontends.json_document import parse_at
from vethwork.model.address import Address, Prefix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vethwork.engine.engine import Engine
    from vethwork.frontends.docker.document import Section
    from vethwork.frontends.docker.network_driver import Answer

SPACES = {"LocalDefaultAddressSpace": "vethwork", "GlobalDefaultAddressSpace": "vethwork"}
ADDRESS_TYPE, GATEWAY = "RequestAddressType", "com.docker.network.gateway"


def capabilities(engine: Engine, document: Section) -> Answer:
    """GetCapabilities: what was requested is on record, and need not be said again when dockerd starts."""
    return {"RequiresMACAddress": False, "RequiresRequestReplay": False}


def spaces(engine: Engine, document: Section) -> Answer:
    """GetDefaultAddressSpaces: there is one host, and one space."""
    return dict(SPACES)


def request_pool(engine: Engine, document: Section) -> Answer:
    """RequestPool. Docker says which IP version it wants; a pool that it names says so itself."""
    wanted, part = document.parsed("Pool", Prefix.parse), document.parsed("SubPool", Prefix.parse)
    version = 6 if document.flag("V6") else 4
    found = ipam.request_pool(engine, wanted, part, wanted.version if wanted is not None else version)
    return {"PoolID": str(found), "Pool": str(found.prefix), "Data": {}}


def release_pool(engine: Engine, document: Section) -> Answer:
    """ReleasePool."""
    ipam.release_pool(engine, _pool(document))
    return {}


def request_address(engine: Engine, document: Section) -> Answer:
    """RequestAddress: a container's, or a gateway's."""
    pool, wanted = _pool(document), document.parsed("Address", Address.parse)
    if document.section("Options").text(ADDRESS_TYPE) == GATEWAY:
        found = ipam.request_gateway(pool, wanted)
    else:
        found = ipam.request_address(engine, pool, wanted)
    return {"Address": str(found), "Data": {}}


def release_address(engine: Engine, document: Section) -> Answer:
    """ReleaseAddress."""
    address = document.parsed("Address", Address.parse)
    if address is None:
        raise RequestError("Address: is missing")
    ipam.release_address(engine, _pool(document), address)
    return {}


def _pool(document: Section) -> ipam.Pool:
    return parse_at(document.place("PoolID"), document.text("PoolID"), ipam.Pool.parse)
