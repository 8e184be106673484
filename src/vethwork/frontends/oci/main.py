"""The process that a runtime starts as a hook: a verb and a container's state in, an exit status out.

    vethwork-oci attach < state.json        createRuntime
    vethwork-oci detach < state.json        poststop
    vethwork-oci < state.json               whichever of them the status in the document calls for

Rules: standard input is read to its end. Standard output stays silent; what went wrong is one line on standard error, and exit
status 1. What nobody foresaw is told in the same way, never as a traceback, unless VETHWORK_DEBUG is set. The environment
may be empty, and any of the three streams closed: both are a runtime's right (OCI runtime specification, "POSIX-platform
Hooks").
"""

from __future__ import annotations

import os
import sys

from vethwork import __version__
from vethwork.engine.engine import Engine
from vethwork.errors import RequestError, VethworkError
from vethwork.frontends.oci.state import LARGEST, VERB_OF, State
from vethwork.frontends.oci.verbs import VERBS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import BinaryIO, TextIO

    from vethwork.engine.engine import Engines

USAGE = """\
Usage: vethwork-oci [attach|detach] < STATE

Hook of an OCI runtime: attach as createRuntime, detach as poststop; without either, what the status calls for.
The container's annotations say what it gets:
  io.vethwork.network   networks with commas between them, or none; default: bridge
  io.vethwork.publish   [[IP:]HOST:]CONTAINER[/tcp|udp|sctp], with commas between them
  io.vethwork.ip, io.vethwork.ip6, io.vethwork.mac   its addresses on the first network
"""
LONGEST = 2000
"""Characters of an error: whoever reads the pipe may do so only when the hook has ended."""


def main(stdin: BinaryIO | None = None) -> None:
    """Serve one call and end the process with its exit status. ``stdin`` is what was read of standard input, all of it."""
    if stdin is None and sys.stdin is not None:
        stdin = sys.stdin.buffer
    sys.exit(run(sys.argv[1:], os.environ, stdin, sys.stdout, sys.stderr))


def run(
    words: Sequence[str],
    environ: Mapping[str, str],
    stdin: BinaryIO | None,
    stdout: TextIO | None,
    stderr: TextIO | None,
    engines: Engines = Engine,
) -> int:
    """Serve one call; gives its exit status."""
    if tuple(words) in (("--version",), ("--help",), ("-h",)):
        _say(stdout, USAGE if words[0] != "--version" else f"vethwork-oci {__version__}\n")
        return 0
    try:
        _serve(words, stdin, engines)
    except KeyboardInterrupt:
        _say(stderr, "vethwork-oci: interrupted\n")
        return 1
    except Exception as error:  # the outermost boundary: a runtime shows people the line that it gets
        _report(error, environ, stderr)
        return 1
    return 0


def _serve(words: Sequence[str], stdin: BinaryIO | None, engines: Engines) -> None:
    """Do what is asked. Raises VethworkError."""
    if len(words) > 1 or (words and words[0] not in VERBS):
        raise RequestError(f"{' '.join(words)!r:.80}: is not attach or detach", hint="see --help")
    if stdin is None or stdin.isatty():
        raise RequestError("the container's state: standard input is none", hint="see --help")
    state = State(stdin.read(LARGEST + 1))
    verb = words[0] if words else VERB_OF.get(state.status)
    if verb is None:
        raise RequestError(
            f"status {state.status!r:.80}: calls for neither attach nor detach",
            hint="this hook is for createRuntime and poststop",
        )
    VERBS[verb](engines, state)


def _report(error: Exception, environ: Mapping[str, str], stderr: TextIO | None) -> None:
    if "VETHWORK_DEBUG" in environ and stderr is not None:
        import traceback

        traceback.print_exc(file=stderr)
    foreseen = isinstance(error, VethworkError)
    text = str(error) if foreseen else f"internal error: {type(error).__name__}: {error}"
    _say(stderr, f"vethwork-oci: {' '.join(text.split())[:LONGEST]}\n")


def _say(stream: TextIO | None, text: str) -> None:
    if stream is None:
        return
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        return  # nobody listens
