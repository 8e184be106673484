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

from vethwork.errors import ConflictError, NotFound, RequestError
from vethwork.execution import Execution
from vethwork.kernel.apply import Kernel
from vethwork.kernel.netns import same_netns
from vethwork.kernel.observe import see_host
from vethwork.model.container import AttachRequest, Container, Join, Publication
from vethwork.model.network import DEFAULT_NETWORK, Network, NetworkRequest
from vethwork.model.ports import Publish
from vethwork.model.snapshot import ContainerSeen
from vethwork.observer import Observer
from vethwork.plan.attach import plan_attach, plan_connect, plan_publish
from vethwork.plan.detach import plan_detach, plan_disconnect, plan_unpublish
from vethwork.plan.networks import plan_create_network, plan_remove_network, plan_restore_network
from vethwork.store.database import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from vethwork.execution import Rehearse, Watch
    from vethwork.model.container import Endpoint

DEFAULT_ROOT, DEFAULT_RUN = "/var/lib/vethwork", "/run/vethwork"


def new_id() -> str:
    """32 random hex digits: the identity of a container or a network."""
    return os.urandom(16).hex()


class Engine:
    """Networks and containers of one host: the namespace of the thread that makes the engine. A context manager.

    ``root`` is the directory of the state file (default: $VETHWORK_ROOT, else /var/lib/vethwork), ``run`` that of pinned
    namespaces (default: $VETHWORK_RUN, else /run/vethwork). ``rehearse`` is handed every plan instead of the kernel, and
    nothing is recorded; ``watch`` is told of every milestone (see ``execution``).

    Raises StateError if the state file cannot be used.
    """

    def __init__(
        self, root: str = "", run: str = "", *, rehearse: Rehearse | None = None, watch: Watch | None = None
    ) -> None:
        self.root = os.path.abspath(root or os.environ.get("VETHWORK_ROOT") or DEFAULT_ROOT)
        self.run = os.path.abspath(run or os.environ.get("VETHWORK_RUN") or DEFAULT_RUN)
        self._rehearse = rehearse
        self._watch = watch
        self.store = Store(self.root, rehearsal=rehearse is not None)
        self.kernel = Kernel()
        self._observer = Observer(self.store, self.kernel, self.run)

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
        return Execution(self.store, self.kernel, self.root, watch=self._watch, rehearse=self._rehearse)

    # Containers.

    def containers(self) -> tuple[Container, ...]:
        """Every container on record, by name."""
        return self.store.containers()

    def inspect(self, name: str) -> ContainerSeen:
        """A container, by name or id, with its endpoints and ports. Raises NotFound."""
        return self._observer.container(name)

    def attach(self, request: AttachRequest) -> ContainerSeen:
        """Give a container its network.

        Raises RequestError, ConflictError or KernelRefused; nothing is left of it then.
        """
        for join in request.joins:
            self._ensure_network(join.network)
        self._check_namespace(request)
        with self.execution().begin(request.name) as execution:
            local = self._observer.local_holders(request.publishes)
            execution.carry_out(lambda: plan_attach(request, self._observer.attach(request, local)))
            return self.inspect(request.name)

    def detach(self, name: str) -> bool:
        """Take a container's network away, all of it, and forget the container. False: there was none.

        Raises ConflictError while others share its namespace, Incomplete if the kernel refused a part.
        """
        with self.execution().begin(name) as execution:
            if self.store.container(name) is None:
                return False

            seen = self._observer.container(name)
            cables = self._observer.cables(seen)
            execution.carry_out(lambda: plan_detach(seen, cables))
            return True

    def connect(self, name: str, join: Join) -> Endpoint:
        """Put a container on one more network. Raises NotFound, RequestError, ConflictError or KernelRefused."""
        self._ensure_network(join.network)
        with self.execution().begin(name) as execution:
            seen = self._observer.container(name)
            plan = execution.carry_out(lambda: plan_connect(join, seen, self._observer.network(join)))
            return plan.adds[0]  # type: ignore[return-value]

    def disconnect(self, name: str, network: str) -> None:
        """Take a container off a network, with the ports that led to it there. Raises NotFound, Incomplete."""
        with self.execution().begin(name) as execution:
            seen = self._observer.container(name)
            cables = self._observer.cables(seen)
            execution.carry_out(lambda: plan_disconnect(network, seen, cables))

    def publish(self, name: str, *publishes: Publish) -> tuple[Publication, ...]:
        """Open ports on a running container. Raises NotFound, RequestError, ConflictError or KernelRefused."""
        with self.execution().begin(name) as execution:
            seen = self._observer.container(name)
            local = self._observer.local_holders(publishes)
            seed = new_id()
            plan = execution.carry_out(
                lambda: plan_publish(publishes, seen, self._observer.ports(publishes, local, seed))
            )
            return plan.adds  # type: ignore[return-value]

    def unpublish(self, name: str, publish: Publish) -> None:
        """Close a published range, named as it was published. Raises NotFound."""
        with self.execution().begin(name) as execution:
            seen = self._observer.container(name)
            execution.carry_out(lambda: plan_unpublish(publish, seen))

    def _check_namespace(self, request: AttachRequest) -> None:
        """Refuse a path that is no namespace, and our own. Raises RequestError."""
        path = request.netns or (request.mode.target if request.mode.kind == "ns" else "")
        if path and same_netns(self.kernel.netns_fd(path), self.kernel.netns_fd("")):
            raise RequestError(
                f"attach {request.name}: {path} is the host's own namespace", hint="use --net host"
            )

    # Networks.

    def networks(self) -> tuple[Network, ...]:
        """Every network on record, by name."""
        return self.store.networks()

    def network(self, name: str) -> Network:
        """One network. Raises NotFound."""
        return self._observer.network_row(name)

    def create_network(self, request: NetworkRequest) -> Network:
        """Make a network. Raises RequestError, ConflictError or KernelRefused; nothing is left of it then."""
        network_id = new_id()
        with self.execution().begin(exclusive=True) as execution:
            execution.check_owner()
            seen = see_host(self.kernel)
            execution.carry_out(lambda: plan_create_network(request, network_id, seen, self.store.networks()))
            return self.network(request.name)

    def remove_network(self, name: str) -> None:
        """Remove a network. Raises NotFound, ConflictError while a container is on it, Incomplete."""
        with self.execution().begin(exclusive=True) as execution:
            network = self.network(name)
            execution.carry_out(lambda: plan_remove_network(network, self.store.endpoints_on(name)))

    def restore_network(self, name: str) -> None:
        """Bring the host's side of a network back, as far as it is missing. Raises NotFound, Incomplete."""
        with self.execution().begin(exclusive=True) as execution:
            execution.check_owner()
            network = self.network(name)
            seen = see_host(self.kernel)
            execution.carry_out(lambda: plan_restore_network(network, seen))

    def _ensure_network(self, name: str) -> None:
        """Make the default network on first use; bring a bridge back that is gone, after a reboot for one."""
        network = self.store.network(name)
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
            and self.kernel.door("").link(network.device) is None
        ):
            self.restore_network(name)
