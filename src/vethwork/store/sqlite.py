"""``_sqlite3``, the C half of ``sqlite3``, loaded without ``functools``.

Theory. ``_sqlite3`` keeps what it has prepared in an ``lru_cache``, which it takes from ``functools`` while it is loaded and
calls with the size (CPython 3.11 to 3.14, Modules/_sqlite: load_functools_lru_cache, new_statement_cache). That brings
``collections``, ``operator`` and four more, and takes more than twice as long as all the rest of ``_sqlite3``. The
cache itself is of ``_functools``, which is part of every CPython. The other half of ``sqlite3`` is for dates, and costs as
much to load as an attach (docs/decisions/0014-start-up.md).

Rules: nobody but ``_sqlite3`` gets to see the stand-in. It is there only while ``_sqlite3`` is loaded, in a process that has
not loaded ``functools`` and runs no other thread that could ask for it. In any other process, and on a Python that wants
more of it than we lend, ``_sqlite3`` is loaded as it always is.
"""

from __future__ import annotations

import sys
from _functools import _lru_cache_wrapper  # type: ignore[import-not-found]
from _thread import _count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["sqlite3"]


def _lru_cache(maxsize: int) -> Callable[[object], object]:
    return lambda function: _lru_cache_wrapper(function, maxsize, False, tuple)


def _load_with_stand_in() -> None:
    stand_in = type(sys)("functools")
    stand_in.lru_cache = _lru_cache  # type: ignore[attr-defined]
    sys.modules["functools"] = stand_in
    try:
        __import__("_sqlite3")
    except (ImportError, AttributeError):
        return  # the import below tells what is wrong, or does better
    finally:
        del sys.modules["functools"]


if "functools" not in sys.modules and not _count():
    _load_with_stand_in()

import _sqlite3 as sqlite3  # noqa: E402
