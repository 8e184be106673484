"""Scenarios as Markdown: the pages of docs/scenarios from what a live run saw.

Rules: pure. Prose is broken at 120 columns; what was printed stays as it was.
"""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

from tests.kernel import live, pages

if TYPE_CHECKING:
    from collections.abc import Iterable

COLUMNS = 120
GENERATED = "<!-- Made from a live run by tests/kernel/test_scenarios.py. Do not edit: 'make docs' makes it anew. -->\n"
LOADED = re.compile(r"add table bridge vethwork\n.*?^}\n(?=END|add element)", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FAMILIES = {
    "bridge": "frames, at the ports of the bridges",
    "inet": "packets, in the network stack of the host",
}


def fenced(kind: str, text: str) -> str:
    """A block of text as it stands, in a page."""
    return f"```{kind}\n{text.rstrip()}\n```"


def prose(text: str) -> str:
    """A paragraph."""
    return textwrap.fill(text, COLUMNS, break_long_words=False, break_on_hyphens=False)


def joined(parts: Iterable[str]) -> str:
    """Paragraphs, headings and blocks as a page."""
    return "\n\n".join([GENERATED.rstrip(), *parts]) + "\n"


def render_page(page: pages.Page, seen: live.Live) -> str:
    """A scenario's page."""
    typed = "".join(f"vethwork {line}\n" for line in page.typed)
    parts = [f"# {page.title}", prose(page.intro), "## What is typed", fenced("sh", typed)]
    parts += ["## The plan", *_render_plan(seen.plan)]
    parts += ["## What is there then", *_render_consoles(seen.consoles)]
    if page.stranger:
        parts += [_render_namespaces(seen)]
    parts += ["## The ruleset", *_render_tables(seen.tables)]
    return joined([*parts, "## How a packet walks", *map(prose, page.walk)])


def _render_plan(plan: str) -> list[str]:
    """A plan, with the static ruleset left out that it loads where it is not there yet."""
    without = "" if not LOADED.search(plan) else ", with the text of [the tables](empty-ruleset.md) left out"
    shown = LOADED.sub("# ... the tables of the empty ruleset ...\n", plan, count=1)
    return [f"What `--dry-run` says to it{without}:", fenced("sh", shown)]


def _render_consoles(consoles: tuple[live.Console, ...]) -> list[str]:
    said: dict[str, str] = {}
    for console in consoles:
        text = f"{console.where}# {console.typed}\n" + (f"{console.said}\n" if console.said else "")
        said[console.where] = said.get(console.where, "") + text
    return [fenced("console", text) for text in said.values()]


def _render_namespaces(seen: live.Live) -> str:
    rows = [f"| {name} | {mode} | {where or 'the host itself'} |" for name, mode, where in seen.namespaces]
    return "\n".join(["| container | mode | namespace |", "| --- | --- | --- |", *rows])


def _render_tables(tables: dict[str, str]) -> list[str]:
    if not any(tables.values()):
        return ["There is none."]
    full = [live.with_elements(family, table) for family, table in tables.items()]
    words = "The chains are those of [the empty ruleset](empty-ruleset.md). These sets hold something:"
    return [words, *[fenced("nft", text) for text in full if text]]


def render_empty(tables: dict[str, str]) -> str:
    """The page of the empty ruleset: every set and every chain, with what it is for."""
    parts = [f"# {pages.EMPTY_TITLE}", prose(pages.EMPTY_INTRO)]
    for family, meaning in FAMILIES.items():
        parts += [f"## Table {family}: {meaning}", "### Its sets", _render_sets(tables[family])]
        found = live.chains(tables[family])
        told = {name: words for (where, name), words in pages.CHAINS.items() if where == family}
        assert set(told) == set(found), f"say in pages.CHAINS what these are for: {set(told) ^ set(found)}"
        for name, words in told.items():
            parts += [f"### {name}", prose(words), fenced("nft", textwrap.dedent(found[name]))]
    return joined(parts)


def _render_sets(table: str) -> str:
    rows = ["| set | key | what is in it |", "| --- | --- | --- |"]
    for (kind, name), block in live.blocks(table).items():
        key = re.search(r"(?:type|typeof) (.*)", block)
        if kind != "chain" and key is not None:
            interval = ", intervals" if "flags interval" in block else ""
            meaning = pages.SETS.get(name) or pages.SETS[name[:-1]]
            rows.append(f"| `{name}` | `{key[1]}`{interval} | {meaning} |")
    return "\n".join(rows)


def render_index(versions: Iterable[str]) -> str:
    """The list of all pages."""
    every = [("empty-ruleset", pages.EMPTY_TITLE), *[(page.name, page.title) for page in pages.PAGES]]
    links = "\n".join(f"- [{title}]({name}.md)" for name, title in every)
    made = prose(pages.INDEX_HOW.format(versions=" and ".join(versions)))
    return joined(["# Scenarios", prose(pages.INDEX_WHAT), links, made])


def canonical(text: str) -> str:
    """A page in which neither white space nor the order of a set's elements tells anything."""

    def smooth(found: re.Match[str]) -> str:
        sort = lambda each: "{" + ", ".join(sorted(re.split(r",\s*", each[1].strip()))) + "}"  # noqa: E731
        return fenced(found[1], " ".join(re.sub(r"\{([^{}]*)\}", sort, found[2]).split()))

    return FENCE.sub(smooth, text)
