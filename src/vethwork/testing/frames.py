"""Frames as bytes, built field by field: what an honest sender would send, and what an attacker would.

Rules: nothing is checked, so that anything can be said; checksums and lengths are right, so that a receiver drops a frame for
what it says and never for how it is made. Addresses are text. :func:`parse` reads only what tests ask for.

>>> parse(ethernet(BROADCAST, "02:00:00:00:00:01", arp_request("02:00:00:00:00:01", "192.0.2.1", "192.0.2.2")))
arp 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff: 192.0.2.1 > 192.0.2.2
"""

from __future__ import annotations

from struct import pack, unpack_from
from typing import NamedTuple

from vethwork.model.address import Address

ARP, IPV4, IPV6 = 0x0806, 0x0800, 0x86DD  # include/uapi/linux/if_ether.h
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58  # include/uapi/linux/in.h
PROTOCOLS = {ICMP: "icmp", TCP: "tcp", UDP: "udp", ICMPV6: "icmpv6"}
BROADCAST = "ff:ff:ff:ff:ff:ff"
ALL_NODES, ALL_NODES_MAC = "ff02::1", "33:33:00:00:00:01"  # RFC 4291 2.7.1, RFC 2464 7
NO_MAC = "00:00:00:00:00:00"


class Payload(NamedTuple):
    """What goes into an Ethernet frame, and its EtherType."""

    kind: int
    data: bytes


class Frame(NamedTuple):
    """A frame as it was seen. Fields that it does not have are empty or 0.

    ``protocol`` is ``arp``, ``icmp``, ``icmpv6``, ``tcp``, ``udp`` or a number as text. For ICMP ``source_port`` holds the
    type; for ARP it holds the operation, and ``source`` and ``to`` the protocol addresses.
    """

    raw: bytes
    source_mac: str
    to_mac: str
    kind: int
    protocol: str = ""
    source: str = ""
    to: str = ""
    source_port: int = 0
    to_port: int = 0
    data: bytes = b""

    def __repr__(self) -> str:
        head = f"{self.protocol or hex(self.kind)} {self.source_mac} > {self.to_mac}"
        if not self.source:
            return head
        ports = self.protocol in ("tcp", "udp")
        source = f"{self.source} port {self.source_port}" if ports else self.source
        return f"{head}: {source} > {self.to}" + (f" port {self.to_port}" if ports else "")


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _ip(text: str) -> bytes:
    return Address.parse(text).packed


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    data += bytes(len(data) % 2)
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def _transport_checksum(source: str, to: str, protocol: int, data: bytes) -> int:
    """Over the pseudo-header too, which has the same sum in RFC 793 and in RFC 8200 8.1; never 0, which means none."""
    return checksum(_ip(source) + _ip(to) + pack("!IHH", len(data), 0, protocol) + data) or 0xFFFF


def ethernet(to_mac: str, source_mac: str, payload: Payload) -> bytes:
    """A whole frame, padded to 60 bytes."""
    frame = _mac(to_mac) + _mac(source_mac) + pack("!H", payload.kind) + payload.data
    return frame + bytes(max(0, 60 - len(frame)))


def arp_request(sender_mac: str, sender: str, target: str) -> Payload:
    """Who has ``target``? Tell ``sender``. (RFC 826)"""
    return _arp(1, sender_mac, sender, NO_MAC, target)


def arp_reply(sender_mac: str, sender: str, target_mac: str, target: str) -> Payload:
    """``sender`` is at ``sender_mac``."""
    return _arp(2, sender_mac, sender, target_mac, target)


def _arp(operation: int, sender_mac: str, sender: str, target_mac: str, target: str) -> Payload:
    head = pack("!HHBBH", 1, IPV4, 6, 4, operation)
    return Payload(ARP, head + _mac(sender_mac) + _ip(sender) + _mac(target_mac) + _ip(target))


def ip(source: str, to: str, protocol: int, data: bytes, *, hops: int = 64) -> Payload:
    """A packet of the version that its addresses have."""
    if ":" in to:
        head = pack("!IHBB", 6 << 28, len(data), protocol, hops)
        return Payload(IPV6, head + _ip(source) + _ip(to) + data)
    head = pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 0, 0, hops, protocol, 0) + _ip(source) + _ip(to)
    return Payload(IPV4, head[:10] + pack("!H", checksum(head)) + head[12:] + data)


def udp(source: str, source_port: int, to: str, to_port: int, data: bytes = b"") -> Payload:
    """A datagram."""
    head = pack("!HHH", source_port, to_port, 8 + len(data))
    total = _transport_checksum(source, to, UDP, head + bytes(2) + data)
    return ip(source, to, UDP, head + pack("!H", total) + data)


def tcp_syn(source: str, source_port: int, to: str, to_port: int) -> Payload:
    """The first segment of a connection."""
    segment = pack("!HHIIBBHHH", source_port, to_port, 1, 0, 5 << 4, 0x02, 65535, 0, 0)
    total = _transport_checksum(source, to, TCP, segment)
    return ip(source, to, TCP, segment[:16] + pack("!H", total) + segment[18:])


def ping(source: str, to: str, *, identifier: int = 1, data: bytes = b"") -> Payload:
    """An echo request of either version."""
    if ":" in to:
        return icmpv6(source, to, 128, pack("!HH", identifier, 1) + data)
    message = pack("!BBHHH", 8, 0, 0, identifier, 1) + data
    return ip(source, to, ICMP, message[:2] + pack("!H", checksum(message)) + message[4:])


def icmpv6(source: str, to: str, kind: int, body: bytes) -> Payload:
    """An ICMPv6 message; its hop limit is 255, as neighbour discovery demands (RFC 4861)."""
    total = _transport_checksum(source, to, ICMPV6, pack("!BBH", kind, 0, 0) + body)
    return ip(source, to, ICMPV6, pack("!BBH", kind, 0, total) + body, hops=255)


def router_advertisement(
    source: str, source_mac: str, prefix: str, *, lifetime: int = 1800, to: str = ALL_NODES
) -> Payload:
    """*I am a router, and this /64 is on your link* (RFC 4861 4.2); ``source`` is link-local."""
    head = pack("!BBHII", 64, 0, lifetime, 0, 0)
    link_address = pack("!BB", 1, 1) + _mac(source_mac)
    on_link_and_autonomous = 0xC0
    information = pack("!BBBBIII", 3, 4, 64, on_link_and_autonomous, 7200, 3600, 0) + _ip(prefix)
    return icmpv6(source, to, 134, head + link_address + information)


def neighbour_advertisement(source: str, to: str, target: str, target_mac: str) -> Payload:
    """*``target`` is at ``target_mac``*, unasked and overriding what was known (RFC 4861 4.4)."""
    override = 0x20000000
    return icmpv6(source, to, 136, pack("!I", override) + _ip(target) + pack("!BB", 2, 1) + _mac(target_mac))


def parse(raw: bytes) -> Frame:
    """Read a frame. One that is cut short, or of a kind not known here, has its Ethernet fields only."""
    frame = Frame(raw, raw[6:12].hex(":"), raw[:6].hex(":"), int.from_bytes(raw[12:14], "big"))
    body = raw[14:]
    if frame.kind == ARP and len(body) >= 28:
        source, to = str(Address.unpack(body[14:18])), str(Address.unpack(body[24:28]))
        return frame._replace(protocol="arp", source_port=body[7], source=source, to=to)
    if frame.kind == IPV4 and len(body) >= 20:
        inner = body[4 * (body[0] & 15) : int.from_bytes(body[2:4], "big")]
        return _parse_inner(frame, body[9], body[12:16], body[16:20], inner)
    if frame.kind == IPV6 and len(body) >= 40:
        inner = body[40 : 40 + int.from_bytes(body[4:6], "big")]
        return _parse_inner(frame, body[6], body[8:24], body[24:40], inner)
    return frame


def _parse_inner(frame: Frame, protocol: int, source: bytes, to: bytes, inner: bytes) -> Frame:
    frame = frame._replace(
        protocol=PROTOCOLS.get(protocol, str(protocol)),
        source=str(Address.unpack(source)),
        to=str(Address.unpack(to)),
        data=inner,
    )
    if protocol in (ICMP, ICMPV6) and inner:
        return frame._replace(source_port=inner[0], data=inner[8:])
    if protocol in (TCP, UDP) and len(inner) >= 8:
        source_port, to_port = unpack_from("!HH", inner)
        skip = 8 if protocol == UDP else 4 * (inner[12] >> 4) if len(inner) > 12 else len(inner)
        return frame._replace(source_port=source_port, to_port=to_port, data=inner[skip:])
    return frame
