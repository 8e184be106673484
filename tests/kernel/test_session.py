"""What a test session (tests/conftest.py) finds left behind in the kernel, each tried in a session of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = (Path(__file__).parents[1] / "conftest.py").read_text(encoding="utf-8")
LEAKS = [
    ("ip netns add stray", "named namespace: stray"),
    ("touch {here}/pin && unshare --net={here}/pin true", "pinned namespace: {here}/pin"),
    ("ip link add stray0 type bridge", "link of the machine's own namespace: stray0"),
    ("nft add table ip stray", "nftables table of the machine's own namespace: table ip stray"),
]


@pytest.mark.parametrize("shared", [(), ("-n", "2")], ids=["alone", "shared"])
@pytest.mark.parametrize(("command", "named"), LEAKS)
def test_what_is_left_behind_fails_the_run(
    pytester: pytest.Pytester, command: str, named: str, shared: tuple[str, ...]
) -> None:
    pytester.makeconftest(CONFTEST)
    command = command.format(here=pytester.path)
    pytester.makepyfile(
        test_it=f"import subprocess\ndef test_a(): subprocess.run({command!r}, shell=True, check=True)"
    )
    done = pytester.runpytest_subprocess(*shared)
    assert done.ret == 1
    done.stdout.fnmatch_lines([f"LEFT BEHIND {named.format(here=pytester.path)}"])


def test_this_session_is_not_in_the_machines_namespaces() -> None:
    for kind in ("net", "mnt"):
        assert os.readlink(f"/proc/self/ns/{kind}") != os.readlink(f"/proc/{os.getppid()}/ns/{kind}")


def test_this_session_keeps_its_own_records() -> None:
    assert Path(os.environ["VETHWORK_ROOT"]).parent.name.startswith("vethwork-tests-")
