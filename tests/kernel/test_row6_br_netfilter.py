"""Row 6: br_netfilter; what ``doctor`` says of it, and that it is so. Every other row is tested with and without it too."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import pytest

from tests.kernel.stage import LONG_ENOUGH, Stage, address

if TYPE_CHECKING:
    from vethwork.testing.machine import Machine

OFF = "off: traffic within a bridge does not meet the IP firewall"
ON = "on: traffic within a bridge meets the IP firewall too; ours lets it pass, others' may not"
DROP = """
table {family} other {{
    chain forward {{
        type filter hook forward priority 0; policy drop;
    }}
}}
"""
SWITCH = {4: "bridge/bridge-nf-call-iptables", 6: "bridge/bridge-nf-call-ip6tables"}


def finding(stage: Stage, subject: str) -> dict[str, str]:
    said = stage.ask("doctor", "--json")
    assert said.status in (0, 1), said.err

    (found,) = [each for each in json.loads(said.out) if each["subject"] == subject]
    return {str(key): str(value) for key, value in found.items()}


def test_the_doctor_tells_its_state_and_what_it_means(stage: Stage, bridged: bool, version: int) -> None:
    subject = f"br_netfilter, IPv{version}"
    assert f"ok       {subject}: {ON if bridged else OFF}" in stage.command("doctor").out.splitlines()
    found = finding(stage, subject)
    assert (found["level"], found["found"]) == ("ok", ON if bridged else OFF)
    assert ("sysctl -w net.bridge.bridge-nf-call-" in found["advice"]) == bridged


def test_the_two_switches_are_told_apart(stage: Stage, bridged: bool) -> None:
    stage.host.set_sysctl(SWITCH[4], str(int(not bridged)))
    assert [finding(stage, f"br_netfilter, IPv{v}")["found"] == ON for v in (4, 6)] == [not bridged, bridged]


@pytest.fixture
def pair(stage: Stage) -> tuple[Machine, Machine]:
    stage.network("blue")
    return stage.settle("one", "--net", "blue", "-p", "8080:80"), stage.settle("two", "--net", "blue")


def test_it_is_as_the_doctor_says(
    stage: Stage, pair: tuple[Machine, Machine], bridged: bool, version: int
) -> None:
    """Another program's firewall drops what is forwarded: with br_netfilter it stands within a bridge too."""
    one, two = pair
    family = "ip" if version == 4 else "ip6"
    drop = DROP.format(family=family)
    assert one.reaches(address(two, version), 80)
    assert stage.lab.neighbour.reaches(address(stage.host, version), 8080)
    stage.host.run(["nft", "-f", "-"], stdin=drop)
    assert one.reaches(address(two, version), 80, timeout=LONG_ENOUGH) != bridged
    assert not stage.lab.neighbour.reaches(address(stage.host, version), 8080, timeout=LONG_ENOUGH)


def test_what_the_doctor_advises_against_another_firewall_helps(
    stage: Stage, pair: tuple[Machine, Machine], version: int
) -> None:
    one, two = pair
    family = "ip" if version == 4 else "ip6"
    drop = DROP.format(family=family)
    stage.host.run(["nft", "-f", "-"], stdin=drop)
    assert stage.ask("doctor").status == 1
    found = finding(stage, "firewall of other")
    assert found["level"] == "problem"
    assert f"{family} other forward" in found["found"]
    for command in found["advice"].split("; "):
        assert shlex.split(command)[0] == "nft"
        stage.host.run(["sh", "-c", command])
    assert one.reaches(address(two, version), 80)
    assert stage.lab.neighbour.reaches(address(stage.host, version), 8080)
    assert one.connect(address(stage.host, version), 8080).name == "one"


def test_a_host_in_good_order(stage: Stage, pair: tuple[Machine, Machine]) -> None:
    said = stage.command("doctor")
    assert said.status == 0, said.out
    assert not [line for line in said.out.splitlines() if line.startswith("problem")]
    assert "ruleset: is what the records say" in said.out


def test_a_ruleset_that_was_flushed_is_found_and_comes_back(
    stage: Stage, pair: tuple[Machine, Machine], version: int
) -> None:
    one, two = pair
    stage.host.run(["nft", "flush", "ruleset"])
    assert stage.ask("doctor").status == 1
    assert finding(stage, "ruleset")["advice"] == "vethwork restore"
    stage.do("restore")
    assert stage.ask("doctor").status == 0
    assert one.reaches(address(two, version), 80)
    assert stage.lab.neighbour.reaches(address(stage.host, version), 8080)
