"""Row 5: what ``-p`` takes, what it makes of it, and who holds a port already."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel.stage import ANY, LONG_ENOUGH, LOOPBACK, Stage, address, bracketed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vethwork.testing.machine import Machine

PROTOCOLS = pytest.mark.parametrize("protocol", ["tcp", "udp"])
HOLD = """
import socket, sys, signal
kind, family, address, port = sys.argv[1:]
held = socket.socket(getattr(socket, family), getattr(socket, kind))
held.bind((address, int(port)))
if kind == "SOCK_STREAM":
    held.listen()
print("held", flush=True)
signal.pause()
"""


@pytest.fixture(scope="module")
def settled(scene: Stage) -> Machine:
    """A container on a network."""
    scene.network("blue")
    return scene.settle("web", "--net", "blue")


@pytest.fixture
def web(scene: Stage, settled: Machine) -> Iterator[Machine]:
    """The container, which publishes nothing yet; it is alone with the host, before and after."""
    yield settled
    scene.clear("web")


@contextmanager
def holding(machine: Machine, protocol: str, bind: str, port: int) -> Iterator[int]:
    """Let a program of a machine hold a port; gives its process."""
    kind = "SOCK_STREAM" if protocol == "tcp" else "SOCK_DGRAM"
    family = "AF_INET6" if ":" in bind else "AF_INET"
    argv = [sys.executable, "-c", HOLD, kind, family, bind, str(port)]
    with machine.popen(argv, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "held\n"
        try:
            yield program.pid
        finally:
            program.kill()


# What is asked for.


@PROTOCOLS
def test_a_port_that_nobody_named_is_chosen(scene: Stage, web: Machine, version: int, protocol: str) -> None:
    said = scene.command("publish", "web", f"80/{protocol}", "--json")
    assert said.status == 0, said.err
    (port,) = scene.view("port", "web")
    assert 49152 <= port["host_port"] <= 65535
    assert (port["container_port"], port["protocol"], port["host_ip"]) == (80, protocol, "")
    seen = scene.lab.neighbour.connect(address(scene.host, version), port["host_port"], protocol)
    assert seen.name == "web"


def test_chosen_ports_differ(scene: Stage, web: Machine) -> None:
    scene.do("publish", "web", "80", "80", "80/udp")
    scene.attach("other", "--net", "blue", "-p", "80", "-p", "81")
    ports = [each for name in ("web", "other") for each in scene.view("port", name)]
    assert len({(each["host_port"], each["protocol"]) for each in ports}) == 5


def test_a_port_is_listed_for_people(scene: Stage, web: Machine) -> None:
    scene.do(
        "publish", "web", "8080:80", "127.0.0.1:8081:80/udp", "[2001:db8:1::2]:8082:80", "9000-9009:9000-9009"
    )
    assert scene.do("port", "web").splitlines() == [
        "*:8080->80/tcp",
        "[2001:db8:1::2]:8082->80/tcp",
        "*:9000-9009->9000-9009/tcp",
        "127.0.0.1:8081->80/udp",
    ]


@PROTOCOLS
def test_on_loopback_only_the_host_reaches_it(scene: Stage, web: Machine, protocol: str) -> None:
    scene.do("publish", "web", f"127.0.0.1:8080:80/{protocol}", f"8081:80/{protocol}")
    assert scene.host.connect("127.0.0.1", 8080, protocol).name == "web"
    far = scene.attach("far", "--net", "blue")
    for asker in (scene.host, scene.lab.neighbour, far):
        assert asker.reaches(scene.host.v4, 8081, protocol)
        assert not asker.reaches(scene.host.v4, 8080, protocol, timeout=LONG_ENOUGH)


def test_on_ipv6_loopback_it_is_refused_in_words(scene: Stage, web: Machine) -> None:
    bare = scene.bare("bare")
    for verb in (("publish", "web"), ("attach", "bare", "--netns", bare.path, "-p"), ("run", "-p")):
        said = scene.refused(*verb, "[::1]:8080:80", *(("--", "true") if verb[0] == "run" else ()))
        assert said.status == 2
        assert "[::1]:8080:80/tcp: the kernel cannot lead ::1 to a container" in said.err
        assert "hint: publish on 127.0.0.1" in said.err
    assert scene.view("port", "web") == []
    assert [each["name"] for each in scene.view("ps")] == ["web"]


@PROTOCOLS
def test_on_one_address_it_is_there_and_nowhere_else(
    scene: Stage, web: Machine, version: int, protocol: str
) -> None:
    here = address(scene.host, version)
    scene.do("publish", "web", f"{bracketed(here)}:8080:80/{protocol}")
    far = scene.attach("far", "--net", "blue")
    for asker in (scene.lab.neighbour, scene.host, web, far):
        assert asker.connect(here, 8080, protocol).name == "web"
    others = [str(each) for each in scene.host.addresses if str(each) != here]
    for other in (*others, LOOPBACK[4]):
        assert not scene.host.reaches(other, 8080, protocol, timeout=LONG_ENOUGH)
    assert not scene.lab.neighbour.reaches(
        address(scene.host, 10 - version), 8080, protocol, timeout=LONG_ENOUGH
    )


def test_on_every_address_of_one_version(scene: Stage, web: Machine, version: int) -> None:
    scene.do("publish", "web", f"{bracketed(ANY[version])}:8080:80")
    assert scene.lab.neighbour.reaches(address(scene.host, version), 8080)
    assert scene.host.reaches(scene.gateway("blue", version), 8080)
    with pytest.raises(ConnectionRefusedError):
        scene.lab.neighbour.connect(address(scene.host, 10 - version), 8080)


def test_an_address_that_is_not_the_hosts_is_refused(scene: Stage, web: Machine, version: int) -> None:
    foreign = address(scene.lab.neighbour, version)
    said = scene.refused("publish", "web", f"{bracketed(foreign)}:8080:80")
    assert said.status == 2
    assert f"the host does not hold {foreign}" in said.err


@PROTOCOLS
def test_a_range_is_one_element(scene: Stage, web: Machine, version: int, protocol: str) -> None:
    assert scene.command("publish", "web", f"8000-8099:8000-8099/{protocol}").status == 0
    (element,) = scene.elements(f"range{version}")
    assert element == [{"concat": [protocol, {"range": [8000, 8099]}]}, address(web, version)]
    assert scene.elements(f"port{version}") == []
    for port in (8000, 8042, 8099):
        scene.serve(web, port, protocol)
        seen = scene.lab.neighbour.connect(address(scene.host, version), port, protocol)
        assert (seen.name, seen.local_port, seen.peer) == ("web", port, address(scene.lab.neighbour, version))
    scene.serve(web, 8100, protocol)
    for port in (7999, 8100):
        with pytest.raises(ConnectionRefusedError):
            scene.lab.neighbour.connect(address(scene.host, version), port, protocol)
    scene.do("unpublish", "web", f"8000-8099:8000-8099/{protocol}")
    assert scene.elements(f"range{version}") == []


@PROTOCOLS
def test_a_range_that_is_shifted_works_one_to_one(
    scene: Stage, web: Machine, version: int, protocol: str
) -> None:
    scene.do("publish", "web", f"7000-7009:8000-8009/{protocol}")
    for offset in (0, 5, 9):
        scene.serve(web, 8000 + offset, protocol)
        seen = scene.lab.neighbour.connect(address(scene.host, version), 7000 + offset, protocol)
        assert (seen.name, seen.local_port) == ("web", 8000 + offset)
    with pytest.raises(ConnectionRefusedError):
        scene.lab.neighbour.connect(address(scene.host, version), 7010, protocol)


def test_several_at_once(stage: Stage, version: int) -> None:
    stage.network("blue")
    specs = ("8080:80", "8081:80", "5353:80/udp", "9000-9001:79-80", "80:80/udp")
    web = stage.settle("web", "--net", "blue", *(word for spec in specs for word in ("-p", spec)))
    here = address(stage.host, version)
    for port, protocol in ((8080, "tcp"), (8081, "tcp"), (5353, "udp"), (9001, "tcp"), (80, "udp")):
        seen = stage.lab.neighbour.connect(here, port, protocol)
        assert (seen.name, seen.local, seen.local_port) == ("web", address(web, version), 80)


def test_publish_and_unpublish_a_container_that_runs(scene: Stage, web: Machine, version: int) -> None:
    here, neighbour = address(scene.host, version), scene.lab.neighbour
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            neighbour.connect(here, 8080)
        said = scene.command("publish", "web", "8080:80")
        assert said == (0, "*:8080->80/tcp\n", "")
        assert neighbour.connect(here, 8080).name == "web"
        assert scene.command("unpublish", "web", "8080:80") == (0, "", "")
    said = scene.refused("unpublish", "web", "8080:80")
    assert said.status == 3
    assert "web does not publish that" in said.err


def test_a_container_that_goes_takes_its_ports_along(scene: Stage, web: Machine, version: int) -> None:
    scene.attach("goer", "--net", "blue")
    scene.do("publish", "goer", "8080:80", "9000-9009:9000-9009/udp", "127.0.0.1:8081:80")
    scene.do("detach", "goer")
    for kind in ("port4", "port6", "range4", "range6", "port_at4"):
        assert scene.elements(kind) == []
    heir = scene.settle("heir", "--net", "blue", "-p", "8080:80")
    assert scene.lab.neighbour.connect(address(scene.host, version), 8080).local == address(heir, version)


@pytest.mark.parametrize(
    "spec",
    [
        *(
            "",
            "0:80",
            "80:0",
            "65536:80",
            "8080:80/icmp",
            "x:80",
            "80-90",
            "80-90:80-91",
            "90-80:90-80",
            ":80",
        ),
        *("8080:80/", "::1:8080:80", "fd00::1:8080:80", "[fd00::1]8080:80", "300.1.1.1:8080:80", "-1:80"),
        *("224.0.0.1:8080:80", "[ff02::1]:8080:80", "[fe80::1]:8080:80", "8080:80:80:80", " 80", "8_0:80"),
    ],
)
def test_what_cannot_be_meant_is_refused(scene: Stage, spec: str) -> None:
    said = scene.refused("publish", "--", "web", spec)
    assert said.status == 2
    assert said.err.startswith("vethwork: ")


def has_sctp() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        return False
    return True


def test_sctp_is_refused_in_words_where_the_kernel_has_none(scene: Stage, web: Machine) -> None:
    if has_sctp():
        pytest.skip("needs a kernel built without CONFIG_IP_SCTP")
    said = scene.refused("publish", "web", "8080:80/sctp")
    assert said.status == 5
    assert "this kernel has no sctp" in said.err
    assert "CONFIG_IP_SCTP" in said.err
    assert scene.view("port", "web") == []


def test_sctp(scene: Stage, web: Machine, kernel_option: Callable[[str], None]) -> None:
    kernel_option("CONFIG_IP_SCTP")

    def open_sctp() -> socket.socket:
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)

    scene.do("publish", "web", "8080:80/sctp")
    with web.inside(open_sctp) as server, scene.lab.neighbour.inside(open_sctp) as client:
        server.bind(("0.0.0.0", 80))
        server.listen()
        client.settimeout(3)
        client.connect((scene.host.v4, 8080))
        accepted, peer = server.accept()
        accepted.close()
        assert peer[0] == scene.lab.neighbour.v4


# Who holds it.


@PROTOCOLS
@pytest.mark.parametrize("bind", ["any", "one"])
def test_a_port_of_a_local_process_is_refused_naming_it(
    scene: Stage, web: Machine, version: int, protocol: str, bind: str
) -> None:
    held_at = ANY[version] if bind == "any" else address(scene.host, version)
    specs = (
        f"8042:80/{protocol}",
        f"8000-8099:8000-8099/{protocol}",
        f"{bracketed(held_at)}:8042:80/{protocol}",
    )
    with holding(scene.host, protocol, held_at, 8042) as pid:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        for spec in specs:
            said = scene.refused("publish", "web", spec)
            assert said.status == 4
            assert f"the host port is held by process {name} (pid {pid})" in said.err
        assert scene.view("port", "web") == []
        assert scene.elements(f"port{version}") == scene.elements(f"range{version}") == []
        other = "udp" if protocol == "tcp" else "tcp"
        scene.do("publish", "web", f"8042:80/{other}")
    scene.do("publish", "web", f"8042:80/{protocol}")


def test_a_process_elsewhere_holds_nothing_of_the_hosts(scene: Stage, web: Machine) -> None:
    with holding(scene.lab.neighbour, "tcp", "0.0.0.0", 8080), holding(web, "tcp", "0.0.0.0", 8080):
        scene.do("publish", "web", "8080:80")


def test_a_port_of_another_container_is_refused_naming_it(scene: Stage, web: Machine) -> None:
    scene.do("publish", "web", "8080:80", "9000-9009:9000-9009/udp", "127.0.0.1:8090:80")
    other = scene.bare("other")
    for spec, holds in (
        ("8080:81", "8080:80/tcp"),
        ("127.0.0.1:8080:81", "8080:80/tcp"),
        ("[2001:db8:1::2]:8080:81", "8080:80/tcp"),
        ("8070-8089:8070-8089", "8080:80/tcp"),
        ("9005:80/udp", "9000-9009:9000-9009/udp"),
        ("9009-9010:9009-9010/udp", "9000-9009:9000-9009/udp"),
        ("8090:80", "127.0.0.1:8090:80/tcp"),
    ):
        said = scene.refused("attach", "other", "--netns", other.path, "--net", "blue", "-p", spec)
        assert said.status == 4
        assert f"the host port is held by container web (as {holds})" in said.err
    for spec in ("8080:80/udp", "9000:80", "192.0.2.2:8090:80", "[2001:db8:1::2]:8090:80"):
        scene.do("publish", "web", spec)


def test_a_network_without_a_gateway_publishes_nothing(stage: Stage) -> None:
    for name, options in (
        ("isle", ["--isolated"]),
        ("inner", ["--internal"]),
        ("cable", ["--driver", "p2p"]),
    ):
        stage.network(name, *options)
        bare = stage.lab.container(f"on-{name}")
        said = stage.refused("attach", bare.name, "--netns", bare.path, "--net", name, "-p", "8080:80")
        assert said.status == 2
        assert "needs a network whose gateway is the host" in said.err


def test_a_network_without_ipv6_publishes_on_ipv4(stage: Stage) -> None:
    stage.do("network", "create", "old")
    stage.settle("web", "--net", "old", "-p", "8080:80")
    assert stage.lab.neighbour.connect(stage.host.v4, 8080).name == "web"
    with pytest.raises(ConnectionRefusedError):
        stage.lab.neighbour.connect(stage.host.v6, 8080)
    said = stage.refused("publish", "web", "[2001:db8:1::2]:8081:80")
    assert "has no IPv6 address" in said.err
    assert "--ipv6" in said.err
