"""What an engine stands on, and its verbs on networks.

Rules: who changes networks has the world to himself. What only a change of networks needs is loaded then: most containers
join one that is there.
"""

from __future__ import annotations

import os

from vethwork.engine.operation import Execution, Rehearsal, stuck
from vethwork.engine.state_reader import Observer
from vethwork.errors import ConflictError, NotFound
from vethwork.kernel.executor import Kernel
from vethwork.model.names import Directory
from vethwork.model.network import DEFAULT_NETWORK, Network, NetworkRequest
from vethwork.store.database import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self, TypeVar

    from vethwork.engine.operation import Reaper, Rehearse, Watch
    from vethwork.model.plan import Plan
    from vethwork.model.state import HostSeen

    Result = TypeVar("Result")

DEFAULT_ROOT, DEFAULT_RUN = "/var/lib/vethwork", "/run/vethwork"


def new_id() -> str:
    """32 random hex digits: the identity of a container or a network."""
    return os.urandom(16).hex()


class Networks:
    """The networks of one host. See ``engine.Engine``, which adds the containers, for what it is made of."""

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
        self.kernel = Kernel(self.owner_path)
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
    def owner_path(self) -> str:
        """Where the process is found that owns the ruleset, while one does: beside the records that say what is in it."""
        return f"{self.root}/ruleset.sock"

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

    def networks(self) -> tuple[Network, ...]:
        """Every network on record, by name."""
        return self.store.networks()

    def network(self, name: str) -> Network:
        """One network. Raises NotFound."""
        return self.observer.network_row(name)

    def create_network(self, request: NetworkRequest) -> Network:
        """Make a network. Raises RequestError, ConflictError or KernelRefused; nothing is left of it then."""
        from vethwork.plan.networks import plan_create_network

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
        from vethwork.plan.network_diff import differences_of

        key = request.id or request.name
        network = self._finished_network(key)
        if network is None:
            try:
                return self.create_network(request)
            except ConflictError:
                network = self.store.network(key)
                if network is None:  # else another process was faster, which is fine
                    raise
        if differences := differences_of(network, request):
            if network.transient and not self.store.is_in_use(network.name):
                self.remove_idle_networks((network,))
                return self.create_network(request)
            raise ConflictError(
                f"network {network.name}: is not what is asked for: {'; '.join(differences)}",
                hint=f"has its configuration changed? 'vethwork network rm {network.name}' makes room, once nobody is on it",
            )
        return network

    def remove_network(self, name: str) -> None:
        """Remove a network. Raises NotFound, ConflictError while a container is on it, Incomplete."""
        from vethwork.plan.networks import plan_remove_network

        with self.execution().begin(exclusive=True) as execution:
            network = self.network(name)
            execution.carry_out(
                lambda: plan_remove_network(network, self.store.endpoints_on(name), self.store.networks())
            )

    def remove_idle_networks(self, among: tuple[Network, ...] | None = None) -> None:
        """Remove the transient networks that nobody is on (any more)."""
        for network in self.networks() if among is None else among:
            if network.transient and not self.store.is_in_use(network.name):
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
        from vethwork.kernel.host_state import see_host

        guarded = tuple([each.version for each in self.store.forwarding()])
        return see_host(self.kernel).replace(guarded=guarded)

    def restoration(self, network: Network, seen: HostSeen) -> Callable[[], Plan]:
        """What brings the host's side of a network back, to be planned in the transaction that puts it on record."""
        from vethwork.plan.networks import plan_restore_network

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
        intended = self.store.intended()
        busy = bool(intended) and len(intended) > len(stuck(self.store))
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
                return
            except ConflictError:
                network = self.store.network(name)
                if network is None:  # else another process was faster, which is fine
                    raise
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
