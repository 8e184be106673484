"""Whose the tables are: while the service runs, one socket of it owns them, and every change goes by that socket.

Theory (net/netfilter/nf_tables_api.c; Linux 6.9 or newer). A table with the flag *owner* belongs to the socket that made it:
whoever else changes it is refused (EPERM), and a flush of the whole ruleset passes it by. With the flag *persist* it stays
when that socket closes, however its process ends, and belongs to nobody: anybody may change it, and the first socket that
says so (NFT_MSG_NEWTABLE with both flags) owns it. A table that was made without the flags cannot be given them.

An :class:`Owner` is the owning socket. Other processes find it by a Unix socket, which only root may speak to: a batch goes
there as it stands, the kernel's answers come back as they stand, each way behind its length. Nothing is decided there.

Rules: where the two processes disagree, the kernel is asked again. Nobody answers at the socket: the owner is gone, and the
tables are anybody's. The connection ends before the answer: it may have been done or not, and doing it once more is harmless,
for what is there may be added and what is gone may be deleted (``NftSocket.change``).
"""

from __future__ import annotations

import _socket
import _thread
from errno import EINVAL, ENOENT, EOPNOTSUPP
from struct import Struct

from vethwork.errors import ConflictError, KernelRefused
from vethwork.kernel.nft import OWNERS, NftSocket, TablesOwned
from vethwork.wire.nft.tables import OWNED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Self

    from vethwork.model.ruleset import Table

LENGTH = Struct("=I")
LARGEST = 1 << 26
"""Bytes of a batch, or of its answer: more than a hundred thousand published ports need."""
SECONDS = 10.0
"""How long either side waits for the other's next bytes."""


class Owner:
    """The socket that owns the tables, for every engine of this process: threads take turns. A context manager.

    ``path`` is that of the Unix socket at which other processes find it. ``owns`` tells whether the tables are its own.
    """

    flags = OWNED

    def __init__(self, path: str, flags: int = OWNED) -> None:
        """Raises KernelRefused where the kernel was built without netfilter's netlink."""
        self.flags = flags
        self.owns = False
        self._path = path
        self._socket = NftSocket(flags=flags)
        self._turn = _thread.allocate_lock()
        OWNERS[path] = self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the tables: they stay, and are anybody's."""
        OWNERS.pop(self._path, None)
        with self._turn:
            self.owns = False
            self._socket.close()

    def carry(self, packet: bytes) -> list[bytes] | None:
        """Send somebody's batch; the kernel's answers, or None if the tables are not owned here. Raises KernelRefused."""
        with self._turn:
            return list(self._socket.exchange(packet)) if self.owns else None

    def take(self, tables: Iterable[Table], load: Callable[[], None]) -> None:
        """Own the tables: as they are, if they were owned before; else once ``load``, which is called, has replaced them.

        Where the kernel does not know owners, nothing is owned, and nothing was changed.
        Raises ConflictError if another process owns them, and KernelRefused.
        """
        try:
            self._socket.adopt(tables)
            self.owns = True
        except TablesOwned as error:
            raise ConflictError(f"own the ruleset: {error.message}", hint=error.hint) from error
        except KernelRefused as error:
            if error.errno not in (ENOENT, *UNKNOWN):
                raise
        if self.owns:
            return
        self.owns = True
        try:
            load()
        except KernelRefused as error:
            self.owns = False
            if error.errno not in UNKNOWN:
                raise


UNKNOWN = (EOPNOTSUPP, EINVAL)
"""What a kernel answers that does not know a flag, and one that does to who wants to give it to a table that is there."""


class Way:
    """The way to an owner in another process, by the Unix socket at ``path``."""

    flags = OWNED

    def __init__(self, path: str) -> None:
        self._path = path

    def is_open(self) -> bool:
        """Whether somebody listens there."""
        try:
            self._connect().close()
        except OSError:
            return False
        return True

    def carry(self, packet: bytes) -> list[bytes] | None:
        """Have a batch sent; the kernel's answers, or None where nobody answers."""
        try:
            made = self._connect()
        except OSError:
            return None
        try:
            send_framed(made, packet)
            return [receive_framed(made)]
        except (OSError, EOFError):
            return None
        finally:
            made.close()

    def _connect(self) -> _socket.socket:
        made = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            made.settimeout(SECONDS)
            made.connect(self._path)
        except BaseException:
            made.close()
            raise
        return made


def answer(client: _socket.socket, owner: Owner) -> None:
    """Send a client's batch, and tell him what the kernel said. What is cut short, or comes too slowly, gets no answer."""
    client.settimeout(SECONDS)
    try:
        packets = owner.carry(receive_framed(client))
        if packets is not None:
            send_framed(client, join_answers(packets))
    except (OSError, EOFError, KernelRefused):
        return


def send_framed(to: _socket.socket, text: bytes) -> None:
    """Send bytes behind their length. Raises OSError."""
    to.sendall(LENGTH.pack(len(text)) + text)


def receive_framed(connection: _socket.socket) -> bytes:
    """What was sent by :func:`send_framed`. Raises EOFError if it is cut short, or too long, and OSError."""
    (length,) = LENGTH.unpack(_receive(connection, LENGTH.size))
    if length > LARGEST:
        raise EOFError(f"{length} bytes are too many")
    return _receive(connection, length)


def _receive(connection: _socket.socket, length: int) -> bytes:
    found = bytearray()
    while len(found) < length:
        more = connection.recv(min(length - len(found), 1 << 20))
        if not more:
            raise EOFError(f"{length - len(found)} bytes are missing")
        found += more
    return bytes(found)


def join_answers(packets: Iterable[bytes]) -> bytes:
    """The kernel's datagrams as one: each message in it tells its own length."""
    return b"".join([packet + bytes(-len(packet) % 4) for packet in packets])
