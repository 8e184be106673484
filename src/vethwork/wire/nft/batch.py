"""What every change of nf_tables needs: the batch that it travels in, and whether the ruleset has been flushed.

Sources: include/uapi/linux/netfilter/nfnetlink.h and nf_tables.h. Numbers are in network order.

Theory. Changes travel in a batch, one datagram between a BEGIN and an END, and happen all at once or not at all.
"""

from __future__ import annotations

from vethwork.model.ruleset import TABLE
from vethwork.wire.netlink import HEADER, NLM_F_ACK, NLM_F_REQUEST, attributes, string
from vethwork.wire.nft.sets import SUBSYSTEM, message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from vethwork.model.ruleset import Landmark
    from vethwork.wire.netlink import Message
    from vethwork.wire.nft.sets import Request

NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 0x10, 0x11
GETCHAIN = 4  # enum nf_tables_msg_types
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_USE = 1, 3, 6


def pack_batch(requests: Sequence[Request], first: int) -> bytes:
    """The datagram of a batch; BEGIN has the sequence number ``first``, and the requests those that follow.

    Only the last request asks to be acknowledged: the kernel reports every refusal unasked, and acknowledgements of
    many messages would not fit in a socket's buffer.
    """
    edge = bytes(2) + SUBSYSTEM.to_bytes(2, "big")
    parts = [HEADER.pack(20, NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, first, 0) + edge]
    for place, (request, _) in enumerate(requests, 1):
        flags = request.flags | NLM_F_REQUEST | (NLM_F_ACK if place == len(requests) else 0)
        parts.append(
            HEADER.pack(16 + len(request.body), request.type, flags, first + place, 0) + request.body
        )
    parts.append(HEADER.pack(20, NFNL_MSG_BATCH_END, NLM_F_REQUEST, first + len(requests) + 1, 0) + edge)
    return b"".join(parts)


def get_landmark(landmark: Landmark) -> tuple[Message, str]:
    """Ask for the chain by which a table is known that still has its rules."""
    names = string(NFTA_CHAIN_TABLE, TABLE), string(NFTA_CHAIN_NAME, landmark.chain)
    words = f"look at chain {landmark.family} {TABLE} {landmark.chain}"
    return message(GETCHAIN, 0, landmark.family, *names), words


def parse_use(body: bytes) -> int:
    """How many rules a chain has, and how many lead to it, taken together. Raises ValueError."""
    return int.from_bytes(attributes(body, 4).get(NFTA_CHAIN_USE, b""), "big")
