"""What stands in an nft set: data types, keys of several fields, ranges, and verdicts, as bytes.

Sources: include/uapi/linux/netfilter/nf_tables.h for the attributes and verdict codes. The kernel keeps the number of a
set's type but gives it no meaning; the numbers are nft's own (``enum datatypes`` of nftables' include/datatype.h), and
``nft list`` prints a set by them.

Theory. A key of several fields is a concatenation: each field in network order (words of the machine in its own),
padded with zeros to a multiple of four bytes, the width of a register. A key of one field is not padded.

Rules: a type says how an atom becomes bytes and back; nothing else asks what type it has. A value that does not fit its
type raises ValueError.
"""

from __future__ import annotations

from vethwork.model.address import BITS, Address, Mac, Prefix
from vethwork.model.ruleset import Span
from vethwork.wire.netlink import attribute, attributes, be32, nested, string

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vethwork.model.ruleset import Atom

NFTA_LIST_ELEM = 1
NFTA_EXPR_NAME, NFTA_EXPR_DATA = 1, 2
NFTA_DATA_VALUE, NFTA_DATA_VERDICT = 1, 2
NFTA_VERDICT_CODE, NFTA_VERDICT_CHAIN = 1, 2

# NF_DROP and NF_ACCEPT of include/uapi/linux/netfilter.h, enum nft_verdicts of nf_tables.h
VERDICTS = {"drop": 0, "accept": 1, "jump": 0xFFFFFFFD, "goto": 0xFFFFFFFC, "return": 0xFFFFFFFB}
_VERDICT_WORDS = {code: word for word, code in VERDICTS.items()}


class Type:
    """An nft data type: its number, how many bytes it takes, and how an atom becomes them and back.

    ``width`` is how many it takes as a field of several. ``pack`` gives bytes of another length where the atom does not fit.
    ``parse`` reads a constant of a rule.
    """

    __slots__ = ("length", "name", "number", "pack", "parse", "unpack", "width")

    def __init__(
        self,
        name: str,
        number: int,
        length: int,
        pack: Callable[[Atom], bytes],
        unpack: Callable[[bytes], Atom],
        parse: Callable[[str], Atom] = str,
    ) -> None:
        self.name = name
        self.number = number
        self.length = length
        self.width = length + -length % 4
        self.pack = pack
        self.unpack = unpack
        self.parse = parse


def _pack_name(atom: Atom) -> bytes:
    return atom.encode().ljust(16, b"\0") if isinstance(atom, str) else b""


def _unpack_name(packed: bytes) -> str:
    return packed.rstrip(b"\0").decode(errors="replace")


def _pack_address(atom: Atom) -> bytes:
    return atom.packed if isinstance(atom, Address | Mac) else b""


def _unpack_mac(packed: bytes) -> Mac:
    return Mac(int.from_bytes(packed, "big"))


def _parse_address(text: str) -> Address | Prefix:
    return Prefix.parse(text) if "/" in text else Address.parse(text)


def _parse_number(text: str) -> int:
    return int(text, 0)


def _unpack_number(packed: bytes) -> int:
    return int.from_bytes(packed, "big")


def number(name: str, kind: int, length: int) -> Type:
    """A type that holds a number of ``length`` bytes in network order."""
    bound = 1 << 8 * length

    def pack(atom: Atom) -> bytes:
        return atom.to_bytes(length, "big") if isinstance(atom, int) and 0 <= atom < bound else b""

    return Type(name, kind, length, pack, _unpack_number, _parse_number)


def _words(name: str, kind: int, length: int, words: dict[str, int]) -> Type:
    by_word = {word: value.to_bytes(length, "big") for word, value in words.items()}
    by_value = {packed: word for word, packed in by_word.items()}

    def pack(atom: Atom) -> bytes:
        return by_word.get(atom, b"") if isinstance(atom, str) else b""

    def unpack(packed: bytes) -> Atom:
        return by_value.get(packed) or int.from_bytes(packed, "big")

    return Type(name, kind, length, pack, unpack)


_ETHER_TYPES = {"ip": 0x0800, "arp": 0x0806, "ip6": 0x86DD}  # include/uapi/linux/if_ether.h
_ICMPV6_TYPES = {  # include/uapi/linux/icmpv6.h; the names are nft's
    "mld2-listener-report": 143,
    "nd-neighbor-advert": 136,
    "nd-neighbor-solicit": 135,
    "nd-redirect": 137,
    "nd-router-advert": 134,
    "nd-router-solicit": 133,
}
PROTOCOLS = {"icmp": 1, "icmpv6": 58, "sctp": 132, "tcp": 6, "udp": 17}  # include/uapi/linux/in.h

TYPES = {
    each.name: each
    for each in (
        _words("nf_proto", 2, 1, {"ipv4": 2, "ipv6": 10}),  # include/uapi/linux/netfilter.h
        Type("ipv4_addr", 7, 4, _pack_address, Address.unpack, _parse_address),
        Type("ipv6_addr", 8, 16, _pack_address, Address.unpack, _parse_address),
        Type("ether_addr", 9, 6, _pack_address, _unpack_mac),
        _words("ether_type", 10, 2, _ETHER_TYPES),
        _words("inet_proto", 12, 1, PROTOCOLS),
        number("inet_service", 13, 2),
        _words("icmpv6_type", 29, 1, _ICMPV6_TYPES),
        Type("ifname", 41, 16, _pack_name, _unpack_name),
        number("integer", 4, 16),  # nft's has no width of its own; ours is as wide as an IPv6 address
    )
}
_BY_NUMBER = {each.number: each.name for each in TYPES.values()}
_ADDRESS_VERSIONS = {"ipv4_addr": 4, "ipv6_addr": 6}


def concat_number(types: Sequence[Type]) -> int:
    """The number of a type of several fields: six bits a field (TYPE_BITS of nftables' datatype.h)."""
    value = 0
    for each in types:
        value = value << 6 | each.number
    return value


def concat_names(value: int) -> tuple[str, ...]:
    """Read what :func:`concat_number` gave: the names of the fields' types. Raises ValueError for a type not ours."""
    names: list[str] = []
    while value:
        if value & 0x3F not in _BY_NUMBER:
            raise ValueError(f"nft's type {value & 0x3F}: is not one of ours")
        names.insert(0, _BY_NUMBER[value & 0x3F])
        value >>= 6
    return tuple(names)


def widths(types: Sequence[Type]) -> list[int]:
    """How many bytes each field takes in a key of these fields."""
    if len(types) == 1:
        return [types[0].length]
    return [each.width for each in types]


def pack_fields(types: Sequence[Type], atoms: Sequence[Atom]) -> tuple[bytes, bytes]:
    """The lowest and the highest key that the atoms stand for; the same where none of them is a range."""
    if len(types) != len(atoms):
        raise ValueError(f"{' . '.join(map(str, atoms))}: has {len(atoms)} fields, not {len(types)}")
    if len(types) == 1:
        return _bounds(types[0], atoms[0])
    low = high = b""
    for each, atom in zip(types, atoms, strict=True):
        first, last = _bounds(each, atom)
        low += first.ljust(each.width, b"\0")
        high += last.ljust(each.width, b"\0")
    return low, high


def _bounds(kind: Type, atom: Atom) -> tuple[bytes, bytes]:
    if isinstance(atom, Prefix):
        first, last = kind.pack(atom.address), kind.pack(atom.last)
    elif isinstance(atom, Span):
        first, last = kind.pack(atom.first), kind.pack(atom.last)
    else:
        first = last = kind.pack(atom)
    if len(first) != kind.length or len(last) != kind.length:
        raise ValueError(f"{atom}: is not of nft's type {kind.name}")
    return first, last


def unpack_fields(types: Sequence[Type], low: bytes, high: bytes) -> tuple[Atom, ...]:
    """Read what :func:`pack_fields` gave. A range of one is read as the one."""
    fields: list[Atom] = []
    at = 0
    sizes = widths(types)
    if len(low) != sum(sizes) or len(high) != len(low):
        raise ValueError(f"a set's key of {len(low)} bytes, not {sum(sizes)}")
    for each, width in zip(types, sizes, strict=True):
        first, last = low[at : at + each.length], high[at : at + each.length]
        fields.append(each.unpack(first) if first == last else _unpack_range(each, first, last))
        at += width
    return tuple(fields)


def _unpack_range(kind: Type, first: bytes, last: bytes) -> Atom:
    low, high = int.from_bytes(first, "big"), int.from_bytes(last, "big")
    version = _ADDRESS_VERSIONS.get(kind.name)
    if version is None:
        return Span(low, high)
    host_bits = (low ^ high).bit_length()
    if high - low != (1 << host_bits) - 1:
        raise ValueError(f"{Address(version, low)}-{Address(version, high)}: is not a prefix")
    return Prefix(Address(version, low), BITS[version] - host_bits)


def pack_verdict(word: str) -> bytes:
    """The data attribute of a verdict: ``accept``, ``goto CHAIN``..."""
    verb, _, chain = word.partition(" ")
    code = VERDICTS.get(verb)
    if code is None:
        raise ValueError(f"{word}: is not a verdict")
    target = string(NFTA_VERDICT_CHAIN, chain) if chain else b""
    return nested(NFTA_DATA_VERDICT, be32(NFTA_VERDICT_CODE, code), target)


def unpack_verdict(payload: bytes) -> str:
    """Read what :func:`pack_verdict` gave, without its header."""
    found = attributes(payload)
    word = _VERDICT_WORDS.get(int.from_bytes(found.get(NFTA_VERDICT_CODE, b"\xff"), "big"))
    if word is None:
        raise ValueError("an nft verdict that is not one of ours")
    chain = found.get(NFTA_VERDICT_CHAIN, b"").rstrip(b"\0").decode()
    return f"{word} {chain}" if chain else word


def pack_value(packed: bytes) -> bytes:
    """The data attribute of a plain value."""
    return attribute(NFTA_DATA_VALUE, packed)
