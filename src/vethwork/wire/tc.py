"""Queueing disciplines and filters as rtnetlink spells them, as few as shaping needs.

Sources: include/uapi/linux/{rtnetlink,pkt_sched,pkt_cls,if_ether}.h, tc_act/tc_mirred.h; net/sched/{sch_tbf,cls_u32}.c.
"""

from __future__ import annotations

from struct import Struct

from vethwork.model.shaping import Rate
from vethwork.wire.netlink import NLM_F_CREATE, NLM_F_EXCL, Message, attribute, nested, string, u32

RTM_NEWQDISC, RTM_NEWTFILTER = 36, 44
TC_H_ROOT, TC_H_INGRESS = 0xFFFFFFFF, 0xFFFFFFF1
TCA_KIND, TCA_OPTIONS = 1, 2
TCA_TBF_PARMS, TCA_TBF_RATE64, TCA_TBF_BURST = 1, 4, 6
TC_LINKLAYER_ETHERNET = 1
TCA_U32_SEL, TCA_U32_ACT, TC_U32_TERMINAL = 5, 7, 1
TCA_ACT_KIND, TCA_ACT_OPTIONS, TCA_MIRRED_PARMS = 1, 2, 2
TCA_EGRESS_REDIR, TC_ACT_STOLEN = 1, 4
ETH_P_ALL = 0x0003

_TCMSG = Struct("=BxxxiIII")  # struct tcmsg: family, link index, handle, parent, info
_RATESPEC = Struct(
    "=BBHhHI"
)  # struct tc_ratespec: cell log, link layer, overhead, cell align, mpu, bytes a second
_TBF = Struct("=III")  # the rest of struct tc_tbf_qopt, after two ratespecs: limit, buffer, mtu
_SELECTOR = Struct(
    ">BBBxHHhhI"
)  # struct tc_u32_sel, in network order where it matters: all of it is 0 but flags and keys
_KEY = Struct("=IIii")  # struct tc_u32_key: mask, value, offset, offset mask
_MIRRED = Struct("=IIiiiiI")  # struct tc_mirred: index, capab, action, refcnt, bindcnt, eaction, link index


def ingress_qdisc(index: int) -> Message:
    """The place where filters see what enters a link."""
    body = _TCMSG.pack(0, index, 0xFFFF0000, TC_H_INGRESS, 0) + string(TCA_KIND, "ingress")
    return Message(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, body)


def redirect_filter(index: int, to: int) -> Message:
    """A filter that matches everything, and sends it to another link."""
    info = 1 << 16 | int.from_bytes(
        ETH_P_ALL.to_bytes(2, "big"), "little"
    )  # preference, protocol in network order
    mirred = _MIRRED.pack(0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, to)
    action = string(TCA_ACT_KIND, "mirred") + nested(TCA_ACT_OPTIONS, attribute(TCA_MIRRED_PARMS, mirred))
    selector = _SELECTOR.pack(TC_U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0) + _KEY.pack(0, 0, 0, 0)
    options = attribute(TCA_U32_SEL, selector) + nested(TCA_U32_ACT, nested(1, action))
    body = _TCMSG.pack(0, index, 0, 0xFFFF0000, info) + string(TCA_KIND, "u32") + nested(TCA_OPTIONS, options)
    return Message(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, body)


def token_bucket(index: int, rate: Rate) -> Message:
    """A token bucket at a link's root. Rates of 32 Gbit/s and more need the 64-bit attribute."""
    size = rate.bits // 8
    spec = _RATESPEC.pack(0, TC_LINKLAYER_ETHERNET, 0, 0, 0, min(size, 0xFFFFFFFF))
    options = attribute(TCA_TBF_PARMS, spec + bytes(_RATESPEC.size) + _TBF.pack(rate.limit, 0, 0))
    options += u32(TCA_TBF_BURST, rate.burst)
    if size > 0xFFFFFFFF:
        options += attribute(TCA_TBF_RATE64, _U64.pack(size))
    body = (
        _TCMSG.pack(0, index, 0x10000, TC_H_ROOT, 0) + string(TCA_KIND, "tbf") + nested(TCA_OPTIONS, options)
    )
    return Message(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, body)


_U64 = Struct("=Q")
