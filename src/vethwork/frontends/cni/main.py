"""The plugin's process: an environment and a document in, one document out.

Rules: standard input is read to its end, standard output gets one JSON document or nothing. What nobody foresaw becomes
error 999, never a traceback, unless VETHWORK_DEBUG is set; even then that goes to standard error.
"""

from __future__ import annotations

import os
import sys

from vethwork.engine.engine import Engine
from vethwork.errors import VethworkError
from vethwork.frontends.cni import protocol
from vethwork.frontends.cni.document import Section
from vethwork.frontends.cni.verbs import VERBS
from vethwork.model.serialize import spell_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, BinaryIO, TextIO

    from vethwork.engine.engine import Engines


def main(stdin: BinaryIO | None = None) -> None:
    """Serve one call and end the process with its exit status. ``stdin`` is what was read of standard input, all of it."""
    sys.exit(run(os.environ, stdin or sys.stdin.buffer, sys.stdout, sys.stderr))


def run(
    environ: Mapping[str, str], stdin: BinaryIO, stdout: TextIO, stderr: TextIO, engines: Engines = Engine
) -> int:
    """Serve one call; gives its exit status."""
    if not environ.get("CNI_COMMAND"):
        stderr.write(protocol.ABOUT)
        return 0
    said = [protocol.NEWEST]
    try:
        answer = _answer(environ, stdin.read(Section.largest + 1), said, engines)
        status = 0
    except VethworkError as error:
        answer, status = protocol.error_document(said[-1], error), 1
    except (
        Exception
    ) as error:  # the outermost boundary: a runtime can read nothing but an error of the protocol
        answer, status = _internal_error(said[-1], error, stderr, "VETHWORK_DEBUG" in environ), 1
    if answer is not None:
        stdout.write(spell_json(answer) + "\n")
        stdout.flush()
    return status


def _answer(
    environ: Mapping[str, str], data: bytes, said: list[str], engines: Engines
) -> dict[str, Any] | None:
    """Do what is asked. The caller's version is noted in ``said`` once it is known. Raises VethworkError."""
    if environ["CNI_COMMAND"] == "VERSION":
        return protocol.versions()
    document = Section.parse(data)
    said.append(protocol.parse_version(document))
    call = protocol.parse_call(environ)
    protocol.check_since(call.command, said[-1])
    return VERBS[call.command](engines, call, document, said[-1])


def _internal_error(version: str, error: Exception, stderr: TextIO, debug: bool) -> dict[str, Any]:
    if debug:
        import traceback

        traceback.print_exc(file=stderr)
    message = f"internal error: {type(error).__name__}: {error}"
    return protocol.error_document(
        version, VethworkError(message, hint="set VETHWORK_DEBUG=1 to see where, and report it")
    )
