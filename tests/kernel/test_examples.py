"""The examples: each runs as its first lines say, prints what it promises, and leaves nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES = Path(__file__).parents[2] / "examples"
ONE_ANSWER = "1 packets transmitted, 1 received"

# What must be printed, in this order; regular expressions, each for a line or a part of one.
PROMISES = {
    "1-cable.sh": [
        ONE_ANSWER,
        "^lo ",
        "vethwork: join cable: a cable has two ends, and left and right hold them",
        "exit status 4",
    ],
    "2-isolated.sh": [ONE_ANSWER, ONE_ANSWER, "Network is unreachable", "exit status 2"],
    "3-gateway.sh": [
        r"default via 10\.3\.0\.1 dev eth0",
        "default via fd03::1 dev eth0",
        ONE_ANSWER,
        ONE_ANSWER,
        ONE_ANSWER,
    ],
    "4-internet.py": [r"container 10\.\S+ was seen as 192\.0\.2\.2", r"the host is 192\.0\.2\.2"],
    "5-ports.py": [
        r"neighbour: .*name='web', peer='192\.0\.2\.3'",
        r"host: .*name='web', peer='10\.76\.0\.1'",
        r"hairpin: .*name='web', peer='10\.76\.0\.1'",
        r"udp: .*name='web'.* local_port=9005",
        "closed: +False",
    ],
    "6-br_netfilter.sh": [
        "bridge-nf-call-iptables = 0",
        "off: traffic within a bridge does not meet",
        "^200$",
        "bridge-nf-call-iptables = 1",
        "on: traffic within a bridge meets the IP firewall too",
        "^200$",
    ],
    "7-modes.sh": [
        r"^host: .*127\.0\.0\.1/8 192\.0\.2\.1/32",
        r"^none: +lo +\S+ +127\.0\.0\.1/8 *$",
        r"^bridge: +eth0\S+ +UP +10\.76\.0\.2/22",
        r"^container: +eth0\S+ +UP +10\.76\.0\.2/22",
        r"^stopped: +eth0\S+ +UP +10\.76\.0\.2/22",
        r"^two: .*eth0\S+ +UP +10\.7\.0\.2/24 +eth1\S+ +UP +10\.7\.1\.2/24",
        "^path: +lo ",
    ],
}
NEEDS = ("ip", "ping", "unshare", "curl", "sysctl")


def test_every_example_is_here() -> None:
    assert {path.name for path in EXAMPLES.iterdir()} == {*PROMISES, "private-host.sh"}


def command_of(path: Path) -> list[str]:
    """The command that the example tells people to type."""
    (line,) = re.findall(r"Run as root: (.+)", path.read_text(encoding="utf-8"))
    words = str(line).split()
    assert words[-1] == f"examples/{path.name}"
    assert words[:-1] in ([], [".venv/bin/python"])
    assert os.access(path, os.X_OK)
    return [sys.executable, str(path)] if path.suffix == ".py" else [str(path)]


def network_of_this_machine() -> list[str]:
    words = (["ip", "-j", "addr"], ["ip", "netns"], ["nft", "list", "ruleset"])
    return [subprocess.run(each, capture_output=True, text=True, check=True).stdout for each in words]


@pytest.mark.parametrize("name", PROMISES)
def test_an_example_does_what_it_says(
    name: str, tmp_path: Path, tool: Callable[[str], str], kernel_option: Callable[[str], None]
) -> None:
    for program in NEEDS:
        tool(program)
    if "br_netfilter" in name:
        kernel_option("CONFIG_BRIDGE_NETFILTER")
    before = network_of_this_machine()
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    for variable in ("VETHWORK_ROOT", "VETHWORK_RUN"):
        environment.pop(variable)
    done = subprocess.run(
        command_of(EXAMPLES / name),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    lines = iter(done.stdout.splitlines())
    for promise in PROMISES[name]:
        assert any(re.search(promise, line) for line in lines), f"{promise!r} is not in:\n{done.stdout}"
    assert network_of_this_machine() == before
    assert list(tmp_path.iterdir()) == []
