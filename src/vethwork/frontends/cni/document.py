"""JSON objects from outside, read with care.

Rules: a key is compared without regard to case, as Go's decoder does it (containerd's portMappings come as ``HostPort``).
A key that is missing, is null or is empty means the same. A value of the wrong type is error 6 of SPEC 1.1 and names its
place, as in ``ipam.ranges[0][1].subnet``.
"""

from __future__ import annotations

from vethwork.errors import RequestError
from vethwork.model.text import parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeVar

    Value = TypeVar("Value")

LARGEST = 16 << 20
"""Bytes that are read of a document; a list of attachments of a full host has less than one million."""

# SPEC 1.1, section "Error": codes that a plugin may answer.
VERSION, UNSUPPORTED, UNKNOWN, ENVIRONMENT, DECODE, CONFIG, TRY_AGAIN, NOT_AVAILABLE = (
    1,
    2,
    3,
    4,
    6,
    7,
    11,
    50,
)


class CniError(RequestError):
    """An error with a code of the specification."""

    def __init__(self, code: int, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.cni_code = code


class Section:
    """A JSON object. ``where`` is its place in the document, empty for the document itself."""

    def __init__(self, data: object, where: str = "") -> None:
        """Raises CniError if it is no object."""
        if not isinstance(data, dict):
            raise _wrong(where or "the network configuration", "an object", data)
        self.where = where
        self._values = {str(key).lower(): value for key, value in data.items() if value is not None}

    def place(self, key: str) -> str:
        """Where a key of it stands, for messages."""
        return f"{self.where}.{key}" if self.where else key

    def _value(self, key: str, kind: type[Value], what: str, empty: Value) -> Value:
        value = self._values.get(key.lower(), empty)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise _wrong(self.place(key), what, value)
        return value

    def has(self, key: str) -> bool:
        """Whether it says anything but null, false, 0 or empty."""
        return bool(self._values.get(key.lower()))

    def raw(self, key: str) -> object:
        """A value of whatever type; None if it is missing."""
        return self._values.get(key.lower())

    def text(self, key: str) -> str:
        """A text; empty if it is missing."""
        return self._value(key, str, "a text", "")

    def number(self, key: str) -> int:
        """A whole number; 0 if it is missing."""
        return self._value(key, int, "a whole number", 0)

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false."""
        return self._value(key, bool, "true or false", default)

    def pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        """An object of texts, whose keys are data: with their case as it is."""
        self.section(key)
        found = self._values.get(key.lower()) or {}
        for name, value in found.items():
            if not isinstance(value, str):
                raise _wrong(f"{self.place(key)}.{name}", "a text", value)
        return tuple(found.items())

    def section(self, key: str) -> Section:
        """An object; an empty one if it is missing."""
        empty: dict[str, Any] = {}
        return Section(self._values.get(key.lower(), empty), self.place(key))

    def _list(self, key: str) -> Iterator[tuple[str, Any]]:
        empty: list[Any] = []
        for place, value in enumerate(self._value(key, list, "a list", empty)):
            yield f"{self.place(key)}[{place}]", value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        found = list(self._list(key))
        for where, value in found:
            if not isinstance(value, str):
                raise _wrong(where, "a text", value)
        return tuple([value for _, value in found])

    def sections(self, key: str) -> tuple[Section, ...]:
        """A list of objects."""
        return tuple([Section(value, where) for where, value in self._list(key)])

    def groups(self, key: str) -> tuple[tuple[Section, ...], ...]:
        """A list of lists of objects."""
        return tuple([Section({"": value or []}, where).sections("") for where, value in self._list(key)])

    def parsed(self, key: str, parse: Callable[[str], Value]) -> Value | None:
        """A text that a ``parse`` of the model reads; None if it is missing. Raises CniError (7) with its place."""
        text = self.text(key)
        return parse_at(self.place(key), text, parse) if text else None


def parse_at(where: str, text: str, parse: Callable[[str], Value], code: int = CONFIG) -> Value:
    """Read a text by a ``parse`` of the model; what it says of a bad one is told with the place."""
    try:
        return parse(text)
    except RequestError as error:
        raise CniError(code, f"{where}: {error.message}", hint=error.hint) from error


def parse_document(data: bytes) -> Section:
    """Read a document. Raises CniError (6)."""
    if len(data) > LARGEST:
        raise CniError(DECODE, f"standard input: longer than {LARGEST} bytes")
    try:
        return Section(parse_json(data.decode()))
    except (ValueError, RecursionError) as error:
        raise CniError(DECODE, f"standard input: not a JSON document: {error}") from error


def _wrong(where: str, what: str, value: object) -> CniError:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return CniError(DECODE, f"{where}: must be {what}, and is {names.get(type(value), 'a number')}")
