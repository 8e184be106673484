"""The Docker plugin against the kernel: called as dockerd calls it, judged by ``ip``, ``nft``, ping and what servers saw."""

from __future__ import annotations

import itertools
import json
import os
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.libnetwork import UDP, Libnetwork, Sandbox, new_id, port
from tests.kernel.stage import eventually, is_silent, links, pings
from vethwork.engine.engine import Engine
from vethwork.frontends.docker import protocol
from vethwork.frontends.docker.document import Section
from vethwork.testing.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator

BLUE, BLUE6 = ("10.55.0.0/24", "10.55.0.1/24"), ("fd55::/64", "fd55::1/64")
RED = ("10.56.0.0/24", "10.56.0.1/24")


@pytest.fixture
def docker(needs: None) -> Iterator[Libnetwork]:
    """libnetwork on the host of a lab; at the end nothing of it is left."""
    with Lab() as lab:
        yield Libnetwork(lab)


def view(docker: Libnetwork, *arguments: str) -> Any:
    return json.loads(docker.host.vethwork(*arguments, "--json").stdout)


def published(docker: Libnetwork, sandbox: Sandbox) -> list[int]:
    shown = view(docker, "inspect", sandbox.endpoint)
    return [each["host_port"] for each in shown["ports"]]


def traces(docker: Libnetwork) -> tuple[Any, ...]:
    """Everything that could be left: links, elements of the ruleset, records."""
    elements: list[str] = []
    for table in docker.host.run(["nft", "list", "tables"]).stdout.splitlines():
        listed = json.loads(docker.host.run(["nft", "-j", "list", *table.split()]).stdout)["nftables"]
        sets = [each.get("set") or each.get("map") or {} for each in listed]
        elements += [each["name"] for each in sets if each.get("elem") and each["name"] != "guarded"]
    return sorted(links(docker.host)), elements, view(docker, "ps"), view(docker, "network", "ls")


@pytest.mark.parametrize("version", [4, 6])
def test_packets_flow(docker: Libnetwork, version: int) -> None:
    network = docker.network(BLUE, BLUE6)
    one = docker.run("one", network, "10.55.0.2/24", "fd55::2/64")
    two = docker.run("two", network, "10.55.0.3/24", "fd55::3/64")
    assert one.joined["Gateway"] == "10.55.0.1"
    assert one.joined["GatewayIPv6"] == "fd55::1"
    assert not one.joined["DisableGatewayService"]
    lab = docker.lab
    other = two.machine.v4 if version == 4 else two.machine.v6
    assert pings(one.machine, other)
    assert pings(one.machine, "10.55.0.1" if version == 4 else "fd55::1")
    assert pings(one.machine, lab.internet.v4 if version == 4 else lab.internet.v6)
    server = lab.internet.serve_http(80)
    host = lab.host.v4 if version == 4 else lab.host.v6
    seen = one.machine.connect(lab.internet.v4 if version == 4 else lab.internet.v6, server.port)
    assert seen.peer == host, "it hides behind the host"


def test_ports_are_reachable_until_they_are_revoked(docker: Libnetwork) -> None:
    network = docker.network(BLUE, BLUE6)
    ports = [port(80, 8080), port(81), port(82, 9000, 9005), port(80, 8081, host_ip="127.0.0.1")]
    ports.append(port(80, 8080, proto=UDP))
    web = docker.run("web", network, "10.55.0.2/24", "fd55::2/64", *ports)
    for number in (80, 81, 82):
        web.machine.serve_http(number)
    web.machine.serve_udp_echo(80)
    chosen = next(each for each in published(docker, web) if each >= 49152)
    lab = docker.lab
    for number in (8080, chosen, 9000):
        assert lab.neighbour.reaches(lab.host.v4, number)
        assert lab.neighbour.reaches(lab.host.v6, number)
    assert lab.neighbour.reaches(lab.host.v4, 8080, "udp")
    assert lab.host.reaches("127.0.0.1", 8081)
    assert not lab.neighbour.reaches(lab.host.v4, 8081, timeout=0.3)
    docker.ask("NetworkDriver.RevokeExternalConnectivity", web.ids)
    assert not lab.neighbour.reaches(lab.host.v4, 8080, timeout=0.3)
    assert published(docker, web) == []
    docker.ask(
        "NetworkDriver.ProgramExternalConnectivity",
        web.ids | {"Options": {"com.docker.network.portmap": ports}},
    )
    assert lab.neighbour.reaches(lab.host.v4, 8080)


def test_ports_are_asked_for_twice(docker: Libnetwork) -> None:
    network = docker.network(BLUE)
    ports = [port(80, 8080), port(81), port(82, 9000, 9005)]
    web = docker.run("web", network, "10.55.0.2/24", "", *ports)
    before = published(docker, web)
    docker.ask(
        "NetworkDriver.ProgramExternalConnectivity",
        web.ids | {"Options": {"com.docker.network.portmap": ports}},
    )
    assert published(docker, web) == before


def test_all_ports_open_or_none(docker: Libnetwork) -> None:
    network = docker.network(BLUE)
    docker.run("one", network, "10.55.0.2/24", "", port(80, 8080), port(80, 9000, 9000))
    two = docker.run("two", network, "10.55.0.3/24")

    def program(*ports: dict[str, Any]) -> dict[str, Any]:
        return two.ids | {"Options": {"com.docker.network.portmap": list(ports)}}

    method = "NetworkDriver.ProgramExternalConnectivity"
    assert "8080" in docker.refused(method, program(port(81, 8081), port(80, 8080)))
    assert published(docker, two) == []
    docker.ask(method, program(port(80, 9000, 9001)))
    assert published(docker, two) == [9001]
    assert "9001" in docker.refused(method, program(port(83, 8083), port(84, 9000, 9001)))
    assert published(docker, two) == [9001]


def test_nobody_speaks_as_another(docker: Libnetwork) -> None:
    network = docker.network(BLUE)
    one = docker.run("one", network, "10.55.0.2/24")
    two = docker.run("two", network, "10.55.0.3/24")
    one.machine.run(["ip", "addr", "add", "10.55.0.9/24", "dev", "eth0"])
    done = one.machine.run(["ping", "-nc1", "-W1", "-I", "10.55.0.9", two.machine.v4], check=False)
    assert done.returncode != 0


@pytest.mark.parametrize("how", ["internal", "isolated"])
def test_networks_without_a_way_out(docker: Libnetwork, how: str) -> None:
    network = (
        docker.network(BLUE, internal=True) if how == "internal" else docker.network(BLUE, isolated="true")
    )
    one, two = (
        docker.run(name, network, f"10.55.0.{number}/24") for number, name in ((2, "one"), (3, "two"))
    )
    assert one.joined["DisableGatewayService"]
    assert not one.joined["Gateway"]
    assert pings(one.machine, two.machine.v4)
    one.machine.run(["ip", "route", "add", "default", "via", "10.55.0.1"])
    assert is_silent(one.machine, docker.lab.internet.v4)
    if how == "isolated":
        assert "10.55.0.1" not in docker.host.run(["ip", "addr"]).stdout


def test_options_in_both_languages(docker: Libnetwork) -> None:
    words: Any = {
        "com.docker.network.driver.mtu": "1400",
        "com.docker.network.bridge.name": "br7",
        "icc": "false",
    }
    network = docker.network(BLUE, masquerade="false", name="blue", **words)
    shown = view(docker, "network", "inspect", "blue")
    assert (shown["device"], shown["mtu"], shown["icc"], shown["masquerade"]) == ("br7", 1400, False, False)
    assert shown["id"] == network[:32]
    one = docker.run("one", network, "10.55.0.2/24")
    two = docker.run("two", network, "10.55.0.3/24")
    assert links(one.machine)["eth0"]["mtu"] == 1400
    assert is_silent(one.machine, two.machine.v4)


def test_the_mac_address_is_docker_s_if_it_names_one(docker: Libnetwork) -> None:
    network = docker.network(BLUE)
    one = docker.run("one", network, "10.55.0.2/24", mac="02:00:00:00:00:77")
    assert str(one.machine.mac()) == "02:00:00:00:00:77"
    assert pings(one.machine, "10.55.0.1")


def test_two_networks_and_off_one(docker: Libnetwork) -> None:
    blue, red = docker.network(BLUE), docker.network(RED)
    one = docker.run("one", blue, "10.55.0.2/24")
    endpoint, interface = docker.create(red, "10.56.0.2/24")
    request = {"NetworkID": red, "EndpointID": endpoint, "SandboxKey": one.machine.path, "Options": {}}
    joined = docker.ask("NetworkDriver.Join", request)
    assert docker.take(one.machine, joined["InterfaceName"], interface) == "eth1"
    assert pings(one.machine, "10.56.0.1")
    docker.ask("NetworkDriver.Leave", one.ids)
    docker.put_back(one)
    docker.ask("NetworkDriver.DeleteEndpoint", one.ids)
    assert set(links(one.machine)) == {"lo", "eth1"}
    assert pings(one.machine, "10.56.0.1")
    assert [each["name"] for each in view(docker, "ps")] == [endpoint]


LAST_WORDS = ("RevokeExternalConnectivity", "Leave", "DeleteEndpoint")


@pytest.mark.parametrize("order", list(itertools.permutations(LAST_WORDS)), ids="-".join)
@pytest.mark.parametrize("link", ["inside", "back", "gone"])
def test_teardown_in_every_order(docker: Libnetwork, order: tuple[str, ...], link: str) -> None:
    before = traces(docker)
    network = docker.network(BLUE, BLUE6)
    one = docker.run("one", network, "10.55.0.2/24", "fd55::2/64", port(80, 8080))
    if link == "back":
        docker.put_back(one)
    elif link == "gone":
        one.machine.run(["ip", "link", "del", "eth0"])
    for word in (*order, *order):
        docker.ask(f"NetworkDriver.{word}", one.ids)
    docker.ask("NetworkDriver.DeleteNetwork", {"NetworkID": network})
    docker.ask("NetworkDriver.DeleteNetwork", {"NetworkID": network})
    assert traces(docker) == before


def test_the_end_of_what_never_was(docker: Libnetwork) -> None:
    ids = {"NetworkID": new_id(), "EndpointID": new_id()}
    for word in (*LAST_WORDS, "DeleteNetwork"):
        docker.ask(f"NetworkDriver.{word}", ids)
    for word in ("CreateEndpoint", "Join", "EndpointOperInfo", "ProgramExternalConnectivity"):
        assert "is not on record" in docker.refused(f"NetworkDriver.{word}", ids)


def test_an_endpoint_that_was_not_joined(docker: Libnetwork) -> None:
    before = traces(docker)
    network = docker.network(BLUE)
    endpoint, _ = docker.create(network, "10.55.0.2/24")
    shown = view(docker, "inspect", endpoint)
    assert (shown["owner"], shown["pid"]) == ("docker", 0)
    for command in (
        ("exec", endpoint, "true"),
        ("connect", endpoint, "bridge"),
        ("run", "--net", f"container:{endpoint}", "true"),
    ):
        assert docker.host.vethwork(*command, check=False).returncode not in (0, 70)
    assert "nothing to remove" in docker.host.vethwork("gc").stdout
    docker.host.vethwork("doctor")
    docker.ask("NetworkDriver.DeleteEndpoint", {"NetworkID": network, "EndpointID": endpoint})
    docker.ask("NetworkDriver.DeleteNetwork", {"NetworkID": network})
    assert set(traces(docker)[0]) == set(before[0])
    assert traces(docker)[1:] == before[1:]


def test_docker_gives_an_address_again_that_it_never_used(docker: Libnetwork) -> None:
    """We were killed before we could answer CreateEndpoint: Docker does not tell us that it gave the endpoint up."""
    network = docker.network(BLUE)
    docker.create(network, "10.55.0.2/24")
    one = docker.run("one", network, "10.55.0.2/24")
    assert pings(one.machine, "10.55.0.1")
    ids = {"NetworkID": network, "EndpointID": new_id()}
    request = ids | {"Interface": {"Address": "10.55.0.2/24"}}
    assert "is held by container" in docker.refused("NetworkDriver.CreateEndpoint", request)
    assert pings(one.machine, "10.55.0.1")


def test_gc_and_restore(docker: Libnetwork) -> None:
    network = docker.network(BLUE)
    one = docker.run("one", network, "10.55.0.2/24", "", port(80, 8080))
    one.machine.serve_http(80)
    assert "nothing to remove" in docker.host.vethwork("gc").stdout
    docker.host.run(["nft", "flush", "ruleset"])
    docker.host.run(["ip", "link", "del", f"vw-{network[:12]}"])
    docker.host.vethwork("restore")
    assert eventually(lambda: pings(one.machine, docker.lab.internet.v4, seconds=0.3))
    assert docker.lab.neighbour.reaches(docker.host.v4, 8080)
    one.machine.run(["ip", "link", "del", "eth0"])
    docker.host.vethwork("restore")
    assert "is gone" in docker.host.vethwork("gc").stdout
    assert view(docker, "ps") == []
    docker.end(one)


def test_join_again_lays_the_link_anew(docker: Libnetwork) -> None:
    network = docker.network(BLUE)
    endpoint, interface = docker.create(network, "10.55.0.2/24")
    request = {
        "NetworkID": network,
        "EndpointID": endpoint,
        "SandboxKey": "/run/docker/netns/x",
        "Options": {},
    }
    docker.ask("NetworkDriver.Join", request)
    one = docker.join(docker.lab.container("one"), network, endpoint, interface)
    assert pings(one.machine, "10.55.0.1")
    docker.end(one)
    assert set(links(docker.host)) == {"lo", "eth0", f"vw-{network[:12]}"}


def test_a_network_with_somebody_else_s_container_stays(docker: Libnetwork) -> None:
    network = docker.network(BLUE)
    machine = docker.lab.container("mine")
    docker.host.vethwork("attach", "mine", "--netns", machine.path, "--net", f"docker-{network[:12]}")
    one = docker.run("one", network, "10.55.0.9/24")
    assert pings(one.machine, machine.v4)
    docker.end(one)
    assert "mine" in docker.refused("NetworkDriver.DeleteNetwork", {"NetworkID": network})
    request = {"NetworkID": network, "EndpointID": "mine"}
    docker.ask("NetworkDriver.DeleteEndpoint", request)
    assert pings(machine, "10.55.0.1"), "what was not made for Docker is left alone"


def test_addresses_that_docker_keeps_free(docker: Libnetwork) -> None:
    network = new_id()
    data = {
        "Pool": "10.55.0.0/29",
        "Gateway": "10.55.0.1/29",
        "AuxAddresses": {"a": "10.55.0.2/29", "b": "10.55.0.3/29"},
    }
    docker.ask(
        "NetworkDriver.CreateNetwork",
        {"NetworkID": network, "Options": None, "IPv4Data": [data], "IPv6Data": None},
    )
    machine = docker.lab.container("mine")
    docker.host.vethwork("attach", "mine", "--netns", machine.path, "--net", f"docker-{network[:12]}")
    assert machine.v4 == "10.55.0.4"
    request = {"NetworkID": network, "EndpointID": new_id(), "Interface": {"Address": "10.55.0.2/29"}}
    assert "kept free" in docker.refused("NetworkDriver.CreateEndpoint", request)


def test_the_null_ipam_leaves_addresses_to_us(docker: Libnetwork) -> None:
    network = new_id()
    data = [{"AddressSpace": "null", "Pool": "0.0.0.0/0", "Gateway": ""}]
    docker.ask("NetworkDriver.CreateNetwork", {"NetworkID": network, "IPv4Data": data, "IPv6Data": []})
    endpoint, interface = docker.create(network)
    one = docker.join(docker.lab.container("one"), network, endpoint, interface)
    assert pings(one.machine, docker.lab.internet.v4)


@pytest.mark.parametrize(
    "method", ["CreateEndpoint", "Join", "ProgramExternalConnectivity", "DeleteEndpoint"]
)
def test_killed_at_every_milestone(docker: Libnetwork, method: str) -> None:
    """Whoever comes next finishes or undoes it, and Docker can say the same again."""
    network = docker.network(BLUE)
    for milestone in range(5):
        ids = {"NetworkID": network, "EndpointID": new_id()}
        before = traces(docker)
        ports = {"com.docker.network.portmap": [port(80, 8080)]}
        says: list[tuple[str, dict[str, Any]]] = [
            ("CreateEndpoint", ids | {"Interface": {"Address": "10.55.0.2/24"}}),
            ("Join", ids | {"SandboxKey": "/run/docker/netns/x"}),
            ("ProgramExternalConnectivity", ids | {"Options": ports}),
            ("DeleteEndpoint", ids),
        ]
        for word, document in says:
            if word == method:
                docker.host.call(partial(die_at, milestone, f"NetworkDriver.{method}", document))
            status, said = docker.send(f"NetworkDriver.{word}", document)
            assert status == 200
            assert not said.get("Err") or "there is a container of that name" in said["Err"], said
        assert traces(docker) == before


def die_at(milestone: int, method: str, document: dict[str, Any]) -> None:
    """Make a request in a process that is killed at a milestone of the engine's."""
    child = os.fork()
    if child == 0:
        left = itertools.count(milestone, -1)

        def watch(_: object) -> None:
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        with Engine(watch=watch) as engine:
            protocol.METHODS[method](engine, Section(document))
        os._exit(0)
    os.waitpid(child, 0)


# IPAM ----------------------------------------------------------------------------------------------------------------


def pool(docker: Libnetwork, prefix: str = "", part: str = "", v6: bool = False) -> Any:
    request = {"AddressSpace": "vethwork", "Pool": prefix, "SubPool": part, "Options": {}, "V6": v6}
    return docker.ask("IpamDriver.RequestPool", request)


def address(docker: Libnetwork, pool_id: str, wanted: str = "", gateway: bool = False) -> str:
    options = {"RequestAddressType": "com.docker.network.gateway"} if gateway else {}
    request = {"PoolID": pool_id, "Address": wanted, "Options": options or None}
    return str(docker.ask("IpamDriver.RequestAddress", request)["Address"])


def test_pools_do_not_overlap(docker: Libnetwork) -> None:
    first, second, third = pool(docker), pool(docker), pool(docker, v6=True)
    assert len({first["Pool"], second["Pool"], third["Pool"]}) == 3
    assert ":" in third["Pool"]
    docker.host.vethwork("network", "create", "mine")
    subnets = {each["subnet"] for each in view(docker, "network", "inspect", "mine")["subnets"]}
    assert not subnets & {first["Pool"], second["Pool"]}
    said = docker.refused("IpamDriver.RequestPool", {"Pool": "10.0.0.0/8", "V6": False})
    assert "overlaps" in said
    docker.ask("IpamDriver.ReleasePool", {"PoolID": first["PoolID"]})
    docker.ask("IpamDriver.ReleasePool", {"PoolID": first["PoolID"]})
    assert pool(docker)["Pool"] == first["Pool"]


def test_addresses_are_the_engine_s_own_leases(docker: Libnetwork) -> None:
    given = pool(docker, "10.55.0.0/24", "10.55.0.16/28")
    gateway = address(docker, given["PoolID"], gateway=True)
    network = docker.network((given["Pool"], gateway))
    machine = docker.lab.container("mine")
    docker.host.vethwork(
        "attach", "mine", "--netns", machine.path, "--net", f"docker-{network[:12]}", "--ip", "10.55.0.16"
    )
    first, second = (address(docker, given["PoolID"]) for _ in range(2))
    assert (first, second) == ("10.55.0.17/24", "10.55.0.18/24")
    said = docker.refused("IpamDriver.RequestAddress", {"PoolID": given["PoolID"], "Address": "10.55.0.16"})
    assert "held by container mine" in said
    refused = docker.host.vethwork(
        "attach",
        "x",
        "--netns",
        docker.lab.container("x").path,
        "--net",
        f"docker-{network[:12]}",
        "--ip",
        "10.55.0.17",
        check=False,
    )
    assert refused.returncode == 4
    one = docker.run("one", network, first)
    assert pings(one.machine, machine.v4)
    release = {"PoolID": given["PoolID"], "Address": "10.55.0.17"}
    docker.ask("IpamDriver.ReleaseAddress", release)
    assert "held by" in docker.refused("IpamDriver.RequestAddress", release), "one is on it"
    docker.end(one)
    docker.ask("IpamDriver.ReleaseAddress", release)
    docker.ask("IpamDriver.ReleaseAddress", {"PoolID": given["PoolID"], "Address": "10.55.0.18"})
    assert address(docker, given["PoolID"], "10.55.0.18") == "10.55.0.18/24"


def test_a_pool_can_be_full(docker: Libnetwork) -> None:
    given = pool(docker, "10.55.0.0/29")
    docker.network((given["Pool"], address(docker, given["PoolID"], gateway=True)))
    assert len({address(docker, given["PoolID"]) for _ in range(5)}) == 5
    said = docker.refused("IpamDriver.RequestAddress", {"PoolID": given["PoolID"]})
    assert "every address" in said
