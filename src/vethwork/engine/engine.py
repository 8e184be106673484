"""The engine: every verb of vethwork, once.

    seen = observe(request)             one read: records and kernel -> a snapshot (data)
    plan = plan_attach(request, seen)   pure: no clock, disk, socket or randomness
    intend, apply, settle               see ``execution``

Rules: a verb takes a request and gives a result, or raises one of ``errors`` with nothing half done. Verbs on a container
wait for each other; verbs on different containers run side by side. What attaches is loaded by the first attach, what
detaches by the first detach: a runtime's call does one of them. Two engines are two worlds: one state file and one run
directory each, in one network namespace that plays the host for both.
"""

from __future__ import annotations

from vethwork.engine.networks import Networks, new_id
from vethwork.errors import BadNamespace, NotFound
from vethwork.kernel.netns import has_netns, same_netns
from vethwork.model.container import AWAITED, AttachRequest, Container, Join, Publication
from vethwork.model.ports import Publish
from vethwork.model.state import ContainerSeen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from vethwork.engine.operation import Execution
    from vethwork.model.container import Endpoint
    from vethwork.model.network import Network
    from vethwork.model.plan import Plan
    from vethwork.model.state import AttachSeen

    Engines = Callable[..., AbstractContextManager["Engine"]]
    """What gives an engine for a call: :class:`Engine` itself, or somebody who keeps some open. Takes ``root`` and ``run``."""


class _NotReadyError(Exception):
    """There is a container of that name, or a network is half-way made or removed, lacks its bridge, or is a cable."""


class Engine(Networks):
    """Networks and containers of one host: the namespace of the thread that makes the engine. A context manager.

    ``root`` is the directory of the state file (default: $VETHWORK_ROOT, else /var/lib/vethwork), ``run`` that of pinned
    namespaces (default: $VETHWORK_RUN, else /run/vethwork). ``rehearse`` is handed every plan instead of the kernel, and
    nothing is recorded; ``watch`` is told of every milestone (see ``execution``); ``reaper`` finishes what
    :meth:`detach` need not wait for.

    Raises StateError if the state file cannot be used, RequestError for a directory that no path of ours can be in.
    """

    def containers(self) -> tuple[Container, ...]:
        """Every container on record, by name."""
        return self.store.containers()

    def inspect(self, name: str) -> ContainerSeen:
        """A container, by name or id, with its endpoints and ports. Raises NotFound."""
        return self.observer.container(name)

    def attach(self, request: AttachRequest) -> ContainerSeen:
        """Give a container its network.

        Raises RequestError, ConflictError or KernelRefused; nothing is left of it then.
        """
        return self.again(lambda: self._attach(request), lambda: self.make_room(request))

    def _attach(self, request: AttachRequest) -> ContainerSeen:
        made = self.attach_at_once(request)
        if made is not None:
            return made
        for join in request.joins:
            self.ensure_network(join.network)
        networks = [join.network for join in request.joins]
        with self.turn(request.name, *networks, shares=_shares(request)) as execution:
            return self.attach_in(execution, request)

    def attach_at_once(self, request: AttachRequest) -> ContainerSeen | None:
        """The same, if it is a new container and its networks stand ready, as mostly; None if not: nothing is done then."""
        if self.rehearses:
            return None
        try:
            with self.execution().begin(request.name, needs_world=lambda: _shares(request)) as execution:
                return self.attach_in(execution, request, at_once=True)
        except (_NotReadyError, NotFound):
            return None

    def attach_in(
        self, execution: Execution, request: AttachRequest, *, at_once: bool = False
    ) -> ContainerSeen:
        """The same, in a turn that the caller has. Raises _NotReadyError if it cannot be done ``at_once``, and must."""
        from vethwork.plan.attach import attached, plan_attach

        self.check_namespace(request)
        local = self.observer.local_holders(request.publishes, reserved=request.reserved)
        seen: list[AttachSeen] = []

        def plan() -> Plan:
            seen[:] = [self.observer.attach(request, local)]
            if at_once and (seen[0].existing is not None or not self._are_ready(execution, seen[0])):
                raise _NotReadyError
            return plan_attach(request, *seen)

        done = execution.carry_out(plan)
        return attached(done, seen[0]) if request.joins else self.inspect(request.name)

    def _are_ready(self, execution: Execution, seen: AttachSeen) -> bool:
        return all(
            each.network.name not in execution.unsettled and self.observer.is_ready(each.network)
            for each in seen.networks
        )

    def turn(self, name: str, *networks: str, shares: bool = False) -> Execution:
        """The turn of a container, by name or id; with the world to itself where it has, or gets, the end of a cable.

        The other end is another container's, which has a turn of its own; so is the namespace that it ``shares``.
        """
        container = self.store.container(name)
        name = container.name if container is not None else name

        def has_cable() -> bool:
            on = {*networks, *[endpoint.network for endpoint in self.store.endpoints_of(name)]}
            found = [self.store.network(each) for each in on]
            return any(network is not None and network.driver == "p2p" for network in found)

        return self.execution().begin(name, needs_world=lambda: shares or has_cable())

    def detach(self, name: str, *, wait: bool = True) -> bool:
        """Take a container's network away, all of it, and forget the container. False: there was none.

        ``wait`` False: nothing leads there any more when this comes back, but where the engine has a reaper, it is on record
        for some tens of milliseconds longer, until the kernel has deleted its links.
        Raises ConflictError while others share its namespace, Incomplete if the kernel refused a part.
        """
        networks = self._detach(name, dead=False, wait=wait)
        self.remove_idle_networks(networks or ())
        return networks is not None

    def detach_dead(self, name: str) -> bool:
        """The same for a container whose namespace is gone; False if it lives.

        It is looked at in its turn: who is attaching it now has it on record before there is a namespace.
        """
        networks = self._detach(name, dead=True)
        self.remove_idle_networks(networks or ())
        return networks is not None

    def _detach(self, name: str, *, dead: bool, wait: bool = True) -> tuple[Network, ...] | None:
        """Gives the networks that it was on."""
        from vethwork.plan.detach import plan_detach

        with self.turn(name) as execution:
            container = self.store.container(name)
            if container is None:
                return None
            alive = self.lives(container)
            if dead and alive:
                return None
            networks: list[Network] = []

            def plan() -> Plan:  # who shares its namespace is looked at here: nobody may come in between
                seen = self.observer.container(name)
                networks.extend(seen.networks)
                return plan_detach(seen, self.observer.cables(seen), alive=alive)

            execution.carry_out(plan, wait=wait)
            return tuple(networks)

    def make_room(self, request: AttachRequest) -> bool:
        """Detach who died without anybody having said so, and still holds what is asked for: name, place, address or port.

        False: nobody did.
        """
        held: set[str] = {request.name}
        if request.path:
            held |= {lodger.name for lodger in self.store.containers_in(request.path)}
        for join in request.joins:
            held |= {self.store.leases.holder(join.network, address) for address in join.addresses}
            if join.mac is not None:
                held.add(self.store.leases.holder(join.network, join.mac))
        for publish in request.publishes:
            near = self.store.publications_near(publish) if publish.host_port else ()
            held |= {other.container for other in near if publish.overlaps(other.publish)}
        dead = [each for each in map(self.store.container, sorted(held)) if each and not self.lives(each)]
        for container in dead:
            self._detach(container.name, dead=True)  # its networks stay: this may be about to join one
        return bool(dead)

    def lives(self, container: Container) -> bool:
        """Tell whether a container's namespace is there, and no other in its place; of one that we may not see, whether a
        link of it is."""
        if not container.handed:
            return has_netns(container.netns, container.netns_cookie)
        ends = [endpoint.host_ifname for endpoint in self.store.endpoints_of(container.name)]
        return container.netns == AWAITED or any(self.kernel.door("").find(each) for each in ends)

    def connect(
        self, name: str, join: Join, publishes: tuple[Publish, ...] = (), *, reserved: bool = False
    ) -> Endpoint:
        """Put a container on one more network, with ports that lead to it there (``reserved`` as in AttachRequest).

        Raises NotFound, RequestError, ConflictError or KernelRefused; nothing is left of it then.
        """
        self.ensure_network(join.network)

        def join_it() -> Endpoint:
            with self.turn(name, join.network) as execution:
                seen = self.observer.container(name)
                if not seen.container.handed and not self.rehearses:
                    self.check_alive(f"connect {name}", seen.container)
                return self.connect_in(execution, seen, join, publishes, reserved=reserved)

        return self.again(join_it)

    def connect_in(
        self,
        execution: Execution,
        seen: ContainerSeen,
        join: Join,
        publishes: tuple[Publish, ...],
        *,
        reserved: bool,
    ) -> Endpoint:
        """The same, in a turn that the caller has."""
        from vethwork.plan.attach import plan_connect

        local = self.observer.local_holders(publishes, reserved=reserved)
        seed = new_id()
        plan = execution.carry_out(
            lambda: plan_connect(
                join,
                seen,
                self.observer.network(join),
                publishes,
                self.observer.ports(publishes, local, seed),
            )
        )
        return plan.adds[0]  # type: ignore[return-value]

    def disconnect(self, name: str, network: str, ifname: str = "") -> None:
        """Take a container off a network, with the ports that led to it there. Raises NotFound, Incomplete.

        ``ifname`` says which interface, where it has several there.
        """
        from vethwork.plan.detach import plan_disconnect

        with self.turn(name) as execution:
            seen = self.observer.container(name)
            cables = self.observer.cables(seen)
            alive = self.lives(seen.container)
            execution.carry_out(lambda: plan_disconnect(network, seen, cables, ifname, alive=alive))
        self.remove_idle_networks(seen.networks)

    def publish(self, name: str, *publishes: Publish, reserved: bool = False) -> tuple[Publication, ...]:
        """Open ports on a running container (``reserved`` as in AttachRequest).

        Raises NotFound, RequestError, ConflictError or KernelRefused.
        """
        from vethwork.plan.attach import plan_publish

        def open_them() -> tuple[Publication, ...]:
            with self.turn(name) as execution:
                seen = self.observer.container(name, ports=False)
                local = self.observer.local_holders(publishes, reserved=reserved)
                seed = new_id()
                plan = execution.carry_out(
                    lambda: plan_publish(publishes, seen, self.observer.ports(publishes, local, seed))
                )
                return plan.adds  # type: ignore[return-value]

        return self.again(open_them)

    def unpublish(self, name: str, publish: Publish) -> None:
        """Close a published range, named as it was published. Raises NotFound."""
        from vethwork.plan.detach import plan_unpublish

        with self.turn(name) as execution:
            seen = self.observer.publisher(name, publish)
            execution.carry_out(lambda: plan_unpublish(publish, seen))

    def check_namespace(self, request: AttachRequest) -> None:
        """Refuse what a request names, and no container can live in. Raises NotFound or BadNamespace."""
        if request.mode.kind == "container" and not self.rehearses:
            target = self.observer.container(request.mode.target).container
            self.check_alive(f"attach {request.name}", target)
        if request.path:
            self.check_netns(request.path)

    def check_alive(self, doing: str, container: Container) -> None:
        """Refuse to enter the namespace of a container that has none any more, or not yet. Raises BadNamespace."""
        if not has_netns(container.netns, container.netns_cookie):
            raise BadNamespace(
                f"{doing}: the namespace of {container.name} is gone", hint=f"vethwork rm {container.name}"
            )

    def check_netns(self, path: str) -> None:
        """Refuse a path that is no network namespace, and the host's own. Raises BadNamespace."""
        if same_netns(self.kernel.netns_fd(path), self.kernel.netns_fd("")):
            raise BadNamespace(
                f"open namespace {path}: it is the host's own", hint="a container there is in mode host"
            )


def _shares(request: AttachRequest) -> bool:
    return request.mode.kind == "container"
