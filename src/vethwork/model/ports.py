"""Published ports, and the text that asks for them.

Rules: a :class:`Publish` is one contiguous range of host ports onto a range of container ports of the same size; a
single port is a range of one. ``host_ip`` None means every address of the host, of both families; 0.0.0.0 and :: mean
every one of their own.
"""

from __future__ import annotations

from vethwork.errors import RequestError
from vethwork.model.address import Address
from vethwork.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
"""IP protocol numbers (IANA "Assigned Internet Protocol Numbers")."""


class Publish(Record):
    """A range of host ports that leads to a range of a container's ports.

    Ports are 1 to 65535; ``host_port`` 0 asks for one to be chosen (only for a range of one). ``count`` is the
    number of ports, at least 1.
    """

    protocol: str
    host_ip: Address | None
    host_port: int
    container_port: int
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read Docker's ``[[IP:]HOST[-LAST]:]CONTAINER[-LAST][/PROTOCOL]``. Raises RequestError.

        >>> str(Publish.parse("127.0.0.1:8080:80"))
        '127.0.0.1:8080:80/tcp'
        """
        ports, slash, protocol = text.partition("/")
        host_ip, rest = _split_host(text, ports)
        host, colon, container = rest.rpartition(":")
        first, last = _parse_range(text, container)
        host_first, host_last = _parse_range(text, host) if host else (0, last - first)
        if host_last - host_first != last - first:
            raise RequestError(f"publish {text!r:.80}: the two ranges differ in size")
        if colon and not host and host_ip is None:
            raise RequestError(
                f"publish {text!r:.80}: a port is missing before the colon", hint="as in 8080:80"
            )
        if not host and last > first:
            raise RequestError(
                f"publish {text!r:.80}: a range needs its host ports named",
                hint=f"as in {container}:{container}",
            )
        return cls.check(protocol.lower() if slash else "tcp", host_ip, host_first, first, last - first + 1)

    @classmethod
    def check(
        cls, protocol: str, host_ip: Address | None, host_port: int, container_port: int, count: int = 1
    ) -> Self:
        """Build one from parts that came from outside. Raises RequestError for what cannot be published."""
        if protocol not in PROTOCOLS:
            raise RequestError(f"publish: protocol {protocol!r:.40} is none of {', '.join(PROTOCOLS)}")
        made = cls(protocol, host_ip, host_port, container_port, count)
        for first in (host_port or 1, container_port):
            if not (first >= 1 and count >= 1 and first + count - 1 <= 65535):
                raise RequestError(f"publish {made}: a port is 1 to 65535")
        if not host_port and count > 1:
            raise RequestError(f"publish {made}: a range needs its host ports named")
        if host_ip is None or host_ip.is_any:
            return made
        if host_ip == Address(6, 1):
            raise RequestError(
                f"publish {made}: the kernel cannot lead ::1 to a container (IPv6 has no route_localnet)",
                hint="publish on 127.0.0.1, or on an address of the host",
            )
        if host_ip.is_multicast or host_ip.is_mapped or (host_ip.is_link_local and host_ip.version == 6):
            raise RequestError(f"publish {made}: {host_ip} is not an address that a port can be published on")
        return made

    @property
    def last(self) -> int:
        """The last host port of the range."""
        return self.host_port + self.count - 1

    @property
    def shifted(self) -> bool:
        """Whether a packet's port number changes on its way in."""
        return self.host_port != self.container_port

    @property
    def versions(self) -> tuple[int, ...]:
        """The IP versions it is asked for on."""
        return (4, 6) if self.host_ip is None else (self.host_ip.version,)

    def overlaps(self, other: Publish) -> bool:
        """Tell whether a packet could mean either: the same protocol, a common port, and a common address."""
        return (
            self.protocol == other.protocol
            and self.host_port <= other.last
            and other.host_port <= self.last
            and any(
                self.host_ip in (None, Address(version, 0), other.host_ip)
                or other.host_ip in (None, Address(version, 0))
                for version in self.versions
                if version in other.versions
            )
        )

    def __str__(self) -> str:
        def spell(first: int) -> str:
            return f"{first}-{first + self.count - 1}" if self.count > 1 else str(first)

        host = (
            ""
            if self.host_ip is None
            else f"[{self.host_ip}]:"
            if self.host_ip.version == 6
            else f"{self.host_ip}:"
        )
        return f"{host}{spell(self.host_port)}:{spell(self.container_port)}/{self.protocol}"


class Taken:
    """Ranges that are taken, found by what they have in common with another: a look-up, however many there are."""

    def __init__(self) -> None:
        self._single: dict[tuple[str, int], list[Publish]] = {}
        self._ranges: list[Publish] = []
        self._all: list[Publish] = []

    def add(self, publish: Publish) -> None:
        """Take a range."""
        self._all.append(publish)
        if publish.count == 1:
            self._single.setdefault((publish.protocol, publish.host_port), []).append(publish)
        else:
            self._ranges.append(publish)

    def overlap(self, publish: Publish) -> Publish | None:
        """One of those that a range overlaps; None if there is none."""
        near = self._all
        if publish.count == 1:
            near = [*self._single.get((publish.protocol, publish.host_port), ()), *self._ranges]
        return next((other for other in near if publish.overlaps(other)), None)


def merged(publishes: Iterable[Publish]) -> tuple[Publish, ...]:
    """The same ports, with neighbours as one range: that is one element in the ruleset, however long it is.

    >>> [str(each) for each in merged([Publish("tcp", None, 81, 81), Publish("tcp", None, 80, 80)])]
    ['80-81:80-81/tcp']
    """
    found: list[Publish] = []
    for publish in sorted(dict.fromkeys(publishes), key=_order):
        last = found[-1] if found else None
        if (
            last is not None
            and last.host_port
            and publish
            == last.replace(
                host_port=last.host_port + last.count,
                container_port=last.container_port + last.count,
                count=1,
            )
        ):
            found[-1] = last.replace(count=last.count + 1)
        else:
            found.append(publish)
    return tuple(found)


def _order(publish: Publish) -> tuple[str, str, int, int]:
    return publish.protocol, str(publish.host_ip or ""), publish.host_port, publish.container_port


def _split_host(text: str, ports: str) -> tuple[Address | None, str]:
    """Take the bracketed or dotted host address off the front."""
    if ports.startswith("["):
        inner, bracket, rest = ports[1:].partition("]:")
        if not bracket or ":" not in inner:
            raise RequestError(
                f"publish {text!r:.80}: an IPv6 address goes in brackets", hint="as in [fd00::1]:8080:80"
            )
        return Address.parse(inner), rest
    if ports.count(":") > 2:
        raise RequestError(
            f"publish {text!r:.80}: an IPv6 address goes in brackets", hint="as in [fd00::1]:8080:80"
        )
    if ports.count(":") == 2:
        host, _, rest = ports.partition(":")
        return Address.parse(host), rest
    return None, ports


def _parse_range(text: str, ports: str) -> tuple[int, int]:
    first, dash, last = ports.partition("-")
    for port in (first, last) if dash else (first,):
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
            raise RequestError(
                f"publish {text!r:.80}: {port!r:.40} is not a port, 1 to 65535", hint="as in 8080:80/tcp"
            )
    if dash and int(last) < int(first):
        raise RequestError(f"publish {text!r:.80}: the range {ports} runs backwards")
    return int(first), int(last or first)
