"""Names that the CNI plugin gives to containers, asked of the real aardvark-dns by a client of its own."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conformance.libcni import OURS, ROUTES, Document, Refused, Runtime
from vethwork.testing.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conformance.home import Home
    from vethwork.testing.machine import Machine

NAMED: Document = {
    "type": OURS,
    "bridge": "pods0",
    "isGateway": True,
    "ipMasq": True,
    "names": True,
    "ipam": {"subnet": "10.9.0.0/24", "routes": ROUTES[:1]},
}
AARDVARK = "/usr/lib/podman/aardvark-dns"


class Names(Runtime):
    """A network with names."""

    def give(self, name: str, *aliases: str) -> Machine:
        """A container with aliases."""
        pod = self.lab.container(name)
        self.add(pod, [NAMED], {"aliases": {"pods": list(aliases)}})
        return pod

    def asked(self, pod: Machine, name: str) -> str:
        """The address that a container is told; empty if there is none."""
        busybox = str(self.home.find("busybox"))
        done = pod.run([busybox, "nslookup", "-type=a", f"{name}.dns.podman", "10.9.0.1"], check=False)
        found = [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("Address")]
        return found[-1] if len(found) > 1 else ""

    def files(self) -> Path:
        """Where the name server is told."""
        return Path(self.host.environment["VETHWORK_RUN"], "names/aardvark-dns")


@pytest.fixture
def names(tmp_path: Path, home: Home) -> Iterator[Names]:
    home.need(AARDVARK, "busybox")
    with Lab() as lab:
        yield Names(lab, home, tmp_path)


def test_containers_find_each_other(names: Names) -> None:
    shop = names.give("shop-1", "shop", "store")
    client = names.give("client")
    assert names.results["client"]["dns"] == {"nameservers": ["10.9.0.1"], "search": ["dns.podman"]}
    assert names.asked(client, "shop") == names.asked(client, "store") == "10.9.0.2"
    assert names.asked(client, "nobody") == ""
    names.check(shop, [NAMED])
    pid = int((names.files() / "aardvark.pid").read_text())
    for pod in (shop, client):
        names.delete(pod, [NAMED])
        names.delete(pod, [NAMED], netns="")
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "the name server ends with the last container"
        time.sleep(0.02)
    assert os.listdir(names.files()) == []


def test_who_is_gone_is_forgotten(names: Names) -> None:
    """By GC; and by whoever gets the address of one that died with nobody telling."""
    names.give("old", "shop")
    other = names.give("other", "bank")
    listed = {"cni.dev/valid-attachments": [{"containerID": "other", "ifname": "eth0"}]}
    names.call("GC", NAMED, other, names.common(NAMED, None, "1.1.0") | listed)
    assert (names.asked(other, "shop"), names.asked(other, "bank")) == ("", "10.9.0.3")
    names.host.vethwork("detach", "other")
    late = names.lab.container("late")
    names.add(late, [NAMED], {"ips": ["10.9.0.3"]})
    assert names.asked(late, "bank") == ""


def test_check_sees_what_is_missing(names: Names) -> None:
    pod = names.give("pod", "shop")
    (names.files() / "pods").unlink()
    with pytest.raises(Refused, match="the name server was not told of it") as refused:
        names.check(pod, [NAMED])
    assert refused.value.code == 100


def test_a_name_server_that_cannot_start_leaves_nothing(names: Names) -> None:
    names.files().parent.mkdir(parents=True)
    names.files().write_text("in the way")
    pod = names.lab.container("pod")
    with pytest.raises(Refused) as refused:
        names.add(pod, [NAMED])
    assert refused.value.code == 5
    assert names.vethwork("ps") == names.vethwork("network", "ls") == []
    assert "eth0" not in pod.run(["ip", "link"]).stdout
