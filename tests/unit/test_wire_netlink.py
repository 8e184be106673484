"""Netlink's frames and attributes: what is packed is read back, what is cut short or garbage is a ValueError and no more."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from contextlib import suppress
from struct import pack
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vethwork.wire
from vethwork.wire.netlink import (
    NLA_F_NESTED,
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLM_F_REQUEST,
    NLMSGERR_ATTR_MSG,
    Message,
    attribute,
    attributes,
    be16,
    be32,
    each_attribute,
    frame,
    nested,
    parse_error,
    split,
    string,
    u8,
    u32,
)

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = st.integers(1, 0x3FFF)
PAYLOADS = st.binary(max_size=40)
MESSAGES = st.builds(Message, st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), PAYLOADS)


@given(st.lists(st.tuples(KINDS, PAYLOADS), max_size=6))
def test_attributes_are_read_back_in_order(pairs: list[tuple[int, bytes]]) -> None:
    packed = [attribute(kind, payload) for kind, payload in pairs]
    assert all(len(each) % 4 == 0 for each in packed)
    body = b"".join(packed)
    assert list(each_attribute(body)) == pairs
    assert list(each_attribute(b"head" + body, 4)) == pairs
    assert attributes(body) == dict(pairs)
    assert list(each_attribute(attributes(nested(7, *packed))[7])) == pairs


def test_of_several_alike_the_last_counts() -> None:
    assert attributes(u32(1, 2) + u32(1, 3)) == {1: pack("=I", 3)}


def test_numbers_and_text_are_packed_as_the_kernel_wants_them() -> None:
    assert u8(5, 255) == pack("=HHBxxx", 5, 5, 255)
    assert u32(5, 0xDEADBEEF) == pack("=HHI", 8, 5, 0xDEADBEEF)
    assert be16(5, 0x1234) == pack("=HH", 6, 5) + b"\x12\x34\0\0"
    assert be32(5, 0x12345678) == pack("=HH", 8, 5) + b"\x12\x34\x56\x78"
    assert string(5, "lo") == pack("=HH", 7, 5) + b"lo\0\0"
    assert string(5, "eth") == pack("=HH", 8, 5) + b"eth\0"
    assert nested(5) == pack("=HH", 4, 5 | NLA_F_NESTED)


@given(st.lists(st.tuples(KINDS, PAYLOADS), min_size=1, max_size=3), st.integers(1, 40))
def test_attributes_that_are_cut_short_are_refused(pairs: list[tuple[int, bytes]], cut: int) -> None:
    whole = b"".join(attribute(kind, payload) for kind, payload in pairs)
    body = whole[: max(0, len(whole) - cut)]
    with suppress(ValueError):
        assert dict(pairs).items() >= attributes(body).items() or len(pairs) > len(dict(pairs))


@pytest.mark.parametrize("length", [0, 1, 3, 9, 0xFFFF])
def test_an_attribute_does_not_reach_beyond_its_message(length: int) -> None:
    with pytest.raises(ValueError, match=f"netlink attribute of {length} bytes in 8"):
        attributes(pack("=HHI", length, 1, 0))


@given(st.lists(MESSAGES, max_size=4), st.booleans())
def test_messages_are_framed_and_split(messages: list[Message], acknowledge: bool) -> None:
    frames = [frame(message, number, acknowledge=acknowledge) for number, message in enumerate(messages)]
    packet = b"".join(each + bytes(-len(each) % 4) for each in frames)
    found = list(split(packet))
    assert [(kind, sequence, body) for kind, _, sequence, body in found] == [
        (message.type, number, message.body) for number, message in enumerate(messages)
    ]
    for message, (_, flags, _, _) in zip(messages, found, strict=True):
        assert flags == message.flags | NLM_F_REQUEST | (NLM_F_ACK if acknowledge else 0)


@given(MESSAGES, st.integers(1, 60))
def test_a_message_that_is_cut_short_is_refused(message: Message, cut: int) -> None:
    whole = frame(message, 1, acknowledge=True)
    packet = whole[: max(0, len(whole) - cut)]
    if packet:
        with pytest.raises(ValueError, match=r"netlink (message|header) of"):
            list(split(packet))
    else:
        assert not list(split(packet))


@pytest.mark.parametrize("length", [0, 15, 21, 0xFFFFFFFF])
def test_a_message_does_not_reach_beyond_its_datagram(length: int) -> None:
    with pytest.raises(ValueError, match=f"netlink message of {length} bytes in 20"):
        list(split(pack("=IHHIII", length, 2, 0, 0, 0, 0)))


# Errors --------------------------------------------------------------------------------------------------------------


def told(code: int, flags: int, request: bytes, text: str) -> tuple[bytes, int]:
    """An NLMSG_ERROR as the kernel makes it (netlink_ack in net/netlink/af_netlink.c), and its flags."""
    echoed = request[:16] if flags & NLM_F_CAPPED else request + bytes(-len(request) % 4)
    return pack("=i", code) + echoed + string(NLMSGERR_ATTR_MSG, text), flags | NLM_F_ACK_TLVS


@given(MESSAGES, st.integers(1, 4095), st.sampled_from([0, NLM_F_CAPPED]), st.text("abc é", max_size=9))
def test_the_kernels_explanation_is_found_behind_the_request(
    message: Message, errno: int, flags: int, text: str
) -> None:
    assert parse_error(*told(-errno, flags, frame(message, 7, acknowledge=True), text)) == (errno, text)


def test_an_acknowledgement_is_no_error() -> None:
    assert parse_error(pack("=iIHHII", 0, 16, 16, 0, 1, 0), NLM_F_CAPPED) == (0, "")
    assert parse_error(pack("=iIHHII", 0, 16, 16, 0, 1, 0), NLM_F_CAPPED | NLM_F_ACK_TLVS) == (0, "")


@pytest.mark.parametrize("length", range(8))
def test_an_error_that_is_cut_short_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="cut short"):
        parse_error(bytes(length), 0)


@given(PAYLOADS, st.integers(0, 0xFFFF))
def test_a_garbled_error_is_read_or_refused(body: bytes, flags: int) -> None:
    with suppress(ValueError):
        parse_error(body, flags)


# Garbage -------------------------------------------------------------------------------------------------------------


def readers() -> list[Callable[[bytes], object]]:
    """Every function of the wire package that reads the body of a message and takes nothing else."""
    found: list[Callable[[bytes], object]] = []
    for entry in pkgutil.iter_modules(vethwork.wire.__path__, "vethwork.wire."):
        module = importlib.import_module(entry.name)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            needed = [
                each.annotation
                for each in inspect.signature(function).parameters.values()
                if each.default is inspect.Parameter.empty
            ]
            if function.__module__ == entry.name and name.startswith("parse_") and needed == ["bytes"]:
                found.append(function)
    return found


@pytest.mark.parametrize("reader", readers(), ids=lambda reader: reader.__name__)
def test_garbage_is_read_or_refused(reader: Callable[[bytes], object]) -> None:
    trees = st.recursive(
        st.builds(attribute, st.integers(0, 30), PAYLOADS),
        lambda inner: st.builds(
            lambda kind, parts: nested(kind, *parts), st.integers(0, 30), st.lists(inner, max_size=4)
        ),
        max_leaves=12,
    )
    bodies = st.builds(lambda head, parts: head + b"".join(parts), PAYLOADS, st.lists(trees, max_size=6))

    @settings(max_examples=40)
    @given(st.binary(max_size=120) | bodies)
    def read(body: bytes) -> None:
        with suppress(ValueError):
            reader(body)

    read()


def test_there_are_readers() -> None:
    assert {"parse_link", "parse_address", "parse_route", "parse_flow"} <= {
        each.__name__ for each in readers()
    }
