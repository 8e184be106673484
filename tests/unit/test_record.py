"""Records: equal only to their own kind, never changed, written down and read back."""

from __future__ import annotations

import copy
import json
import pickle
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.strategies import field_types, model_records, records
from vethwork.model.address import Address, Interface, Prefix
from vethwork.model.record import Record, from_data, to_data

KINDS = model_records()


class Pair(Record):
    """Two fields, one with a default."""

    left: int
    right: str = "r"
    _hidden: ClassVar[int] = 0


class Longer(Pair):
    """A third field, and another default."""

    right: str = "R"
    third: tuple[int, ...] = ()


def test_fields_are_given_by_place_or_by_name() -> None:
    assert Pair(1, "r") == Pair(1) == Pair(left=1) == Pair(1, right="r")
    assert Longer(1) == Longer(1, "R", ())


@pytest.mark.parametrize(
    ("args", "named", "why"),
    [
        ((), {}, "Pair needs 'left'"),
        ((1, "r", 3), {}, "Pair takes 2 fields, 3 were given"),
        ((1,), {"wrong": 1, "also": 2}, "Pair has no field also, wrong"),
        ((1,), {"left": 1}, "Pair has no field left"),
        ((1,), {"_hidden": 1}, "Pair has no field _hidden"),
    ],
)
def test_what_does_not_fit_is_refused(args: tuple[int, ...], named: dict[str, int], why: str) -> None:
    with pytest.raises(TypeError, match=why):
        Pair(*args, **named)  # type: ignore[arg-type]


def test_records_of_different_kinds_are_never_equal() -> None:
    address = Address(4, 1)
    assert Prefix(address, 24) != Interface(address, 24)
    assert len({Prefix(address, 24), Interface(address, 24), Prefix(address, 24)}) == 2
    assert Address(4, 1) != (4, 1)
    assert Address(4, 1) != Address(6, 1)


def test_a_record_is_never_changed() -> None:
    pair = Pair(1)
    with pytest.raises(AttributeError, match="Pair is immutable"):
        pair.left = 2  # type: ignore[misc]
    with pytest.raises(AttributeError, match="Pair is immutable"):
        pair.new = 2
    with pytest.raises(AttributeError, match="Pair is immutable"):
        del pair.left
    assert pair == Pair(1)
    assert not hasattr(pair, "__dict__")


def test_replace_gives_a_copy() -> None:
    pair = Pair(1)
    assert pair.replace(left=2) == Pair(2)
    assert pair == Pair(1)
    with pytest.raises(TypeError, match="has no field wrong"):
        pair.replace(wrong=1)


def test_a_record_shows_what_it_holds() -> None:
    assert repr(Longer(1)) == "Longer(left=1, right='R', third=())"


def test_no_two_kinds_have_one_name() -> None:
    names = [kind.__name__ for kind in KINDS]
    assert sorted(set(names)) == names


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_record_is_what_it_was_after_a_journey(kind: type[Record]) -> None:
    @settings(max_examples=15)
    @given(records(kind))
    def travel(record: Record) -> None:
        text = json.dumps(to_data(record))
        for back in (from_data(json.loads(text)), pickle.loads(pickle.dumps(record))):
            assert back == record
            assert type(back) is kind
            assert hash(back) == hash(record)
        assert copy.copy(record) == copy.deepcopy(record) == record.replace() == record
        assert list(field_types(kind)) == list(record._fields)

    travel()


HOSTILE = [
    '{"Nobody": []}',
    '{"Address": []}',
    '{"Address": [4]}',
    '{"Address": [4, 1, 2]}',
    '{"Address": "41"}',
    '{"Address": {"version": 4, "value": 1}}',
    '{"Address": null}',
    '{"Address": 4}',
    '{"Address": [4, 1.5]}',
    '{"Address": [4, {"Nobody": []}]}',
    '{"Address": [4, 1], "Mac": [1]}',
    "{}",
    "[1, [2.0]]",
    "NaN",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a "):
        from_data(json.loads(text))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([kind.__name__ for kind in KINDS]) | st.text(max_size=5), inner, max_size=2
        )
    ),
    max_leaves=10,
)


@given(JSON)
def test_whatever_it_is_it_is_read_or_refused(data: object) -> None:
    try:
        back = from_data(data)
    except ValueError:
        return
    assert to_data(back) == data
