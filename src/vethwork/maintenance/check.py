"""Whether what is on record is also so: one interface as the kernel has it, and whether the host can work at all.

Rules: nothing here changes anything. What is wrong is told in words that name both sides: what is there, and what should
be there.
"""

from __future__ import annotations

from vethwork.errors import BadNamespace
from vethwork.model.address import Interface, Mac
from vethwork.model.record import Record
from vethwork.plan.elements import endpoint_elements, network_elements, publication_elements

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vethwork.engine.engine import Engine
    from vethwork.model.container import Endpoint
    from vethwork.model.network import Network
    from vethwork.model.ruleset import Element
    from vethwork.model.state import ContainerSeen
    from vethwork.wire.rtnetlink import Route


class InterfaceSeen(Record):
    """An interface of a container, in the kernel. A MAC address is None where its link is gone.

    ``routes`` are those that leave by it through a gateway. ``master`` tells whether the host's end is in its bridge.
    """

    mac: Mac | None
    mtu: int
    up: bool
    addresses: tuple[Interface, ...]
    routes: tuple[Route, ...]
    host_mac: Mac | None
    bridge_mac: Mac | None
    master: bool


def observe_interface(engine: Engine, netns: str, endpoint: Endpoint, network: Network) -> InterfaceSeen:
    """Read one interface. Raises BadNamespace if the container's namespace is gone."""
    host = engine.kernel.door("")
    bridge = host.link(network.device)
    outer = host.link(endpoint.host_ifname) if endpoint.host_ifname else None
    door = engine.kernel.door(netns)
    link = door.link(endpoint.ifname)
    index = link.index if link is not None else -1
    return InterfaceSeen(
        mac=link.mac if link is not None else None,
        mtu=link.mtu if link is not None else 0,
        up=link is not None and link.up,
        addresses=tuple([each for place, each in door.addresses() if place == index]),
        routes=tuple([each for each in door.routes() if each.oif == index and each.gateway is not None]),
        host_mac=outer.mac if outer is not None else None,
        bridge_mac=bridge.mac if bridge is not None else None,
        master=outer is not None and bridge is not None and outer.master == bridge.index,
    )


def check(engine: Engine, name: str, ifname: str = "") -> tuple[str, ...]:
    """In what a container, or one interface of it, is not as it is on record; nothing if all is well.

    Raises NotFound if there is no such container.
    """
    from vethwork.engine.external_links import is_awaited  # which is for Docker's libnetwork alone

    seen = engine.inspect(name)
    networks = {network.name: network for network in seen.networks}
    wrong: list[str] = []
    wanted: list[Element] = []
    for endpoint in seen.endpoints:
        if ifname in ("", endpoint.ifname):
            network = networks[endpoint.network]
            if not seen.container.handed:
                wrong += _wrong_links(engine, seen.container.netns, endpoint, network)
            elif not is_awaited(seen.container):
                wrong += _wrong_host_end(engine, endpoint, network)
            wanted += _wanted(seen, endpoint, network)
    return (*wrong, *_missing(engine, wanted))


def _wrong_links(engine: Engine, netns: str, endpoint: Endpoint, network: Network) -> list[str]:
    try:
        have = observe_interface(engine, netns, endpoint, network)
    except BadNamespace as error:
        return [error.message]
    finally:
        engine.kernel.leave_namespaces()
    wrong: list[str] = []
    if network.driver == "bridge":
        if have.bridge_mac is None:
            wrong.append(f"bridge {network.device} is gone")
        if have.host_mac is None:
            wrong.append(f"host end {endpoint.host_ifname} is gone")
        elif have.bridge_mac is not None and not have.master:
            wrong.append(f"host end {endpoint.host_ifname} is not in bridge {network.device}")
    if endpoint.ifb and engine.kernel.door("").link(endpoint.ifb) is None:
        wrong.append(f"link {endpoint.ifb}, which limits what {endpoint.ifname} sends, is gone")
    if have.mac is None:
        return [*wrong, f"interface {endpoint.ifname} is gone"]
    if have.mac != endpoint.mac and network.driver != "foreign":
        wrong.append(f"interface {endpoint.ifname} has MAC address {have.mac}, not {endpoint.mac}")
    if not have.up:
        wrong.append(f"interface {endpoint.ifname} is down")
    lost = [str(each) for each in endpoint.addresses if each not in have.addresses]
    if lost:
        wrong.append(f"interface {endpoint.ifname} has not the address {', '.join(lost)}")
    return wrong


def _wrong_host_end(engine: Engine, endpoint: Endpoint, network: Network) -> list[str]:
    """What is wrong with a link whose inner end is somebody else's to configure."""
    bridge = engine.kernel.door("").link(network.device)
    outer = engine.kernel.door("").link(endpoint.host_ifname)
    if bridge is None:
        return [f"bridge {network.device} is gone"]
    if outer is None:
        return [f"host end {endpoint.host_ifname} is gone"]
    inside = outer.master == bridge.index
    return [] if inside else [f"host end {endpoint.host_ifname} is not in bridge {network.device}"]


def _wanted(seen: ContainerSeen, endpoint: Endpoint, network: Network) -> tuple[Element, ...]:
    found = network_elements(network) + endpoint_elements(endpoint, network)
    for publication in seen.publications:
        if publication.endpoint == endpoint.id:
            found += publication_elements(publication, endpoint)
    return found


def _missing(engine: Engine, wanted: list[Element]) -> list[str]:
    """What the ruleset must have and has not."""
    from vethwork.plan.ruleset import TABLES  # which only to look at an interface is not needed

    nft = engine.kernel.nft
    if wanted and not nft.is_whole(TABLES):
        return ["the ruleset is gone ('vethwork restore' brings it back)"]
    families = {table.family: table for table in TABLES}
    missing: list[str] = []
    for family, name in sorted({(each.family, each.set) for each in wanted}):
        have = set(nft.elements(families[family], name))
        missing += [
            f"set {family} vethwork {name} has no element {each}"
            for each in wanted
            if (each.family, each.set) == (family, name) and each not in have
        ]
    return missing


def check_host(engine: Engine) -> None:
    """Ask the kernel for what every attach needs. Raises KernelRefused, or StateError if the records cannot be written."""
    from vethwork.plan.ruleset import TABLES

    engine.kernel.nft.is_whole(TABLES)
    engine.kernel.door("").links()
    with engine.store.transaction():
        pass
