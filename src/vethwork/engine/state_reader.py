"""Seeing: records and the kernel, put together as the snapshots that planners take.

Rules: nothing here changes anything. What is read from the records is read inside the transaction that will hold the
intent, so two planners never see the same address or port as free.
"""

from __future__ import annotations

from vethwork.errors import NotFound
from vethwork.kernel import port_probe
from vethwork.kernel.netns import cookie_of
from vethwork.model.address import Mac
from vethwork.model.container import AttachRequest, Join
from vethwork.model.network import Network
from vethwork.model.ports import Publish, Taken
from vethwork.model.state import AttachSeen, ContainerSeen, NetworkSeen, PortSeen
from vethwork.plan.ports import dynamic_ports
from vethwork.store.leases import PROMISED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from vethwork.kernel.executor import Kernel
    from vethwork.model.container import Container
    from vethwork.store.database import Store


class Observer:
    """Reads for one engine."""

    def __init__(self, store: Store, kernel: Kernel, run: str) -> None:
        self._store = store
        self._kernel = kernel
        self._run = run

    def container(self, name: str, *, ports: bool = True) -> ContainerSeen:
        """A container with all that hangs on it; less its ports, of which there may be many. Raises NotFound."""
        seen = self.existing(name, ports=ports)
        if seen is None:
            raise NotFound(f"container {name}: there is none of that name", hint="'vethwork ps' lists them")
        return seen

    def existing(self, name: str, *, ports: bool = True) -> ContainerSeen | None:
        """The same, or None."""
        container = self._store.container(name)
        if container is None:
            return None
        endpoints = self._store.endpoints_of(container.name)
        networks = tuple([self.network_row(endpoint.network) for endpoint in endpoints])
        there = self._store.containers_in(container.netns) if container.netns else ()
        others = tuple([other.name for other in there if other.name != container.name])
        sharers = others if container.pinned else ()
        publications = self._store.publications_of(container.name) if ports else ()
        return ContainerSeen(container, endpoints, publications, networks, sharers, self._lodger(others))

    def publisher(self, name: str, publish: Publish) -> ContainerSeen:
        """A container with the one publication that is named, where it has it; else with all. Raises NotFound."""
        seen = self.container(name, ports=False)
        near = self._store.publications_near(publish) if publish.host_port else ()
        own = seen.container.name
        named = tuple([each for each in near if each.container == own and each.publish == publish])
        return seen.replace(publications=named or self._store.publications_of(own))

    def _lodger(self, others: tuple[str, ...]) -> str:
        """Which of the containers in a namespace has interfaces there; empty if none has."""
        return next((each for each in others if self._store.endpoints_of(each)), "")

    def network_row(self, name: str) -> Network:
        """A network. Raises NotFound."""
        network = self._store.network(name)
        if network is None:
            raise NotFound(
                f"network {name}: there is none of that name", hint="'vethwork network ls' lists them"
            )
        return network

    def network(self, join: Join) -> NetworkSeen:
        """A network as somebody who joins it must see it. Raises NotFound."""
        from vethwork.plan.ipam import find_free  # which who detaches has no use for

        store = self._store
        network = self.network_row(join.network)
        holders = [(address, store.leases.holder(network.name, address)) for address in join.addresses]
        if join.requested:
            holders = [(address, "" if holder == PROMISED else holder) for address, holder in holders]
        free = [
            find_free(
                subnet,
                store.leases.cursor(network.name, subnet.prefix),
                lambda first, last: store.leases.taken(network.name, first, last),
                join.ranges,
                network.held,
            )
            for subnet in network.subnets
        ]
        # The MAC address that follows from an IPv4 address is as much its holder's own as that is.
        alike = {Mac.of(each) for each in (*join.addresses, *free) if each and each.version == 6}
        wanted = {join.mac} if join.mac is not None else alike if network.versions[:1] == (6,) else ()
        macs = tuple([(mac, store.leases.holder(network.name, mac)) for mac in wanted])
        if network.driver != "p2p":
            ends = self._there(join.host_ifname or "")
            parent = self._parent_mac(network)
            return NetworkSeen(network, tuple(free), tuple(holders), (), ends, (), parent, macs)
        return self._cable(network).replace(free=tuple(free), leased=tuple(holders), macs=macs)

    def _parent_mac(self, network: Network) -> Mac | None:
        return self._kernel.door("").mac(network.device) if network.driver == "macvlan" else None

    def _cable(self, network: Network) -> NetworkSeen:
        """A cable is seen whole: who holds its ends, and whether one is parked on the host."""
        endpoints = self._store.endpoints_on(network.name)
        found = [self._store.container(endpoint.container) for endpoint in endpoints]
        netns = tuple([(container.name, container.netns) for container in found if container is not None])
        return NetworkSeen(network, (), (), endpoints, self._there(network.device), netns)

    def _there(self, ifname: str) -> tuple[str, ...]:
        """The link of that name, if the host has it."""
        return (ifname,) if ifname and self._kernel.door("").find(ifname) else ()

    def cables(self, seen: ContainerSeen) -> tuple[NetworkSeen, ...]:
        """The p2p networks of a container."""
        return tuple([self._cable(network) for network in seen.networks if network.driver == "p2p"])

    def attach(self, request: AttachRequest, local: tuple[str, ...]) -> AttachSeen:
        """What an attach must know. ``local`` is what :meth:`local_holders` gave for the same publishes."""
        target: Container | None = None
        if request.mode.kind == "container":
            target = self.container(request.mode.target).container
        networks = tuple([self.network(join) for join in request.joins])
        path = request.path
        near = self._store.containers_near(request.name, path)
        return AttachSeen(
            networks=networks,
            ports=self.ports(request.publishes, local, request.id),
            target=target,
            pin_path=f"{self._run}/netns/{request.id[:12]}",
            existing=self.existing(request.name) if near else None,
            lodger=self._lodger(tuple([other.name for other in near if path and other.netns == path])),
            netns_cookie=cookie_of(self._kernel.netns_fd(path)) if path else 0,
        )

    def is_ready(self, network: Network) -> bool:
        """Whether a network stands as it is on record, and who joins it need not have the world to himself."""
        if network.driver == "bridge":
            return bool(self._there(network.device))
        return network.driver != "p2p"

    @staticmethod
    def local_holders(publishes: tuple[Publish, ...], *, reserved: bool = False) -> tuple[str, ...]:
        """For each range that is named, the local process that holds a port of it; empty where none does.

        ``reserved``: the caller holds them himself, so nobody is looked for.
        """
        return tuple(
            [
                port_probe.holder(publish) if publish.host_port and not reserved else ""
                for publish in publishes
            ]
        )

    def ports(
        self, publishes: tuple[Publish, ...], local: tuple[str, ...], seed: str
    ) -> tuple[PortSeen, ...]:
        """Who holds the ports that are asked for, and a free one for each that is not named. ``seed`` is hex digits."""
        seen: list[PortSeen] = []
        given = Taken()
        left: dict[str, Iterator[int]] = {}  # who asks for many does not begin anew with each
        for publish, process in zip(publishes, local, strict=True):
            settled: Publish | None = publish
            if not publish.host_port:
                numbers = left.setdefault(publish.protocol, iter(dynamic_ports(seed)))
                settled = self._choose(publish, numbers, given)
            if settled is None:
                seen.append(PortSeen("others", 0))
                continue
            given.add(settled)
            seen.append(PortSeen(process or self._container_on(settled), settled.host_port))
        return tuple(seen)

    def _choose(self, publish: Publish, numbers: Iterator[int], given: Taken) -> Publish | None:
        for port in numbers:
            candidate = publish.replace(host_port=port)
            taken = given.overlap(candidate) is not None or bool(self._container_on(candidate))
            if not taken and not port_probe.holder(candidate):
                return candidate
        return None

    def _container_on(self, publish: Publish) -> str:
        for other in self._store.publications_near(publish):
            if publish.overlaps(other.publish):
                return f"container {other.container} (as {other.publish})"
        return ""
