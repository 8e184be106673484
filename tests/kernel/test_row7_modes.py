"""Row 7: the four modes of ``run --net``, networks by name, namespaces by path."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel.stage import VERSIONS, Stage, address, eventually, ip, links, pings
from vethwork.testing.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from vethwork.testing.machine import Machine

FOREVER = ("sleep", "1000")
LISTEN = """
import http.server, json, socket
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"host": socket.gethostname(), "peer": self.client_address[0]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
with Server(("::", 80), Handler) as server:
    print("ready", flush=True)
    server.serve_forever()
"""
SERVE = (sys.executable, "-c", LISTEN)


@pytest.fixture(scope="module")
def lone(needs: None) -> Iterator[Stage]:
    """A lab for what no packet has a part in."""
    with Lab() as lab:
        yield Stage(lab)


def inode(path: str) -> str:
    return f"net:[{os.stat(path).st_ino}]"


def fetch(asker: Machine, target: str, port: int = 8080) -> Any:
    url = f"http://[{target}]:{port}/" if ":" in target else f"http://{target}:{port}/"
    return json.loads(asker.fetch(url).text)


def start_server(stage: Stage, name: str, *options: str) -> None:
    """Leave a real HTTP server in the background, and wait for its word."""
    assert stage.command("run", "-d", "--name", name, *options, "--", *SERVE) == (0, f"{name}\n", "")
    assert eventually(lambda: "ready" in stage.do_or_empty("logs", name))


def inside(stage: Stage, name: str) -> Machine:
    """A container that runs, as a machine of the lab."""
    return stage.lab.at(stage.view("inspect", name)["netns"], name)


# host and none.


def test_host_shares_the_hosts_namespace(stage: Stage) -> None:
    said = stage.command("run", "--net", "host", "--", "readlink", "/proc/self/ns/net")
    assert said == (0, f"{inode(stage.host.path)}\n", "")
    assert links(stage.host).keys() == {"lo", "eth0", "eth1"}
    start_server(stage, "web", "--net", "host")
    assert fetch(stage.lab.neighbour, stage.host.v4, 80)["peer"].endswith(stage.lab.neighbour.v4)
    view = stage.view("inspect", "web")
    assert (view["mode"], view["endpoints"], view["ports"]) == ("host", [], [])


def test_none_has_loopback_only(stage: Stage) -> None:
    said = stage.command("run", "--net", "none", "--rm", "--", "ip", "-j", "addr")
    shown = [link for link in json.loads(said.out) if "UP" in link["flags"]]
    assert [link["ifname"] for link in shown] == ["lo"]
    for target in ("127.0.0.1", "::1"):
        said = stage.command("run", "--net", "none", "--", "ping", "-nc1", "-W1", target)
        assert said.status == 0
    for target in (stage.host.v4, stage.host.v6):
        said = stage.command("run", "--net", "none", "--", "ping", "-nc1", target)
        assert "unreachable" in said.err
    assert set(links(stage.host)) == {"lo", "eth0", "eth1"}


# bridge, the default.


def test_the_default_is_a_network_that_is_made_on_first_use(stage: Stage) -> None:
    assert "vethwork0" not in links(stage.host)
    assert stage.view("network", "ls") == []
    start_server(stage, "web", "-p", "8080:80")
    assert links(stage.host)["vethwork0"]["linkinfo"]["info_kind"] == "bridge"
    (network,) = stage.view("network", "ls")
    assert (network["name"], network["device"]) == ("bridge", "vethwork0")
    view = stage.view("inspect", "web")
    assert (view["mode"], view["endpoints"][0]["network"]) == ("bridge", "bridge")
    seen = fetch(stage.lab.neighbour, stage.host.v4)
    assert (seen["host"], seen["peer"]) == ("web", f"::ffff:{stage.lab.neighbour.v4}")
    stage.lab.internet.serve_http(80)
    asked = stage.command(
        "run", "--rm", "--", "curl", "-s", "--max-time", "5", f"http://{stage.lab.internet.v4}/"
    )
    assert json.loads(asked.out)["peer"] == stage.host.v4


def test_its_subnet_is_clear_of_what_the_host_routes(stage: Stage) -> None:
    """The first candidates are routes, an address, a network of ours; the one that is chosen overlaps nothing."""
    stage.host.add_route("10.76.0.0/15", "192.0.2.1")
    stage.host.add_address("10.78.4.1/16")
    stage.do("network", "create", "mine", "--subnet", "10.79.0.0/22")
    held = [
        ipaddress.ip_network(route["dst"])
        for route in ip(stage.host, "-4", "route", "show", "table", "all")
        if route["dst"] != "default"
    ]
    stage.do("run", "--", "true")
    (subnet,) = stage.view("network", "inspect", "bridge")["subnets"]
    chosen = ipaddress.ip_network(subnet["subnet"])
    assert chosen == ipaddress.ip_network("10.79.4.0/22")
    assert not any(chosen.overlaps(other) for other in held)


def test_where_a_whole_pool_is_routed_the_next_is_taken(stage: Stage) -> None:
    stage.host.add_route("10.76.0.0/14", "192.0.2.1")
    stage.do("run", "--", "true")
    assert stage.view("network", "inspect", "bridge")["subnets"][0]["subnet"] == "172.24.0.0/22"


# container:NAME.


@pytest.fixture
def web(stage: Stage) -> Machine:
    """A container whose process does nothing, with a published port."""
    stage.network("blue")
    said = stage.command("run", "-d", "--name", "web", "--net", "blue", "-p", "8080:80", "--", *FOREVER)
    assert said.status == 0, said.err
    return inside(stage, "web")


def pid_of(stage: Stage, name: str) -> int:
    return int(stage.view("inspect", name)["pid"])


def identity(machine: Machine) -> list[tuple[str, str, list[str]]]:
    """Its interfaces with their MAC and IP addresses; not those that the kernel makes up in its own time (fe80::)."""
    return [
        (link["ifname"], link["address"], [a["local"] for a in link["addr_info"] if a["scope"] != "link"])
        for link in ip(machine, "addr")
    ]


def test_container_shares_addresses_and_ports(stage: Stage, web: Machine) -> None:
    said = stage.command("run", "--rm", "--net", "container:web", "--", "ip", "-j", "addr")
    shared = {link["ifname"]: link["address"] for link in json.loads(said.out)}
    assert shared == {name: mac for name, mac, _ in identity(web)}
    assert web.v4 in said.out
    assert web.v6 in said.out
    start_server(stage, "side", "--net", "container:web")
    view = stage.view("inspect", "side")
    assert (view["mode"], view["netns"]) == ("container:web", stage.view("inspect", "web")["netns"])
    for version in VERSIONS:
        assert fetch(stage.lab.neighbour, address(stage.host, version))["host"] == "side"
    busy = stage.command("run", "--rm", "--net", "container:web", "--", *SERVE)
    assert busy.status == 1
    assert "Address already in use" in busy.err


def test_it_survives_what_becomes_of_the_others_process(stage: Stage, web: Machine) -> None:
    """Stop, start, kill -9, start: the namespace is pinned, and its addresses, ports and sharers stay."""
    start_server(stage, "side", "--net", "container:web")
    neighbour = stage.lab.neighbour
    before = identity(web)
    first = pid_of(stage, "web")

    def is_whole() -> bool:
        served = [fetch(neighbour, address(stage.host, version))["host"] for version in VERSIONS]
        return served == ["side", "side"] and identity(web) == before

    assert is_whole()
    assert stage.command("stop", "web").status == 0
    assert pid_of(stage, "web") == 0
    assert is_whole()
    assert stage.command("start", "web").status == 0
    second = pid_of(stage, "web")
    assert second not in (0, first)
    assert os.readlink(f"/proc/{second}/ns/net") == inode(web.path)
    os.kill(second, signal.SIGKILL)
    assert eventually(lambda: pid_of(stage, "web") == 0)
    assert is_whole()
    assert stage.view("inspect", "web")["status"] == "exited (137)"
    assert stage.command("start", "web").status == 0
    assert os.readlink(f"/proc/{pid_of(stage, 'web')}/ns/net") == inode(web.path)
    assert is_whole()


def test_one_that_is_shared_is_not_removed_before_the_sharers(stage: Stage, web: Machine) -> None:
    start_server(stage, "side", "--net", "container:web")
    said = stage.refused("rm", "-f", "web")
    assert said.status == 4
    assert "side share its namespace" in said.err
    assert pid_of(stage, "web")
    stage.do("rm", "-f", "side", "web")
    assert stage.view("ps") == []


def test_container_of_nobody_and_of_a_sharer(stage: Stage, web: Machine) -> None:
    assert stage.refused("run", "--net", "container:nobody", "--", "true").status == 3
    start_server(stage, "side", "--net", "container:web")
    said = stage.command("run", "--rm", "--net", "container:side", "--", "readlink", "/proc/self/ns/net")
    assert said.out.strip() == inode(web.path)


# Networks by name, several at once, ns:PATH.


def test_several_networks_at_once(stage: Stage) -> None:
    """An interface on each, in their order; the default route is the first one's."""
    for name in ("blue", "green", "isle"):
        stage.network(name, *(["--isolated"] if name == "isle" else []))
    nets = ("--net", "blue", "--net", "green", "--net", "isle")
    assert stage.command("run", "-d", "--name", "web", *nets, "-p", "8080:80", "--", *SERVE).status == 0
    web = inside(stage, "web")
    ends = stage.view("inspect", "web")["endpoints"]
    assert [(end["interface"], end["network"]) for end in ends] == [
        ("eth0", "blue"),
        ("eth1", "green"),
        ("eth2", "isle"),
    ]
    for version in VERSIONS:
        (route,) = ip(web, f"-{version}", "route", "show", "default")
        assert (route["dev"], route["gateway"]) == ("eth0", stage.gateway("blue", version))
    for end in ends:
        peer = stage.attach(f"on-{end['network']}", "--net", end["network"])
        assert all(pings(peer, own.partition("/")[0]) for own in end["addresses"])
        assert all(pings(web, address(peer, version)) for version in VERSIONS)
    assert eventually(lambda: "ready" in stage.do("logs", "web"))
    for version in VERSIONS:
        assert fetch(stage.lab.neighbour, address(stage.host, version))["host"] == "web"


def test_connect_and_disconnect_one_that_runs(stage: Stage, web: Machine) -> None:
    stage.network("green")
    peer = stage.attach("peer", "--net", "green")
    assert not links(web).keys() & {"eth1", "lan0"}
    said = stage.command("network", "connect", "--ifname", "lan0", "green", "web")
    assert said.status == 0, said.err
    assert said.out.startswith("lan0 ")
    assert all(pings(web, address(peer, version)) for version in VERSIONS)
    assert stage.refused("network", "connect", "green", "web").status == 4
    assert stage.command("network", "disconnect", "green", "web").status == 0
    assert "lan0" not in links(web)
    assert stage.refused("network", "disconnect", "green", "web").status == 3
    assert all(pings(web, stage.gateway("blue", version)) for version in VERSIONS)


def test_a_namespace_by_path(stage: Stage) -> None:
    theirs = stage.lab.container("theirs")
    said = stage.command("run", "--rm", "--net", f"ns:{theirs.path}", "--", "readlink", "/proc/self/ns/net")
    assert said == (0, f"{inode(theirs.path)}\n", "")
    assert os.path.exists(theirs.path)
    assert stage.refused("run", "--net", "ns:/etc/passwd", "--", "true").status == 2
    assert stage.refused("run", "--net", "ns:/no/where", "--", "true").status == 2
    own = stage.refused("run", "--net", f"ns:{stage.host.path}", "--", "true")
    assert own.status == 2
    assert "it is the host's own" in own.err


@pytest.mark.parametrize(
    "words",
    [
        ("--net", "host", "--net", "bridge"),
        ("--net", "none", "--net", "host"),
        ("--net", "bridge", "--net", "bridge"),
        ("--net", "host", "-p", "80"),
        ("--net", "none", "-p", "80"),
        ("--net", "container:web", "-p", "80"),
        ("--net", "host", "--ip", "10.1.1.1"),
        ("--net", "nonsense:x"),
        ("--net", "no-such-network"),
        ("--net", "../x"),
    ],
)
def test_modes_that_contradict_each_other_are_refused(lone: Stage, words: tuple[str, ...]) -> None:
    assert lone.refused("run", *words, "--", "true").status in (2, 3)
    assert lone.view("ps") == []
    assert "vethwork0" not in links(lone.host) or "bridge" in words


# What is told of a container.


def test_inspect_tells_what_programs_need(stage: Stage, web: Machine) -> None:
    stage.do("publish", "web", "127.0.0.1:9000-9009:9000-9009/udp")
    view = json.loads(stage.command("inspect", "web", "--json").out)
    assert {"name", "id", "mode", "netns", "pid", "endpoints", "ports"} <= view.keys()
    assert (view["name"], view["mode"], view["status"]) == ("web", "blue", "running")
    assert os.readlink(f"/proc/{view['pid']}/ns/net") == inode(view["netns"])
    (end,) = view["endpoints"]
    (shown,) = ip(web, "addr", "show", "eth0")
    assert (end["network"], end["interface"], end["mac"]) == ("blue", "eth0", shown["address"])
    assert end["host_interface"] in links(stage.host)
    assert set(end["addresses"]) == {
        f"{each['local']}/{each['prefixlen']}" for each in shown["addr_info"] if each["scope"] == "global"
    }
    assert end["gateways"] == [stage.gateway("blue", 4), stage.gateway("blue", 6)]
    assert view["ports"] == [
        {"host_ip": "", "host_port": 8080, "container_port": 80, "protocol": "tcp", "count": 1},
        {"host_ip": "127.0.0.1", "host_port": 9000, "container_port": 9000, "protocol": "udp", "count": 10},
    ]


def test_an_address_and_a_mac_that_were_asked_for(stage: Stage) -> None:
    stage.do("network", "create", "blue", "--subnet", "10.9.0.0/24", "--subnet", "fd09::/64")
    asked = ("--ip", "10.9.0.77", "--ip6", "fd09::77", "--mac-address", "02:00:00:00:00:77")
    said = stage.command("run", "--rm", "--net", "blue", *asked, "--", "ip", "-j", "addr", "show", "eth0")
    (shown,) = json.loads(said.out)
    assert shown["address"] == "02:00:00:00:00:77"
    assert {a["local"] for a in shown["addr_info"] if a["scope"] == "global"} == {"10.9.0.77", "fd09::77"}
    stage.attach("one", "--net", "blue", "--ip", "10.9.0.77")
    taken = stage.refused("run", "--net", "blue", "--ip", "10.9.0.77", "--", "true")
    assert taken.status == 4
    assert "is held by container one" in taken.err
    assert stage.refused("run", "--net", "blue", "--ip", "10.8.0.1", "--", "true").status == 2


# The process.


def test_it_has_files_and_a_name_of_its_own(stage: Stage) -> None:
    before = {name: Path(f"/etc/{name}").read_bytes() for name in ("hosts", "resolv.conf")}
    host_name = socket.gethostname()
    options = ("--hostname", "inside", "--add-host", "db:10.9.9.9", "--dns", "192.0.2.53")
    script = "hostname; cat /etc/resolv.conf; echo --; cat /etc/hosts; ip -j addr show eth0"
    said = stage.command("run", "--name", "web", *options, "--", "sh", "-c", script)
    name, _, rest = said.out.partition("\n")
    resolv, _, rest = rest.partition("--\n")
    hosts, _, shown = rest.partition("[")
    own = next(a["local"] for a in json.loads(f"[{shown}")[0]["addr_info"] if a["family"] == "inet")
    assert name == "inside"
    assert "nameserver 192.0.2.53" in resolv.splitlines()
    assert resolv.count("nameserver") == 1
    assert f"{own}\tinside" in hosts.splitlines()
    assert "10.9.9.9\tdb" in hosts.splitlines()
    assert socket.gethostname() == host_name
    assert {name: Path(f"/etc/{name}").read_bytes() for name in before} == before


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill -15 $$", 143)]
)
def test_its_exit_status_is_ours(lone: Stage, script: str, status: int) -> None:
    assert lone.command("run", "--rm", "--net", "none", "--", "sh", "-c", script).status == status


def test_a_command_that_cannot_be_run(lone: Stage) -> None:
    missing = lone.command("run", "--rm", "--net", "none", "--", "/no/such/program")
    assert missing.status == 127
    assert "/no/such/program" in missing.err
    assert lone.command("run", "--rm", "--net", "none", "--", "/etc/passwd").status == 126
    assert lone.view("ps") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_it(lone: Stage, number: signal.Signals) -> None:
    code = (
        "import signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, (1, 2, 10, 15))\n"
        "print('ready', flush=True)\n"
        "sys.exit(signal.sigwait((1, 2, 10, 15)) + 40)\n"
    )
    argv = [
        sys.executable,
        "-m",
        "vethwork",
        "run",
        "--rm",
        "--net",
        "none",
        "--",
        sys.executable,
        "-c",
        code,
    ]
    with lone.host.popen(argv, stdout=-1) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        program.send_signal(number)
        assert program.wait(20) == number + 40


def test_what_it_reads_and_says_passes_through(lone: Stage) -> None:
    script = "read line; echo got $line; echo warned >&2"
    said = lone.command("run", "--rm", "--net", "none", "--", "sh", "-c", script, stdin="a line\n")
    assert said == (0, "got a line\n", "warned\n")


def test_the_life_of_one_in_the_background(stage: Stage) -> None:
    """run -d, ps, logs, exec, stop, start, rm: each by a program of its own."""
    start_server(stage, "web", "-p", "8080:80")
    here, own = stage.host.v4, stage.view("inspect", "web")["endpoints"][0]["addresses"]
    (row,) = [line.split() for line in stage.command("ps").out.splitlines()[1:]]
    assert row[:4] == ["web", "bridge", "running", str(pid_of(stage, "web"))]
    assert row[-1] == "*:8080->80/tcp"
    assert stage.command("logs", "web").out == "ready\n"
    said = stage.command("exec", "web", "--", "sh", "-c", "hostname; cat /etc/hostname; exit 5")
    assert said == (5, "web\nweb\n", "")
    busy = stage.refused("rm", "web")
    assert busy.status == 4
    assert "it runs, as process" in busy.err
    assert stage.command("stop", "web") == (0, "web\n", "")
    assert "exited (143)" in stage.command("ps").out
    with pytest.raises(OSError, match="refused"):
        stage.lab.neighbour.fetch(f"http://{here}:8080/")
    assert stage.command("start", "web").status == 0
    assert stage.view("inspect", "web")["endpoints"][0]["addresses"] == own
    assert eventually(lambda: stage.do("logs", "web").count("ready") == 2)
    assert fetch(stage.lab.neighbour, here)["host"] == "web"
    assert stage.command("start", "web").status == 4
    netns = stage.view("inspect", "web")["netns"]
    assert stage.command("rm", "-f", "web") == (0, "web\n", "")
    assert not os.path.exists(netns)
    assert set(links(stage.host)) == {"lo", "eth0", "eth1", "vethwork0"}
    assert stage.command("rm", "web").status == 0
    assert stage.refused("logs", "web").status == 3
    assert stage.refused("inspect", "web").status == 3


def test_with_rm_nothing_is_left_when_it_ends(stage: Stage) -> None:
    assert stage.command("run", "--rm", "--name", "brief", "-p", "8080:80", "--", "true").status == 0
    assert stage.view("ps") == []
    assert stage.elements("port4") == []
    assert set(links(stage.host)) == {"lo", "eth0", "eth1", "vethwork0"}
    start_server(stage, "long", "--rm")
    os.kill(pid_of(stage, "long"), signal.SIGKILL)
    assert eventually(lambda: stage.view("ps") == [])


def test_a_container_that_something_else_runs(stage: Stage) -> None:
    """By its process, or by the path of its namespace; and detached, as often as one likes."""
    stage.network("blue")
    holder = stage.host.popen(
        ["unshare", "--net", sys.executable, "-c", "import sys; print('in', flush=True); sys.stdin.read()"],
        stdout=-1,
        stdin=-1,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "in\n"
    said = stage.command(
        "attach", "by-pid", "--pid", str(holder.pid), "--net", "blue", "-p", "8080:80", "--json"
    )
    view = json.loads(said.out)
    assert (view["pid"], view["status"]) == (holder.pid, "attached")
    theirs = stage.lab.at(f"/proc/{holder.pid}/ns/net", "by-pid")
    theirs.serve_http(80)
    for version in VERSIONS:
        assert stage.lab.neighbour.connect(address(stage.host, version), 8080).name == "by-pid"
    bare = stage.bare("by-path")
    said = stage.command("attach", "by-path", "--netns", bare.path, "--net", "blue")
    assert said.status == 0
    assert all(pings(bare, address(theirs, version)) for version in VERSIONS)
    assert stage.refused("attach", "by-path", "--netns", bare.path, "--net", "blue").status == 4
    assert stage.refused("attach", "neither", "--net", "blue").status == 2
    assert stage.refused("stop", "by-path").status == 2
    for machine in (theirs, bare):
        for _ in range(2):
            assert stage.command("detach", machine.name) == (0, "", "")
        assert set(links(machine)) == {"lo"}
    for version in VERSIONS:
        assert not stage.lab.neighbour.reaches(address(stage.host, version), 8080)
