"""Netlink messages and attributes, as bytes.

Sources: include/uapi/linux/netlink.h, RFC 3549. Everything is in the machine's own byte order and aligned to 4 bytes;
what a subsystem wants in network order says so where it is packed.

Rules: packing never fails on what the model's types let through; parsing raises ValueError on a message that is cut
short, and never reads beyond it.
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError

from vethwork.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER = Struct("=IHHII")  # length, type, flags, sequence, port id
ATTRIBUTE = Struct("=HH")  # length, type

NLM_F_REQUEST, NLM_F_ACK = 0x01, 0x04
NLM_F_DUMP = 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLA_F_NESTED, NLA_TYPE_MASK = 0x8000, 0x3FFF
NLMSGERR_ATTR_MSG = 1


class Message(Record):
    """One request: its type, the flags beside REQUEST and ACK, and its body in bytes (so it is never written down)."""

    type: int
    flags: int
    body: bytes


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    length = 4 + len(payload)
    packed = ATTRIBUTE.pack(length, kind) + payload
    return packed + bytes(-length % 4) if length % 4 else packed


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    payload = b"".join(attributes)
    length = 4 + len(payload)
    packed = ATTRIBUTE.pack(length, kind | NLA_F_NESTED) + payload
    return packed + bytes(-length % 4) if length % 4 else packed


def u8(kind: int, value: int) -> bytes:
    """An attribute of one byte."""
    return attribute(kind, value.to_bytes(1, "little"))


def u32(kind: int, value: int) -> bytes:
    """An attribute of four bytes in the machine's order."""
    return ATTRIBUTE.pack(8, kind) + _U32.pack(value)


def be16(kind: int, value: int) -> bytes:
    """An attribute of two bytes in network order."""
    return attribute(kind, value.to_bytes(2, "big"))


def be32(kind: int, value: int) -> bytes:
    """An attribute of four bytes in network order, as nfnetlink wants its numbers."""
    return ATTRIBUTE.pack(8, kind) + value.to_bytes(4, "big")


def string(kind: int, text: str) -> bytes:
    """An attribute of text that ends with a NUL."""
    return attribute(kind, text.encode() + b"\0")


_U32 = Struct("=I")


def frame(message: Message, sequence: int, *, acknowledge: bool) -> bytes:
    """A message with its header, ready to send. The kernel tells of a refusal in any case (netlink_rcv_skb)."""
    flags = message.flags | (NLM_F_REQUEST | NLM_F_ACK if acknowledge else NLM_F_REQUEST)
    return HEADER.pack(16 + len(message.body), message.type, flags, sequence, 0) + message.body


def split(packet: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """The messages of one datagram: type, flags, sequence, body. Raises ValueError if one is cut short."""
    at = 0
    while at + 16 <= len(packet):
        length, kind, flags, sequence, _ = HEADER.unpack_from(packet, at)
        if length < 16 or at + length > len(packet):
            raise ValueError(f"netlink message of {length} bytes in {len(packet) - at}")
        yield kind, flags, sequence, packet[at + 16 : at + length]
        at += length + -length % 4
    if at < len(packet):
        raise ValueError(f"netlink header of {len(packet) - at} bytes")


def attributes(body: bytes, at: int = 0) -> dict[int, bytes]:
    """The attributes from offset ``at`` on, by type; of several alike, the last. Raises ValueError if one is cut short."""
    return dict(each_attribute(body, at))


def each_attribute(body: bytes, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """The attributes from offset ``at`` on, in order, repeated ones too. Raises ValueError if one is cut short."""
    while at + 4 <= len(body):
        length, kind = ATTRIBUTE.unpack_from(body, at)
        if length < 4 or at + length > len(body):
            raise ValueError(f"netlink attribute of {length} bytes in {len(body) - at}")
        yield kind & NLA_TYPE_MASK, body[at + 4 : at + length]
        at += length + -length % 4


def parse_text(payload: bytes) -> str:
    """Read an attribute's text, which may end with a NUL."""
    return payload.rstrip(b"\0").decode(errors="replace")


def parse_error(body: bytes, flags: int) -> tuple[int, str]:
    """Read an NLMSG_ERROR: the errno (0 means acknowledged) and the kernel's explanation, if it gave one."""
    try:
        code, length = Struct("=iI").unpack_from(body)
    except StructError as error:
        raise ValueError("netlink error message is cut short") from error
    if not flags & NLM_F_ACK_TLVS:
        return -code, ""
    offset = 4 + 16 + (0 if flags & NLM_F_CAPPED else length - 16 + -length % 4)
    return -code, parse_text(attributes(body, offset).get(NLMSGERR_ATTR_MSG, b""))
