"""Record: what every piece of data in vethwork is made of.

A subclass declares its fields as annotations, like a frozen dataclass, and gets a constructor, equality, a hash, a
repr and ``replace``. The differences are why it exists:

* A class costs a few microseconds to make. ``dataclasses`` (through ``inspect``) and ``typing.NamedTuple`` cost more
  start-up than a whole attach takes, and the CNI and netavark launchers pay start-up for every container.
* Records of different kinds are never equal, whatever their fields hold (named tuples are).
* A record can be written down and read back (:func:`to_data`, :func:`from_data`): a plan must outlive its process.

Rules: fields hold ``str``, ``int``, ``bool``, ``None``, records, and tuples of these. Nothing mutable, no bytes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
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
        body["__slots__"] = own
        body["_fields"] = inherited + own
        body["_defaults"] = defaults
        cls = super().__new__(mcs, name, bases, body)
        _kinds[name] = cls  # type: ignore[assignment]
        return cls


_set = object.__setattr__


class Record(metaclass=RecordType):
    """Immutable, slotted, equal only to its own kind. See the module's docstring."""

    # Class variables, put there by RecordType.
    __annotations__ = {}
    if TYPE_CHECKING:
        _fields: ClassVar[tuple[str, ...]] = ()
        _defaults: ClassVar[dict[str, Any]] = {}

    def __init__(self, *args: Any, **named: Any) -> None:
        fields = self._fields
        if len(args) > len(fields):
            raise TypeError(f"{type(self).__name__} takes {len(fields)} fields, {len(args)} were given")
        for field, value in zip(fields, args, strict=False):
            _set(self, field, value)
        for field in fields[len(args) :]:
            if field in named:
                _set(self, field, named.pop(field))
            elif field in self._defaults:
                _set(self, field, self._defaults[field])
            else:
                raise TypeError(f"{type(self).__name__} needs {field!r}")
        if named:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(named))}")

    def __setattr__(self, field: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable; use replace()")

    def __delattr__(self, field: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable; use replace()")

    def _values(self) -> tuple[Any, ...]:
        return tuple([getattr(self, field) for field in self._fields])

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self).__name__, self._values()))

    def __repr__(self) -> str:
        inner = ", ".join(f"{field}={getattr(self, field)!r}" for field in self._fields)
        return f"{type(self).__name__}({inner})"

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        return type(self), self._values()

    def replace(self, **changes: Any) -> Self:
        """Give a copy in which the named fields hold other values."""
        values = dict(zip(self._fields, self._values(), strict=True))
        return type(self)(**(values | changes))


def to_data(value: Any) -> Any:
    """Spell a field's value in what JSON can hold: a record becomes ``{"KIND": [field, ...]}``, a tuple a list."""
    if isinstance(value, Record):
        return {type(value).__name__: [to_data(field) for field in value._values()]}
    if isinstance(value, tuple):
        return [to_data(item) for item in value]
    return value


def from_data(data: Any) -> Any:
    """Read back what :func:`to_data` spelled.

    Raises ``ValueError`` where the kind is unknown or its fields do not fit: the text is of another version.
    """
    if isinstance(data, dict):
        if len(data) != 1:
            raise ValueError(f"not a record: {len(data)} kinds at once")
        ((kind, fields),) = data.items()
        if kind not in _kinds or not isinstance(fields, list):
            raise ValueError(f"not a record: {kind!r:.40}")
        try:
            return _kinds[kind](*[from_data(field) for field in fields])
        except TypeError as error:
            raise ValueError(f"not a record: {error}") from error
    if isinstance(data, list):
        return tuple([from_data(item) for item in data])
    if data is None or isinstance(data, (str, int)):
        return data
    raise ValueError(f"not a field of a record: {data!r:.40}")
