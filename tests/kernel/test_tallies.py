"""What published ports have carried: ``GET /metrics`` against ``nft``, and both against what was sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.service import Service
from tests.kernel.stage import address, eventually

if TYPE_CHECKING:
    from vethwork.testing.machine import Machine

LENGTHS = {4: 20 + 8, 6: 40 + 8}  # of the headers of a datagram


@pytest.fixture
def pod(service: Service) -> Machine:
    service.host.vethwork("network", "create", "blue", "--ipv6")
    return container(service, "pod")


def container(service: Service, name: str, *options: str) -> Machine:
    """A container."""
    made = service.lab.container(name)
    service.host.vethwork("attach", name, "--network", "blue", "--netns", made.path, *options)
    return made


def carried(
    service: Service, host_port: str, protocol: str = "udp", host_ip: str = ""
) -> tuple[float, float]:
    """Packets and bytes of a port, as the service tells them."""
    labels = f'host_ip="{host_ip}",host_port="{host_port}",protocol="{protocol}"'
    found = {name: value for name, value in service.metrics().items() if f",{labels}}}" in name}
    (packets,) = [value for name, value in found.items() if name.startswith("vethwork_port_packets_total")]
    (octets,) = [value for name, value in found.items() if name.startswith("vethwork_port_bytes_total")]
    return packets, octets


def judged(host: Machine, name: str) -> dict[str, tuple[int, int]]:
    """Packets and bytes of the elements of a set, as nft tells them."""
    said: Any = json.loads(host.run(["nft", "-j", "list", "set", "inet", "vethwork", name]).stdout)
    elements = [each["elem"] for each in said["nftables"][1]["set"].get("elem", [])]
    return {
        json.dumps(each["val"]["concat"]): (each["counter"]["packets"], each["counter"]["bytes"])
        for each in elements
    }


def bounce(asker: Machine, to: str, port: int) -> tuple[int, int]:
    """One datagram there, and its answer back; gives how many packets and bytes that is."""
    with asker.dial(to, port, "udp") as dialog:
        dialog.socket.send(b"x" * 500)
        answer = dialog.socket.recv(65535)
    return 2, 500 + len(answer) + 2 * LENGTHS[6 if ":" in to else 4]


def test_a_port_counts_what_it_carries_both_ways(service: Service, pod: Machine) -> None:
    """Of both IP versions, to the byte. What a container is sent besides is not among it, and neither is another port's."""
    host, asker = service.host, service.lab.neighbour
    host.vethwork(
        "publish", "pod", "8080:80/udp", "7000-7009:7000-7009/udp", "9000-9001:80-81/udp", "8080:80"
    )
    pod.serve_udp_echo(80)
    pod.serve_udp_echo(7003)
    pod.serve_http(80)
    sent = [bounce(asker, address(host, version), 8080) for version in (4, 6)]
    total = (4, sum(size for _, size in sent))
    assert carried(service, "8080") == total
    assert judged(host, "traffic")['["ipv6", "udp", 8080]'] == sent[1]
    assert carried(service, "8080", "tcp") == (0, 0)

    bounce(asker, address(host, 4), 7003)
    assert not [name for name in service.metrics() if "7000-7009" in name], "a range is not counted"
    assert carried(service, "9000-9001") == (0, 0)
    shifted = bounce(asker, address(host, 4), 9000)
    assert carried(service, "9000-9001") == shifted

    for version in (4, 6):
        asker.connect(address(host, version), 8080)

    def by_nft() -> list[tuple[int, int]]:
        return [judged(host, "traffic")[f'["ipv{version}", "tcp", 8080]'] for version in (4, 6)]

    def agree() -> bool:  # once the last of both connections has come
        return carried(service, "8080", "tcp") == tuple(map(sum, zip(*by_nft(), strict=True)))

    assert eventually(agree)
    assert all(6 <= each[0] <= 20 for each in by_nft()), "each version has its own connection"

    bounce(host, address(pod, 4), 80)  # nobody's port
    host.vethwork("publish", "pod", "8081:80/udp", "6000-6009:6000-6009/udp")
    assert carried(service, "8080") == total, "lives through another port's coming"
    host.vethwork("unpublish", "pod", "8081:80/udp", "6000-6009:6000-6009/udp")
    assert carried(service, "8080") == total, "and its going"


def test_the_same_port_of_two_addresses_is_two_ports(service: Service, pod: Machine) -> None:
    """Even where the container's port is one. Ranges that lap over each other in number alone are no hindrance."""
    host, asker = service.host, service.lab.neighbour
    one, two = host.v4, "192.0.2.77"
    host.add_address(f"{two}/24")
    other = container(service, "other", "-p", f"{two}:8080:80/udp", "-p", f"{two}:85-95:85-95/udp")
    host.vethwork("publish", "pod", f"{one}:8080:80/udp", f"{one}:80-90:80-90/udp", f"{two}:8081:80/udp")
    pod.serve_udp_echo(80)
    other.serve_udp_echo(80)
    at_two = bounce(asker, two, 8080)
    assert carried(service, "8080", host_ip=two) == at_two
    assert carried(service, "8080", host_ip=one) == (0, 0)
    at_one = bounce(asker, one, 8080)
    host.vethwork("detach", "other")
    assert carried(service, "8080", host_ip=one) == at_one
    assert carried(service, "8081", host_ip=two) == (0, 0)
    assert len(judged(host, "traffic_at4")) == 2


def test_what_is_unpublished_is_not_counted_and_what_is_restored_is(service: Service, pod: Machine) -> None:
    host, asker = service.host, service.lab.neighbour
    host.vethwork("publish", "pod", "8080:80/udp", "7000-7009:8000-8009/udp")
    assert len(judged(host, "traffic")) == 22
    host.vethwork("unpublish", "pod", "7000-7009:8000-8009/udp")
    assert not [name for name in service.metrics() if "7000-7009" in name]
    assert len(judged(host, "traffic")) == 2
    service.stop()
    host.run(["nft", "flush", "ruleset"])
    host.vethwork("restore")
    service.start()
    pod.serve_udp_echo(80)
    sent = bounce(asker, address(host, 4), 8080)
    assert carried(service, "8080") == sent
    host.vethwork("detach", "pod")
    assert judged(host, "traffic") == {}
