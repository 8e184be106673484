"""The elements of sets and maps as nfnetlink's messages; and what the kernel lists back of them, and says of their sets.

Sources: include/uapi/linux/netfilter/nf_tables.h (NFTA_SET_*). Numbers are in network order.

Theory. A set of ranges with one field is a red-black tree of boundaries: where a range starts, and where the first key
behind it stands (NFT_SET_ELEM_INTERVAL_END). One with several fields ("pipapo") holds the lowest and the highest key of
each range, and is told how wide its fields are. All other sets are hash tables.

Rules: functions here give messages, each with words that say what it does. Of what is listed, nothing but what we would
have put in is understood: all else raises ValueError.
"""

from __future__ import annotations

from vethwork.model.ruleset import Element, Set
from vethwork.model.state import Tally
from vethwork.wire.netlink import (
    NLM_F_CREATE,
    Message,
    attributes,
    be32,
    each_attribute,
    nested,
    string,
)
from vethwork.wire.nft.types import (
    NFTA_DATA_VALUE,
    NFTA_DATA_VERDICT,
    NFTA_EXPR_DATA,
    NFTA_LIST_ELEM,
    TYPES,
    concat_names,
    pack_fields,
    pack_value,
    pack_verdict,
    unpack_fields,
    unpack_verdict,
    widths,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import TypeAlias

    from vethwork.model.ruleset import Atom, Table
    from vethwork.wire.nft.types import Type

    Request: TypeAlias = tuple[Message, object]
    """A message, and what it does: in words, once ``str`` asks for them."""
    Boundary: TypeAlias = tuple[bytes, bool, tuple[Atom, ...]]

SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES, include/uapi/linux/netfilter/nfnetlink.h
FAMILIES = {"inet": 1, "bridge": 7}  # NFPROTO_*, include/uapi/linux/netfilter.h
NEWSET, GETSET, NEWSETELEM, GETSETELEM, DELSETELEM = 9, 10, 12, 13, 14  # enum nf_tables_msg_types

NFTA_SET_TABLE, NFTA_SET_NAME, NFTA_SET_FLAGS, NFTA_SET_KEY_TYPE, NFTA_SET_DATA_TYPE = 1, 2, 3, 4, 6
NFTA_SET_EXPR = 17
NFT_SET_INTERVAL, NFT_SET_MAP = 4, 8
NFT_DATA_VERDICT = 0xFFFFFF00
NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_ELEM_LIST_SET = 1, 2
NFTA_SET_ELEM_LIST_ELEMENTS = 3
NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_DATA, NFTA_SET_ELEM_FLAGS = 1, 2, 3
NFTA_SET_ELEM_EXPR, NFTA_SET_ELEM_KEY_END = 7, 10
NFTA_COUNTER_BYTES, NFTA_COUNTER_PACKETS = 1, 2
NFT_SET_ELEM_INTERVAL_END = 1

LIST_BYTES = 60_000
"""How long a list of elements may grow: an attribute's length has 16 bits (struct nlattr), with room for one more item."""


def message(kind: int, flags: int, family: str, *inner: bytes) -> Message:
    """A message of nf_tables: its header (struct nfgenmsg) names the family."""
    return Message(SUBSYSTEM << 8 | kind, flags, bytes((FAMILIES[family], 0, 0, 0)) + b"".join(inner))


class _Value:
    """A value in its attribute: of a set's elements each is as long as the other, and so begins and ends alike."""

    __slots__ = ("_head", "_tail")

    def __init__(self, kind: int, types: Sequence[Type]) -> None:
        length = sum(widths(types))
        example = nested(kind, pack_value(bytes(length)))
        self._head, self._tail = example[:8], example[8 + length :]

    def pack(self, packed: bytes) -> bytes:
        return self._head + packed + self._tail


class Layout:
    """What the keys and the data of a set are made of, and so what its elements look like."""

    __slots__ = (
        "_key",
        "_key_end",
        "_value",
        "data",
        "family",
        "head",
        "keys",
        "name",
        "ranges",
        "tree",
        "verdicts",
        "words",
    )

    def __init__(self, family: str, table: str, declared: Set) -> None:
        self.family, self.name = family, declared.name
        self.words = f"{family} {table} {declared.name}"
        self.head = string(NFTA_SET_ELEM_LIST_TABLE, table) + string(NFTA_SET_ELEM_LIST_SET, declared.name)
        self.keys = [TYPES[name] for name in declared.key]
        self.verdicts = declared.data == ("verdict",)
        self.data = [] if self.verdicts else [TYPES[name] for name in declared.data]
        self.tree = declared.interval and len(self.keys) == 1
        self.ranges = declared.interval and not self.tree
        self._key = _Value(NFTA_SET_ELEM_KEY, self.keys)
        self._key_end = _Value(NFTA_SET_ELEM_KEY_END, self.keys)
        self._value = _Value(NFTA_SET_ELEM_DATA, self.data)

    def pack(self, element: Element, *, with_data: bool = True) -> bytes:
        """The one or two items of the kernel's list that stand for an element."""
        low, high = pack_fields(self.keys, element.key)
        key = self._key.pack(low)
        data = self._pack_data(element) if with_data else b""
        if self.tree:
            return nested(NFTA_LIST_ELEM, key, data) + _end_behind(high)
        if self.ranges:  # pipapo wants an end even for a range of one
            return nested(NFTA_LIST_ELEM, key, self._key_end.pack(high), data)
        if low != high:
            raise ValueError(f"{element}: is a range, and {element.set} is no set of ranges")
        return nested(NFTA_LIST_ELEM, key, data)

    def _pack_data(self, element: Element) -> bytes:
        if self.verdicts:
            (word,) = element.data
            return nested(NFTA_SET_ELEM_DATA, pack_verdict(str(word)))
        if not self.data:
            return b""
        low, high = pack_fields(self.data, element.data)
        if low != high:
            raise ValueError(f"{element}: maps to a range")
        return self._value.pack(low)

    def unpack_data(self, payload: bytes | None) -> tuple[Atom, ...]:
        """Read the data attribute of an element; none where the set is no map."""
        if payload is None:
            return ()
        found = attributes(payload)
        if self.verdicts:
            return (unpack_verdict(found.get(NFTA_DATA_VERDICT, b"")),)
        packed = found.get(NFTA_DATA_VALUE, b"")
        return unpack_fields(self.data, packed, packed) if self.data else ()


def _end_behind(high: bytes) -> bytes:
    """The end of a tree's range: the first key that is not in it; nothing, where there is none behind the highest."""
    behind = int.from_bytes(high, "big") + 1
    if behind >> 8 * len(high):
        return b""
    key = nested(NFTA_SET_ELEM_KEY, pack_value(behind.to_bytes(len(high), "big")))
    return nested(NFTA_LIST_ELEM, be32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END), key)


def get_set(family: str, table: str, name: str) -> Message:
    """Ask how a set is declared: the kernel describes it, or answers ENOENT."""
    return message(GETSET, 0, family, string(NFTA_SET_TABLE, table), string(NFTA_SET_NAME, name))


def parse_set(body: bytes) -> Set:
    """Read the kernel's description of a set, but for the selectors it was declared by. Raises ValueError."""
    found = attributes(body, 4)
    flags = int.from_bytes(found.get(NFTA_SET_FLAGS, b""), "big")
    data: tuple[str, ...] = ()
    if flags & NFT_SET_MAP:
        kind = int.from_bytes(found.get(NFTA_SET_DATA_TYPE, b""), "big")
        data = ("verdict",) if kind == NFT_DATA_VERDICT else concat_names(kind)
    key = concat_names(int.from_bytes(found.get(NFTA_SET_KEY_TYPE, b""), "big"))
    name = found.get(NFTA_SET_NAME, b"").rstrip(b"\0").decode()
    return Set(name, key, data, bool(flags & NFT_SET_INTERVAL), counter=NFTA_SET_EXPR in found)


def change_elements(
    layouts: Mapping[tuple[str, str], Layout], deletes: Iterable[Element], adds: Iterable[Element]
) -> list[Request]:
    """Delete elements, then add others. An element of a map is deleted by its key, whatever it maps to.

    ``layouts`` are found by family and name of the set. Deleting what is not there is refused (ENOENT); adding what is
    there already is not, unless it maps to something else (EEXIST).
    """
    requests: list[Request] = []
    for kind, elements in ((DELSETELEM, deletes), (NEWSETELEM, adds)):
        for where, members in _by_set(elements).items():
            requests += _element_messages(kind, layouts[where], members)
    return requests


def layouts_of(tables: Iterable[Table]) -> dict[tuple[str, str], Layout]:
    """The layouts of all sets of the tables, by family and name."""
    return {
        (table.family, each.name): Layout(table.family, table.name, each)
        for table in tables
        for each in table.sets
    }


def _by_set(elements: Iterable[Element]) -> dict[tuple[str, str], list[Element]]:
    groups: dict[tuple[str, str], list[Element]] = {}
    for element in elements:
        groups.setdefault((element.family, element.set), []).append(element)
    return groups


class _ElementWords:
    """What a message about elements does. Spelling an element costs more than packing it, and mostly nobody asks."""

    __slots__ = ("adding", "count", "last", "layout")

    def __init__(self, layout: Layout, last: Element, count: int, *, adding: bool) -> None:
        self.layout, self.last, self.count, self.adding = layout, last, count, adding

    def __str__(self) -> str:
        some = str(self.last) if self.count == 1 else f"{self.count} elements, the last {self.last}"
        return f"{'add' if self.adding else 'delete'} element {self.layout.words} {{ {some} }}"


def _element_messages(kind: int, layout: Layout, members: list[Element]) -> list[Request]:
    """The elements in as few messages as the length of an attribute allows."""
    adding = kind == NEWSETELEM
    requests: list[Request] = []
    items: list[bytes] = []
    size = 0
    for place, member in enumerate(members, 1):
        items.append(layout.pack(member, with_data=adding))
        size += len(items[-1])
        if size > LIST_BYTES or place == len(members):
            packed = nested(NFTA_SET_ELEM_LIST_ELEMENTS, *items)
            filled = message(kind, NLM_F_CREATE if adding else 0, layout.family, layout.head, packed)
            requests.append((filled, _ElementWords(layout, member, len(items), adding=adding)))
            items, size = [], 0
    return requests


def list_elements(layout: Layout) -> Message:
    """Ask for the elements of a set; to be dumped."""
    return message(GETSETELEM, 0, layout.family, layout.head)


def parse_elements(layout: Layout, bodies: Iterable[bytes]) -> tuple[Element, ...]:
    """Read the bodies of a listing of a set. A range of one is read as the one, a tree's ranges come sorted.

    Raises ValueError for what is cut short or is not of the set's types.
    """
    read = _read_tree if layout.tree else _read_items
    items = _items(bodies)
    return tuple([Element(layout.family, layout.name, key, data) for key, data in read(layout, items)])


def parse_tallies(layout: Layout, bodies: Iterable[bytes]) -> dict[tuple[Atom, ...], Tally]:
    """Read from a listing what a set that counts has counted, by key. Raises ValueError as :func:`parse_elements`."""
    items = _items(bodies)
    keys = [key for key, _ in _read_items(layout, items)]
    return dict(zip(keys, map(_tally, items), strict=True))


def _tally(item: dict[int, bytes]) -> Tally:
    expression = attributes(item.get(NFTA_SET_ELEM_EXPR, b""))
    found = attributes(expression.get(NFTA_EXPR_DATA, b""))
    packets, octets = found.get(NFTA_COUNTER_PACKETS, b""), found.get(NFTA_COUNTER_BYTES, b"")
    if len(packets) != 8 or len(octets) != 8:
        raise ValueError("an element of a set that counts has no counter")
    return Tally(int.from_bytes(packets, "big"), int.from_bytes(octets, "big"))


def _items(bodies: Iterable[bytes]) -> list[dict[int, bytes]]:
    return [
        attributes(item)
        for body in bodies
        for kind, elements in each_attribute(body, 4)
        if kind == NFTA_SET_ELEM_LIST_ELEMENTS
        for _, item in each_attribute(elements)
    ]


def _key(item: dict[int, bytes], kind: int = NFTA_SET_ELEM_KEY) -> bytes:
    return attributes(item.get(kind, b"")).get(NFTA_DATA_VALUE, b"")


def _read_items(
    layout: Layout, items: list[dict[int, bytes]]
) -> Iterator[tuple[tuple[Atom, ...], tuple[Atom, ...]]]:
    for item in items:
        low = _key(item)
        high = _key(item, NFTA_SET_ELEM_KEY_END) if layout.ranges and NFTA_SET_ELEM_KEY_END in item else low
        yield unpack_fields(layout.keys, low, high), layout.unpack_data(item.get(NFTA_SET_ELEM_DATA))


def _read_tree(
    layout: Layout, items: list[dict[int, bytes]]
) -> Iterator[tuple[tuple[Atom, ...], tuple[Atom, ...]]]:
    """Pair starts with what comes next: an end, the start of a neighbour, or the end of all keys."""
    length = layout.keys[0].length
    boundaries: list[Boundary] = []
    for item in items:
        flags = int.from_bytes(item.get(NFTA_SET_ELEM_FLAGS, b""), "big")
        is_start = not flags & NFT_SET_ELEM_INTERVAL_END
        data = layout.unpack_data(item.get(NFTA_SET_ELEM_DATA)) if is_start else ()
        boundaries.append((_key(item), is_start, data))
    boundaries.sort(key=lambda boundary: boundary[:2])
    nexts = [int.from_bytes(key, "big") for key, _, _ in boundaries[1:]] + [1 << 8 * length]
    for (low, is_start, data), behind in zip(boundaries, nexts, strict=False):
        if is_start:
            if behind <= int.from_bytes(low, "big"):
                raise ValueError("a set's ranges overlap")
            yield unpack_fields(layout.keys, low, (behind - 1).to_bytes(length, "big")), data
