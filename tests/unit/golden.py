"""Golden files: text that is checked in, read by people, and compared with what the code says now.

``UPDATE_GOLDEN=1 pytest tests/unit`` writes them anew; the difference is then reviewed like prose.
"""

from __future__ import annotations

import os
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"


def assert_golden(name: str, text: str) -> None:
    """Hold a text against the golden file of that name."""
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"UPDATE_GOLDEN=1 writes {path.name} anew"
