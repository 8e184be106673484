"""The engine: every verb of vethwork, once.

    seen = observe(request)             one read: records and kernel -> a snapshot (data)
    plan = plan_attach(request, seen)   pure: no clock, disk, socket or randomness
    intend, apply, settle               see ``execution``

Rules: a verb takes a request and gives a result, or raises one of ``errors`` with nothing half done. Verbs on a container
wait for each other; verbs on different containers run side by side. Two engines are two worlds: one state file and one run
directory each, in one network namespace that plays the host for both.
"""

from __future__ import annotations

import os

from vethwork.errors import BadNamespace, ConflictError, NotFound
from vethwork.execution import Execution, Rehearsal
from vethwork.kernel.apply import Kernel
from vethwork.kernel.netns import NetnsGone, has_netns, same_netns
from vethwork.kernel.observe import see_host
from vethwork.model.container import AWAITED, AttachRequest, Container, Join, Publication
from vethwork.model.names import Directory
from vethwork.model.network import DEFAULT_NETWORK, Network, NetworkRequest
from vethwork.model.ports import Publish
from vethwork.model.snapshot import ContainerSeen
from vethwork.observer import Observer
from vethwork.plan.attach import attached, plan_attach, plan_connect, plan_publish
from vethwork.plan.detach import plan_detach, plan_disconnect, plan_unpublish
from vethwork.plan.networks import (
    differences_of,
    plan_create_network,
    plan_remove_network,
    plan_restore_network,
)
from vethwork.store.database import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import Self, TypeVar

    from vethwork.execution import Reaper, Rehearse, Watch
    from vethwork.model.container import Endpoint
    from vethwork.model.plan import Plan
    from vethwork.model.snapshot import AttachSeen, HostSeen

    Result = TypeVar("Result")
    Engines = Callable[..., AbstractContextManager["Engine"]]
    """What gives an engine for a call: :class:`Engine` itself, or somebody who keeps some open. Takes ``root`` and ``run``."""

DEFAULT_ROOT, DEFAULT_RUN = "/var/lib/vethwork", "/run/vethwork"


def new_id() -> str:
    """32 random hex digits: the identity of a container or a network."""
    return os.urandom(16).hex()


class Engine:
    """Networks and containers of one host: the namespace of the thread that makes the engine. A context manager.

    ``root`` is the directory of the state file (default: $VETHWORK_ROOT, else /var/lib/vethwork), ``run`` that of pinned
    namespaces (default: $VETHWORK_RUN, else /run/vethwork). ``rehearse`` is handed every plan instead of the kernel, and
    nothing is recorded; ``watch`` is told of every milestone (see ``execution``); ``reaper`` finishes what
    :meth:`detach` need not wait for.

    Raises StateError if the state file cannot be used, RequestError for a directory that no path of ours can be in.
    """

    def __init__(
        self,
        root: str = "",
        run: str = "",
        *,
        rehearse: Rehearse | None = None,
        watch: Watch | None = None,
        reaper: Reaper | None = None,
    ) -> None:
        root, run = root or os.environ.get("VETHWORK_ROOT", ""), run or os.environ.get("VETHWORK_RUN", "")
        self.root = Directory.parse(os.path.abspath(root or DEFAULT_ROOT))
        self.run = Directory.parse(os.path.abspath(run or DEFAULT_RUN))
        self._rehearse = Rehearsal(rehearse) if rehearse is not None else None
        self._watch = watch
        self._reaper = reaper
        self.store = Store(self.root, rehearsal=rehearse is not None)
        self.kernel = Kernel()
        self.observer = Observer(self.store, self.kernel, self.run)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of every descriptor."""
        self.kernel.close()
        self.store.close()

    @property
    def rehearses(self) -> bool:
        """Whether plans are only shown."""
        return self._rehearse is not None

    def execution(self) -> Execution:
        """One operation on this engine's records and kernel."""
        return Execution(
            self.store,
            self.kernel,
            self.root,
            watch=self._watch,
            rehearse=self._rehearse,
            reaper=self._reaper,
        )

    # Containers.

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
        for join in request.joins:
            self.ensure_network(join.network)
        self.check_namespace(request)
        return self.again(lambda: self._attach(request), lambda: self.make_room(request))

    def again(self, work: Callable[[], Result], make_room: Callable[[], bool] = lambda: False) -> Result:
        """Do ``work``; once more, where the records refuse it and there is hope.

        There is, where somebody is half-way with something (taking that very container down), or where ``make_room``
        says so. Raises ConflictError, as any plan does that is refused: nothing was done then.
        """
        try:
            return work()
        except ConflictError:
            if self.rehearses or not (self.quiesce() | make_room()):
                raise
        return work()

    def _attach(self, request: AttachRequest) -> ContainerSeen:
        shares = request.mode.kind == "container"
        with self.turn(request.name, *[join.network for join in request.joins], shares=shares) as execution:
            if shares:
                self.check_namespace(request)  # again: it was there before our turn came
            local = self.observer.local_holders(request.publishes, reserved=request.reserved)
            seen: list[AttachSeen] = []

            def plan() -> Plan:
                seen[:] = [self.observer.attach(request, local)]
                return plan_attach(request, *seen)

            done = execution.carry_out(plan)
            return attached(done, seen[0]) if request.joins else self.inspect(request.name)

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
        with self.turn(name) as execution:
            seen = self.observer.existing(name)
            if seen is None or (dead and self.lives(seen.container)):
                return None
            cables = self.observer.cables(seen)
            alive = self.lives(seen.container)
            # Who shares its namespace is looked at in the transaction: nobody may come in between.
            execution.carry_out(
                lambda: plan_detach(self.observer.container(name), cables, alive=alive), wait=wait
            )
            return seen.networks

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
        if not container.handed and not container.netns_cookie:
            return has_netns(container.netns)
        if not container.handed:
            with Kernel() as look:  # which holds nothing open for longer
                try:
                    return look.door(container.netns).netns_cookie == container.netns_cookie
                except NetnsGone:
                    return False
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

        def open_them() -> tuple[Publication, ...]:
            with self.turn(name) as execution:
                seen = self.observer.container(name)
                local = self.observer.local_holders(publishes, reserved=reserved)
                seed = new_id()
                plan = execution.carry_out(
                    lambda: plan_publish(publishes, seen, self.observer.ports(publishes, local, seed))
                )
                return plan.adds  # type: ignore[return-value]

        return self.again(open_them)

    def unpublish(self, name: str, publish: Publish) -> None:
        """Close a published range, named as it was published. Raises NotFound."""
        with self.turn(name) as execution:
            seen = self.observer.container(name)
            execution.carry_out(lambda: plan_unpublish(publish, seen))

    def check_namespace(self, request: AttachRequest) -> None:
        """Refuse what a request names, and no container can live in. Raises NotFound or BadNamespace."""
        if request.mode.kind == "container" and not self.rehearses:
            target = self.observer.container(request.mode.target).container
            self.check_alive(f"attach {request.name}", target)
        if request.path:
            self.check_netns(request.path)
            self.kernel.door(request.path)  # the plan asks it who it is, and must not wait then

    def check_alive(self, doing: str, container: Container) -> None:
        """Refuse to enter the namespace of a container that has none any more. Raises BadNamespace."""
        if not self.lives(container):
            raise BadNamespace(
                f"{doing}: the namespace of {container.name} is gone", hint=f"vethwork rm {container.name}"
            )

    def check_netns(self, path: str) -> None:
        """Refuse a path that is no network namespace, and the host's own. Raises BadNamespace."""
        if same_netns(self.kernel.netns_fd(path), self.kernel.netns_fd("")):
            raise BadNamespace(
                f"open namespace {path}: it is the host's own", hint="a container there is in mode host"
            )

    # Networks.

    def networks(self) -> tuple[Network, ...]:
        """Every network on record, by name."""
        return self.store.networks()

    def network(self, name: str) -> Network:
        """One network. Raises NotFound."""
        return self.observer.network_row(name)

    def create_network(self, request: NetworkRequest) -> Network:
        """Make a network. Raises RequestError, ConflictError or KernelRefused; nothing is left of it then."""
        network_id = request.id or new_id()
        with self.execution().begin(exclusive=True) as execution:
            execution.check_owner()
            seen = self.see_host()
            promised = [pool for pool in self.store.leases.pools() if pool not in request.subnets]
            seen = seen.replace(taken=(*seen.taken, *promised))
            execution.carry_out(lambda: plan_create_network(request, network_id, seen, self.store.networks()))
            return self.network(request.name)

    def network_like(self, request: NetworkRequest) -> Network:
        """The network of a request's id, or else name, made if there is none. Raises as :meth:`create_network`.

        ConflictError if it is not what the request says; what the request leaves open may be anything. A transient one
        that nobody is on makes room.
        """
        key = request.id or request.name
        if self._finished_network(key) is None:
            try:
                return self.create_network(request)
            except ConflictError:
                if self.store.network(key) is None:  # else another process was faster, which is fine
                    raise
        network = self.network(key)
        if differences := differences_of(network, request):
            if network.transient and not self.store.endpoints_on(network.name):
                self.remove_idle_networks((network,))
                return self.create_network(request)
            raise ConflictError(
                f"network {request.name}: is not what is asked for: {'; '.join(differences)}",
                hint=f"has its configuration changed? 'vethwork network rm {request.name}' makes room, once nobody is on it",
            )
        return network

    def remove_network(self, name: str) -> None:
        """Remove a network. Raises NotFound, ConflictError while a container is on it, Incomplete."""
        with self.execution().begin(exclusive=True) as execution:
            network = self.network(name)
            execution.carry_out(
                lambda: plan_remove_network(network, self.store.endpoints_on(name), self.store.networks())
            )

    def remove_idle_networks(self, among: tuple[Network, ...] | None = None) -> None:
        """Remove the transient networks that nobody is on (any more)."""
        for network in self.networks() if among is None else among:
            if network.transient and not self.store.endpoints_on(network.name):
                try:
                    self.remove_network(network.name)
                except (ConflictError, NotFound):
                    continue  # somebody came, or was faster

    def discard_network(self, name: str) -> bool:
        """Remove a network unless somebody is on it, or has removed it. Raises Incomplete."""
        try:
            self.remove_network(name)
        except (NotFound, ConflictError):
            return False
        return True

    def restore_network(self, name: str) -> None:
        """Bring the host's side of a network back, as far as it is missing. Raises NotFound, Incomplete."""
        with self.execution().begin(exclusive=True) as execution:
            execution.check_owner()
            network = self.network(name)
            seen = self.see_host()
            execution.carry_out(self.restoration(network, seen))

    def see_host(self) -> HostSeen:
        """The host as it is, and what is on record of what we did to it."""
        guarded = tuple([each.version for each in self.store.forwarding()])
        return see_host(self.kernel).replace(guarded=guarded)

    def restoration(self, network: Network, seen: HostSeen) -> Callable[[], Plan]:
        """What brings the host's side of a network back, to be planned in the transaction that puts it on record."""
        return lambda: plan_restore_network(
            network, seen, self.store.networks(), self.store.endpoints_on(network.name)
        )

    def _finished_network(self, name: str) -> Network | None:
        """A network once nobody makes or removes it any more: who does has it on record, and may have died over it."""
        if not self.rehearses and self.store.is_intended(name):
            self._await_others(name)
        return self.store.network(name)

    def _await_others(self, network: str = "") -> None:
        with self.execution().begin(exclusive=True) as execution:
            execution.check_finished(network)  # it has waited for the living, and cleared up after the dead

    def quiesce(self) -> bool:
        """Wait until nobody is half-way with anything: the living, a reaper, or somebody who died. False: nobody was."""
        busy = len(self.store.intended()) > len(self.store.stuck.reasons())
        if busy:
            self._await_others()
        return busy

    def ensure_network(self, name: str) -> None:
        """Make the default network on first use; bring a bridge back that is gone, after a reboot for one.

        Raises NotFound, ConflictError or KernelRefused.
        """
        network = self._finished_network(name)
        if network is None and name == DEFAULT_NETWORK:
            try:
                self.create_network(NetworkRequest.default())
            except ConflictError:
                if self.store.network(name) is None:  # else another process was faster, which is fine
                    raise
            return
        if network is None:
            raise NotFound(
                f"network {name}: there is none of that name", hint="'vethwork network ls' lists them"
            )
        if (
            network.driver == "bridge"
            and self._rehearse is None
            and not self.kernel.door("").find(network.device)
        ):
            if not network.managed:
                raise NotFound(
                    f"network {name}: its bridge {network.device} is gone, and is somebody else's to make"
                )
            self.restore_network(name)
