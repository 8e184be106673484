"""JSON objects from outside, read with care: what every front-end's documents are read by.

Rules: a key that is missing, is null or is empty means the same, for Go leaves out or writes null as it pleases. A key that
nobody asks for is not looked at. A value of the wrong type is an error of the front-end's own kind that names its place, as
in ``ipam.ranges[0][1].subnet``; so is a null in a list.
"""

from __future__ import annotations

from vethwork.errors import RequestError
from vethwork.model.serialize import parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Self, TypeVar

    Value = TypeVar("Value")

KINDS = {
    dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a whole number", float: "a number",
    type(None): "null",
}  # fmt: skip


class Section:
    """A JSON object. ``where`` is its place in the document, empty for the document itself.

    A front-end's own kind says what a document is called, how many bytes are read of one, whether keys are compared
    without regard to case, and what an error is.
    """

    whole = "the document"
    largest = 4 << 20
    folded = False

    @classmethod
    def wrong(cls, message: str) -> RequestError:
        """An error in the document."""
        return RequestError(message)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a document."""
        if len(data) > cls.largest:
            raise cls.wrong(f"{cls.whole}: longer than {cls.largest} bytes")
        try:
            return cls(parse_json(data.decode()))
        except (ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError too
            raise cls.wrong(f"{cls.whole}: not a JSON document: {str(error)[:200]}") from error

    def __init__(self, data: object, where: str = "") -> None:
        if not isinstance(data, dict):
            raise self._not(where or self.whole, dict, data)
        self.where = where
        self._data: dict[str, Any] = data
        self._values = {key: value for key, value in data.items() if value is not None}
        if self.folded:
            self._values = {key.lower(): value for key, value in self._values.items()}

    def _not(self, where: str, kind: type, value: object) -> RequestError:
        have = KINDS.get(type(value), "of another type")
        return self.wrong(f"{where}: must be {KINDS[kind]}, and is {have}")

    def place(self, key: str) -> str:
        """Where a key of it stands, for messages."""
        return f"{self.where}.{key}"[-200:] if self.where else key[:200]

    def _value(self, key: str, kind: type[Value], empty: Value) -> Value:
        value = self.raw(key)
        if value is not None and type(value) is not kind:
            raise self._not(self.place(key), kind, value)
        return empty if value is None else value

    def __iter__(self) -> Iterator[str]:
        """The keys that are there."""
        return iter(self._values)

    def __contains__(self, key: str) -> bool:
        """Whether it says anything but null or empty."""
        return self.raw(key) not in (None, "", [], {})

    def has(self, key: str) -> bool:
        """Whether it says anything but null, false, 0 or empty."""
        return bool(self.raw(key))

    def raw(self, key: str) -> object:
        """A value of whatever type; None if it is missing."""
        return self._values.get(key.lower() if self.folded else key)

    def data(self) -> dict[str, Any]:
        """The object as it came."""
        return dict(self._data)

    def text(self, key: str) -> str:
        """A text; empty if it is missing."""
        return self._value(key, str, "")

    def number(self, key: str) -> int:
        """A whole number; 0 if it is missing."""
        return self._value(key, int, 0)

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false."""
        return self._value(key, bool, default)

    def section(self, key: str) -> Self:
        """An object; an empty one if it is missing."""
        empty: dict[str, Any] = {}
        return type(self)(self._value(key, dict, empty), self.place(key))

    def pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        """An object of texts whose keys are data, with their case as it is; without those that are null."""
        found = self.section(key)
        for name, value in found._data.items():
            if not isinstance(value, str | None):
                raise self._not(found.place(name), str, value)
        return tuple([(name, value) for name, value in found._data.items() if value is not None])

    def _list(self, key: str) -> Iterator[tuple[str, Any]]:
        empty: list[Any] = []
        for number, value in enumerate(self._value(key, list, empty)):
            yield f"{self.place(key)}[{number}]", value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        found = []
        for where, value in self._list(key):
            if not isinstance(value, str):
                raise self._not(where, str, value)
            found.append(value)
        return tuple(found)

    def sections(self, key: str) -> tuple[Self, ...]:
        """A list of objects."""
        return tuple([type(self)(value, where) for where, value in self._list(key)])

    def groups(self, key: str) -> tuple[tuple[Self, ...], ...]:
        """A list of lists of objects."""
        return tuple([type(self)({"": value or []}, where).sections("") for where, value in self._list(key)])

    def parsed(self, key: str, parse: Callable[[str], Value]) -> Value | None:
        """A text that a ``parse`` of the model reads; None if it is missing. Raises RequestError with its place."""
        text = self.text(key)
        return parse_at(self.place(key), text, parse) if text else None


def parse_at(where: str, text: str, parse: Callable[[str], Value]) -> Value:
    """Read a text by a ``parse`` of the model; what it says of a bad one is told with the place."""
    try:
        return parse(text)
    except RequestError as error:
        raise RequestError(f"{where}: {error.message}", hint=error.hint) from error
