"""A running service, and how to speak to it: as dockerd, as a launcher, and as whoever has other plans."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from tests.heard import Heard
from vethwork import __version__
from vethwork.testing.lab import Lab
from vethwork.testing.machine import SOURCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vethwork.testing.machine import Machine

MIME = "application/vnd.docker.plugins.v1.2+json"
LAUNCHER = "import sys; sys.path.append({source!r}); from vethwork.launch import {tool}; {tool}()"


def launch(
    host: Machine, tool: str, *words: str, stdin: str = "", environ: Mapping[str, str] | None = None
) -> Heard:
    """Start a tool as its launcher does, on a machine, and hear it to its end."""
    command = [sys.executable, "-IS", "-c", LAUNCHER.format(source=SOURCE, tool=tool), *words]
    done = host.run(command, check=False, stdin=stdin, env=dict(environ or {}))
    return Heard(done.returncode, done.stdout, done.stderr)


class Service:
    """A running service."""

    def __init__(self, lab: Lab, *options: str) -> None:
        self.lab, self.host, self.options = lab, lab.host, options
        self.path = f"{lab.directory}/plugins/vethwork.sock"
        self.run = f"{self.host.environment['VETHWORK_RUN']}/service.sock"
        self.version = __version__
        self.process: subprocess.Popen[str]
        self.start()

    def start(self, **environ: str) -> None:
        """Start it, and wait until it says that it listens."""
        self.process = self.popen(**environ)
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith(f"listening at {self.run} and {self.path}")

    def popen(self, **environ: str) -> subprocess.Popen[str]:
        """Start it; it may end at once."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        command = [sys.executable, "-m", "vethwork", "serve", "--docker", self.path, *self.options]
        return self.host.popen(command, env={"PYTHONPATH": SOURCE, **environ}, **pipes)

    def stop(self, number: int = signal.SIGTERM) -> str:
        """End it; gives what it said."""
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=20)
        return out

    def kill(self) -> None:
        """End it as the OOM killer does."""
        self.process.kill()
        self.process.communicate()

    def connect(self, path: str = "") -> socket.socket:
        """A connection to Docker's socket, or to the one at ``path``."""
        made = socket.socket(socket.AF_UNIX)
        try:
            made.connect(
                path or self.path
            )  # waits where many do; with a timeout, it would be refused (EAGAIN)
        except OSError:
            made.close()
            raise
        made.settimeout(20)
        return made

    def call(
        self,
        tool: str,
        words: Sequence[str] = (),
        stdin: bytes = b"",
        *,
        version: str = __version__,
        **environ: str,
    ) -> tuple[int, bytes]:
        """Hand a call over from a process on the host; gives the status of HTTP, and the body."""

        def call() -> tuple[int, bytes]:
            with self.connect(self.run) as made:
                return ask(made, request(self.host, tool, words, stdin, version, environ))

        return self.host.call(call)

    def metrics(self) -> dict[str, float]:
        """What it counts."""
        with self.connect(self.run) as made:
            status, body = ask(made, b"GET /metrics HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n")
        assert status == 200, body
        lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def served(self) -> int:
        """How many calls it has served."""
        return int(
            sum(n for name, n in self.metrics().items() if name.startswith("vethwork_call_seconds_count"))
        )

    def post(self, method: str, body: bytes = b"", verb: str = "POST") -> tuple[int, Any, str]:
        """One request, as Go's client sends it: with an empty Host header."""
        with closing(http.client.HTTPConnection("x")) as http_:
            http_.sock = self.connect()
            http_.putrequest(verb, f"/{method}", skip_host=True, skip_accept_encoding=True)
            for header in (("Host", ""), ("Accept", MIME), ("Content-Length", str(len(body)))):
                http_.putheader(*header)
            http_.endheaders(body)
            answer = http_.getresponse()
            text = answer.read()
            kind = answer.getheader("Content-Type") or ""
            return answer.status, json.loads(text) if kind == MIME else text.decode(), kind

    def ask(self, method: str, document: object) -> Any:
        """One request that is done."""
        status, said, _ = self.post(method, json.dumps(document).encode())
        assert (status, said.get("Err")) == (200, None), said
        return said


def request(
    host: Machine, tool: str, words: Sequence[str], stdin: bytes, version: str, environ: Mapping[str, str]
) -> bytes:
    """A call as ``launch`` spells it; the environment is the host's and what is given."""
    said = b"".join([word.encode() + b"\0" for word in words])
    held = b"".join([f"{name}={value}\0".encode() for name, value in {**host.environment, **environ}.items()])
    body = said + held + stdin
    head = f"POST /call/{tool}?{version}&{len(said)}&{len(held)} HTTP/1.1\r\nHost:\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def ask(made: socket.socket, data: bytes) -> tuple[int, bytes]:
    """Send a request and hear the answer to its end."""
    made.sendall(data)
    heard = b"".join(iter(lambda: made.recv(65536), b""))
    head, _, body = heard.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@contextmanager
def serving(*options: str) -> Iterator[Service]:
    """A service on the host of a lab of its own."""
    with Lab() as lab:
        yield Service(lab, *options)
