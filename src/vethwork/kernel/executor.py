"""The one door to the kernel: a step goes in, the machine changes or KernelRefused comes out.

Rules: a :class:`Kernel` stands in the namespace of the thread that made it, which is *the host*; it holds one socket for
each namespace it was sent to and closes them all. :meth:`Kernel.apply` does steps in order. Which function does
which step is a table.
"""

from __future__ import annotations

import os

from vethwork.errors import VethworkError
from vethwork.kernel import sysctl
from vethwork.kernel.netlink import new_buffer
from vethwork.kernel.netns import NetnsGone, cookie_of, inside, open_netns, pin, unpin
from vethwork.kernel.nft import NftSocket, RulesetMissing
from vethwork.kernel.rtnl import RouteDoor
from vethwork.model import steps as do
from vethwork.model.shaping import CreateIfb, DivertIngress, ShapeLink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, Self

    from vethwork.model.address import Address
    from vethwork.model.ruleset import Landmark
    from vethwork.model.steps import Step


class Kernel:
    """The kernel as seen from one host namespace. A context manager; not for use by two threads at once.

    ``owner_path`` is where the owner of our tables is found, if they have one (``kernel.ownership``).
    """

    def __init__(self, owner_path: str = "") -> None:
        self._owner_path = owner_path
        self._fds: dict[str, int] = {}
        self._doors: dict[str, RouteDoor] = {}
        self._buffer = new_buffer()
        self._nft: NftSocket | None = None
        self._waiting: RouteDoor | None = None
        self._host = -1
        self.mend: Callable[[], None] | None = None
        """Called when the ruleset turns out to be missing; then the change is tried again."""
        self.landmarks: tuple[Landmark, ...] = ()
        """Of the tables that must not have been flushed before something is opened."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every socket and namespace."""
        self.leave_namespaces()
        for door in self._doors.values():
            door.close()
        for fd in self._fds.values():
            os.close(fd)
        if self._nft is not None:
            self._nft.close()
        self._fds, self._doors, self._nft = {}, {}, None

    def leave_namespaces(self) -> None:
        """Close all but the host's: a namespace lives while it is open, and a path may mean another one tomorrow."""
        self._waiting = None
        for netns in [path for path in self._doors if path]:
            self._doors.pop(netns).close()
        for netns in [path for path in self._fds if path]:
            os.close(self._fds.pop(netns))

    def unpin(self, path: str) -> None:
        """Unpin a namespace and close it: whoever pins at that path again means the new one. Raises KernelRefused."""
        self.flush()
        self._waiting = None
        if path in self._doors:
            self._doors.pop(path).close()
        if path in self._fds:
            os.close(self._fds.pop(path))
        unpin(path)

    def netns_fd(self, netns: str) -> int:
        """The namespace at a path, opened once; empty is the host's. Raises RequestError."""
        if netns not in self._fds:
            self._fds[netns] = open_netns(netns)
        return self._fds[netns]

    @property
    def host(self) -> int:
        """The number of the host's namespace (``netns.cookie_of``); 0 before Linux 5.14."""
        if self._host < 0:
            self._host = cookie_of(self.netns_fd(""))
        return self._host

    def door(self, netns: str) -> RouteDoor:
        """The rtnetlink socket of a namespace; what waits at another door goes out first."""
        if netns not in self._doors:
            fresh = inside(self.netns_fd(netns), self._new_door) if netns else self._new_door()
            self._doors[netns] = fresh
        door = self._doors[netns]
        if self._waiting is not door:
            self.flush()
            self._waiting = door
        return door

    def _new_door(self) -> RouteDoor:
        return RouteDoor(self._buffer)

    def visit(self, netns: str, work: Callable[[], None]) -> None:
        """Do ``work`` inside a namespace. Its door is made on the way: going there twice would cost twice."""

        def there() -> None:
            if netns not in self._doors:
                self._doors[netns] = self._new_door()
            work()

        inside(self.netns_fd(netns), there)

    @property
    def nft(self) -> NftSocket:
        """The nftables socket of the host."""
        if self._nft is None:
            self._nft = NftSocket(self._owner_path)
        return self._nft

    def flush(self) -> None:
        """Send what waits at the door. Raises KernelRefused."""
        if self._waiting is not None:
            self._waiting.flush()

    def apply(self, steps: Iterable[Step], watch: Callable[[Step], None] | None = None) -> None:
        """Do steps in order. Raises KernelRefused at the first that fails; what was done stays done.

        Flows are forgotten last, all at once: one walk through the kernel's table of flows costs as much as many attaches.
        ``watch`` is called after each step, with nothing left waiting: who watches sees every step by itself.
        """
        flows: list[do.ForgetFlows] = []
        links: list[str] = []
        for step in steps:
            if isinstance(step, do.CreateVeth) and step.master:
                links += [step.host_ifname, step.master]
            if watch is None and isinstance(step, do.ForgetFlows):
                flows.append(step)
                continue
            DOERS[type(step)](self, step)
            if watch is not None:
                self.flush()
                watch(step)
        self.flush()
        self.forget(flows)
        if links:
            from vethwork.kernel.linkwatch import settle  # not every plan makes links

            settle(links)

    def forget(self, flows: Sequence[do.ForgetFlows]) -> None:
        """Let the conntrack entries go that were sent to these ports of the host. Raises KernelRefused."""
        local: set[Address] = set()

        def is_local(address: Address) -> bool:
            if not local:
                local.update(self.local_addresses())
            return address in local or address.is_loopback

        if flows:
            from vethwork.kernel.conntrack import (
                forget_all,
            )  # most attaches open a TCP port, and forget nothing

            forget_all(self.nft, flows, is_local)

    def attempt(
        self, steps: Iterable[Step], watch: Callable[[Step], None] | None = None
    ) -> list[VethworkError]:
        """Do every step, whatever becomes of the others; give what failed. Flows are forgotten last, all at once."""
        failed: list[VethworkError] = []
        steps = tuple(steps)
        flows = (
            () if watch is not None else tuple([each for each in steps if isinstance(each, do.ForgetFlows)])
        )
        single = [(step,) for step in steps if watch is not None or not isinstance(step, do.ForgetFlows)]
        for some in (*single, flows):
            try:
                self.apply(some, watch)
            except VethworkError as error:
                failed.append(error)
        return failed

    def retire(self, steps: Sequence[do.DeleteLink], *, down: bool) -> None:
        """Do all of the deletion of links of the host but what takes long; see ``RouteDoor``. Raises KernelRefused."""
        self.door("").retire(steps, down=down)

    def delete_retired(self) -> None:
        """Do what takes long, for all links at once. Raises KernelRefused."""
        self.door("").delete_retired()

    def finds(self, step: do.DeleteLink) -> bool:
        """Tell whether there is a link of that name to delete."""
        try:
            return self.door(step.netns).link(step.ifname) is not None
        except NetnsGone:
            return False

    def local_addresses(self) -> frozenset[Address]:
        """Every address that the host holds."""
        return frozenset(interface.address for _, interface in self.door("").addresses())


def _move_link(kernel: Kernel, step: do.MoveLink) -> None:
    try:
        door = kernel.door(step.netns)
    except NetnsGone:
        return  # the link went with its namespace
    door.move(step, kernel.netns_fd(step.to_netns))


def _delete_link(kernel: Kernel, step: do.DeleteLink) -> None:
    try:
        door = kernel.door(step.netns)
    except NetnsGone:
        return
    door.delete(step)


def _delete_route(kernel: Kernel, step: do.DeleteRoute) -> None:
    try:
        door = kernel.door(step.netns)
    except NetnsGone:
        return
    door.delete_route(step)


def _change_elements(kernel: Kernel, step: do.ChangeElements) -> None:
    kernel.flush()
    try:
        kernel.nft.change(step.deletes, step.adds, kernel.landmarks)
    except RulesetMissing:
        if kernel.mend is None:
            raise
        kernel.mend()  # all that is on record, and so what this step adds
        try:
            kernel.nft.change(step.deletes, step.adds)
        except RulesetMissing:
            return  # it was whole, and was flushed again: no different from a flush when we are done


def _set_sysctl(kernel: Kernel, step: do.SetSysctl) -> None:
    kernel.flush()
    if step.netns:
        kernel.visit(step.netns, lambda: sysctl.ensure(step.path, step.value))
    else:
        sysctl.ensure(step.path, step.value)


def _shape(kernel: Kernel, step: CreateIfb | DivertIngress | ShapeLink) -> None:
    from vethwork.kernel.tc import do_step  # few containers are limited

    do_step(kernel.door(""), step)


DOERS: dict[type[Step], Callable[[Kernel, Any], None]] = {
    do.PinNetns: lambda kernel, step: pin(step.path),
    do.UnpinNetns: lambda kernel, step: kernel.unpin(step.path),
    do.CreateBridge: lambda kernel, step: kernel.door("").create_bridge(step),
    do.CreateVeth: lambda kernel, step: kernel.door("").create_veth(step, kernel.netns_fd(step.netns)),
    do.CreateMacvlan: lambda kernel, step: kernel.door("").create_macvlan(step, kernel.netns_fd(step.netns)),
    do.MoveLink: _move_link,
    do.DeleteLink: _delete_link,
    do.SetLinkUp: lambda kernel, step: kernel.door(step.netns).set_up(step),
    do.SetLink: lambda kernel, step: kernel.door("").set_link(step),
    do.AddAddress: lambda kernel, step: kernel.door(step.netns).add_address(step),
    do.AddRoute: lambda kernel, step: kernel.door(step.netns).add_route(step),
    do.DeleteRoute: _delete_route,
    do.JoinBridge: lambda kernel, step: kernel.door("").join_bridge(step),
    do.HairpinPort: lambda kernel, step: kernel.door("").hairpin(step),
    do.SetSysctl: _set_sysctl,
    CreateIfb: _shape,
    DivertIngress: _shape,
    ShapeLink: _shape,
    do.LoadRuleset: lambda kernel, step: kernel.nft.replace(step.tables, step.elements),
    do.ChangeElements: _change_elements,
    do.ForgetFlows: lambda kernel, step: kernel.forget((step,)),
}
