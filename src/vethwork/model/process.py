"""The process of a container, as it is on record.

Rules: a process is known by its id *and* its start time, for ids are used again. ``status`` None: it has not ended, as far
as anybody recorded.
"""

from __future__ import annotations

from vethwork.model.address import Address
from vethwork.model.record import Record


class RunOptions(Record):
    """How a container's process is started, kept so that ``start`` can do it again.

    ``directory`` holds the files it sees as /etc/hosts, /etc/resolv.conf and /etc/hostname, and its log.
    """

    command: tuple[str, ...]
    directory: str
    hostname: str
    hosts: tuple[tuple[str, Address], ...]
    dns: tuple[Address, ...]
    detached: bool
    remove: bool


class ProcessRow(Record):
    """``pid`` 0: it was not started yet. ``keeper`` is the process that starts it and waits for its end.

    Both with their start times, in clock ticks after boot (proc(5), stat field 22).
    """

    container: str
    options: RunOptions
    keeper: int
    keeper_start: int
    pid: int = 0
    start_time: int = 0
    status: int | None = None
