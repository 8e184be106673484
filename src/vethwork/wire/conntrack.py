"""Connection tracking's entries as ctnetlink's messages.

Sources: include/uapi/linux/netfilter/nfnetlink_conntrack.h; the bits of a filter are CTA_FILTER_F_* of the kernel's own
net/netfilter/nf_internals.h, which libnetfilter_conntrack relies on too. Numbers are in network order, but those bits
are in the machine's.

Theory. An entry is a pair of tuples: the original one is how the first packet looked before it was rewritten, the reply
one is what an answer looks like to the kernel. Where the destination was rewritten, answers come from elsewhere.

Rules: parsing raises ValueError on what is cut short. A filter is a favour: kernels before 5.8 take no notice of it.
"""

from __future__ import annotations

from vethwork.model.address import Address
from vethwork.model.record import Record
from vethwork.wire.netlink import Message, attribute, attributes, be16, be32, each_attribute, nested, u8, u32

CTNETLINK = 1 << 8  # NFNL_SUBSYS_CTNETLINK
CT_GET, CT_DELETE, CT_GET_STATS = CTNETLINK | 1, CTNETLINK | 2, CTNETLINK | 5  # enum cntl_msg_types
CTA_STATS_GLOBAL_ENTRIES = 1
CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_ID, CTA_ZONE, CTA_FILTER = 1, 2, 12, 18, 25
CTA_TUPLE_IP, CTA_TUPLE_PROTO, CTA_TUPLE_ZONE = 1, 2, 3
CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT = 1, 2, 3
CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS = 1, 2
FILTER_PROTO_NUM, FILTER_PROTO_DST_PORT = 1 << 3, 1 << 5
IP_ATTRIBUTES = {4: (1, 2), 6: (3, 4)}  # CTA_IP_V4_SRC, CTA_IP_V4_DST, CTA_IP_V6_SRC, CTA_IP_V6_DST
FAMILIES = {4: 2, 6: 10}  # AF_INET, AF_INET6
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}  # include/uapi/linux/in.h


class Flow(Record):
    """A conntrack entry. Ports are 0 where the protocol has none; ``identity`` is the kernel's CTA_ID.

    ``zone`` is not 0 where another program keeps an address space of its own.
    """

    protocol: int
    source: Address
    source_port: int
    destination: Address
    destination_port: int
    reply_source: Address
    reply_destination: Address
    identity: int
    zone: int = 0


def count_flows() -> Message:
    """Ask how many entries the namespace has; to be read by :func:`parse_count`."""
    return Message(CT_GET_STATS, 0, bytes(4))


def parse_count(body: bytes) -> int:
    """Read the answer to :func:`count_flows`. Raises ValueError."""
    return _number(attributes(body, 4), CTA_STATS_GLOBAL_ENTRIES)


def list_all_flows() -> Message:
    """Ask for all entries; to be dumped."""
    return Message(CT_GET, 0, bytes(4))


def list_flows(version: int, protocol: int, port: int | None) -> Message:
    """Ask for the entries of an IP version and protocol, and where it can for those sent to a port; to be dumped.

    Not for those sent to an address: for IPv6, kernels (6.18 still) list all others then (ctnetlink_filter_match_tuple
    takes the result of ipv6_addr_cmp, 0 where they are equal, for its opposite).
    """
    flags = FILTER_PROTO_NUM
    inner = [u8(CTA_PROTO_NUM, protocol)]
    if port is not None:
        flags |= FILTER_PROTO_DST_PORT
        inner.append(be16(CTA_PROTO_DST_PORT, port))
    wanted = nested(CTA_TUPLE_ORIG, nested(CTA_TUPLE_PROTO, *inner))
    bits = nested(CTA_FILTER, u32(CTA_FILTER_ORIG_FLAGS, flags), u32(CTA_FILTER_REPLY_FLAGS, 0))
    return Message(CT_GET, 0, bytes((FAMILIES[version], 0, 0, 0)) + wanted + bits)


def delete_flow(flow: Flow) -> Message:
    """Delete exactly this entry; ENOENT if it is gone.

    The id is a hash of the entry's tuple and of where it lies in memory (nf_ct_get_id): another of the same tuple is
    mostly, but not always, told from it.
    """
    source, destination = IP_ATTRIBUTES[flow.source.version]
    ip = attribute(source, flow.source.packed) + attribute(destination, flow.destination.packed)
    protocol = (
        u8(CTA_PROTO_NUM, flow.protocol),
        be16(CTA_PROTO_SRC_PORT, flow.source_port),
        be16(CTA_PROTO_DST_PORT, flow.destination_port),
    )
    tuple_ = nested(CTA_TUPLE_ORIG, nested(CTA_TUPLE_IP, ip), nested(CTA_TUPLE_PROTO, *protocol))
    zone = be16(CTA_ZONE, flow.zone) if flow.zone else b""
    header = bytes((FAMILIES[flow.source.version], 0, 0, 0))
    return Message(CT_DELETE, 0, header + tuple_ + zone + be32(CTA_ID, flow.identity))


def parse_destination(body: bytes) -> tuple[int, int]:
    """The protocol and the original destination port of an entry: a look at it, many times cheaper than reading it."""
    for kind, original in each_attribute(body, 4):
        if kind == CTA_TUPLE_ORIG:
            protocol = attributes(attributes(original).get(CTA_TUPLE_PROTO, b""))
            return _number(protocol, CTA_PROTO_NUM), _number(protocol, CTA_PROTO_DST_PORT)
    raise ValueError("a conntrack entry without a tuple")


def parse_flow(body: bytes) -> Flow:
    """Read one entry of a listing. Raises ValueError."""
    found = attributes(body, 4)
    original, reply = (attributes(found.get(kind, b"")) for kind in (CTA_TUPLE_ORIG, CTA_TUPLE_REPLY))
    source, destination = _addresses(original)
    reply_source, reply_destination = _addresses(reply)
    protocol = attributes(original.get(CTA_TUPLE_PROTO, b""))
    zones = found.get(CTA_ZONE, b"") or original.get(CTA_TUPLE_ZONE, b"") or reply.get(CTA_TUPLE_ZONE, b"")
    if CTA_PROTO_NUM not in protocol or CTA_ID not in found:
        raise ValueError("a conntrack entry without protocol or id")
    return Flow(
        _number(protocol, CTA_PROTO_NUM),
        source,
        _number(protocol, CTA_PROTO_SRC_PORT),
        destination,
        _number(protocol, CTA_PROTO_DST_PORT),
        reply_source,
        reply_destination,
        _number(found, CTA_ID),
        int.from_bytes(zones, "big"),
    )


def _number(found: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(found.get(kind, b""), "big")


def _addresses(found: dict[int, bytes]) -> tuple[Address, Address]:
    packed = attributes(found.get(CTA_TUPLE_IP, b""))
    version = 4 if IP_ATTRIBUTES[4][0] in packed else 6
    source, destination = (packed.get(kind, b"") for kind in IP_ATTRIBUTES[version])
    if not len(source) == len(destination) == {4: 4, 6: 16}[version]:
        raise ValueError("a conntrack tuple without addresses")
    return Address.unpack(source), Address.unpack(destination)
