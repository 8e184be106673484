"""The kernel's nf_tables: our tables replaced, their elements changed and listed, each time in one atomic batch.

Theory of a batch (net/netfilter/nfnetlink.c, nfnetlink_rcv_batch). The kernel works through the whole batch inside our
``send`` call, collects what it has to say, and queues it on our socket before the call returns: an error for every
request it refused, and an acknowledgement for every request that asked for one. If anything was refused, nothing is
done. So after ``send`` all answers are there, and are read until there are none, without waiting. An error of the
commit itself, or of the batch as a whole, bears the number of the batch's first message. More errors than fit in the
buffer (ENOBUFS) lose the last ones; we tell the first.

Rules: nothing here knows which sets there are or what they are for; how a set is made is asked of the kernel, once a
socket. Most changes are of elements alone: what makes and reads whole tables is loaded by the first who asks for it. The
generation of the ruleset is not asserted (NFNL_BATCH_GENID), so that what other programs do to their tables does not make our
batches fail. A batch that tables refuse because another socket owns them is handed to that one's process
(``kernel.ownership``); what only reads needs no owner.
"""

from __future__ import annotations

import os
from errno import EAGAIN, EBADMSG, ENOBUFS, ENOENT, EOPNOTSUPP, EPERM
from time import sleep

from vethwork.errors import KernelRefused
from vethwork.kernel.netlink import (
    NETLINK_NETFILTER,
    SEND_BUFFER_BYTES,
    SO_SNDBUFFORCE,
    NetlinkSocket,
)
from vethwork.model.ruleset import TABLE
from vethwork.wire.netlink import NLMSG_ERROR, parse_error, split
from vethwork.wire.nft.batch import get_landmark, pack_batch, parse_use
from vethwork.wire.nft.sets import (
    Layout,
    change_elements,
    get_set,
    layouts_of,
    list_elements,
    parse_elements,
    parse_set,
    parse_tallies,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from vethwork.kernel.table_owner import Owner, Way
    from vethwork.model.ruleset import Atom, Element, Landmark, Table
    from vethwork.model.state import Tally
    from vethwork.wire.nft.chains import BaseChain
    from vethwork.wire.nft.sets import Request

SOL_SOCKET, MSG_DONTWAIT = 1, 0x40
SMALL_BATCH = 1 << 16
"""What fits in a socket's send buffer everywhere; for more, the buffer is made larger first."""


class RulesetMissing(KernelRefused):
    """A table or a set that a change needs is not there: somebody flushed the ruleset. Load it, and change again."""


class TablesOwned(KernelRefused):
    """The tables are another socket's to change."""


OWNERS: dict[str, Owner] = {}
"""The owners in this process, by the path at which other processes find them."""
PAUSES = (0.0, 0.0, 0.001, 0.01, 0.1, 0.5)
"""Seconds between looks for the owner: one that is ending lets go of its tables a little after it is deaf."""


class NftSocket(NetlinkSocket):
    """A socket to nf_tables, in the namespace it is made in.

    ``owner_path`` is where the owner of our tables is found, if they have one: it is asked to change those that refuse this
    socket or, if it is in this process, any. ``flags`` are those of the tables that this socket makes.
    """

    def __init__(self, owner_path: str = "", flags: int = 0) -> None:
        """Raises KernelRefused where the kernel was built without netfilter's netlink."""
        self._owner_path = owner_path
        self._far = self._find_owner() if owner_path and os.path.exists(owner_path) else None
        self._flags = flags
        self._stood: list[bytes] = []
        try:
            super().__init__(NETLINK_NETFILTER)
        except OSError as error:
            hint = "the kernel needs CONFIG_NETFILTER_NETLINK"
            raise KernelRefused("open a netfilter socket", error.errno or 0, hint=hint) from error
        self._layouts: dict[tuple[str, str], Layout] = {}
        self._has_room = False

    def replace(self, tables: Iterable[Table], elements: Iterable[Element]) -> None:
        """Make the tables and their elements what is said and nothing else. Raises KernelRefused; then nothing changed."""
        from vethwork.wire.nft.tables import replace_tables

        tables, elements = tuple(tables), tuple(elements)
        self._batch(lambda flags: replace_tables(tables, elements, flags))
        self._layouts.update(layouts_of(tables))

    def adopt(self, tables: Iterable[Table]) -> None:
        """Own tables that were owned by a socket which is closed. Raises KernelRefused."""
        from vethwork.wire.nft.tables import adopt_tables

        requests = adopt_tables(tables, self._flags)
        self._batch(lambda _: requests)

    def remove(self, tables: Iterable[Table]) -> None:
        """Remove the tables; those that are gone already are fine. Raises KernelRefused."""
        from vethwork.wire.nft.tables import remove_tables

        requests = remove_tables(tables)
        self._batch(lambda _: requests)

    def change(
        self, deletes: Iterable[Element], adds: Iterable[Element], landmarks: tuple[Landmark, ...] = ()
    ) -> None:
        """Delete elements and add others, all at once. To delete what is gone, or to add what is there, is fine.

        Raises RulesetMissing if a table or set of ``adds`` is gone, or one of ``landmarks`` was flushed; where there are
        no ``adds``, nothing is left to delete.
        Raises KernelRefused otherwise, EEXIST for a key of a map that leads elsewhere already. Then nothing changed.
        """
        deletes, adds = tuple(deletes), tuple(adds)
        if adds and landmarks and self._owner is None and not self.stands(landmarks):
            raise RulesetMissing("look for the rules", ENOENT)
        try:
            self._learn((*deletes, *adds))
            requests = change_elements(self._layouts, deletes, adds)
            self._batch(lambda _: requests)
        except KernelRefused as error:
            if error.errno != ENOENT:
                raise
            self._change_surely(deletes, adds)

    def _change_surely(self, deletes: tuple[Element, ...], adds: tuple[Element, ...]) -> None:
        """Change where some of ``deletes`` are gone, or the sets themselves.

        What is to be deleted is added first: that does nothing where it is there, and then it is there, even within
        one batch. (From Linux 6.3 on NFT_MSG_DESTROYSETELEM would say it in a word.)
        """
        self._layouts.clear()
        once = {(each.family, each.set, each.key): each for each in deletes if self._is_there(each)}
        deletes = tuple(once.values())
        try:
            self._learn(adds)
            requests = change_elements(self._layouts, (), deletes)
            requests += change_elements(self._layouts, deletes, adds)
            self._batch(lambda _: requests)
        except KernelRefused as error:
            if error.errno != ENOENT:
                raise
            raise RulesetMissing(error.doing, error.errno, error.extack) from error

    def _is_there(self, element: Element) -> bool:
        try:
            self._learn((element,))
        except KernelRefused as error:
            if error.errno != ENOENT:
                raise
            return False
        return True

    def _learn(self, elements: Iterable[Element]) -> None:
        """Ask the kernel how the elements' sets are made, where it is not known yet. Raises KernelRefused."""
        for element in elements:
            where = element.family, element.set
            if where not in self._layouts:
                words = f"look at set {element.family} {TABLE} {element.set}"
                (body, *_) = self.ask(get_set(element.family, TABLE, element.set), words)
                self._layouts[where] = Layout(element.family, TABLE, parse_set(body))

    def elements(self, table: Table, name: str) -> tuple[Element, ...]:
        """The elements of a set. Raises KernelRefused, ENOENT if the set is not there."""
        return parse_elements(*self._list(table, name))

    def tallies(self, table: Table, name: str) -> dict[tuple[Atom, ...], Tally]:
        """What a set that counts has counted, by key. Raises KernelRefused, ENOENT if the set is not there."""
        return parse_tallies(*self._list(table, name))

    def _list(self, table: Table, name: str) -> tuple[Layout, list[bytes]]:
        layout = Layout(table.family, table.name, table.set_named(name))
        return layout, self.dump(list_elements(layout), f"list set {layout.words}")

    def comment(self, table: Table) -> str | None:
        """A table's comment, empty if it has none; None if there is no such table. Raises KernelRefused."""
        from vethwork.wire.nft.tables import parse_comment

        body = self._table(table)
        return parse_comment(body) if body is not None else None

    def _table(self, table: Table) -> bytes | None:
        from vethwork.wire.nft.tables import get_table

        try:
            (body, *_) = self.ask(get_table(table), f"look at table {table.family} {table.name}")
        except KernelRefused as error:
            if error.errno != ENOENT:
                raise
            return None
        return body

    def base_chains(self) -> tuple[BaseChain, ...]:
        """Every base chain of every table, ours among them. Raises KernelRefused."""
        from vethwork.wire.nft.chains import list_chains, parse_chain

        listed = [parse_chain(body) for body in self.dump(list_chains(), "list chains")]
        return tuple([chain for chain in listed if chain is not None])

    def is_owned(self, tables: Iterable[Table]) -> bool:
        """Tell whether a socket owns each of the tables, so that nobody else can change them. Raises KernelRefused."""
        from vethwork.wire.nft.tables import OWNED, parse_flags

        bodies = [self._table(table) for table in tables]
        return all(body is not None and parse_flags(body) & OWNED == OWNED for body in bodies)

    def stands(self, landmarks: Iterable[Landmark]) -> bool:
        """Tell, much cheaper than :meth:`is_whole`, whether the tables have not been flushed. Raises KernelRefused."""
        landmarks = tuple(landmarks)
        try:
            bodies = self.transact(list(map(get_landmark, landmarks)))
        except KernelRefused as error:
            if error.errno != ENOENT:
                raise
            return False
        told = [each[4:] for each in bodies]  # less the header, whose generation any change moves on
        if told != self._stood and [parse_use(each) for each in bodies] == [each.rules for each in landmarks]:
            self._stood = told
        return told == self._stood

    def is_whole(self, tables: Iterable[Table]) -> bool:
        """Tell whether the tables were made as they should be, and every chain has all its rules. Raises KernelRefused."""
        return all(self._holds_rules(table) for table in tables)

    def _holds_rules(self, table: Table) -> bool:
        from vethwork.wire.nft.tables import count_rules, fingerprint, list_rules, parse_fingerprint

        made = self._table(table)
        if made is None or parse_fingerprint(made) != fingerprint(table):
            return False
        wanted = {(table.family, table.name, chain.name): len(chain.rules) for chain in table.chains}
        try:
            listed = self.dump(list_rules(table), f"list table {table.family} {table.name}")
        except KernelRefused as error:
            if error.errno != ENOENT:
                raise
            return False
        return count_rules(listed) == wanted

    def _batch(self, make: Callable[[int], Sequence[Request]]) -> None:
        """Do all requests or none. Raises KernelRefused for the first that was refused.

        ``make`` is told the flags that tables which it makes must have.
        """
        for last, pause in enumerate(PAUSES, 1 - len(PAUSES)):
            if pause:
                sleep(pause)
            owner = self._owner
            if owner is not None:
                if self._do(make(owner.flags), owner.carry):
                    return
                self._far = None
            try:
                self._do(make(self._flags), self.exchange)
            except TablesOwned:
                if not self._owner_path or not last:
                    raise
                self._far = self._find_owner()
            else:
                return

    def _do(self, requests: Sequence[Request], carry: Callable[[bytes], Iterable[bytes] | None]) -> bool:
        """Send a batch on one of its ways; False if that leads nowhere. Raises KernelRefused."""
        if not requests:
            return True
        first = self._sequence + 1
        self._sequence += len(requests) + 2
        said = carry(pack_batch(requests, first))
        if said is not None:
            _judge(requests, first, _parse_answers(said))
        return said is not None

    def _find_owner(self) -> Way | None:
        """The way to the owner, if one listens. To be refused by the kernel first takes much longer: it waits for RCU."""
        from vethwork.kernel.table_owner import Way  # few processes have an owner to ask

        way = Way(self._owner_path)
        return way if way.is_open() else None

    @property
    def _owner(self) -> Owner | Way | None:
        """Who owns the tables, as far as is known."""
        near = OWNERS.get(self._owner_path)
        return near if near is not None and near.owns else self._far

    def exchange(self, packet: bytes) -> Iterator[bytes]:
        """Send a batch as it stands, and give the datagrams that the kernel answers. Raises KernelRefused."""
        self._send(packet)
        yield from self._answers()

    def _send(self, packet: bytes) -> None:
        try:
            if len(packet) > SMALL_BATCH and not self._has_room:
                self._socket.setsockopt(SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER_BYTES)
                self._has_room = True
            self._socket.send(packet)
        except OSError as error:
            raise KernelRefused(
                f"send a batch of {len(packet)} bytes to nf_tables", error.errno or 0
            ) from error

    def _answers(self) -> Iterator[bytes]:
        """What is queued on the socket."""
        while True:
            try:
                yield self._receive(MSG_DONTWAIT)
            except OSError as error:
                if error.errno == EAGAIN:
                    return
                if error.errno != ENOBUFS:  # told once, before what is queued can be read
                    raise


def _parse_answers(packets: Iterable[bytes]) -> Iterator[tuple[int, int, str]]:
    """What the kernel answered a batch: sequence number, errno (0 acknowledges), explanation."""
    for packet in packets:
        for kind, flags, sequence, body in split(packet):
            if kind == NLMSG_ERROR:
                yield sequence, *parse_error(body, flags)


def _judge(requests: Sequence[Request], first: int, answers: Iterable[tuple[int, int, str]]) -> None:
    """What became of a batch. Raises KernelRefused for the first request that was refused."""
    refused: KernelRefused | None = None
    done = False
    for sequence, errno, extack in answers:
        place = sequence - first
        if errno and refused is None and 0 <= place <= len(requests) + 1:
            refused = _refusal(requests, place - 1, errno, extack)
        done = not errno and place == len(requests)
        if done:  # the last thing that the kernel says
            break
    if refused is not None:
        raise refused
    if not done:
        raise KernelRefused(str(requests[-1][1]), EBADMSG, "the kernel did not understand the batch")


OWNED_HINT = "the table is owned by a process that does not answer: which 'vethwork serve' is it?"
_BATCH_HINTS = {
    EOPNOTSUPP: "the kernel needs CONFIG_NF_TABLES",
    EPERM: "it takes CAP_NET_ADMIN in this network namespace",
}


def _refusal(requests: Sequence[Request], place: int, errno: int, extack: str) -> KernelRefused:
    """The error for a request, or for the batch as a whole where ``place`` is none of them."""
    if not 0 <= place < len(requests):
        whole = f"change nf_tables ({len(requests)} requests, the last: {requests[-1][1]})"
        return KernelRefused(whole, errno, extack, hint=_BATCH_HINTS.get(errno, ""))
    message, doing = requests[place]
    if errno == EPERM:  # without the right to change anything, the batch as a whole is refused
        return TablesOwned(str(doing), errno, extack, hint=OWNED_HINT)
    from vethwork.wire.nft.tables import kernel_options

    options = kernel_options(message) if errno in (ENOENT, EOPNOTSUPP) else ()
    hint = f"the kernel may lack {' or '.join(options)}" if options else ""
    return KernelRefused(str(doing), errno, extack, hint=hint)
