"""The product's source, read once for all laws: its modules, their syntax trees, and what each imports.

Rules: the laws read the text; they import nothing of it. An import counts wherever it stands: inside a function, and
under ``if TYPE_CHECKING`` too, for types that point backwards are a cycle like any other. Only the standard
library's own modules may be imported for types alone.
"""

from __future__ import annotations

import ast
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).parents[2]
SOURCE = PROJECT / "src"
PACKAGE = "vethwork"
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Import(NamedTuple):
    """One imported module, under its full dotted name; ``typing_only`` if it is not imported at run time.

    ``what`` is the name that is taken from it, where one is.
    """

    line: int
    name: str
    typing_only: bool
    what: str = ""


class Module:
    """One file of the product."""

    def __init__(self, path: Path) -> None:
        self.path = path.relative_to(SOURCE).as_posix()
        self.text = path.read_text(encoding="utf-8")
        self.tree = ast.parse(self.text, self.path)

    def __repr__(self) -> str:
        return self.path

    @property
    def inside(self) -> str:
        """The path below the package: ``kernel/libc.py``."""
        return self.path.removeprefix(f"{PACKAGE}/")

    @property
    def area(self) -> str:
        """What the import law calls it: ``model``, ``errors``, ``frontends/cli``; the package's own face is ``face``."""
        parts = self.inside.removesuffix(".py").split("/")
        if parts[0] == "frontends" and len(parts) > 2:
            return "/".join(parts[:2])
        return "face" if parts[0] == "__init__" else parts[0]

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """Everything it imports, in order."""
        return tuple(self._imports(self.tree, False))

    def _imports(self, node: ast.AST, typing_only: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
                for statement in child.body:
                    yield from self._imports(ast.Module([statement], []), True)
                yield from self._imports(ast.Module(child.orelse, []), typing_only)
            elif isinstance(child, ast.Import):
                yield from (Import(child.lineno, alias.name, typing_only) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                yield from self._from(child, typing_only)
            else:
                yield from self._imports(child, typing_only)

    def _from(self, node: ast.ImportFrom, typing_only: bool) -> Iterator[Import]:
        above = self.path.removesuffix(".py").split("/")[: -node.level] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            dotted = f"{base}.{alias.name}"
            is_module = (SOURCE / dotted.replace(".", "/")).with_suffix(".py").exists()
            is_module |= (SOURCE / dotted.replace(".", "/")).is_dir()
            yield Import(node.lineno, dotted if is_module else base, typing_only, alias.name)

    def functions(self) -> Iterator[tuple[str, Function]]:
        """Every function in it with its dotted name: ``Kernel.apply``."""
        yield from _functions(self.tree, "")


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
    for child in ast.iter_child_nodes(node):
        name = f"{prefix}{getattr(child, 'name', '')}"
        if isinstance(child, Function):
            yield name, child
        inner = f"{name}." if isinstance(child, Function | ast.ClassDef) else prefix
        yield from _functions(child, inner)


def area_of(dotted: str) -> str:
    """The area that an imported name of ours belongs to; see :attr:`Module.area`."""
    parts = dotted.split(".")[1:]
    if not parts:
        return "face"
    return "/".join(parts[:2]) if parts[0] == "frontends" else parts[0]


MODULES = tuple(Module(path) for path in sorted((SOURCE / PACKAGE).rglob("*.py")))
