"""JSON objects from Podman, read with care.

Rules: a key that is missing, is null or is empty means the same, for Go leaves out or writes null as it pleases. A key that
nobody knows is not looked at. A value of the wrong type is an error that names its place, as in
``networks.blue.static_ips[1]``.
"""

from __future__ import annotations

from vethwork.errors import RequestError
from vethwork.model.text import parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LARGEST = 64 << 20
"""Bytes that are read of a document."""
KINDS = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
}


class Fields:
    """A JSON object with its place in the document; each method gives one key's value as one type."""

    def __init__(self, value: object, where: str) -> None:
        self.where = where
        self._fields: dict[str, Any] = _of(value, dict, where) or {}

    def _get(self, key: str, kind: type) -> Any:
        return _of(self._fields.get(key), kind, self._place(key))

    def _place(self, key: str) -> str:
        return f"{self.where}.{key}"[:200].removeprefix(".")

    def __contains__(self, key: str) -> bool:
        return self._fields.get(key) not in (None, "", [], {})

    def text(self, key: str) -> str:
        """A string; empty if it is not there."""
        return self._get(key, str) or ""

    def flag(self, key: str) -> bool:
        """A boolean; False if it is not there."""
        return self._get(key, bool) or False

    def number(self, key: str) -> int:
        """A whole number; 0 if it is not there."""
        return self._get(key, int) or 0

    def texts(self, key: str) -> tuple[str, ...]:
        """An array of strings."""
        items = self._get(key, list) or []
        return tuple([_of(item, str, f"{self._place(key)}[{n}]") or "" for n, item in enumerate(items)])

    def section(self, key: str) -> Fields:
        """An object; an empty one if it is not there."""
        return Fields(self._fields.get(key), self._place(key))

    def sections(self, key: str) -> tuple[Fields, ...]:
        """An array of objects."""
        items = self._get(key, list) or []
        return tuple([Fields(item, f"{self._place(key)}[{n}]") for n, item in enumerate(items)])

    def named(self, key: str) -> tuple[tuple[str, Fields], ...]:
        """An object of objects; or, as netavark 2 takes it, an array of objects that hold their ``name``."""
        if isinstance(self._fields.get(key), list):
            return tuple([(each.text("name"), each) for each in self.sections(key)])
        inner = self.section(key)
        return tuple([(name, inner.section(name)) for name in inner._fields])

    def words(self, key: str) -> dict[str, str]:
        """An object of strings, without those that are empty."""
        inner = self.section(key)
        return {name: value for name in inner._fields if (value := inner.text(name))}

    def data(self) -> dict[str, Any]:
        """The object as it came."""
        return dict(self._fields)


def _of(value: object, kind: type, where: str) -> Any:
    if value is None:
        return None
    if type(value) is not kind:
        what = KINDS.get(type(value), "of another type")
        raise RequestError(f"failed to load network options: {where or 'it'} is {what}, not {KINDS[kind]}")
    return value


def parse_document(data: bytes) -> Fields:
    """Read a document. Raises RequestError."""
    if len(data) > LARGEST:
        raise RequestError(f"failed to load network options: it is larger than {LARGEST >> 20} MiB")
    try:
        value = parse_json(data.decode())
    except (ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError too
        raise RequestError(f"failed to load network options: {str(error)[:200]}") from None
    return Fields(value, "")
