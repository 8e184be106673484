"""Frames by hand: what is built reads back, and is what the RFCs' own examples say. The kernel's word: test_lab.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vethwork.testing import frames

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

ALICE, BOB = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
PAIRS = [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")]


def sent(payload: frames.Payload) -> frames.Frame:
    return frames.parse(frames.ethernet(BOB, ALICE, payload))


def test_the_checksum_of_rfc_1071() -> None:
    """Section 3: the sum of these eight bytes is ddf2."""
    assert frames.checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2 ^ 0xFFFF


@given(st.binary(max_size=64).filter(lambda data: len(data) % 2 == 0))
def test_what_carries_its_checksum_sums_to_nothing(data: bytes) -> None:
    assert frames.checksum(data + frames.checksum(data).to_bytes(2, "big")) == 0


@pytest.mark.parametrize(("source", "to"), PAIRS)
def test_a_datagram_reads_back(source: str, to: str) -> None:
    frame = sent(frames.udp(source, 1111, to, 2222, b"hello"))
    assert (frame.source_mac, frame.to_mac) == (ALICE, BOB)
    assert (frame.protocol, frame.source, frame.to) == ("udp", source, to)
    assert (frame.source_port, frame.to_port, frame.data) == (1111, 2222, b"hello")


@pytest.mark.parametrize(("source", "to"), PAIRS)
def test_a_segment_reads_back(source: str, to: str) -> None:
    frame = sent(frames.tcp_syn(source, 1111, to, 80))
    assert (frame.protocol, frame.source_port, frame.to_port, frame.data) == ("tcp", 1111, 80, b"")


@pytest.mark.parametrize(("source", "to"), PAIRS)
def test_an_echo_request_reads_back(source: str, to: str) -> None:
    frame = sent(frames.ping(source, to, data=b"again"))
    assert frame.protocol == ("icmpv6" if ":" in to else "icmp")
    assert (frame.source_port, frame.data) == (128 if ":" in to else 8, b"again")


def test_arp_reads_back() -> None:
    frame = sent(frames.arp_reply(ALICE, "192.0.2.1", BOB, "192.0.2.2"))
    assert (frame.protocol, frame.source_port, frame.source, frame.to) == ("arp", 2, "192.0.2.1", "192.0.2.2")


def test_a_frame_is_padded_to_what_ethernet_wants() -> None:
    assert len(frames.ethernet(BOB, ALICE, frames.Payload(0x88B5, b"x"))) == 60


@given(st.binary(max_size=80))
def test_anything_can_be_parsed(raw: bytes) -> None:
    assert frames.parse(raw).raw == raw


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6), st.binary(max_size=40))
def test_a_header_has_the_length_of_what_it_carries(address: IPv4Address | IPv6Address, data: bytes) -> None:
    frame = sent(frames.ip(str(address), str(address), 250, data))
    assert (frame.protocol, frame.to, frame.data) == ("250", frame.source, data)
