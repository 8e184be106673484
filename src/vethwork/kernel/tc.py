"""Shaping, at the door of the host: see ``model.traffic`` for why it is done so."""

from __future__ import annotations

from errno import ENOENT, EOPNOTSUPP

from vethwork.errors import KernelRefused
from vethwork.model.shaping import CreateIfb, DivertIngress
from vethwork.wire import rtnetlink, tc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vethwork.kernel.rtnl import RouteDoor
    from vethwork.model.shaping import ShapeLink
    from vethwork.wire.netlink import Message


def do_step(door: RouteDoor, step: CreateIfb | DivertIngress | ShapeLink) -> None:
    """Do one of the three. Raises KernelRefused."""
    if isinstance(step, CreateIfb):
        _create_ifb(door, step)
    elif isinstance(step, DivertIngress):
        _divert_ingress(door, step)
    else:
        _shape_link(door, step)


def _create_ifb(door: RouteDoor, step: CreateIfb) -> None:
    _ask(door, rtnetlink.new_ifb(step.ifname, step.mtu), f"create ifb {step.ifname}", "CONFIG_IFB")


def _divert_ingress(door: RouteDoor, step: DivertIngress) -> None:
    index, to = door.index(step.ifname), door.index(step.ifb)
    doing = f"lead what enters {step.ifname} over {step.ifb}"
    _ask(door, tc.ingress_qdisc(index), doing, "CONFIG_NET_SCH_INGRESS")
    _ask(door, tc.redirect_filter(index, to), doing, "CONFIG_NET_CLS_U32 and CONFIG_NET_ACT_MIRRED")


def _shape_link(door: RouteDoor, step: ShapeLink) -> None:
    message = tc.token_bucket(door.index(step.ifname), step.rate)
    _ask(door, message, f"limit {step.ifname} to {step.rate.bits} bits a second", "CONFIG_NET_SCH_TBF")


def _ask(door: RouteDoor, message: Message, doing: str, option: str) -> None:
    """Do it at once; what the kernel was built without is told by the name of the option."""
    door.flush()
    try:
        door.queue(message, doing)
        door.flush()
    except KernelRefused as refused:
        hint = f"the kernel needs {option}" if refused.errno in (ENOENT, EOPNOTSUPP) else ""
        raise KernelRefused(doing, refused.errno, refused.extack, hint=hint) from refused
