"""Row 5: flows that live while a port moves, closes, or merely has the same number."""

from __future__ import annotations

import json
import select
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from tests.kernel.stage import DEADLINE, LONG_ENOUGH, Stage, address
from vethwork.testing.servers import Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vethwork.testing.machine import Machine
    from vethwork.testing.servers import Dialog

WAYS = [
    (asker, version)
    for asker in ("neighbour", "host", "loopback", "far", "peer")
    for version in (4, 6)
    if (asker, version) != ("loopback", 6)  # ::1 leads to no container
]


@pytest.fixture(scope="module")
def networks(scene: Stage) -> None:
    scene.network("blue")
    scene.network("green")


@pytest.fixture
def pair(scene: Stage, networks: None) -> Iterator[tuple[Machine, Machine]]:
    """Two containers that serve the same port; the first one has it published."""
    yield (
        scene.settle("one", "--net", "blue", "-p", "8080:80", "-p", "8080:80/udp"),
        scene.settle("two", "--net", "blue"),
    )
    scene.clear()


FEW_WAYS = [way for way in WAYS if way[0] in ("neighbour", "far")]


def name_of(way: tuple[str, int]) -> str:
    return f"{way[0]}-v{way[1]}"


@pytest.fixture(params=WAYS, ids=name_of)
def way(request: pytest.FixtureRequest, scene: Stage, pair: object) -> tuple[Machine, str]:
    """Who asks, and which address."""
    asker, version = request.param
    if asker == "loopback":
        return scene.host, "127.0.0.1"
    if asker in ("far", "peer"):
        return scene.attach(asker, "--net", "green" if asker == "far" else "blue"), address(
            scene.host, version
        )
    return {"neighbour": scene.lab.neighbour, "host": scene.host}[asker], address(scene.host, version)


@contextmanager
def sending(dialog: Dialog) -> Iterator[None]:
    """Keep a flow alive: send, and send again, from the same port, whatever comes back."""
    done = threading.Event()

    def send() -> None:
        while not done.wait(0.001):
            with suppress(ConnectionRefusedError):
                dialog.socket.send(b"noise")

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def answer_to(dialog: Dialog, question: str) -> Seen:
    """Ask once, and pass over what was asked before."""
    deadline = time.monotonic() + DEADLINE
    if select.select([dialog.socket], [], [], 0)[0]:
        with suppress(ConnectionRefusedError):
            dialog.socket.recv(65535)  # takes what the socket was told while the port was closed
    dialog.socket.send(question.encode())
    while time.monotonic() < deadline:
        seen = Seen(**json.loads(dialog.socket.recv(65535)))
        if seen.question == question:
            return seen
    raise TimeoutError(question)


def move_by_publish(scene: Stage) -> None:
    scene.do("unpublish", "one", "8080:80/udp")
    scene.do("publish", "two", "8080:80/udp")


def move_by_detach(scene: Stage) -> None:
    scene.do("detach", "one")
    scene.do("publish", "two", "8080:80/udp")


def move_to_a_new_one(scene: Stage) -> None:
    scene.do("unpublish", "one", "8080:80/udp")
    scene.settle("three", "--net", "blue", "-p", "8080:80/udp")


def moves(way: tuple[Machine, str], scene: Stage, move: Callable[[Stage], None]) -> str:
    """Let a port move while a client never stops sending from its one port; gives who answers it first after that."""
    asker, target = way
    with asker.dial(target, 8080, "udp") as dialog:
        assert dialog.ask("before").name == "one"
        with sending(dialog):
            move(scene)
        return answer_to(dialog, "after").name


def test_a_udp_port_moves_under_a_live_flow(scene: Stage, way: tuple[Machine, str]) -> None:
    assert moves(way, scene, move_by_publish) == "two"


@pytest.mark.parametrize("way", FEW_WAYS, indirect=True, ids=name_of)
@pytest.mark.parametrize(("move", "heir"), [(move_by_detach, "two"), (move_to_a_new_one, "three")])
def test_a_udp_port_moves_with_its_container(
    scene: Stage, way: tuple[Machine, str], move: Callable[[Stage], None], heir: str
) -> None:
    assert moves(way, scene, move) == heir


def test_a_udp_port_opens_under_a_flow_that_nobody_answered(scene: Stage, way: tuple[Machine, str]) -> None:
    asker, target = way
    with asker.dial(target, 8099, "udp") as dialog:
        with sending(dialog):
            scene.do("publish", "two", "8099:80/udp")
        assert answer_to(dialog, "after").name == "two"


def ends_with(way: tuple[Machine, str], close: Callable[[], None]) -> None:
    """Look that a connection and a flow that are open get no answer any more."""
    asker, target = way
    with asker.dial(target, 8080) as dialog, asker.dial(target, 8080, "udp") as flow:
        assert dialog.ask().name == flow.ask().name == "one"
        close()
        for each in (dialog, flow):
            with pytest.raises(OSError, match=r"timed out|reset|refused"):
                each.ask(timeout=LONG_ENOUGH)


def test_connections_end_with_the_port(scene: Stage, way: tuple[Machine, str]) -> None:
    def close() -> None:
        scene.do("unpublish", "one", "8080:80", "8080:80/udp")

    ends_with(way, close)


@pytest.mark.parametrize("way", FEW_WAYS, indirect=True, ids=name_of)
def test_connections_end_with_the_container(scene: Stage, way: tuple[Machine, str]) -> None:
    def close() -> None:
        scene.do("detach", "one")

    ends_with(way, close)


def entries(scene: Stage, tool: Callable[[str], str], target: str) -> set[str]:
    """The identities of the flows to port 8080 of an address."""
    family = "ipv6" if ":" in target else "ipv4"
    listed = scene.host.run([tool("conntrack"), "-L", "-f", family, "-d", target, "-o", "id"])
    return {word for line in listed.stdout.splitlines() for word in line.split() if word.startswith("id=")}


def test_flows_that_pass_through_with_the_same_number_live_on(
    scene: Stage, pair: tuple[Machine, Machine], version: int, tool: Callable[[str], str]
) -> None:
    """A container and the host talk to port 8080 of the internet, while 8080 here opens and closes."""
    internet = scene.lab.internet
    for protocol in ("tcp", "udp"):
        scene.serve(internet, 8080, protocol)
    target = address(internet, version)
    askers = [scene.attach("far", "--net", "blue"), scene.host]
    dialogs = [asker.dial(target, 8080, protocol) for asker in askers for protocol in ("tcp", "udp")]
    try:
        before = [dialog.ask() for dialog in dialogs]
        known = entries(scene, tool, target)
        assert len(known) == 4
        for _ in range(2):
            scene.do("unpublish", "one", "8080:80")
            scene.do("unpublish", "one", "8080:80/udp")
            scene.do("publish", "one", "8080:80", "8080:80/udp")
        assert entries(scene, tool, target) == known
        assert [dialog.ask() for dialog in dialogs] == before
    finally:
        for dialog in dialogs:
            dialog.close()


def test_flows_to_other_ports_live_on(scene: Stage, pair: tuple[Machine, Machine], version: int) -> None:
    scene.do("publish", "two", "8090:80", "8090:80/udp")
    here = address(scene.host, version)
    dialogs = [scene.lab.neighbour.dial(here, 8090, protocol) for protocol in ("tcp", "udp")]
    try:
        before = [dialog.ask() for dialog in dialogs]
        scene.do("detach", "one")
        assert [dialog.ask() for dialog in dialogs] == before
    finally:
        for dialog in dialogs:
            dialog.close()
