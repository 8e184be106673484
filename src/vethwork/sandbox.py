"""A sandbox: an isolated network for processes that Python starts, for as long as a ``with`` block lasts.

    >>> import vethwork
    >>> with vethwork.Sandbox(publish=["8080:80"]) as box:
    ...     said = box.run(["ip", "-brief", "-4", "address", "show", "eth0"], capture_output=True, text=True, check=True)
    ...     print(box.ports, box.addresses[0] in said.stdout)
    {'80/tcp': 8080} True

Rules: a sandbox is a container of the engine like any other (``vethwork ps`` shows it), made when the block is entered and
removed when it is left, however it is left. If the whole process is killed, the next ``vethwork ps``, ``run`` or ``gc``
removes it. Needs root, as everything that makes namespaces does.
"""

from __future__ import annotations

import os
import subprocess

from vethwork.engine.engine import Engine
from vethwork.engine.networks import new_id
from vethwork.model.address import Address
from vethwork.model.container import AttachRequest, parse_modes
from vethwork.model.names import HostName, Name
from vethwork.model.ports import Publish
from vethwork.model.process import RunOptions
from vethwork.process import lifecycle
from vethwork.process.enter import Spec, enter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Self

    from vethwork.model.state import ContainerSeen


class Sandbox:
    """An isolated network, as a context manager.

    ``net`` is what ``vethwork run --net`` takes: a mode or a network's name, or several names; ``publish`` are specs as
    ``-p`` takes them. ``name`` and ``hostname`` default to the start of a random id. ``hosts`` are lines for
    /etc/hosts (name to address), ``dns`` nameservers. ``root`` and ``run`` are those of :class:`vethwork.Engine`.

    Entering raises RequestError, ConflictError, KernelRefused or StateError; nothing is left behind then.
    """

    def __init__(
        self,
        net: str | Sequence[str] = "bridge",
        *,
        publish: Sequence[str] = (),
        name: str = "",
        hostname: str = "",
        hosts: Mapping[str, str] | None = None,
        dns: Sequence[str] = (),
        root: str = "",
        run: str = "",
    ) -> None:
        mode, joins = parse_modes((net,) if isinstance(net, str) else tuple(net))
        container_id = new_id()
        self.name = Name.parse(name or container_id[:12])
        publishes = tuple(Publish.parse(spec) for spec in publish)
        self._request = AttachRequest(container_id, self.name, mode, joins, publishes)
        self._hosts = tuple(
            (HostName.parse(key), Address.parse(value)) for key, value in (hosts or {}).items()
        )
        self._dns = tuple(Address.parse(text) for text in dns)
        self._hostname = HostName.parse(hostname or self.name[: HostName.longest])
        self._where = (root, run)
        self._processes: list[subprocess.Popen[Any]] = []
        self._engine: Engine | None = None

    def __enter__(self) -> Self:
        self._engine = engine = Engine(*self._where)
        options = RunOptions(
            command=(),
            directory=lifecycle.directory_of(engine, self._request.id),
            hostname="" if self._request.mode.kind == "host" else self._hostname,
            hosts=self._hosts,
            dns=self._dns,
            detached=False,
            remove=True,
        )
        try:
            lifecycle.create(engine, self._request, options)
        except BaseException:
            engine.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes that :meth:`popen` started, and take the network away."""
        for process in self._processes:
            process.kill()
            process.wait()
        try:
            lifecycle.discard(self.engine, self.name)
        finally:
            self.engine.close()
            self._engine = None

    @property
    def engine(self) -> Engine:
        """The engine it was made on; RuntimeError outside the block."""
        if self._engine is None:
            raise RuntimeError(f"sandbox {self.name} is not entered")
        return self._engine

    def inspect(self) -> ContainerSeen:
        """What is on record: endpoints, addresses, ports, namespace."""
        return self.engine.inspect(self.name)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its IP addresses, the first network's first."""
        return tuple(
            str(interface.address)
            for endpoint in self.inspect().endpoints
            for interface in endpoint.addresses
        )

    @property
    def ports(self) -> dict[str, int]:
        """Where its ports are published: ``{"80/tcp": 8080}``; of a range, the first."""
        published = [each.publish for each in self.inspect().publications]
        return {f"{each.container_port}/{each.protocol}": each.host_port for each in published}

    def publish(self, *specs: str) -> None:
        """Open more ports. Raises as ``Engine.publish``."""
        self.engine.publish(self.name, *(Publish.parse(spec) for spec in specs))

    def unpublish(self, spec: str) -> None:
        """Close a port, named as it was published. Raises NotFound."""
        self.engine.unpublish(self.name, Publish.parse(spec))

    def run(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        """``subprocess.run`` inside the sandbox; takes its options and raises what it raises."""
        with_entry = {"preexec_fn": enter(self._spec()), **options}
        return subprocess.run(command, **with_entry)

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """``subprocess.Popen`` inside the sandbox; the process is killed when the block is left."""
        process = subprocess.Popen(command, preexec_fn=enter(self._spec()), **options)
        self._processes.append(process)
        return process

    def _spec(self) -> Spec:
        seen = self.inspect()
        if seen.container.mode == "host":
            return Spec(())
        directory = lifecycle.directory_of(self.engine, seen.container.id)
        return Spec((), seen.container.netns, directory if os.path.isdir(directory) else "", self._hostname)
