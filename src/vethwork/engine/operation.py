"""Carrying a plan out, so that it is never half done.

    intend    a short transaction: the plan and what it adds are on record; who comes next sees them
    apply     the kernel works; no transaction is open, attaches run side by side
    settle    a short transaction: it is so

Theory. rtnetlink has no transactions, and any process may die at any instruction. So the plan is on record before the first
step. The locks of an operation end with its process (``store.locks``): an intent whose lock can be taken belongs to the
dead, and is undone (a plan that opens) or finished (a plan that closes) by whoever comes next.

A plan that cannot be finished is *stuck*: it is told (``vethwork doctor``), and tried again by gc, by restore, by who works on
networks, and by who works on the same container; nobody else is kept waiting by it.

Rules: container first, then the world. Who works on a container shares the world; who works on networks, replaces the
whole ruleset, or touches what two containers have in common (a cable, a namespace), has it alone. So nobody replaces the
ruleset while somebody changes it.
"""

from __future__ import annotations

from zlib import crc32

from vethwork.errors import ConflictError, Incomplete, KernelRefused, StateError, VethworkError
from vethwork.model.network import Forwarding
from vethwork.model.plan import Plan, is_worldly
from vethwork.model.ruleset import Landmark
from vethwork.model.steps import ChangeElements, DeleteLink, ForgetFlows, LoadRuleset, UnpinNetns
from vethwork.plan.elements import all_elements
from vethwork.store.locks import Locks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol, Self

    from vethwork.kernel.executor import Kernel
    from vethwork.model.ruleset import Element
    from vethwork.store.database import Store

    class Reaper(Protocol):
        """Who finishes what is left of a detach; see ``reaper``."""

        is_awaited: bool
        """Whether nobody goes on before all is finished."""

        def take(self, locks: Locks, number: int, plan: Plan) -> None:
            """Finish it, and close the locks."""

        def holds(self, number: int) -> bool:
            """Whether it has the intent of that number."""

        def hurry(self) -> None:
            """Somebody may wait for it."""

    Watch = Callable[[object], None]
    Rehearse = Callable[[Plan], None]


LANDMARKS = (Landmark("bridge", "forward", 1), Landmark("inet", "postrouting", 8))
"""Of the tables of ``plan.ruleset``, which is loaded only where there is more to do than to look for these."""
PROMPT, LATE = (ChangeElements, UnpinNetns), (ForgetFlows, DeleteLink)
"""The steps of a detach that close, and those that take the kernel long and may follow: by then nothing passes any more."""


class Rehearsal:
    """An engine that only shows its plans: to whom, and whether they have been shown the loading of the ruleset."""

    def __init__(self, show: Rehearse) -> None:
        self.show = show
        self.has_ruleset = False


class Execution:
    """One operation: its locks, and the plans that it carries out. A context manager.

    ``watch`` is told of every milestone: ``"intend"``, each step, ``"settle"``. With ``rehearse`` the plan is handed over
    instead of being applied.
    """

    def __init__(
        self,
        store: Store,
        kernel: Kernel,
        root: str,
        *,
        watch: Watch | None,
        rehearse: Rehearsal | None,
        reaper: Reaper | None = None,
    ) -> None:
        self._store = store
        self._kernel = kernel
        self._locks = Locks(f"{root}/locks", rehearsal=rehearse is not None)
        self._root = root
        self._watch = watch
        self._rehearse = rehearse
        self._reaper = reaper
        self._container = ""
        self._exclusive = False
        self._left = False
        self._is_thorough = False
        self.unsettled: frozenset[str] = frozenset()
        """What somebody was at, or died over, when this began; of networks all, for who changes one has the world alone."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._kernel.leave_namespaces()
        if not self._left:  # else the locks are the reaper's
            self._locks.close()

    def begin(
        self,
        container: str = "",
        *,
        exclusive: bool = False,
        needs_world: Callable[[], bool] | None = None,
    ) -> Self:
        """Wait for the turn of this operation, and clear up after the dead. Raises Incomplete if that fails here.

        ``needs_world`` is asked in the turn of the container whether what will be done is another container's too.
        """
        self._container = container
        self._is_thorough = exclusive
        self._kernel.mend, self._kernel.landmarks = self.load_ruleset, LANDMARKS
        try:
            if container:
                self._wait_for(container)
            if exclusive:
                self._take_world()
            else:
                self._share_world()
            self._move_in()
            if self._rehearse is None:
                self._recover()
            if needs_world is not None and needs_world():
                self._be_alone()
        except BaseException:
            self._locks.close()
            raise
        return self

    def _wait_for(self, container: str) -> None:
        if not self._locks.try_container(container):
            if self._reaper is not None:
                self._reaper.hurry()
            self._locks.container(container)

    def _be_alone(self) -> None:
        if not self._exclusive:
            self._take_world()
            if self._rehearse is None:
                self._recover_all()

    def _take_world(self) -> None:
        if self._reaper is not None:
            self._reaper.hurry()
        self._locks.leave_world()  # two who convert a shared lock would wait for each other
        self._locks.world(exclusive=True)
        self._exclusive = True

    def _share_world(self) -> None:
        self._locks.world(exclusive=False)
        self._exclusive = False

    def _move_in(self) -> None:
        """See that the records are about this host. Raises ConflictError."""
        while self._kernel.host not in (0, self._store.host()):
            from vethwork.engine.host_binding import move_in

            shared = not self._exclusive
            if shared:
                self._take_world()
            move_in(self._store, self._kernel)
            if shared:
                self._share_world()  # which may let somebody in between, who is on another host

    def _recover(self) -> None:
        intended = self._unfinished()
        if not intended:
            return
        if any(is_worldly(verb) for _, verb, _ in intended) and not self._exclusive:
            self._take_world()  # nobody alive has it alone: these are dead
            self._recover_all()
            self._share_world()
        else:
            self._recover_all()

    def _unfinished(self) -> list[tuple[int, str, str]]:
        """What is to be gone on with here, and not by the reaper, who may have hundreds: number, verb and subject."""
        intended = self._store.intended()
        self.unsettled = frozenset([subject for _, _, subject in intended])
        if self._reaper is not None:
            intended = [each for each in intended if not self._reaper.holds(each[0])]
        known = stuck(self._store) if intended and not self._is_thorough else {}
        return [each for each in intended if each[0] not in known or each[2] == self._container]

    def _recover_all(self) -> None:
        for number, verb, subject in self._unfinished():
            if is_worldly(verb) or subject == self._container or self._locks.try_container(subject):
                plan = self._store.intent(number)
                if plan is None:
                    continue  # whoever was at it is done since, and that is why the lock was free
                errors = self._kernel.attempt(plan.recovery(), self._watch)
                if not errors:
                    self._close(number, plan)
                    continue
                self._mark_stuck(number, plan, errors)
                if subject == self._container:
                    raise Incomplete(f"clear up after {verb} {subject}", errors)

    def _mark_stuck(self, number: int, plan: Plan, errors: list[VethworkError]) -> None:
        from vethwork.store.failed_intents import mark

        mark(self._store, number, plan, "; ".join(map(str, errors)))

    def _close(self, number: int, plan: Plan) -> None:
        with self._store.transaction():
            (self._store.settle if plan.forward else self._store.retract)(number, plan)

    def carry_out(self, make: Callable[[], Plan], *, wait: bool = True) -> Plan:
        """Plan and intend in one transaction, apply, settle. ``make`` sees the records as the transaction does.

        ``wait`` False: where there is a reaper, the deletion of links and what follows is left to it, and this operation is
        at its end.

        Raises what ``make`` raises, with nothing changed; KernelRefused, with everything undone; Incomplete, if that or a
        teardown could not be finished: then the intent stays, and the next operation goes on with it.
        """
        with self._store.transaction():
            plan = make()
            number = self._store.intend(plan)
        if self._rehearse is not None:
            self._show(plan)
            self._settle(number, plan)
        elif plan.forward:
            self._finish(number, plan, wait=wait or self._reaper is None)
        else:
            self._do_or_undo(number, plan)
        self._tell("settle")
        return plan

    def _show(self, plan: Plan) -> None:
        """Show a plan, with what :attr:`Kernel.mend` would do before its first change of a ruleset that is not there.

        To delete a link that is gone is fine for us, and an error for ip(8).
        """
        from vethwork.plan.ruleset import TABLES

        assert self._rehearse is not None
        changes = [step for step in plan.steps if isinstance(step, ChangeElements) and step.adds]
        loads = any(isinstance(step, LoadRuleset) for step in plan.steps)
        if changes and not loads and not self._rehearse.has_ruleset and not self._kernel.nft.is_whole(TABLES):
            loads = True
            own = {element for step in changes for element in step.adds}
            load = self.ruleset_step()
            load = load.replace(elements=tuple([each for each in load.elements if each not in own]))
            place = plan.steps.index(changes[0])
            plan = plan.replace(steps=(*plan.steps[:place], load, *plan.steps[place:]))
        self._rehearse.has_ruleset |= loads
        left = [step for step in plan.steps if not isinstance(step, DeleteLink) or self._kernel.finds(step)]
        self._rehearse.show(plan.replace(steps=tuple(left)))

    def _settle(self, number: int, plan: Plan) -> None:
        with self._store.transaction():
            self._store.settle(number, plan)

    def _finish(self, number: int, plan: Plan, *, wait: bool) -> None:
        self._tell("intend")
        if not wait and self._leave_rest(number, plan):
            return
        errors = self._kernel.attempt(plan.steps, self._watch)
        if errors and (plan.adds or plan.removes):
            self._mark_stuck(number, plan, errors)
        else:  # what no record is about, whoever looks for it next sees again
            self._settle(number, plan)
        if errors:
            raise Incomplete(f"{plan.verb} {plan.subject}", errors)

    def _leave_rest(self, number: int, plan: Plan) -> bool:
        """Close all, and leave the rest to the reaper; False if that cannot be, or did not go as it should."""
        links = [step for step in plan.steps if isinstance(step, DeleteLink)]
        prompt = [step for step in plan.steps if isinstance(step, PROMPT)]
        whole = all(isinstance(step, PROMPT + LATE) for step in plan.steps)
        if not links or not whole or any(step.netns for step in links):
            return False
        assert self._reaper is not None
        try:
            self._kernel.apply(prompt, self._watch)
            self._kernel.retire(links, down=not self._reaper.is_awaited)
        except VethworkError:
            return False
        self._reaper.take(self._locks, number, plan)
        self._left = True
        return True

    def _do_or_undo(self, number: int, plan: Plan) -> None:
        try:
            self._tell("intend")
            self._kernel.apply(plan.steps, self._watch)
            self._settle(number, plan)
        except BaseException as error:
            left = self._kernel.attempt(plan.backward(), self._watch)
            if left and isinstance(error, VethworkError):
                raise Incomplete(f"{plan.verb} {plan.subject}", (error, *left)) from error
            if not left:
                self._close_if_possible(number, plan)
            raise

    def _close_if_possible(self, number: int, plan: Plan) -> None:
        """Where the records cannot be written either, the intent stays, and the next operation closes it."""
        try:
            self._close(number, plan)
        except StateError:
            return

    def _tell(self, milestone: str) -> None:
        if self._watch is not None:
            self._watch(milestone)

    def load_ruleset(self) -> None:
        """Bring the whole ruleset back from what is on record, in one batch, unless somebody has meanwhile."""
        from vethwork.plan.ruleset import TABLES

        shared = not self._exclusive
        if shared:
            self._take_world()
        if not self._kernel.nft.is_whole(TABLES):
            self.check_owner()
            self._kernel.apply((self.ruleset_step(),), self._watch)
        if shared:
            self._share_world()

    def ruleset_step(self) -> LoadRuleset:
        """The step that makes the ruleset what the records say; not within a transaction."""
        from vethwork.plan.ruleset import TABLES

        self._adopt_guards()
        mark = mark_of(self._root)
        tables = tuple([table.replace(comment=mark) for table in TABLES])
        return LoadRuleset(tables, recorded_elements(self._store))

    def _adopt_guards(self) -> None:
        """Put on record what our ruleset guards and no record knows: the state file was lost.

        While the host forwards, which it does because we turned it on, the guard is ours to keep.
        """
        from vethwork.kernel.host_state import forwarded
        from vethwork.plan.ruleset import INET

        try:
            held = {element.key[0] for element in self._kernel.nft.elements(INET, "guarded")}
        except KernelRefused:
            return  # there is no such set, or no such table
        known = {each.version for each in self._store.forwarding()}
        lost = [each for each in forwarded() if f"ipv{each}" in held and each not in known]
        if lost:
            adopted = Plan("adopt network", "guards", (), adds=tuple(map(Forwarding, lost)), forward=True)
            with self._store.transaction():
                self._store.settle(self._store.intend(adopted), adopted)

    def check_finished(self, network: str) -> None:
        """Refuse a network whose removal is stuck. Raises ConflictError."""
        known = stuck(self._store)
        for number, verb, subject in self._store.intended():
            if number in known and (verb, subject) == ("remove network", network):
                raise ConflictError(
                    f"network {network}: its removal could not be finished: {known[number]}",
                    hint="vethwork doctor",
                )

    def check_owner(self) -> None:
        """Refuse to work in a namespace that another engine works in. Raises ConflictError."""
        from vethwork.plan.ruleset import TABLES

        for table in TABLES:
            comment = self._kernel.nft.comment(table)
            if comment is not None and comment != mark_of(self._root):
                raise ConflictError(
                    f"table {table.family} {table.name}: is not ours, it says: {comment or 'nothing'}",
                    hint="one network namespace is the host of one engine: is VETHWORK_ROOT as it was?",
                )


def mark_of(root: str) -> str:
    """What our tables carry as their comment, which nft keeps to 127 bytes, without quotes: whose state they are made from."""
    fits = len(root.encode()) <= 100 and '"' not in root
    return f"state in {root if fits else f'...{crc32(root.encode()):08x}'}"


def stuck(store: Store) -> dict[int, str]:
    """Why what cannot be finished, or taken back, is stuck, by the number of its intent."""
    from vethwork.store.failed_intents import reasons  # which an attach need not load

    return reasons(store)


def recorded_elements(store: Store) -> tuple[Element, ...]:
    """The elements that the ruleset must have, by what is on record."""
    return all_elements(store.networks(), store.endpoints(), store.publications(), store.forwarding())
