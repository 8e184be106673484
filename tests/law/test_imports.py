"""Who may import whom, and what: the direction of the arrows, and the one door to the kernel."""

from __future__ import annotations

import ast

from tests.law.source import MODULES, PACKAGE, Module, area_of

# An area may import itself and what stands here. Nothing else; in no function, and for no type.
CORE = {"errors", "model"}
ENGINE = {"engine", "process", "maintenance"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "model": {"errors"},
    "wire": CORE,
    "plan": CORE,
    "store": CORE,
    "kernel": CORE | {"wire"},
    "engine": CORE | {"plan", "store", "kernel"},
    "process": CORE | {"plan", "kernel", "engine"},
    "maintenance": CORE | {"plan", "wire", "kernel", "engine", "process"},
    "sandbox": CORE | {"plan", "kernel", "engine", "process"},
    "service": CORE
    | ENGINE
    | {"kernel", "face", "frontends/cni", "frontends/docker", "frontends/netavark", "frontends/oci"},
    "launch": {"face", "frontends/cni", "frontends/netavark", "frontends/oci"},
    "testing": CORE | {"kernel", "engine"},
    "frontends": CORE | ENGINE | {"face"},
    "face": CORE | ENGINE | {"sandbox", "testing"},
    "__main__": {"frontends/cli"},  # `python -m vethwork` is the command line
}
# A front-end may import what `frontends` may, and besides:
FRONTENDS_BESIDES: dict[str, set[str]] = {
    # `vethwork serve` starts the service, `vethwork demo` plays in a lab
    "frontends/cli": {"service", "testing"},
}

# What front-ends share among themselves: each may import these, and these what a front-end may.
SHARED_BY_FRONTENDS = {"frontends/json_document", "frontends/aardvark"}

# What decides and what spells has no clock, disk, socket, process or randomness of its own.
PURE = ("model", "plan", "wire")
IMPURE = ("os", "socket", "_socket", "subprocess", "ctypes", "time", "random")
BUT = {"AF_INET", "AF_INET6", "inet_ntop", "inet_pton"}  # of these modules: what only reads and spells

# Only here may a program be started by `subprocess`, because only here is it somebody else's and asked for.
STARTS_PROGRAMS = ("frontends/cli/demo", "frontends/aardvark.py", "testing/", "sandbox.py")
STARTERS = {
    "os": {"system", "popen", "posix_spawn", "posix_spawnp", "spawnl", "spawnv", "spawnve", "spawnvp"},
    "asyncio": {"create_subprocess_exec", "create_subprocess_shell"},
}
BINARIES = {"ip", "tc", "bridge", "brctl", "nft", "iptables", "ip6tables", "conntrack", "dnsmasq", "sysctl"}


def allowed(area: str) -> set[str] | None:
    """What an area may import of ours; None if the law does not know the area."""
    if area.startswith("frontends/"):
        besides = FRONTENDS_BESIDES.get(area, set())
        return MAY_IMPORT["frontends"] | {"frontends", area} | SHARED_BY_FRONTENDS | besides
    return MAY_IMPORT[area] | {area} if area in MAY_IMPORT else None


def test_every_area_has_its_place() -> None:
    unknown = {module.area: module for module in MODULES if allowed(module.area) is None}
    assert not unknown, "\n".join(
        f"{module}: nobody said what {area!r} may import; give it a line in MAY_IMPORT (tests/law/test_imports.py)"
        for area, module in unknown.items()
    )


def test_imports_go_one_way() -> None:
    wrong = [
        f"{module}:{each.line}: imports {each.name}; "
        f"{module.area} may import {', '.join(sorted(may - {module.area})) or 'nothing of ours'}"
        for module in MODULES
        if (may := allowed(module.area)) is not None
        for each in module.imports
        if each.name.split(".")[0] == PACKAGE and area_of(each.name) not in may
    ]
    assert not wrong, "\n".join([*wrong, "move what both need into model, or hand it in as an argument"])


def test_what_decides_touches_nothing() -> None:
    wrong = [
        f"{module}:{each.line}: {module.area} is pure, and imports {each.name}"
        for module in MODULES
        if module.area in PURE
        for each in module.imports
        if each.name.split(".")[0] in IMPURE and each.what not in BUT
    ]
    assert not wrong, "\n".join(
        [*wrong, "let kernel or engine look, and hand in what they saw as data (model/state.py)"]
    )


def test_the_kernel_has_one_door() -> None:
    outside = [module for module in MODULES if module.area != "kernel"]
    wrong = [
        f"{module}:{each.line}: imports ctypes"
        for module in outside
        for each in module.imports
        if each.name.split(".")[0] == "ctypes"
    ]
    wrong += [
        f"{module}:{node.lineno}: names AF_NETLINK"
        for module in outside
        for node in ast.walk(module.tree)
        if (isinstance(node, ast.Name) and node.id == "AF_NETLINK")
        or (isinstance(node, ast.Attribute) and node.attr == "AF_NETLINK")
    ]
    assert not wrong, "\n".join([*wrong, "the door is vethwork.kernel: libc, socket, apply"])


def test_the_product_runs_no_programs() -> None:
    wrong = [
        line
        for module in MODULES
        if not module.inside.startswith(STARTS_PROGRAMS)
        for line in _programs_started(module)
    ]
    assert not wrong, "\n".join(
        [
            *wrong,
            "the product speaks netlink itself and runs no ip, nft or iptables; "
            f"only {', '.join(STARTS_PROGRAMS)} may start a program, one that the user asked for",
        ]
    )


def _programs_started(module: Module) -> list[str]:
    found = [
        f"{module}:{each.line}: imports subprocess"
        for each in module.imports
        if each.name.split(".")[0] == "subprocess"
    ]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in STARTERS.get(node.value.id, ()):
                found.append(f"{module}:{node.lineno}: calls {node.value.id}.{node.attr}")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2].startswith("exec"):
            found += [f"{module}:{node.lineno}: executes {binary}" for binary in _binaries(node)]
    return found


def _binaries(call: ast.Call) -> list[str]:
    """The networking programs that a call names in its arguments."""
    texts = [
        node.value
        for node in ast.walk(call)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return [text for text in texts if text.rpartition("/")[2] in BINARIES]
