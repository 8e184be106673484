"""The plugin beside Docker's own bridge driver and its rules."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING

from tests.conformance.dockerd import BLUE, prepared
from tests.conformance.images import NAME

if TYPE_CHECKING:
    import pytest

    from tests.conformance.home import Home


def test_beside_docker_s_own_bridge(tmp_path_factory: pytest.TempPathFactory, home: Home) -> None:
    """dockerd with its own bridge and rules: both reach their containers, and neither disturbs the other."""
    home.need("iptables")
    with ExitStack() as stack:
        both = prepared(stack, home, tmp_path_factory.mktemp("both"))
        both.network("blue", *BLUE)
        both.run("ours", "blue", "-p", "8080:80")
        both.run("theirs", "bridge", "-p", "8081:80")
        assert "docker0" in both.links()
        assert both.serves(8081)
        assert not both.serves(8080), "Docker drops what is not its own"
        said = json.loads(both.host.vethwork("doctor", "--json", check=False).stdout)
        (advice,) = [each["advice"] for each in said if each["level"] == "problem"]
        both.host.run(["sh", "-c", advice])
        assert both.serves(8080)
        both("run", "--rm", "--network", "blue", NAME, "ping", "-c1", "-W2", both.lab.internet.v4)
        both("run", "--rm", NAME, "ping", "-c1", "-W2", both.lab.internet.v4)
        both("rm", "--force", "ours", "theirs")
        both("network", "rm", "blue")
        assert both.vethwork("network", "ls") == []
