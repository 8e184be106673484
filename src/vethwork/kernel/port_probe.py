"""Who on this host holds a port.

Theory. A DNAT rule wins over a local socket without a word, so a published port that a local process listens on would take
that process's traffic away. The kernel is asked the plain way: by binding the port and letting it go at once. Only when
that fails is /proc searched for the holder's name.
"""

from __future__ import annotations

import _socket
import os
from errno import EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, EPROTONOSUPPORT, ESOCKTNOSUPPORT

from vethwork.errors import KernelRefused, RequestError
from vethwork.model.ports import PROTOCOLS, Publish

_ANY = {4: "0.0.0.0", 6: "::"}
_TYPES = {"tcp": _socket.SOCK_STREAM, "udp": _socket.SOCK_DGRAM, "sctp": _socket.SOCK_STREAM}
IPPROTO_IPV6, IPV6_V6ONLY = 41, 26


def holder(publish: Publish) -> str:
    """Name the local process that holds a port of the range; empty if nobody does.

    Raises RequestError if the host does not hold the address, KernelRefused if the kernel lacks the protocol.
    """
    for version in publish.versions:
        for port in range(publish.host_port, publish.last + 1):
            if not _bindable(publish, version, port):
                return _name_holder(publish.protocol, port)
    return ""


def _bindable(publish: Publish, version: int, port: int) -> bool:
    address = str(publish.host_ip) if publish.host_ip is not None else _ANY[version]
    try:
        probe = _open(publish.protocol, version)
    except OSError as error:
        return _without(publish, version, error)
    try:
        probe.bind((address, port))
    except OSError as error:
        if error.errno == EADDRINUSE:
            return False
        if error.errno == EADDRNOTAVAIL and publish.host_ip is not None:
            raise RequestError(f"publish {publish}: the host does not hold {address}") from error
        if error.errno != EADDRNOTAVAIL:
            raise KernelRefused(f"try port {port}/{publish.protocol}", error.errno or 0) from error
    finally:
        probe.close()
    return True


def _open(protocol: str, version: int) -> _socket.socket:
    family = _socket.AF_INET if version == 4 else _socket.AF_INET6
    probe = _socket.socket(family, _TYPES[protocol] | _socket.SOCK_CLOEXEC, PROTOCOLS[protocol])
    if version == 6:
        probe.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 1)
    if protocol == "tcp":  # else what is left of closed connections (TIME_WAIT) would count as a holder
        probe.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    return probe


def _without(publish: Publish, version: int, error: OSError) -> bool:
    """The kernel has no such socket: fine for IPv6 if all addresses are asked for, else a refusal."""
    if error.errno == EAFNOSUPPORT and version == 6 and publish.host_ip is None:
        return True
    if error.errno in (EPROTONOSUPPORT, ESOCKTNOSUPPORT):
        raise KernelRefused(
            f"publish {publish}",
            EPROTONOSUPPORT,
            f"this kernel has no {publish.protocol}",
            hint="it needs CONFIG_IP_SCTP",
        ) from error
    raise KernelRefused(f"publish {publish}", error.errno or 0) from error


def _name_holder(protocol: str, port: int) -> str:
    inodes = {f"socket:[{inode}]" for inode in _inodes(protocol, port)}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{fd}") in inodes:
                    with open(f"/proc/{pid}/comm") as file:
                        return f"process {file.read().strip()} (pid {pid})"
        except OSError:  # it ended while we looked, or is not ours to look into
            continue
    return "a local socket"


def _inodes(protocol: str, port: int) -> list[str]:
    """The sockets on a port, of this namespace: proc(5), /proc/net/tcp."""
    found: list[str] = []
    for suffix in ("", "6"):
        try:
            with open(f"/proc/thread-self/net/{protocol}{suffix}") as file:
                rows = [line.split() for line in file.readlines()[1:]]
        except OSError:
            continue
        listening = "0A" if protocol == "tcp" else "07"
        found += [
            row[9] for row in rows if int(row[1].rpartition(":")[2], 16) == port and row[3] == listening
        ]
    return found
