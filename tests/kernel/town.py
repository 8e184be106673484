"""Containers on a lab's host, made by the engine itself: the population of the tests that attack."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vethwork.engine.engine import Engine
from vethwork.engine.networks import new_id
from vethwork.model.address import Address
from vethwork.model.container import AttachRequest, Join, parse_modes
from vethwork.model.names import Name, NetnsPath
from vethwork.model.network import NetworkRequest
from vethwork.model.ports import Publish

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from vethwork.testing.lab import Lab
    from vethwork.testing.machine import Machine

    Result = TypeVar("Result")


def with_engine(lab: Lab, work: Callable[[Engine], Result]) -> Result:
    """Do something with an engine that stands on the lab's host."""

    def on_host() -> Result:
        with Engine() as engine:
            return work(engine)

    return lab.host.call(on_host)


def make_network(lab: Lab, name: str, **options: Any) -> None:
    """Make a network, dual stack unless said otherwise."""
    request = NetworkRequest(Name.parse(name), **{"ipv6": True, **options})
    with_engine(lab, lambda engine: engine.create_network(request))


def settle(lab: Lab, name: str, *networks: str, publish: tuple[str, ...] = (), ip: str = "") -> Machine:
    """Give a bare namespace a container's network; the container as a machine of the lab."""
    machine = lab.container(name)
    mode, joins = parse_modes(networks)
    if ip:
        joins = (Join(joins[0].network, (Address.parse(ip),)), *joins[1:])
    request = AttachRequest(
        new_id(),
        Name.parse(name),
        mode,
        joins,
        tuple(Publish.parse(spec) for spec in publish),
        NetnsPath.parse(machine.path),
    )
    with_engine(lab, lambda engine: engine.attach(request))
    return machine


def gateway_of(lab: Lab, network: str, version: int = 4) -> str:
    """The host's address on a network."""

    def find(engine: Engine) -> str:
        subnets = engine.network(network).subnets
        return next(str(subnet.gateway) for subnet in subnets if subnet.prefix.version == version)

    return with_engine(lab, find)


def bridge_of(lab: Lab, network: str) -> tuple[str, str]:
    """A network's bridge: its interface name and its MAC address."""
    device = with_engine(lab, lambda engine: str(engine.network(network).device))
    return device, str(lab.host.mac(device))
