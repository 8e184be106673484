"""Where a runtime's call begins: it is handed to the resident service, or, where that cannot be, done in this process.

    launch.cni()    launch.netavark()    launch.oci()        a launcher, or a console script, calls one of these

The service (``service.calls``) does the same work with the same code, only without the interpreter's start and without
opening anything. So this module loads nothing but the C half of ``socket``; all else is loaded by who works himself.

Over the socket goes one request of HTTP. Its body is, spelled so that no module is needed to read it: the arguments, each
with a NUL behind it; the environment, likewise; standard input. The answer's is a line with the exit status and two
lengths, then standard output, then standard error.

Rules: what is handed over is what reads its standard input in any case, so that nobody waits for input who would not have
waited for it here; a person at a terminal is served in this process. So is everybody who gets no whole answer: nobody
listens, or somebody who is neither root nor this user; the service declines, it ends or falls silent, before it has heard
everything or after. That is right at any point, for what the engine does is on record before it is done: what the service
left half done is undone or finished by this process when its turn comes, and what it had settled is there. So a DEL that is
repeated finds less to do, or nothing; and a repeated ADD is made anew, or is told that the interface exists, upon which a
runtime calls DEL.

A process that is done ends by ``_exit``: to take the interpreter down in order takes longer than the attach did, and nothing
needs it by then (docs/decisions/0014-start-up.md).
"""

import sys
from _socket import (
    AF_UNIX,
    SO_PEERCRED,
    SOCK_CLOEXEC,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)  # not `socket`, which loads `enum` and `selectors`
from posix import _exit, environ, geteuid, isatty, read, write

from vethwork import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    Answer = tuple[int, bytes, bytes]

LARGEST, REST = 16 << 20, 64 << 20
"""Bytes of standard input that are handed over (who has more has time too), and how many more are read then."""
SILENT_SECONDS = 60
"""How long the service may say nothing. Some calls wait for others; a service that is stopped answers nobody."""


def cni() -> None:
    """The CNI plugin."""
    _call("cni", environ.get(b"CNI_COMMAND", b"") not in (b"", b"VERSION"))


def netavark() -> None:
    """The stand-in for netavark. What reads a file is not handed over: its path may be relative."""
    words = sys.argv[1:]
    reads = any(word in ("setup", "teardown", "update", "create") for word in words)
    _call("netavark", reads and not any(word.startswith(("-f", "--file")) for word in words))


def oci() -> None:
    """The hook of OCI runtimes."""
    words = sys.argv[1:]
    _call("oci", not words or words[0] in ("attach", "detach"))


def _call(tool: str, reads_input: bool) -> None:
    """Serve one call, and end the process with its exit status."""
    service = _connect() if reads_input and sys.stdin is not None and not isatty(0) else None
    if service is None:
        return _work(tool, None)
    stdin = _read_input()
    answer = _ask(service, tool, stdin) if len(stdin) <= LARGEST else None
    service.close()
    if answer is None:
        from _io import BytesIO

        return _work(tool, BytesIO(stdin + (sys.stdin.buffer.read(REST) if len(stdin) > LARGEST else b"")))
    status, out, error = answer
    for stream, fd, said in ((sys.stdout, 1, out), (sys.stderr, 2, error)):
        if stream is not None:
            _say(fd, said)
    _exit(status)


def _work(tool: str, stdin: "BinaryIO | None") -> None:
    import gc

    gc.disable()  # what is imported is no garbage: the search for it took 1 ms, and the end is near
    if tool == "cni":
        from vethwork.frontends.cni.main import main
    elif tool == "netavark":
        from vethwork.frontends.netavark.main import main
    else:
        from vethwork.frontends.oci.main import main
    try:
        main(stdin)
    except SystemExit as ended:
        _end(ended)


def _end(ended: SystemExit) -> None:
    """End the process as the interpreter would, but at once: the engine is closed, and no thread of it works any more.

    What is not plain is left to the interpreter: an exit status that is a text, and a stream that does not take what was
    said, for which it has a status of its own.
    """
    status = 0 if ended.code is None else ended.code
    if not isinstance(status, int):
        raise ended
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):  # nobody listens, or the disk is full; the stream is closed
        raise ended from None
    _exit(status & 0xFF)


def _connect() -> "socket | None":
    run = environ.get(b"VETHWORK_RUN") or b"/run/vethwork"
    made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    made.settimeout(SILENT_SECONDS)
    try:
        made.connect(run + b"/service.sock")
    except OSError:  # EAGAIN among them: so many wait already that it is faster to help oneself
        made.close()
        return None
    uid = int.from_bytes(made.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)[4:8], sys.byteorder)  # struct ucred
    if uid not in (0, geteuid()):
        made.close()
        return None
    return made


def _read_input() -> bytes:
    """All of standard input, unless that is too much."""
    parts, size = [], 0
    while size <= LARGEST and (part := read(0, 1 << 20)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _ask(service: socket, tool: str, stdin: bytes) -> "Answer | None":
    """Hand a call over; None if there is no whole answer."""
    encoding = sys.getfilesystemencoding()
    words = b"".join([word.encode(encoding, "surrogateescape") + b"\0" for word in sys.argv[1:]])
    said = b"".join([b"%b=%b\0" % pair for pair in environ.items()])
    length = len(words) + len(said) + len(stdin)
    head = (
        f"POST /call/{tool}?{__version__}&{len(words)}&{len(said)} HTTP/1.1\r\n"
        f"Host:\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    )
    try:
        service.sendall(head.encode() + words + said + stdin)
        heard = b""
        while not (answer := _parse_answer(heard)):
            part = service.recv(1 << 16)
            if not part:
                return None
            heard += part
    except (OSError, ValueError):
        return None
    return answer if answer[0] >= 0 else None


def _parse_answer(heard: bytes) -> "Answer | None":
    """An answer, once it is whole; its exit status is -1 if the service declines. Raises ValueError if it is none."""
    head, end, body = heard.partition(b"\r\n\r\n")
    if not end:
        return None
    if head.split(b" ", 2)[1:2] != [b"200"]:
        return -1, b"", b""
    first, end, rest = body.partition(b"\n")
    if not end:
        return None
    status, out, error = map(int, first.split(b" "))
    return (status, rest[:out], rest[out:]) if len(rest) == out + error else None


def _say(fd: int, said: bytes) -> None:
    try:
        while said:
            said = said[write(fd, said) :]
    except OSError:
        return  # nobody listens
