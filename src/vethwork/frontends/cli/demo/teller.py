"""How the demo looks: headings, commands, what they did, and proofs.

Rules: colours only on a terminal; the text alone says everything. Lines are broken here and nowhere else: prose between words,
commands between arguments, as a shell takes them. What the output's encoding cannot say is said in ASCII.
"""

from __future__ import annotations

import shlex
import sys
import textwrap
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WIDEST, PIPED = 100, 100
INDENT = "   "
NARROW = 90
NO_BREAK = "\N{NO-BREAK SPACE}"
APART = {(before, now) for now in ("command", "lines", "proof") for before in ("title", "prose")} | {
    ("proof", "command"),
    ("proof", "lines"),
    *[(before, "prose") for before in ("title", "prose", "command", "lines", "proof")],
}
"""What is kept apart by an empty line: who came before, who comes now."""
IN_ASCII = str.maketrans(
    {"✓": "+", "✗": "!", "│": "|", "─": "-", "═": "=", "┌": "+", "┐": "+", "└": "+", "┘": "+"}
    | {"├": "|", "┬": "+", "┴": "+", "◄": "<", "→": ">", "·": "-", "…": "~"}
)


class Teller:
    """Writes to standard output, line by line."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._ascii = not (sys.stdout.encoding or "").lower().startswith("utf")
        self.width = min(self._console.width, WIDEST) if self._console.is_terminal else PIPED
        self._before = ""

    def _begin(self, kind: str) -> None:
        """Set what comes now apart from what came before, where the two do not belong together."""
        if (self._before, kind) in APART or (self._before and kind in ("title", "heading")):
            self.line()
        self._before = kind

    def line(self, *parts: str | tuple[str, str]) -> None:
        """One line of pieces, each plain or with a style."""
        made = Text()
        for part in parts:
            text, style = (part, "") if isinstance(part, str) else part
            made.append(text.translate(IN_ASCII) if self._ascii else text, style)
        made.rstrip()
        self._console.print(made, soft_wrap=True)

    def title(self, text: str) -> None:
        """What it is all about."""
        self._begin("title")
        self.line((text, "bold"))

    def heading(self, number: int, text: str) -> None:
        """A chapter begins."""
        self._begin("heading")
        self.line((f"{number}  ", "bold cyan"), (text, "bold"))

    def say(self, text: str) -> None:
        """A paragraph of plain prose."""
        self._begin("prose")
        for line in textwrap.wrap(text, self.width - len(INDENT), break_on_hyphens=False):
            self.line(INDENT, line)

    def command(self, arguments: Sequence[str]) -> None:
        """What is typed, in as many lines as it takes."""
        self._begin("command")
        lines = [""]
        for words in _grouped(arguments):
            if lines[-1] and len(lines[-1]) + 1 + len(words) > self.width - len(INDENT) - 4:
                lines.append("  ")
            lines[-1] += f" {words}" if lines[-1].strip() else words
        for place, text in enumerate(lines):
            end = " \\" if place < len(lines) - 1 else ""
            self.line((f"{INDENT}{' ' if place else '$'} ", "dim"), (text + end, "bold"))

    def lines(self, lines: Iterable[str], style: str = "dim", indent: int = 4) -> None:
        """What a command said or did; a line that is too long goes on below, ``indent`` further in."""
        self._begin("lines")
        for text in lines:
            wrapped = textwrap.wrap(
                text,
                self.width - len(INDENT) - 2,
                subsequent_indent=" " * indent,
                break_on_hyphens=False,
                break_long_words=False,
                drop_whitespace=True,
            )
            for line in wrapped or [""]:
                self.line((f"{INDENT}  {line.replace(NO_BREAK, ' ')}", style))

    def proof(self, holds: bool, claim: str, result: str, *, refused: bool = False) -> None:
        """Something was tried; ``result`` is what came back. ``refused``: that it fails is the point."""
        self._begin("proof")
        mark = ("✓ ", "bold green") if holds else ("✗ ", "bold red")
        style = "bold red" if not holds else "yellow" if refused else "green"
        room = self.width - len(INDENT) - 2
        column = 43 if self.width < NARROW else 50
        if max(len(claim) + 2, column) + len(result) <= room:
            self.line(INDENT, mark, f"{claim + '  ':{column}}", (result, style))
            return
        first, *more = textwrap.wrap(claim, room, break_on_hyphens=False)
        self.line(INDENT, mark, first)
        for line in (*more, *textwrap.wrap(result, room - 2, break_on_hyphens=False)):
            self.line(f"{INDENT}    ", (line, style))


def _grouped(arguments: Sequence[str]) -> list[str]:
    """Arguments as a shell takes them, an option together with what belongs to it."""
    groups: list[str] = []
    for word in arguments:
        if groups and not word.startswith("-"):
            groups[-1] += f" {shlex.quote(word)}"
        else:
            groups.append(shlex.quote(word))
    return groups
