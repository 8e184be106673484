"""The document that a runtime gives its hooks: the container's state (OCI runtime specification, ``runtime.md``, "State").

    {"ociVersion": "1.0.2", "id": "web", "status": "creating", "pid": 4711, "bundle": "/b", "annotations": {"k": "v"}}

What runtimes make of it: runc says ``creating`` where crun says ``created``; at poststop, runc leaves ``pid`` out and crun
says 0. A key that is missing, is null or is empty means the same, for Go writes whichever it pleases.

Rules: a value of the wrong type is an error that names its key. A key that nobody here knows is not looked at.
"""

from __future__ import annotations

from vethwork.errors import RequestError
from vethwork.model.serialize import parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

LARGEST = 4 << 20
"""Bytes that are read of a document. What is large in one is its annotations; Kubernetes allows 256 KiB of them."""

VERB_OF = {"creating": "attach", "created": "attach", "stopped": "detach"}
"""What is to be done at a status, for hooks that are called with the same arguments at every stage (oci-hooks(5))."""


class State:
    """A container's state, read as far as it is asked for: who only detaches needs no more than the ``id``."""

    def __init__(self, data: bytes) -> None:
        """Raises RequestError if it is no JSON object."""
        if len(data) > LARGEST:
            raise RequestError(f"the container's state: longer than {LARGEST} bytes")
        try:
            document = parse_json(data.decode())
        except (ValueError, RecursionError) as error:
            raise RequestError(
                f"the container's state: not a JSON document: {_short(error)}",
                hint="runtimes give it on standard input",
            ) from error
        if not isinstance(document, dict):
            raise _wrong("the container's state", "an object", document)
        self._document = document

    def _text(self, key: str) -> str:
        value = self._document.get(key) or ""
        if not isinstance(value, str):
            raise _wrong(key, "a text", value)
        return value

    @property
    def id(self) -> str:
        """The container's id, whatever it looks like. Raises RequestError if there is none."""
        found = self._text("id")
        if not found:
            raise RequestError("the container's state: has no id")
        return found

    @property
    def status(self) -> str:
        """Its status; empty if there is none."""
        return self._text("status")

    @property
    def pid(self) -> int:
        """The process that the container is made of. Raises RequestError if there is none."""
        pid = self._document.get("pid") or 0
        if not isinstance(pid, int) or isinstance(pid, bool):
            raise _wrong("pid", "a whole number", pid)
        if not 0 < pid < 1 << 22:  # PID_MAX_LIMIT, include/linux/threads.h
            raise RequestError(
                f"pid: {str(pid)[:20]} is no process", hint="attach is for createRuntime hooks"
            )
        return pid

    @property
    def annotations(self) -> dict[str, str]:
        """Its annotations, those that are null left out."""
        found = self._document.get("annotations") or {}
        if not isinstance(found, dict):
            raise _wrong("annotations", "an object", found)
        for key, value in found.items():
            if not isinstance(value, str | None):
                raise _wrong(f"annotation {key!r:.80}", "a text", value)
        return {key: value for key, value in found.items() if value is not None}


def _short(error: BaseException) -> str:
    return f"{error!s:.200}"


def _wrong(where: str, what: str, value: object) -> RequestError:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return RequestError(f"{where}: must be {what}, and is {names.get(type(value), 'a number')}")
