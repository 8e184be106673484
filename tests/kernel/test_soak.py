"""A long life of the service: after many attaches and detaches, everything is as large as it was after a few.

``make kernel`` runs it short, ``make soak`` long (VETHWORK_SOAK is the number of rounds); the long one prints what it saw.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from tests.kernel.service import Service, ask, request, serving
from tests.kernel.stage import eventually, links
from tests.kernel.test_cni import conf, mapped
from vethwork.kernel.netns import pin, unpin

if TYPE_CHECKING:
    from vethwork.testing.processes import Child

CLIENTS = 8
ROUNDS = int(os.environ.get("VETHWORK_SOAK", "200"))
WARM = max(80, min(1000, ROUNDS // 2))
"""Rounds after which every thread has its engine, and every cache its size."""
KILOBYTES = 4096
"""What the service may grow by between the first look and the last: the allocator's own, not a round's."""


class Size(NamedTuple):
    """How large everything is."""

    kilobytes: int
    descriptors: int
    threads: int
    links: int
    namespaces: int
    elements: int
    rows: int


def observe(service: Service) -> Size:
    """Look at the service and at its host, from outside."""
    assert eventually(lambda: service.metrics()["vethwork_intents"] == 0), (
        "the kernel is done with the last links"
    )
    held = [
        n
        for name, n in service.metrics().items()
        if name.startswith(("vethwork_endpoints", "vethwork_leases"))
    ]
    proc = f"/proc/{service.process.pid}"
    with open(f"{proc}/status", encoding="ascii") as file:
        status = dict(line.split(":", 1) for line in file)
    with open("/proc/self/mounts", encoding="utf-8") as file:
        pinned = sum(line.split()[2] == "nsfs" for line in file)
    descriptors = [os.stat(f"{proc}/fd/{fd}") for fd in os.listdir(f"{proc}/fd")]
    kept = {each.st_ino for each in descriptors if each.st_dev == os.fstat(service.host.fd).st_dev}
    listed = json.loads(service.host.run(["nft", "-j", "list", "ruleset"]).stdout)["nftables"]
    elements = [each for one in listed for value in one.values() for each in value.get("elem", ())]
    return Size(
        kilobytes=int(status["RssAnon"].split()[0]),
        descriptors=len(descriptors),
        threads=int(status["Threads"]),
        links=len(links(service.host)),
        namespaces=pinned + len(kept),
        elements=len(elements),
        rows=int(sum(held)),
    )


def attach_and_detach(service: Service, number: int, rounds: int) -> list[float]:
    """One client's rounds; gives how long each call took.

    Each has a namespace and a port of its own: who asks for what the last one has had waits for the kernel to take it away.
    """
    took = []
    for turn in range(rounds):
        path = f"{service.lab.directory}/soak/{number}-{turn}"
        mapping = mapped(10000 + (turn * CLIENTS + number) % 50000)
        stdin = json.dumps(conf(subnets=("10.7.0.0/24", "fd07::/64"), runtimeConfig=mapping)).encode()
        said = {"CNI_CONTAINERID": f"pod{number}-{turn}", "CNI_IFNAME": "eth0", "CNI_NETNS": path}
        pin(path)
        for verb in ("ADD", "DEL"):
            data = request(service.host, "cni", (), stdin, service.version, {"CNI_COMMAND": verb, **said})
            began = time.perf_counter()
            with service.connect(service.run) as made:
                status, body = ask(made, data)
            took.append(time.perf_counter() - began)
            assert (status, body[:2]) == (200, b"0 "), body
        unpin(path)
    return took


def all_clients(service: Service, rounds: int) -> list[float]:
    """Let every client do its share at the same time; gives how long each call took."""
    share = rounds // CLIENTS

    def starting(number: int) -> Child[list[float]]:
        return service.host.start(lambda: attach_and_detach(service, number, share))

    clients = [starting(number) for number in range(CLIENTS)]
    return [seconds for client in clients for seconds in client.result(3600)]


def test_nothing_grows() -> None:
    with serving() as service:
        all_clients(service, WARM)
        before = observe(service)
        began = time.monotonic()
        took = sorted(all_clients(service, ROUNDS))
        seconds = time.monotonic() - began
        after = observe(service)
        print(f"\n{ROUNDS} rounds by {CLIENTS} clients in {seconds:.1f} s: {ROUNDS / seconds:.0f} a second")
        print(
            f"a call: median {took[len(took) // 2] * 1000:.1f} ms, 99 % {took[len(took) * 99 // 100] * 1000:.1f} ms"
        )
        print(f"before: {before}\nafter:  {after}")
        assert after.kilobytes < before.kilobytes + KILOBYTES
        # A descriptor may be open for a moment.
        assert eventually(lambda: observe(service)._replace(kilobytes=before.kilobytes) == before), after
        assert service.stop() == ""
