"""How the command line shows things: tables for people, JSON for programs, plans as commands.

Rules: a table written to something that is no terminal is neither coloured nor cut.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vethwork.model.plan import Plan

WIDE = 1000


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under a heading."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, no_wrap=not sys.stdout.isatty(), overflow="fold")
    for row in rows:
        made.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(made)
    for line in captured.get().splitlines():
        print(line.rstrip())


def document(value: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(value, indent=2))


def plan(made: Plan) -> None:
    """Print a plan as the commands that a person would have typed."""
    print(f"# {made.verb} {made.subject}")
    for command in made.commands():
        print(command)
