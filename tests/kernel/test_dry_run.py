"""``--dry-run`` is honest: what it prints does the job when a person pastes it into a shell, and printing it does nothing.

Two labs stand side by side. On the *real* one each command is given twice, first with ``--dry-run``; on the *pasted* one
what that printed goes into ``sh -e``. After every command other people's programs must see the same in both.

Rules: ids are made from the command, so that both times they are the same. What is left out of the comparison is named here:
numbers that the kernel gives (indexes, handles), random MAC addresses, timers, and what appears in its own time (fe80::).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sqlite3
import sys
from contextlib import redirect_stdout
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.stage import Said, Stage, eventually
from vethwork.engine import networks
from vethwork.engine.engine import Engine
from vethwork.frontends.cli import show
from vethwork.kernel import libc
from vethwork.model.container import AttachRequest, Join, Mode
from vethwork.model.names import Name, NetnsPath
from vethwork.model.shaping import Bandwidth, Rate
from vethwork.model.steps import LINK_GROUP
from vethwork.testing.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vethwork.testing.machine import Machine

GIVEN = {"ifindex", "link_index", "link_netnsid", "iflink", "handle", "metainfo", "index"}
TIMES = {
    "valid_life_time",
    "preferred_life_time",
    "hello_timer",
    "tcn_timer",
    "gc_timer",
    "hold_timer",
    "expires",
}
IDS = {"id", "no", "designated_port", "message_age_timer", "forward_delay_timer", "topology_change_timer"}
LEFT_OUT = GIVEN | TIMES | IDS | {"operstate", "state", "carrier", "flags_extra"}
TREES = ("ipv4/conf", "ipv6/conf")
SECRET = "stable_secret"


class SameIds:
    """Identities that follow from the command that asks for them."""

    def __init__(self, seed: str) -> None:
        self._numbers = count()
        self._seed = seed

    def __call__(self) -> str:
        return hashlib.sha256(f"{self._seed} {next(self._numbers)}".encode()).hexdigest()[:32]

    def take_over(self) -> None:
        """Stand in for the random ones, everywhere in this process."""
        for module in list(sys.modules.values()):
            if module.__dict__.get("new_id") is ORIGINAL:
                module.__dict__["new_id"] = self


ORIGINAL = networks.new_id


class Twins:
    """The real lab and the pasted one."""

    def __init__(self, real: Stage, pasted: Stage) -> None:
        self.real, self.pasted = real, pasted
        self.containers: list[str] = []
        self._known: dict[str, Machine] = {}
        self.shown = ""

    def container(self, name: str) -> str:
        """A bare namespace in both; gives its path in the real one."""
        self.containers.append(name)
        real, _ = (stage.lab.container(name) for stage in (self.real, self.pasted))
        return real.path

    def end(self, name: str) -> None:
        """Take the path to a container's namespace away, in both."""
        self.containers.remove(name)
        for stage in (self.real, self.pasted):
            libc.umount(f"{stage.lab.directory}/netns/{name}", libc.MNT_DETACH)

    def everywhere(self, *argv: str, stdin: str = "") -> None:
        """Run a program on both hosts."""
        for stage in (self.real, self.pasted):
            stage.host.run(argv, stdin=stdin)

    def give(self, *arguments: str) -> None:
        """Give a command: rehearsed, really, and pasted; then compare."""
        place = arguments.index("--") if "--" in arguments else len(arguments)
        rehearsed = (*arguments[:place], "--dry-run", *arguments[place:])
        self._paste(lambda: self._ask(*rehearsed), lambda: self._ask(*arguments))

    def act(self, work: Callable[[Engine], object]) -> None:
        """The same with what the command line has no words for."""

        def on_host(**options: Any) -> str:
            def do() -> str:
                SameIds(work.__name__).take_over()
                out = io.StringIO()
                with redirect_stdout(out), Engine(**options) as engine:
                    work(engine)
                return out.getvalue()

            return self.real.host.call(do)

        self._paste(lambda: on_host(rehearse=show.plan), on_host)

    def _paste(self, rehearse: Callable[[], str], do: Callable[[], str]) -> None:
        before = self._untouched()
        self.shown = rehearse()
        assert self._untouched() == before
        do()
        commands = self.shown.replace(self.real.lab.directory, self.pasted.lab.directory)
        said = self.pasted.host.run(["sh", "-e"], stdin=commands, check=False)
        assert said.returncode == 0, f"{commands}\n{said.stderr}"
        assert said.stderr == ""
        self.compare()

    def _ask(self, *arguments: str) -> str:
        seed = " ".join(each for each in arguments if each != "--dry-run")
        said: Said = self.real.ask(*arguments, first=SameIds(seed).take_over)
        assert said.status == 0, said.err
        return said.out

    def compare(self) -> None:
        """Look at both with everything there is; what the kernel does in its own time (carriers) may come to pass."""
        if not eventually(lambda: not self._differences(), seconds=3):
            assert self._differences() == []

    def _differences(self) -> list[str]:
        return list(differences(self._look(self.real), self._look(self.pasted)))

    def _untouched(self) -> tuple[object, ...]:
        """The records and the host. A container that a rehearsal touched would refuse the command that is meant."""
        seen = look_at(self.real.host)
        del seen["routes"]  # these, and carriers, may still change by themselves
        for link in seen["links"].values():
            del link["flags"]
        return records(self.real), seen

    def _machines(self, stage: Stage) -> list[Machine]:
        pinned = Path(stage.host.environment["VETHWORK_RUN"]) / "netns"
        paths = [Path(stage.lab.directory) / "netns" / name for name in self.containers]
        paths += sorted(pinned.iterdir()) if pinned.is_dir() else []
        return [stage.host, *(self._machine(stage, str(path)) for path in paths)]

    def _machine(self, stage: Stage, path: str) -> Machine:
        if path not in self._known:
            self._known[path] = stage.lab.at(path)
        return self._known[path]

    def _look(self, stage: Stage) -> dict[str, Any]:
        seen = {machine.name: look_at(machine) for machine in self._machines(stage)}
        text = json.dumps(seen).replace(stage.lab.directory, "LAB")
        found: dict[str, Any] = json.loads(text)
        return found


def records(stage: Stage) -> tuple[bytes, list[str]]:
    """The state file, byte for byte and row by row; nothing if there is none."""
    path = Path(stage.host.environment["VETHWORK_ROOT"]) / "state.db"
    if not path.exists():
        assert not path.parent.exists() or not list(path.parent.iterdir())
        return b"", []
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return path.read_bytes(), list(database.iterdump())
    finally:
        database.close()


QUESTIONS = {
    "links": "ip -j -d link",
    "addr": "ip -j addr",
    "routes4": "ip -j -4 route show table all",
    "routes6": "ip -j -6 route show table all",
    "ports": "bridge -j -d link",
    "qdiscs": "tc -j qdisc show",
    "ruleset": "nft -j list ruleset",
}
ALL_QUESTIONS = "; printf '\\0'; ".join(QUESTIONS.values())


def look_at(machine: Machine) -> dict[str, Any]:
    """Everything that a command of ours may have changed in a namespace, as other programs tell it."""
    answers = machine.run(["sh", "-ec", ALL_QUESTIONS]).stdout.split("\0")
    told = {name: json.loads(answer.strip() or "[]") for name, answer in zip(QUESTIONS, answers, strict=True)}
    links = {link["ifname"]: strip(link) for link in told["links"]}
    for name, link in links.items():
        if name.startswith(("vw", "vb")) and link.get("linkinfo", {}).get("info_kind") in ("veth", "ifb"):
            del link["address"]  # the host's end of a container's cable has a random one
    routes = [strip(route) for route in (*told["routes4"], *told["routes6"])]
    return {
        "links": links,
        "addresses": {link["ifname"]: addresses_of(link) for link in told["addr"]},
        "routes": [
            route for route in routes if not route["dst"].startswith(("fe80::", "ff00::", "multicast"))
        ],
        "ports": {port["ifname"]: strip(port) for port in told["ports"]},
        "qdiscs": sorted([strip(qdisc) for qdisc in told["qdiscs"]], key=str),
        "filters": {
            qdisc["dev"]: filters(machine, qdisc["dev"])
            for qdisc in told["qdiscs"]
            if qdisc["kind"] == "ingress"
        },
        "ruleset": strip(told["ruleset"]),
        "sysctls": machine.inside(sysctls),
    }


def filters(machine: Machine, ifname: str) -> Any:
    """What happens to what enters a link."""
    return strip(json.loads(machine.run(["tc", "-j", "filter", "show", "dev", ifname, "ingress"]).stdout))


def addresses_of(link: dict[str, Any]) -> list[Any]:
    return [strip(each) for each in link["addr_info"] if each["scope"] != "link"]


def differences(real: Any, pasted: Any, where: str = "") -> Iterator[str]:
    """Where two pictures differ, one line each."""
    if isinstance(real, dict) and isinstance(pasted, dict):
        for key in sorted(real.keys() | pasted.keys()):
            yield from differences(real.get(key), pasted.get(key), f"{where}/{key}")
    elif isinstance(real, list) and isinstance(pasted, list) and len(real) == len(pasted):
        for place, (one, two) in enumerate(zip(real, pasted, strict=True)):
            yield from differences(one, two, f"{where}/{place}")
    elif real != pasted:
        yield f"{where}: {real} is really, {pasted} was pasted"


def strip(value: Any) -> Any:
    """The same without what is left out."""
    if isinstance(value, dict):
        return {key: strip(item) for key, item in value.items() if key not in LEFT_OUT}
    return [strip(item) for item in value] if isinstance(value, list) else value


def sysctls() -> dict[str, str]:
    """Every setting of every link, and whether the namespace forwards."""
    root = Path("/proc/sys/net")
    paths = [path for tree in TREES for path in root.joinpath(tree).glob("*/*") if path.name != SECRET]
    paths += [root / "ipv4/ip_forward"]
    found = {
        str(path.relative_to(root)): path.read_text().strip() for path in paths if os.access(path, os.R_OK)
    }
    return {path: value for path, value in found.items() if not path.endswith("/mtu")}


@pytest.fixture
def twins(needs: None, tool: Callable[[str], str]) -> Iterator[Twins]:
    for name in ("conntrack", "sysctl", "tc"):
        tool(name)
    with Lab(other_wire=True) as real, Lab(other_wire=True) as pasted:
        yield Twins(Stage(real), Stage(pasted))


def test_the_twins_are_twins(twins: Twins) -> None:
    twins.container("web")
    twins.compare()
    twins.pasted.host.run(["ip", "link", "set", "lo", "mtu", "1300"])
    with pytest.raises(AssertionError, match="/host/links/lo/mtu: 65536 is really, 1300 was pasted"):
        twins.compare()


def test_a_bridge_of_both_versions_with_ports(twins: Twins) -> None:
    twins.give("network", "create", "blue", "--ipv6")
    web, other = twins.container("web"), twins.container("other")
    ports = ("-p", "8080:80", "-p", "80/udp", "-p", "127.0.0.1:8081:80", "-p", "[2001:db8:1::2]:8082:80")
    twins.give("attach", "web", "--netns", web, "--net", "blue", *ports)
    twins.give("attach", "other", "--netns", other, "--net", "blue", "-p", "7000-7009:8000-8009/udp")
    twins.give("publish", "web", "9000-9099:9000-9099/udp", "9000-9009:9000-9009")
    twins.give("unpublish", "web", "8080:80")
    twins.give("unpublish", "web", "9000-9099:9000-9099/udp")
    twins.give("detach", "other")
    twins.give("detach", "web")
    twins.give("network", "rm", "blue")


def test_an_isolated_bridge(twins: Twins) -> None:
    twins.give("network", "create", "isle", "--isolated", "--ipv6")
    for name in ("one", "two"):
        twins.give("attach", name, "--netns", twins.container(name), "--net", "isle")
    twins.give("detach", "one")
    twins.give("detach", "two")
    twins.give("network", "rm", "isle")


def test_a_cable(twins: Twins) -> None:
    twins.give("network", "create", "cable", "--driver", "p2p", "--ipv6")
    left, right = twins.container("left"), twins.container("right")
    twins.give("attach", "left", "--netns", left, "--net", "cable")
    twins.give("attach", "right", "--netns", right, "--net", "cable")
    twins.give("detach", "left")
    twins.give("attach", "left", "--netns", left, "--net", "cable")
    twins.give("detach", "right")
    twins.give("detach", "left")
    twins.give("network", "rm", "cable")


@pytest.mark.parametrize(
    "options",
    [
        ("--internal", "--ipv6"),
        ("--icc", "no", "--masquerade", "no", "--mtu", "1400"),
        ("--masquerade", "192.0.2.2", "--subnet", "10.9.0.0/24", "--gateway", "10.9.0.254"),
    ],
    ids=" ".join,
)
def test_networks_of_other_kinds(twins: Twins, options: tuple[str, ...]) -> None:
    twins.give("network", "create", "net", *options)
    twins.give("attach", "web", "--netns", twins.container("web"), "--net", "net")
    twins.give("detach", "web")
    twins.give("network", "rm", "net")


def test_several_networks_one_after_the_other(twins: Twins) -> None:
    twins.give("network", "create", "blue", "--ipv6")
    twins.give("network", "create", "green")
    twins.give("attach", "web", "--netns", twins.container("web"), "--net", "blue", "--net", "green")
    twins.give("network", "create", "red", "--internal")
    twins.give("network", "connect", "--ifname", "lan0.5", "red", "web")
    twins.give("network", "disconnect", "green", "web")
    twins.give("network", "prune")


def test_a_container_on_the_network_that_is_made_on_first_use(twins: Twins) -> None:
    """The first command of all, with a namespace of our own making: two plans, and the ruleset once."""
    twins.give("run", "--name", "web", "-p", "8080:80", "--", "true")
    assert [line for line in twins.shown.splitlines() if line.startswith("# ")] == [
        "# create network bridge",
        "# attach web",
    ]
    assert twins.shown.count("table inet vethwork {") == 1
    twins.give("run", "--name", "alone", "--net", "none", "--", "true")
    twins.give("rm", "web", "alone")


def test_after_somebody_flushed_the_ruleset(twins: Twins) -> None:
    """The next command brings the ruleset back first, and says so."""
    twins.give("network", "create", "blue", "--ipv6")
    twins.give("attach", "web", "--netns", twins.container("web"), "--net", "blue", "-p", "8080:80")
    twins.everywhere("nft", "flush", "ruleset")
    twins.give("publish", "web", "8000-8099:8000-8099/udp")
    assert "table inet vethwork {" in twins.shown
    twins.everywhere("nft", "flush", "ruleset")
    twins.give("restore")


def test_restore(twins: Twins) -> None:
    twins.give("network", "create", "blue", "--ipv6")
    twins.give("attach", "web", "--netns", twins.container("web"), "--net", "blue", "-p", "8080:80")
    device = twins.real.device("blue")
    twins.everywhere("ip", "link", "del", device)
    twins.give("restore")


def test_a_macvlan(twins: Twins, kernel_option: Callable[[str], None]) -> None:
    kernel_option("CONFIG_MACVLAN")
    subnet = ("--subnet", "192.0.2.0/24", "--gateway", "192.0.2.1", "--ip-range", "192.0.2.64/26")
    twins.give("network", "create", "wire", "--driver", "macvlan", *subnet)
    twins.give("attach", "web", "--netns", twins.container("web"), "--net", "wire")
    twins.give("detach", "web")
    twins.give("network", "rm", "wire")


def test_shaped_traffic(twins: Twins, kernel_option: Callable[[str], None]) -> None:
    for option in ("CONFIG_IFB", "CONFIG_NET_SCH_TBF", "CONFIG_NET_ACT_MIRRED"):
        kernel_option(option)
    twins.give("network", "create", "blue")
    path = NetnsPath(twins.container("web"))
    join = Join(Name("blue"), bandwidth=Bandwidth(Rate(10**7, 10**5), Rate(2 * 10**7, 2 * 10**5)))
    mode = Mode("network", "blue")

    def attach(engine: Engine) -> None:
        engine.attach(AttachRequest("5" * 32, Name("web"), mode, (join,), netns=path))

    twins.act(attach)
    assert "tbf" in twins.shown
    twins.give("detach", "web")


def test_gc_of_a_container_that_died_and_of_what_no_record_knows(twins: Twins) -> None:
    twins.give("network", "create", "blue", "--ipv6")
    for name, host_port in (("dead", "8080"), ("alive", "8081")):
        path = twins.container(name)
        twins.give("attach", name, "--netns", path, "--net", "blue", "-p", f"{host_port}:80")
    twins.end("dead")
    stray = f"ip link add stray-{{}} address 02:00:00:00:00:01 group {LINK_GROUP} type"
    twins.everywhere(*stray.format("bridge").split(), "bridge")
    peer = "peer name other address 02:00:00:00:00:02"
    twins.everywhere(*f"{stray.format('veth')} veth {peer}".split())
    twins.everywhere("nft", "add element inet vethwork port4 { tcp . 999 : 10.9.0.250 . 80 }")
    twins.give("gc")
    assert "stray-bridge" in twins.shown
    assert "# container dead: its namespace" in twins.shown
    assert "table inet vethwork {" in twins.shown
    link = twins.real.view("inspect", "alive")["endpoints"][0]["host_interface"]
    twins.end("alive")
    twins.everywhere("ip", "link", "del", link)  # as the kernel does with the last of its namespace
    twins.give("gc")
    assert "table inet vethwork {" not in twins.shown


def test_it_prints_nothing_but_commands(twins: Twins) -> None:
    """Comments, and the programs that a person would have typed; and ``detach`` of nobody prints nothing."""
    shown = []
    for command in (
        ("network", "create", "blue", "--ipv6"),
        ("attach", "web", "--netns", twins.container("web"), "--net", "blue", "-p", "8080:80"),
        ("detach", "web"),
    ):
        twins.give(*command)
        shown += commands_in(twins.shown)
    assert {line.split()[0] for line in shown} == {"ip", "nft", "nsenter", "conntrack", "bridge", "sysctl"}
    entered = {line.split()[2] for line in shown if line.startswith("nsenter")}
    assert entered == {"ip", "sysctl"}
    twins.give("detach", "web")
    assert twins.shown == ""


def commands_in(text: str) -> list[str]:
    """The lines that a shell executes: neither comments nor what ``nft -f -`` reads."""
    found: list[str] = []
    read_by_nft = False
    for line in text.splitlines():
        if not read_by_nft and not line.startswith("#"):
            found.append(line)
        read_by_nft = line != "END" if read_by_nft else line.endswith("<<'END'")
    return found
