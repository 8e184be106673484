"""What starting costs: the modules that an interpreter loads, not a clock.

A CNI plugin is a process per call, so an import is paid for every container. Measured on Python 3.11: ``typing`` 10 ms,
``dataclasses`` 14, ``enum`` 4, ``ipaddress`` 4, ``asyncio`` 40, where a whole attach takes 2.
"""

from __future__ import annotations

import json
import subprocess
import sys

from tests.law.source import MODULES, SOURCE

TOO_DEAR = {
    "argparse", "asyncio", "click", "dataclasses", "enum", "inspect", "ipaddress", "logging", "pyroute2", "rich",
    "subprocess", "typing",
}  # fmt: skip

# These are allowed, for they are what the engine is made of, and what they load themselves comes with them: `json` loads
# `re`, and `re` loads `enum`. Should a Python version make them dearer, test_what_is_allowed_brings_no_more tells.
COMES_WITH = {"json": {"enum"}, "sqlite3": set[str]()}

EVERY_CONTAINER = (
    "errors", "model", "wire", "plan", "store", "kernel", "execution", "observer", "engine", "runtime", "upkeep",
    "check", "doctor", "interfaces",
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
import json
print(json.dumps(loaded))
"""


def loaded_by(*names: str) -> dict[str, list[str]]:
    """What a bare interpreter has loaded after importing these, and from where each was first wanted."""
    command = [sys.executable, "-I", "-S", "-c", PROBE, str(SOURCE), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, f"import {names[0]} and {len(names) - 1} more:\n{done.stderr}"
    modules: dict[str, list[str]] = json.loads(done.stdout)
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


def test_the_library_starts_cheaply() -> None:
    """``import vethwork`` pays for nothing that is not used."""
    loaded = loaded_by("vethwork")
    ours = sorted(name for name in loaded if name.startswith("vethwork."))
    assert not ours, f"vethwork/__init__.py must be lazy (PEP 562), and loads {', '.join(ours)}"
