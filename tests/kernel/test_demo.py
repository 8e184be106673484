"""``vethwork demo``: the story is told to its end, every row of it is proved, and nothing is left of it, however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel.containers import SOURCE, Terminal
from vethwork.testing.lab import MARK, mounts_below

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE = 120.0
DEMO = [sys.executable, "-m", "vethwork", "demo"]
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")

# What each row must have shown, at the least; a dot stands for what differs from run to run.
ROWS = {
    1: (
        r"✓ ada pings bob at 10\.\S+ +answered",
        r"✓ refused: join cable: a cable has two ends, and ada and bob hold them",
    ),
    2: (
        r"✓ carol pings dave at 10\.\S+ +answered",
        r"✓ dave cannot ping host at 192\.0\.2\.2 +network is unreachable",
        r"✓ dave cannot ping internet at 203\.0\.113\.2 +network is unreachable",
    ),
    3: (
        r"✓ frank pings host at 192\.0\.2\.2 +answered",
        r"✓ gina pings host at 2001:db8:1::2 +answered",
        r"✓ frank cannot ping gina at \S+ +no answer",
    ),
    4: (
        r"✓ frank fetches http://203\.0\.113\.2/ +hello from internet \(saw 192\.0\.2\.2\)",
        r"✓ gina fetches http://\[2001:db8:2::2\]/ +hello from internet \(saw 2001:db8:1::2\)",
        r"✓ internet cannot ping frank",
        r"✓ hana fetches http://203\.0\.113\.2/ +hello from internet \(saw 192\.0\.2\.77\)",
        r"✓ ivan cannot fetch http://203\.0\.113\.2/ +no answer",
    ),
    5: (
        r"✓ neighbour fetches http://192\.0\.2\.2:8080/ +hello from web \(saw 192\.0\.2\.3\)",
        r"✓ internet fetches http://192\.0\.2\.2:8080/ +hello from web \(saw 203\.0\.113\.2\)",
        r"✓ host fetches http://127\.0\.0\.1:8080/ +hello from web",
        r"✓ frank fetches http://192\.0\.2\.2:8080/ +hello from web",
        r"✓ web fetches http://192\.0\.2\.2:8080/ +hello from web",
        r"✓ gina fetches http://192\.0\.2\.2:8080/ +hello from web",
        r"range4 { udp \. 5000-5099 : \S+ }",
        r"✓ neighbour asks 192\.0\.2\.2, UDP port 5042 +hello from web \(saw 192\.0\.2\.3\)",
        r"✓ neighbour fetches http://\[2001:db8:1::2\]:8086/ +hello from gina \(saw 2001:db8:1::3\)",
        r"✓ neighbour cannot fetch http://10\.\S+/ +no answer",
        r"✓ neighbour cannot fetch http://192\.0\.2\.2:9090/ +connection refused",
        r"✓ refused: publish 8080:80/tcp: the host port is held by container web",
    ),
    6: (r"✓ frank pings web at 10\.\S+ +answered", r"✓ web fetches http://192\.0\.2\.2:8080/"),
    7: (
        r"✓ --net host",
        r"✓ --net none",
        r"✓ --net bridge",
        r"✓ judy pings carol",
        r"\$ vethwork start web\n +✓ sidecar fetches http://127\.0\.0\.1/ +hello from web",
        r"✓ stranger pings frank",
    ),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the labs of these demos are, and nobody else's."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(autouse=True)
def nothing_is_left(home: Path) -> Iterator[None]:
    """Whatever a test does to a demo, when it is over nothing of it is there."""
    before = links()
    yield
    assert list(home.iterdir()) == []
    assert mounts_below(str(home)) == []
    assert list(processes_of(home)) == []
    assert links() == before


def links() -> list[str]:
    """The links of the namespace that the demo is started in."""
    return [line.split(":")[0] for line in Path("/proc/self/net/dev").read_text().splitlines()[2:]]


def processes_of(home: Path) -> Iterator[str]:
    """The processes that were started in a lab below this directory."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and f"{MARK}={home}".encode() in (entry / "environ").read_bytes():
                yield (entry / "cmdline").read_text()
        except OSError:
            continue  # it has ended


def environment(home: Path) -> dict[str, str]:
    """What a demo is started with: its lab goes below ``home``."""
    return os.environ | {"PYTHONPATH": str(SOURCE), "TMPDIR": str(home), "PYTHONUTF8": "1"}


def start(home: Path, *wrapper: str) -> subprocess.Popen[str]:
    """Start a demo whose output is a pipe and whose standard input is closed."""
    return subprocess.Popen(
        ["sh", "-c", 'exec "$@" <&-', "sh", *wrapper, *DEMO],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment(home),
    )


@pytest.fixture(scope="module")
def told(home: Path) -> str:
    """What a demo tells that nobody disturbs."""
    demo = start(home)
    out, err = demo.communicate(timeout=DEADLINE)
    assert (demo.returncode, err) == (0, ""), out
    return out


@pytest.mark.parametrize("row", ROWS)
def test_every_row_is_proved(told: str, row: int) -> None:
    chapter = re.split(r"^\d  ", told, flags=re.MULTILINE)[row]
    missing = [proof for proof in ROWS[row] if not re.search(proof, chapter)]
    assert not missing, chapter


def test_nothing_failed_and_the_result_is_told(told: str) -> None:
    assert "✗" not in told
    count = told.count("✓")
    assert re.search(
        rf"^All {count} proofs held, in \d+ seconds\. Everything above is gone", told, re.MULTILINE
    )


def test_both_positions_of_the_switch_are_tried(told: str, kernel_option: Callable[[str], None]) -> None:
    kernel_option("CONFIG_BRIDGE_NETFILTER")
    times = told.count("✓ web fetches http://192.0.2.2:8080/")
    if os.path.exists("/proc/sys/net/bridge"):
        assert times == 3
        assert "ok       br_netfilter, IPv4: on" in told
    else:
        assert times == 2
        assert "This machine has not loaded br_netfilter" in told


def test_the_picture_shows_who_is_where(told: str) -> None:
    picture = told.partition("What stands there now")[2]
    for each in (
        "internet 203.0.113.2",
        "neighbour 192.0.2.3",
        "host 192.0.2.2",
        "vethwork0",
        "ada 10.",
        "sidecar",
    ):
        assert each in picture
    assert re.search(r"web +10\.\S+  ◄── \*:8080→80/tcp", picture)
    box = [line for line in picture.splitlines() if line.startswith((" │", " ┌", " └"))]
    assert len({len(line) for line in box}) == 1


def test_a_pipe_gets_no_colours_and_no_trailing_space(told: str) -> None:
    assert "\x1b" not in told
    assert "\r" not in told
    assert told.splitlines() == [line.rstrip() for line in told.splitlines()]


def test_a_terminal_gets_colours_and_lines_that_fit(home: Path) -> None:
    """Told to somebody at a terminal, who has seen enough and presses Ctrl-C."""
    settings = [f"{name}={value}" for name, value in environment(home).items()]
    terminal = Terminal(["env", *settings, "TERM=xterm-256color", *DEMO], columns=80)
    try:
        for title in (
            "A cable",
            "A bridge for many",
            "The bridge as gateway",
            "Out into",
            "In from",
            "With br_netf",
        ):
            terminal.talk.expect(title)
        terminal.type("\x03")
        terminal.talk.expect("Everything that was made is gone again.")
        assert terminal.popen.wait(DEADLINE) == 128 + signal.SIGINT
    finally:
        terminal.popen.terminate()  # a demo that is killed cannot clean up
        terminal.popen.wait(DEADLINE)
        terminal.close()
    assert ESCAPE.search(terminal.talk.seen)
    echoed = ESCAPE.sub("", terminal.talk.seen).replace("^C", "")
    lines = echoed.replace("\r", "").splitlines()
    assert [line for line in lines if len(line) > 80] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda each: each.name)
def test_a_signal_ends_it_and_nothing_is_left(home: Path, number: signal.Signals) -> None:
    demo = start(home)
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith("2  "):
            demo.send_signal(number)
            break
    rest, err = demo.communicate(timeout=DEADLINE)
    assert (demo.returncode, err) == (128 + number, "")
    assert rest.endswith("Interrupted. Everything that was made is gone again.\n")


def test_what_does_not_hold_is_told_and_fails_it(home: Path) -> None:
    demo = start(home, "env", "PATH=/nowhere")
    out, err = demo.communicate(timeout=DEADLINE)
    assert (demo.returncode, err) == (1, "")
    assert "vethwork: execute sleep: No such file or directory" in out
    assert "✗ the command above works" in out
    assert "1 of 1 proofs failed" in out


def test_without_root_it_says_what_it_takes(home: Path, tool: Callable[[str], str]) -> None:
    demo = start(home, tool("setpriv"), "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin")
    out, err = demo.communicate(timeout=DEADLINE)
    assert (demo.returncode, out) == (2, "")
    assert err.startswith("vethwork: demo: makes network namespaces, which takes root")
    assert "hint: sudo vethwork demo" in err
