"""Docker's plugin protocol as a WSGI application (PEP 3333): a POST to ``/METHOD``, a JSON document both ways."""

from __future__ import annotations

import json

from vethwork.frontends.docker.document import Section
from vethwork.frontends.docker.protocol import CONTENT_TYPE, answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
}


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer one request."""
    if environ["REQUEST_METHOD"] == "POST":
        status, document = answer(
            environ["PATH_INFO"].removeprefix("/"), environ["wsgi.input"].read(Section.largest + 1)
        )
    else:
        status, document = 405, {"Err": "only POST is known here"}
    body = json.dumps(document).encode() + b"\n"
    headers = [("Content-Type", CONTENT_TYPE), ("Content-Length", str(len(body)))]
    start_response(f"{status} {REASONS[status]}", headers)
    return [body]
