"""Attribute values of every kind."""

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from enricher.otlp import attributes as otlp
from tests.support.build import a_value, key_values

VALUES = [None, True, False, 0, -7, 1.5, "", "text", b"", b"\xff", [], [1, "a", [None]], {}, {"a": {"b": [True]}}]


@pytest.mark.parametrize("value", [value for value in VALUES if not isinstance(value, bytes)])
def test_plain_values_are_what_json_would_hold(value):
    assert otlp.plain(a_value(value)) == value
    assert type(otlp.plain(a_value(value))) is type(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text", "text"),
        ("", ""),
        (b"bytes", "bytes"),
        (b"\xff", None),
        (5, None),
        (None, None),
        (["text"], None),
        (True, None),
    ],
)
def test_text_is_a_string_or_bytes_that_are_utf_8(value, text):
    assert otlp.text(a_value(value)) == text


def test_plain_bytes_are_text_or_nothing():
    assert otlp.plain(a_value([b"text", b"\xff"])) == ["text", None]


@pytest.mark.parametrize(
    ("value", "scalar"),
    [
        ("text", "text"),
        ("", None),
        (0, 0),
        (-1, -1),
        (True, None),
        (1.0, None),
        (b"text", None),
        ([1], None),
        (None, None),
    ],
)
def test_a_scalar_is_a_text_that_says_something_or_an_integer(value, scalar):
    assert otlp.scalar(a_value(value)) == scalar


def test_a7_values_below_the_depth_that_is_read_are_none():
    value = a_value("deep")
    for _ in range(otlp.MAX_DEPTH + 5):
        outer = AnyValue()
        outer.array_value.values.append(value)
        value = outer
    found = otlp.plain(value)
    for _ in range(otlp.MAX_DEPTH):
        (found,) = found

    assert found is None


def test_a7_text_at_the_last_level_is_read():
    value = a_value("deep")
    for _ in range(otlp.MAX_DEPTH):
        outer = AnyValue()
        outer.kvlist_value.values.add(key="k").value.CopyFrom(value)
        value = outer
    found = otlp.plain(value)
    for _ in range(otlp.MAX_DEPTH):
        found = found["k"]

    assert found == "deep"


def test_a21_the_first_value_of_a_key_counts():
    found = otlp.first_values(key_values([("k", 1), ("other", 2), ("k", 3)]))

    assert {key: value.int_value for key, value in found.items()} == {"k": 1, "other": 2}


def test_a22_attributes_beyond_the_limit_are_not_looked_at():
    found = otlp.first_values(key_values([(f"k{n}", n) for n in range(otlp.MAX_ATTRIBUTES + 5)]))

    assert len(found) == otlp.MAX_ATTRIBUTES


def test_reading_attributes_keeps_their_order_and_gives_texts_as_they_are():
    found = otlp.read(key_values([("k", "text"), ("n", 1), ("k", b"bytes")]))

    assert [(key, value.WhichOneof("value"), text) for key, value, text in found] == [
        ("k", "string_value", "text"),
        ("n", "int_value", ""),
        ("k", "bytes_value", ""),
    ]
    assert len(otlp.read(key_values([("k", 1)] * (otlp.MAX_ATTRIBUTES + 5)))) == otlp.MAX_ATTRIBUTES


@pytest.mark.parametrize("other", [" answer", "answer\n", "\t answer \r\n"])
def test_blanks_at_the_ends_do_not_change_a_digest(other):
    assert otlp.digest(other) == otlp.digest("answer")


@pytest.mark.parametrize("other", ["", "Answer", "an swer", "answer.", "\ud800"])
def test_other_texts_have_other_digests(other):
    assert otlp.digest(other) != otlp.digest("answer")
    assert len(otlp.digest(other)) == 16
