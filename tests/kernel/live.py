"""A live run of a scenario, as text that is the same every time.

Rules: every command is first rehearsed (``--dry-run``), then done, by the command line itself. What became of it is said by
``ip``, ``bridge`` and ``nft``. What the kernel or chance invents is not part of the scenario and is made to disappear: ids
come from the command that they are made for, and interface indexes, MAC addresses that the kernel rolled and link-local
addresses are taken out. Directories are spelled as they are without a lab.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shlex
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from tests.kernel.stage import eventually
from vethwork.engine import engine, networks
from vethwork.frontends.cli import containers
from vethwork.frontends.cli.main import run
from vethwork.kernel import host_state

if TYPE_CHECKING:
    from tests.kernel.pages import Page
    from vethwork.testing.lab import Lab
    from vethwork.testing.machine import Machine

MAC = re.compile(r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b")
OURS = ("02:00:00:00:", "02:76:", "02:77:", "02:78:", "02:79:")
TABLES = ("inet", "bridge")


class Console(NamedTuple):
    """Where something was typed, what, and what came of it."""

    where: str
    typed: str
    said: str


class Live(NamedTuple):
    """What a scenario came to."""

    plan: str
    namespaces: tuple[tuple[str, str, str], ...]
    """Name, mode and namespace of every container."""
    consoles: tuple[Console, ...]
    tables: dict[str, str]


def type_all(lab: Lab, lines: tuple[str, ...]) -> str:
    """Give commands to the lab's host, each rehearsed first; what the rehearsals said."""
    said = []
    for line in lines:
        typed = _real(lab, line)
        said.append(_ask(lab, line, _rehearsed(typed)))
        _ask(lab, line, shlex.split(typed))
    return _plain(lab, "".join(said))


def paste(lab: Lab, page: Page, plan: str) -> None:
    """Give a plan to a shell on the lab's host, all but the containers' own commands, which would not end."""
    own = {line.partition(" -- ")[2] for line in page.typed} - {""}
    kept = [line for line in plan.splitlines() if not line.endswith(tuple(own))]
    lab.host.run(["sh", "-e"], stdin=_real(lab, "\n".join(kept) + "\n"))


def _rehearsed(line: str) -> list[str]:
    """A command with ``--dry-run``, before what is the container's own."""
    head, dashes, tail = line.partition(" -- ")
    return shlex.split(f"{head} --dry-run{dashes}{tail}")


def _ask(lab: Lab, seed: str, arguments: list[str]) -> str:
    """Run one command on the host; its ids are made from ``seed``."""

    def on_host() -> tuple[int, str, str]:
        numbers = count()
        for module in (networks, engine, containers):
            vars(module)["new_id"] = lambda: hashlib.sha256(f"{seed} {next(numbers)}".encode()).hexdigest()[
                :32
            ]
        host_state.RESOLV_CONF = "/dev/null"  # or a subnet would be chosen around this machine's nameserver
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = run(arguments)
        return status, out.getvalue(), err.getvalue()

    status, out, err = lab.host.call(on_host)
    assert (status, err) == (0, ""), f"vethwork {shlex.join(arguments)}: {err}"
    return out


def play(lab: Lab, page: Page) -> Live:
    """Play a scenario in a lab and look at everything."""
    plan = type_all(lab, page.typed)
    views = json.loads(_ask(lab, "", ["ps", "--json"]))
    namespaces = tuple(
        (view["name"], _plain(lab, view["mode"]), _plain(lab, view["netns"])) for view in views
    )
    return Live(plan, namespaces, look(lab, page, namespaces), list_tables(lab))


def look(lab: Lab, page: Page, namespaces: tuple[tuple[str, str, str], ...]) -> tuple[Console, ...]:
    """What is there on the host and in the containers that are shown, once every link has come up."""
    machines = {name: lab.at(_real(lab, path), name) for name, _, path in namespaces if name in page.shown}
    for machine in (lab.host, *machines.values()):
        with machine.door() as door:
            ifnames = [link.ifname for link in door.links() if link.ifname != "lo"]
        for ifname in ifnames:
            assert eventually(partial(machine.is_running, ifname)), f"{ifname} of {machine.name} is down"
    consoles = _look(lab, lab.host, "host", any("--ipv6" in line for line in page.typed))
    if page.ports:
        consoles.append(_look_at_ports(lab))
    for name in page.shown:
        consoles += _look(
            lab, machines[name], name, any(each.version == 6 for each in machines[name].addresses)
        )
    return tuple(consoles)


def _look(lab: Lab, machine: Machine, name: str, dual: bool) -> list[Console]:
    """What ``ip`` says there of links, addresses and routes."""
    looks = ["ip -br link", "ip -br addr", "ip route", *(["ip -6 route"] if dual else [])]
    return [Console(name, look, _tidy(_plain(lab, machine.run(look.split()).stdout))) for look in looks]


def _look_at_ports(lab: Lab) -> Console:
    """What the bridge says of its ports, without the twenty switches that have nothing to do with us."""
    said = lab.host.run(["bridge", "-d", "link"]).stdout
    found = re.findall(r"^\d+: (\S+?)[@:].*? (master \S+ state \S+).*?\n.*?(hairpin \w+)", said, re.MULTILINE)
    return Console("host", "bridge -d link", "\n".join(" ".join(each) for each in sorted(found)))


def _places(lab: Lab) -> dict[str, str]:
    """What is where in a lab, and where it is without one."""
    return {
        f"{lab.directory}/host/run": "/run/vethwork",
        f"{lab.directory}/host/root": "/var/lib/vethwork",
        f"{lab.directory}/netns": "/run/netns",
    }


def _plain(lab: Lab, text: str) -> str:
    """Paths as they are without a lab."""
    return _swap(text, _places(lab))


def _real(lab: Lab, text: str) -> str:
    """Paths as they are in the lab."""
    return _swap(text, {there: here for here, there in _places(lab).items()})


def _swap(text: str, swaps: dict[str, str]) -> str:
    return re.sub("|".join(map(re.escape, swaps)), lambda found: swaps[found[0]], text)


def _tidy(text: str) -> str:
    """Without loopback, indexes, rolled MAC addresses, and link-local addresses, which come when they come."""
    text = re.sub(r"@\S+", "", text)
    text = re.sub(r" fe80::\S+", "", text)
    text = MAC.sub(lambda found: found[0] if found[0].startswith(OURS) else "(a random MAC)", text)
    lines = [re.sub(r"\s+", " ", line).strip() for line in text.splitlines()]
    kept = [
        line.split(" ", 2) for line in lines if line and not re.match(r"lo |fe80::|multicast ff00::", line)
    ]
    if all(len(words) > 1 and words[1] in ("UP", "DOWN", "UNKNOWN") for words in kept):
        return "\n".join(f"{words[0]:16} {words[1]:5} {''.join(words[2:])}".rstrip() for words in kept)
    return "\n".join(" ".join(words) for words in kept)


def list_tables(lab: Lab) -> dict[str, str]:
    """What nft lists of our tables, by family; empty where there is none."""
    listed = {}
    for family in TABLES:
        done = lab.host.run(["nft", "list", "table", family, "vethwork"], check=False)
        listed[family] = _plain(lab, done.stdout)
    return listed


def blocks(table: str) -> dict[tuple[str, str], str]:
    """The sets, maps and chains of a listed table, by kind and name."""
    found = re.findall(r"^\t(set|map|chain) (\S+) \{\n(.*?)^\t\}\n", table, re.MULTILINE | re.DOTALL)
    return {(kind, name): f"\t{kind} {name} {{\n{inner}\t}}\n" for kind, name, inner in found}


def chains(table: str) -> dict[str, str]:
    """The chains of a listed table, by name."""
    return {name: block for (kind, name), block in blocks(table).items() if kind == "chain"}


def with_elements(family: str, table: str) -> str:
    """A listed table reduced to the sets and maps that hold something; empty if none does."""
    full = [block for block in blocks(table).values() if "elements = {" in block]
    inner = "\n".join(full)
    return f"table {family} vethwork {{\n{inner}}}" if full else ""
