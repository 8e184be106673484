"""The verbs: each takes a call and its configuration to the engine, and brings the answer back.

Rules: whatever is wrong with a configuration is found before the engine is asked for anything. DEL and GC look at nothing of
it but the network's name, and at what is on record: a configuration that has changed, a network that is gone and a
namespace that has vanished hold up no teardown.
"""

from __future__ import annotations

import os

from vethwork.engine.interfaces import add_interface, host_macs, remove_interface, routes_by
from vethwork.engine.networks import new_id
from vethwork.errors import KernelRefused, NotFound, StateError, VethworkError
from vethwork.frontends.cni import chain, names
from vethwork.frontends.cni.document import NOT_AVAILABLE, TRY_AGAIN, UNKNOWN, CniError
from vethwork.frontends.cni.interface import parse_dns, parse_join, parse_publishes, settle_routes
from vethwork.frontends.cni.network import OWNER, parse_name, parse_network
from vethwork.frontends.cni.result import Added, joined_document, parse_previous, result_document
from vethwork.model.container import AttachRequest, Mode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vethwork.engine.engine import Engine, Engines
    from vethwork.frontends.cni.document import Section
    from vethwork.frontends.cni.protocol import Call
    from vethwork.maintenance.check import InterfaceSeen
    from vethwork.model.container import Endpoint, Join
    from vethwork.model.network import Network, NetworkRequest
    from vethwork.model.ports import Publish

    Answer = dict[str, Any] | None

TRIES = 5
DIFFERS = 100
"""An error code of our own: what CHECK found is not what should be."""


def add(engines: Engines, call: Call, document: Section, version: str) -> Answer:
    """ADD: make the network if it is the first time, and the interface. Raises VethworkError; nothing is left then.

    What another plugin has made stays as it is (see ``chain``).
    """
    if chain.is_behind(call, document):
        return _add_behind(engines, call, document, version)
    wish = parse_network(document)
    join, publishes, dns = parse_join(call, document), parse_publishes(document), parse_dns(document)
    known = names.parse_known(call, document)
    request = _request(call, document, publishes)

    def tell(endpoint: Endpoint, network: Network) -> None:
        if known is not None:
            names.announce(engine, known, endpoint, network, dns)

    with engines() as engine:
        engine.check_netns(call.netns)
        network, endpoint = _add_to(engine, wish, join, request, tell)
        resolved = names.resolved(network, dns) if known is not None else dns
        ends = host_macs(engine, endpoint, network)
        added = Added(endpoint, network, call.netns, *ends, routes_by(engine, endpoint), resolved)
        answer = result_document(version, added)
        return joined_document(document.section("prevResult").data(), answer)


def _add_behind(engines: Engines, call: Call, document: Section, version: str) -> Answer:
    wish = chain.parse_wish(call, document, version)
    with engines() as engine:
        engine.check_netns(call.netns)
        network = chain.network_behind(engine, wish)
        if network is not None:
            _add_to(engine, network, wish.join, _request(call, document, wish.publishes))
    return document.section("prevResult").data() | {"cniVersion": version}


def _request(call: Call, document: Section, publishes: tuple[Publish, ...]) -> AttachRequest:
    return AttachRequest(
        id=new_id(),
        name=call.container,
        mode=Mode("network", parse_name(document)),
        publishes=publishes,
        netns=call.netns,
        owner=OWNER,
        reserved=document.flag("portsReserved"),
    )


def _add_to(
    engine: Engine,
    wish: NetworkRequest,
    join: Join,
    request: AttachRequest,
    tell: Callable[[Endpoint, Network], None] = lambda *_: None,
) -> tuple[Network, Endpoint]:
    """Add an interface to a network that may have to be made for it; then it goes again if the interface cannot be had."""
    for _ in range(TRIES):
        is_new = engine.store.network(wish.name) is None
        network = engine.network_like(wish)
        try:
            settled = request.replace(
                mode=Mode("network", network.name),
                joins=(settle_routes(join.replace(network=network.name), network),),
            )
            endpoint = add_interface(engine, settled)
            try:
                tell(endpoint, network)
            except VethworkError:
                remove_interface(engine, endpoint.container, network.name, endpoint.ifname, OWNER)
                raise
            return network, endpoint
        except NotFound:
            if engine.store.network(wish.name) is not None:
                raise
            # Somebody else's ADD had made the network, failed, and took it away again.
        except VethworkError:
            if is_new:
                engine.discard_network(wish.name)
            raise
    raise CniError(TRY_AGAIN, f"ADD: network {wish.name} came and went")


def delete(engines: Engines, call: Call, document: Section, version: str) -> Answer:
    """DEL: what is not there, or is not of our making, is deleted already. Raises Incomplete."""
    with engines() as engine:
        network = chain.network_on_record(engine, call, parse_name(document))
        remove_interface(engine, call.container, network, call.ifname, OWNER)
        names.withdraw(engine, call, network)
    return None


def verify(engines: Engines, call: Call, document: Section, version: str) -> Answer:
    """CHECK: compare the records, the previous result and the kernel. Raises CniError (100) with every difference."""
    from vethwork.maintenance.check import check, observe_interface

    with engines() as engine:
        name = chain.network_on_record(engine, call, parse_name(document))
        if chain.is_nothing_to_do(engine, call, document, version):
            return None
        seen = engine.inspect(call.container)
        found = [each for each in seen.endpoints if (each.network, each.ifname) == (name, call.ifname)]
        if not found or seen.container.owner != OWNER:
            raise CniError(UNKNOWN, f"CHECK: {call.container} has no {call.ifname} on {name}")
        wrong = list(check(engine, call.container, call.ifname))
        if document.flag("names") and not names.is_known(engine, call, name):
            wrong.append("the name server was not told of it")
        network = engine.network(name)
        if not wrong and network.driver != "foreign" and document.has("prevResult"):
            have = observe_interface(engine, call.netns, found[0], network)
            wrong = _differences(document.section("prevResult"), call.ifname, have)
    if wrong:
        raise CniError(DIFFERS, f"CHECK {call.container} {call.ifname}: {'; '.join(wrong)}")
    return None


def _differences(result: Section, ifname: str, have: InterfaceSeen) -> list[str]:
    """What a previous result says and the kernel does not."""
    said = parse_previous(result, ifname)
    wrong = [] if said.has_interface else [f"prevResult has no interface {ifname}"]
    if said.mac and said.mac.lower() != str(have.mac):
        wrong.append(f"interface {ifname} has MAC address {have.mac}, not {said.mac}")
    addresses = {str(each) for each in have.addresses}
    wrong += [
        f"interface {ifname} has not the address {each}" for each in said.addresses if each not in addresses
    ]
    routes = {str(each.prefix) for each in have.routes}
    wrong += [f"there is no route to {each} by {ifname}" for each in said.routes if each not in routes]
    return wrong


def collect(engines: Engines, call: Call, document: Section, version: str) -> Answer:
    """GC: take off the network what the runtime does not list. Raises Incomplete."""
    from vethwork.maintenance.gc import collect_unlisted  # which loads what starts and stops processes

    keys = ("cni.dev/valid-attachments", "cni.dev/attachments")
    listed = [section for key in keys for section in document.sections(key)]
    keep = frozenset([(section.text("containerID"), section.text("ifname")) for section in listed])
    with engines() as engine:
        for name in chain.networks_on_record(engine, parse_name(document)):
            collect_unlisted(engine, name, keep, OWNER)
            names.withdraw_unlisted(engine, name)
    return None


def status(engines: Engines, call: Call, document: Section, version: str) -> Answer:
    """STATUS: whether an ADD could succeed now. Raises CniError (50)."""
    from vethwork.maintenance.check import check_host

    if os.geteuid() != 0:
        raise CniError(NOT_AVAILABLE, "STATUS: this process is not root")
    parse_network(document)
    try:
        with engines() as engine:
            check_host(engine)
    except (KernelRefused, StateError, OSError) as error:
        hint = error.hint if isinstance(error, (KernelRefused, StateError)) else ""
        said = error.message if isinstance(error, (KernelRefused, StateError)) else str(error)
        raise CniError(NOT_AVAILABLE, f"STATUS: {said}", hint=hint) from error
    return None


VERBS: dict[str, Callable[[Engines, Call, Section, str], Answer]] = {
    "ADD": add,
    "DEL": delete,
    "CHECK": verify,
    "GC": collect,
    "STATUS": status,
}
