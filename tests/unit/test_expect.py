"""Differences between what came out and what was expected, in words."""

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from enricher.errors import BadRequestError
from enricher.expect import MAX_SHOWN, differences
from enricher.otlp import json, shallow
from enricher.otlp.shallow import Signal
from tests.support.build import a_log_record, a_request, a_span, span_id, trace_id

NAME = f"span {span_id(5).hex()} 'GET' of trace {trace_id().hex()}"


def span(attributes=(), **where):
    return a_span("GET", attributes, **({"number": 5} | where))


def between(expected, actual):
    """Return the differences of two lists, each of items that make one request or of a signal and bytes."""
    return list(differences(map(request, expected), map(request, actual)))


def request(what):
    if isinstance(what, tuple):
        return what
    items = what if isinstance(what, list) else [what]
    return (Signal.TRACES if isinstance(items[0].message, Span) else Signal.LOGS), a_request(items)


def test_the_same_telemetry_has_no_differences():
    items = [[span({"a": 1}), span(number=6)], a_log_record("x"), (Signal.METRICS, b"\x0a\x00")]

    assert between(items, items) == []
    assert between([], []) == []


def test_in_which_request_and_at_which_place_a_span_left_does_not_matter():
    first, second, third = (span(number=n) for n in (5, 6, 7))

    assert between([[first, second], third], [third, [second], first]) == []


@pytest.mark.parametrize(
    ("want", "have", "said"),
    [
        ({"a": 1}, {"a": 2}, "attribute a: expected 1, found 2"),
        ({"a": 1}, {}, "attribute a: expected 1, found none"),
        ({}, {"a": "x"}, "attribute a: expected none, found 'x'"),
        ({"a": 1}, {"a": "1"}, "attribute a: expected 1, found '1'"),
        ({"a": 1}, {"a": 1.0}, "attribute a: expected 1, found 1.0"),
        ({"a": True}, {"a": 1}, "attribute a: expected True, found 1"),
        ({"a": ["x"]}, {"a": ["y"]}, "attribute a: expected ['x'], found ['y']"),
        ([("a", 1), ("a", 2)], [("a", 1)], "attribute a: expected 1 and 2, found 1"),
        ([("a", 1), ("a", 2)], [("a", 2), ("a", 1)], "attribute a: expected 1 and 2, found 2 and 1"),
        ({"a": "x" * 100}, {}, f"attribute a: expected '{'x' * (MAX_SHOWN - 1)}…, found none"),
        (
            {"a": "x" * 100 + "1" + "y" * 100},
            {"a": "x" * 100 + "2"},
            f"attribute a: expected …{'x' * 30}1{'y' * 29}…, found …{'x' * 30}2'",
        ),
    ],
)
def test_an_attribute_that_differs_is_said(want, have, said):
    assert between([span(want)], [span(have)]) == [f"{NAME}: {said}"]


def test_the_order_of_different_keys_does_not_matter():
    assert between([span([("a", 1), ("b", 2)])], [span([("b", 2), ("a", 1)])]) == []


def test_every_difference_of_a_span_is_said():
    want, have = span({"a": 1, "b": 2}, start=1, end=2), span({"b": 3, "c": 4}, start=1, end=3)

    assert between([want], [have]) == [
        f"{NAME}: attribute a: expected 1, found none",
        f"{NAME}: attribute b: expected 2, found 3",
        f"{NAME}: attribute c: expected none, found 4",
        f"{NAME}: end_time_unix_nano differs",
    ]


def test_spans_that_are_missing_or_too_many_are_said():
    assert between([span()], []) == [f"{NAME}: expected one, found none"]
    assert between([], [span()]) == [f"{NAME}: not expected"]
    assert between([span(), span()], [span()]) == [f"{NAME}: expected 2, found one"]
    assert between([span()], [span(), span(), span()]) == [f"{NAME}: expected one, found 3"]


def test_the_same_span_of_another_trace_is_another_span():
    assert len(between([span()], [span(trace=2)])) == 2


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (span(service="other"), "the resource differs"),
        (span(scope=("other", "")), "the scope differs"),
    ],
)
def test_what_stands_above_a_span_matters(other, said):
    assert between([span()], [other]) == [f"{NAME}: {said}"]


@pytest.mark.parametrize(
    ("level", "said"), [("resource", "the resource schema URL differs"), ("scope", "the schema URL differs")]
)
def test_schema_urls_matter(level, said):
    parsed = shallow.parse(a_request([span()]))
    (parsed.resourced[0] if level == "resource" else parsed.resourced[0].scoped[0]).schema_url[:] = [
        b"https://example.org"
    ]

    assert between([span()], [(Signal.TRACES, parsed.SerializeToString())]) == [f"{NAME}: {said}"]


def test_messages_whose_fields_come_in_another_order_are_equal():
    """The way through JSON writes them in the schema's order."""
    parsed = shallow.parse(a_request([span({"a": 1})]))
    above, scoped = parsed.resourced[0], parsed.resourced[0].scoped[0]
    above.resource[0] = b"\x10\x00" + above.resource[0]
    scoped.scope[0] = b"\x12\x060.60b0" + scoped.scope[0][: -len(b"\x12\x060.60b0")]
    scoped.items[0] = b"\x2a\x03GET" + bytes(scoped.items[0]).replace(b"\x2a\x03GET", b"")
    shuffled = parsed.SerializeToString()
    assert shuffled != a_request([span({"a": 1})])

    assert between([(Signal.TRACES, shuffled)], [span({"a": 1})]) == []
    assert between([json.decode(json.encode(Signal.TRACES, shuffled), None)], [span({"a": 1})]) == []


@pytest.mark.parametrize(("level", "said"), [("resource", "the resource differs"), ("scope", "the scope differs")])
def test_f38_what_stands_above_and_cannot_be_decoded_is_compared_by_its_bytes(level, said):
    def broken(with_bytes):
        parsed = shallow.parse(a_request([span()]))
        if level == "resource":
            parsed.resourced[0].resource[:] = [with_bytes]
        else:
            parsed.resourced[0].scoped[0].scope[:] = [with_bytes]
        return Signal.TRACES, parsed.SerializeToString()

    assert between([broken(b"\x0a\xff")], [broken(b"\x0a\xff")]) == []
    assert between([broken(b"\x0a\xff")], [broken(b"\x0a\xfe")]) == [f"{NAME}: {said}"]
    assert between([broken(b"\x0a\xff")], [span()]) == [f"{NAME}: {said}"]


def test_log_records_are_compared_by_their_bytes():
    one, two = a_log_record("one"), a_log_record("two")

    assert between([one, two], [[two, one]]) == []
    assert between([[one, one]], [one]) == ["1 log records expected and not found as they were"]
    assert between([one], [two]) == ["1 log records expected and not found as they were", "1 log records not expected"]


def test_metrics_are_compared_as_whole_requests():
    assert between([(Signal.METRICS, b"a")], [(Signal.METRICS, b"b"), (Signal.METRICS, b"b")]) == [
        "1 metrics requests expected and not found as they were",
        "2 metrics requests not expected",
    ]


def test_f38_spans_that_cannot_be_decoded_are_compared_by_their_bytes():
    def bad(name):
        parsed = shallow.parse(a_request([span()]))
        parsed.resourced[0].scoped[0].items[0] = b"\x2a\x02\xff" + name
        return Signal.TRACES, parsed.SerializeToString()

    assert between([bad(b"a")], [bad(b"a")]) == []
    assert between([bad(b"a")], [bad(b"b")]) == [
        "1 spans that cannot be decoded expected and not found as they were",
        "1 spans that cannot be decoded not expected",
    ]


def test_f39_bytes_that_are_not_a_request_are_refused():
    with pytest.raises(BadRequestError):
        between([(Signal.TRACES, b"\x0a\x05ab")], [])


def test_unknown_fields_of_a_span_do_not_matter():
    """Expectations are often written as JSON, which has no place for them."""
    item = span()
    parsed = shallow.parse(a_request([item]))
    parsed.resourced[0].scoped[0].items[0] = item.raw + b"\xfa\x06\x05hello"

    assert between([item], [(Signal.TRACES, parsed.SerializeToString())]) == []
