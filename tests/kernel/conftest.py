"""What the tests of the seven rows stand on: both IP versions, with and without br_netfilter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel.containers import Container, Fifo
from tests.kernel.service import Service, serving
from tests.kernel.stage import Stage
from vethwork.testing.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(params=[4, 6], ids=["v4", "v6"])
def version(request: pytest.FixtureRequest) -> int:
    """An IP version."""
    return int(request.param)


@pytest.fixture(scope="session", params=[False, True], ids=["plain", "br_netfilter"])
def bridged(request: pytest.FixtureRequest, kernel_option: Callable[[str], None]) -> bool:
    """Whether frames that a bridge carries meet the IP firewall too."""
    if request.param:
        kernel_option("CONFIG_BRIDGE_NETFILTER")
    return bool(request.param)


@pytest.fixture(scope="session")
def needs(tool: Callable[[str], str]) -> None:
    """Everything is judged by other people's programs."""
    for name in ("ip", "nft", "ping"):
        tool(name)


@pytest.fixture
def stage(bridged: bool, needs: None) -> Iterator[Stage]:
    """A lab for one test, with a second wire."""
    with Lab(other_wire=True) as lab:
        lab.host.filter_bridged(bridged)
        yield Stage(lab)


@pytest.fixture(scope="module")
def scene(bridged: bool, needs: None) -> Iterator[Stage]:
    """A lab for all tests of a module that do not disturb each other."""
    with Lab(other_wire=True) as lab:
        lab.host.filter_bridged(bridged)
        yield Stage(lab)


@pytest.fixture
def service() -> Iterator[Service]:
    """``vethwork serve`` on the host of a lab, for one test."""
    with serving() as made:
        yield made


@pytest.fixture(scope="module")
def steady() -> Iterator[Service]:
    """One that lives through all that is sent to it."""
    with serving() as made:
        yield made
        assert made.stop() == ""


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Container]:
    """A container; whatever runs in it is killed in the end."""
    container = Container(tmp_path)
    yield container
    container.close()


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    """A named pipe that the container may write to, at HERE/fifo."""
    pipe = Fifo(tmp_path / "fifo")
    yield pipe
    pipe.close()
