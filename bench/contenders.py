"""Who attaches and detaches: ours in each way, netavark, and the chain of CNI plugins.

Rules: each is called as its runtime calls it, one process for each executable the runtime would start. Documents and
environments are ready before the clock starts, so that nothing of the caller's own is measured.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from bench import host
from bench.host import (
    BRIDGE,
    ENVIRON,
    GATEWAY,
    SPARE,
    SUBNET,
    VETHWORK,
    Contender,
    Service,
    address,
    in_parallel,
)
from bench.namespaces import spawn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.agent import Agents

NETAVARK, CNI_DIRECTORY = "/usr/lib/podman/netavark", "/usr/lib/cni"


class Library(Contender):
    """Ours, called in the process that has the library loaded."""

    def __init__(self) -> None:
        super().__init__()
        import vethwork

        self.vethwork = vethwork
        self.engine = vethwork.Engine()
        subnet = vethwork.Prefix.parse(SUBNET)
        self.engine.create_network(vethwork.NetworkRequest(vethwork.Name("blue"), subnets=(subnet,)))

    def request(self, number: int) -> Any:
        """What :meth:`attach` asks for."""
        api, blue = self.vethwork, self.vethwork.Name("blue")
        publishes = [
            f"{first}-{first + count - 1}:{inner}-{inner + count - 1}/{protocol}"
            for first, inner, count in self.port_mappings(number)
            for protocol in self.protocols
        ]
        return api.AttachRequest(
            api.new_id(),
            api.Name(f"c{number}"),
            api.Mode("network", "blue"),
            joins=(api.Join(blue),),
            publishes=tuple([api.Publish.parse(each) for each in publishes]),
            netns=api.NetnsPath(self.netns(number)),
        )

    def attach(self, number: int) -> float:
        request = self.request(number)
        return _timed(lambda: self.engine.attach(request))

    def detach(self, number: int) -> float:
        return _timed(lambda: self.engine.detach(f"c{number}"))

    def publish(self, number: int, port: int) -> float:
        """Open one more port of a container."""
        wanted = self.vethwork.Publish.parse(f"{port}:80")
        return _timed(lambda: self.engine.publish(f"c{number}", wanted))

    def unpublish(self, number: int, port: int) -> float:
        """Close it again."""
        wanted = self.vethwork.Publish.parse(f"{port}:80")
        return _timed(lambda: self.engine.unpublish(f"c{number}", wanted))

    def all_at_once(self, verb: str, count: int, workers: int) -> float:
        """Attached one after the other, for an engine is one thread's; detached by one call."""
        if verb == "attach":
            return super().all_at_once(verb, count, 1)
        names = [self.vethwork.Name(f"c{number}") for number in range(count)]
        return _timed(lambda: self.vethwork.detach_all(self.engine, names))

    def once(self) -> tuple[float, ...]:
        """As everybody; and a detach that leaves the deletion of links to a reaper, as the service's engine does."""
        from vethwork.engine.reaper import Reaper

        attached, detached = super().once()
        self.attach(SPARE)
        with Reaper(self.engine.root, self.engine.run) as last, self.vethwork.Engine(reaper=last) as engine:
            prompt = _timed(lambda: engine.detach(f"c{SPARE}", wait=False))
        return attached, detached, prompt


def _timed(does: Any) -> float:
    import time

    start = time.perf_counter()
    does()
    return time.perf_counter() - start


class Program(Contender):
    """Somebody who is started for each call."""

    def call(self, argv: Sequence[str], environ: dict[str, str], document: bytes) -> tuple[float, Any]:
        """Run it to its end; how long that took, and the document it answered with. Raises RuntimeError if it failed."""
        ran = spawn(argv, environ, document, self.log.fileno())
        if ran.status:
            raise RuntimeError(
                f"{' '.join(argv)}: {ran.status}: {ran.out[-600:].decode(errors='replace')}{self.said()}"
            )
        return ran.seconds, json.loads(ran.out) if ran.out.strip() else None


class Netavark(Program):
    """netavark, or what stands in its place, called as Podman 5 does."""

    binary = NETAVARK

    def __init__(self, peers_root: str | None = None) -> None:
        super().__init__(peers_root, inside_peers=True)
        self.lock = threading.Lock()
        """Podman holds a lock for as long as netavark works, so that is so where several are at it too."""
        self.environ = {**ENVIRON, "RUST_LOG": "netavark=warn"}

    def document(self, number: int) -> bytes:
        """What Podman hands over."""
        subnets = [{"subnet": SUBNET, "gateway": GATEWAY}]
        network = {
            "name": "blue",
            "id": hashlib.sha256(b"blue").hexdigest(),
            "driver": "bridge",
            "network_interface": BRIDGE,
            "created": "2026-01-02T03:04:05.678901234Z",
            "subnets": subnets,
            "ipv6_enabled": False,
            "internal": False,
            "dns_enabled": False,
            "ipam_options": {"driver": "host-local"},
        }
        mappings = [
            {"host_ip": "", "container_port": inner, "host_port": first, "range": count, "protocol": protocol}
            for first, inner, count in self.port_mappings(number)
            for protocol in self.protocols
        ]
        return json.dumps(
            {
                "container_id": hashlib.sha256(b"%d" % number).hexdigest(),
                "container_name": f"c{number}",
                "port_mappings": mappings,
                "networks": {"blue": {"interface_name": "eth0", "static_ips": [address(number)]}},
                "network_info": {"blue": network},
            }
        ).encode()

    def _do(self, verb: str, number: int) -> float:
        document = self.document(number)
        argv = [self.binary, "--config", "/run/containers/networks", "--rootless=false", "--aardvark-binary="]
        return self.call([*argv, verb, self.netns(number)], self.environ, document)[0]

    def attach(self, number: int) -> float:
        with self.lock:
            return self._do("setup", number)

    def detach(self, number: int) -> float:
        with self.lock:
            return self._do("teardown", number)


class OursMixin:
    """Ours as a process: by the launcher that ``vethwork install`` writes, with or without the service running."""

    service: Service | None = None

    def install(self, host_: Contender, runtime: str, *options: str) -> None:
        """Have the launcher written."""
        host_.run([VETHWORK, "install", runtime, "--root", "/run/stage", *options])

    def serve(self) -> None:
        """Start the service."""
        self.service = Service()

    def service_cpu(self) -> float:
        """What the service has worked so far, in seconds."""
        return self.service.cpu_seconds() if self.service else 0.0

    def service_memory(self) -> dict[str, int]:
        """The memory of the service."""
        assert self.service is not None
        return self.service.memory()

    def bare_start(self) -> float:
        """What the interpreter takes to start and to end, which is in each of our calls."""
        return spawn([sys.executable, "-IS", "-c", "pass"], ENVIRON).seconds

    def fill_by_library(self, host_: Contender, network: str, start: int, count: int) -> None:
        """Have containers attached by a child process with the library, on a network that the launcher has made."""
        import os

        child = os.fork()
        if child == 0:
            status = 1
            try:
                _fill_network(host_, network, start, count)
                status = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(status)
        if os.waitpid(child, 0)[1]:
            raise RuntimeError("the library could not fill the host")


def _fill_network(host_: Contender, network: str, start: int, count: int) -> None:
    import vethwork

    name = vethwork.Name(network)
    with vethwork.Engine() as engine:
        for number in range(start, count):
            request = vethwork.AttachRequest(
                vethwork.new_id(),
                vethwork.Name(f"c{number}"),
                vethwork.Mode("network", network),
                joins=(vethwork.Join(name, addresses=(vethwork.Address.parse(address(number)),)),),
                publishes=(vethwork.Publish.parse(f"{host.PORT + number}:80"),),
                netns=vethwork.NetnsPath(host_.netns(number)),
            )
            engine.attach(request)


class OursAsNetavark(OursMixin, Netavark):
    """Our stand-in for netavark."""

    binary = "/run/stage/usr/local/libexec/podman/netavark"

    def __init__(self, serving: bool) -> None:
        super().__init__()
        self.install(self, "podman")
        if serving:
            self.serve()

    def fill(self, count: int) -> None:
        """The first by the launcher, which makes the network; the others by the library, which is faster."""
        super().fill(min(count, 1))
        if count > self.filled:
            self.fill_by_library(self, "blue", self.filled, count)
            self.filled = count


class Chain(Program):
    """The reference plugins bridge, host-local, portmap, firewall and tuning, started in order as a runtime does."""

    directory = CNI_DIRECTORY
    name = "blue"

    def __init__(self, peers_root: str | None = None) -> None:
        super().__init__(peers_root, inside_peers=True)
        self.results: dict[int, Any] = {}
        self.plugins = self.configurations()

    def configurations(self) -> list[dict[str, Any]]:
        """The plugins of the list; portmap and firewall with the backends that they choose themselves."""
        ipam = {"type": "host-local", "ranges": [[{"subnet": SUBNET}]], "routes": [{"dst": "0.0.0.0/0"}]}
        return [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "ipam": ipam,
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
            {"type": "firewall"},
            {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_notify": "1"}},
        ]

    def document(self, plugin: dict[str, Any], number: int, result: Any) -> bytes:
        """What one plugin is handed."""
        more: dict[str, Any] = {"cniVersion": "1.0.0", "name": self.name}
        if plugin.get("capabilities", {}).get("portMappings"):
            mappings = [
                {"hostPort": first + each, "containerPort": inner + each, "protocol": "tcp"}
                for first, inner, count in self.port_mappings(number)
                for each in range(count)
            ]
            more["runtimeConfig"] = {"portMappings": mappings}
        if result is not None:
            more["prevResult"] = result
        return json.dumps({**plugin, **more}).encode()

    def _do(self, verb: str, number: int, plugin: dict[str, Any], result: Any) -> tuple[float, Any]:
        environ = {
            **ENVIRON,
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": hashlib.sha256(b"%d" % number).hexdigest(),
            "CNI_NETNS": self.netns(number),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": self.directory,
        }
        return self.call(
            [f"{self.directory}/{plugin['type']}"], environ, self.document(plugin, number, result)
        )

    def attach(self, number: int) -> float:
        total, result = 0.0, None
        for plugin in self.plugins:
            seconds, result = self._do("ADD", number, plugin, result)
            total += seconds
        self.results[number] = result
        return total

    def detach(self, number: int) -> float:
        result = self.results.pop(number)
        return sum(self._do("DEL", number, plugin, result)[0] for plugin in reversed(self.plugins))

    def fill(self, count: int) -> None:
        """By two at a time: with many containers there, each takes iptables long, and nobody holds a lock."""
        waiting: SimpleQueue[int] = SimpleQueue()
        for number in range(self.filled, count):
            self.netns(number)
            waiting.put(number)
        in_parallel(self.attach, waiting, 2)
        self.filled = max(self.filled, count)
        self.netns(SPARE)


class OursAsCni(OursMixin, Chain):
    """Our CNI plugin, with the configuration that is installed with it."""

    directory = "/run/stage/opt/cni/bin"

    def __init__(self, serving: bool) -> None:
        super().__init__()
        self.results = {}
        if serving:
            self.serve()

    def configurations(self) -> list[dict[str, Any]]:
        self.install(self, "cni", "--subnet", SUBNET)
        with open("/run/stage/etc/cni/net.d/10-vethwork.conflist", encoding="utf-8") as file:
            installed = json.load(file)
        self.name = installed["name"]
        plugins: list[dict[str, Any]] = installed["plugins"]
        return plugins

    def fill(self, count: int) -> None:
        """The first by the launcher, which makes the network; the others by the library, which is faster."""
        super().fill(min(count, 1))
        if count > self.filled:
            self.fill_by_library(self, self.name, self.filled, count)
            self.filled = count


def start_all(agents: Agents, peers_root: str | None) -> None:
    """Start everybody."""
    agents.start("library", Library)
    agents.start("podman-cold", lambda: OursAsNetavark(False))
    agents.start("podman-warm", lambda: OursAsNetavark(True))
    agents.start("cni-cold", lambda: OursAsCni(False))
    agents.start("cni-warm", lambda: OursAsCni(True))
    agents.start("netavark", lambda: Netavark(peers_root))
    agents.start("cni-chain", lambda: Chain(peers_root))
