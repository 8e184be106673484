"""How the source must look for a person to read it: sizes, names, docstrings, and who may catch everything."""

from __future__ import annotations

import ast
import re
from functools import cache

from tests.law.source import MODULES, PROJECT, Function, Module

FUNCTION_LINES = 60
MODULE_LINES = 420
NO_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}

# Who may catch everything and keep it, and why. To clean up and raise the same again is no catching.
CATCHES_ALL = {
    "frontends/cli/main.py: run": "the outermost boundary: what nobody foresaw becomes a report, not a traceback",
    "frontends/docker/protocol.py: answer": "the outermost boundary: what nobody foresaw becomes a plugin's error",
    "frontends/cni/main.py: run": "the outermost boundary: what nobody foresaw becomes a CNI error",
    "frontends/netavark/main.py: run": "the outermost boundary: Podman can read nothing but an error of the protocol",
    "frontends/oci/main.py: run": "the outermost boundary: a runtime shows people the line that it gets, not a traceback",
    "process/supervise.py: _become_supervisor": "the outermost boundary of a process that nobody waits for: goes to its log",
    "service/reconciler_thread.py: _watch": "the outermost boundary of a thread: it is reported, and the watch continues",
    "testing/processes.py: _answer": "carries whatever it is over to the parent process",
    "testing/processes.py: _pickle_error": "whatever a class raises when it is pickled, there is another way",
}


def test_a_module_is_short_enough_to_hold_in_mind() -> None:
    sizes = [(module, module.text.count("\n")) for module in MODULES]
    long = [f"{module}: {lines} lines" for module, lines in sizes if lines > MODULE_LINES]
    assert not long, "\n".join([*long, f"{MODULE_LINES} lines is the most: which two ideas are in it?"])


def test_a_function_fits_on_a_screen() -> None:
    long = [
        f"{module}:{function.lineno}: {name} has {lines} lines"
        for module in MODULES
        for name, function in module.functions()
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > FUNCTION_LINES
    ]
    assert not long, "\n".join(
        [*long, f"{FUNCTION_LINES} lines is the most: give a step of it a name of its own"]
    )


def test_a_module_is_named_after_what_it_is() -> None:
    wrong = [f"{module}" for module in MODULES if NO_NAMES.intersection(re.split(r"[/_.]", module.inside))]
    assert not wrong, "\n".join(
        [*wrong, "such a name says nothing: name it after the thing or the duty in it"]
    )


def test_a_module_says_what_it_is() -> None:
    silent = [f"{module}" for module in MODULES if not ast.get_docstring(module.tree)]
    assert not silent, "\n".join(
        [*silent, "a module opens with a docstring: what is it, and what are its rules?"]
    )


def test_a_kind_of_record_has_a_name_of_its_own() -> None:
    """A record is read back by the name of its class (model/record.py), wherever that class stands."""
    places: dict[str, list[str]] = {}
    for module in MODULES:
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "Record" for base in node.bases):
                places.setdefault(node.name, []).append(f"{module}")
    twice = [f"{name}: {', '.join(where)}" for name, where in places.items() if len(where) > 1]
    assert not twice, "\n".join([*twice, "two kinds of record cannot share a name: rename one"])


def test_what_is_public_says_what_it_does() -> None:
    silent = [
        f"{module}:{line}: {name}" for module in MODULES for line, name in _silent(module.tree.body, None)
    ]
    assert not silent, "\n".join([*silent, "a docstring says what the caller must know, and what is raised"])


def _silent(body: list[ast.stmt], owner: ast.ClassDef | None) -> list[tuple[int, str]]:
    """The public functions and classes of a body without a docstring; what a base class says holds for its heirs."""
    found: list[tuple[int, str]] = []
    for node in body:
        if isinstance(node, ast.If):
            found += _silent(node.body, owner)
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        inherited = owner is not None and node.name in _said_by_bases(owner)
        if not ast.get_docstring(node) and not inherited and not _is_overload_or_setter(node):
            found.append((node.lineno, f"{owner.name}.{node.name}" if owner else node.name))
        if isinstance(node, ast.ClassDef):
            found += _silent(node.body, node)
    return found


def _is_overload_or_setter(node: Function | ast.ClassDef) -> bool:
    return any(ast.unparse(each).endswith(("overload", ".setter")) for each in node.decorator_list)


@cache
def _said_by_bases(owner: ast.ClassDef) -> set[str]:
    """The methods that the classes above one of ours have docstrings for."""
    said: set[str] = set()
    for base in owner.bases:
        above = _classes().get(ast.unparse(base).rpartition(".")[2])
        if above is not None and above is not owner:
            said |= {
                each.name for each in above.body if isinstance(each, Function) and ast.get_docstring(each)
            }
            said |= _said_by_bases(above)
    return said


@cache
def _classes() -> dict[str, ast.ClassDef]:
    return {
        node.name: node
        for module in MODULES
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
    }


def _broad_handlers(module: Module) -> dict[str, int]:
    """Where it catches everything, by function: the line."""
    found: dict[str, int] = {}
    owners = [("(module)", module.tree), *module.functions()]
    for name, owner in owners:  # an inner function comes after its outer one, and takes its lines over
        for node in ast.walk(owner):
            if isinstance(node, ast.ExceptHandler) and _is_broad(node) and not _raises_again(node):
                found = {other: line for other, line in found.items() if line != node.lineno}
                found[f"{module.inside}: {name}"] = node.lineno
    return found


def _is_broad(handler: ast.ExceptHandler) -> bool:
    named = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(each is None or ast.unparse(each) in ("Exception", "BaseException") for each in named)


def _raises_again(handler: ast.ExceptHandler) -> bool:
    """Whether it ends with a ``raise`` of the same, and returns by no other way."""
    last = handler.body[-1]
    leaves = (ast.Return, ast.Break, ast.Continue)
    return (
        isinstance(last, ast.Raise)
        and last.exc is None
        and not any(isinstance(node, leaves) for each in handler.body for node in ast.walk(each))
    )


def test_only_who_must_catches_everything() -> None:
    wrong = [
        f"{where} (line {line})"
        for module in MODULES
        for where, line in _broad_handlers(module).items()
        if where not in CATCHES_ALL
    ]
    assert not wrong, "\n".join(
        [
            *wrong,
            "name the exceptions you expect; the outermost boundary of a process or of an undo may catch all: "
            "give it a line and a reason in CATCHES_ALL (tests/law/test_shape.py)",
        ]
    )


def test_every_leave_to_catch_everything_is_used() -> None:
    used = {where for module in MODULES for where in _broad_handlers(module)}
    assert not set(CATCHES_ALL) - used, f"not needed any more: {', '.join(set(CATCHES_ALL) - used)}"


# Places of one machine, which mean nothing on another. Spelled in halves, so that this file does not name them.
PLACES = [
    re.compile(rf"(?<![\w.~-])/{place}") for place in ("work" + "/", r"root/\.", "opt/" + "(wheels|pypi)")
]
NOT_OURS = re.compile(
    r"(^|/)(\.git|\.venv|__pycache__|build|dist|\.\w+_cache|\.hypothesis|[^/]*\.egg-info)(/|$)"
)


def test_no_text_names_a_place_on_one_machine() -> None:
    wrong: list[str] = []
    for path in sorted(PROJECT.rglob("*")):
        name = path.relative_to(PROJECT).as_posix()
        if NOT_OURS.search(name) or not path.is_file():
            continue
        lines = path.read_bytes().decode(errors="replace").splitlines()
        wrong += [
            f"{name}:{number}: {line.strip()[:100]}"
            for number, line in enumerate(lines, 1)
            if any(place.search(line) for place in PLACES)
        ]
    assert not wrong, "these lines are true on one machine only:\n" + "\n".join(wrong)
