"""What systemd is told (sd_notify(3)): a datagram to the socket that it names in the environment; nothing if it names none."""

from __future__ import annotations

import os
import socket


def tell(state: str) -> None:
    """Tell that the service is ``READY=1`` or ``STOPPING=1``. Who does not listen misses nothing."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaking:
        try:
            speaking.sendto(state.encode(), address)
        except OSError:
            return  # systemd goes by its own timeout then
