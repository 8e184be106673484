"""A plan: what will be done, what will be on record, and what happens if we die in between.

Rules: a plan is pure data and holds all that is needed to undo or to finish it, by another process, on another day.
``forward`` says which: a plan that opens is undone, a plan that closes is finished.
"""

from __future__ import annotations

from vethwork.model.record import Record
from vethwork.model.steps import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from vethwork.model.container import Container, Endpoint, Publication
    from vethwork.model.network import Forwarding, Network
    from vethwork.model.process import ProcessRow

    Row: TypeAlias = Network | Container | Endpoint | Publication | Forwarding | ProcessRow


def is_worldly(verb: str) -> bool:
    """Whether a plan of that verb is about networks, which nobody may use meanwhile, and not about one container."""
    return verb.endswith(" network")


class Plan(Record):
    """``verb`` and ``subject`` name it (``attach web``). ``adds`` are on record before the first step, ``removes`` until
    after the last."""

    verb: str
    subject: str
    steps: tuple[Step, ...]
    adds: tuple[Row, ...] = ()
    removes: tuple[Row, ...] = ()
    forward: bool = False

    def backward(self) -> tuple[Step, ...]:
        """The steps that take back every prefix of the plan, last first."""
        return tuple([undo for step in reversed(self.steps) for undo in step.undo()])

    def recovery(self) -> tuple[Step, ...]:
        """What is left to do for a plan whose process died somewhere in it."""
        return self.steps if self.forward else self.backward()

    def commands(self) -> tuple[str, ...]:
        """The whole plan as shell commands."""
        return tuple([command for step in self.steps for command in step.describe()])


class Fault(Record):
    """What is not as it is on record, in ``words``, and the steps that put it back, beside what is always done with them."""

    words: str
    steps: tuple[Step, ...] = ()
