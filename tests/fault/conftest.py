"""Worlds that are begun before their test's turn: they mostly wait for the kernel, and two cores can do more than one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.fault.world import DEADLINE, enter_world
from vethwork.testing.processes import Processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.fault.world import World
    from vethwork.testing.processes import Child

AT_ONCE = 3


class Ahead:
    """The worlds of a parametrized test; each scenario is given the test's ``operation``."""

    def __init__(self) -> None:
        self._processes = Processes("VETHWORK_FAULT=0")
        self._begun: dict[str, Child[None]] = {}

    def run(self, test: pytest.Function, scenario: Callable[[Any, World], None]) -> None:
        """Run the scenario of a test, or get what became of it, and begin those of the tests that come next."""
        tests = [
            each
            for each in test.session.items
            if isinstance(each, pytest.Function) and each.function is test.function
        ]
        place = tests.index(test)
        for each in tests[place : place + AT_ONCE]:
            if each.nodeid not in self._begun:
                operation = each.callspec.params["operation"]
                begin = partial(enter_world, partial(scenario, operation), DEADLINE * AT_ONCE)
                self._begun[each.nodeid] = self._processes.fork(begin)
        self._begun[test.nodeid].result(DEADLINE * AT_ONCE)

    def end(self) -> None:
        """End those that nobody asked for."""
        self._processes.end()


@pytest.fixture
def run_ahead(request: pytest.FixtureRequest, ahead: Ahead) -> Callable[[Callable[[Any, World], None]], None]:
    """``run_ahead(scenario)`` runs the scenario for this test's operation."""
    assert isinstance(request.node, pytest.Function)
    return partial(ahead.run, request.node)


@pytest.fixture(scope="module")
def ahead() -> Iterator[Ahead]:
    """What is begun in a module ends with it."""
    made = Ahead()
    yield made
    made.end()
