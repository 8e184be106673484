"""A container image without a registry: a statically linked busybox, as ``docker save`` would write it.

Source: the OCI image specification (config.md) and Docker's image specification 1.2 (manifest.json).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

NAME = "docker.io/library/box:1"
APPLETS = (
    "sh",
    "ls",
    "cat",
    "sleep",
    "ip",
    "httpd",
    "wget",
    "ping",
    "nc",
    "true",
    "false",
    "echo",
    "kill",
    "env",
)


def make_image(path: Path, busybox: str, command: tuple[str, ...] = ("sleep", "3600")) -> None:
    """Write an archive that ``ctr image import`` and ``podman load`` read."""
    layer = _layer(busybox)
    digest = hashlib.sha256(layer).hexdigest()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    config = {
        "architecture": machine,
        "os": "linux",
        "config": {"Cmd": list(command), "Env": ["PATH=/bin"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created_by": "vethwork"}],
    }
    text = json.dumps(config).encode()
    name = hashlib.sha256(text).hexdigest()
    manifest = [{"Config": f"{name}.json", "RepoTags": [NAME], "Layers": [f"{digest}/layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        for member, data in (
            (f"{digest}/layer.tar", layer),
            (f"{name}.json", text),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            _add(tar, member, data)


def _layer(busybox: str) -> bytes:
    """The root directory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for directory in ("bin", "etc", "proc", "sys", "dev", "tmp", "www"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        with open(busybox, "rb") as file:
            _add(tar, "bin/busybox", file.read(), 0o755)
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        _add(tar, "www/index.html", b"hello from a container\n")
        _add(tar, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\n")
    return out.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))
