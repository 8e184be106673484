"""Firewall rules as data, and as the nft text that a person would write.

Rules: a *selector* is nft's own spelling of what is looked at (``iifname``, ``ip saddr``); several selectors form nft's
concatenation. ``str()`` of any record here is nft syntax. What the selectors and types mean in bytes is
``wire.nftables``'s business; which rules there are is ``plan.ruleset``'s.
"""

from __future__ import annotations

from vethwork.model.address import Address, Mac, Prefix
from vethwork.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias


TABLE = "vethwork"
"""The name of our tables: one in each family, none beside them."""


class Span(Record):
    """A range of ports, both ends in it."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


if TYPE_CHECKING:
    Atom: TypeAlias = str | int | Address | Prefix | Mac | Span


class Set(Record):
    """A named set, or a map where ``data`` is not empty. ``key`` and ``data`` are nft type names.

    ``interval``: keys may be ranges. ``typeof``: the selectors to declare the key by, where no type name says it.
    ``counter``: each element counts the packets, and their bytes, that were found to be in it.
    """

    name: str
    key: tuple[str, ...]
    data: tuple[str, ...] = ()
    interval: bool = False
    typeof: tuple[str, ...] = ()
    counter: bool = False

    def __str__(self) -> str:
        key = f"typeof {' . '.join(self.typeof)}" if self.typeof else f"type {' . '.join(self.key)}"
        data = f" : {' . '.join(self.data)}" if self.data else ""
        flags = "\n\t\tflags interval" if self.interval else ""
        counter = "\n\t\tcounter" if self.counter else ""
        return f"\t{'map' if self.data else 'set'} {self.name} {{\n\t\t{key}{data}{flags}{counter}\n\t}}\n"


class Match(Record):
    """Go on only if the selectors' value is (or with ``negate`` is not) ``value``.

    ``value`` is ``@set``, or constants in nft's words; several constants form an anonymous set. ``mask``, as nft spells
    it, is laid over the selector first.
    """

    selectors: tuple[str, ...]
    value: str | tuple[str, ...]
    negate: bool = False
    mask: str = ""

    def __str__(self) -> str:
        value = self.value if isinstance(self.value, str) else f"{{ {', '.join(self.value)} }}"
        relation = f"& {self.mask} == " if self.mask else "!= " if self.negate else ""
        return f"{' . '.join(self.selectors)} {relation}{value}"


class Verdict(Record):
    """``accept``, ``drop``, ``return``, ``jump CHAIN`` or ``goto CHAIN``."""

    word: str

    def __str__(self) -> str:
        return self.word


class VerdictMap(Record):
    """Do what the map says for the selectors' value; go on if it says nothing."""

    selectors: tuple[str, ...]
    map: str

    def __str__(self) -> str:
        return f"{' . '.join(self.selectors)} vmap @{self.map}"


class Nat(Record):
    """Rewrite the destination (``dnat``) or source (``snat``) to what the map says; go on if it says nothing.

    The map's data is an address, or an address and a port.
    """

    kind: str
    version: int
    selectors: tuple[str, ...]
    map: str

    def __str__(self) -> str:
        return f"{self.kind} {'ip' if self.version == 4 else 'ip6'} to {' . '.join(self.selectors)} map @{self.map}"


class SetMark(Record):
    """Put a number on the packet, for rules that come later."""

    mark: int

    def __str__(self) -> str:
        return f"meta mark set 0x{self.mark:08x}"


class Masquerade(Record):
    """Rewrite the source to the address of the interface that the packet leaves by."""

    def __str__(self) -> str:
        return "masquerade"


if TYPE_CHECKING:
    Statement: TypeAlias = Match | Verdict | VerdictMap | Nat | SetMark | Masquerade


class Rule(Record):
    """Statements, left to right."""

    statements: tuple[Statement, ...]

    def __str__(self) -> str:
        return " ".join(str(statement) for statement in self.statements)


class Hook(Record):
    """Where a base chain hooks into the kernel; a lower ``priority`` goes first (uapi/linux/netfilter_ipv4.h)."""

    type: str
    hook: str
    priority: int

    def spell(self, family: str) -> str:
        """The line for a table of that family, in which ``filter`` may be another number than elsewhere."""
        # nft takes the name dstnat in prerouting only.
        names = {} if self.hook == "output" else _PRIORITIES[family]
        priority = names.get(self.priority, self.priority)
        return f"type {self.type} hook {self.hook} priority {priority}; policy accept;"


_PRIORITIES = {
    "inet": {-300: "raw", -100: "dstnat", 0: "filter", 100: "srcnat"},
    "bridge": {-200: "filter"},
}


class Chain(Record):
    """Rules in order; a base chain has a ``hook``."""

    name: str
    rules: tuple[Rule, ...]
    hook: Hook | None = None

    def spell(self, family: str) -> str:
        """The chain as it stands in a table of that family."""
        lines = ([self.hook.spell(family)] if self.hook else []) + [str(rule) for rule in self.rules]
        return f"\tchain {self.name} {{\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}\n"


class Table(Record):
    """A table of one family: ``inet`` or ``bridge``. ``comment`` says whose it is."""

    family: str
    name: str
    sets: tuple[Set, ...]
    chains: tuple[Chain, ...]
    comment: str = ""

    def __str__(self) -> str:
        comment = f'\tcomment "{self.comment}"\n\n' if self.comment else ""
        sets, chains = [str(each) for each in self.sets], [each.spell(self.family) for each in self.chains]
        inner = comment + "\n".join(sets + chains)
        return f"table {self.family} {self.name} {{\n{inner}}}\n"

    def set_named(self, name: str) -> Set:
        """The set or map of that name; KeyError if the table has none."""
        return {each.name: each for each in self.sets}[name]


class Landmark(Record):
    """A chain by which a table of a family is known to have its rules: it has so many, and no rule of another leads to it."""

    family: str
    chain: str
    rules: int


class Element(Record):
    """A member of a set, or an entry of a map where ``data`` is not empty."""

    family: str
    set: str
    key: tuple[Atom, ...]
    data: tuple[Atom, ...] = ()

    def __str__(self) -> str:
        data = f" : {' . '.join(map(str, self.data))}" if self.data else ""
        return f"{_spell_key(self.key)}{data}"


def _spell_key(key: tuple[Atom, ...]) -> str:
    """What nft reads: interface names quoted, for some would be numbers to it, or words of its own (even ``tcp``)."""
    words = []
    for atom, behind in zip(key, (*key[1:], None), strict=True):
        if isinstance(atom, str):
            words.append(atom if atom in _PROTOCOLS and _is_port(behind) else f'"{atom}"')
        else:
            words.append(f"{atom:#x}" if isinstance(atom, int) and not _is_port(atom) else str(atom))
    return " . ".join(words)


def _is_port(atom: Atom | None) -> bool:
    return isinstance(atom, Span) or (isinstance(atom, int) and atom <= 0xFFFF)


_PROTOCOLS = {"tcp", "udp", "sctp"}
