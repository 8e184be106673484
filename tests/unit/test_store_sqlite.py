"""How the state file's library is loaded: without ``functools``, and without anybody noticing."""

from __future__ import annotations

import os
import subprocess
import sys

import vethwork

SOURCE = os.path.dirname(os.path.dirname(vethwork.__file__))
LOAD = "from vethwork.store.sqlite import sqlite3"


def run(*lines: str) -> str:
    """What a bare interpreter says to these."""
    program = "\n".join([f"import sys; sys.path.append({SOURCE!r})", *lines])
    command = [sys.executable, "-I", "-S", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_functools() -> None:
    assert run(LOAD, "print({'functools', 'collections', 'operator'} & set(sys.modules))") == "set()\n"


def test_prepared_statements_are_kept_and_let_go() -> None:
    """More of them than are kept, each twice."""
    asked = run(
        LOAD,
        "db = sqlite3.connect(':memory:', isolation_level=None, cached_statements=3)",
        "asked = [db.execute(f'SELECT {number} + ?', (1,)).fetchone()[0] for number in 2 * [*range(9)]]",
        "db.close()",
        "print(asked, 'functools' in sys.modules)",
    )
    assert asked == f"{2 * list(range(1, 10))} False\n"


def test_who_comes_next_gets_all_of_functools() -> None:
    after = (
        "import functools",
        "import sqlite3 as both",
        "assert both.connect is sqlite3.connect",
        "print(functools.partial(int, base=2)('11'), functools.lru_cache(int)('7'), functools.__spec__.name)",
    )
    assert run(LOAD, *after) == "3 7 functools\n"


def test_functools_that_is_loaded_stays() -> None:
    loaded = run("import functools", LOAD, "print(sys.modules['functools'] is functools)")
    assert loaded == "True\n"


def test_beside_other_threads_functools_is_loaded() -> None:
    """One of them may want it at any moment."""
    loaded = run(
        "import _thread",
        "stop, begun = _thread.allocate_lock(), _thread.allocate_lock()",
        "stop.acquire()",
        "begun.acquire()",
        "_thread.start_new_thread(lambda: begun.release() or stop.acquire(), ())",
        "begun.acquire()",
        LOAD,
        "print(hasattr(sys.modules['functools'], 'partial'))",
        "stop.release()",
    )
    assert loaded == "True\n"


def test_where_the_stand_in_does_not_do() -> None:
    """A Python whose ``_sqlite3`` wants more of it."""
    loaded = run(
        "class Wants:",
        "    def find_spec(self, name, path=None, target=None):",
        "        if name == '_sqlite3' and not hasattr(sys.modules.get('functools', sys), 'partial'):",
        "            import functools",
        "            print('wants', functools.partial)",
        "sys.meta_path.insert(0, Wants())",
        LOAD,
        "print(sqlite3.connect(':memory:').execute('SELECT 7').fetchone())",
    )
    assert loaded == "wants <class 'functools.partial'>\n(7,)\n"
