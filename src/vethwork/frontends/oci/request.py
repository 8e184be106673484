"""From a container's annotations to what is asked of the engine.

    io.vethwork.network    one network or several, with commas; or none. Default: bridge
    io.vethwork.publish    ports, as ``-p`` of the command line takes them, with commas or spaces between them
    io.vethwork.ip         the IPv4 address, on the first network
    io.vethwork.ip6        the IPv6 address, there
    io.vethwork.mac        the MAC address, there

Rules: an annotation of ours that nobody knows is refused, for who misspells ``publish`` wants to be told. Those of others are
not looked at.
"""

from __future__ import annotations

from vethwork.errors import RequestError
from vethwork.model.address import Address, Mac
from vethwork.model.container import AttachRequest, parse_modes
from vethwork.model.names import Name
from vethwork.model.ports import Publish

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from vethwork.model.container import Join, Mode
    from vethwork.model.names import NetnsPath

    Value = TypeVar("Value")

OWNER = "oci"
"""What the records of our containers bear."""
PREFIX = "io.vethwork."
KEYS = ("network", "publish", "ip", "ip6", "mac")

ELSEWHERE = {
    "host": "leave the network namespace out of linux.namespaces in config.json, and this hook too",
    "container": "give that namespace's path in linux.namespaces of config.json, and leave this hook out",
    "ns": "give that path in linux.namespaces of config.json, and leave this hook out",
}
"""The modes that are a runtime's to give: which namespace a container lives in is settled before its hooks run."""


def parse_wish(
    container_id: str, name: str, netns: NetnsPath, annotations: Mapping[str, str]
) -> AttachRequest:
    """What a container asks for. ``container_id`` is the engine's, ``name`` the runtime's. Raises RequestError."""
    asked = {key.removeprefix(PREFIX): value for key, value in annotations.items() if key.startswith(PREFIX)}
    unknown = sorted(set(asked) - set(KEYS))
    if unknown:
        raise RequestError(
            f"annotation {PREFIX + unknown[0]!r:.80}: there is none of that name",
            hint=f"{', '.join(KEYS)} after {PREFIX}",
        )
    mode, joins = _parse("network", asked, _parse_network) or parse_modes(())
    return AttachRequest(
        id=container_id,
        name=Name.parse(name),
        mode=mode,
        joins=_address_first(joins, asked),
        publishes=_parse("publish", asked, _parse_publishes) or (),
        netns=netns,
        owner=OWNER,
    )


def _parse(key: str, asked: Mapping[str, str], parse: Callable[[str], Value]) -> Value | None:
    """Read one annotation; None if it is missing or blank. What is wrong with it is told with its name."""
    text = asked.get(key, "").strip()
    try:
        return parse(text) if text else None
    except RequestError as error:
        raise RequestError(f"annotation {PREFIX}{key}: {error.message}", hint=error.hint) from error


def _parse_network(text: str) -> tuple[Mode, tuple[Join, ...]]:
    mode, joins = parse_modes(tuple([each.strip() for each in text.split(",")]))
    if mode.kind in ELSEWHERE:
        raise RequestError(f"{mode}: is the runtime's to give", hint=ELSEWHERE[mode.kind])
    return mode, joins


def _parse_publishes(text: str) -> tuple[Publish, ...]:
    return tuple([Publish.parse(spec) for spec in text.replace(",", " ").split()])


def _address_first(joins: tuple[Join, ...], asked: Mapping[str, str]) -> tuple[Join, ...]:
    """Lay the addresses that are asked for on the first network. Raises RequestError if there is none."""
    found = (_parse("ip", asked, _of_version(4)), _parse("ip6", asked, _of_version(6)))
    addresses = tuple([address for address in found if address is not None])
    mac = _parse("mac", asked, Mac.parse)
    if not addresses and mac is None:
        return joins
    if not joins:
        raise RequestError(f"annotations {PREFIX}ip, ip6 and mac: need a network to have them on")
    return (joins[0].replace(addresses=addresses, mac=mac), *joins[1:])


def _of_version(version: int) -> Callable[[str], Address]:
    def parse(text: str) -> Address:
        address = Address.parse(text)
        if address.version != version:
            raise RequestError(f"{address} is not an IPv{version} address")
        return address

    return parse
