"""Other programs' base chains, as far as it matters to us: where they hook in, and whether they drop what nobody accepted.

Source: include/uapi/linux/netfilter/nf_tables.h, enum nft_chain_attributes.
"""

from __future__ import annotations

from vethwork.model.record import Record
from vethwork.wire.netlink import Message, attributes, parse_text
from vethwork.wire.nft.sets import SUBSYSTEM

NFT_MSG_GETCHAIN = 4
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY = 1, 3, 4, 5
NFTA_HOOK_HOOKNUM = 1
FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}  # NFPROTO_*, include/uapi/linux/netfilter.h
HOOKS = {0: "prerouting", 1: "input", 2: "forward", 3: "output", 4: "postrouting"}  # enum nf_inet_hooks


class BaseChain(Record):
    """A base chain of anybody's. ``drops``: its policy is drop."""

    family: str
    table: str
    name: str
    hook: str
    drops: bool


def list_chains() -> Message:
    """Ask (as a dump) for every chain of every table."""
    return Message(SUBSYSTEM << 8 | NFT_MSG_GETCHAIN, 0, bytes(4))


def parse_chain(body: bytes) -> BaseChain | None:
    """Read a chain; None if it hooks in nowhere. Raises ValueError if it is cut short."""
    if len(body) < 4:
        raise ValueError("chain message is cut short")
    found = attributes(body, 4)
    family = FAMILIES.get(body[0], "")
    if NFTA_CHAIN_HOOK not in found or not family:
        return None
    number = int.from_bytes(attributes(found[NFTA_CHAIN_HOOK]).get(NFTA_HOOK_HOOKNUM, b""), "big")
    return BaseChain(
        family,
        parse_text(found.get(NFTA_CHAIN_TABLE, b"")),
        parse_text(found.get(NFTA_CHAIN_NAME, b"")),
        HOOKS.get(number, ""),
        found.get(NFTA_CHAIN_POLICY) == bytes(4),  # NF_DROP is 0
    )
