"""Who is at the other end of a Unix socket, and whether the service may work in its stead.

Theory. A caller's own work would be done with its own user, namespaces and capabilities, and with paths looked up from its
own root directory. The service's work is the same only where all of these are the same. The kernel says who connected
(SO_PEERCRED, unix(7)), and /proc where that process stands; root can read it of everybody.

Rules: what cannot be found out differs. A process id may be another's by the time that it is looked up; then the caller is
gone, and so is whoever could hear the answer.
"""

from __future__ import annotations

import os
import socket
from struct import Struct

UCRED = Struct("iII")  # struct ucred: pid, uid, gid (include/linux/socket.h)
NAMESPACES = ("net", "mnt", "user", "pid")
NEEDED = 1 << 12 | 1 << 21  # CAP_NET_ADMIN, CAP_SYS_ADMIN (include/uapi/linux/capability.h)

Stand = dict[str, tuple[int, int]]


def credentials(peer: socket.socket) -> tuple[int, int]:
    """The process id and the user id of the process at the other end."""
    pid, uid, _ = UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
    return pid, uid


def may_speak(peer: socket.socket) -> bool:
    """Whether the process at the other end is root's, or runs as the same user as this one."""
    return credentials(peer)[1] in (0, os.geteuid())


def is_elsewhere(peer: socket.socket) -> bool:
    """Whether the process at the other end is seen to be in another network namespace than this one."""
    try:
        theirs = os.stat(f"/proc/{credentials(peer)[0]}/ns/net")
    except OSError:
        return False
    return not os.path.samestat(theirs, os.stat("/proc/self/ns/net"))


class Place:
    """Where this process stands, to compare others with."""

    def __init__(self) -> None:
        self._own = _observe_stand("self")

    def difference(self, pid: int, uid: int) -> str:
        """In what a process does not stand where this one does, in words; empty if it is no different."""
        if uid != os.geteuid():
            return "you are another user"
        try:
            theirs, capable = _observe_stand(str(pid)), _observe_capabilities(pid)
        except OSError:
            return "you cannot be seen"
        for name, identity in self._own.items():
            if theirs[name] != identity:
                return f"you have another {name}"
        return "" if capable & NEEDED == NEEDED else "you lack CAP_NET_ADMIN or CAP_SYS_ADMIN"


def _observe_stand(pid: str) -> Stand:
    found = {f"{name} namespace": os.stat(f"/proc/{pid}/ns/{name}") for name in NAMESPACES}
    found["root directory"] = os.stat(f"/proc/{pid}/root")
    return {name: (each.st_dev, each.st_ino) for name, each in found.items()}


def _observe_capabilities(pid: int) -> int:
    """The effective ones (proc(5), ``status``)."""
    with open(f"/proc/{pid}/status", "rb") as file:
        for line in file:
            if line.startswith(b"CapEff:"):
                return int(line.split()[1], 16)
    return 0
