"""JSON objects from dockerd, read with care.

Rules: a key that is missing, is null or is empty means the same, for Go leaves out or writes null as it pleases. A value of
the wrong type is an error that names its place, as in ``Interface.Address``.
"""

from __future__ import annotations

import json
from hashlib import sha256

from vethwork.errors import RequestError
from vethwork.model.names import Name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeVar

    Value = TypeVar("Value")

LARGEST = 4 << 20
"""Bytes that are taken of a request; one with all 65535 ports published has 5 million, and nobody sends that."""
WORDS = {
    "true": True, "1": True, "t": True, "yes": True, "": True,
    "false": False, "0": False, "f": False, "no": False,
}  # fmt: skip
_KINDS = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}


class Malformed(RequestError):
    """A request that is no document of the protocol."""


class Section:
    """A JSON object. ``where`` is its place in the document, empty for the document itself."""

    def __init__(self, data: object, where: str = "") -> None:
        """Raises Malformed if it is no object."""
        if not isinstance(data, dict):
            raise _wrong(where or "the request", "an object", data)
        self.where = where
        self._values: dict[str, Any] = {key: value for key, value in data.items() if value is not None}

    def place(self, key: str) -> str:
        """Where a key of it stands, for messages."""
        return f"{self.where}.{key}"[-200:] if self.where else key[:200]

    def _value(self, key: str, kind: type[Value], empty: Value) -> Value:
        value = self._values.get(key, empty)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise _wrong(self.place(key), _KINDS.get(kind, "a whole number"), value)
        return value

    def __iter__(self) -> Iterator[str]:
        """The keys that are there."""
        return iter(self._values)

    def text(self, key: str) -> str:
        """A string; empty if it is missing."""
        return self._value(key, str, "")

    def number(self, key: str) -> int:
        """A whole number; 0 if it is missing."""
        return self._value(key, int, 0)

    def flag(self, key: str, default: bool = False) -> bool:
        """A boolean, or a word that means one: what people write after ``-o`` comes as a string."""
        value = self._values.get(key, default)
        if isinstance(value, str):
            value = WORDS.get(value.lower())
        if not isinstance(value, bool):
            raise Malformed(f"{self.place(key)}: must be true or false")
        return value

    def section(self, key: str) -> Section:
        """An object; an empty one if it is missing."""
        empty: dict[str, Any] = {}
        return Section(self._values.get(key, empty), self.place(key))

    def sections(self, key: str) -> tuple[Section, ...]:
        """An array of objects."""
        empty: list[Any] = []
        found = enumerate(self._value(key, list, empty))
        return tuple([Section(value, f"{self.place(key)}[{number}]") for number, value in found])

    def parsed(self, key: str, parse: Callable[[str], Value]) -> Value | None:
        """A string that a ``parse`` of the model reads; None if it is missing. Raises RequestError with its place."""
        text = self.text(key)
        return parse_at(self.place(key), text, parse) if text else None


def parse_at(where: str, text: str, parse: Callable[[str], Value]) -> Value:
    """Read a string by a ``parse`` of the model; what it says of a bad one is told with the place."""
    try:
        return parse(text)
    except RequestError as error:
        raise RequestError(f"{where}: {error.message}", hint=error.hint) from error


def parse_document(body: bytes) -> object:
    """Read the body of a request. Raises Malformed."""
    if len(body) > LARGEST:
        raise Malformed(f"the request is longer than {LARGEST} bytes")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"the request is no JSON document: {error}") from error


def parse_id(document: Section, key: str) -> Name:
    """An id of Docker's, which is 64 hex digits; any name that can be an id is taken. Raises RequestError."""
    return parse_at(document.place(key), document.text(key), Name.parse)


def engine_id(docker_id: str) -> str:
    """The id of ours that stands for one of Docker's: its first 32 hex digits, so that people recognise it."""
    start = docker_id[:32]
    if len(start) == 32 and set(start) <= set("0123456789abcdef"):
        return start
    return sha256(docker_id.encode()).hexdigest()[:32]


def _wrong(where: str, what: str, value: object) -> Malformed:
    return Malformed(f"{where}: must be {what}, and is {_KINDS.get(type(value), 'a number')}")
