"""What dockerd's libnetwork does with a plugin, in its order: asks for the address, the endpoint and the link, moves and
renames the link, configures it; and all of it back.

Source: moby libnetwork/endpoint.go, sandbox.go, osl/interface_linux.go, drivers/remote and ipams/remote (20.10 to 29).
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from vethwork.frontends.docker.protocol import answer

if TYPE_CHECKING:
    from vethwork.testing.lab import Lab
    from vethwork.testing.machine import Machine

TCP, UDP = 6, 17


class Sandbox(NamedTuple):
    """A container with one endpoint."""

    network: str
    endpoint: str
    machine: Machine
    joined: dict[str, Any]

    @property
    def ids(self) -> dict[str, str]:
        """How a request names it."""
        return {"NetworkID": self.network, "EndpointID": self.endpoint}


def port(container: int, host: int = 0, last: int = 0, proto: int = TCP, host_ip: str = "") -> dict[str, Any]:
    """A port as dockerd sends it."""
    numbers = {"Port": container, "HostPort": host, "HostPortEnd": last or host}
    return {"Proto": proto, "IP": "", "HostIP": host_ip, **numbers}


def new_id() -> str:
    """64 hex digits."""
    return os.urandom(32).hex()


class Libnetwork:
    """Calls the plugin on the host of a lab."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.host = lab, lab.host

    def send(self, method: str, document: object) -> tuple[int, Any]:
        """One request; its status and answer."""
        body = json.dumps(document).encode()
        return self.host.call(lambda: answer(method, body))

    def ask(self, method: str, document: object = None) -> Any:
        """One request that is done."""
        status, said = self.send(method, document)
        assert status == 200, said
        assert not said.get("Err"), said
        return said

    def refused(self, method: str, document: object) -> str:
        """One request that is not; gives the reason."""
        _, said = self.send(method, document)
        assert said.get("Err"), said
        assert "internal error" not in said["Err"]
        return str(said["Err"])

    def network(self, *pools: tuple[str, str], internal: bool = False, **options: str) -> str:
        """Make a network of pools and gateways; gives its id."""
        network = new_id()
        data: dict[int, list[dict[str, str]]] = {4: [], 6: []}
        for pool, gateway in pools:
            said = {"AddressSpace": "LocalDefault", "Pool": pool, "Gateway": gateway}
            data[6 if ":" in pool else 4].append(said)
        words: dict[str, Any] = {
            "com.docker.network.enable_ipv6": bool(data[6]),
            "com.docker.network.generic": options,
        }
        if internal:
            words["com.docker.network.internal"] = True
        request = {"NetworkID": network, "Options": words, "IPv4Data": data[4], "IPv6Data": data[6]}
        self.ask("NetworkDriver.CreateNetwork", request)
        return network

    def create(self, network: str, v4: str = "", v6: str = "", mac: str = "") -> tuple[str, Any]:
        """Make an endpoint; gives its id and the interface as both sides have it then."""
        endpoint = new_id()
        asked = {"Address": v4, "AddressIPv6": v6, "MacAddress": mac}
        request = {"NetworkID": network, "EndpointID": endpoint, "Interface": asked, "Options": {}}
        given = self.ask("NetworkDriver.CreateEndpoint", request)["Interface"]
        assert not [key for key in given if asked[key]], "a driver must not answer what it was told"
        return endpoint, asked | given

    def run(
        self, name: str, network: str, v4: str = "", v6: str = "", *ports: dict[str, Any], mac: str = ""
    ) -> Sandbox:
        """Start a container."""
        endpoint, interface = self.create(network, v4, v6, mac)
        return self.join(self.lab.container(name), network, endpoint, interface, *ports)

    def join(
        self, machine: Machine, network: str, endpoint: str, interface: Any, *ports: dict[str, Any]
    ) -> Sandbox:
        """Put an endpoint into a sandbox, and configure it."""
        ids = {"NetworkID": network, "EndpointID": endpoint}
        labels = {"com.docker.network.portmap": list(ports)}
        request = {**ids, "SandboxKey": machine.path, "Options": labels}
        joined = self.ask("NetworkDriver.Join", request)
        place = self.take(machine, joined["InterfaceName"], interface)
        for gateway in (joined["Gateway"], joined["GatewayIPv6"]):
            if gateway:
                machine.run(["ip", "route", "add", "default", "via", gateway, "dev", place])
        if joined["Gateway"] or joined["GatewayIPv6"]:
            program = {**ids, "Options": labels}
            self.ask("NetworkDriver.ProgramExternalConnectivity", program)
        self.ask("NetworkDriver.EndpointOperInfo", ids)
        return Sandbox(network, endpoint, machine, joined)

    def take(self, machine: Machine, names: dict[str, str], interface: dict[str, str]) -> str:
        """Move a link into a sandbox; gives its name there."""
        listed = json.loads(machine.run(["ip", "-j", "link"]).stdout)
        place = f"{names['DstPrefix']}{sum(each['ifname'] != 'lo' for each in listed)}"
        self.host.run(["ip", "link", "set", names["SrcName"], "netns", machine.path])
        machine.run(["ip", "link", "set", names["SrcName"], "name", place])
        machine.run(["ip", "link", "set", place, "address", interface["MacAddress"]])
        for key in ("Address", "AddressIPv6"):
            if interface[key]:
                nodad = ["nodad"] if key == "AddressIPv6" else []
                machine.run(["ip", "addr", "add", interface[key], "dev", place, *nodad])
        machine.run(["ip", "link", "set", "lo", "up"])
        machine.run(["ip", "link", "set", place, "up"])
        return place

    def put_back(self, sandbox: Sandbox, place: str = "eth0") -> None:
        """Take a link out of a sandbox, as for ``docker network disconnect``."""
        source = sandbox.joined["InterfaceName"]["SrcName"]
        sandbox.machine.run(["ip", "link", "set", place, "down"])
        sandbox.machine.run(["ip", "link", "set", place, "name", source])
        host = f"/proc/{os.getpid()}/fd/{self.host.fd}"
        sandbox.machine.run(["ip", "link", "set", source, "netns", host])

    def end(self, sandbox: Sandbox) -> None:
        """What follows when a container is stopped: the kernel has taken the link away by then, or has not."""
        self.ask("NetworkDriver.RevokeExternalConnectivity", sandbox.ids)
        self.ask("NetworkDriver.Leave", sandbox.ids)
        self.ask("NetworkDriver.DeleteEndpoint", sandbox.ids)
