"""The kernel's nf_tables: our tables replaced, their elements changed and listed, each time in one atomic batch.

Theory of a batch (net/netfilter/nfnetlink.c, nfnetlink_rcv_batch). The kernel works through the whole batch inside our
``send`` call, collects what it has to say, and queues it on our socket before the call returns: an error for every
request it refused, and an acknowledgement for every request that asked for one. If anything was refused, nothing is
done. So after ``send`` all answers are there, and are read until there are none, without waiting. An error of the
commit itself, or of the batch as a whole, bears the number of the batch's first message. More errors than fit in the
buffer (ENOBUFS) lose the last ones; we tell the first.

Rules: nothing here knows which sets there are or what they are for; how a set is made is asked of the kernel, once a
socket. The generation of the ruleset is not asserted (NFNL_BATCH_GENID), so that what other programs do to their tables
does not make our batches fail.
"""

from __future__ import annotations

from errno import EAGAIN, EBADMSG, ENOBUFS, ENOENT, EOPNOTSUPP, EPERM

from vethwork.errors import KernelRefused
from vethwork.kernel.socket import (
    NETLINK_NETFILTER,
    SEND_BUFFER_BYTES,
    SO_SNDBUFFORCE,
    NetlinkSocket,
)
from vethwork.model.ruleset import TABLE
from vethwork.wire.netlink import NLMSG_ERROR, parse_error, split
from vethwork.wire.nftables import (
    count_rules,
    get_table,
    kernel_options,
    list_rules,
    pack_batch,
    parse_comment,
    remove_tables,
    replace_tables,
)
from vethwork.wire.nftchains import BaseChain, list_chains, parse_chain
from vethwork.wire.nftsets import (
    Layout,
    change_elements,
    get_set,
    layouts_of,
    list_elements,
    parse_elements,
    parse_set,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from vethwork.model.ruleset import Element, Table
    from vethwork.wire.nftsets import Request

SOL_SOCKET, MSG_DONTWAIT = 1, 0x40
SMALL_BATCH = 1 << 16
"""What fits in a socket's send buffer everywhere; for more, the buffer is made larger first."""


class RulesetMissing(KernelRefused):
    """A table or a set that a change needs is not there: somebody flushed the ruleset. Load it, and change again."""


class NftSocket(NetlinkSocket):
    """A socket to nf_tables, in the namespace it is made in."""

    def __init__(self) -> None:
        """Raises KernelRefused where the kernel was built without netfilter's netlink."""
        try:
            super().__init__(NETLINK_NETFILTER)
        except OSError as error:
            hint = "the kernel needs CONFIG_NETFILTER_NETLINK"
            raise KernelRefused("open a netfilter socket", error.errno or 0, hint=hint) from error
        self._layouts: dict[tuple[str, str], Layout] = {}
        self._has_room = False

    def replace(self, tables: Iterable[Table], elements: Iterable[Element]) -> None:
        """Make the tables and their elements what is said and nothing else. Raises KernelRefused; then nothing changed."""
        tables = tuple(tables)
        self._batch(replace_tables(tables, elements))
        self._layouts.update(layouts_of(tables))

    def remove(self, tables: Iterable[Table]) -> None:
        """Remove the tables; those that are gone already are fine. Raises KernelRefused."""
        self._batch(remove_tables(tables))

    def change(self, deletes: Iterable[Element], adds: Iterable[Element]) -> None:
        """Delete elements and add others, all at once. To delete what is gone, or to add what is there, is fine.

        Raises RulesetMissing if a table or set of ``adds`` is gone; where there are none, nothing is left to delete.
        Raises KernelRefused otherwise, EEXIST for a key of a map that leads elsewhere already. Then nothing changed.
        """
        deletes, adds = tuple(deletes), tuple(adds)
        try:
            self._learn((*deletes, *adds))
            self._batch(change_elements(self._layouts, deletes, adds))
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
            self._batch(requests + change_elements(self._layouts, deletes, adds))
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
        layout = Layout(table.family, table.name, table.set_named(name))
        return parse_elements(layout, self.dump(list_elements(layout), f"list set {layout.words}"))

    def comment(self, table: Table) -> str | None:
        """A table's comment, empty if it has none; None if there is no such table. Raises KernelRefused."""
        try:
            (body, *_) = self.ask(get_table(table), f"look at table {table.family} {table.name}")
        except KernelRefused as error:
            if error.errno != ENOENT:
                raise
            return None
        return parse_comment(body)

    def base_chains(self) -> tuple[BaseChain, ...]:
        """Every base chain of every table, ours among them. Raises KernelRefused."""
        listed = [parse_chain(body) for body in self.dump(list_chains(), "list chains")]
        return tuple([chain for chain in listed if chain is not None])

    def is_whole(self, tables: Iterable[Table]) -> bool:
        """Tell whether every chain of the tables is there with as many rules as it should have. Raises KernelRefused."""
        return all(self._holds_rules(table) for table in tables)

    def _holds_rules(self, table: Table) -> bool:
        wanted = {(table.family, table.name, chain.name): len(chain.rules) for chain in table.chains}
        try:
            listed = self.dump(list_rules(table), f"list table {table.family} {table.name}")
        except KernelRefused as error:
            if error.errno != ENOENT:
                raise
            return False
        return count_rules(listed) == wanted

    def _batch(self, requests: Sequence[Request]) -> None:
        """Do all requests or none. Raises KernelRefused for the first that was refused."""
        if not requests:
            return
        first = self._sequence + 1
        self._sequence += len(requests) + 2
        self._send(pack_batch(requests, first))
        refused: KernelRefused | None = None
        done = False
        for sequence, errno, extack in self._answers():
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

    def _answers(self) -> Iterator[tuple[int, int, str]]:
        """What is queued on the socket: sequence number, errno (0 acknowledges), explanation."""
        while True:
            try:
                packet = self._receive(MSG_DONTWAIT)
            except OSError as error:
                if error.errno == EAGAIN:
                    return
                if error.errno != ENOBUFS:  # told once, before what is queued can be read
                    raise
                continue
            for kind, flags, sequence, body in split(packet):
                if kind == NLMSG_ERROR:
                    yield sequence, *parse_error(body, flags)


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
    options = kernel_options(message) if errno in (ENOENT, EOPNOTSUPP) else ()
    hint = f"the kernel may lack {' or '.join(options)}" if options else ""
    return KernelRefused(str(doing), errno, extack, hint=hint)
