"""One process for each world, and the turns they take.

An agent is a child process that builds something (a contender on a host of its own) and then does what it is told, one
thing at a time: a method's name and its arguments go in, what it gives comes out. Worlds that wait cost no time, so those of
all contenders stand side by side and are measured in turn.
"""

from __future__ import annotations

import os
import pickle
import socket
import struct
import time
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

LENGTH = struct.Struct("=Q")


class Failed(Exception):
    """What an agent was told to do went wrong there; with the other side's traceback."""


class Agent:
    """Something in a process of its own."""

    def __init__(self, name: str, make: Callable[[], object]) -> None:
        self.name = name
        self._socket, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()  # what it starts ends with it
            self._socket.close()
            _obey(make, theirs)
        theirs.close()
        self._made = False

    def ready(self, seconds: float = 120.0) -> None:
        """Wait until it is built. Raises Failed, TimeoutError."""
        if not self._made:
            self.collect(seconds)
            self._made = True

    def call(self, method: str, *arguments: Any, seconds: float = 300.0) -> Any:
        """Have something done, and give the result. Raises Failed, TimeoutError: it is ended then."""
        self.tell(method, *arguments)
        return self.collect(seconds)

    def tell(self, method: str, *arguments: Any) -> None:
        """Have something done; :meth:`collect` gives the result."""
        self.ready()
        try:
            _send(self._socket, (method, arguments))
        except OSError as error:
            raise Failed(f"{self.name} has ended") from error

    def collect(self, seconds: float = 300.0) -> Any:
        """What came of the last :meth:`tell`. Raises Failed, TimeoutError: it is ended then."""
        self._socket.settimeout(seconds)
        try:
            failed, result = _receive(self._socket)
        except TimeoutError:
            self.end()
            raise TimeoutError(f"{self.name}: not done in time") from None
        except (EOFError, ConnectionError):
            raise Failed(f"{self.name} has ended") from None
        if failed:
            raise Failed(f"{self.name}: {failed}")
        return result

    def end(self) -> None:
        """End it. Doing it twice is harmless."""
        if self.pid:
            try:
                os.killpg(self.pid, 9)
            except ProcessLookupError:
                os.kill(self.pid, 9)  # it has not come to lead a group yet
            os.waitpid(self.pid, 0)
            self._socket.close()
            self.pid = 0


class Agents:
    """Several, ended together; a context manager."""

    def __init__(self) -> None:
        self.all: dict[str, Agent] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for agent in self.all.values():
            agent.end()

    def start(self, name: str, make: Callable[[], object]) -> Agent:
        """One more."""
        self.all[name] = agent = Agent(name, make)
        return agent

    def ready(self) -> dict[str, Exception]:
        """Wait until all are built; who fails is dropped, and given with the reason."""
        failed: dict[str, Exception] = {}
        for name in list(self.all):
            try:
                self.all[name].ready()
            except (Failed, TimeoutError) as why:
                failed[name] = why
                self.drop(name)
        return failed

    def drop(self, name: str) -> None:
        """End one."""
        self.all.pop(name).end()

    def each(
        self, names: Sequence[str], method: str, *arguments: Any, seconds: float = 300.0
    ) -> dict[str, Exception]:
        """The same by several at once. Those that fail, or take longer, are ended; gives why."""
        failed: dict[str, Exception] = {}
        until = time.monotonic() + seconds
        for step in ("tell", "collect"):
            for name in names:
                if name in failed:
                    continue
                try:
                    if step == "tell":
                        self.all[name].tell(method, *arguments)
                    else:
                        self.all[name].collect(max(1.0, until - time.monotonic()))
                except (Failed, TimeoutError) as error:
                    failed[name] = error
                    self.drop(name)
        return failed


def _obey(make: Callable[[], object], told: socket.socket) -> None:
    try:
        try:
            made = make()
        except BaseException:
            _send(told, (traceback.format_exc(), None))
            return
        _send(told, ("", None))
        while True:
            method, arguments = _receive(told)
            try:
                answer = ("", getattr(made, method)(*arguments))
            except Exception:
                answer = (traceback.format_exc(), None)
            _send(told, answer)
    except (EOFError, OSError):
        return
    finally:
        os._exit(0)


def _send(to: socket.socket, value: object) -> None:
    data = pickle.dumps(value)
    to.sendall(LENGTH.pack(len(data)) + data)


def _receive(sender: socket.socket) -> Any:
    (length,) = LENGTH.unpack(_exactly(sender, LENGTH.size))
    return pickle.loads(_exactly(sender, length))


def _exactly(sender: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = sender.recv(length - len(data))
        if not more:
            raise EOFError
        data += more
    return data
