"""Names from outside, each in a type that cannot hold a bad one.

Rules: ``parse`` is the only way in, raises RequestError, and what it lets through is safe in a file name, an interface
name, an nft identifier and a shell command. The types are ``str`` to everybody else.
"""

from __future__ import annotations

from vethwork.errors import RequestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_NAME = _LETTERS | frozenset("_.-")


class Name(str):
    """The name of a container or a network, as the CNI specification has it: ``[a-zA-Z0-9][a-zA-Z0-9_.-]*``, at most 128."""

    __slots__ = ()
    longest = 128
    what = "name"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises RequestError with what is wrong with it."""
        if not text:
            raise RequestError(f"{cls.what} {text!r}: is empty")
        if len(text) > cls.longest:
            raise RequestError(f"{cls.what} {text[:20] + '...'!r}: longer than {cls.longest} characters")
        if text[0] not in _LETTERS or not _NAME.issuperset(text):
            raise RequestError(
                f"{cls.what} {text!r}: has characters that a {cls.what} cannot have",
                hint="letters, digits, '_', '.' and '-', the first a letter or a digit",
            )
        return cls(text)


class IfName(Name):
    """The name of a network interface: at most 15 characters (IFNAMSIZ less the NUL, include/uapi/linux/if.h).

    The kernel also takes stranger ones (``%d`` even makes it invent a number); those are refused here.
    """

    __slots__ = ()
    longest = 15
    what = "interface name"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises RequestError with what is wrong with it."""
        if text in ("all", "default"):  # sysctl_dev_name_is_allowed (net/ipv4/devinet.c)
            raise RequestError(f"{cls.what} {text!r}: means all interfaces, to the kernel")
        return super().parse(text)


class HostName(Name):
    """A host name for the UTS namespace: at most 64 characters (__NEW_UTS_LEN, include/uapi/linux/utsname.h)."""

    __slots__ = ()
    longest = 64
    what = "host name"


class NetnsPath(str):
    """The path of a network namespace file: absolute, without ``..``, control characters or more than 4095 bytes."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises RequestError. Whether it *is* a namespace is the kernel's to say, when it is opened."""
        if not text.startswith("/") or ".." in text.split("/") or len(text.encode(errors="replace")) > 4095:
            raise RequestError(f"namespace path {text[:80]!r}: not an absolute path without '..'")
        if not text.isprintable():
            raise RequestError(f"namespace path {text[:80]!r}: has control characters")
        return cls(text)


class Directory(str):
    """The path of a directory that is ours (VETHWORK_ROOT, VETHWORK_RUN): absolute, of printable characters.

    It is not too long either for what has a place below it. Whatever else is in it, a shell is given it quoted.
    """

    __slots__ = ()
    longest = 4000

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises RequestError. Whether it can be made is the file system's to say, when it is."""
        hint = "see VETHWORK_ROOT and VETHWORK_RUN"
        if not text.startswith("/") or ".." in text.split("/"):
            raise RequestError(f"directory {text[:80]!r}: not an absolute path without '..'", hint=hint)
        if not text.isprintable():  # nor is what is no UTF-8
            raise RequestError(f"directory {text[:80]!r}: has characters that cannot be printed", hint=hint)
        if len(text.encode()) > cls.longest:
            raise RequestError(f"directory {text[:80]!r}...: longer than {cls.longest} bytes", hint=hint)
        return cls(text)
