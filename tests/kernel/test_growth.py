"""What a call reads from the records does not grow with the containers and ports that are there: rows are counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.fault.world import request
from tests.kernel.test_cni import Runtime, conf
from tests.kernel.test_cni import mapped as cni_mapped
from tests.kernel.test_netavark import Podman
from tests.podman import call, container, info, joined, mapped
from vethwork.engine.engine import Engine
from vethwork.model.names import Name
from vethwork.model.network import NetworkRequest
from vethwork.model.ports import Publish
from vethwork.store.database import Store
from vethwork.testing.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vethwork.testing.machine import Machine

FEW, MANY = 2, 30


@pytest.fixture
def lab(needs: None) -> Iterator[Lab]:
    with Lab() as made:
        yield made


def rows_read(host: Machine, work: Callable[[], object]) -> int:
    """How many rows a call fetches on a host."""

    def counted() -> int:
        rows = 0
        fetch = Store._all

        def count(store: Store, query: str, *values: object) -> list[Any]:
            nonlocal rows
            found = fetch(store, query, *values)
            rows += len(found)
            return found

        Store._all = count  # type: ignore[method-assign, assignment]  # of a process that ends with this call
        work()
        return rows

    return host.call(counted)


def fill(host: Machine, network: str, start: int, end: int) -> None:
    """Attach containers with a port each."""

    def attach() -> None:
        with Engine() as engine:
            for number in range(start, end):
                engine.attach(request(f"c{number}", f"{9000 + number}:80", nets=(network,)))

    host.call(attach)


def check_flat(host: Machine, network: str, *calls: Callable[[], object]) -> None:
    """Each call, in order, reads as much beside many containers of a network as beside few."""
    fill(host, network, 0, FEW)
    few = [rows_read(host, call) for call in calls]
    fill(host, network, FEW, MANY)
    assert [rows_read(host, call) for call in calls] == few
    assert all(few), "counting works"


def test_library(lab: Lab) -> None:
    def attach() -> None:
        with Engine() as engine:
            engine.attach(request("late", "8001:80", nets=("blue",)))

    def publish() -> None:
        with Engine() as engine:
            engine.publish("late", Publish.parse("8002:81"))

    def detach() -> None:
        with Engine() as engine:
            assert engine.detach("late")

    lab.host.call(lambda: Engine().create_network(NetworkRequest(Name("blue"))))
    check_flat(lab.host, "blue", attach, publish, detach)


def test_ports(lab: Lab) -> None:
    """One more port, and one less, of a container that has few or many."""

    def attach() -> None:
        with Engine() as engine:
            engine.attach(request("one", *[f"{9000 + number}:80" for number in range(FEW)]))

    def publish(*ports: str) -> None:
        with Engine() as engine:
            engine.publish("one", *map(Publish.parse, ports))

    def unpublish() -> None:
        with Engine() as engine:
            engine.unpublish("one", Publish.parse("8001:81"))

    def read() -> tuple[int, int]:
        return rows_read(lab.host, lambda: publish("8001:81")), rows_read(lab.host, unpublish)

    lab.host.call(attach)
    few = read()
    lab.host.call(lambda: publish(*[f"{9000 + number}:80" for number in range(FEW, MANY)]))
    assert read() == few
    assert all(few), "counting works"


def test_netavark(lab: Lab) -> None:
    podman, pod, other = Podman(lab), lab.container("pod"), lab.container("other")
    stays = container({"blue": joined("10.99.0.3")}, info(), name="stays", container_id="f" * 64)
    comes = container({"blue": joined("10.99.0.2")}, info(), port_mappings=[mapped(8001)])
    podman.setup(other, stays)  # makes the network, which is there for as long as somebody is on it

    def calling(command: str) -> Callable[[], None]:
        words = ("--config", podman.config, "--rootless=false", "--aardvark-binary=", command, pod.path)

        def do() -> None:
            assert call(*words, document=comes).status == 0

        return do

    check_flat(lab.host, "blue", calling("setup"), calling("teardown"))


def test_cni(lab: Lab) -> None:
    runtime, pod = Runtime(lab), lab.container("pod")
    document = conf(runtimeConfig=cni_mapped(8001))
    runtime.good("ADD", document, CNI_NETNS=pod.path)
    runtime.good("DEL", document, CNI_NETNS=pod.path)

    def calling(command: str) -> Callable[[], None]:
        do = runtime.calling(command, document, CNI_NETNS=pod.path)

        def check() -> None:
            assert do().status == 0

        return check

    check_flat(lab.host, "blue", calling("ADD"), calling("DEL"))
