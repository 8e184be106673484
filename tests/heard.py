"""What a tool answers: its exit status and what it said, whoever called it and in whatever way."""

from __future__ import annotations

import json
from typing import Any, NamedTuple


class Heard(NamedTuple):
    """An answer."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one document on standard output."""
        return json.loads(self.out)
