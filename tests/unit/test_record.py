"""Records: equal only to their own kind, never changed, written down and read back."""

from __future__ import annotations

import copy
import json
import pickle
import re
import subprocess
import sys
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.law.source import SOURCE
from tests.unit.strategies import field_types, model_records, records
from vethwork.model.address import Address, Interface, Prefix
from vethwork.model.container import Container
from vethwork.model.record import Record
from vethwork.model.serialize import parse_json, parse_record, spell_json, spell_record

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
        text = spell_record(record)
        assert json.loads(text).keys() == {kind.__name__}
        for back in (parse_record(text), pickle.loads(pickle.dumps(record))):
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
    with pytest.raises(ValueError, match=r"not a |is not a number"):
        parse_record(text)


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
        back = parse_record(json.dumps(data))
    except ValueError:
        return
    assert json.loads(spell_record(back)) == data


@given(JSON | st.dictionaries(st.text(max_size=4), JSON, max_size=3))
def test_documents_are_read_and_spelled_as_json_does(document: object) -> None:
    text = json.dumps(document)
    assert spell_json(document) == text
    if "NaN" in text or "Infinity" in text:
        with pytest.raises(ValueError, match="is not a number"):
            parse_json(text)
    else:
        assert parse_json(text) == json.loads(text) == parse_json(f" \n{json.dumps(document, indent=2)}\t\r")


BROKEN = [
    "",
    " ",
    "{",
    "[1",
    '{"a"',
    '{"a":',
    '{"a":1',
    '{"a":1,}',
    "[1,]",
    "[1] 2",
    "nul",
    '"',
    '"\\x"',
    '"\n"',
    "01",
    "\xa0[]",
]


@given(st.sampled_from(BROKEN) | st.text(alphabet='{}[]",:1.e-+ntrue\\u00 ', max_size=9))
def test_what_json_refuses_is_refused_in_its_words(text: str) -> None:
    """The C half, asked alone, fails in ways of its own: StopIteration, or SystemError where ``json`` was never loaded."""
    try:
        read = json.loads(text)
    except ValueError as error:
        with pytest.raises(ValueError, match=re.escape(str(error))):
            parse_json(text)
    else:
        assert parse_json(text) == read


def test_a_broken_text_is_refused_where_json_was_never_loaded() -> None:
    asks = """if True:
        import sys
        sys.path.insert(0, sys.argv[1])
        from vethwork.model.serialize import parse_json
        assert "json" not in sys.modules and "re" not in sys.modules
        for text in ("[1", "", "{", "[1] 2"):
            try:
                parse_json(text)
            except ValueError:
                continue
            raise SystemExit(f"read {text!r}")
    """
    command = [sys.executable, "-I", "-S", "-c", asks, str(SOURCE)]
    subprocess.run(command, check=True, timeout=30)


def test_what_has_no_json_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="set has no JSON"):
        spell_json({"a": {1}})
    with pytest.raises(RecursionError):
        parse_json("[" * 100_000)


def test_a_container_that_an_older_vethwork_recorded_is_read_with_what_it_did_not_know_yet() -> None:
    """An upgrade in between loses no container: fields are added at the end, with a default."""
    old = {"Container": ["5" * 32, "web", "blue", "/proc/7/ns/net", False, "cni", False]}
    read = parse_record(json.dumps(old))
    assert isinstance(read, Container)
    assert (read.owner, read.handed, read.netns_cookie) == ("cni", False, 0)
