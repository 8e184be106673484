"""How a launcher's process ends: at once, and for whoever started it as the interpreter would have ended it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import vethwork

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = os.path.dirname(os.path.dirname(vethwork.__file__))

# A front-end whose work is the text that follows, called by the launcher or, to compare, as it is.
PROGRAM = """
import sys
sys.path.append(sys.argv.pop(1))
launched = sys.argv.pop(1)
from vethwork import launch
from vethwork.frontends.cni import main as front_end
def main(stdin):
{work}
front_end.main = main
launch.cni() if launched else main(None)
"""

ENDS = {
    "nothing": "pass",
    "done": "sys.stdout.write('well'); sys.exit(0)",
    "no status": "sys.exit()",
    "failed": "sys.stdout.write('well'); sys.stderr.write('not well'); sys.exit(7)",
    "true": "sys.exit(True)",
    "large": "sys.exit(256 + 3)",
    "negative": "sys.exit(-1)",
    "text": "sys.exit('all is lost')",
    "empty text": "sys.exit('')",
    "raised": "sys.stdout.write('well'); raise KeyError('unforeseen')",
    "interrupted": "raise KeyboardInterrupt",
    "closed": "sys.stdout.close(); sys.exit(4)",
    "away": "sys.stdout = None; sys.exit(5)",
}


def end(work: str, *, launched: bool, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """How a process ends that does ``work``."""
    program = PROGRAM.format(work="    " + work)
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, SOURCE, "launched" * launched],
        env={"CNI_COMMAND": "VERSION"},  # which is not handed over
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=30,
    )


def told(ended: subprocess.CompletedProcess[str]) -> tuple[int, str | None, str]:
    """What is known of it outside; of a traceback, its last line."""
    trace, _, last = ended.stderr.rstrip("\n").rpartition("\n")
    return ended.returncode, ended.stdout, last if "Traceback" in trace else ended.stderr


@pytest.mark.parametrize("work", ENDS.values(), ids=ENDS)
def test_ends_as_the_interpreter_would(work: str) -> None:
    assert told(end(work, launched=True)) == told(end(work, launched=False))


@pytest.mark.parametrize("status", [0, 3])
def test_an_answer_that_cannot_be_written_is_a_failure(status: int) -> None:
    work = f"sys.stdout.write('well'); sys.exit({status})"
    with open("/dev/full", "w") as full:
        ended = [end(work, launched=launched, stdout=full.fileno()) for launched in (True, False)]
    assert told(ended[0]) == told(ended[1])
    assert ended[0].returncode != 0


def test_ends_at_once(tmp_path: Path) -> None:
    """Nothing is taken down: what a module wants done at the end is not done."""
    mark = tmp_path / "mark"
    work = f"import atexit; atexit.register(open, {str(mark)!r}, 'w'); sys.exit(0)"
    assert end(work, launched=True).returncode == 0
    assert not mark.exists()
    assert end(work, launched=False).returncode == 0
    assert mark.exists()
