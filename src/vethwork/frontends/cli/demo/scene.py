"""Where the demo plays: a lab, the command line on its host, and pings and fetches from everywhere in it.

Rules: everything that is tried has an expected outcome, also what must not work; what comes out otherwise is counted and fails
the demo. A command that has to work and does not ends it, for nothing after it would make sense.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import ExitStack
from errno import EACCES, EPERM
from typing import TYPE_CHECKING, NamedTuple

from vethwork.engine.engine import Engine
from vethwork.errors import KernelRefused, RequestError
from vethwork.frontends.cli.demo.teller import NO_BREAK, Teller
from vethwork.model.views import container_view, network_view
from vethwork.process.lifecycle import log_of, process_view
from vethwork.testing.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Self

    from vethwork.testing.machine import Machine

    View = dict[str, Any]

PATIENCE = 20.0
LONG_ENOUGH = 0.4
"""Seconds for an answer within one machine; where none comes by then, none comes."""
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """A signal asked the demo to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Broken(Exception):
    """A command that has to work did not; there is nothing more to tell."""


class Signals:
    """While in it, a signal that would end this process is only noted. A context manager."""

    def __init__(self) -> None:
        self.heard = 0

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in ENDING_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: object) -> None:
        self.heard = number

    def check(self) -> None:
        """Raise Stopped if one was heard."""
        if self.heard:
            raise Stopped(self.heard)


class World(NamedTuple):
    """What is on record, as views."""

    networks: list[View]
    containers: list[View]


class Scene:
    """The lab with somebody who tells what happens in it. ``proofs`` and ``failures`` count what was tried."""

    def __init__(self, lab: Lab, teller: Teller, signals: Signals) -> None:
        self.lab = lab
        self.tell = teller
        self._signals = signals
        self._machines: dict[str, Machine] = {}
        self.proofs = 0
        self.failures = 0

    # To do.

    def type(self, line: Sequence[str] | str, *, at: str = "") -> str:
        """Give one vethwork command, which must work, and take what it says. ``at`` names whose web page is there."""
        status, said = self._run(line, at)
        if status:
            self.tell.lines(said.splitlines(), "red")
            self.proof(False, "the command above works", f"it ended with status {status}")
            raise Broken
        return said

    def refused(self, line: str, because: str) -> None:
        """Give one command that must be refused, for a reason that it must name."""
        status, said = self._run(line, "")
        message = said.partition("\n")[0].removeprefix("vethwork: ")
        if status and because in message:
            self.proof(True, f"refused: {message}", "", refused=True)
        else:
            self.proof(False, f"is refused: {because}", message or "it was not")

    def _run(self, line: Sequence[str] | str, at: str) -> tuple[int, str]:
        self._signals.check()
        arguments = line.split() if isinstance(line, str) else list(line)
        self.tell.command(["vethwork", *arguments])
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
        done = self.lab.host.vethwork(
            *arguments, check=False, env={"PATH": path}, cwd=self._home(at) if at else "/"
        )
        return done.returncode, done.stdout + done.stderr

    def _home(self, name: str) -> str:
        """A directory with a web page that says whose it is."""
        home = f"{self.lab.directory}/www/{name}"
        os.makedirs(home, exist_ok=True)
        with open(f"{home}/index.html", "w", encoding="ascii") as file:
            file.write(f"hello from {name}\n")
        return home

    def await_server(self, name: str, port: int = 80) -> None:
        """Wait until a container's server listens, which it does not tell anybody."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self._signals.check()
            try:
                self.machine(name).dial("127.0.0.1", port).close()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    # To look.

    def world(self) -> World:
        """Everything on record."""

        def look() -> World:
            with Engine() as engine:
                return World(
                    [network_view(each, engine.store.endpoints_on(each.name)) for each in engine.networks()],
                    [
                        container_view(engine.inspect(each.name), process_view(engine, each.name, each.netns))
                        for each in engine.containers()
                    ],
                )

        return self.lab.host.call(look)

    def container(self, name: str) -> View:
        """A container's view."""
        return next(each for each in self.world().containers if each["name"] == name)

    def network(self, name: str) -> View:
        """A network's view."""
        return next(each for each in self.world().networks if each["name"] == name)

    def machine(self, name: str) -> Machine:
        """A machine of the lab, or a container on its host."""
        if name not in self._machines:
            outside = {"host", "neighbour", "internet"}
            lab = self.lab
            self._machines[name] = (
                getattr(lab, name) if name in outside else lab.at(self.container(name)["netns"], name)
            )
        return self._machines[name]

    def address(self, name: str, version: int = 4) -> str:
        """A machine's address."""
        machine = self.machine(name)
        return machine.v4 if version == 4 else machine.v6

    def show_interfaces(self, *names: str) -> None:
        """What the kernel says of containers' interfaces, and of their other ends on the host."""
        with self.lab.host.door() as door:
            links = {link.ifname: link for link in door.links()}
        bridges = {link.index: link.ifname for link in links.values()}
        for name in names:
            for endpoint in self.container(name)["endpoints"]:
                words = self._interface(name, endpoint["interface"])
                outside = links.get(endpoint["host_interface"])
                if outside is not None:
                    words += [f"on the host {outside.ifname} in {bridges[outside.master]}"]
                whole = [word.replace(" ", NO_BREAK) for word in words]
                self.tell.lines([f"{name:8} {', '.join(whole)}"], indent=9)

    def _interface(self, name: str, ifname: str) -> list[str]:
        with self.machine(name).door() as door:
            index = next(link.index for link in door.links() if link.ifname == ifname)
            addresses = [
                each for at, each in door.addresses() if at == index and not each.address.is_link_local
            ]
            ways = [each.gateway for each in door.routes() if each.oif == index and not each.prefix.length]
        words = [f"{ifname} {' '.join(map(str, addresses))}"]
        return [*words, *([f"default via {' and '.join(map(str, ways))}"] if ways else [])]

    def show_elements(self, *names: str) -> None:
        """What nf_tables holds in sets and maps of ours."""

        def look() -> list[str]:
            with Engine() as engine:
                nft = engine.kernel.nft
                tables = engine.execution().ruleset_step().tables
                wanted = [(table, each.name) for table in tables for each in table.sets if each.name in names]
                return [
                    f"nft      {name} {{ {each} }}"
                    for table, name in wanted
                    for each in nft.elements(table, name)
                ]

        self.tell.lines(self.lab.host.call(look))

    # To prove.

    def proof(self, holds: bool, claim: str, result: str, *, refused: bool = False) -> None:
        """Tell what was tried and what came of it."""
        self._signals.check()
        self.proofs += 1
        self.failures += not holds
        self.tell.proof(holds, claim, result, refused=refused)

    def pings(self, who: str, target: str, address: str = "", *, reaches: bool = True) -> None:
        """Ping a machine by an address of it."""
        self._signals.check()
        address = address or self.address(target)
        claim = f"{who} {'pings' if reaches else 'cannot ping'} {target} at {address}"
        answered = self.machine(who).ping(address, PATIENCE / 10 if reaches else LONG_ENOUGH)
        result = "answered" if answered else self._why_not(who, address)
        self.proof(answered == reaches, claim, result, refused=not reaches)

    def _why_not(self, who: str, address: str) -> str:
        """What the kernel says to somebody who sends there."""
        try:
            self.machine(who).dial(address, 9, "udp").close()
        except OSError as error:
            return _spell(error)
        return "no answer"

    def fetches(self, who: str, host: str, port: int = 80, *, page: str = "", saw: str = "") -> None:
        """Fetch a web page and look whose it is, and whom its server saw. ``page`` empty: it must not be reachable."""
        self._signals.check()
        url = f"http://{f'[{host}]' if ':' in host else host}{f':{port}' if port != 80 else ''}/"
        claim = f"{who} {'fetches' if page else 'cannot fetch'} {url}"
        try:
            text = self.machine(who).fetch(url, PATIENCE / 4 if page else LONG_ENOUGH).text.strip()
        except OSError as error:
            self.proof(not page, claim, _spell(error), refused=not page)
            return
        name, seen = self._read(text, page)
        self.proof(name == page and (not saw or seen == saw), claim, f"hello from {name} (saw {seen})")

    def _read(self, text: str, page: str) -> tuple[str, str]:
        """Who sent a page, and whom it saw: the lab's own servers say it, a container's is looked up in its log."""
        if text.startswith("{"):
            told = json.loads(text)
            return told["name"], told["peer"]
        name = text.removeprefix("hello from ")
        return name, self._last_peer(page) if name == page else "somebody"

    def _last_peer(self, name: str) -> str:
        container_id = self.container(name)["id"]

        def look() -> str:
            with Engine() as engine, open(log_of(engine, container_id), encoding="utf-8") as file:
                return file.read().splitlines()[-1].partition(" ")[0].removeprefix("::ffff:")

        return self.lab.host.call(look)


def _spell(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    return (error.strerror or str(error)).lower()


def play() -> int:
    """The whole demo; gives its exit status: 0 if everything held, 1 if not, 128 + n if signal n ended it.

    Raises RequestError without the right to make namespaces, KernelRefused where the kernel lacks something.
    """
    from vethwork.frontends.cli.demo.story import tell_epilogue, tell_story

    _occupy_streams()
    teller, began = Teller(), time.monotonic()
    with Signals() as signals, ExitStack() as stack:
        lab = _open_lab(stack)
        scene = Scene(lab, teller, signals)
        try:
            tell_story(scene)
        except Broken:
            pass
        except Stopped as stopped:
            stack.close()
            teller.title("Interrupted. Everything that was made is gone again.")
            return 128 + stopped.number
        stack.close()
        tell_epilogue(scene, time.monotonic() - began)
    return int(bool(scene.failures))


def _open_lab(stack: ExitStack) -> Lab:
    try:
        return stack.enter_context(Lab())
    except KernelRefused as error:
        if error.errno not in (EPERM, EACCES):
            raise
        raise RequestError(
            f"demo: makes network namespaces, which takes root ({error.message})",
            hint="sudo vethwork demo; in a container, CAP_SYS_ADMIN and CAP_NET_ADMIN",
        ) from error


def _occupy_streams() -> None:
    """Put /dev/null where a standard stream is closed, so that no socket of ours takes its place."""
    while (spare := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(spare, True)
    os.close(spare)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="ascii"))  # noqa: SIM115 - for as long as we live
