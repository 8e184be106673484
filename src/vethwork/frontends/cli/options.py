"""Options that several commands share, and the types that turn their text into values.

Rules: a type's ``parse`` is the model's own; its RequestError passes through click untouched, so that every front-end words
a bad value the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vethwork.engine.engine import Engine
from vethwork.errors import RequestError
from vethwork.frontends.cli import show
from vethwork.model.address import Address, Mac, Prefix
from vethwork.model.names import HostName, IfName, Name, NetnsPath
from vethwork.model.ports import Publish

if TYPE_CHECKING:
    from collections.abc import Callable

    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # in older releases (Debian has 8.3) it takes no parameter


class Parsed(ParamType):
    """A click type around a ``parse`` of the model."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Give the parsed value. Raises RequestError."""
        return self._parse(value) if isinstance(value, str) else value


def parse_address(version: int) -> Callable[[str], Address]:
    """A parser for addresses of one IP version."""

    def parse(text: str) -> Address:
        address = Address.parse(text)
        if address.version != version:
            raise RequestError(f"address {text}: is not IPv{version}")
        return address

    return parse


def parse_label(text: str) -> tuple[str, str]:
    """Read ``KEY=VALUE``; a key alone has an empty value."""
    key, _, value = text.partition("=")
    return Name.parse(key), value


def parse_host(text: str) -> tuple[str, Address]:
    """Read ``NAME:ADDRESS``."""
    name, colon, address = text.partition(":")
    if not colon:
        raise RequestError(f"--add-host {text!r:.80}: is not NAME:ADDRESS", hint="as in db:10.77.0.5")
    return HostName.parse(name), Address.parse(address.strip("[]"))


NAME = Parsed("name", Name.parse)
IFNAME = Parsed("ifname", IfName.parse)
HOSTNAME = Parsed("hostname", HostName.parse)
ADDRESS = Parsed("address", Address.parse)
IPV4 = Parsed("ipv4", parse_address(4))
IPV6 = Parsed("ipv6", parse_address(6))
MAC = Parsed("mac", Mac.parse)
PREFIX = Parsed("cidr", Prefix.parse)
PUBLISH = Parsed("spec", Publish.parse)
NETNS = Parsed("path", NetnsPath.parse)
LABEL = Parsed("key=value", parse_label)
HOST = Parsed("name:address", parse_host)

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
dry_run = click.option(
    "--dry-run", "dry", is_flag=True, help="Print the commands that would do it; change nothing."
)
net = click.option(
    "--net",
    "--network",
    "net",
    multiple=True,
    metavar="MODE|NETWORK",
    help="host, none, container:NAME, ns:PATH, or a network; may be given several times. Default: bridge.",
)
publish = click.option(
    "-p",
    "--publish",
    "publishes",
    multiple=True,
    type=PUBLISH,
    metavar="SPEC",
    help="[[IP:]HOST:]CONTAINER[/tcp|udp|sctp]; ranges as 8000-8009:8000-8009.",
)
ipv4 = click.option("--ip", type=IPV4, metavar="A", help="The IPv4 address, on the first network.")
ipv6 = click.option("--ip6", type=IPV6, metavar="A", help="The IPv6 address, on the first network.")
mac_address = click.option(
    "--mac-address", "mac", type=MAC, metavar="M", help="The MAC address, on the first network."
)


def open_engine(dry: bool = False) -> Engine:
    """The engine that a command works on; with ``dry``, one that prints its plans and does nothing."""
    return Engine(rehearse=show.plan if dry else None)
