"""Strategies that build what the parsers let through: the data that plans and steps are made of."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from typing import Any

from hypothesis import strategies as st

import vethwork.model
from vethwork.model.address import BITS, Address, Interface, Mac, Prefix
from vethwork.model.names import HostName, IfName, Name, NetnsPath
from vethwork.model.record import Record
from vethwork.model.steps import Step

for _module in pkgutil.iter_modules(vethwork.model.__path__, "vethwork.model."):
    importlib.import_module(_module.name)

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def words(longest: int) -> st.SearchStrategy[str]:
    """Text that a name may be."""
    rest = st.text(LETTERS + "_.-", max_size=longest - 1)
    return st.builds(lambda first, rest: first + rest, st.sampled_from(LETTERS), rest)


def addresses(*versions: int) -> st.SearchStrategy[Address]:
    """Addresses of any value, small and extreme ones among them."""
    return st.sampled_from(versions or (4, 6)).flatmap(
        lambda version: st.integers(0, (1 << BITS[version]) - 1).map(lambda value: Address(version, value))
    )


def interfaces(*versions: int) -> st.SearchStrategy[Interface]:
    """Addresses with a length that fits."""
    return addresses(*versions).flatmap(
        lambda address: st.integers(0, BITS[address.version]).map(lambda length: Interface(address, length))
    )


def prefixes(*versions: int) -> st.SearchStrategy[Prefix]:
    """Prefixes without host bits."""
    return interfaces(*versions).map(lambda interface: interface.prefix)


MACS = st.integers(1, (1 << 48) - 1).filter(lambda value: not value >> 40 & 1).map(Mac)
NAMES = words(128).map(Name)
IFNAMES = words(15).filter(lambda name: name not in ("all", "default")).map(IfName)
HOSTNAMES = words(64).map(HostName)
# Printable is all that is asked of a path's letters, so most of what a shell makes something of is in it.
PATHS = (
    st.text(
        st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.sampled_from(" $`;&|<>()'\"\\*#~!{}")
    )
    .map(lambda text: f"/{text}")
    .filter(lambda text: ".." not in text.split("/") and text.isprintable())
    .map(NetnsPath)
)


def model_records() -> list[type[Record]]:
    """Every kind of record of the model that is made, by name: those that others build on are not."""

    def below(cls: type[Record]) -> list[type[Record]]:
        return [cls, *[each for sub in cls.__subclasses__() for each in below(sub)]]

    found = [cls for cls in below(Record) if cls.__module__.startswith("vethwork.model.")]
    return sorted((cls for cls in found if cls not in (Record, Step)), key=lambda cls: cls.__name__)


_BY_NAME = {cls.__name__: cls for cls in model_records()}
_LEAVES: dict[str, st.SearchStrategy[Any]] = {
    "str": st.text(st.characters(codec="utf-8"), max_size=8),
    "int": st.integers(0, 1 << 130),
    "bool": st.booleans(),
    "None": st.none(),
    "Name": NAMES,
    "IfName": IFNAMES,
    "HostName": HOSTNAMES,
    "NetnsPath": PATHS,
    "Address": addresses(),
    "Prefix": prefixes(),
    "Interface": interfaces(),
    "Mac": MACS,
    "Step": st.deferred(lambda: st.one_of([records(cls) for cls in Step.__subclasses__()])),
}


def field_types(cls: type[Record]) -> dict[str, str]:
    """The fields of a kind of record with their types as they are written."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        found |= {
            name: text for name, text in vars(base).get("__annotations__", {}).items() if name[0] != "_"
        }
    return found


def records(cls: type[Record]) -> st.SearchStrategy[Any]:
    """Records of a kind, every field of which holds what its type says."""
    if cls.__name__ in _LEAVES:
        return _LEAVES[cls.__name__]
    fields = {
        name: _of_type(ast.parse(text, mode="eval").body, cls) for name, text in field_types(cls).items()
    }
    return st.builds(lambda **values: cls(**values), **fields)


def _of_type(node: ast.expr, owner: type[Record]) -> st.SearchStrategy[Any]:
    match node:
        case ast.Constant(None):
            return st.none()
        case ast.Name(name) if name in _LEAVES:
            return _LEAVES[name]
        case ast.Name(name) if name in _BY_NAME:
            return st.deferred(lambda: records(_BY_NAME[name]))
        case ast.Name(name):
            return _of_type(_alias(name, owner), owner)
        case ast.BinOp(left, ast.BitOr(), right):
            return _of_type(left, owner) | _of_type(right, owner)
        case ast.Subscript(ast.Name("tuple"), ast.Tuple([of, ast.Constant(value=what)])) if what is ...:
            return st.lists(_of_type(of, owner), max_size=2).map(tuple)
        case ast.Subscript(ast.Name("tuple"), ast.Tuple(each)):
            return st.tuples(*[_of_type(one, owner) for one in each])
        case _:
            raise AssertionError(
                f"{owner.__name__} has a field of a type that is no data: {ast.unparse(node)}"
            )


def _alias(name: str, owner: type[Record]) -> ast.expr:
    """What a name that only type checkers see stands for, from the text of its module."""
    module = inspect.getmodule(owner)
    assert module is not None
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name and node.value is not None:
            return node.value
    raise AssertionError(f"{owner.__name__} has a field of an unknown type, {name}")
