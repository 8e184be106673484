"""JSON text (RFC 8259): of documents, and of records.

Theory. ``json`` is mostly Python: it loads ``re`` and with it ``enum``, and that costs more than a whole attach. Its C half,
``_json``, does the work and loads nothing; it is what ``json`` itself uses, with the same arguments, on every CPython. Only
to say what is wrong with a text it wants the Python half. The tests hold this module against ``json``.

Rules: a record is spelled ``{"KIND": [field, ...]}``, a tuple as a list. Reading raises ValueError for what is no JSON, and
for what only Python takes for a number (``NaN``); nesting that is too deep for the interpreter is a RecursionError.
"""

from __future__ import annotations

import _json

from vethwork.model.record import Record, from_fields, to_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BLANKS = " \t\n\r"


def _refuse_number(text: str) -> object:
    raise ValueError(f"{text}: is not a number that is allowed here")


class _Documents:
    """How documents are read: what the C half looks up on the ``json.JSONDecoder`` that it is made for."""

    strict = True
    object_hook: Any = None
    object_pairs_hook: Any = None
    parse_float, parse_int = float, int
    parse_constant = staticmethod(_refuse_number)


class _Records(_Documents):
    """How records are read: no field of one holds a number that is not whole."""

    object_hook = staticmethod(from_fields)
    parse_float = staticmethod(_refuse_number)  # type: ignore[assignment]


# It takes anything with these attributes, also a class.
_scan_document = _json.make_scanner(_Documents)  # type: ignore[arg-type]
_scan_record = _json.make_scanner(_Records)  # type: ignore[arg-type]


def _speller(colon: str, comma: str) -> Any:
    ascii_only = _json.encode_basestring_ascii
    return _json.make_encoder(None, to_fields, ascii_only, None, colon, comma, False, False, False)


_spell_document, _spell_record = _speller(": ", ", "), _speller(":", ",")


def parse_json(text: str) -> Any:
    """Read a document. Raises ValueError or RecursionError."""
    return _parse(_scan_document, text)


def spell_json(document: object) -> str:
    """Spell a document on one line, in ASCII."""
    return "".join(_spell_document(document, 0))


def parse_record(text: str) -> Any:
    """Read back what :func:`spell_record` gave. Raises ValueError where the text is not ours, or another version's."""
    found = _parse(_scan_record, text)
    if not isinstance(found, Record):
        raise ValueError(f"not a record: {found!r:.40}")
    return found


def spell_record(record: Record) -> str:
    """Spell a record with all that is in it."""
    return "".join(_spell_record(record, 0))


def _parse(scan: Any, text: str) -> Any:
    begin = 0
    while begin < len(text) and text[begin] in _BLANKS:
        begin += 1
    try:
        found, end = scan(text, begin)
    except (StopIteration, SystemError):
        raise _complaint(text) from None
    if end < len(text) and text[end:].strip(_BLANKS):
        raise _complaint(text)
    return found


def _complaint(text: str) -> ValueError:
    from json import loads

    try:
        loads(text)
    except ValueError as error:
        return error
    return ValueError("not JSON")
