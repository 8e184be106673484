"""nf_tables' tables, chains, sets and rules as messages of one batch; and what the kernel lists back of them.

Sources: include/uapi/linux/netfilter/nf_tables.h. Numbers are in network order.

Theory. Within a batch (``wire.nftbatch``) a thing may be named as soon as a message before has made it; an anonymous set is
named by an id of the batch.

Rules: functions here give messages, each with words that say what it does; the kernel's refusals are told by them. Elements
are ``wire.nftsets``'s, the insides of rules ``wire.nftexpr``'s. Most changes are of elements alone, and load nothing of this.
"""

from __future__ import annotations

from zlib import crc32

from vethwork.model.ruleset import TABLE
from vethwork.wire.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    attribute,
    attributes,
    be32,
    nested,
    string,
)
from vethwork.wire.nft.exprs import ANONYMOUS, Compiler, byte_order, typeof_data, user_data
from vethwork.wire.nft.sets import (
    FAMILIES,
    NEWSET,
    NEWSETELEM,
    NFT_DATA_VERDICT,
    NFT_SET_INTERVAL,
    NFT_SET_MAP,
    NFTA_SET_DATA_TYPE,
    NFTA_SET_ELEM_KEY,
    NFTA_SET_ELEM_LIST_ELEMENTS,
    NFTA_SET_EXPR,
    NFTA_SET_FLAGS,
    NFTA_SET_KEY_TYPE,
    NFTA_SET_NAME,
    NFTA_SET_TABLE,
    SUBSYSTEM,
    Layout,
    change_elements,
    layouts_of,
    message,
)
from vethwork.wire.nft.types import (
    NFTA_EXPR_DATA,
    NFTA_EXPR_NAME,
    NFTA_LIST_ELEM,
    concat_number,
    pack_fields,
    pack_value,
    widths,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vethwork.model.ruleset import Chain, Element, Set, Table
    from vethwork.wire.netlink import Message
    from vethwork.wire.nft.sets import Request
    from vethwork.wire.nft.types import Type

NEWTABLE, GETTABLE, DELTABLE, NEWCHAIN, NEWRULE, GETRULE = 0, 1, 2, 3, 6, 7  # enum nf_tables_msg_types
REMOVALS = (2, 5, 8, 11, 14)
"""DELTABLE, DELCHAIN, DELRULE, DELSET and DELSETELEM; the first attribute of each is the table's name."""
NFTA_TABLE_NAME, NFTA_TABLE_FLAGS, NFTA_TABLE_USERDATA = 1, 2, 6
OWNED = 0x2 | 0x4
"""NFT_TABLE_F_OWNER, nobody but the socket that made the table may change it; and NFT_TABLE_F_PERSIST, it outlives that."""
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY = 1, 3, 4, 5
NFTA_CHAIN_TYPE = 7
NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY = 1, 2
NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS = 1, 2, 4
NFTA_SET_KEY_LEN, NFTA_SET_DATA_LEN, NFTA_SET_DESC, NFTA_SET_ID, NFTA_SET_USERDATA = 5, 7, 9, 10, 13
NFTA_SET_DESC_SIZE, NFTA_SET_DESC_CONCAT, NFTA_SET_FIELD_LEN = 1, 2, 1
NFT_SET_ANONYMOUS, NFT_SET_CONSTANT, NFT_SET_CONCAT = 1, 2, 0x80
NFTA_SET_ELEM_LIST_SET_ID = 4
COMMENT, FINGERPRINT = 0, 0x76
"""What is kept beside a table: what nft keeps (NFTNL_UDATA_TABLE_COMMENT), and what is ours, which nft passes over."""
NF_ACCEPT = 1
# enum nf_inet_hooks; those of the bridge family (NF_BR_*) have the same numbers
HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}


def replace_tables(tables: Iterable[Table], elements: Iterable[Element], flags: int = 0) -> list[Request]:
    """Make the tables what is said, with these elements in their sets and no others, whatever they were before."""
    tables = tuple(tables)
    requests: list[Request] = []
    identities = iter(range(1, 1 << 32))
    for table in tables:
        requests += remove_tables((table,))
        requests.append(_new_table(table, flags))
        requests += [new_set(table, each, next(identities)) for each in table.sets]
        requests += [_new_chain(table, each) for each in table.chains]
        for chain in table.chains:
            requests += _new_rules(table, chain, identities)
    return requests + change_elements(layouts_of(tables), (), elements)


def remove_tables(tables: Iterable[Table]) -> list[Request]:
    """Remove the tables with all that is in them. Each is added first, so that one that is gone already is no error."""
    requests: list[Request] = []
    for table in tables:
        removal = message(DELTABLE, 0, table.family, string(NFTA_TABLE_NAME, table.name))
        requests += [_new_table(table), (removal, f"delete table {table.family} {table.name}")]
    return requests


def adopt_tables(tables: Iterable[Table], flags: int) -> list[Request]:
    """Own the tables, if they are there, and were owned by somebody who is gone."""
    requests: list[Request] = []
    for table in tables:
        inner = string(NFTA_TABLE_NAME, table.name), be32(NFTA_TABLE_FLAGS, flags)
        requests.append(
            (message(NEWTABLE, 0, table.family, *inner), f"adopt table {table.family} {table.name}")
        )
    return requests


def _new_table(table: Table, flags: int = 0) -> Request:
    inner = [string(NFTA_TABLE_NAME, table.name)]
    if flags:
        inner.append(be32(NFTA_TABLE_FLAGS, flags))
    kept = user_data(FINGERPRINT, fingerprint(table))
    if table.comment:
        kept = user_data(COMMENT, table.comment.encode() + b"\0") + kept
    inner.append(attribute(NFTA_TABLE_USERDATA, kept))
    return message(NEWTABLE, NLM_F_CREATE, table.family, *inner), f"add table {table.family} {table.name}"


def get_table(table: Table) -> Message:
    """Ask for a table."""
    return message(GETTABLE, 0, table.family, string(NFTA_TABLE_NAME, table.name))


def parse_flags(body: bytes) -> int:
    """The flags of a table, those of :data:`OWNED` among them."""
    return int.from_bytes(attributes(body, 4).get(NFTA_TABLE_FLAGS, b""), "big")


def parse_comment(body: bytes) -> str:
    """A table's comment, as :func:`replace_tables` wrote it; empty if it has none."""
    return _kept(body, COMMENT).rstrip(b"\0").decode(errors="replace")


def parse_fingerprint(body: bytes) -> bytes:
    """Of which chains and sets a table was made, in the words of :func:`fingerprint`; empty if it is not said."""
    return _kept(body, FINGERPRINT)


def fingerprint(table: Table) -> bytes:
    """Four bytes that are others for other chains, rules or sets: those of another release, for one."""
    return crc32(str(table.replace(comment="")).encode()).to_bytes(4, "big")


def _kept(body: bytes, kind: int) -> bytes:
    """What is kept beside a table under a number."""
    kept = attributes(body, 4).get(NFTA_TABLE_USERDATA, b"")
    while len(kept) >= 2:
        if kept[0] == kind:
            return kept[2 : 2 + kept[1]]
        kept = kept[2 + kept[1] :]
    return b""


def is_removal(kind: int, body: bytes) -> bool:
    """Whether a change that the kernel tells of takes something away from a table of our name. Raises ValueError."""
    if kind >> 8 != SUBSYSTEM or kind & 0xFF not in REMOVALS:
        return False
    return attributes(body, 4).get(NFTA_TABLE_NAME) == TABLE.encode() + b"\0"


def new_set(table: Table, declared: Set, identity: int) -> Request:
    """Declare a set or a map."""
    layout = Layout(table.family, table.name, declared)
    flags = (
        NFT_SET_INTERVAL * declared.interval
        | NFT_SET_MAP * bool(declared.data)
        | NFT_SET_CONCAT * layout.ranges
    )
    inner = [
        string(NFTA_SET_TABLE, table.name),
        string(NFTA_SET_NAME, declared.name),
        be32(NFTA_SET_FLAGS, flags),
        be32(NFTA_SET_KEY_TYPE, concat_number(layout.keys)),
        be32(NFTA_SET_KEY_LEN, sum(widths(layout.keys))),
        be32(NFTA_SET_ID, identity),
    ]
    if declared.data:
        kind = NFT_DATA_VERDICT if layout.verdicts else concat_number(layout.data)
        inner.append(be32(NFTA_SET_DATA_TYPE, kind))
        inner.append(be32(NFTA_SET_DATA_LEN, sum(widths(layout.data))))
    if layout.ranges:
        fields = [nested(NFTA_LIST_ELEM, be32(NFTA_SET_FIELD_LEN, each.length)) for each in layout.keys]
        inner.append(nested(NFTA_SET_DESC, nested(NFTA_SET_DESC_CONCAT, *fields)))
    if declared.counter:  # the kernel gives each element one of its own
        inner.append(nested(NFTA_SET_EXPR, string(NFTA_EXPR_NAME, "counter"), nested(NFTA_EXPR_DATA)))
    note = typeof_data(declared.typeof) if declared.typeof else byte_order(layout.keys)
    inner.append(attribute(NFTA_SET_USERDATA, note))
    what = "map" if declared.data else "set"
    return message(
        NEWSET, NLM_F_CREATE, table.family, *inner
    ), f"add {what} {table.family} {table.name} {declared.name}"


def _anonymous_set(table: Table, kind: Type, words: tuple[str, ...], identity: int) -> list[Request]:
    """Declare and fill a set of constants that belongs to the next rule, which finds it by its id."""
    name = (string(NFTA_SET_TABLE, table.name), string(NFTA_SET_NAME, ANONYMOUS))
    what = f"{{ {', '.join(words)} }} in table {table.family} {table.name}"
    made = message(
        NEWSET,
        NLM_F_CREATE,
        table.family,
        *name,
        be32(NFTA_SET_FLAGS, NFT_SET_ANONYMOUS | NFT_SET_CONSTANT),
        be32(NFTA_SET_KEY_TYPE, kind.number),
        be32(NFTA_SET_KEY_LEN, kind.length),
        be32(NFTA_SET_ID, identity),
        nested(NFTA_SET_DESC, be32(NFTA_SET_DESC_SIZE, len(words))),
    )
    keys = [pack_fields((kind,), (kind.parse(word),))[0] for word in words]
    items = [nested(NFTA_LIST_ELEM, nested(NFTA_SET_ELEM_KEY, pack_value(key))) for key in keys]
    filled = message(
        NEWSETELEM,
        NLM_F_CREATE,
        table.family,
        *name,
        be32(NFTA_SET_ELEM_LIST_SET_ID, identity),
        nested(NFTA_SET_ELEM_LIST_ELEMENTS, *items),
    )
    return [(made, f"add the set {what}"), (filled, f"fill the set {what}")]


def _new_chain(table: Table, chain: Chain) -> Request:
    inner = [string(NFTA_CHAIN_TABLE, table.name), string(NFTA_CHAIN_NAME, chain.name)]
    if chain.hook is not None:
        number = be32(NFTA_HOOK_HOOKNUM, HOOKS[chain.hook.hook])
        priority = be32(NFTA_HOOK_PRIORITY, chain.hook.priority & 0xFFFFFFFF)
        inner.append(string(NFTA_CHAIN_TYPE, chain.hook.type))
        inner.append(be32(NFTA_CHAIN_POLICY, NF_ACCEPT))
        inner.append(nested(NFTA_CHAIN_HOOK, number, priority))
    words = f"add chain {table.family} {table.name} {chain.name}"
    return message(NEWCHAIN, NLM_F_CREATE, table.family, *inner), words


def _new_rules(table: Table, chain: Chain, identities: Iterator[int]) -> list[Request]:
    """The rules of a chain in order, each behind the anonymous sets it looks into."""
    requests: list[Request] = []

    def anonymous(kind: Type, words: tuple[str, ...]) -> int:
        identity = next(identities)
        requests.extend(_anonymous_set(table, kind, words, identity))
        return identity

    for place, rule in enumerate(chain.rules, 1):
        expressions = Compiler(table, anonymous).compile(rule)
        request = message(
            NEWRULE,
            NLM_F_CREATE | NLM_F_APPEND,
            table.family,
            string(NFTA_RULE_TABLE, table.name),
            string(NFTA_RULE_CHAIN, chain.name),
            nested(NFTA_RULE_EXPRESSIONS, expressions),
        )
        requests.append(
            (request, f"add rule {place} of chain {table.family} {table.name} {chain.name} ({rule})")
        )
    return requests


def list_rules(table: Table) -> Message:
    """Ask for the rules of a table; to be dumped."""
    return message(GETRULE, 0, table.family, string(NFTA_RULE_TABLE, table.name))


def count_rules(bodies: Iterable[bytes]) -> dict[tuple[str, str, str], int]:
    """How many rules each chain holds, by family, table and chain, in a listing of rules. Raises ValueError."""
    families = {number: family for family, number in FAMILIES.items()}
    counts: dict[tuple[str, str, str], int] = {}
    for body in bodies:
        found = attributes(body, 4)
        names = [found.get(kind, b"").rstrip(b"\0").decode() for kind in (NFTA_RULE_TABLE, NFTA_RULE_CHAIN)]
        where = (families.get(body[0], "") if body else "", names[0], names[1])
        counts[where] = counts.get(where, 0) + 1
    return counts


# What a kernel may be built without. Without the family or the kind of chain it answers EOPNOTSUPP or ENOENT, without
# an expression ENOENT (nft_expr_type_get).
_FAMILY_OPTIONS = {FAMILIES["inet"]: "CONFIG_NF_TABLES_INET", FAMILIES["bridge"]: "CONFIG_NF_TABLES_BRIDGE"}
_EXPRESSION_OPTIONS = {
    "ct": "CONFIG_NFT_CT",
    "fib": "CONFIG_NFT_FIB_INET",
    "masq": "CONFIG_NFT_MASQ",
    "nat": "CONFIG_NFT_NAT",
}


def kernel_options(request: Message) -> tuple[str, ...]:
    """The kernel options without which a request to make a table, a chain or a rule is refused."""
    kind = request.type & 0xFF
    if kind in (NEWTABLE, NEWCHAIN):
        nat = string(NFTA_CHAIN_TYPE, "nat") in request.body
        return (_FAMILY_OPTIONS[request.body[0]], *(("CONFIG_NFT_NAT",) if nat else ()))
    if kind != NEWRULE:
        return ()
    names = {string(NFTA_EXPR_NAME, name): option for name, option in _EXPRESSION_OPTIONS.items()}
    return tuple([option for name, option in names.items() if name in request.body])
