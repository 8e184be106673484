"""``vethwork network ...``: networks, and who is on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vethwork.errors import ConflictError, RequestError
from vethwork.frontends.cli import options, show
from vethwork.model.address import Address
from vethwork.model.container import Join
from vethwork.model.network import DRIVERS, NetworkRequest
from vethwork.model.views import endpoint_view, network_view

if TYPE_CHECKING:
    from vethwork.model.address import Mac, Prefix
    from vethwork.model.names import IfName, Name


@click.group()
def network() -> None:
    """Create, list and remove networks; connect containers to them."""


def _parse_masquerade(texts: tuple[str, ...]) -> tuple[bool, tuple[Address, ...]]:
    """``yes``, ``no``, or addresses to leave by: at most one for each IP version."""
    words = [text for text in texts if text in ("yes", "no")]
    if len(words) > 1 or (words and len(texts) > 1):
        raise RequestError("--masquerade: say yes, no, or the address to leave by")
    try:
        sources = tuple(Address.parse(text) for text in texts if text not in ("yes", "no"))
    except RequestError as error:
        raise RequestError(
            f"--masquerade: {error.message}", hint="yes, no, or the address to leave by"
        ) from error
    if len({source.version for source in sources}) < len(sources):
        raise RequestError("--masquerade: one address for each IP version")
    return words != ["no"], sources


@network.command()
@click.argument("name", type=options.NAME)
@click.option(
    "--driver",
    type=click.Choice([driver for driver in DRIVERS if driver != "foreign"]),
    default="bridge",
    show_default=True,
    help="p2p is a cable between two containers.",
)
@click.option(
    "--subnet",
    "subnets",
    multiple=True,
    type=options.PREFIX,
    metavar="CIDR",
    help="Default: one that is free on this host.",
)
@click.option(
    "--gateway",
    "gateways",
    multiple=True,
    type=options.ADDRESS,
    metavar="A",
    help="The host's address in the subnet. Default: the first.",
)
@click.option(
    "--ip-range",
    "pools",
    multiple=True,
    type=options.PREFIX,
    metavar="CIDR",
    help="The part of the subnet that addresses are given from.",
)
@click.option("--ipv6", is_flag=True, help="Add IPv6, with a unique local /64 unless a subnet is given.")
@click.option(
    "--internal", is_flag=True, help="No way out of the network; the host keeps its gateway address."
)
@click.option(
    "--isolated", is_flag=True, help="No gateway at all: containers reach each other and nothing else."
)
@click.option(
    "--masquerade",
    multiple=True,
    metavar="yes|no|A",
    help="Hide what leaves behind the host's address, or the given one. Default: yes.",
)
@click.option(
    "--icc",
    type=click.Choice(["yes", "no"]),
    default="yes",
    show_default=True,
    help="Whether containers of the network may talk to each other.",
)
@click.option("--mtu", type=int, metavar="N", help="In bytes. Default: that of the host's default route.")
@click.option("--label", "labels", multiple=True, type=options.LABEL, metavar="K=V")
@options.dry_run
@options.as_json
def create(
    name: Name,
    driver: str,
    subnets: tuple[Prefix, ...],
    gateways: tuple[Address, ...],
    pools: tuple[Prefix, ...],
    ipv6: bool,
    internal: bool,
    isolated: bool,
    masquerade: tuple[str, ...],
    icc: str,
    mtu: int | None,
    labels: tuple[tuple[str, str], ...],
    dry: bool,
    as_json: bool,
) -> None:
    """Make a network."""
    hides, sources = _parse_masquerade(masquerade)
    request = NetworkRequest(
        name=name,
        driver=driver,
        subnets=subnets,
        gateways=gateways,
        pools=pools,
        ipv6=ipv6,
        internal=internal,
        isolated=isolated,
        icc=icc == "yes",
        masquerade=hides,
        sources=sources,
        mtu=mtu,
        labels=labels,
    )
    with options.open_engine(dry) as engine:
        made = engine.create_network(request)
    if as_json:
        show.document(network_view(made, ()))
    elif not dry:
        print(made.name)


@network.command("ls")
@options.as_json
def list_networks(as_json: bool) -> None:
    """List networks."""
    with options.open_engine() as engine:
        views = [network_view(each, engine.store.endpoints_on(each.name)) for each in engine.networks()]
    if as_json:
        show.document(views)
        return
    rows = [
        (
            view["name"],
            view["driver"],
            view["device"],
            ", ".join(subnet["subnet"] for subnet in view["subnets"]),
            " ".join(word for word in ("internal", "isolated") if view[word]),
            str(len(view["containers"])),
        )
        for view in views
    ]
    show.table(("NAME", "DRIVER", "DEVICE", "SUBNETS", "SCOPE", "CONTAINERS"), rows)


@network.command()
@click.argument("name", type=options.NAME)
@options.as_json
def inspect(name: Name, as_json: bool) -> None:
    """Show a network with all its settings."""
    with options.open_engine() as engine:
        view = network_view(engine.network(name), engine.store.endpoints_on(name))
    if as_json:
        show.document(view)
        return
    for key, value in view.items():
        if key == "subnets":
            for subnet in value:
                inner = ", ".join(
                    f"{word} {text}" for word, text in subnet.items() if text and word != "subnet"
                )
                print(f"{'subnet:':12} {subnet['subnet']} ({inner})")
        elif key == "containers":
            for container, addresses in value.items():
                print(f"{'container:':12} {container} {' '.join(addresses)}")
        elif key == "labels":
            for label, text in value.items():
                print(f"{'label:':12} {label}={text}")
        else:
            print(f"{key + ':':12} {value}")


@network.command()
@click.argument("names", type=options.NAME, nargs=-1, required=True)
@options.dry_run
def rm(names: tuple[Name, ...], dry: bool) -> None:
    """Remove networks that nobody is on."""
    with options.open_engine(dry) as engine:
        for name in names:
            engine.remove_network(name)
            if not dry:
                print(name)


@network.command()
@options.dry_run
def prune(dry: bool) -> None:
    """Remove every network that nobody is on, the default one aside."""
    with options.open_engine(dry) as engine:
        for each in engine.networks():
            if each.name == NetworkRequest.default().name or engine.store.is_in_use(each.name):
                continue
            try:
                engine.remove_network(each.name)
            except ConflictError:
                continue  # somebody joined it meanwhile
            if not dry:
                print(each.name)


@network.command()
@click.option(
    "--ip",
    "addresses",
    multiple=True,
    type=options.ADDRESS,
    metavar="A",
    help="An address; once for each IP version.",
)
@click.option("--mac-address", "mac", type=options.MAC, metavar="M")
@click.option(
    "--ifname",
    type=options.IFNAME,
    metavar="I",
    help="The interface's name in the container. Default: the next free ethN.",
)
@click.argument("name", metavar="NETWORK", type=options.NAME)
@click.argument("container", type=options.NAME)
@options.dry_run
@options.as_json
def connect(
    addresses: tuple[Address, ...],
    mac: Mac | None,
    ifname: IfName | None,
    name: Name,
    container: Name,
    dry: bool,
    as_json: bool,
) -> None:
    """Put a running container on one more network."""
    with options.open_engine(dry) as engine:
        endpoint = engine.connect(container, Join(name, addresses, mac, ifname))
    if as_json:
        show.document(endpoint_view(endpoint))
    elif not dry:
        print(f"{endpoint.ifname} {' '.join(str(interface) for interface in endpoint.addresses)}")


@network.command()
@click.argument("name", metavar="NETWORK", type=options.NAME)
@click.argument("container", type=options.NAME)
@options.dry_run
def disconnect(name: Name, container: Name, dry: bool) -> None:
    """Take a running container off a network."""
    with options.open_engine(dry) as engine:
        engine.disconnect(container, name)
