"""Names from callers: none reaches a file path, an interface name or a rule unchecked, by whatever command it comes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from vethwork.frontends.cli.main import INTERNAL_ERROR, run

if TYPE_CHECKING:
    from vethwork.testing.lab import Lab

HOSTILE = (
    "../../etc/passwd",
    "a/b",
    "..",
    "a\nb",
    "a b",
    "-rf",
    "x" * 300,
    "a;reboot",
    "$(id)",
    "é",
    "%d",
    "\0",
    "",
)
REFUSED = 2


def commands(name: str) -> tuple[tuple[str, ...], ...]:
    """Every place where a name goes in."""
    return (
        ("network", "create", "--", name),
        ("network", "create", "--label", f"{name}=x", "labelled"),
        ("network", "connect", "--ifname", name, "bridge", "web"),
        ("network", "connect", "--", name, "web"),
        ("network", "inspect", "--", name),
        ("network", "rm", "--", name),
        ("run", "--name", name, "--", "true"),
        ("run", "--hostname", name, "--", "true"),
        ("run", "--net", name or "/", "--", "true"),
        ("run", "--net", f"container:{name}", "--", "true"),
        ("run", "--net", f"ns:{name}", "--", "true"),
        ("run", "--add-host", f"{name}:10.0.0.1", "--", "true"),
        ("attach", "--netns", "/proc/self/ns/net", "--", name),
        ("attach", "--netns", name, "box"),
        ("inspect", "--", name),
        ("logs", "--", name),
        ("rm", "--", name),
        ("detach", "--", name),
        ("publish", "--", name, "80:80"),
    )


@pytest.mark.parametrize("name", HOSTILE, ids=repr)
def test_a_hostile_name_is_refused_everywhere(lab: Lab, name: str) -> None:
    def try_all() -> list[tuple[int, tuple[str, ...]]]:
        return [(run(list(command)), command) for command in commands(name)]

    for status, command in lab.host.call(try_all, timeout=60):
        assert status != INTERNAL_ERROR, command
        assert status == REFUSED, command
    written = {entry for _, _, files in os.walk(lab.host.environment["VETHWORK_ROOT"]) for entry in files}
    assert written <= {"state.db", "state.db-wal", "state.db-shm", "locks"}
    assert not os.path.exists(lab.host.environment["VETHWORK_RUN"])
