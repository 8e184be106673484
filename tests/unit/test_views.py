"""Records as the documents that programs read: every key, and what stands for nothing."""

from __future__ import annotations

import json

from tests.unit.world import World
from vethwork.model.address import Address, Prefix
from vethwork.model.container import Container, Endpoint, Join, Mode
from vethwork.model.names import IfName, Name
from vethwork.model.network import Network, NetworkRequest
from vethwork.model.ports import Publish
from vethwork.model.views import container_view, network_view


def test_the_documents_of_a_network_and_of_a_container() -> None:
    world = World()
    world.do(
        world.create_network(
            NetworkRequest(
                Name("web"),
                subnets=(Prefix.parse("10.1.0.0/24"),),
                sources=(Address.parse("192.0.2.9"),),
                device=IfName("br9"),
                labels=(("a", "b"),),
            )
        )
    )
    publishes = (Publish.parse("127.0.0.1:80:80"), Publish.parse("8000-8001:8000-8001/udp"))
    world.do(world.attach("c", Mode("network", "web"), (Join(Name("web")),), publishes))
    container = container_view(world.container("c"), {"pid": 7, "status": None})
    row = world.row(Container, "c")
    assert json.loads(json.dumps(container)) == {
        "name": "c",
        "id": row.id,
        "mode": "web",
        "netns": row.netns,
        "owner": "cli",
        "pid": 7,
        "status": None,
        "endpoints": [
            {
                "network": "web",
                "interface": "eth0",
                "host_interface": world.of(Endpoint)[0].host_ifname,
                "mac": "02:76:0a:01:00:02",
                "addresses": ["10.1.0.2/24"],
                "gateways": ["10.1.0.1"],
            }
        ],
        "ports": [
            {"host_ip": "127.0.0.1", "host_port": 80, "container_port": 80, "protocol": "tcp", "count": 1},
            {"host_ip": "", "host_port": 8000, "container_port": 8000, "protocol": "udp", "count": 2},
        ],
    }
    network = world.row(Network, "web")
    assert json.loads(json.dumps(network_view(network, tuple(world.of(Endpoint))))) == {
        "name": "web",
        "id": network.id,
        "driver": "bridge",
        "device": "br9",
        "subnets": [
            {"subnet": "10.1.0.0/24", "gateway": "10.1.0.1", "ip_range": "10.1.0.0/24", "source": "192.0.2.9"}
        ],
        "mtu": 1500,
        "internal": False,
        "isolated": False,
        "icc": True,
        "masquerade": True,
        "labels": {"a": "b"},
        "containers": {"c": ["10.1.0.2/24"]},
    }
    bare = network.replace(subnets=(network.subnets[0].replace(gateway=None, source=None),))
    assert network_view(bare, ())["subnets"][0] == {
        "subnet": "10.1.0.0/24",
        "gateway": "",
        "ip_range": "10.1.0.0/24",
        "source": "",
    }
