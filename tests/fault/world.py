"""A world for one test: a host of its own in which processes are killed, and what other people's tools see there.

    def scenario(world):                      runs as the first process of the world
        world.settle()                        a network and a container that nothing may happen to
        world.victim(operation, at=3)         the operation, killed at its fourth milestone
        assert world.seen() == ...

    in_world(scenario)

Theory. A world is a network, a mount and a pid namespace. Its first process is the scenario; when that ends, whatever way,
the kernel kills everything in the world and takes its mounts and links away. So a test leaves nothing behind, also when
it fails, and hundreds of worlds can be made: one costs a few milliseconds.

Rules: victims are forked, so that a test enumerates milestones without starting an interpreter for each. What was left is
read with ``ip``, ``nft``, /proc and raw SQL, never by the engine that left it.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import sqlite3
import subprocess
import time
from contextlib import closing, suppress
from errno import ENOMEM
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from vethwork.engine import engine as engine_module
from vethwork.engine import networks as networks_module
from vethwork.engine.engine import Engine
from vethwork.errors import KernelRefused
from vethwork.kernel import libc
from vethwork.kernel.netns import pin
from vethwork.model.address import Address, Prefix
from vethwork.model.container import AttachRequest, Join, parse_modes
from vethwork.model.names import Name, NetnsPath
from vethwork.model.network import NetworkRequest
from vethwork.model.ports import Publish
from vethwork.model.steps import LINK_GROUP
from vethwork.testing.processes import Processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, NoReturn

Result = TypeVar("Result")

CLONE_NEWPID = 0x20000000  # include/uapi/linux/sched.h
HOME = "/run/world"
ROOT, RUN = f"{HOME}/root", f"{HOME}/run"
DEADLINE = 60.0
TABLES = (
    "networks",
    "containers",
    "endpoints",
    "leases",
    "ports",
    "processes",
    "forwarding",
    "intents",
)
"""All but ``cursors``: where the search for an address goes on is no possession."""


class Seen(NamedTuple):
    """What is there, as other people's tools say; equal where nothing differs that a user could tell."""

    links: tuple[str, ...]
    addresses: tuple[str, ...]
    pins: tuple[str, ...]
    rules: tuple[str, ...]
    elements: tuple[str, ...]
    rows: tuple[str, ...]
    files: tuple[str, ...]

    def against(self, other: Seen) -> str:
        """The differences, in words; empty if there are none."""
        said = []
        for field, mine, theirs in zip(self._fields, self, other, strict=True):
            said += [f"{field}: too much: {each}" for each in mine if each not in theirs]
            said += [f"{field}: missing: {each}" for each in theirs if each not in mine]
        return "\n".join(said)

    def mentions(self, *texts: str) -> list[str]:
        """Whatever has one of these texts in it."""
        return [each for field in self for each in field if any(text in each for text in texts)]


class World:
    """A host, seen from its first process."""

    def __init__(self) -> None:
        self.processes = Processes("VETHWORK_FAULT=1")
        self.milestones: list[str] = []
        """What the last victim went through, up to where it died."""
        self._ids = 0

    # Engines and requests.

    def engine(self, **options: Any) -> Engine:
        """An engine of this host."""
        return Engine(ROOT, RUN, **options)

    def number(self, base: int) -> None:
        """Count the ids that networks get from here on, so that two worlds give the same."""
        self._ids = base
        for module in (engine_module, networks_module):
            module.__dict__["new_id"] = self.new_id

    def new_id(self) -> str:
        """The next id, which no random one could be."""
        self._ids += 1
        return f"{self._ids * 0x9E3779B97F4A7C15 % (1 << 64):016x}".ljust(32, "5")

    def attach(self, engine: Engine, name: str, *publishes: str, **wish: Any) -> Any:
        """Attach a container, whose id follows from its name; see :func:`request`."""
        return engine.attach(request(name, *publishes, **wish))

    # Things that must survive.

    def settle(self) -> None:
        """A network with a container on it that serves on port 80, published as 8080."""
        with self.engine() as engine:
            self.number(1)
            engine.create_network(network("old", "10.9.0.0/24", ipv6=True))
            self.attach(engine, "settled", "8080:80", nets=("old",), ip="10.9.0.7")
            netns = engine.inspect("settled").container.netns
        self.serve(netns, 80, "settled")  # no state file is open: it must not cross a fork
        self.number(1000)

    def assert_settled(self) -> None:
        """What was settled works, from the host and from its own network."""
        assert self.ask("127.0.0.1", 8080) == "settled", "the settled container's port is lost"
        assert self.ask("10.9.0.7", 80) == "settled", "the settled container is lost"

    def serve(self, netns: str, port: int, answer: str) -> None:
        """Answer everyone who connects to a port in a namespace with a word, until the world ends."""
        listener = in_netns(netns, lambda: listen(port))

        def serve_all() -> NoReturn:
            while True:
                connection, _ = listener.accept()
                with suppress(OSError):
                    connection.sendall(answer.encode())
                connection.close()

        self.processes.fork(serve_all)
        listener.close()

    def ask(self, address: str, port: int, netns: str = "") -> str:
        """The word that a server says; empty if nobody is there."""
        return in_netns(netns, lambda: hear(address, port))

    # Victims.

    def victim(
        self,
        operation: Callable[[Engine], object],
        at: int = -1,
        *,
        number: int = signal.SIGKILL,
        fail_at: int = -1,
    ) -> bool:
        """Run an operation in a child that is killed at its milestone ``at``; gives whether it survived to its end.

        Milestones of all engines of the child and of its children are counted together. At ``fail_at`` the kernel is said
        to refuse, so that everything is undone. Raises what it raised otherwise.
        """
        counter = mmap.mmap(-1, mmap.PAGESIZE)
        log = f"{HOME}/milestones"
        open(log, "w").close()

        def watch(milestone: object) -> None:
            count = int.from_bytes(counter[:4], "little")
            counter[:4] = (count + 1).to_bytes(4, "little")
            with open(log, "a") as file:
                file.write(f"{milestone if isinstance(milestone, str) else type(milestone).__name__}\n")
            if count == at:
                os.kill(os.getpid(), number)
            if count == fail_at:
                raise KernelRefused("go on", ENOMEM)

        def work() -> None:
            watch_all(watch)
            with self.engine() as engine, suppress(*([KernelRefused] if fail_at >= 0 else [])):
                operation(engine)

        child = self.processes.fork(work)
        try:
            child.result(DEADLINE)
            return True
        except ChildProcessError:
            if child.status is None or not os.WIFSIGNALED(child.status):
                raise
            return False
        finally:
            with open(log) as file:
                self.milestones = file.read().split()
            counter.close()

    # What other people's tools see.

    def seen(self) -> Seen:
        """Everything that is there."""
        rules, elements = ruleset()
        return Seen(
            links=tuple(sorted(links())),
            addresses=tuple(sorted(addresses())),
            pins=tuple(sorted(pins())),
            rules=rules,
            elements=elements,
            rows=tuple(sorted(rows())),
            files=tuple(sorted(files())),
        )


def watch_all(watch: Callable[[object], None]) -> None:
    """Let every engine that this process makes from now on tell its milestones."""
    defaults = Engine.__init__.__kwdefaults__
    assert defaults is not None
    defaults["watch"] = watch


def request(
    name: str,
    *publishes: str,
    nets: tuple[str, ...] = (),
    ip: str = "",
    netns: str = "",
) -> AttachRequest:
    """The wish for a container, whose id follows from its name."""
    mode, joins = parse_modes(nets)
    if ip:
        joins = (Join(joins[0].network, (Address.parse(ip),)), *joins[1:])
    ports = tuple(Publish.parse(each) for each in publishes)
    path = NetnsPath.parse(netns) if netns else None
    return AttachRequest(name.encode().hex().ljust(32, "0")[:32], Name(name), mode, joins, ports, path)


def network(name: str, *subnets: str, **wish: Any) -> NetworkRequest:
    """The wish for a network."""
    return NetworkRequest(Name(name), subnets=tuple(Prefix.parse(each) for each in subnets), **wish)


def in_world(scenario: Callable[[World], Result], timeout: float = DEADLINE) -> Result:
    """Run a scenario as the first process of a world of its own; what it gives or raises comes back."""
    outside = Processes("VETHWORK_FAULT=0")
    try:
        return outside.fork(lambda: enter_world(scenario, timeout)).result(timeout + 5)
    finally:
        outside.end()


def enter_world(scenario: Callable[[World], Result], timeout: float) -> Result:
    """The same, for a process that does nothing else: it goes into the world, as its parent."""
    libc.call("prctl", 1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG
    libc.unshare(libc.CLONE_NEWNS | libc.CLONE_NEWNET | CLONE_NEWPID)
    return Processes("VETHWORK_FAULT=1").fork(lambda: be_first(scenario)).result(timeout)


def be_first(scenario: Callable[[World], Result]) -> Result:
    """Be the first process of a world: furnish it, and run the scenario."""
    libc.call("prctl", 1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG
    libc.mount("none", "/", flags=libc.MS_REC | libc.MS_PRIVATE)
    libc.mount("proc", "/proc", "proc")
    libc.mount("tmpfs", "/run", "tmpfs")
    os.mkdir(HOME)
    os.environ |= {"VETHWORK_ROOT": ROOT, "VETHWORK_RUN": RUN}
    run("ip link set lo up")
    return scenario(World())


# Other people's tools -----------------------------------------------------------------------------------------------


def run(command: str, stdin: str = "", check: bool = True) -> str:
    """What a program prints."""
    done = subprocess.run(command.split(), input=stdin, capture_output=True, text=True, check=False)
    assert not check or not done.returncode, f"{command}: {done.stderr}"
    return done.stdout


def links(netns: str = "") -> Iterator[str]:
    """The links: name, kind, group, master, flags; and whether a bridge port is in hairpin mode."""
    enter = f"nsenter --net={netns} " if netns else ""
    for link in json.loads(run(f"{enter}ip -j -d link show")):
        info = link.get("linkinfo", {})
        hairpin = info.get("info_slave_data", {}).get("hairpin", "")
        words = [
            link["ifname"],
            info.get("info_kind", ""),
            link["group"],
            link.get("master", ""),
            link["mtu"],
        ]
        mac = (
            link["address"] if info.get("info_kind") == "bridge" else ""
        )  # the kernel rolls dice for the others
        yield " ".join(str(word) for word in [*words, mac, "UP" in link["flags"], hairpin])


def our_links() -> list[str]:
    """The names of the links that carry our group."""
    return [each.split(" ")[0] for each in links() if f" {LINK_GROUP} " in each]


def addresses() -> Iterator[str]:
    """The addresses of the host, link-local ones aside."""
    for link in json.loads(run("ip -j addr show")):
        for each in link["addr_info"]:
            if each["scope"] != "link":
                yield f"{link['ifname']} {each['local']}/{each['prefixlen']}"


def pins() -> Iterator[str]:
    """The pinned namespaces: files, and what is mounted there."""
    if os.path.isdir(f"{RUN}/netns"):
        for name in os.listdir(f"{RUN}/netns"):
            yield f"file {name}"
    with open("/proc/self/mounts") as file:
        for line in file:
            if line.split(" ")[2] == "nsfs" and line.split(" ")[1].startswith(RUN):
                yield f"mount {line.split(' ')[1]}"


def ruleset() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """All rules, and all elements of sets and maps."""
    rules: list[str] = []
    elements: list[str] = []
    for entry in json.loads(run("nft -j list ruleset"))["nftables"]:
        ((kind, body),) = entry.items()
        if kind == "rule":
            rules.append(f"{body['family']} {body['chain']} {json.dumps(body['expr'])}")
        elif kind in ("set", "map"):
            where = f"{body['family']} {body['name']}"
            rules.append(where)
            elements += [f"{where} {json.dumps(_uncounted(each))}" for each in body.get("elem", ())]
    return tuple(rules), tuple(sorted(elements))


def _uncounted(element: Any) -> Any:
    """An element, less the packets that were counted at it."""
    counted = isinstance(element, dict) and "counter" in element.get("elem", {})
    return element["elem"]["val"] if counted else element


def sql(query: str, *values: object) -> list[tuple[Any, ...]]:
    """Raw SQL on the state file."""
    with closing(sqlite3.connect(f"{ROOT}/state.db", isolation_level=None)) as database:
        return database.execute(query, values).fetchall()


def rows() -> Iterator[str]:
    """Every row of the state file that is somebody's possession."""
    if os.path.exists(f"{ROOT}/state.db"):
        for table in TABLES:
            for row in sql(f"SELECT * FROM {table}"):
                yield f"{table} {row}"


def files() -> Iterator[str]:
    """The files that containers have of us."""
    for directory in (f"{RUN}/containers", f"{ROOT}/logs"):
        for path, _, names in os.walk(directory):
            yield from [f"{path}/{name}" for name in names]


# In namespaces ------------------------------------------------------------------------------------------------------


def in_netns(netns: str, work: Callable[[], Result]) -> Result:
    """Do something in a namespace; empty is the host's own."""
    if not netns:
        return work()
    from vethwork.kernel.netns import inside, open_netns

    fd = open_netns(netns)
    try:
        return inside(fd, work)
    finally:
        os.close(fd)


def listen(port: int) -> socket.socket:
    """A TCP socket that listens on a port of every address of both families."""
    return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)


def hear(address: str, port: int, seconds: float = 1.0) -> str:
    """Connect and listen to what is said; empty if nobody is there in time."""
    deadline = time.monotonic() + seconds
    try:
        with socket.create_connection((address, port), timeout=deadline - time.monotonic()) as connection:
            return connection.recv(100).decode()
    except OSError:
        return ""


def bare_netns(name: str) -> str:
    """A namespace as a runtime makes one, pinned outside of the engine's directories; gives its path."""
    path = f"{HOME}/others/{name}"
    pin(path)
    return path
