"""Stuck: what somebody intended and died over or gave up, and who went on with it could not finish, nor take back.

Rules: it is a row of ``meta`` beside the intent, with the reason; it goes with the intent. ``forget`` and
``forget_earlier`` are called within a transaction.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vethwork.model.plan import Plan
    from vethwork.store.database import Store


class Stuck:
    """The stuck intents of a store; made anew for each use."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def reasons(self) -> dict[int, str]:
        """Why each is stuck, by the number of its intent."""
        rows = self._store._all("SELECT key, value FROM meta WHERE key >= 'stuck ' AND key < 'stuck!'")
        return {int(key.partition(" ")[2]): why for key, why in rows}

    def mark(self, number: int, plan: Plan, why: str) -> None:
        """Record that a plan could not be finished, or taken back; a transaction."""
        with self._store.transaction():
            self.forget_earlier(number, plan)
            self._store.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"stuck {number}", why))

    def forget(self, number: int) -> None:
        """It is finished, or taken back."""
        self._store.execute("DELETE FROM meta WHERE key = ?", (f"stuck {number}",))

    def forget_earlier(self, number: int, plan: Plan) -> None:
        """Who plans the same anew, in his turn, has all before him that is still to be done."""
        earlier = (plan.verb, plan.subject, number)
        where = "FROM intents WHERE verb = ? AND subject = ? AND id < ?"
        self._store.execute(f"DELETE FROM meta WHERE key IN (SELECT 'stuck ' || id {where})", earlier)
        self._store.execute(f"DELETE {where}", earlier)
