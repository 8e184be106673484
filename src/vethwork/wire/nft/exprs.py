"""Rules as the kernel's expressions: small machines that load registers, compare, look up and decide.

Sources: include/uapi/linux/netfilter/nf_tables.h for names and attributes of expressions; the order and the registers
are those of ``nft --debug=netlink``, for ``nft list`` recognizes a statement by the shape of its expressions.

Theory. Sixteen registers of four bytes; number 8 + n names the n-th, number 1 + n the n-th group of four. A statement
loads its selectors side by side from the first register on, and what a map gives is put there too. What a selector
needs to make sense (``ip saddr``: that the packet is IPv4) is compared first, once a rule.

Rules: a selector is a row of a table: what type it has, how it is loaded, what it needs. A statement is compiled by the
function that stands for its kind in a table.
"""

from __future__ import annotations

from struct import Struct

from vethwork.model.address import BITS, Prefix
from vethwork.model.ruleset import Masquerade, Match, Nat, SetMark, Verdict, VerdictMap
from vethwork.wire.netlink import attribute, be32, nested, string
from vethwork.wire.nft.types import (
    NFTA_EXPR_DATA,
    NFTA_EXPR_NAME,
    NFTA_LIST_ELEM,
    TYPES,
    Type,
    number,
    pack_fields,
    pack_value,
    pack_verdict,
    widths,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vethwork.model.ruleset import Atom, Rule, Statement, Table

NFTA_META_DREG, NFTA_META_KEY, NFTA_META_SREG = 1, 2, 3
NFTA_CT_DREG, NFTA_CT_KEY, NFTA_CT_DIRECTION = 1, 2, 3
NFTA_FIB_DREG, NFTA_FIB_RESULT, NFTA_FIB_FLAGS = 1, 2, 3
NFTA_PAYLOAD_DREG, NFTA_PAYLOAD_BASE, NFTA_PAYLOAD_OFFSET, NFTA_PAYLOAD_LEN = 1, 2, 3, 4
NFTA_BITWISE_SREG, NFTA_BITWISE_DREG, NFTA_BITWISE_LEN, NFTA_BITWISE_MASK, NFTA_BITWISE_XOR = 1, 2, 3, 4, 5
NFTA_CMP_SREG, NFTA_CMP_OP, NFTA_CMP_DATA = 1, 2, 3
NFTA_LOOKUP_SET, NFTA_LOOKUP_SREG, NFTA_LOOKUP_DREG, NFTA_LOOKUP_SET_ID, NFTA_LOOKUP_FLAGS = 1, 2, 3, 4, 5
NFTA_IMMEDIATE_DREG, NFTA_IMMEDIATE_DATA = 1, 2
NFTA_NAT_TYPE, NFTA_NAT_FAMILY, NFTA_NAT_REG_ADDR_MIN, NFTA_NAT_REG_PROTO_MIN = 1, 2, 3, 5

NFT_META_PROTOCOL, NFT_META_MARK, NFT_META_IIFNAME, NFT_META_OIFNAME = 1, 3, 6, 7
NFT_META_NFPROTO, NFT_META_L4PROTO, NFT_META_IIFGROUP = 15, 16, 21
NFT_CT_STATE, NFT_CT_STATUS, NFT_CT_PROTO_DST, NFT_CT_DST_IP, NFT_CT_DST_IP6 = 0, 2, 12, 20, 22
IP_CT_DIR_ORIGINAL = 0
NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_DADDR, NFTA_FIB_F_IIF = 3, 2, 8
NFT_CMP_EQ, NFT_CMP_NEQ = 0, 1
NFT_LOOKUP_F_INV = 1
LINK, NETWORK, TRANSPORT = 0, 1, 2  # enum nft_payload_bases
VERDICT_REGISTER, FIRST_REGISTER, REG32 = 0, 1, 8
NAT_TYPES = {"snat": 0, "dnat": 1}
NAT_FAMILIES = {4: 2, 6: 10}

_U32 = Struct("=I")
# NF_CT_STATE_BIT and IPS_* of include/uapi/linux/netfilter/nf_conntrack_common.h; several words are any of them.
FLAGS = {"ct state": {"established": 2, "related": 4}, "ct status": {"snat": 0x10, "dnat": 0x20}}
RTN = {"unicast": 1, "local": 2}  # include/uapi/linux/rtnetlink.h


class Selector:
    """What a rule can look at: its type, the expression that loads it, and the protocols it supposes.

    ``typeof`` is how nft writes the selector down beside a set that is declared by it (see :func:`typeof_data`).
    """

    __slots__ = ("load", "needs", "type", "typeof")

    def __init__(
        self, kind: Type, load: Callable[[int, int], bytes], *needs: str, typeof: bytes = b""
    ) -> None:
        self.type = kind
        self.load = load
        self.needs = needs
        self.typeof = typeof


def expression(name: str, *data: bytes) -> bytes:
    """One expression of a rule's list."""
    return nested(NFTA_LIST_ELEM, string(NFTA_EXPR_NAME, name), nested(NFTA_EXPR_DATA, *data))


def user_data(kind: int, payload: bytes) -> bytes:
    """One attribute of what nft keeps for itself beside a set: a byte of type, a byte of length, no padding."""
    return bytes((kind, len(payload))) + payload


def _typeof(expression_kind: int, *numbers: int) -> bytes:
    """nft's own words for an expression: its kind (enum expr_types of nftables' expression.h), and its numbers."""
    inner = b"".join([user_data(place, _U32.pack(value)) for place, value in enumerate(numbers)])
    return user_data(0, _U32.pack(expression_kind)) + user_data(1, inner)


def byte_order(types: Sequence[Type]) -> bytes:
    """The NFTA_SET_USERDATA by which ``nft list`` knows in which order the bytes of a key are.

    Without it nft prints every interface name as ``""``. 0 means that each field has its own order, 1 the machine's, 2
    the network's (enum byteorder of nftables' datatype.h).
    """
    order = 0 if len(types) > 1 else 1 if types[0].name == "ifname" else 2
    return user_data(_KEY_BYTE_ORDER, _U32.pack(order))


def typeof_data(texts: Sequence[str]) -> bytes:
    """The NFTA_SET_USERDATA by which ``nft list`` knows that a set was declared ``typeof`` these selectors."""
    selectors = [selector(text) for text in texts]
    fields = b"".join([user_data(place, each.typeof) for place, each in enumerate(selectors)])
    concat = user_data(0, _U32.pack(_EXPR_CONCAT)) + user_data(1, fields)
    return byte_order([each.type for each in selectors]) + user_data(_KEY_TYPEOF, concat)


_KEY_BYTE_ORDER, _KEY_TYPEOF = 0, 3  # enum nftnl_udata_set_types of libnftnl's udata.h
_EXPR_PAYLOAD, _EXPR_META, _EXPR_CONCAT = 7, 9, 13


def _machine_word(name: str, kind: int, words: dict[str, int]) -> Type:
    """A type that holds four bytes in the machine's order."""

    def pack(atom: Atom) -> bytes:
        return _U32.pack(atom) if isinstance(atom, int) else b""

    def parse(text: str) -> int:
        return words[text] if text in words else int(text, 0)

    return Type(name, kind, 4, pack, lambda packed: int(_U32.unpack(packed)[0]), parse)


def _meta(kind: Type, key: int) -> Selector:
    def load(register: int, _: int) -> bytes:
        return expression("meta", be32(NFTA_META_KEY, key), be32(NFTA_META_DREG, register))

    return Selector(kind, load, typeof=_typeof(_EXPR_META, key))


def _ct(kind: Type, key: int) -> Selector:
    def load(register: int, _: int) -> bytes:
        return expression("ct", be32(NFTA_CT_KEY, key), be32(NFTA_CT_DREG, register))

    return Selector(kind, load)


def _original(kind: Type, key: int) -> Selector:
    """What the flow of a packet was sent to, whichever way the packet goes."""
    direction = attribute(NFTA_CT_DIRECTION, bytes((IP_CT_DIR_ORIGINAL,)))

    def load(register: int, _: int) -> bytes:
        return expression("ct", be32(NFTA_CT_KEY, key), be32(NFTA_CT_DREG, register), direction)

    return Selector(kind, load)


def _fib(flags: int) -> Selector:
    def load(register: int, _: int) -> bytes:
        return expression(
            "fib",
            be32(NFTA_FIB_FLAGS, flags),
            be32(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE),
            be32(NFTA_FIB_DREG, register),
        )

    return Selector(_machine_word("fib_addrtype", 38, RTN), load)


def _payload(kind: Type, base: int, offset: int, *needs: str, typeof: bytes = b"") -> Selector:
    def load(register: int, length: int) -> bytes:
        return expression(
            "payload",
            be32(NFTA_PAYLOAD_DREG, register),
            be32(NFTA_PAYLOAD_BASE, base),
            be32(NFTA_PAYLOAD_OFFSET, offset),
            be32(NFTA_PAYLOAD_LEN, length),
        )

    return Selector(kind, load, *needs, typeof=typeof)


def _raw(text: str) -> Selector:
    """``@th,OFFSET,LENGTH``, in bits: a number out of the transport header."""
    base, offset, length = text.split(",")
    if base != "@th" or int(offset) % 8 or int(length) % 8:
        raise ValueError(f"{text}: is not a selector")
    kind = number("integer", 4, int(length) // 8)
    # nft's names of the header: no protocol, no field, PROTO_BASE_TRANSPORT_HDR of nftables' proto.h.
    return _payload(
        kind, TRANSPORT, int(offset) // 8, typeof=_typeof(_EXPR_PAYLOAD, 0, 0, 3, int(offset), int(length))
    )


_V4, _V6 = TYPES["ipv4_addr"], TYPES["ipv6_addr"]

SELECTORS = {
    "arp saddr ip": _payload(_V4, NETWORK, 14, "arp"),
    "ct original ip daddr": _original(_V4, NFT_CT_DST_IP),
    "ct original ip6 daddr": _original(_V6, NFT_CT_DST_IP6),
    "ct original proto-dst": _original(TYPES["inet_service"], NFT_CT_PROTO_DST),
    "ct state": _ct(_machine_word("ct_state", 26, FLAGS["ct state"]), NFT_CT_STATE),
    "ct status": _ct(_machine_word("ct_status", 28, FLAGS["ct status"]), NFT_CT_STATUS),
    "ether saddr": _payload(TYPES["ether_addr"], LINK, 6),
    "ether type": _payload(TYPES["ether_type"], LINK, 12),
    "fib daddr . iif type": _fib(NFTA_FIB_F_DADDR | NFTA_FIB_F_IIF),
    "fib daddr type": _fib(NFTA_FIB_F_DADDR),
    "icmpv6 type": _payload(TYPES["icmpv6_type"], TRANSPORT, 0, "ip6", "icmpv6"),
    "iifgroup": _meta(_machine_word("devgroup", 35, {}), NFT_META_IIFGROUP),
    "iifname": _meta(TYPES["ifname"], NFT_META_IIFNAME),
    "ip daddr": _payload(_V4, NETWORK, 16, "ip"),
    "ip saddr": _payload(_V4, NETWORK, 12, "ip"),
    "ip6 daddr": _payload(_V6, NETWORK, 24, "ip6"),
    "ip6 saddr": _payload(_V6, NETWORK, 8, "ip6"),
    "meta l4proto": _meta(TYPES["inet_proto"], NFT_META_L4PROTO),
    "meta mark": _meta(_machine_word("mark", 19, {}), NFT_META_MARK),
    "meta nfproto": _meta(TYPES["nf_proto"], NFT_META_NFPROTO),
    "meta protocol": _meta(TYPES["ether_type"], NFT_META_PROTOCOL),
    "oifname": _meta(TYPES["ifname"], NFT_META_OIFNAME),
    "th dport": _payload(TYPES["inet_service"], TRANSPORT, 2),
}

# How each family of tables makes sure of a protocol.
DEPENDENCIES = {
    ("bridge", "arp"): ("ether type", "arp"),
    ("bridge", "icmpv6"): ("meta l4proto", "icmpv6"),
    ("bridge", "ip"): ("meta protocol", "ip"),
    ("bridge", "ip6"): ("meta protocol", "ip6"),
    ("inet", "icmpv6"): ("meta l4proto", "icmpv6"),
    ("inet", "ip"): ("meta nfproto", "ipv4"),
    ("inet", "ip6"): ("meta nfproto", "ipv6"),
}


def selector(text: str) -> Selector:
    """The selector of that spelling. Raises ValueError if there is none."""
    found = SELECTORS.get(text)
    return found if found is not None else _raw(text)


class Compiler:
    """Compiles one rule. ``anonymous`` is asked for an anonymous set of constants, and gives its id in the batch."""

    def __init__(self, table: Table, anonymous: Callable[[Type, tuple[str, ...]], int]) -> None:
        self._table = table
        self._anonymous = anonymous
        self._sure: set[tuple[str, str]] = set()
        self._done: list[bytes] = []

    def compile(self, rule: Rule) -> bytes:
        """The expressions of the rule, ready to be an NFTA_RULE_EXPRESSIONS."""
        for statement in rule.statements:
            _STATEMENTS[type(statement)](self, statement)
        return b"".join(self._done)

    def _emit(self, name: str, *data: bytes) -> None:
        self._done.append(expression(name, *data))

    def _load(self, texts: tuple[str, ...], length: int = 0) -> None:
        """Load the selectors side by side; ``length`` of a single one's bytes, if not all of them."""
        selectors = [selector(text) for text in texts]
        for each in selectors:
            for protocol in each.needs:
                fact = DEPENDENCIES[self._table.family, protocol]
                if fact not in self._sure:
                    self.match(Match((fact[0],), fact[1]))
        at = 0
        for each, width in zip(selectors, widths([each.type for each in selectors]), strict=True):
            self._done.append(each.load(_register(at), length or each.type.length))
            at += (width + 3) // 4

    def _lookup(self, name: str, *data: bytes) -> None:
        self._emit("lookup", string(NFTA_LOOKUP_SET, name), be32(NFTA_LOOKUP_SREG, FIRST_REGISTER), *data)

    def _compare(self, packed: bytes, *, negate: bool) -> None:
        self._emit(
            "cmp",
            be32(NFTA_CMP_SREG, FIRST_REGISTER),
            be32(NFTA_CMP_OP, NFT_CMP_NEQ if negate else NFT_CMP_EQ),
            nested(NFTA_CMP_DATA, pack_value(packed)),
        )

    def _mask(self, packed: bytes) -> None:
        self._emit(
            "bitwise",
            be32(NFTA_BITWISE_SREG, FIRST_REGISTER),
            be32(NFTA_BITWISE_DREG, FIRST_REGISTER),
            be32(NFTA_BITWISE_LEN, len(packed)),
            nested(NFTA_BITWISE_MASK, pack_value(packed)),
            nested(NFTA_BITWISE_XOR, pack_value(bytes(len(packed)))),
        )

    def match(self, match: Match) -> None:
        """Look the selectors up in a set, or hold the one selector against constants."""
        inverted = (be32(NFTA_LOOKUP_FLAGS, NFT_LOOKUP_F_INV),) if match.negate else ()
        value = match.value
        if not isinstance(value, str):
            (text,) = match.selectors
            identity = self._anonymous(selector(text).type, value)
            self._load(match.selectors)
            self._lookup(ANONYMOUS, be32(NFTA_LOOKUP_SET_ID, identity), *inverted)
        elif value.startswith("@"):
            self._load(match.selectors)
            self._lookup(value[1:], *inverted)
        else:
            self._match_constant(match, match.selectors[0], value)

    def _match_constant(self, match: Match, text: str, value: str) -> None:
        kind = selector(text).type
        if text in FLAGS:
            self._load(match.selectors)
            self._mask(kind.pack(sum([FLAGS[text][word] for word in value.split(",")])))
            self._compare(bytes(4), negate=True)
            return
        atom = kind.parse(value)
        packed = pack_fields((kind,), (atom,))[0]
        mask = kind.pack(kind.parse(match.mask)) if match.mask else b""
        if isinstance(atom, Prefix) and atom.length > 0 and atom.length % 8 == 0:
            packed = packed[: atom.length // 8]  # whole bytes are looked at without a mask, as nft does it
        elif isinstance(atom, Prefix):
            bits = BITS[atom.version]
            mask = ((1 << bits) - (1 << bits - atom.length)).to_bytes(bits // 8, "big")
        self._load(match.selectors, len(packed))
        if mask:
            self._mask(mask)
        self._compare(packed, negate=match.negate)
        if not match.negate:
            self._sure.add((text, value))

    def verdict(self, verdict: Verdict) -> None:
        """Decide."""
        data = nested(NFTA_IMMEDIATE_DATA, pack_verdict(verdict.word))
        self._emit("immediate", be32(NFTA_IMMEDIATE_DREG, VERDICT_REGISTER), data)

    def verdict_map(self, statement: VerdictMap) -> None:
        """Let a map decide."""
        self._load(statement.selectors)
        self._lookup(statement.map, be32(NFTA_LOOKUP_DREG, VERDICT_REGISTER))

    def nat(self, nat: Nat) -> None:
        """Rewrite by what a map gives: the address in the first registers, the port, if any, behind it."""
        self._load(nat.selectors)
        self._lookup(nat.map, be32(NFTA_LOOKUP_DREG, FIRST_REGISTER))
        has_port = len(self._table.set_named(nat.map).data) > 1
        self._emit(
            "nat",
            be32(NFTA_NAT_TYPE, NAT_TYPES[nat.kind]),
            be32(NFTA_NAT_FAMILY, NAT_FAMILIES[nat.version]),
            be32(NFTA_NAT_REG_ADDR_MIN, FIRST_REGISTER),
            be32(NFTA_NAT_REG_PROTO_MIN, _register(BITS[nat.version] // 32)) if has_port else b"",
        )

    def set_mark(self, statement: SetMark) -> None:
        """Put a mark on the packet."""
        value = nested(NFTA_IMMEDIATE_DATA, pack_value(_U32.pack(statement.mark)))
        self._emit("immediate", be32(NFTA_IMMEDIATE_DREG, FIRST_REGISTER), value)
        self._emit("meta", be32(NFTA_META_KEY, NFT_META_MARK), be32(NFTA_META_SREG, FIRST_REGISTER))

    def masquerade(self, _: Masquerade) -> None:
        """Rewrite the source to the outgoing interface's address."""
        self._emit("masq")


ANONYMOUS = "__set%d"
"""The name of an anonymous set: the kernel puts the number in (nf_tables_set_alloc_name)."""

_STATEMENTS: dict[type[Statement], Callable[[Compiler, object], None]] = {
    Match: Compiler.match,  # type: ignore[dict-item]
    Verdict: Compiler.verdict,  # type: ignore[dict-item]
    VerdictMap: Compiler.verdict_map,  # type: ignore[dict-item]
    Nat: Compiler.nat,  # type: ignore[dict-item]
    SetMark: Compiler.set_mark,  # type: ignore[dict-item]
    Masquerade: Compiler.masquerade,  # type: ignore[dict-item]
}


def _register(at: int) -> int:
    """The number of the register ``at`` words behind the first; nft names whole groups where it can."""
    return REG32 + at if at % 4 else FIRST_REGISTER + at // 4
