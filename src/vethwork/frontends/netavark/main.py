"""The process that Podman starts as ``netavark``: a command line and a document in, one document out.

Rules: standard input is read to its end; standard output gets one JSON document or nothing, an error as ``{"error": ...}``
with that one key, for Podman refuses any other. Warnings go to standard error. What nobody foresaw becomes an error too,
never a traceback, unless VETHWORK_DEBUG is set; even then that goes to standard error.
"""

from __future__ import annotations

import os
import sys
from _signal import SIG_IGN, SIGINT, SIGTERM, signal  # type: ignore[import-not-found]  # `signal` loads `enum`

from vethwork import __version__
from vethwork.engine.engine import Engine
from vethwork.errors import RequestError, VethworkError
from vethwork.frontends.netavark import verbs
from vethwork.frontends.netavark.arguments import USAGE, UsageError, parse_arguments, parse_dns_port
from vethwork.frontends.netavark.document import Fields
from vethwork.frontends.netavark.translate import parse_setup
from vethwork.model.address import Address
from vethwork.model.names import NetnsPath
from vethwork.model.serialize import spell_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import BinaryIO, TextIO

    from vethwork.engine.engine import Engines
    from vethwork.frontends.aardvark import NameServer
    from vethwork.frontends.netavark.arguments import Arguments

LONGEST = 8000
"""Characters of an error: Podman reads a pipe only after the process that fills it has ended."""


def main(stdin: BinaryIO | None = None) -> None:
    """Serve one call and end the process with its exit status. ``stdin`` is what was read of standard input, all of it."""
    if "teardown" in sys.argv:
        for number in (SIGINT, SIGTERM):  # half a teardown helps nobody
            signal(number, SIG_IGN)
    sys.exit(run(sys.argv[1:], os.environ, stdin or sys.stdin.buffer, sys.stdout, sys.stderr))


def run(
    words: Sequence[str],
    environ: Mapping[str, str],
    stdin: BinaryIO,
    stdout: TextIO,
    stderr: TextIO,
    engines: Engines = Engine,
) -> int:
    """Serve one call; gives its exit status."""
    try:
        call = Call(parse_arguments(words), environ, stdin, stderr, engines)
        answer, status = call.serve(), 0
    except UsageError as error:
        stderr.write(f"error: {error}\n\n{USAGE}")
        return 2
    except VethworkError as error:
        answer, status = _error(str(error)), 1
    except Exception as error:  # the outermost boundary: Podman can read nothing but an error of the protocol
        if "VETHWORK_DEBUG" in environ:
            import traceback

            traceback.print_exc(file=stderr)
        answer, status = _error(f"internal error: {type(error).__name__}: {error}"), 1
    if answer:
        stdout.write(answer + "\n")
        stdout.flush()
    return status


def _error(text: str) -> str:
    return spell_json({"error": text[:LONGEST]})


class Call:
    """One call: its arguments, and where the rest comes from."""

    def __init__(
        self,
        arguments: Arguments,
        environ: Mapping[str, str],
        stdin: BinaryIO,
        stderr: TextIO,
        engines: Engines,
    ) -> None:
        self._arguments = arguments
        self._engines = engines
        self._own_records = not arguments.rootless or "VETHWORK_ROOT" in environ
        self._stdin = stdin
        self._stderr = stderr
        self._dns_port = parse_dns_port(environ)
        self._environ = environ

    def serve(self) -> str:
        """Do what is asked; gives what is to be printed. Raises VethworkError."""
        serve: dict[str, Callable[[], str]] = {
            "setup": self._setup,
            "teardown": self._teardown,
            "update": self._update,
            "create": self._create,
            "firewall-reload": self._reload,
            "firewalld-reload": self._without,
            "dhcp-proxy": self._without,
            "version": _version,
            "h": lambda: USAGE.rstrip(),
            "help": lambda: USAGE.rstrip(),
            "v": lambda: f"netavark {__version__} (vethwork)",
        }
        return serve[self._arguments.command]()

    def _server(self) -> NameServer:
        from vethwork.frontends.aardvark import NameServer  # not every network has names

        said = self._arguments
        return NameServer(
            said.config, said.aardvark, self._dns_port, self._environ, rootless=said.rootless, warn=self._warn
        )

    def _warn(self, text: str) -> None:
        self._stderr.write(f"[WARN vethwork] {text}\n")

    def _engine(self) -> AbstractContextManager[Engine]:
        """Without root, our records are beside Podman's: the user's own, and lost at a reboot like the namespaces."""
        if self._own_records:
            return self._engines()
        base = f"{self._arguments.config}/vethwork"
        return self._engines(f"{base}/root", f"{base}/run")

    def _document(self) -> Fields:
        path = self._arguments.file
        if not path:
            return Fields.parse(self._stdin.read(Fields.largest + 1))
        try:
            with open(path, "rb") as file:
                return Fields.parse(file.read(Fields.largest + 1))
        except (OSError, ValueError) as error:
            raise RequestError(f"failed to load network options: {error}") from error

    def _setup(self) -> str:
        asked = parse_setup(self._document(), self._dns_port)
        netns = NetnsPath.parse(self._arguments.operand)
        with self._engine() as engine:
            return spell_json(verbs.setup(engine, asked, netns, self._server, self._warn))

    def _teardown(self) -> str:
        document = self._document()
        with self._engine() as engine:
            verbs.teardown(engine, document, self._server())
        return ""

    def _update(self) -> str:
        arguments = self._arguments
        self._stdin.read(Fields.largest)
        if arguments.servers is not None:
            servers = [str(Address.parse(each)) for each in arguments.servers.split(",") if each]
            verbs.update(arguments.operand, tuple(servers), self._server())
        return ""

    def _create(self) -> str:
        from vethwork.frontends.netavark.create import complete  # for every network, not for every container

        return spell_json(complete(self._document()))

    def _reload(self) -> str:
        with self._engine() as engine:
            verbs.reload_firewall(engine)
        return ""

    def _without(self) -> str:
        why = {
            "dhcp-proxy": "vethwork has no DHCP: give the network a subnet",
            "firewalld-reload": "vethwork's rules do not live in firewalld, and survive its reload",
        }
        raise RequestError(f"{self._arguments.command}: {why[self._arguments.command]}")


def _version() -> str:
    """What ``netavark version`` tells, on lines of their own; the fields are its own."""
    target = f"{os.uname().machine}-vethwork-linux"
    said = {
        "version": __version__,
        "commit": "",
        "build_time": "",
        "target": target,
        "default_fw_driver": "nftables",
    }
    return "{\n" + ",\n".join([f'  "{key}": "{value}"' for key, value in said.items()]) + "\n}"
