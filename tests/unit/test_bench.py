"""The benchmark: table, targets and plots come from the numbers alone; the floor does what the engine says that it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench import report
from bench.floor import encode, read
from bench.results import Results
from bench.targets import verdicts
from tests.unit.world import World
from vethwork.model.address import Prefix
from vethwork.model.container import Join, Mode
from vethwork.model.names import Name
from vethwork.model.network import NetworkRequest
from vethwork.model.ports import Publish

if TYPE_CHECKING:
    from pathlib import Path

ABOUT = {
    "began": "2026-01-02 03:04:05 UTC",
    "mode": "full",
    "commit": "0123456789ab",
    "machine": {
        "cpus": 2,
        "cpu": "some",
        "memory_mib": 1,
        "kernel": "6.1",
        "python": "3.11.7",
        "load_before": 0.5,
    },
    "peers": {"origin": "Debian sid", "versions": {"netavark": "1.17.2"}},
    "notes": ["the service did not take part"],
    "seconds": 60.0,
}


@pytest.fixture
def results(tmp_path: Path) -> Results:
    made = Results(tmp_path / "results.json")
    for part in ("attach", "bulk", "ports", "traffic", "connections", "runtimes"):
        made.begin(part, ABOUT)
    # In the second turn the machine is ten times as slow for all; in the third the floor alone is lucky. No ratio may know.
    made.add("attach", "attach", "floor", 20, [0.001, 0.010, 0.001])
    made.add("attach", "attach", "library", 20, [0.0014, 0.014, 0.020])
    made.add("attach", "attach", "netavark", 20, [0.021, 0.210, 0.300])
    made.fail("attach", "attach", "cni-chain", 300, TimeoutError("cni-chain: not done within 60 s"))
    made.add("bulk", "down", "library", 300, [0.6])
    made.add("connections", "connections", "none", 1, [20000.0, 21000.0], "1/s")
    made.add("connections", "connections", "vethwork", 1, [15000.0, 16000.0], "1/s")
    made.add("connections", "connections", "vethwork", 10000, [15000.0, 16000.0], "1/s")
    made.add("traffic", "throughput", "none", "host-container", [8e9], "bit/s")
    made.add("traffic", "throughput", "vethwork", "host-container", [6e9], "bit/s")
    made.add("ports", "attach", "library", "1000 range", [0.003])
    made.add("runtimes", "run", "podman, own", "-", [0.5])
    made.add("runtimes", "run", "podman, vethwork cold", "-", [0.4])
    made.add("memory", "rss", "podman-warm", 0, [1 << 25], "B")
    made.save()
    return made


def test_what_was_kept_is_read_back_and_a_part_replaces_only_itself(results: Results) -> None:
    again = Results(results.path)
    assert again.values("attach", "attach", "netavark", 20) == [0.021, 0.210, 0.300]
    assert again.failed("attach", "attach", "cni-chain", 300) == "cni-chain: not done within 60 s"
    assert again.parts["attach"] == ABOUT
    again.begin("attach", ABOUT)
    assert not list(again.of("attach"))
    assert again.values("bulk", "down", "library", 300) == [0.6]


def test_targets_are_computed(results: Results) -> None:
    found = {each.text: each for each in verdicts(results)}
    floor = found["library attach over the floor, at 20 containers"]
    assert floor.value == pytest.approx(1.4)
    assert floor.word == "met"
    netavark = found["library attach faster than netavark, at 20 containers"]
    assert netavark.value == pytest.approx(15)
    assert netavark.word == "**missed**"
    assert found["300 containers down at once (library)"].word == "**missed**"
    assert found["library attach over the floor, at 1000 containers"].word == "not measured"


def test_the_table_and_the_plots_are_made_of_the_numbers_alone(results: Results, tmp_path: Path) -> None:
    report.write(Results(results.path), tmp_path / "out")
    table = (tmp_path / "out" / "results.md").read_text()
    for line in (
        "| library attach over the floor, at 20 containers | at most 1.5 x | 1.4 x | met |",
        "| vethwork, library, 300 | not measured | 600 ms |",
        "| vethwork | 10,000 | 15,500 (15,250 - 15,750) | 0.76 | 1.00 |",
        "| vethwork |  | **0.75** 6 Gbit/s |  |",
        "| podman, vethwork cold | 400 ms | 0.80 |",
        "- attach: the service did not take part",
    ):
        assert line in table, table
    assert "cni-chain: not done within 60 s" in table
    for name in ("attach.png", "connections.png", "runtimes.png"):
        assert f"({name})" in table
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "out" / "detach.png").exists()  # there are no numbers for it


def test_an_empty_run_has_a_report_too(tmp_path: Path) -> None:
    report.write(Results(tmp_path / "results.json"), tmp_path)
    assert "not measured" in (tmp_path / "results.md").read_text()


def test_the_floor_does_what_the_engine_says_of_an_attach() -> None:
    world = World()
    subnets = (Prefix.parse("10.1.0.0/24"),)
    world.do(world.create_network(NetworkRequest(Name("web"), subnets=subnets)))
    plan = world.attach("c", Mode("network", "web"), (Join(Name("web")),), (Publish.parse("8080:80"),))
    commands = "\n".join(plan.commands())
    facts = read(commands, 8080)
    assert (facts.address, facts.length, facts.broadcast, facts.gateway) == (
        "10.1.0.2",
        24,
        "10.1.0.255",
        "10.1.0.1",
    )
    assert facts.sysctls == (("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1"),)
    assert ("inet", "port4", "tcp . 8080 : 10.1.0.2 . 80") in facts.elements
    # The namespace alone, which the benchmark has made before.
    assert [line.split()[0] for line in facts.unknown] == ["mkdir"]
    assert (
        read(f"{commands}\nip link set eth0 txqueuelen 7", 8080).unknown[-1]
        == "ip link set eth0 txqueuelen 7"
    )
    with pytest.raises(LookupError, match="gateway"):
        read(commands.replace("ip route", "ip rout"), 8080)


def test_elements_are_spelled_as_the_kernel_wants_them() -> None:
    assert encode('"vw0" . 02:76:0a:4d:00:02').hex() == b"vw0".hex() + "00" * 13 + "02760a4d00020000"
    assert encode("tcp . 8080").hex() == "06000000" + "1f900000"
    assert encode("10.77.0.2 . 80").hex() == "0a4d0002" + "00500000"
