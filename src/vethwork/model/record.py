"""Record: what every piece of data in vethwork is made of.

A subclass declares its fields as annotations, like a frozen dataclass, and gets a constructor, equality, a hash, a
repr and ``replace``. The differences are why it exists:

* A class costs a few microseconds to make. ``dataclasses`` (through ``inspect``) and ``typing.NamedTuple`` cost more
  start-up than a whole attach takes, and the CNI and netavark launchers pay start-up for every container.
* Records of different kinds are never equal, whatever their fields hold (named tuples are).
* A record can be written down and read back (``model.text``): a plan must outlive its process.

Rules: fields hold ``str``, ``int``, ``bool``, ``None``, records, and tuples of these. Nothing mutable, no bytes.
"""

from __future__ import annotations

from _operator import attrgetter  # the C half of `operator`

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar, Self, dataclass_transform
else:

    def dataclass_transform(**_):  # what type checkers see; at run time it is nothing
        return lambda cls: cls


_kinds: dict[str, type[Record]] = {}


@dataclass_transform(frozen_default=True)
class RecordType(type):
    """Turns the annotations of a class body into slots, and remembers the class by its name."""

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> RecordType:
        named = [field for field in body.get("__annotations__", {}) if not field.startswith("_")]
        inherited: tuple[str, ...] = ()
        defaults: dict[str, Any] = {}
        for base in bases:
            inherited += getattr(base, "_fields", ())
            defaults |= getattr(base, "_defaults", {})
        defaults |= {field: body.pop(field) for field in named if field in body}
        own = tuple(field for field in named if field not in inherited)
        fields = inherited + own
        body["__slots__"] = own
        body["_fields"] = fields
        body["_defaults"] = defaults
        cls = super().__new__(mcs, name, bases, body)
        cls._setters = tuple([getattr(cls, field).__set__ for field in fields])
        cls._read = staticmethod(_reader(fields))
        _kinds[name] = cls  # type: ignore[assignment]
        return cls

    if TYPE_CHECKING:
        _setters: tuple[Any, ...]
        _read: Any


def _reader(fields: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """What gives the values of a record's fields; of several, without a line of Python."""
    if not fields:
        return lambda record: ()
    read = attrgetter(*fields)
    return read if len(fields) > 1 else lambda record: (read(record),)


class Record(metaclass=RecordType):
    """Immutable, slotted, equal only to its own kind. See the module's docstring."""

    # Class variables, put there by RecordType.
    __annotations__ = {}
    if TYPE_CHECKING:
        _fields: ClassVar[tuple[str, ...]] = ()
        _setters: ClassVar[tuple[Any, ...]] = ()
        _read: ClassVar[Any]
        _defaults: ClassVar[dict[str, Any]] = {}

    def __init__(self, *args: Any, **named: Any) -> None:
        for put, value in zip(self._setters, args):  # noqa: B905  # to say strict=False takes longer than to set a field
            put(self, value)
        if named or len(args) != len(self._setters):
            self._complete(len(args), named)

    def _complete(self, given: int, named: dict[str, Any]) -> None:
        """Set the fields behind the first ``given``."""
        fields, defaults = self._fields, self._defaults
        if given > len(fields):
            raise TypeError(f"{type(self).__name__} takes {len(fields)} fields, {given} were given")
        for field, put in zip(fields[given:], self._setters[given:], strict=True):
            if field in named:
                put(self, named.pop(field))
            elif field in defaults:
                put(self, defaults[field])
            else:
                raise TypeError(f"{type(self).__name__} needs {field!r}")
        if named:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(named))}")

    def __setattr__(self, field: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable; use replace()")

    def __delattr__(self, field: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable; use replace()")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._read(self) == self._read(other)

    def __hash__(self) -> int:
        return hash((type(self).__name__, self._read(self)))

    def __repr__(self) -> str:
        inner = ", ".join(f"{field}={getattr(self, field)!r}" for field in self._fields)
        return f"{type(self).__name__}({inner})"

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        return type(self), self._read(self)

    def replace(self, **changes: Any) -> Self:
        """Give a copy in which the named fields hold other values."""
        values = dict(zip(self._fields, self._read(self), strict=True))
        return type(self)(**(values | changes))


def to_fields(value: object) -> dict[str, tuple[Any, ...]]:
    """What a record is spelled as: its kind, and its fields in order. Raises TypeError for anything else."""
    if isinstance(value, Record):
        return {type(value).__name__: value._read(value)}
    raise TypeError(f"{type(value).__name__} has no JSON")


def from_fields(data: dict[str, Any]) -> Record:
    """Make the record that :func:`to_fields` spelled, from what a reader of its text found: lists in place of tuples.

    Raises ValueError where the kind is unknown or its fields do not fit: the text is of another version.
    """
    if len(data) != 1:
        raise ValueError(f"not a record: {len(data)} kinds at once")
    ((kind, fields),) = data.items()
    if kind not in _kinds or not isinstance(fields, list):
        raise ValueError(f"not a record: {kind!r:.40}")
    try:
        return _kinds[kind](*_frozen(fields))
    except TypeError as error:
        raise ValueError(f"not a record: {error}") from error


def _frozen(items: list[Any]) -> tuple[Any, ...]:
    return tuple([_frozen(item) if type(item) is list else item for item in items])
