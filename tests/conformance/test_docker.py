"""The plugin under the real dockerd: everything that is done with a network, in the user's words.

Source: docker-network-create(1), docker-run(1).
"""

from __future__ import annotations

import signal
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.conformance.dockerd import BLUE, BLUE6, DEADLINE, HELLO, Docker, prepared
from tests.conformance.images import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conformance.home import Home

ALONE = (
    "--iptables=false",
    "--ip6tables=false",
    "--bridge=none",
    "--ip-forward=false",
    "--ip-masq=false",
    "--userland-proxy=false",
)


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory, home: Home) -> Iterator[Docker]:
    """The only engine of its host."""
    with ExitStack() as stack:
        yield prepared(stack, home, tmp_path_factory.mktemp("docker"), *ALONE)


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every container and network goes, and gives back everything."""
    yield
    if "docker" not in request.fixturenames:
        return
    docker: Docker = request.getfixturevalue("docker")
    for each in docker("ps", "--all", "--quiet").stdout.split():
        docker("rm", "--force", each)
    docker("network", "prune", "--force")
    assert docker.vethwork("ps") == docker.vethwork("network", "ls") == []
    assert docker.links() == {"lo", "eth0"}
    assert "internal error" not in (docker.scratch / "dockerd.log").read_text()
    assert "Traceback" not in (docker.scratch / "plugin.log").read_text()


def test_a_network_and_what_docker_knows_of_it(docker: Docker) -> None:
    docker.network("blue", *BLUE, "-o", "name=blue", "-o", "bridge=br-blue", "-o", "mtu=1400")
    shown = docker.vethwork("network", "inspect", "blue")
    assert (shown["device"], shown["mtu"]) == ("br-blue", 1400)
    docker.run("web", "blue")
    said, shown = docker.endpoint("web", "blue"), docker.vethwork("ps")[0]
    assert shown["name"] == said["EndpointID"]
    assert shown["endpoints"][0]["addresses"] == [f"{said['IPAddress']}/24"]
    assert shown["endpoints"][0]["mac"] == said["MacAddress"]
    assert docker.host.fetch(f"http://{said['IPAddress']}/").text == HELLO
    assert "mtu 1400" in docker.ask("web", "ip", "link", "show", "eth0")
    assert docker.vethwork("inspect", said["EndpointID"])["owner"] == "docker"


def test_containers_find_each_other_by_name_and_the_internet(docker: Docker) -> None:
    docker.network("blue", *BLUE)
    docker.run("web", "blue", "--network-alias", "shop")
    for name in ("web", "shop"):
        assert (
            docker("run", "--rm", "--network", "blue", NAME, "wget", "-qO-", f"http://{name}/").stdout
            == HELLO
        )
    docker("run", "--rm", "--network", "blue", NAME, "ping", "-c1", "-W2", docker.lab.internet.v4)


def test_networks_do_not_see_each_other(docker: Docker) -> None:
    docker.network("blue", *BLUE)
    docker.network("red", "--subnet", "10.56.0.0/24")
    docker.run("web", "blue")
    target = docker.endpoint("web", "blue")["IPAddress"]
    asked = docker("run", "--rm", "--network", "red", NAME, "ping", "-c1", "-W1", target, check=False)
    assert asked.returncode == 1


def test_ports_of_all_kinds(docker: Docker) -> None:
    docker.network("blue", *BLUE)
    ports = [
        "-p",
        "8080:80",
        "-p",
        "9000-9003:80-83",
        "-p",
        "127.0.0.1:8081:80",
        "-p",
        "8082:80/udp",
        "-p",
        "80",
    ]
    docker.run("web", "blue", *ports)
    shown = docker.vethwork("ps")[0]["ports"]
    chosen = next(each["host_port"] for each in shown if each["host_port"] >= 49152)
    assert docker.serves(8080)
    assert docker.serves(9000)
    assert docker.serves(chosen)
    assert docker.host.fetch("http://127.0.0.1:8081/").text == HELLO
    assert not docker.serves(8081)
    docker("stop", "--time", "0", "web")
    assert not docker.serves(8080)
    assert docker.vethwork("ps") == []
    docker("start", "web")
    assert docker.serves(8080)
    docker("restart", "--time", "0", "web")
    assert docker.serves(8080)


def test_a_port_that_is_held(docker: Docker) -> None:
    docker.network("blue", *BLUE)
    docker.run("web", "blue", "-p", "8080:80")
    refused = docker("run", "--network", "blue", "-p", "8080:80", "--name", "late", NAME, check=False)
    assert refused.returncode == 125
    assert "8080" in refused.stderr
    assert "held by container" in refused.stderr
    assert len(docker.vethwork("ps")) == 1
    assert docker.serves(8080)


def test_connect_and_disconnect(docker: Docker) -> None:
    docker.network("blue", *BLUE)
    docker.network("red", "--subnet", "10.56.0.0/24")
    docker.run("web", "blue", "-p", "8080:80")
    docker("network", "connect", "--ip", "10.56.0.77", "red", "web")
    assert "10.56.0.77/24" in docker.ask("web", "ip", "addr", "show", "eth1")
    assert docker("run", "--rm", "--network", "red", NAME, "wget", "-qO-", "http://web/").stdout == HELLO
    assert docker.serves(8080)
    docker("network", "disconnect", "red", "web")
    assert "eth1" not in docker.ask("web", "ip", "link")
    assert docker.serves(8080)
    docker("network", "connect", "red", "web")
    docker("network", "disconnect", "blue", "web")
    assert "eth0" not in docker.ask("web", "ip", "link")
    assert len(docker.vethwork("ps")) == 1


def test_static_addresses_and_macs(docker: Docker) -> None:
    docker.network("blue", *BLUE, *BLUE6)
    mac = "02:00:00:00:00:77"
    docker.run("web", "blue", "--ip", "10.55.0.50", "--ip6", "fd55::50", "--mac-address", mac)
    shown = docker.ask("web", "ip", "addr", "show", "eth0")
    assert "10.55.0.50/24" in shown
    assert "fd55::50/64" in shown
    assert mac in shown
    docker("run", "--rm", "--network", "blue", NAME, "ping", "-c1", "-W2", "10.55.0.50")
    refused = docker("run", "--network", "blue", "--ip", "10.55.0.50", NAME, check=False)
    assert refused.returncode == 125


def test_ipv6(docker: Docker) -> None:
    docker.network("blue", *BLUE, *BLUE6)
    docker.run("web", "blue", "-p", "8080:80")
    assert docker.serves(8080, docker.host.v6)
    docker.ask("web", "ping", "-6", "-c1", "-W2", docker.lab.internet.v6)


def test_internal(docker: Docker) -> None:
    docker.network("inner", *BLUE, "--internal")
    docker.run("web", "inner")
    assert "default" not in docker.ask("web", "ip", "route")
    assert docker("run", "--rm", "--network", "inner", NAME, "wget", "-qO-", "http://web/").stdout == HELLO
    assert docker("exec", "web", "ping", "-c1", "-W1", docker.host.v4, check=False).returncode != 0


@pytest.mark.parametrize("how", ["isolated=true", "internal=true"])
def test_no_gateway_makes_no_bridge_of_docker_s(docker: Docker, how: str) -> None:
    docker.network("alone", *BLUE, "-o", how)
    docker.run("web", "alone")
    assert "docker_gwbridge" not in docker.links()
    assert "eth1" not in docker.ask("web", "ip", "link")
    assert "default" not in docker.ask("web", "ip", "route")


def test_containers_of_a_network_that_may_not_talk(docker: Docker) -> None:
    docker.network("blue", *BLUE, "-o", "icc=false")
    docker.run("web", "blue")
    target = docker.endpoint("web", "blue")["IPAddress"]
    asked = docker("run", "--rm", "--network", "blue", NAME, "ping", "-c1", "-W1", target, check=False)
    assert asked.returncode == 1


@pytest.mark.parametrize("ipam", ["default", "vethwork", "null"])
def test_whose_addresses(docker: Docker, ipam: str) -> None:
    docker.network("blue", "--ipam-driver", ipam, "-o", "name=blue")
    docker.network("red", "--ipam-driver", ipam)
    docker.run("web", "blue", "-p", "8080:80")
    docker.run("other", "red")
    assert docker.serves(8080)
    mine = docker.lab.container(f"mine-{ipam}")
    docker.host.vethwork("attach", "mine", "--netns", mine.path, "--net", "blue")
    shown = docker.vethwork("inspect", docker.endpoint("web", "blue")["EndpointID"])
    address = shown["endpoints"][0]["addresses"][0].partition("/")[0]
    assert mine.fetch(f"http://{address}/").text == HELLO
    docker.host.vethwork("detach", "mine")


def test_our_ipam_in_the_whole(docker: Docker) -> None:
    pools = ["--subnet", "10.55.0.0/24", "--ip-range", "10.55.0.16/28", "--gateway", "10.55.0.254"]
    docker.network(
        "blue", "--ipam-driver", "vethwork", *pools, "--aux-address", "printer=10.55.0.16", "-o", "name=blue"
    )
    mine = docker.lab.container("mine")
    docker.host.vethwork("attach", "mine", "--netns", mine.path, "--net", "blue", "--ip", "10.55.0.17")
    docker.run("web", "blue")
    assert docker.endpoint("web", "blue")["IPAddress"] == "10.55.0.18"
    assert docker.endpoint("web", "blue")["Gateway"] == "10.55.0.254"
    docker.run("two", "blue", "--ip", "10.55.0.99")
    for wanted in ("10.55.0.17", "10.55.0.99", "10.55.0.16"):
        assert docker("run", "--network", "blue", "--ip", wanted, NAME, check=False).returncode == 125
    overlapping = docker(
        "network",
        "create",
        "-d",
        "vethwork",
        "--ipam-driver",
        "vethwork",
        "--subnet",
        "10.55.0.0/16",
        "x",
        check=False,
    )
    assert "overlaps" in overlapping.stderr
    docker.host.vethwork("detach", "mine")
    docker("rm", "--force", "web", "two")
    docker("network", "rm", "blue")
    docker.network("blue", "--ipam-driver", "vethwork", *pools)


def test_what_docker_may_not_say(docker: Docker) -> None:
    for options, word in (
        (("-o", "colour=blue"), "colour"),
        (("-o", "mtu=many"), "mtu"),
        (("-o", "name=a/b"), "a/b"),
        (("-o", "bridge=lo"), "lo"),
        (("--subnet", "192.0.2.0/25"), "overlaps"),
    ):
        command = ["network", "create", "-d", "vethwork", *options]
        refused = docker(*command, *(() if "--subnet" in options else BLUE), "bad", check=False)
        assert refused.returncode == 1
        assert word in refused.stderr
    assert docker.vethwork("network", "ls") == []


def test_the_plugin_is_started_anew(docker: Docker) -> None:
    docker.network("blue", *BLUE)
    docker.run("web", "blue", "-p", "8080:80")
    for number in (signal.SIGTERM, signal.SIGKILL):
        docker.stop_plugin(number)
        assert docker.serves(8080), "packets need no plugin"
        docker.start_plugin()
        assert docker("run", "--rm", "--network", "blue", NAME, "wget", "-qO-", "http://web/").stdout == HELLO
    docker.stop_plugin()
    docker.start_plugin()
    docker("rm", "--force", "web")
    assert docker.vethwork("ps") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("ipam", ["default", "vethwork"])
def test_dockerd_is_started_anew(docker: Docker, number: int, ipam: str) -> None:
    docker.network("blue", "--ipam-driver", ipam, *BLUE)
    docker.run("web", "blue", "-p", "8080:80", "--restart", "always")
    docker.run("once", "blue")
    docker.stop_daemon(number)
    docker.stop_plugin()
    docker.start_plugin()
    docker.start_daemon()
    docker.until(lambda: len(docker.vethwork("ps")) == 1 and docker.serves(8080))
    assert docker("run", "--rm", "--network", "blue", NAME, "wget", "-qO-", "http://web/").stdout == HELLO


def test_ten_containers_at_once(docker: Docker) -> None:
    docker.network("blue", *BLUE, "--ipam-driver", "vethwork")
    environ = {"DOCKER_HOST": docker.socket, "DOCKER_CONFIG": str(docker.scratch)}
    asked = ("run", "--rm", "--network", "blue", "-p", "80", NAME, "ping", "-c1", "-W2", "10.55.0.1")
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = [docker.host.popen(docker.command(*asked), env=environ, **pipes) for _ in range(10)]
    assert [each.wait(DEADLINE) for each in started] == [0] * 10
    assert docker.vethwork("ps") == []


def test_after_a_foreign_flush(docker: Docker) -> None:
    docker.network("blue", *BLUE)
    docker.run("web", "blue", "-p", "8080:80")
    docker.host.run(["nft", "flush", "ruleset"])
    assert docker.serves(8080), "the service owns its rules"
    docker.run("two", "blue")
    assert docker.serves(8080)
