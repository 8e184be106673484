"""The system calls that Python 3.11 has no words for: setns, unshare, mount, umount2, sethostname, prctl.

Rules: one thin wrapper for each, which raises OSError; flags carry the kernel's names, in alphabetical order, with the
header they are from. What makes the calls is loaded with the first, for only some paths need one; who forks calls
:func:`load` before, so that nothing is loaded or looked up between fork and exec.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# include/uapi/linux/sched.h
CLONE_NEWNET = 0x40000000
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
# include/uapi/linux/mount.h, and umount2(2)
MNT_DETACH = 2
MS_BIND = 4096
MS_NODEV = 4
MS_NOEXEC = 8
MS_NOSUID = 2
MS_PRIVATE = 1 << 18
MS_RDONLY = 1
MS_REC = 16384
MS_SHARED = 1 << 20
MS_SLAVE = 1 << 19
# include/uapi/linux/prctl.h
PR_GET_CHILD_SUBREAPER = 37
PR_SET_CHILD_SUBREAPER = 36

_functions: dict[str, Callable[..., int]] = {}


def load(*names: str) -> None:
    """Look functions of the C library up now, not at their first call.

    By the C half of ``ctypes``, for the other half takes longer to load than the calls that a runtime waits for
    (docs/decisions/0014-start-up.md). Numbers are C ints, bytes are pointers to them.
    """
    from _ctypes import FUNCFLAG_CDECL, FUNCFLAG_USE_ERRNO, CFuncPtr, _SimpleCData, dlopen

    class Int(_SimpleCData):  # type: ignore[type-arg]
        _type_ = "i"

    class Function(CFuncPtr):
        _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
        _restype_ = Int

    class Library:
        _handle = dlopen(None, 0)  # type: ignore[arg-type]

    for name in names:
        if name not in _functions:
            _functions[name] = Function((name, Library()))  # type: ignore[arg-type]


def function(name: str) -> Callable[..., int]:
    """The function itself, for who may run no line of Python before it is called."""
    if name not in _functions:
        load(name)
    return _functions[name]


def call(name: str, *args: object) -> None:
    """Call a function that gives 0. Raises OSError with what ``errno`` says where it does not."""
    if function(name)(*args) != 0:
        from _ctypes import get_errno

        code = get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into the namespace that ``fd`` is open on; see setns(2)."""
    call("setns", fd, kind)


def unshare(kinds: int) -> None:
    """Give the calling thread namespaces of its own; see unshare(2)."""
    call("unshare", kinds)


def mount(source: str, target: str, kind: str = "none", flags: int = 0) -> None:
    """Mount ``source`` at ``target``; see mount(2)."""
    call("mount", source.encode(), target.encode(), kind.encode(), flags, None)


def umount(target: str, flags: int = 0) -> None:
    """Unmount what is at ``target``; see umount2(2)."""
    call("umount2", target.encode(), flags)


def sethostname(name: str) -> None:
    """Name the UTS namespace of the calling process; see sethostname(2)."""
    call("sethostname", name.encode(), len(name.encode()))


def child_subreaper() -> bool:
    """Tell whether orphans below this process become its children; see PR_SET_CHILD_SUBREAPER(2const)."""
    import ctypes

    answer = ctypes.c_int()
    call("prctl", PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0)
    return bool(answer.value)


def set_child_subreaper(on: bool) -> None:
    """Make orphans below this process its children, or init's again; see PR_SET_CHILD_SUBREAPER(2const)."""
    call("prctl", PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0)
