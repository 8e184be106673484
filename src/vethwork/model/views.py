"""Records as the JSON documents that programs read: one function for each, used by every front-end.

Rules: keys are only ever added. An address is its text, a port a number; ``host_ip`` is empty for every address of the host;
``count`` tells the size of a published range, whose ports follow each other on both sides.
"""

from __future__ import annotations

from vethwork.model.container import Endpoint, Publication
from vethwork.model.network import Network
from vethwork.model.state import ContainerSeen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    View = dict[str, Any]


def container_view(seen: ContainerSeen, process: View) -> View:
    """A container; ``process`` holds what is known of its process: ``pid`` (0: none) and ``status``."""
    container = seen.container
    return {
        "name": container.name,
        "id": container.id,
        "mode": container.mode,
        "netns": container.netns,
        "owner": container.owner,
        **process,
        "endpoints": [endpoint_view(endpoint) for endpoint in seen.endpoints],
        "ports": [port_view(publication) for publication in seen.publications],
    }


def endpoint_view(endpoint: Endpoint) -> View:
    """One interface of a container."""
    return {
        "network": endpoint.network,
        "interface": endpoint.ifname,
        "host_interface": endpoint.host_ifname,
        "mac": str(endpoint.mac),
        "addresses": [str(interface) for interface in endpoint.addresses],
        "gateways": [str(gateway) for gateway in endpoint.gateways],
    }


def port_view(publication: Publication) -> View:
    """One published range."""
    publish = publication.publish
    return {
        "host_ip": str(publish.host_ip) if publish.host_ip is not None else "",
        "host_port": publish.host_port,
        "container_port": publish.container_port,
        "protocol": publish.protocol,
        "count": publish.count,
    }


def network_view(network: Network, endpoints: tuple[Endpoint, ...]) -> View:
    """A network and who is on it."""
    return {
        "name": network.name,
        "id": network.id,
        "driver": network.driver,
        "device": network.device,
        "subnets": [
            {
                "subnet": str(subnet.prefix),
                "gateway": str(subnet.gateway) if subnet.gateway is not None else "",
                "ip_range": str(subnet.pool),
                "source": str(subnet.source) if subnet.source is not None else "",
            }
            for subnet in network.subnets
        ],
        "mtu": network.mtu,
        "internal": network.internal,
        "isolated": network.isolated,
        "icc": network.icc,
        "masquerade": network.masquerade,
        "labels": dict(network.labels),
        "containers": {
            endpoint.container: [str(interface) for interface in endpoint.addresses] for endpoint in endpoints
        },
    }
