"""ctnetlink's messages: what is packed is read back, what is cut short is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vethwork.model.address import BITS, Address
from vethwork.wire.conntrack import (
    Flow,
    count_flows,
    delete_flow,
    list_all_flows,
    list_flows,
    parse_count,
    parse_destination,
    parse_flow,
)
from vethwork.wire.netlink import attribute, attributes, be32, each_attribute, nested

PORTS = st.integers(0, 0xFFFF)


def flows_of(version: int) -> st.SearchStrategy[Flow]:
    address = st.integers(0, (1 << BITS[version]) - 1).map(lambda value: Address(version, value))
    identity = st.integers(0, 0xFFFFFFFF)
    return st.builds(
        Flow, st.integers(0, 255), address, PORTS, address, PORTS, address, address, identity, PORTS
    )


HOST, CONTAINER = Address.parse("10.0.0.1"), Address.parse("10.0.0.2")
FLOW = Flow(6, CONTAINER, 1, HOST, 2, HOST, CONTAINER, 5)
FLOWS = flows_of(4) | flows_of(6)


def listed(flow: Flow) -> bytes:
    """An entry as the kernel lists it: what a deletion of it says, and the reply tuple."""
    source, destination = {4: (1, 2), 6: (3, 4)}[flow.source.version]
    ip = attribute(source, flow.reply_source.packed) + attribute(destination, flow.reply_destination.packed)
    return delete_flow(flow).body + nested(2, nested(1, ip))


@given(FLOWS)
def test_an_entry_is_read_back(flow: Flow) -> None:
    assert parse_flow(listed(flow)) == flow
    assert parse_destination(listed(flow)) == (flow.protocol, flow.destination_port)


@given(FLOWS, st.data())
def test_an_entry_cut_short_is_a_value_error(flow: Flow, data: st.DataObject) -> None:
    body = listed(flow)
    with pytest.raises(ValueError, match=r"."):
        parse_flow(body[: data.draw(st.integers(0, len(body) - 1))])


@given(st.binary(max_size=100))
def test_noise_is_no_other_error(noise: bytes) -> None:
    for body in (
        noise,
        nested(1, noise) + nested(2, noise),
        nested(1, nested(1, noise)) + nested(2, nested(1, noise)),
    ):
        for parse in (parse_flow, parse_destination, parse_count):
            with suppress(ValueError):
                parse(bytes(4) + body)


def test_a_zone_of_one_direction_is_a_zone() -> None:
    body = listed(FLOW)
    original = attributes(body, 4)[1] + attribute(3, b"\0\x07")
    assert (
        parse_flow(bytes(4) + nested(1, original) + body[4:][len(nested(1, attributes(body, 4)[1])) :]).zone
        == 7
    )


def test_a_deletion_is_never_without_a_tuple() -> None:
    """Without one, ctnetlink deletes every entry there is."""
    assert {1, 12} == attributes(delete_flow(FLOW).body, 4).keys()


def test_a_tuple_without_a_protocol_is_not_an_entry() -> None:
    (tuples,) = [payload for kind, payload in each_attribute(listed(FLOW), 4) if kind == 1]
    address_only = attribute(1, attributes(tuples)[1])
    with pytest.raises(ValueError, match="without protocol"):
        parse_flow(bytes(4) + nested(1, address_only) + listed(FLOW)[4 + len(nested(1, tuples)) :])
    with pytest.raises(ValueError, match="without a tuple"):
        parse_destination(bytes(4))


def test_entries_are_counted() -> None:
    assert count_flows().type == 0x105
    assert parse_count(bytes(4) + be32(1, 70000) + be32(2, 5)) == 70000


def test_a_listing_asks_for_a_protocol_and_perhaps_a_port() -> None:
    message = list_flows(6, 17, 443)
    found = attributes(message.body, 4)
    assert message.body[0] == 10
    assert attributes(attributes(found[1])[2]) == {1: b"\x11", 3: b"\x01\xbb"}
    assert int.from_bytes(attributes(found[25])[1], "little") == 0b101000
    assert list_all_flows().body == bytes(4)
    every = attributes(list_flows(4, 6, None).body, 4)
    assert attributes(attributes(every[1])[2]) == {1: b"\x06"}
    assert int.from_bytes(attributes(every[25])[1], "little") == 0b001000
