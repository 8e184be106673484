"""Stuck: what somebody intended and died over or gave up, and who went on with it could not finish, nor take back.

Rules: it is a row of ``meta`` beside the intent, with the reason, and means nothing without the intent. Who plans the same
anew, in his turn, has all before him that is still to be done: of several alike, only the last is kept.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vethwork.model.plan import Plan
    from vethwork.store.database import Store


def reasons(store: Store) -> dict[int, str]:
    """Why each stuck intent is, by its number."""
    return dict(store._all("SELECT id, value FROM intents JOIN meta ON key = 'stuck ' || id"))


def mark(store: Store, number: int, plan: Plan, why: str) -> None:
    """Record that a plan could not be finished, or taken back; a transaction."""
    with store.transaction():
        earlier = (plan.verb, plan.subject, number)
        store.execute("DELETE FROM intents WHERE verb = ? AND subject = ? AND id < ?", earlier)
        store.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"stuck {number}", why))
        known = "SELECT 'stuck ' || id FROM intents"
        store.execute(
            f"DELETE FROM meta WHERE key >= 'stuck ' AND key < 'stuck!' AND key NOT IN ({known})", ()
        )
