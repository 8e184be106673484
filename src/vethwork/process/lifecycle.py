"""Containers with a process: run, start, exec, stop and remove, on top of an engine.

Rules: the network comes first and goes last. A container is on record with what will run in it before anything runs; the
process is on record before it executes its command. A container keeps its network until it is removed, so a process can
end and be started again with the same address and ports; with ``remove`` it goes with its process.

The process that starts and waits is the *keeper*: the caller in the foreground, a supervisor that was left behind in the
background. A container to be removed whose keeper and process are both gone is removed by whoever comes next
(:func:`sweep`).
"""

from __future__ import annotations

import os
import select

from vethwork.engine.engine import Engine
from vethwork.errors import ConflictError, NotFound, RequestError, StateError
from vethwork.model.container import AttachRequest
from vethwork.model.process import ProcessRow, RunOptions
from vethwork.model.steps import in_netns, quoted
from vethwork.plan.etc_files import render_hosts, render_resolv
from vethwork.process.enter import Spec
from vethwork.process.spawn import is_alive, parent_of, start_time_of, stop
from vethwork.process.supervise import execute, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vethwork.model.state import ContainerSeen
    from vethwork.model.views import View
    from vethwork.process.spawn import Process

GRACE_SECONDS = 10.0
UPSTREAM = "/run/systemd/resolve/resolv.conf"
"""Where systemd-resolved writes the nameservers behind its own loopback one (systemd-resolved.service(8))."""


def directory_of(engine: Engine, container_id: str) -> str:
    """Where the files that a container sees in /etc are."""
    return f"{engine.run}/containers/{container_id[:12]}"


def log_of(engine: Engine, container_id: str) -> str:
    """Where what a detached process says is kept."""
    return f"{engine.root}/logs/{container_id}.log"


def create(engine: Engine, request: AttachRequest, options: RunOptions) -> ContainerSeen:
    """Make a container with its network, ready for :func:`start`. Raises as ``Engine.attach``; nothing is left then."""
    keeper = os.getpid()
    row = ProcessRow(request.name, options, keeper, start_time_of(keeper))
    seen = engine.attach(request.replace(process=row))
    if engine.rehearses:
        return seen
    try:
        write_files(engine, seen, options)
    except OSError as error:
        remove(engine, request.name, force=True)
        raise StateError(f"write the files of {request.name}: {error}") from error
    return seen


def start(engine: Engine, name: str, *, detached: bool | None = None) -> int:
    """Run a container's process; gives its exit status, or 0 at once if it runs detached. Closes the engine.

    Raises ConflictError if it runs, RequestError (exit status 127 or 126) if its command cannot be executed.
    """
    seen = engine.inspect(name)
    row = _row(engine, seen)
    if is_alive(row.pid, row.start_time):
        raise ConflictError(f"start {name}: it runs already, as process {row.pid}")
    quiet = row.options.detached if detached is None else detached
    if not os.path.isdir(directory_of(engine, seen.container.id)):
        write_files(engine, seen, row.options)  # whoever made the container died before they were written
    spec = _spec(engine, seen, row.options)
    if quiet:
        os.makedirs(f"{engine.root}/logs", mode=0o750, exist_ok=True)
        spec = spec.replace(log=log_of(engine, seen.container.id))
    root, run_dir = engine.root, engine.run
    engine.close()  # an open state file must not cross a fork

    def on_started(process: Process) -> None:
        keeper = parent_of(process.pid)
        with Engine(root, run_dir) as own:
            own.store.put_process(
                row.replace(
                    keeper=keeper,
                    keeper_start=start_time_of(keeper),
                    pid=process.pid,
                    start_time=process.start_time,
                    status=None,
                )
            )

    def on_exit(status: int) -> None:
        with Engine(root, run_dir) as own:
            now = own.store.process(seen.container.name)
            if now is None:
                return
            own.store.put_process(now.replace(status=status))
            if now.options.remove:
                discard(own, seen.container.name)

    return run(spec, on_started, on_exit, quiet)


def execute_in(engine: Engine, name: str, command: tuple[str, ...]) -> int:
    """Run one more command in a container, in the foreground; gives its exit status. Closes the engine."""
    seen = engine.inspect(name)
    engine.check_alive(f"execute in {name}", seen.container)
    row = engine.store.process(seen.container.name)
    spec = _spec(engine, seen, row.options) if row is not None else Spec(command, seen.container.netns)
    engine.close()
    return execute(spec.replace(command=command))


def end(engine: Engine, name: str, grace_seconds: float = GRACE_SECONDS) -> bool:
    """Stop a container's process: SIGTERM, and SIGKILL after the grace. Its network stays. False: it did not run.

    Gives control back when its keeper has recorded the end, and with ``remove`` has removed the container.
    """
    seen = engine.inspect(name)
    row = engine.store.process(seen.container.name)
    if row is None:
        raise RequestError(
            f"stop {name}: its process is not ours", hint="'vethwork detach' takes its network away"
        )
    stopped = stop(row.pid, row.start_time, grace_seconds) if row.pid else False
    if row.keeper != os.getpid():
        _await_end(row.keeper, row.keeper_start, grace_seconds)
    return stopped


def remove(engine: Engine, name: str, *, force: bool = False) -> bool:
    """Remove a container, its network and its files. False: there was none. Raises ConflictError if it runs."""
    try:
        seen = engine.inspect(name)
    except NotFound:
        return False
    row = engine.store.process(seen.container.name)
    if row is not None and is_alive(row.pid, row.start_time):
        if not force:
            raise ConflictError(
                f"remove {name}: it runs, as process {row.pid}", hint=f"vethwork stop {name}, or rm -f"
            )
        if seen.sharers:
            raise ConflictError(
                f"remove {name}: {', '.join(seen.sharers)} share its namespace", hint="remove them first"
            )
        end(engine, name, 0)
    return discard(engine, seen.container.name, seen.container.id)


def discard(engine: Engine, name: str, container_id: str = "", *, dead: bool = False) -> bool:
    """Detach a container whose process is gone, and delete its files; ``dead``: only if its namespace is gone too."""
    if not container_id:
        container = engine.store.container(name)
        container_id = container.id if container is not None else ""
    gone = engine.detach_dead(name) if dead else engine.detach(name, wait=False)
    if container_id and not engine.rehearses and (gone or not dead):
        delete_files(directory_of(engine, container_id))
        delete_files(log_of(engine, container_id))
    return gone


def stray_files(engine: Engine) -> tuple[str, ...]:
    """The files of containers that are not on record: who deletes them last may die before."""
    known = {container.id for container in engine.containers()}
    kept = {directory_of(engine, each) for each in known} | {log_of(engine, each) for each in known}
    places = [place for place in (f"{engine.run}/containers", f"{engine.root}/logs") if os.path.isdir(place)]
    found = [f"{place}/{name}" for place in places for name in sorted(os.listdir(place))]
    return tuple([path for path in found if path not in kept])


def delete_files(path: str) -> None:
    """Delete a container's directory, or its log; what is gone is fine."""
    from shutil import rmtree  # which loads `re`, and is for containers of our own only

    rmtree(path, ignore_errors=True)
    if os.path.exists(path):
        os.unlink(path)


def sweep(engine: Engine) -> tuple[str, ...]:
    """Remove the containers that were to go with their process, and whose keeper died first; gives their names."""
    swept = []
    for row in engine.store.processes():
        dead = not is_alive(row.pid, row.start_time) and not is_alive(row.keeper, row.keeper_start)
        if row.options.remove and dead:
            discard(engine, row.container)
            swept.append(row.container)
    return tuple(swept)


def process_view(engine: Engine, name: str, netns: str) -> View:
    """What is known of a container's process: ``pid`` (0: none runs) and ``status`` in words."""
    row = engine.store.process(name)
    if row is None:
        pid = netns.removeprefix("/proc/").partition("/")[0] if netns.startswith("/proc/") else ""
        return {"pid": int(pid) if pid.isdecimal() else 0, "status": "attached"}
    if is_alive(row.pid, row.start_time):
        return {"pid": row.pid, "status": "running"}
    if row.status is not None:
        return {"pid": 0, "status": f"exited ({row.status})"}
    return {"pid": 0, "status": "exited" if row.pid else "created"}


def describe_start(engine: Engine, name: str) -> str:
    """Spell :func:`start` as a person would have typed it, less the files in /etc and the host name."""
    seen = engine.inspect(name)
    command = " ".join([quoted(word) for word in _row(engine, seen).options.command])
    return in_netns(seen.container.netns, command)


def describe_end(engine: Engine, name: str, grace_seconds: float) -> str:
    """Spell :func:`end` as a person would have typed it."""
    row = _row(engine, engine.inspect(name))
    if not row.pid:
        return f"# {name} does not run"
    return f"kill -TERM {row.pid}; timeout {grace_seconds:g} tail --pid={row.pid} -f /dev/null || kill -KILL {row.pid}"


def _row(engine: Engine, seen: ContainerSeen) -> ProcessRow:
    row = engine.store.process(seen.container.name)
    if row is None:
        raise RequestError(f"start {seen.container.name}: it was attached, its process is not ours to start")
    return row


def _spec(engine: Engine, seen: ContainerSeen, options: RunOptions) -> Spec:
    """How to start a process: with files of its own, unless it shares the host's namespace."""
    container = seen.container
    if container.mode == "host":
        return Spec(options.command, hostname=options.hostname)
    return Spec(options.command, container.netns, directory_of(engine, container.id), options.hostname)


def write_files(engine: Engine, seen: ContainerSeen, options: RunOptions) -> None:
    """Write hosts, resolv.conf and hostname; ``container:NAME`` has the addresses of its target. Raises OSError."""
    if seen.container.mode == "host":
        return
    directory = directory_of(engine, seen.container.id)
    os.makedirs(directory, mode=0o755, exist_ok=True)
    holders = engine.store.containers_in(seen.container.netns)
    addresses = tuple(
        interface.address
        for holder in holders
        for endpoint in engine.store.endpoints_of(holder.name)
        for interface in endpoint.addresses
    )
    texts = {
        "hosts": render_hosts(options.hostname, addresses, options.hosts),
        "resolv.conf": render_resolv(_read("/etc/resolv.conf") or "", _read(UPSTREAM), options.dns),
        "hostname": f"{options.hostname}\n",
    }
    for name, text in texts.items():
        with open(f"{directory}/{name}", "w") as file:
            file.write(text)


def _read(path: str) -> str | None:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return None


def _await_end(pid: int, start_time: int, seconds: float) -> None:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if is_alive(pid, start_time):
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll(seconds * 1000 + 5000)
    finally:
        os.close(fd)
