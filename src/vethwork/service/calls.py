"""The calls of runtimes, which ``launch`` hands over: the other end of its protocol, as a WSGI application (PEP 3333).

    POST /call/TOOL?VERSION&WORDS&ENVIRON        WORDS and ENVIRON are lengths; see ``launch`` for the body and the answer

Rules: a call is served only where the answer is the same as that of the caller's own work: by the same version, on the same
records, from the same place (``peers``), and with no path that depends on the caller's working directory. Whoever else
asks is told 421 (Misdirected Request, RFC 9110) and why, and works himself. The front-end's own code answers, with streams
and an environment of its own; nothing of this process's is its business.
"""

from __future__ import annotations

import os
from io import BytesIO, TextIOWrapper
from time import perf_counter

from vethwork import __version__
from vethwork.engine.networks import DEFAULT_ROOT, DEFAULT_RUN
from vethwork.frontends.cni import main as cni
from vethwork.frontends.netavark import main as netavark
from vethwork.frontends.netavark.arguments import UsageError, parse_arguments
from vethwork.frontends.oci import main as oci
from vethwork.service.peers import Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, BinaryIO, TextIO

    from vethwork.engine.engine import Engines as Opens
    from vethwork.service.counters import Counters
    from vethwork.service.engine_pool import Engines

    Tool = Callable[[list[str], Mapping[str, str], BinaryIO, TextIO, TextIO, Opens], int]

TOOLS: dict[str, Tool] = {
    "cni": lambda words, environ, stdin, out, err, engines: cni.run(environ, stdin, out, err, engines),
    "netavark": netavark.run,
    "oci": oci.run,
}
REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    421: "Misdirected Request",
}


class Refused(Exception):
    """A request that is not served: a status of HTTP, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Calls:
    """Answers calls. ``vethwork.peer`` of the WSGI environment is the caller's process and user id (``web``)."""

    def __init__(self, engines: Engines, counters: Counters) -> None:
        self._engines = engines
        self._counters = counters
        self._place = Place()

    def __call__(self, request: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        try:
            status, body = 200, self._answer(request)
        except Refused as refusal:
            status, body = refusal.status, f"{refusal}\n".encode()
        headers = [("Content-Type", "application/octet-stream"), ("Content-Length", str(len(body)))]
        start_response(f"{status} {REASONS[status]}", headers)
        return [body]

    def _answer(self, request: dict[str, Any]) -> bytes:
        """Raises Refused."""
        if request["REQUEST_METHOD"] != "POST":
            raise Refused(405, "calls are made with POST")
        tool = request["PATH_INFO"].removeprefix("/call/")
        if tool not in TOOLS:
            raise Refused(404, f"{request['PATH_INFO'][:80]!r} is nothing that can be called")
        version, _, lengths = request["QUERY_STRING"].partition("&")
        if version != __version__:
            raise Refused(421, f"this service is vethwork {__version__}")
        why = self._place.difference(*request["vethwork.peer"])
        if why:
            raise Refused(421, why)
        words, environ, stdin = _parse_body(lengths, request["wsgi.input"].read())
        self._check_sameness(tool, words, environ)
        return self._serve(tool, words, environ, stdin)

    def _check_sameness(self, tool: str, words: list[str], environ: dict[str, str]) -> None:
        """Refuse a caller whose own work would be on other records, or whose words mean something else here."""
        theirs = (
            environ.get("VETHWORK_ROOT") or DEFAULT_ROOT,
            environ.get("VETHWORK_RUN") or DEFAULT_RUN,
        )
        if not all(each.startswith("/") for each in theirs):
            raise Refused(421, "your VETHWORK_ROOT or VETHWORK_RUN depends on where you are")
        if tuple(map(os.path.abspath, theirs)) != (self._engines.root, self._engines.run):
            raise Refused(421, f"this service is that of {self._engines.root} and {self._engines.run}")
        if tool == "netavark" and not _is_anywhere(words):
            raise Refused(421, "a path depends on where you are")

    def _serve(self, tool: str, words: list[str], environ: dict[str, str], stdin: bytes) -> bytes:
        began = perf_counter()
        out, error = BytesIO(), BytesIO()
        said = TextIOWrapper(out, "utf-8", "surrogateescape", write_through=True)
        warned = TextIOWrapper(error, "utf-8", "backslashreplace", write_through=True)
        status = TOOLS[tool](words, environ, BytesIO(stdin), said, warned, self._engines)
        self._counters.called(tool, _verb(tool, words, environ), status == 0, perf_counter() - began)
        head = f"{status} {len(out.getvalue())} {len(error.getvalue())}\n"
        return head.encode() + out.getvalue() + error.getvalue()


def _parse_body(lengths: str, body: bytes) -> tuple[list[str], dict[str, str], bytes]:
    """The arguments, the environment and standard input. Raises Refused."""
    try:
        words, environ = map(int, lengths.split("&"))
        if not 0 <= words <= words + environ <= len(body):
            raise ValueError("the body is shorter")
        said = [os.fsdecode(each) for each in body[:words].split(b"\0")[:-1]]
        pairs = [os.fsdecode(each) for each in body[words : words + environ].split(b"\0")[:-1]]
    except ValueError as error:
        raise Refused(400, f"not a call: {error}") from error
    held = {name: value for name, _, value in [pair.partition("=") for pair in pairs]}
    return said, held, body[words + environ :]


def _is_anywhere(words: list[str]) -> bool:
    """Whether a command line of netavark means the same in every directory."""
    try:
        said = parse_arguments(words)
    except UsageError:
        return True
    return all(path.startswith("/") for path in (said.file, said.config, said.aardvark) if path)


def _verb(tool: str, words: list[str], environ: dict[str, str]) -> str:
    """What a call was for, out of a few."""
    said = [environ.get("CNI_COMMAND", "")] if tool == "cni" else words
    return next((verb for verb in said if verb in VERBS[tool]), "other")


VERBS = {
    "cni": ("ADD", "DEL", "CHECK", "GC", "STATUS"),
    "netavark": ("setup", "teardown", "update", "create"),
    "oci": ("attach", "detach"),
}
