"""Records beside a fake kernel: an engine without disk or locks, that plans as the real one does.

What it sees is put together as ``observer`` does it. Its records are a list of rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.unit.fake_kernel import HOST, FakeKernel, FakeLink, Refused
from vethwork.errors import NotFound
from vethwork.model.address import Address, Mac, Prefix
from vethwork.model.container import AttachRequest, Container, Endpoint, Join, Publication
from vethwork.model.names import Name
from vethwork.model.network import Forwarding, Network, NetworkRequest
from vethwork.model.ports import Publish
from vethwork.model.state import AttachSeen, ContainerSeen, HostSeen, NetworkSeen, PortSeen
from vethwork.plan.attach import plan_attach, plan_connect, plan_publish
from vethwork.plan.detach import plan_detach, plan_disconnect, plan_unpublish
from vethwork.plan.elements import all_elements
from vethwork.plan.ipam import find_free
from vethwork.plan.networks import plan_create_network, plan_remove_network
from vethwork.plan.ports import dynamic_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vethwork.model.container import Mode
    from vethwork.model.plan import Plan
    from vethwork.model.process import ProcessRow

FOREIGN = "/run/netns/foreign"
UPLINK = "uplink"


class World:
    """One host with its containers and networks."""

    def __init__(self) -> None:
        self.kernel = FakeKernel()
        self.kernel.links[HOST] = {
            "lo": FakeLink(0, "", Mac(0), 65535, ours=False),
            UPLINK: FakeLink(self.kernel._number(), "", Mac(0x02_00_00_00_00_01), 9000, ours=False, up=True),
            "theirs": FakeLink(self.kernel._number(), "bridge", Mac(2), 1500, ours=False, up=True),
        }
        self.kernel.sysctls = {"ipv4/ip_forward": "0", "ipv6/conf/all/forwarding": "0"}
        self.kernel.links[HOST][UPLINK].sysctls = {"ipv6/accept_ra": "1"}
        self.kernel.add_namespace(FOREIGN)
        self.rows: list[Any] = []
        self.cursors: dict[tuple[str, int], Address] = {}
        self.ids = 0

    # What is on record.

    def of(self, kind: type[Any]) -> list[Any]:
        """The rows of a kind."""
        return [row for row in self.rows if type(row) is kind]

    def elements(self) -> dict[Any, Any]:
        """What the ruleset must hold, by what is on record."""
        networks = sorted(self.of(Network), key=lambda network: network.name)
        found = all_elements(networks, self.of(Endpoint), self.of(Publication), self.of(Forwarding))
        return {(each.family, each.set, each.key): each.data for each in found}

    def leases(self, network: str) -> dict[Address, str]:
        """Who has which address of a network."""
        return {
            interface.address: endpoint.container
            for endpoint in self.of(Endpoint)
            if endpoint.network == network
            for interface in endpoint.addresses
        }

    def new_id(self) -> str:
        """32 hex digits, no two alike."""
        self.ids += 1
        return f"{self.ids:010x}" + "0" * 22

    # What is seen.

    def host(self) -> HostSeen:
        """The host, as a new network must know it."""
        links = self.kernel.links[HOST]
        switches = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}
        return HostSeen(
            taken=(Prefix.parse("192.0.2.0/24"),),
            links=tuple(links),
            mtu=1500,
            forwarding=tuple(
                version for version, path in switches.items() if self.kernel.sysctls[path] == "1"
            ),
            ra_links=tuple(name for name, link in links.items() if link.sysctls.get("ipv6/accept_ra") == "1"),
            ipv6=True,
            way_out=UPLINK,
            mtus=tuple(link.mtu for link in links.values()),
            bridges=tuple(name for name, link in links.items() if link.kind == "bridge"),
        )

    def network(self, join: Join) -> NetworkSeen:
        """A network as somebody who joins it must see it. Raises NotFound."""
        network = self.row(Network, join.network)
        leases = self.leases(network.name)

        def leased(first: Address, last: Address) -> Iterator[Address]:
            return iter(sorted(each for each in leases if not (each < first or last < each)))

        free = tuple(
            find_free(subnet, self.cursors.get((network.name, subnet.prefix.version)), leased, join.ranges)
            for subnet in network.subnets
        )
        holders = tuple((address, leases.get(address, "")) for address in join.addresses)
        ends = tuple(each for each in (join.host_ifname,) if each in self.kernel.links[HOST])
        seen = self.cable(network) if network.driver == "p2p" else NetworkSeen(network, (), (), (), ends, ())
        parent = self.kernel.links[HOST].get(network.device) if network.driver == "macvlan" else None
        macs = tuple((each.mac, each.container) for each in self.of(Endpoint) if each.network == network.name)
        return seen.replace(free=free, leased=holders, parent_mac=parent.mac if parent else None, macs=macs)

    def cable(self, network: Network) -> NetworkSeen:
        """A cable whole."""
        endpoints = tuple(each for each in self.of(Endpoint) if each.network == network.name)
        netns = tuple((each.container, self.row(Container, each.container).netns) for each in endpoints)
        parked = (network.device,) if network.device in self.kernel.links[HOST] else ()
        return NetworkSeen(network, (), (), endpoints, parked, netns)

    def row(self, kind: type[Any], name: str) -> Any:
        """A network or a container. Raises NotFound."""
        for row in self.of(kind):
            if row.name == name:
                return row
        raise NotFound(f"{kind.__name__} {name}")

    def container(self, name: str) -> ContainerSeen:
        """A container with all that hangs on it. Raises NotFound."""
        container = self.row(Container, name)
        endpoints = [each for each in self.of(Endpoint) if each.container == name]
        endpoints.sort(key=lambda each: str(each.ifname))
        networks = tuple(self.row(Network, each.network) for each in endpoints)
        others = [
            each.name for each in self.of(Container) if each.netns == container.netns and each.name != name
        ]
        publications = tuple(each for each in self.of(Publication) if each.container == name)
        sharers = tuple(others) if container.pinned else ()
        lodger = self._lodger(container.netns, name)
        return ContainerSeen(container, tuple(endpoints), publications, networks, sharers, lodger)

    def _lodger(self, netns: str, name: str) -> str:
        ends = {each.container for each in self.of(Endpoint)}
        found = [
            each.name for each in self.of(Container) if each.netns == netns and each.name in ends - {name}
        ]
        return found[0] if netns and found else ""

    def ports(self, publishes: tuple[Publish, ...], seed: str) -> tuple[PortSeen, ...]:
        """Who holds the ports that are asked for."""
        seen: list[PortSeen] = []
        given: list[Publish] = []
        for publish in publishes:
            settled = publish
            for port in dynamic_ports(seed) if not publish.host_port else ():
                settled = publish.replace(host_port=port)
                if not self._holder(settled) and not any(settled.overlaps(other) for other in given):
                    break
            given.append(settled)
            seen.append(PortSeen(self._holder(settled), settled.host_port))
        return tuple(seen)

    def _holder(self, publish: Publish) -> str:
        holders = [each.container for each in self.of(Publication) if publish.overlaps(each.publish)]
        return f"container {holders[0]}" if holders else ""

    # Verbs: each gives a plan.

    def create_network(self, request: NetworkRequest) -> Plan:
        """Plan a new network."""
        return plan_create_network(request, self.new_id(), self.host(), tuple(self.of(Network)))

    def remove_network(self, name: str) -> Plan:
        """Plan its end."""
        endpoints = tuple(each for each in self.of(Endpoint) if each.network == name)
        return plan_remove_network(self.row(Network, name), endpoints, tuple(self.of(Network)))

    def attach(
        self,
        name: str,
        mode: Mode,
        joins: tuple[Join, ...] = (),
        publishes: tuple[Publish, ...] = (),
        *,
        netns: Any = None,
        process: ProcessRow | None = None,
    ) -> Plan:
        """Plan a new container."""
        request = AttachRequest(self.new_id(), Name(name), mode, joins, publishes, netns, process)
        existing = [each for each in self.of(Container) if each.name == name]
        seen = AttachSeen(
            networks=tuple(self.network(join) for join in joins),
            ports=self.ports(publishes, request.id),
            target=self.row(Container, mode.target) if mode.kind == "container" else None,
            pin_path=f"/run/vethwork/netns/{request.id[:12]}",
            existing=self.container(name) if existing else None,
            lodger=self._lodger(request.netns or "", name),
        )
        return plan_attach(request, seen)

    def detach(self, name: str) -> Plan:
        """Plan its end."""
        return plan_detach(self.container(name), self._cables(name))

    def connect(self, name: str, join: Join, publishes: tuple[Publish, ...] = ()) -> Plan:
        """Plan one more endpoint."""
        ports = self.ports(publishes, self.new_id())
        return plan_connect(join, self.container(name), self.network(join), publishes, ports)

    def disconnect(self, name: str, network: str) -> Plan:
        """Plan the end of an endpoint."""
        return plan_disconnect(network, self.container(name), self._cables(name))

    def publish(self, name: str, publishes: tuple[Publish, ...]) -> Plan:
        """Plan more ports."""
        return plan_publish(publishes, self.container(name), self.ports(publishes, self.new_id()))

    def unpublish(self, name: str, publish: Publish) -> Plan:
        """Plan fewer."""
        return plan_unpublish(publish, self.container(name))

    def _cables(self, name: str) -> tuple[NetworkSeen, ...]:
        return tuple(self.cable(each) for each in self.container(name).networks if each.driver == "p2p")

    # Doing it.

    def do(self, plan: Plan) -> None:
        """Carry a plan out; one that opens is undone where the kernel refuses, and Refused is raised again."""
        if plan.forward:
            failed = self.kernel.attempt(plan.steps)
            assert not failed, failed
        else:
            try:
                self.kernel.apply(plan.steps)
            except Refused:
                failed = self.kernel.attempt(plan.backward())
                assert not failed, failed
                raise
        self.rows += [row for row in plan.adds if row not in self.rows]
        self.rows = [row for row in self.rows if row not in plan.removes]
        for row in plan.adds:
            if isinstance(row, Endpoint):
                for interface in row.addresses:
                    self.cursors[row.network, interface.address.version] = interface.address
