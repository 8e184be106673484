"""What libcni does with a list of plugins, on the host of a lab.

Source: SPEC 1.1, section 3 ("Lifecycle & Ordering"): ADD in order, each with the result before as prevResult; CHECK in order
and DEL in reverse, with the last result.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import CompletedProcess

    from tests.conformance.home import Home
    from vethwork.testing.lab import Lab
    from vethwork.testing.machine import Machine

PLUGINS = "/usr/lib/cni"
OURS = "vethwork-cni"
MAPPED = {"portMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}]}
BEHIND = {"type": OURS, "capabilities": {"portMappings": True}}
ROUTES = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]

Document = dict[str, Any]


class Refused(Exception):
    """What a plugin answered in place of a result."""

    def __init__(self, document: Document) -> None:
        super().__init__(document)
        self.code, self.text = document["code"], f"{document['msg']} ({document.get('details', '')})"


class Runtime:
    """What libcni does with a list. ``results`` holds the last result for each container."""

    def __init__(self, lab: Lab, home: Home, scratch: Path) -> None:
        self.lab, self.host, self.home, self.scratch = lab, lab.host, home, scratch
        home.launch(scratch / OURS, "cni", lab.host.environment)
        self.results: dict[str, Document] = {}

    def ipam(self, *subnets: str) -> Document:
        """host-local, with its files where nobody else's are."""
        ranges = [[{"subnet": subnet}] for subnet in subnets]
        return {"type": "host-local", "ranges": ranges, "routes": ROUTES, "dataDir": f"{self.scratch}/ipam"}

    def maker(self, kind: str) -> Document:
        """A reference plugin that makes interfaces, for the first place of a list."""
        dual = self.ipam("10.7.0.0/24", "fd07::/64")
        if kind == "bridge":
            keys = {"bridge": "cni7", "isGateway": True, "ipMasq": True, "hairpinMode": True}
            return {"type": kind, **keys, "ipam": dual}
        if kind == "ptp":
            return {"type": kind, "ipMasq": True, "ipam": dual}
        return {"type": kind, "master": "eth0", "ipam": self.ipam("192.0.2.0/24")}

    def container(self, name: str) -> Machine:
        """A namespace for a pod, that serves HTTP."""
        made = self.lab.container(name)
        made.serve_http(80)
        return made

    def call(
        self, verb: str, plugin: Document, pod: Machine, more: Document, netns: str | None = None
    ) -> Document:
        """One call of one plugin. Raises Refused."""
        kind = plugin["type"]
        program = str(self.scratch / OURS) if kind == OURS else f"{PLUGINS}/{kind}"
        said = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": pod.name,
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": f"/proc/{os.getpid()}/fd/{pod.fd}" if netns is None else netns,
            "CNI_PATH": PLUGINS,
        }
        done: CompletedProcess[str] = self.host.run(
            self.home.words(program), env=said, stdin=json.dumps(plugin | more), check=False
        )
        if done.returncode:
            raise Refused(json.loads(done.stdout))
        return json.loads(done.stdout) if done.stdout else {}

    def add(
        self, pod: Machine, plugins: list[Document], asked: Document | None = None, version: str = "1.0.0"
    ) -> list[Document]:
        """ADD; gives the result of each plugin. Where one fails, nobody calls DEL: it must leave nothing by itself."""
        results: list[Document] = []
        for plugin in plugins:
            known = {"prevResult": results[-1]} if results else {}
            results.append(self.call("ADD", plugin, pod, self.common(plugin, asked, version) | known))
        self.results[pod.name] = results[-1]
        return results

    def check(self, pod: Machine, plugins: list[Document], asked: Document | None = None) -> None:
        """CHECK."""
        for plugin in plugins:
            self.call(
                "CHECK", plugin, pod, self.common(plugin, asked) | {"prevResult": self.results[pod.name]}
            )

    def delete(
        self, pod: Machine, plugins: list[Document], version: str = "1.0.0", netns: str | None = None
    ) -> None:
        """DEL."""
        known = {"prevResult": self.results[pod.name]} if pod.name in self.results else {}
        for plugin in reversed(plugins):
            self.call("DEL", plugin, pod, self.common(plugin, None, version) | known, netns)

    @staticmethod
    def common(plugin: Document, asked: Document | None, version: str = "1.0.0") -> Document:
        """What libcni puts into each plugin's object; here, what is asked for is in ours alone."""
        said = (asked or {}) if plugin["type"] == OURS else {}
        return {"cniVersion": version, "name": "pods", "runtimeConfig": said}

    def vethwork(self, *arguments: str) -> Any:
        """What vethwork says."""
        return json.loads(self.host.vethwork(*arguments, "--json").stdout)

    def serves(self, machine: Machine, port: int = 8080) -> bool:
        """Whether a machine is served at a port of the host, over IPv4 and, where it was asked, IPv6."""
        return machine.reaches(self.host.v4, port, timeout=0.5)
