"""What the service's guard says when it cannot watch: the test plays a guard that rests once and then stops."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from vethwork.maintenance.reconciler import Guard
from vethwork.service.reconciler_thread import _watch

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


class Tired:
    """A guard that has no work left once it has rested."""

    is_stopped = False

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def watch(self, _: object) -> None:
        """Fail as told."""
        assert self.error is not None
        raise self.error

    def rest(self, _: float) -> None:
        """Be stopped in the meantime."""
        self.is_stopped = True


def said_by(guard: Tired, root: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    _watch(cast("Guard", guard), str(root), str(root))
    return capsys.readouterr().err.splitlines()


def test_damaged_records_are_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"nonsense" * 1000)
    said = f"vethwork: the watch goes on in 5 seconds: read {path}: file is not a database (kept as {path}.damaged-1; "
    (line,) = said_by(Tired(), tmp_path, capsys)
    assert line.startswith(said)


def test_what_nobody_foresaw_is_told_with_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said_by(Tired(ZeroDivisionError("unforeseen")), tmp_path, capsys)
    assert lines[0] == "vethwork: the watch goes on in 5 seconds: Traceback (most recent call last):"
    assert lines[-1] == "ZeroDivisionError: unforeseen"
