"""Docker's plugin protocol as a WSGI application (PEP 3333): a POST to ``/METHOD``, a JSON document both ways."""

from __future__ import annotations

import json
from time import perf_counter

from vethwork.frontends.docker.document import Section
from vethwork.frontends.docker.protocol import CONTENT_TYPE, METHODS, answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from vethwork.service.counters import Counters
    from vethwork.service.engine_pool import Engines

REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
}


class Plugin:
    """Answers dockerd."""

    def __init__(self, engines: Engines, counters: Counters) -> None:
        self._engines = engines
        self._counters = counters

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        if environ["REQUEST_METHOD"] == "POST":
            status, document = self._answer(
                environ["PATH_INFO"].removeprefix("/"), environ["wsgi.input"].read(Section.largest + 1)
            )
        else:
            status, document = 405, {"Err": "only POST is known here"}
        body = json.dumps(document).encode() + b"\n"
        headers = [("Content-Type", CONTENT_TYPE), ("Content-Length", str(len(body)))]
        start_response(f"{status} {REASONS[status]}", headers)
        return [body]

    def _answer(self, method: str, body: bytes) -> tuple[int, dict[str, Any]]:
        began = perf_counter()
        status, document = answer(method, body, self._engines)
        verb = method if method in METHODS else "other"
        good = status == 200 and "Err" not in document
        self._counters.called("docker", verb, good, perf_counter() - began)
        return status, document
