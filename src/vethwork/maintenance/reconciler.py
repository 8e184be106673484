"""The guard of a host: hears what happens to what is on record, and puts back what somebody changed or deleted.

    hear      events say where to look (``kernel.events``); sysctls, which nobody tells of, are read twice a second
    look      in nobody's way, and only where something happened
    mend      in the turn of what is mended (``repair``), where it is looked at once more
    sweep     everything is looked at when the guard begins, when events were lost, and once a minute

Theory. What is under way looks like a fault to who does not hold its locks: a link that has not joined its bridge yet. So a
fault is mended only in the turn of its container or, for a network, with the world to oneself: by then the operation is done,
and so is what the dead left. What somebody has an intent for is waited for first, so that the guard hears on meanwhile.

Rules: the cost is in proportion to what happens. What cannot be mended is told once, and tried again after pauses that
grow; who changes something again and again is left alone for a while. A container is let go of when its namespace is gone
*and* every link of it on the host: a guard that cannot see a namespace takes nothing away.
"""

from __future__ import annotations

from time import monotonic

from vethwork.errors import VethworkError
from vethwork.kernel.events import BUFFER_BYTES, Events
from vethwork.kernel.host_state import FORWARDING, has_ipv6, see_links
from vethwork.kernel.sysctl import Readings
from vethwork.kernel.table_owner import Owner, answer
from vethwork.maintenance.gc import own_ruleset
from vethwork.maintenance.repair import (
    endpoint_faults,
    links_of,
    mend_endpoint,
    mend_network,
    mend_ruleset,
    network_faults,
    ruleset_differs,
)
from vethwork.plan.drift import wanted_sysctls
from vethwork.process.lifecycle import discard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket
    from typing import Self, TypeAlias

    from vethwork.engine.engine import Engine
    from vethwork.kernel.events import Heard
    from vethwork.model.container import Container
    from vethwork.model.network import Network

    Subject: TypeAlias = tuple[str, str]

POLL_SECONDS, SWEEP_SECONDS, REST_SECONDS = 0.5, 60.0, 0.5
"""How often sysctls are read; how often everything is looked at; and how long at least between two looks at everything."""
RULES_SECONDS = 1.0
"""How long at least between two looks at the ruleset, where it has no owner."""
FIRST_PAUSE, LAST_PAUSE = 1.0, 60.0
OFTEN, OFTEN_SECONDS, TRUCE_SECONDS = 20, 60.0, 10.0
"""So many repairs of one thing within so many seconds are a quarrel with somebody, who is given that long to end it."""
WAIT_SECONDS, WAITS = 0.2, 25
"""How often, and how many times, it is looked whether an intent is settled, before its owner is taken for dead."""
KINDS = ("ruleset", "network", "link")
"""What is looked after, in the order in which it is mended."""
RULESET: Subject = ("ruleset", "")


class Trouble:
    """What became of one thing so far."""

    def __init__(self) -> None:
        self.until = 0.0
        self.pause = 0.0
        self.waits = 0
        self.said = ""
        self.mended: list[float] = []


class Guard:
    """Watches over the host of an engine. A context manager, that owns the ruleset from its begin to its end.

    ``say`` is told of each repair, and of what cannot be repaired. ``repaired`` is told what was repaired: ``ruleset``,
    ``network``, ``link``, or ``container`` for one let go of. :meth:`answer` may be called in any thread, and
    :meth:`watch` in one; the rest is for the thread that made it.
    """

    def __init__(
        self,
        owner_path: str,
        say: Callable[[str], None],
        repaired: Callable[[str], None] = lambda _: None,
        *,
        flags: int = Owner.flags,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        """``flags`` are those by which tables are owned. Raises KernelRefused."""
        self._events = Events(buffer_bytes)
        self._owner = Owner(owner_path, flags)
        self._say = say
        self._repaired = repaired
        self._stopping = False
        self._troubles: dict[Subject, Trouble] = {}
        self._later: dict[Subject, float] = {}
        self._swept = self._polled = self._ruled = float("-inf")
        self._is_blind = True
        self._generation = -1
        self._bridges: dict[str, Network] = {}
        self._engine: Engine
        self._sysctls: tuple[tuple[str, str, Network], ...] = ()
        self._readings = Readings(())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._owner.close()
        self._events.close()
        self._readings.close()

    @property
    def owns(self) -> bool:
        """Whether nobody else can change the ruleset."""
        return self._owner.owns

    def begin(self, engine: Engine) -> None:
        """Make the ruleset ours, and what the records say.

        Raises ConflictError if another process, or another engine, has it, and KernelRefused.
        """
        self._engine = engine
        own_ruleset(engine, self._owner)
        if not self._owner.owns:
            self._events.hear_rules()

    def answer(self, client: socket) -> None:
        """Send the batch of a process that may not change the ruleset itself; one that is cut short is nobody's."""
        answer(client, self._owner)

    @property
    def is_stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopping

    def rest(self, seconds: float) -> None:
        """Wait, until :meth:`stop` at most."""
        self._events.rest(seconds)

    def stop(self) -> None:
        """Let :meth:`watch` come to its end, in whichever thread it is."""
        self._stopping = True
        self._events.wake()

    def watch(self, engine: Engine) -> None:
        """Watch until :meth:`stop`. Raises StateError if the records cannot be read."""
        self._engine = engine
        while not self._stopping:
            now = monotonic()
            self.turn(min([POLL_SECONDS, *[max(0.0, at - now) for at in self._later.values()]]))

    def turn(self, seconds: float) -> None:
        """Hear for that long at most, and see to what was heard. Raises StateError if the records cannot be read."""
        heard = self._events.wait(seconds)
        if self._stopping:
            return
        now = monotonic()
        self._is_blind |= heard.lost
        sweeps = now > self._swept + (REST_SECONDS if self._is_blind else SWEEP_SECONDS)
        if sweeps:
            self._swept, self._is_blind = now, False
            self._engine.store.reopen()
            self._generation = -1
            recent = now - OFTEN_SECONDS
            self._troubles = {
                subject: trouble
                for subject, trouble in self._troubles.items()
                if subject in self._later or any(at > recent for at in trouble.mended)
            }
        self._remember()
        suspects = self._suspects(heard) | self._due(now)
        if sweeps:
            suspects |= self._everything()
        for subject in sorted(suspects, key=lambda each: KINDS.index(each[0])):
            self._see_to(subject)

    # Where to look.

    def _remember(self) -> None:
        """Know the bridges, and what they want of sysctls; from the records, when somebody has written."""
        generation = self._engine.store.generation()
        if generation == self._generation:
            return
        self._generation = generation
        networks = [network for network in self._engine.networks() if network.driver == "bridge"]
        ipv6 = has_ipv6()
        wanted = [
            (step.path, step.value, network)
            for network in networks
            for step in wanted_sysctls(network, ipv6=ipv6)
        ]
        wanted += [
            (FORWARDING[version], "1", network)
            for network in networks
            for version in (network.versions if network.routed else ())
        ]
        self._bridges = {network.device: network for network in networks}
        if self._sysctls != (found := tuple(wanted)):
            self._sysctls = found
            self._readings.close()
            self._readings = Readings(path for path, _, _ in found)

    def _suspects(self, heard: Heard) -> set[Subject]:
        found: set[Subject] = set()
        if heard.rules:  # every detach is heard of, and to look takes longer the more there is
            self._later.setdefault(RULESET, self._ruled + RULES_SECONDS)
        for ifname in heard.links:
            network = self._bridges.get(ifname)
            endpoint = self._engine.store.endpoint_by(ifname) if network is None else None
            if network is not None:
                found.add(("network", network.name))
            elif endpoint is not None:
                found.add(("link", endpoint.host_ifname))
        if heard.indexes or heard.routes:
            door = self._engine.kernel.door("")
            found |= {
                ("network", network.name)
                for device, network in self._bridges.items()
                if heard.routes or door.find(device) in heard.indexes
            }
        return found

    def _due(self, now: float) -> set[Subject]:
        """What was put off until now, and whose sysctls are not as they should be."""
        due = {subject for subject, at in self._later.items() if at <= now}
        for subject in due:
            del self._later[subject]
        if now > self._polled + POLL_SECONDS * 0.9:
            self._polled = now
            values = self._readings.values()
            due |= {
                ("network", network.name)
                for path, value, network in self._sysctls
                if values[path] not in (None, value)
            }
        return due

    def _everything(self) -> set[Subject]:
        """The ruleset, every network, and the links that do not look as they should."""
        store = self._engine.store
        networks = {network.name: network for network in self._bridges.values()}
        containers = {container.name: container for container in store.containers()}
        endpoints = [each for each in store.endpoints() if each.network in networks]
        names = {name for each in endpoints for name in links_of(each, networks[each.network])}
        links = see_links(self._engine.kernel, names)
        found: set[Subject] = {RULESET, *[("network", name) for name in networks]}
        for each in endpoints:
            container = containers.get(each.container)
            if container is None or _is_wrong(
                endpoint_faults, container, each, networks[each.network], links
            ):
                found.add(("link", each.host_ifname))
        return found

    # What to do about it.

    def _see_to(self, subject: Subject) -> None:
        """Look at one thing, and mend it. What stands in the way is told, and it is looked at again later."""
        trouble = self._troubles.setdefault(subject, Trouble())
        now = monotonic()
        if now < trouble.until:
            self._later[subject] = trouble.until
            return
        try:
            whose = self._look(subject)
            if (
                whose
                and not trouble.pause
                and trouble.waits < WAITS
                and self._engine.store.is_intended(whose)
            ):
                trouble.waits += 1
                self._later[subject] = now + WAIT_SECONDS
                return
            counted, lines = self._mend(subject) if whose else ("", ())
        except VethworkError as error:
            trouble.pause = min(trouble.pause * 2 or FIRST_PAUSE, LAST_PAUSE)
            trouble.until = self._later[subject] = now + trouble.pause
            self._tell_once(trouble, f"{' '.join(subject)}: cannot be put back: {error}")
            return
        if lines:
            self._generation = -1  # what this engine writes itself is no news to it
            self._repaired(counted)
            self._count(subject, trouble, lines)
        elif not trouble.mended:
            del self._troubles[subject]

    def _tell_once(self, trouble: Trouble, line: str) -> None:
        if line != trouble.said:
            trouble.said = line
            self._say(line)

    def _count(self, subject: Subject, trouble: Trouble, lines: tuple[str, ...]) -> None:
        """Tell what was mended, and remember it for a while."""
        now = monotonic()
        recent = [at for at in trouble.mended if at > now - OFTEN_SECONDS]
        trouble.mended, trouble.pause, trouble.waits = [*recent, now], 0.0, 0
        for line in lines:
            self._say(line)
        if len(trouble.mended) > OFTEN:
            trouble.until = now + TRUCE_SECONDS
            self._tell_once(
                trouble, f"{' '.join(subject)}: somebody keeps changing it, who is left alone for a while"
            )

    def _look(self, subject: Subject) -> str:
        """Who has it that something is wrong with, as an intent names it; empty if all is well, or nobody has it any more.

        Where a look fails, for what it is about may go while it is looked at, it is looked at again in its turn.
        """
        kind, name = subject
        store = self._engine.store
        if kind == "ruleset":
            self._ruled = monotonic()
            return "rules" if _is_wrong(ruleset_differs, self._engine) else ""
        if kind == "network":
            network = store.network(name)
            if network is None or not _is_wrong(network_faults, self._engine, network):
                return ""
            return name
        endpoint = store.endpoint_by(name)
        container = store.container(endpoint.container) if endpoint is not None else None
        network = store.network(endpoint.network) if endpoint is not None else None
        if endpoint is None or container is None or network is None:
            return ""
        links = see_links(self._engine.kernel, links_of(endpoint, network))
        wrong = _is_wrong(endpoint_faults, container, endpoint, network, links)
        return container.name if wrong else ""

    def _mend(self, subject: Subject) -> tuple[str, tuple[str, ...]]:
        """Gives as what it counts, and what was done, in words."""
        kind, name = subject
        engine = self._engine
        if kind == "link":
            return self._mend_link(name)
        with engine.execution().begin(exclusive=True) as execution:
            execution.check_owner()
            network = engine.store.network(name)
            lines: tuple[str, ...] = ()
            if kind == "ruleset":
                lines = mend_ruleset(engine, execution)
            elif network is not None:
                lines = mend_network(engine, execution, network)
        return kind, _put_back(lines)

    def _mend_link(self, ifname: str) -> tuple[str, tuple[str, ...]]:
        engine = self._engine
        endpoint = engine.store.endpoint_by(ifname)
        container = engine.store.container(endpoint.container) if endpoint is not None else None
        if endpoint is None or container is None:
            return "link", ()
        if not engine.lives(container):
            return "container", self._let_go(container)
        with engine.turn(container.name) as execution:
            return "link", _put_back(mend_endpoint(engine, execution, endpoint))

    def _let_go(self, container: Container) -> tuple[str, ...]:
        """Forget a container whose namespace is gone, unless a link of it is there: then it only cannot be seen from here."""
        engine = self._engine
        ends = [each.host_ifname for each in engine.store.endpoints_of(container.name) if each.host_ifname]
        if see_links(engine.kernel, ends) or not discard(engine, container.name, dead=True):
            return ()
        return (f"container {container.name}: its namespace {container.netns} is gone: let go of",)


def _is_wrong(look: Callable[..., object], *of: object) -> bool:
    try:
        return bool(look(*of))
    except VethworkError:
        return True


def _put_back(lines: tuple[str, ...]) -> tuple[str, ...]:
    return tuple([f"{line}: put back" for line in lines])
