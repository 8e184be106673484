"""What a contender stands on: a host of its own, the namespaces of its containers, and how it runs programs.

Numbers: container ``n`` has the namespace /run/netns/c``n``, publishes port ``PORT + n`` of the host, and where the address
is the caller's to choose it has the ``n``th of the subnet.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from bench.namespaces import LinkWatch, links, make_netns, private_host, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SUBNET, GATEWAY, BRIDGE = "10.77.0.0/16", "10.77.0.1", "br-bench"
PORT = 20000
SPARE = 2000
"""The container that comes and goes beside those that stay."""
VETHWORK = os.path.join(os.path.dirname(sys.executable), "vethwork")
ENVIRON = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "VETHWORK_ROOT": "/run/vethwork/root",
    "VETHWORK_RUN": "/run/vethwork/run",
    "LC_ALL": "C.UTF-8",
}


def address(number: int) -> str:
    """The address of a container."""
    return f"10.77.{(number + 2) >> 8}.{(number + 2) & 255}"


class Host:
    """A host in namespaces of its own, which this process enters for good; in the peers' folder if there is one."""

    def __init__(self, peers_root: str | None = None, *, inside_peers: bool = False) -> None:
        private_host(peers_root)
        os.environ.clear()
        os.environ.update(ENVIRON)
        self.log = open("/run/stage/log", "ab")  # noqa: SIM115  # for as long as the agent lives
        if inside_peers and peers_root:
            os.chroot(peers_root)
            os.chdir("/")

    def run(self, command: Sequence[str], seconds: float = 60.0) -> str:
        """Run a program that is not measured. Raises CalledProcessError with what it said."""
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        if done.returncode:
            raise RuntimeError(
                f"{' '.join(command)[:300]}: {done.returncode}: {done.stdout[-500:]}{done.stderr[-1500:]}"
            )
        return done.stdout

    def settle(self) -> None:
        """Wait until what was dropped here is cleared away."""
        settle(lambda command: self.run(command))

    def said(self) -> str:
        """The end of what programs wrote to their standard error."""
        return Path("/run/stage/log").read_text(errors="replace")[-2000:]


class Contender(Host):
    """A host whose containers somebody attaches and detaches."""

    def __init__(self, peers_root: str | None = None, *, inside_peers: bool = False) -> None:
        super().__init__(peers_root, inside_peers=inside_peers)
        self.filled = 0
        self.ports: dict[int, list[tuple[int, int, int]]] = {}
        self.protocols: tuple[str, ...] = ("tcp",)

    def attach(self, number: int) -> float:
        """Attach a container whose namespace is there; how long it took."""
        raise NotImplementedError

    def detach(self, number: int) -> float:
        """Detach it; how long that took."""
        raise NotImplementedError

    def port_mappings(self, number: int) -> list[tuple[int, int, int]]:
        """The published ports of a container: the host's first, the container's first, and how many."""
        return self.ports.get(number) or [(PORT + number, 80, 1)]

    def netns(self, number: int) -> str:
        """The path of a container's namespace, which is made if it is missing."""
        path = f"/run/netns/c{number}"
        if not os.path.exists(path):
            make_netns(path)
        return path

    def fill(self, count: int) -> None:
        """Have so many containers attached, and stay."""
        for number in range(self.filled, count):
            self.netns(number)
            self.attach(number)
            self.filled = number + 1
        self.netns(SPARE)

    def once(self) -> tuple[float, ...]:
        """Attach and detach the spare one. When it is done nothing of it is left, in the background either."""
        path = self.netns(SPARE)
        attached = self.attach(SPARE)
        watch = LinkWatch(path)
        detached = self.detach(SPARE)
        watch.wait_gone(lambda: links(path) == {"lo"})
        return attached, detached

    def offer(self, number: int, ports: list[tuple[int, int, int]]) -> None:
        """Have a container publish these ports, from its next attach on."""
        self.ports[number] = ports

    def idle(self) -> None:
        """Wait until no container has a link any more: a bridge and lo are what is left."""
        LinkWatch("").wait_gone(lambda: len(links()) <= 2, 60.0)

    def all_at_once(self, verb: str, count: int, workers: int) -> float:
        """Attach or detach the first ``count`` by several at the same time; how long until the last was done."""
        waiting: SimpleQueue[int] = SimpleQueue()
        for number in range(count):
            self.netns(number)
            waiting.put(number)
        did = self.attach if verb == "attach" else self.detach
        return in_parallel(did, waiting, workers)


def in_parallel(did: Callable[[int], Any], waiting: SimpleQueue[int], workers: int) -> float:
    """Have threads empty a queue; how long it took. Raises what the first that failed raised."""
    import time

    failed: list[BaseException] = []

    def work() -> None:
        try:
            while not failed:
                did(waiting.get_nowait())
        except Empty:
            return
        except BaseException as error:  # it is the caller's
            failed.append(error)

    if workers == 1:
        start = time.perf_counter()
        while not waiting.empty():
            did(waiting.get_nowait())
        return time.perf_counter() - start
    threads = [threading.Thread(target=work) for _ in range(workers)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return time.perf_counter() - start


class Service:
    """``vethwork serve``, started where this process is, and awaited (sd_notify(3))."""

    def __init__(
        self, environ: dict[str, str] | None = None, command: Sequence[str] = (VETHWORK, "serve")
    ) -> None:
        path = "/run/stage/notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
            heard.bind(path)
            heard.settimeout(30)
            told = {**ENVIRON, **(environ or {}), "NOTIFY_SOCKET": path}
            log = open("/run/stage/serve.log", "ab")  # noqa: SIM115  # the service's own, for as long as it lives
            self.process = subprocess.Popen(
                command, env=told, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            while b"READY=1" not in heard.recv(4096).split(b"\n"):
                continue
        os.unlink(path)

    def cpu_seconds(self) -> float:
        """What it has worked so far (the first number of schedstat, Documentation/scheduler/sched-stats.rst)."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def memory(self) -> dict[str, int]:
        """Its resident memory and its share of it, in bytes."""
        lines = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines if line.endswith("kB")}
        return {"rss": sizes["Rss"], "pss": sizes["Pss"]}
