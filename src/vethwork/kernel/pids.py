"""Processes by their ids: whether one is still the one that was meant, and how it is ended.

Theory. A process id is used again after its process was waited for. So a process is known by its id and its start time
(proc_pid_stat(5), field 22), and signals go through a pidfd (pidfd_open(2)), which stays with the process, or with the
process group, that it was opened on, whoever has the number by now.

Rules: a pidfd is opened first and the start time compared then. Nothing here waits by looking again and again.
"""

from __future__ import annotations

import errno
import os
import select
import signal

from vethwork.errors import KernelRefused

PIDFD_SIGNAL_PROCESS_GROUP = 1 << 2  # include/uapi/linux/pidfd.h, Linux 6.9
KILL_SECONDS = 10.0
"""How long to wait for a process that was killed: one that the kernel holds (state D) may not go at all."""


def _stat(pid: int) -> list[bytes]:
    """Give the fields of /proc/PID/stat from the third (the state) on, see proc_pid_stat(5); empty if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def start_time_of(pid: int) -> int:
    """When a process was started, in clock ticks after boot; 0 if it is gone."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def parent_of(pid: int) -> int:
    """The process that another is a child of; 0 if it is gone."""
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def is_stopped(pid: int) -> bool:
    """Tell whether a process is stopped by a signal."""
    return _stat(pid)[:1] == [b"T"]


def is_alive(pid: int, start_time: int) -> bool:
    """Tell whether the process of that id and start time has not ended (one that nobody waited for has)."""
    fields = _stat(pid) if pid > 0 else []
    return bool(fields) and int(fields[19]) == start_time and fields[0] not in (b"Z", b"X")


def stop(pid: int, start_time: int, grace_seconds: float) -> bool:
    """End a process: SIGTERM, and after the grace SIGKILL. Gives False if it had ended before.

    If it leads its process group, as a detached one does, the whole group gets the signals, and SIGKILL in any case
    once the process has ended. One that is stopped is continued, so that SIGTERM reaches it. Raises KernelRefused if
    even SIGKILL does not end it.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except (ProcessLookupError, ValueError):
        return False
    try:
        if not is_alive(pid, start_time):  # checked after it was opened: it is open on what was checked
            return False
        leads = _leads(pid)
        _send(pidfd, pid, signal.SIGTERM, leads)
        _send(pidfd, pid, signal.SIGCONT, leads)
        _has_ended(pidfd, grace_seconds)
        _send(pidfd, pid, signal.SIGKILL, leads)
        if not _has_ended(pidfd, KILL_SECONDS):
            raise KernelRefused(f"end process {pid}", errno.EBUSY, "it was killed and is still there")
        return True
    except PermissionError as error:
        raise KernelRefused(f"send process {pid} a signal", error.errno or 0) from error
    finally:
        os.close(pidfd)


def _leads(pid: int) -> bool:
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False


def _send(pidfd: int, pid: int, number: int, group: bool) -> None:
    try:
        signal.pidfd_send_signal(pidfd, number, None, PIDFD_SIGNAL_PROCESS_GROUP if group else 0)
    except ProcessLookupError:
        return
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        if not _has_ended(
            pidfd, 0
        ):  # a kernel without the flag: as long as it has not ended, its id is its own
            os.killpg(pid, number)


def _has_ended(pidfd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
