"""A machine of a lab: one network namespace, and what can be done in it.

Rules: a socket belongs to the namespace it was made in, so the dialogs that a machine has are held by this very
process; only :meth:`~Machine.run`, :meth:`~Machine.popen` and :meth:`~Machine.call` put a process inside. Everything has a
deadline. Addresses may be given as text or as :class:`vethwork.model.address.Address`.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from vethwork.kernel import libc, sysctl
from vethwork.kernel.netns import inside, open_netns
from vethwork.kernel.rtnl import RouteDoor
from vethwork.model.address import Address, Interface, Prefix
from vethwork.model.steps import AddAddress, AddRoute
from vethwork.testing.echo import ping
from vethwork.testing.servers import KINDS, TCP, UDP, Dialog, Response, Seen, make_listener, serve
from vethwork.testing.wiretap import Wiretap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, Never

    from vethwork.model.address import Mac
    from vethwork.testing.processes import Child, Processes

Result = TypeVar("Result")
# include/uapi/linux/sockios.h, if.h (struct ifreq: a name, and flags at the front of a union)
SIOCGIFFLAGS, IFF_RUNNING = 0x8913, 0x40
IFREQ = Struct("16sH14x")
SOURCE = str(Path(__file__).parents[2])


class Server:
    """A server of a machine. It ends with the lab; :meth:`stop` ends it before."""

    def __init__(self, port: int, child: Child[Never]) -> None:
        self.port = port
        self._child = child

    def stop(self) -> None:
        """End it, and close its port."""
        self._child.kill()


class Machine:
    """One network namespace, at ``path``. Labs make them; see :class:`vethwork.testing.lab.Lab`."""

    def __init__(self, name: str, path: str, processes: Processes, environment: Mapping[str, str]) -> None:
        self.name = name
        self.path = path
        self.environment = dict(environment)
        self._processes = processes
        self.fd = open_netns(path)

    def __repr__(self) -> str:
        return f"Machine({self.name!r}, {self.path!r})"

    def close(self) -> None:
        """Let go of the namespace; the lab does this."""
        os.close(self.fd)

    # What it is -----------------------------------------------------------------------------------------------------

    @contextmanager
    def door(self) -> Iterator[RouteDoor]:
        """Its links, addresses and routes, in the engine's own words; what was queued is sent at the end."""
        door = self.inside(RouteDoor)
        try:
            yield door
            door.flush()
        finally:
            door.close()

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The addresses that others can reach it by, as they are now: IPv4 first, then in the order of its interfaces."""
        with self.door() as door:
            found = [interface.address for _, interface in door.addresses()]
        return tuple([each for each in found if not each.is_loopback and not each.is_link_local])

    @property
    def v4(self) -> str:
        """Its first IPv4 address."""
        return str(next(each for each in self.addresses if each.version == 4))

    @property
    def v6(self) -> str:
        """Its first IPv6 address."""
        return str(next(each for each in self.addresses if each.version == 6))

    def mac(self, ifname: str = "eth0") -> Mac:
        """The Ethernet address of an interface. Raises LookupError."""
        with self.door() as door:
            link = door.link(ifname)
        if link is None:
            raise LookupError(f"{self.name} has no interface {ifname}")
        return link.mac

    def is_running(self, ifname: str = "eth0") -> bool:
        """Tell whether an interface carries frames, which it does a moment after it was brought up (IFF_RUNNING)."""
        with self.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as any_socket:
            request = IFREQ.pack(ifname.encode(), 0)
            return bool(IFREQ.unpack(fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))[1] & IFF_RUNNING)

    def listens_for(self, address: Address, ifname: str = "eth0") -> bool:
        """Tell whether neighbours that look for an IPv6 address are heard: a moment after it was added."""
        group = f"ff0200000000000000000001ff{address.value & 0xFFFFFF:06x}"  # RFC 4291 2.7.1
        groups = self.inside(lambda: Path("/proc/thread-self/net/igmp6").read_text("ascii"))
        return any(line.split()[1:3] == [ifname, group] for line in groups.splitlines())

    def add_address(self, interface: str, ifname: str = "eth0") -> None:
        """Give it one more address, as in ``192.0.2.9/24``."""
        with self.door() as door:
            door.add_address(AddAddress("", ifname, Interface.parse(interface)))

    def add_route(self, prefix: str | Prefix, gateway: str | Address, ifname: str = "eth0") -> None:
        """Send packets for a prefix (``default`` for all) to a gateway."""
        to = None if prefix == "default" else Prefix.parse(str(prefix))
        with self.door() as door:
            door.add_route(AddRoute("", ifname, to, Address.parse(str(gateway))))

    def sysctl(self, path: str) -> str | None:
        """A value below /proc/sys/net (``ipv4/ip_forward``); None where this kernel has none."""
        return self.inside(lambda: sysctl.read(path))

    def set_sysctl(self, path: str, value: str) -> None:
        """Set a value below /proc/sys/net. Raises KernelRefused."""
        self.inside(lambda: sysctl.ensure(path, value))

    def filter_bridged(self, on: bool) -> None:
        """Let frames that it bridges meet its IP firewall or not, as ``net.bridge.bridge-nf-call-iptables`` does.

        Raises KernelRefused on a kernel without CONFIG_BRIDGE_NETFILTER.
        """
        for tool in ("iptables", "ip6tables", "arptables"):
            self.set_sysctl(f"bridge/bridge-nf-call-{tool}", str(int(on)))

    # What runs in it --------------------------------------------------------------------------------------------------

    def inside(self, work: Callable[[], Result]) -> Result:
        """Do something in the namespace, for instance make a socket, which then stays there."""
        return inside(self.fd, work)

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Start a program in it; options as for ``subprocess.Popen``. It is killed with its process group at the lab's end.

        Only the network namespace is entered: what it reads from /sys is this process's own.
        """
        environment = os.environ | self.environment | options.pop("env", {})

        def start() -> subprocess.Popen[str]:  # the child is forked in the namespace, and stays in it
            return subprocess.Popen(argv, env=environment, text=True, start_new_session=True, **options)

        return self._processes.start(lambda: self.inside(start))

    def run(
        self, argv: Sequence[str], *, check: bool = True, timeout: float = 20, stdin: str = "", **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in it to its end, and give what it said.

        Raises CalledProcessError, with what it said on standard error as a note, if ``check`` and it failed;
        TimeoutExpired, with the program killed.
        """
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        program = self.popen(argv, **(pipes | options))
        try:
            out, err = program.communicate(stdin, timeout)
        except BaseException:
            program.kill()
            program.communicate()
            raise
        if check and program.returncode:
            failed = subprocess.CalledProcessError(program.returncode, argv, out, err)
            failed.add_note(f"on {self.name}, it said:\n{out or ''}{err or ''}")
            raise failed
        return subprocess.CompletedProcess(argv, program.returncode, out, err)

    def vethwork(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the command line as if on this machine, with records of its own; options as for :meth:`run`."""
        path = os.pathsep.join([SOURCE, *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {"PYTHONPATH": path} | options.pop("env", {})
        return self.run([sys.executable, "-m", "vethwork", *arguments], env=environment, **options)

    def start(self, function: Callable[[], Result]) -> Child[Result]:
        """Run a function in a child process that is on this machine; see :class:`vethwork.testing.processes.Child`."""

        def on_it() -> Result:
            libc.setns(self.fd, libc.CLONE_NEWNET)
            os.environ.update(self.environment)
            return function()

        return self._processes.fork(on_it)

    def call(self, function: Callable[[], Result], timeout: float = 30) -> Result:
        """Run a function in a child process that is on this machine, and give what it gives, or raise what it raises.

        Both are pickled. Raises TimeoutError, with the child killed.
        """
        return self.start(function).result(timeout)

    # What it says and hears -------------------------------------------------------------------------------------------

    def ping(self, address: str | Address, timeout: float = 1.0) -> bool:
        """Tell whether an address answers an echo request, before the time is up."""
        return ping(self.inside, Address.parse(str(address)), timeout)

    def serve_http(self, port: int = 0, bind: str = "") -> Server:
        """Answer HTTP with what is seen (see ``servers``); ``bind`` empty is every address, port 0 any free one."""
        return self._serve(TCP, port, bind)

    def serve_udp_echo(self, port: int = 0, bind: str = "") -> Server:
        """Answer datagrams with what is seen."""
        return self._serve(UDP, port, bind)

    def _serve(self, protocol: str, port: int, bind: str) -> Server:
        listener = self.inside(lambda: make_listener(protocol, port, bind))
        this_process = os.pidfd_open(os.getpid())
        try:
            child = self._processes.fork(lambda: serve(listener, protocol, self.name, this_process))
            return Server(listener.getsockname()[1], child)
        finally:
            os.close(this_process)
            listener.close()

    def dial(
        self,
        address: str | Address,
        port: int,
        protocol: str = "tcp",
        *,
        timeout: float = 3.0,
        source: tuple[str, int] | None = None,
    ) -> Dialog:
        """Connect to a server, from a ``source`` address and port if it matters. Raises OSError (TimeoutError)."""
        kind = socket.AF_INET6 if ":" in str(address) else socket.AF_INET
        dialing = self.inside(lambda: socket.socket(kind, KINDS[protocol]))
        try:
            dialing.settimeout(timeout)
            if source is not None:
                dialing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                dialing.bind(source)
            dialing.connect((str(address), port))
        except BaseException:
            dialing.close()
            raise
        return Dialog(dialing, protocol)

    def connect(
        self,
        address: str | Address,
        port: int,
        protocol: str = "tcp",
        *,
        timeout: float = 3.0,
        source: tuple[str, int] | None = None,
    ) -> Seen:
        """Ask a lab's server one question, and give what it saw. Raises OSError (TimeoutError, ConnectionRefusedError)."""
        with self.dial(address, port, protocol, timeout=timeout, source=source) as dialog:
            return dialog.ask()

    def reaches(
        self, address: str | Address, port: int, protocol: str = "tcp", *, timeout: float = 1.0
    ) -> bool:
        """Tell whether a lab's server answers there, before the time is up."""
        try:
            self.connect(address, port, protocol, timeout=timeout)
        except OSError:
            return False
        return True

    def fetch(self, url: str, timeout: float = 3.0) -> Response:
        """Get what is at ``http://ADDRESS[:PORT]/PATH``. Raises OSError."""
        parts = urlsplit(url)
        with self.dial(parts.hostname or "", parts.port or 80, timeout=timeout) as dialog:
            return dialog.get(parts.path or "/")

    def tap(self, ifname: str = "eth0", *, outgoing: bool = False) -> Wiretap:
        """Listen to the frames of an interface, and put frames on it."""
        return self.inside(lambda: Wiretap(ifname, outgoing=outgoing))
