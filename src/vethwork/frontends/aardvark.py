"""Names of containers, answered by Podman's own name server, ``aardvark-dns``.

Source: aardvark-dns(1), and netavark's ``src/dns/aardvark.rs``. Below a run directory there is ``aardvark-dns/`` with a file
for each network:

    10.89.0.1,fd00::1 9.9.9.9                        the addresses it listens on, the network's own name servers
    ID 10.89.0.2 fd00::2 web,alias 8.8.8.8           a container: addresses, names, its own name servers

The name of the file is that of the network, with ``%int`` behind it where nobody outside may be asked. The server reads
them all again when it gets SIGHUP, and ends by itself when there is none left. Its process id is in ``aardvark.pid``.

Rules: the files are changed under the lock that netavark takes too. The server is the one program that front-ends start,
and only if its binary is there. An address has one holder: who gets it ends what was said of whoever had it before.
"""

from __future__ import annotations

import fcntl
import os
from _signal import SIGHUP  # type: ignore[import-not-found]  # `signal` loads `enum`

from vethwork.errors import StateError
from vethwork.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

PROGRAM = "aardvark-dns"
INTERNAL = "%int"
SYSTEMD = "/run/systemd/system"
"""Is there where systemd runs (sd_booted(3)): then the server gets a scope of its own, to outlive the caller's."""


class Zone(Record):
    """A network with names: what the name server is told of it."""

    network: str
    internal: bool
    gateways: tuple[str, ...]
    servers: tuple[str, ...]


class Host(Record):
    """A container in a zone."""

    id: str
    addresses: tuple[str, ...]
    names: tuple[str, ...]
    servers: tuple[str, ...]


class NameServer:
    """The name server of one run directory. ``port`` 0 is the usual one. A context manager that holds its lock."""

    def __init__(
        self,
        config: str,
        binary: str,
        port: int,
        environ: Mapping[str, str],
        *,
        rootless: bool,
        warn: Callable[[str], None],
    ) -> None:
        self._config = config
        self._directory = f"{config}/{PROGRAM}"
        self._binary = binary
        self._port = port or 53
        self._environ = environ
        self._rootless = rootless
        self._warn = warn
        self._lock = -1

    @property
    def is_here(self) -> bool:
        """Whether it can be started, and there is a place to tell it in."""
        return bool(self._config) and bool(self._binary) and os.access(self._binary, os.X_OK)

    def __enter__(self) -> Self:
        try:
            os.makedirs(self._directory, mode=0o755, exist_ok=True)
            self._lock = os.open(
                f"{self._config}/aardvark.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        except OSError as error:
            raise StateError(f"error while applying dns entries: {error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)
        self._lock = -1

    def add(self, zones: tuple[tuple[Zone, Host], ...]) -> None:
        """Make a container's names known, and see to it that the server runs. Raises StateError."""
        with self:
            for zone, host in zones:
                before, lines = self._read(zone.network)
                head = _spell_head(zone.gateways, before[1] if before else zone.servers)
                kept = [line for line in lines if _id_of(line) != host.id and not _has(line, host.addresses)]
                self._write(zone.network, zone.internal, [head, *kept, self._spell(host)])
            if not self._tell():
                self._start()

    def remove(self, container: str, networks: tuple[str, ...]) -> None:
        """Forget a container in some networks. Raises StateError."""
        if not os.path.isdir(self._directory):
            return
        changed = False
        with self:
            for network in networks:
                head, lines = self._read(network)
                kept = [line for line in lines if _id_of(line) != container]
                if head is not None and len(kept) < len(lines):
                    self._write(network, self._is_internal(network), [_spell_head(*head), *kept])
                    changed = True
            if changed:
                self._tell()

    def keep(self, network: str, ids: frozenset[str]) -> None:
        """Forget all containers of a network but these. Raises StateError."""
        with self:
            head, lines = self._read(network)
            kept = [line for line in lines if _id_of(line) in ids]
            if head is not None and len(kept) < len(lines):
                self._write(network, self._is_internal(network), [_spell_head(*head), *kept])
                self._tell()

    def knows(self, container: str, network: str) -> bool:
        """Whether it was told of a container. Raises StateError."""
        return container in map(_id_of, self._read(network)[1])

    def update(self, network: str, servers: tuple[str, ...]) -> None:
        """Give a network other name servers. Raises StateError."""
        if not os.path.isdir(self._directory):
            return
        with self:
            head, lines = self._read(network)
            if head is not None:
                self._write(network, self._is_internal(network), [_spell_head(head[0], servers), *lines])
                self._tell()

    # Its files.

    def _is_internal(self, network: str) -> bool:
        return os.path.exists(f"{self._directory}/{network}{INTERNAL}")

    def _read(self, network: str) -> tuple[tuple[tuple[str, ...], tuple[str, ...]] | None, list[str]]:
        """A network's gateways and name servers (None if it has no file), and the lines of its containers."""
        for suffix in (INTERNAL, ""):
            try:
                with open(f"{self._directory}/{network}{suffix}", errors="surrogateescape") as file:
                    lines = file.read().splitlines()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StateError(f"error while applying dns entries: {error}") from error
            gateways, _, servers = (lines or [""])[0].partition(" ")
            return (_words(gateways), _words(servers)), [line for line in lines[1:] if line]
        return None, []

    def _write(self, network: str, internal: bool, lines: list[str]) -> None:
        """Write a network's file whole; nothing but its head means no file."""
        path, other = (f"{self._directory}/{network}{suffix}" for suffix in _suffixes(internal))
        try:
            if len(lines) > 1:
                with open(f"{path}.new", "w", errors="surrogateescape") as file:
                    file.write("".join([f"{line}\n" for line in lines]))
                os.rename(f"{path}.new", path)
            elif os.path.exists(path):
                os.unlink(path)
            if os.path.exists(other):
                os.unlink(other)
        except OSError as error:
            raise StateError(f"error while applying dns entries: {error}") from error

    def _spell(self, host: Host) -> str:
        names = []
        for name in host.names:
            if name and not set(name) & set(" ,\n\r\t"):
                names.append(name)
            elif name:
                self._warn(f"{name!r:.80} is no name that a name server could be told; skipped")
        versions = [[each for each in host.addresses if (":" in each) == six] for six in (False, True)]
        line = f"{host.id} {','.join(versions[0])} {','.join(versions[1])} {','.join(names)}"
        return f"{line} {','.join(host.servers)}" if host.servers else line

    # Its process.

    def _tell(self) -> bool:
        """Let the server read its files again. False: it does not run."""
        try:
            with open(f"{self._directory}/aardvark.pid") as file:
                pid = int(file.read())
            with open(f"/proc/{pid}/comm") as file:
                if file.read().strip() != PROGRAM:
                    return False  # the id is somebody else's by now
            os.kill(pid, SIGHUP)
            if os.stat(f"/proc/{pid}/ns/net").st_ino != os.stat("/proc/self/ns/net").st_ino:
                self._warn(
                    f"{PROGRAM} (pid {pid}) runs in another network namespace: names may not be answered"
                )
        except (OSError, ValueError):
            return False
        return True

    def _start(self) -> None:
        command = [self._binary, "--config", self._directory, "-p", str(self._port), "run"]
        if os.path.isdir(SYSTEMD):
            command = ["systemd-run", "-q", "--scope", *(["--user"] if self._rootless else []), *command]
        said = os.memfd_create("aardvark")  # no pipe: the server would keep its end open
        try:
            redirect = [
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, said, 2),
            ]
            pid = os.posix_spawnp(command[0], command, self._environ, file_actions=redirect)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            text = os.pread(said, 4096, 0).decode(errors="replace").strip()
        except OSError as error:
            status, text = 1, f"{command[0]}: {error.strerror}"
        finally:
            os.close(said)
        if status:
            why = text or "aardvark-dns exited unexpectedly without error message"
            raise StateError(f"error while applying dns entries: {why}")


def _suffixes(internal: bool) -> tuple[str, str]:
    return (INTERNAL, "") if internal else ("", INTERNAL)


def _spell_head(gateways: tuple[str, ...], servers: tuple[str, ...]) -> str:
    return ",".join(gateways) + (f" {','.join(servers)}" if servers else "")


def _words(text: str) -> tuple[str, ...]:
    return tuple([word for word in text.split(",") if word])


def _has(line: str, addresses: tuple[str, ...]) -> bool:
    told = [each for field in line.split(" ")[1:3] for each in field.split(",")]
    return any(address in told for address in addresses)


def _id_of(line: str) -> str:
    return line.partition(" ")[0]
