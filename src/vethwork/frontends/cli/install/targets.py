"""What each runtime needs on disk, and what is to be done then: texts, and nothing is touched.

A launcher is a script of a few lines that starts the interpreter with ``-I -S`` (no site packages, no environment: half the
start-up time, and nobody's PYTHONPATH) and calls a function of ``launch`` in the package that ran ``install``. Both options
are one word there: the kernel hands over what follows the interpreter's path as one argument (execve(2)).
"""

from __future__ import annotations

import json
import os
import sys

import vethwork
from vethwork.errors import RequestError
from vethwork.frontends.cli.install.files import BLANK, File
from vethwork.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vethwork.model.address import Prefix

LONGEST_FIRST_LINE = 127
"""Bytes of a script's first line that every kernel reads whole (execve(2): BINPRM_BUF_SIZE, 128 before Linux 5.1)."""
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(vethwork.__file__)))

CAPABILITIES = ("portMappings", "ips", "mac", "ipRanges", "bandwidth", "dns", "aliases")
HELPERS = "/usr/local/libexec/podman, /usr/local/lib/podman, /usr/libexec/podman, /usr/lib/podman"
"""Where Podman looks for its helpers (containers.conf(5), ``helper_binaries_dir``)."""


RUNTIMES = (
    "containerd.service",
    "crio.service",
    "docker.service",
    "kubelet.service",
    "podman-restart.service",
)
"""Who starts containers when the machine does (systemd.unit(5): an order among those that are there)."""


class Target(Record):
    """What ``install`` does for one runtime: its files, and in words what is left to do then, and after ``uninstall``."""

    files: tuple[File, ...]
    then: str
    afterwards: str


def check_interpreter() -> None:
    """Refuse an interpreter that a script's first line cannot name. Raises RequestError."""
    path = sys.executable
    fits = len(f"#!{path} -IS\n".encode()) <= LONGEST_FIRST_LINE
    if not path or not fits or not path.isprintable() or " " in path:
        raise RequestError(
            f"install: a script's first line cannot name the interpreter {path!r}",
            hint="install vethwork where the path is shorter and has no spaces",
        )


def launcher(tool: str, path: str, front_end: str) -> File:
    """The executable that serves a runtime's call, itself or by the service."""
    text = f"""#!{sys.executable} -IS
# {BLANK}
import sys

sys.path.insert(0, {PACKAGE!r})  # so that nobody looks through all of Python's for it
from vethwork.launch import {front_end}

sys.path.append(sys.path.pop(0))
{front_end}()
"""
    return File(tool, path, text, 0o755)


def _document(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"


def cni(root: str, bin_dir: str, conf_dir: str, subnets: tuple[Prefix, ...]) -> Target:
    """The CNI plugin ``vethwork``, and a network for all pods."""
    plugin = {
        "type": "vethwork",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "isolate": "same-bridge",
        "ipam": {
            "type": "internal",
            "ranges": [[{"subnet": str(subnet)}] for subnet in subnets],
            "routes": [{"dst": "0.0.0.0/0" if subnet.version == 4 else "::/0"} for subnet in subnets],
        },
        "capabilities": dict.fromkeys(CAPABILITIES, True),
    }
    # 1.0.0 is the newest that containerd 1.6 and Podman 4.3 read; with 1.1.0 there are GC and STATUS too.
    conflist = {"cniVersion": "1.0.0", "name": "pods", "io.vethwork.installed": BLANK, "plugins": [plugin]}
    path = f"{root}{conf_dir}/10-vethwork.conflist"
    files = (
        launcher("cni", f"{root}{bin_dir}/vethwork", "cni"),
        File("cni", path, _document(conflist), 0o600, editable=True),
    )
    then = f"""\
Runtimes take the first configuration by name: 'ls {conf_dir}' must show 10-vethwork.conflist before any other.
The subnet is in that file; change it before the first pod, or 'vethwork network rm pods' first.
containerd reads it by itself. It must look in these directories (bin_dir, conf_dir of its CRI plugin's configuration).
Pods that run already keep the network they have: they must be made anew."""
    return Target(
        files,
        then,
        "Pods that run keep their network; 'vethwork ps' shows them, 'vethwork detach NAME' releases one.",
    )


def podman(root: str, directory: str) -> Target:
    """The stand-in for netavark."""
    then = f"""\
Podman takes the first netavark that it finds in $CONTAINERS_HELPER_BINARY_DIR, then in helper_binaries_dir of
containers.conf, which is {HELPERS}
unless it says otherwise. {directory} must come first.
Check it: 'podman info --format {{{{.Host.NetworkBackend}}}}' must say netavark, and after 'podman run -d ...'
'vethwork ps' must show the container (Podman 4.6 and newer: 'podman info' names the path).
Containers that run already keep the network they have: stop them first, and start them then. A bridge that the other
netavark has left is in the way ('the host has a link podman0 already'): ip link del podman0."""
    afterwards = (
        "Podman finds its own netavark again. Containers that run keep their network: stop and start them."
    )
    return Target((launcher("podman", f"{root}{directory}/netavark", "netavark"),), then, afterwards)


def service(root: str, unit_dir: str) -> Target:
    """The resident service. There is one, whoever it is for."""
    unit = f"""\
# {BLANK}
[Unit]
Description=vethwork, container networking: the resident service
Before={" ".join(RUNTIMES)}

[Service]
Type=notify
ExecStart={sys.executable} -P -m vethwork serve
Restart=always
RestartSec=1
TimeoutStopSec=20
# Nothing that gives it a mount namespace (PrivateTmp, ProtectSystem): it serves only those who see the same files.

[Install]
WantedBy=multi-user.target
"""
    then = """\
Start it: systemctl daemon-reload && systemctl enable --now vethwork.service
Without systemd: 'vethwork serve' as root, as early as may be, and started again when it ends.
Runtimes find it by themselves, and do without it while it is not there. After an upgrade of vethwork, restart it."""
    afterwards = """\
If it runs still: systemctl disable --now vethwork.service, then systemctl daemon-reload.
CNI, Podman and OCI runtimes do without it, only slower; Docker's networks of the driver vethwork do not."""
    file = File("service", f"{root}{unit_dir}/vethwork.service", unit, 0o644)
    return Target((file,), then, afterwards)


def docker(root: str, unit_dir: str) -> Target:
    """What Docker's plugin protocol needs: the resident service, which must be there before dockerd is."""
    made = service(root, unit_dir)
    then = f"""\
{made.then}
Docker needs it: it must run before dockerd starts.
Then: docker network create -d vethwork NAME, and docker run --network NAME ..."""
    return made.replace(then=then)


def oci(root: str, directory: str, hooks_dir: str) -> Target:
    """The hook for runc and crun, and what injects it into the containers of Podman and CRI-O."""
    hook = f"{directory}/oci-hook"
    # One set of arguments for both stages: the hook goes by the container's status.
    injected = {
        "version": "1.0.0",
        "io.vethwork.installed": BLANK,
        "hook": {"path": hook, "args": ["vethwork-oci"], "timeout": 60},
        "when": {"annotations": {r"^io\.vethwork\.network$": ".+"}},
        "stages": ["createRuntime", "poststop"],
    }
    files = (
        launcher("oci", f"{root}{hook}", "oci"),
        File("oci", f"{root}{hooks_dir}/vethwork.json", _document(injected), 0o644, editable=True),
    )
    then = f"""\
Bare runc and crun: put this into config.json, and leave {{"type": "network"}} in linux.namespaces without a path:
{json.dumps(snippet(hook), indent=2)}
Podman and CRI-O run the hook by themselves for a container with the annotation; it must have no other network:
  podman run --network none --annotation io.vethwork.network=bridge --annotation io.vethwork.publish=8080:80 ..."""
    return Target(
        files,
        then,
        "Take the hooks out of each config.json that names them: a hook that is missing fails its container.",
    )


def snippet(hook: str) -> dict[str, Any]:
    """What a ``config.json`` says to have the hook run."""
    return {
        "annotations": {"io.vethwork.network": "bridge", "io.vethwork.publish": "8080:80"},
        "hooks": {
            "createRuntime": [{"path": hook, "args": ["vethwork-oci", "attach"], "timeout": 60}],
            "poststop": [{"path": hook, "args": ["vethwork-oci", "detach"], "timeout": 60}],
        },
    }
