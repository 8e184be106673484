"""What can go wrong, sorted by whose move it is.

    VethworkError
    ├── RequestError      the caller's: the ask is malformed or cannot be met; ask differently
    │   ├── NotFound      the caller named something that is not there
    │   └── BadNamespace  the caller named a network namespace that no container may have, or that is none
    ├── ConflictError     somebody else's: another container, process or network holds what was asked for
    ├── KernelRefused     the machine's: a system call or a netlink message was refused
    ├── StateError        ours: the records on disk are damaged or of another version
    └── Incomplete        a teardown did all it could, and lists what is left

Rules: a message reads *what we were doing: what happened*, and ``hint`` says what to do about it. ``exit_status`` is
what the command line ends with, ``cni_code`` what the CNI plugin answers (CNI SPEC 1.1, section "Error").
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class VethworkError(Exception):
    """The root; never raised itself. ``str()`` gives the message and, in brackets, the hint."""

    exit_status = 125
    cni_code = 999

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class RequestError(VethworkError):
    """The ask itself is wrong; nothing was touched."""

    exit_status = 2
    cni_code = 7


class NotFound(RequestError):
    """The ask names a container, network or port that is not on record."""

    exit_status = 3
    cni_code = 3


class BadNamespace(RequestError):
    """A path leads to no network namespace, no longer leads to one, or leads to the host's own."""

    cni_code = 8


class ConflictError(VethworkError):
    """What was asked for is held by somebody else; the message names the holder."""

    exit_status = 4
    cni_code = 11


class KernelRefused(VethworkError):
    """The kernel said no.

    ``doing`` is what we asked for in words, ``errno`` the kernel's number (a positive integer), ``extack`` the
    kernel's own explanation where it gave one (NETLINK_EXT_ACK, include/uapi/linux/netlink.h).
    """

    exit_status = 5
    cni_code = 100

    def __init__(self, doing: str, errno: int, extack: str = "", *, hint: str = "") -> None:
        from errno import errorcode
        from os import strerror

        why = f"{errorcode.get(errno, errno)}: {extack or strerror(errno)}"
        needs = "it takes root, or CAP_NET_ADMIN and CAP_SYS_ADMIN" if errno == 1 else ""  # EPERM
        super().__init__(f"{doing}: {why}", hint=hint or needs)
        self.doing = doing
        self.errno = errno
        self.extack = extack


class StateError(VethworkError):
    """Our own records cannot be read or written; the message names the file."""

    exit_status = 6
    cni_code = 5


class Incomplete(VethworkError):
    """A teardown went on past its failures; ``errors`` lists them, in the order they happened."""

    exit_status = 7

    def __init__(self, doing: str, errors: Sequence[VethworkError]) -> None:
        self.errors = tuple(errors)
        super().__init__(f"{doing}: " + "; ".join(str(error) for error in self.errors))
