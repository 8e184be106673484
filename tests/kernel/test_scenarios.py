"""The pages under docs/scenarios are what a live run gives. ``make docs`` writes them anew; read the difference before it is
committed.

Rules: they are what nft 1.0.6 and iproute2 6.1 print, as on Debian 12. Where another version spells the same thing otherwise
in its white space or the order of a set, that is no difference; where there is one, the failure names the versions.
"""

from __future__ import annotations

import difflib
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel import live, pages
from tests.kernel.markdown import canonical, render_empty, render_index, render_page
from vethwork.testing.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DOCS = Path(__file__).parents[2] / "docs" / "scenarios"
WRITE = "VETHWORK_WRITE_DOCS" in os.environ
MADE_WITH = {"nft": "nftables v1.0.6", "ip": "iproute2-6.1.0"}


@pytest.fixture(scope="module")
def versions(tool: Callable[[str], str]) -> dict[str, str]:
    """What the tools say of themselves here."""
    with Lab() as lab:
        return {
            name: lab.host.run([tool(name), "-V"]).stdout.partition(" (")[0].strip() for name in MADE_WITH
        }


@pytest.fixture(scope="module")
def empty(versions: dict[str, str]) -> dict[str, str]:
    """Our tables before anybody is in them."""
    with Lab() as lab:
        live.type_all(lab, pages.EMPTY_TYPED)
        return live.list_tables(lab)


def compare(name: str, text: str, versions: dict[str, str]) -> None:
    """Compare a page with the one that is checked in, or write it."""
    path = DOCS / f"{name}.md"
    if WRITE:
        path.write_text(text, encoding="utf-8")
        return
    kept = path.read_text(encoding="utf-8") if path.exists() else ""
    here = {name: version for name, version in versions.items() if MADE_WITH[name] not in version}
    if kept == text or (here and canonical(kept) == canonical(text)):
        return
    lines = "".join(difflib.unified_diff(kept.splitlines(True), text.splitlines(True), "checked in", "live"))
    other = (
        f"\nThe pages were made with {MADE_WITH}; here is {here}, which may print it otherwise."
        if here
        else ""
    )
    pytest.fail(
        f"{path} is not what happens. If it should be: make docs, and read the difference.{other}\n{lines}",
        False,
    )


def test_the_empty_ruleset(empty: dict[str, str], versions: dict[str, str]) -> None:
    assert "elements" not in "".join(empty.values())
    compare("empty-ruleset", render_empty(empty), versions)


@pytest.fixture(scope="module", params=pages.PAGES, ids=[page.name for page in pages.PAGES])
def played(request: pytest.FixtureRequest) -> tuple[pages.Page, live.Live]:
    """Each scenario, played once."""
    with stage(request.param) as lab:
        return request.param, live.play(lab, request.param)


@contextmanager
def stage(page: pages.Page) -> Iterator[Lab]:
    """A lab with what a scenario takes for granted."""
    with Lab() as lab:
        if pages.FIXED in " ".join(page.typed):
            lab.host.add_address(f"{pages.FIXED}/32")
        if page.stranger:
            lab.container(page.stranger)
        yield lab


def test_a_page_is_what_happens(
    played: tuple[pages.Page, live.Live], empty: dict[str, str], versions: dict[str, str]
) -> None:
    page, seen = played
    for family, table in seen.tables.items():
        assert not table or live.chains(table) == live.chains(empty[family])
    compare(page.name, render_page(page, seen), versions)


def test_the_plan_pasted_into_a_shell_does_the_same(played: tuple[pages.Page, live.Live]) -> None:
    page, seen = played
    with stage(page) as lab:
        live.paste(lab, page, seen.plan)
        assert live.look(lab, page, seen.namespaces) == seen.consoles
        assert live.list_tables(lab) == seen.tables


def test_the_index_lists_every_page(versions: dict[str, str]) -> None:
    compare("README", render_index(MADE_WITH.values()), versions)
    names = {page.name for page in pages.PAGES} | {"README", "empty-ruleset"}
    assert {path.stem for path in DOCS.iterdir()} == names
