"""The plugin protocol: a method's name and a document in, a document out (docs.docker.com, "Docker Plugin API").

Rules: an error is ``{"Err": TEXT}`` for the network driver and ``{"Error": TEXT}`` for IPAM; the answer has both. What is no
document has status 400, a method that is not known 404, and what nobody foresaw 500, never a traceback. dockerd repeats a
request whose answer it did not get with an empty body; that is no document either.
"""

from __future__ import annotations

import os
import sys

from vethwork.engine.engine import Engine
from vethwork.engine.external_links import collect_dead
from vethwork.errors import VethworkError
from vethwork.frontends.docker import ipam_driver, network_driver
from vethwork.frontends.docker.document import Malformed, Section
from vethwork.frontends.docker.network import OWNER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from vethwork.engine.engine import Engines
    from vethwork.frontends.docker.network_driver import Answer

CONTENT_TYPE = "application/vnd.docker.plugins.v1.2+json"
OK, BAD_REQUEST, UNKNOWN_METHOD, INTERNAL = 200, 400, 404, 500


def _activate(engine: Engine, document: Section) -> Answer:
    """What dockerd asks when it starts. If it was killed, it forgets its endpoints then without DeleteEndpoint (20.10)."""
    collect_dead(engine, OWNER)
    return {"Implements": ["NetworkDriver", "IpamDriver"]}


METHODS: dict[str, Callable[[Engine, Section], Answer]] = {
    "Plugin.Activate": _activate,
    "NetworkDriver.GetCapabilities": network_driver.capabilities,
    "NetworkDriver.GwAllocCheck": network_driver.check_gateways,
    "NetworkDriver.CreateNetwork": network_driver.create_network,
    "NetworkDriver.DeleteNetwork": network_driver.delete_network,
    "NetworkDriver.CreateEndpoint": network_driver.create_endpoint,
    "NetworkDriver.DeleteEndpoint": network_driver.delete_endpoint,
    "NetworkDriver.EndpointOperInfo": network_driver.endpoint_info,
    "NetworkDriver.Join": network_driver.join,
    "NetworkDriver.Leave": network_driver.leave,
    "NetworkDriver.ProgramExternalConnectivity": network_driver.program,
    "NetworkDriver.RevokeExternalConnectivity": network_driver.revoke,
    "NetworkDriver.DiscoverNew": network_driver.discover,
    "NetworkDriver.DiscoverDelete": network_driver.discover,
    "IpamDriver.GetCapabilities": ipam_driver.capabilities,
    "IpamDriver.GetDefaultAddressSpaces": ipam_driver.spaces,
    "IpamDriver.RequestPool": ipam_driver.request_pool,
    "IpamDriver.ReleasePool": ipam_driver.release_pool,
    "IpamDriver.RequestAddress": ipam_driver.request_address,
    "IpamDriver.ReleaseAddress": ipam_driver.release_address,
}
WITHOUT_DOCUMENT = frozenset(
    {
        "Plugin.Activate",
        "NetworkDriver.GetCapabilities",
        "IpamDriver.GetCapabilities",
        "IpamDriver.GetDefaultAddressSpaces",
    }
)


def handle(method: str, document: Section, engines: Engines = Engine) -> Answer:
    """Do what a document asks for. Raises VethworkError; nothing is left then. KeyError: there is no such method."""
    work = METHODS[method]
    with engines() as engine:
        return work(engine, document)


def answer(method: str, body: bytes, engines: Engines = Engine) -> tuple[int, Answer]:
    """The HTTP status and the document for a request, whatever it is."""
    if method not in METHODS:
        return UNKNOWN_METHOD, _error(f"{method[:80]!r} is no method of this plugin")
    try:
        return OK, handle(method, Section({}) if method in WITHOUT_DOCUMENT else Section.parse(body), engines)
    except Malformed as error:
        return BAD_REQUEST, _error(f"{method}: {error}")
    except VethworkError as error:
        return OK, _error(str(error))
    except (
        Exception
    ) as error:  # the outermost boundary: dockerd can read nothing but an error of the protocol
        if "VETHWORK_DEBUG" in os.environ:
            import traceback

            traceback.print_exc(file=sys.stderr)
        return INTERNAL, _error(f"internal error: {type(error).__name__}: {error}")


def _error(text: str) -> Answer:
    return {"Err": text, "Error": text}
