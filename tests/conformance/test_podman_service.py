"""Podman with the resident service: its calls are handed over, and it notices nothing but the time.

A Podman of another distribution lives in a mount namespace of its own, so it is declined, and notices not even that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance.podman import HELLO
from tests.conformance.test_podman import on_netavark
from tests.kernel.service import Service, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conformance.home import Home


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as made:
        yield made


def test_a_life_with_the_service(
    service: Service, home: Home, tmp_path_factory: pytest.TempPathFactory
) -> None:
    podman = on_netavark(service.lab, home, tmp_path_factory.mktemp("podman"))  # who wants a short path
    podman("network", "create", "--ipv6", "--subnet", "fd55::/64", "--subnet", "10.55.0.0/24", "blue")
    podman.run("web", "--network", "blue", "-p", "8080:80")
    podman.run("other", "--network", "blue")
    for address in (podman.host.v4, podman.host.v6):
        assert podman.fetch(address) == HELLO
    said = podman.ask("other", "wget", "-q", "-O-", "http://web/")
    assert said == HELLO, "names, by a server that the service has started"
    podman("restart", "--time", "0", "web")
    assert podman.fetch(podman.host.v4) == HELLO
    served = service.served()
    assert (served == 0) if home.mounts else (served >= 4), "setup of two; teardown and setup of one"
    service.kill()
    podman("restart", "--time", "0", "web")
    assert podman.fetch(podman.host.v4) == HELLO
    service.start()
    podman("rm", "--all", "--force", "--time", "0")
    podman("network", "rm", "blue")
    assert service.served() == (0 if home.mounts else 2)
    assert podman.vethwork("ps") == podman.vethwork("network", "ls") == {}
