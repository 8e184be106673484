"""Addresses as values: IPv4 and IPv6 alike, prefixes, and Ethernet addresses.

Rules: an :class:`Address` is a family and a number, so both families run through the same code. Text is parsed
strictly (no leading zeros, no octal, no scope id) and printed as RFC 5952 says, by inet_pton(3) and inet_ntop(3). The
standard library's ``ipaddress`` costs 4 ms to import, more than a whole attach; the tests hold this module against it.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton  # the C half of `socket`

from vethwork.errors import RequestError
from vethwork.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

BITS = {4: 32, 6: 128}
_FAMILIES = {4: AF_INET, 6: AF_INET6}


class Address(Record):
    """An IP address. ``version`` is 4 or 6; ``value`` the number that its bytes spell in network order."""

    version: int
    value: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``10.0.0.1`` or ``fd00::1``. Raises RequestError for anything else."""
        try:
            return cls.unpack(inet_pton(AF_INET6 if ":" in text else AF_INET, text))
        except (OSError, ValueError):  # ValueError: a NUL, or what is no character
            raise RequestError(f"address {text!r:.80}: not an IPv4 or IPv6 address") from None

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """Read 4 or 16 bytes in network order."""
        return cls({4: 4, 16: 6}[len(packed)], int.from_bytes(packed, "big"))

    @property
    def packed(self) -> bytes:
        """4 or 16 bytes in network order."""
        return self.value.to_bytes(BITS[self.version] // 8, "big")

    @property
    def is_loopback(self) -> bool:
        """127.0.0.0/8 (RFC 1122) or ::1 (RFC 4291)."""
        return self.value >> 24 == 127 if self.version == 4 else self.value == 1

    @property
    def is_any(self) -> bool:
        """0.0.0.0 or ::"""
        return self.value == 0

    @property
    def is_multicast(self) -> bool:
        """224.0.0.0/4 (RFC 5771) or ff00::/8 (RFC 4291); the IPv4 broadcast address counts too."""
        if self.version == 4:
            return self.value >> 28 == 14 or self.value == 0xFFFFFFFF
        return self.value >> 120 == 0xFF

    @property
    def is_link_local(self) -> bool:
        """169.254.0.0/16 (RFC 3927) or fe80::/10 (RFC 4291)."""
        return self.value >> 16 == 0xA9FE if self.version == 4 else self.value >> 118 == 0x3FA

    @property
    def is_mapped(self) -> bool:
        """::ffff:0:0/96 (RFC 4291): an IPv4 address as IPv6 programs spell it, never seen on a wire."""
        return self.version == 6 and self.value >> 32 == 0xFFFF

    def __str__(self) -> str:
        return inet_ntop(_FAMILIES[self.version], self.packed)

    def __lt__(self, other: Address) -> bool:
        return (self.version, self.value) < (other.version, other.value)

    def __add__(self, offset: int) -> Address:
        return Address(self.version, self.value + offset)


class Prefix(Record):
    """A network prefix such as 10.77.0.0/22. ``address`` has no bits beyond ``length``."""

    address: Address
    length: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``10.77.0.0/22``. Raises RequestError; host bits that are set are an error, not masked away."""
        interface = Interface.parse(text)
        prefix = cls(interface.prefix.address, interface.length)
        if interface.address != prefix.address:
            raise RequestError(
                f"subnet {text}: bits are set beyond the prefix", hint=f"did you mean {prefix}?"
            )
        return prefix

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.address.version

    @property
    def size(self) -> int:
        """How many addresses the prefix spans."""
        return int(1 << (BITS[self.address.version] - self.length))

    @property
    def last(self) -> Address:
        """The highest address in it (for IPv4, the broadcast address)."""
        return self.address + (self.size - 1)

    def __contains__(self, address: Address) -> bool:
        first = self.address
        return address.version == first.version and 0 <= address.value - first.value < self.size

    def overlaps(self, other: Prefix) -> bool:
        """Tell whether any address lies in both."""
        return other.address in self or self.address in other

    def __str__(self) -> str:
        return f"{self.address}/{self.length}"


class Interface(Record):
    """An address as an interface holds it, with the length of its subnet's prefix: 10.77.0.5/22."""

    address: Address
    length: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``10.77.0.5/22``. Raises RequestError."""
        host, slash, length = text.partition("/")
        address = Address.parse(host)
        if not slash or not _is_decimal(length, 3) or int(length) > BITS[address.version]:
            raise RequestError(
                f"{text!r:.80}: needs a prefix length of 0 to {BITS[address.version]}",
                hint="as in 10.77.0.0/24",
            )
        return cls(address, int(length))

    @property
    def prefix(self) -> Prefix:
        """The subnet it lies in."""
        host_bits = BITS[self.address.version] - self.length
        return Prefix(
            Address(self.address.version, self.address.value >> host_bits << host_bits), self.length
        )

    def __str__(self) -> str:
        return f"{self.address}/{self.length}"


class Mac(Record):
    """A 48-bit Ethernet address that a container's interface may have: unicast, and not all zero."""

    value: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``02:76:0a:4d:00:02``. Raises RequestError; a group address is refused (IEEE 802, I/G bit)."""
        parts = text.replace("-", ":").split(":")
        if len(parts) != 6 or not all(len(part) == 2 and _is_hex(part) for part in parts):
            raise RequestError(
                f"MAC address {text!r:.80}: not six pairs of hex digits", hint="as in 02:76:0a:4d:00:02"
            )
        value = int("".join(parts), 16)
        if value >> 40 & 1 or value == 0:
            raise RequestError(
                f"MAC address {text}: not a unicast address", hint="clear the lowest bit of the first byte"
            )
        return cls(value)

    @classmethod
    def of(cls, address: Address) -> Self:
        """The address a container's interface gets unless asked otherwise: 02:76 and the IP address's last 32 bits.

        Locally administered, and the same whenever the IP address is the same, so that a neighbour's ARP entry stays
        right when an address passes from one container to the next.
        """
        return cls(0x0276 << 32 | address.value & 0xFFFFFFFF)

    @property
    def packed(self) -> bytes:
        """Six bytes in transmission order."""
        return self.value.to_bytes(6, "big")

    def __str__(self) -> str:
        return self.packed.hex(":")


def _is_decimal(text: str, digits: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= digits and (text == "0" or text[0] != "0")


def _is_hex(text: str) -> bool:
    return bool(text) and all(char in "0123456789abcdefABCDEF" for char in text)
