"""What people would otherwise run: Debian's unstable packages in a folder that is kept, or else this machine's own.

Rules: the folder is outside the project, is made once by debootstrap(8), and appears whole or not at all. What is measured
runs in it by chroot, in mount namespaces in which what it writes is not kept, so it stays as it was made. Delete it to
have newer packages fetched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

SUITE, MIRROR = "sid", "http://deb.debian.org/debian"
MEASURED = (
    "netavark", "aardvark-dns", "containernetworking-plugins", "docker.io", "podman", "containerd",
    "runc", "crun", "conmon", "nftables", "iptables",
)  # fmt: skip
"""Packages whose versions belong to the results."""
PACKAGES = (
    *MEASURED, "docker-cli", "busybox-static", "iproute2", "iperf3", "procps",
    "python3", "python3-click", "python3-rich", "python3-waitress",
)  # fmt: skip
NEEDED = (
    "usr/lib/podman/netavark",
    "usr/lib/cni/bridge",
    "usr/sbin/dockerd",
    "usr/bin/docker",
    "usr/bin/podman",
    "usr/bin/busybox",
    "usr/bin/iperf3",
)
SECONDS = 1200


class Peers(NamedTuple):
    """Where the peers are (``root`` empty: on this machine itself), which they are, and where they came from."""

    root: str
    origin: str
    versions: dict[str, str]


def cache() -> Path:
    """The directory that is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "/var/cache") / "vethwork-bench"


def prepare(say: Callable[[str], None]) -> Peers:
    """Make sure that they are here, which takes minutes the first time."""
    folder = cache() / SUITE
    if not _is_whole(folder):
        try:
            _fetch(folder, say)
        except (OSError, subprocess.SubprocessError) as error:
            say(f"debootstrap failed ({error}); this machine's own packages are measured instead")
            _install_here(say)
            return Peers("", f"this machine's own packages, for debootstrap failed: {error}", _versions(""))
    return Peers(str(folder), f"Debian {SUITE}, by debootstrap", _versions(str(folder)))


def _is_whole(folder: Path) -> bool:
    return all((folder / path).exists() for path in NEEDED)


def _fetch(folder: Path, say: Callable[[str], None]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not shutil.which("debootstrap"):
        _apt("debootstrap")
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    say(f"fetching Debian {SUITE} into {folder} (once, minutes)")
    command = [
        "debootstrap",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        SUITE,
        str(unfinished),
        MIRROR,
    ]
    with open(folder.with_suffix(".log"), "wb") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log, timeout=SECONDS)
    shutil.rmtree(unfinished / "var/cache/apt/archives", ignore_errors=True)
    if not _is_whole(unfinished):
        raise OSError(f"debootstrap ended well, and of {', '.join(NEEDED)} some are missing")
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


def _install_here(say: Callable[[str], None]) -> None:
    wanted = [each for each in PACKAGES if each != "docker-cli"]  # part of docker.io where Debian is stable
    try:
        _apt(*wanted)
    except (OSError, subprocess.SubprocessError) as error:
        say(f"apt-get could not install all of {' '.join(wanted)}: {error}")


def _apt(*packages: str) -> None:
    environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    done = subprocess.run(install, env=environ, capture_output=True, timeout=SECONDS, check=False)
    if done.returncode:
        subprocess.run(["apt-get", "update"], env=environ, capture_output=True, timeout=SECONDS, check=False)
        subprocess.run(install, env=environ, capture_output=True, timeout=SECONDS, check=True)


def _versions(root: str) -> dict[str, str]:
    query = ["dpkg-query", "--show", "--showformat", "${Package} ${Version}\n", *MEASURED]
    command = ["chroot", root, *query] if root else query
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout
    except OSError:
        return {}
    pairs = [line.split(" ", 1) for line in said.splitlines()]
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and pair[1]}
