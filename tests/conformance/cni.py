"""What every runtime that speaks CNI needs: the plugin in its directory, and a configuration.

The plugin is started as an administrator's is: by a launcher with ``-I -S`` in its first line.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conformance.home import Home
    from vethwork.testing.machine import Machine

SUBNET4, SUBNET6 = "10.77.0.0/24", "fd77::/64"
CAPABILITIES = ("portMappings", "ips", "mac", "ipRanges", "bandwidth", "dns", "aliases")


def conflist(
    name: str = "pods", version: str = "1.0.0", subnets: tuple[str, ...] = (SUBNET4,), **more: Any
) -> dict[str, Any]:
    """The all-in-one configuration of the documentation."""
    plugin: dict[str, Any] = {
        "type": "vethwork-cni",
        "bridge": f"{name}0",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {
            "type": "internal",
            "ranges": [[{"subnet": subnet}] for subnet in subnets],
            "routes": [{"dst": "::/0" if ":" in subnet else "0.0.0.0/0"} for subnet in subnets],
        },
        "capabilities": dict.fromkeys(CAPABILITIES, True),
    }
    return {"cniVersion": version, "name": name, "plugins": [plugin | more]}


def install(host: Machine, home: Home, binaries: Path, configurations: Path, *lists: dict[str, Any]) -> None:
    """Put the launcher and configurations in their places."""
    home.launch(binaries / "vethwork-cni", "cni", host.environment)
    configurations.mkdir(parents=True, exist_ok=True)
    for place, each in enumerate(lists):
        (configurations / f"{10 + place}-{each['name']}.conflist").write_text(json.dumps(each))
