"""The commands about containers: run, attach, ps, inspect, exec, stop, rm, publish and their like."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

import click

from vethwork.engine.engine import Engine
from vethwork.engine.networks import new_id
from vethwork.engine.reaper import reaping
from vethwork.errors import NotFound, RequestError
from vethwork.frontends.cli import options, show
from vethwork.model.container import AttachRequest, parse_modes
from vethwork.model.names import HostName, Name, NetnsPath
from vethwork.model.process import RunOptions
from vethwork.model.views import container_view, port_view
from vethwork.process import lifecycle

if TYPE_CHECKING:
    from vethwork.model.address import Address, Mac
    from vethwork.model.container import Join
    from vethwork.model.ports import Publish
    from vethwork.model.views import View


def _address_first(
    joins: tuple[Join, ...], ip: Address | None, ip6: Address | None, mac: Mac | None
) -> tuple[Join, ...]:
    """Lay the addresses that were asked for on the first network. Raises RequestError if there is none."""
    asked = tuple(address for address in (ip, ip6) if address is not None)
    if not asked and mac is None:
        return joins
    if not joins:
        raise RequestError("--ip, --ip6 and --mac-address: need a network to have them on")
    return (joins[0].replace(addresses=asked, mac=mac), *joins[1:])


def _view(engine: Engine, name: str) -> View:
    seen = engine.inspect(name)
    return container_view(seen, lifecycle.process_view(engine, seen.container.name, seen.container.netns))


@click.command(context_settings={"ignore_unknown_options": False})
@click.option("-d", "--detach", "detached", is_flag=True, help="Leave it running; see 'vethwork logs'.")
@click.option("--name", type=options.NAME, metavar="N", help="Default: the start of its id.")
@options.net
@options.publish
@options.ipv4
@options.ipv6
@options.mac_address
@click.option("--hostname", type=options.HOSTNAME, metavar="H", help="Default: the container's name.")
@click.option(
    "--add-host",
    "hosts",
    multiple=True,
    type=options.HOST,
    metavar="N:A",
    help="One more line in /etc/hosts.",
)
@click.option(
    "--dns", multiple=True, type=options.ADDRESS, metavar="A", help="A nameserver. Default: the host's."
)
@click.option("--rm", "remove", is_flag=True, help="Remove the container when its process ends.")
@options.dry_run
@click.argument("command", nargs=-1, required=True)
def run(
    detached: bool,
    name: Name | None,
    net: tuple[str, ...],
    publishes: tuple[Publish, ...],
    ip: Address | None,
    ip6: Address | None,
    mac: Mac | None,
    hostname: HostName | None,
    hosts: tuple[tuple[str, Address], ...],
    dns: tuple[Address, ...],
    remove: bool,
    dry: bool,
    command: tuple[str, ...],
) -> int:
    """Run a command in a container: vethwork run [OPTIONS] -- COMMAND [ARG]..."""
    mode, joins = parse_modes(net)
    container_id = new_id()
    name = name or Name(container_id[:12])
    if mode.kind == "host" and (hosts or dns):
        raise RequestError("--add-host and --dns: --net host has the host's own files")
    request = AttachRequest(container_id, name, mode, _address_first(joins, ip, ip6, mac), publishes)
    own_name = "" if mode.kind == "host" else _host_name(name)
    with options.open_engine(dry) as engine:
        wish = RunOptions(
            command=command,
            directory=lifecycle.directory_of(engine, container_id),
            hostname=hostname or own_name,
            hosts=hosts,
            dns=dns,
            detached=detached,
            remove=remove,
        )
        if not dry:
            lifecycle.sweep(engine)
        lifecycle.create(engine, request, wish)
        if dry:
            print(lifecycle.describe_start(engine, name))
            return 0
        status = _start(engine, name, remove)
    if detached:
        print(name)
    return status


def _start(engine: Engine, name: Name, remove: bool) -> int:
    root, run_dir = engine.root, engine.run
    try:
        return lifecycle.start(engine, name)
    except BaseException:
        if remove:
            with Engine(root, run_dir) as again:
                lifecycle.discard(again, name)
        raise


def _host_name(name: Name) -> HostName:
    return HostName(name[: HostName.longest])


@click.command()
@click.argument("name", type=options.NAME)
@click.option("--netns", type=options.NETNS, metavar="PATH", help="The container's network namespace.")
@click.option("--pid", type=click.IntRange(min=1), metavar="PID", help="A process in it.")
@options.net
@options.publish
@options.ipv4
@options.ipv6
@options.mac_address
@options.dry_run
@options.as_json
def attach(
    name: Name,
    netns: NetnsPath | None,
    pid: int | None,
    net: tuple[str, ...],
    publishes: tuple[Publish, ...],
    ip: Address | None,
    ip6: Address | None,
    mac: Mac | None,
    dry: bool,
    as_json: bool,
) -> None:
    """Give a container that something else runs its network."""
    if (netns is None) == (pid is None):
        raise RequestError(f"attach {name}: needs --netns or --pid, one of them")
    path = netns or NetnsPath(f"/proc/{pid}/ns/net")
    mode, joins = parse_modes(net)
    request = AttachRequest(new_id(), name, mode, _address_first(joins, ip, ip6, mac), publishes, path)
    with options.open_engine(dry) as engine:
        engine.attach(request)
        if dry:
            return
        view = _view(engine, name)
    if as_json:
        show.document(view)
    else:
        for endpoint in view["endpoints"]:
            print(f"{endpoint['interface']} {' '.join(endpoint['addresses'])} on {endpoint['network']}")


@click.command()
@click.argument("names", type=options.NAME, nargs=-1, required=True)
@options.dry_run
def detach(names: tuple[Name, ...], dry: bool) -> None:
    """Take containers' networks away and forget the containers; fine if there are none."""
    with options.open_engine(dry) if dry else reaping() as engine:
        for name in names:
            engine.detach(name, wait=False)


@click.command()
@options.as_json
def ps(as_json: bool) -> None:
    """List containers."""
    with options.open_engine() as engine:
        lifecycle.sweep(engine)
        views = [_view(engine, container.name) for container in engine.containers()]
    if as_json:
        show.document(views)
        return
    rows = [
        (
            view["name"],
            view["mode"],
            view["status"],
            str(view["pid"] or ""),
            " ".join(address for endpoint in view["endpoints"] for address in endpoint["addresses"]),
            ", ".join(_port_text(port) for port in view["ports"]),
        )
        for view in views
    ]
    show.table(("NAME", "NETWORK", "STATUS", "PID", "ADDRESSES", "PORTS"), rows)


def _port_text(port: View) -> str:
    def spell(first: int) -> str:
        return f"{first}-{first + port['count'] - 1}" if port["count"] > 1 else str(first)

    host = f"[{port['host_ip']}]" if ":" in port["host_ip"] else port["host_ip"] or "*"
    return f"{host}:{spell(port['host_port'])}->{spell(port['container_port'])}/{port['protocol']}"


@click.command()
@click.argument("name", type=options.NAME)
@options.as_json
def inspect(name: Name, as_json: bool) -> None:
    """Show all about a container."""
    with options.open_engine() as engine:
        view = _view(engine, name)
    if as_json:
        show.document(view)
        return
    for key in ("name", "id", "mode", "status", "pid", "netns"):
        print(f"{key + ':':10} {view[key]}")
    for endpoint in view["endpoints"]:
        ways = f", gateway {' '.join(endpoint['gateways'])}" if endpoint["gateways"] else ""
        print(
            f"{'network:':10} {endpoint['network']}: {endpoint['interface']} {' '.join(endpoint['addresses'])}{ways}"
        )
        print(
            f"{'':10} {endpoint['mac']}, on the host {endpoint['host_interface'] or 'nothing: the end of a cable'}"
        )
    for port in view["ports"]:
        print(f"{'port:':10} {_port_text(port)}")


@click.command()
@click.argument("name", type=options.NAME)
@options.as_json
def port(name: Name, as_json: bool) -> None:
    """List a container's published ports."""
    with options.open_engine() as engine:
        views = [port_view(publication) for publication in engine.inspect(name).publications]
    if as_json:
        show.document(views)
        return
    for view in views:
        print(_port_text(view))


@click.command()
@click.argument("name", type=options.NAME)
def logs(name: Name) -> None:
    """Print what a detached container said."""
    with options.open_engine() as engine:
        path = lifecycle.log_of(engine, engine.inspect(name).container.id)
    if not os.path.exists(path):
        raise NotFound(f"logs of {name}: there are none", hint="only what ran with -d is logged")
    with open(path, "rb") as file:
        shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()


@click.command("exec")
@click.argument("name", type=options.NAME)
@click.argument("command", nargs=-1, required=True)
def execute(name: Name, command: tuple[str, ...]) -> int:
    """Run one more command in a container: vethwork exec NAME -- COMMAND [ARG]..."""
    with options.open_engine() as engine:
        return lifecycle.execute_in(engine, name, command)


@click.command()
@click.argument("name", type=options.NAME)
@options.dry_run
def start(name: Name, dry: bool) -> int:
    """Run a container's command again, with the same network; in the background if it was run with -d."""
    with options.open_engine(dry) as engine:
        if not dry:
            return lifecycle.start(engine, name)
        print(lifecycle.describe_start(engine, name))
        return 0


@click.command()
@click.argument("names", type=options.NAME, nargs=-1, required=True)
@click.option(
    "-t",
    "--time",
    "grace",
    type=click.FloatRange(min=0),
    default=lifecycle.GRACE_SECONDS,
    show_default=True,
    help="Seconds from SIGTERM to SIGKILL.",
)
@options.dry_run
def stop(names: tuple[Name, ...], grace: float, dry: bool) -> None:
    """End containers' processes; their networks stay until rm."""
    with options.open_engine(dry) as engine:
        for name in names:
            if dry:
                print(lifecycle.describe_end(engine, name, grace))
                continue
            lifecycle.end(engine, name, grace)
            print(name)


@click.command()
@click.argument("names", type=options.NAME, nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Kill a process that still runs.")
@options.dry_run
def rm(names: tuple[Name, ...], force: bool, dry: bool) -> None:
    """Remove containers with their networks; fine if there is none."""
    with options.open_engine(dry) if dry else reaping() as engine:
        for name in names:
            if dry:
                engine.detach(name)
            elif lifecycle.remove(engine, name, force=force):
                print(name)


@click.command("publish")
@click.argument("name", type=options.NAME)
@click.argument("publishes", metavar="SPEC...", type=options.PUBLISH, nargs=-1, required=True)
@options.dry_run
@options.as_json
def open_ports(name: Name, publishes: tuple[Publish, ...], dry: bool, as_json: bool) -> None:
    """Open ports on a running container."""
    with options.open_engine(dry) as engine:
        views = [port_view(publication) for publication in engine.publish(name, *publishes)]
    if as_json:
        show.document(views)
    elif not dry:
        for view in views:
            print(_port_text(view))


@click.command()
@click.argument("name", type=options.NAME)
@click.argument("publishes", metavar="SPEC...", type=options.PUBLISH, nargs=-1, required=True)
@options.dry_run
def unpublish(name: Name, publishes: tuple[Publish, ...], dry: bool) -> None:
    """Close published ports, named as they were published."""
    with options.open_engine(dry) as engine:
        for publish in publishes:
            engine.unpublish(name, publish)


CONTAINER_COMMANDS = (
    run,
    start,
    stop,
    execute,
    logs,
    ps,
    inspect,
    port,
    rm,
    attach,
    detach,
    open_ports,
    unpublish,
)
