"""What the tests with real runtimes stand on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.conformance.home import Home, entered

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Where the runtimes live."""
    with entered(os.environ.get("VETHWORK_RUNTIMES", ""), tmp_path_factory.mktemp("home")) as made:
        yield made
