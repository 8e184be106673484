"""What every runtime that speaks CNI needs: the plugin in its directory, and a configuration.

The plugin is started as an administrator's is: by a launcher with ``-I -S`` in its first line.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from vethwork.kernel import libc
from vethwork.testing.machine import SOURCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vethwork.testing.machine import Machine

LAUNCHER = """#!{python} -IS
import os, sys
os.environ.update({environ!r})
sys.path.insert(0, {source!r})
from vethwork.frontends.cni.main import main
main()
"""
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


def install(host: Machine, binaries: Path, configurations: Path, *lists: dict[str, Any]) -> None:
    """Put the launcher and configurations in their places.

    The launcher says itself where the records of this host are: what a runtime does late, it may do without its environment.
    """
    binaries.mkdir(parents=True, exist_ok=True)
    launcher = binaries / "vethwork-cni"
    launcher.write_text(LAUNCHER.format(python=sys.executable, environ=host.environment, source=SOURCE))
    launcher.chmod(0o755)
    configurations.mkdir(parents=True, exist_ok=True)
    for place, each in enumerate(lists):
        (configurations / f"{10 + place}-{each['name']}.conflist").write_text(json.dumps(each))


@contextmanager
def covered(scratch: Path, *paths: str) -> Iterator[None]:
    """Lay a writable layer over directories, in this session's mount namespace: what is written goes to ``scratch``."""
    with ExitStack() as stack:
        for path in paths:
            upper, work = (scratch / kind / path.strip("/") for kind in ("upper", "work"))
            for each in (upper, work):
                each.mkdir(parents=True)
            layers = f"lowerdir={path},upperdir={upper},workdir={work}"
            subprocess.run(
                ["mount", "-t", "overlay", "vethwork-tests", "-o", layers, path], check=True, timeout=10
            )
            stack.callback(libc.umount, path, libc.MNT_DETACH)
        yield
