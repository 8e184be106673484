"""What starting costs: the modules that an interpreter loads, not a clock.

A CNI plugin is a process per call, so an import is paid for every container. Measured on Python 3.11: ``json`` 7 ms (``re`` is
most of it), ``sqlite3`` 5 beside its C half, ``typing`` 10, ``dataclasses`` 14, ``enum`` 4, ``ipaddress`` 4, ``asyncio`` 40,
where a whole attach takes less than 2.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from ast import literal_eval
from typing import TYPE_CHECKING

import pytest

from tests.law.source import MODULES, SOURCE

if TYPE_CHECKING:
    from pathlib import Path

TOO_DEAR = {
    "argparse", "asyncio", "click", "collections", "ctypes", "dataclasses", "datetime", "enum", "functools",
    "importlib", "inspect", "ipaddress", "json", "logging", "pyroute2", "re", "rich", "socket", "sqlite3", "subprocess",
    "typing",
}  # fmt: skip

# What the engine is made of loads these itself: `signal` wants `enum`. Should a Python version make it dearer,
# test_what_is_allowed_brings_no_more tells.
COMES_WITH = {"signal": {"collections", "enum", "functools"}}

EVERY_CONTAINER = (
    "errors", "model", "wire", "plan", "store", "kernel", "engine", "process", "maintenance",
)  # fmt: skip
PROTOCOLS = ("frontends/cni", "frontends/netavark", "frontends/oci")

# Runs in the fresh interpreter; tells which line of ours was the first to want each module.
PROBE = """
import sys
wanted = {}
class Watch:
    def find_spec(self, name, path=None, target=None):
        frame, chain = sys._getframe(1), []
        while frame is not None:
            file = frame.f_code.co_filename
            if "importlib" not in file and file != "<string>":
                chain.append(f"{file}:{frame.f_lineno}")
            frame = frame.f_back
        wanted.setdefault(name, chain)
sys.meta_path.insert(0, Watch())
SOURCE, *NAMES = sys.argv[1:]
sys.path.insert(0, SOURCE)
for name in NAMES:
    __import__(name)
loaded = {name: wanted.get(name, []) for name in sys.modules}
print(repr(loaded))
"""


def loaded_by(*names: str) -> dict[str, list[str]]:
    """What a bare interpreter has loaded after importing these, and from where each was first wanted."""
    command = [sys.executable, "-I", "-S", "-c", PROBE, str(SOURCE), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, f"import {names[0]} and {len(names) - 1} more:\n{done.stderr}"
    modules: dict[str, list[str]] = literal_eval(done.stdout)
    return modules


def names_in(areas: tuple[str, ...]) -> list[str]:
    """The modules of the areas, as they are imported."""
    return [
        module.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for module in MODULES
        if module.area in areas and not module.path.endswith("__main__.py")
    ]


def assert_cheap(names: list[str]) -> None:
    """Fail naming what is too dear in what these load, and who asked for it."""
    if not names:
        return
    loaded = loaded_by(*names)
    free = {module for each in COMES_WITH if each in loaded for module in COMES_WITH[each]}
    dear = [
        f"{module}, wanted by\n    " + "\n    ".join(loaded[module])
        for module in sorted(TOO_DEAR - free & loaded.keys())
    ]
    assert not dear, (
        f"importing {names[0]} and {len(names) - 1} more loads too much:\n"
        + "\n".join(dear)
        + "\nput types under TYPE_CHECKING, use model.record for data, and import inside the function that rarely runs"
    )


def test_what_is_allowed_brings_no_more() -> None:
    assert {each: TOO_DEAR & loaded_by(each).keys() for each in COMES_WITH} == COMES_WITH


def test_the_engine_starts_cheaply() -> None:
    assert_cheap(names_in(EVERY_CONTAINER))


def test_each_protocol_starts_cheaply() -> None:
    for area in PROTOCOLS:
        assert_cheap(names_in((area,)))
        loaded = loaded_by(*names_in((area,)))
        assert "signal" not in loaded, f"{area} starts and stops no processes: {loaded['signal']}"


LAUNCHED = "import sys; sys.path.append(sys.argv.pop(1)); from vethwork.launch import {0}; {0}()"
CALLS = {"cni": [], "netavark": ["setup", "/run/netns/x"], "oci": ["attach"]}


@pytest.mark.parametrize("tool", sorted(CALLS))
def test_a_call_that_is_handed_over_loads_next_to_nothing(tool: str, tmp_path: Path) -> None:
    """With a service that answers at once: what is paid for each container is the bare interpreter, and this."""
    heard: list[bytes] = []

    def answer() -> None:
        made, _ = listener.accept()
        with made:
            heard.append(made.recv(1 << 20))
            made.sendall(b"HTTP/1.1 200 OK\r\n\r\n7 4 0\nwell")

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "service.sock"))
        listener.listen()
        answering = threading.Thread(target=answer)
        answering.start()
        bare = [sys.executable, "-I", "-S", "-X", "importtime", "-c"]
        command = [*bare, LAUNCHED.format(tool), str(SOURCE), *CALLS[tool]]
        environ = os.environ | {"VETHWORK_RUN": str(tmp_path), "CNI_COMMAND": "ADD"}
        done = subprocess.run(
            command, env=environ, input="{}", capture_output=True, text=True, check=False, timeout=30
        )
        answering.join(30)
    assert (done.returncode, done.stdout) == (7, "well"), done.stderr
    assert heard[0].startswith(f"POST /call/{tool}?".encode())
    assert heard[0].endswith(b"\0{}")
    nothing = subprocess.run([*bare, "pass"], capture_output=True, text=True, check=True, timeout=30)
    loaded = [set(re.findall(r"\| +(\S+)$", each.stderr, re.MULTILINE)) for each in (done, nothing)]
    assert loaded[0] - loaded[1] == {"_socket", "vethwork", "vethwork.launch"}


def test_the_library_starts_cheaply() -> None:
    """``import vethwork`` pays for nothing that is not used."""
    loaded = loaded_by("vethwork")
    ours = sorted(name for name in loaded if name.startswith("vethwork."))
    assert not ours, f"vethwork/__init__.py must be lazy (PEP 562), and loads {', '.join(ours)}"
