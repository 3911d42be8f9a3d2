"""Requests taken apart down to spans, and not further."""

import pytest
from google.protobuf.internal import api_implementation
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from enricher.errors import BadRequestError
from enricher.otlp import shallow
from tests.support.build import a_log_record, a_request, a_span, items_of


def field(number, payload):
    """Return a length-delimited field of fewer than 128 bytes, or of as many as it takes."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def empty_spans(count, resources=1):
    return field(1, field(2, field(2, b"") * count)) * resources


def test_the_fast_protobuf_runtime_is_in_use():
    """Attack A7: the pure Python one recurses and is many times slower."""
    assert api_implementation.Type() == "upb"


def test_a_request_is_the_bytes_that_came_in():
    request = a_request([a_span("a"), a_span("b", service="other"), a_span("c", scope=("s", "1"), service="other")])
    parsed = shallow.parse(request)

    assert parsed.SerializeToString() == request
    assert [len(resourced.scoped) for resourced in parsed.resourced] == [1, 2]


def test_logs_have_the_same_levels():
    records = [a_log_record("a"), a_log_record("b")]
    request = a_request(records)

    assert items_of(request) == [each.raw for each in records]
    assert shallow.parse(request).SerializeToString() == request


def test_items_come_with_what_stands_above_them():
    first, second = a_span("a", service="one"), a_span("b", service="two")
    found = list(shallow.items(shallow.parse(a_request([first, second]))))

    assert [item for _, _, item in found] == [first.raw, second.raw]
    assert [b"one" in resourced.resource[0] for resourced, _, _ in found] == [True, False]
    assert all(b"httpx" in scoped.scope[0] for _, scoped, _ in found)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"",
        field(1, b""),
        field(1, field(1, b"") + field(2, field(1, b"") + field(2, b"") + field(3, b"")) + field(3, b"")),
        field(1, field(2, field(2, b"\xff not a span \xfe"))),
        field(1, field(1, b"\xff") + field(2, field(1, b"\xfe") + field(3, b"\xfd")) + field(3, b"\xfc")),
        field(1, field(2, field(2, b"x")) + field(9, b"unknown")) + field(15, b"unknown"),
    ],
)
def test_srv_08_empty_envelopes_unknown_fields_and_invalid_text_stay_as_they_came(request_bytes):
    assert shallow.parse(request_bytes).SerializeToString() == request_bytes


def test_exchanging_one_item_leaves_the_others_as_they_came():
    items = [a_span("a"), a_span("b"), a_span("c")]
    parsed = shallow.parse(a_request(items))
    parsed.resourced[0].scoped[0].items[1] = b"other"

    assert items_of(parsed.SerializeToString()) == [items[0].raw, b"other", items[2].raw]


@pytest.mark.parametrize("data", [b"\x00", b"\x0a\x05ab", b"\x0a", b"not a request", b"\x0a\x02\x12\x05", b"\xff" * 20])
def test_f39_bytes_that_are_not_a_request_are_refused(data):
    with pytest.raises(BadRequestError, match="not an OTLP export request"):
        shallow.parse(data)


# counting


@pytest.mark.parametrize(
    ("request_bytes", "count"),
    [
        (b"", 0),
        (field(1, b""), 1),
        (empty_spans(0), 2),
        (empty_spans(5), 7),
        (empty_spans(5, resources=3), 21),
        (field(1, field(2, field(2, b"x" * 300) + field(1, b"scope") + field(3, b"url"))), 3),
        (field(1, field(1, field(2, b"in a resource"))), 1),
        (field(9, field(2, field(2, b"unknown"))) + b"\x78\x01" + b"\x79" + b"8bytes!!" + b"\x7d" + b"4byt", 0),
        (a_request([a_span("GET", {"k": "v" * 500}, events=[("e", {}, 0)]) for _ in range(4)]), 6),
    ],
)
def test_a7_counting_is_exact(request_bytes, count):
    assert not shallow.exceeds(request_bytes, count)
    assert count == 0 or shallow.exceeds(request_bytes, count - 1)


@given(st.lists(st.lists(st.lists(st.binary(max_size=200), max_size=4), max_size=3), max_size=3))
def test_a7_counting_agrees_with_the_parse(resources):
    data = b"".join(
        field(1, b"".join(field(2, b"".join(field(2, item) for item in scope)) for scope in scopes))
        for scopes in resources
    )
    count = len(resources) + sum(map(len, resources)) + sum(len(scope) for scopes in resources for scope in scopes)

    assert not shallow.exceeds(data, count)
    assert count == 0 or shallow.exceeds(data, count - 1)


@given(st.binary(max_size=300), st.integers(0, 20))
def test_a7_counting_any_bytes_never_raises(data, limit):
    assert shallow.exceeds(data, limit) in (True, False)


@given(st.binary(max_size=300))
def test_a7_what_can_be_parsed_is_counted_whole(data):
    """Bytes that end the count early must be bytes that the parse refuses."""
    try:
        parsed = shallow.parse(data)
    except BadRequestError:
        return
    count = len(parsed.resourced) + sum(
        len(resourced.scoped) + sum(len(scoped.items) for scoped in resourced.scoped) for resourced in parsed.resourced
    )

    assert count == 0 or shallow.exceeds(data, count - 1)


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(b"\x7b\x7c", id="a group"),
        pytest.param(b"\x7b\x7b\x08\x01\x7c\x7c", id="a group in a group"),
        pytest.param(b"\x78\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", id="the largest varint"),
    ],
)
def test_a7_unknown_fields_of_any_wire_type_do_not_end_the_count(before):
    data = before + empty_spans(5)
    assert len(items_of(data)) == 5

    assert shallow.exceeds(data, 6)
    assert not shallow.exceeds(data, 7)


@pytest.mark.parametrize("data", [b"\x0a\xff", b"\x0a\x7f", b"\x79\x01", b"\x80" * 20, b"\x0f", b"\x08"])
def test_malformed_bytes_end_the_count(data):
    assert not shallow.exceeds(data, 1)


def test_a7_more_elements_than_the_cap_are_refused_before_they_are_expanded(monkeypatch):
    """20 MiB of empty spans would become 1.8 GiB."""
    monkeypatch.setattr(shallow, "MAX_ELEMENTS", 100)
    monkeypatch.setattr(shallow, "COUNT_FROM_BYTES", 16)
    shallow.parse(empty_spans(98))
    monkeypatch.setattr(shallow, "_Request", None)

    with pytest.raises(BadRequestError, match="more than 100 resources, scopes and items in one request"):
        shallow.parse(empty_spans(99))


def test_a7_a_request_of_ordinary_spans_just_below_the_limits_passes():
    data = empty_spans(shallow.MAX_ELEMENTS - 2) + field(15, b"x" * shallow.COUNT_FROM_BYTES)

    assert len(items_of(data)) == shallow.MAX_ELEMENTS - 2


def test_a7_small_requests_are_not_counted(monkeypatch):
    monkeypatch.setattr(shallow, "MAX_ELEMENTS", 1)

    assert len(items_of(empty_spans(5))) == 5


def test_wire_compatible_with_the_real_messages():
    request = ExportTraceServiceRequest()
    request.resource_spans.add(schema_url="r").scope_spans.add(schema_url="s").spans.add(name="n")
    parsed = shallow.parse(request.SerializeToString())

    assert parsed.resourced[0].schema_url == [b"r"]
    assert parsed.resourced[0].scoped[0].schema_url == [b"s"]
    assert bytes(parsed.resourced[0].scoped[0].items[0]) == b"\x2a\x01n"


def test_a7_f40_zeros_are_not_walked_to_their_end():
    # A field has a number: what has none is no request, and the parse says so.
    assert not shallow.exceeds(bytes(2 << 20), 100)
    with pytest.raises(BadRequestError, match="not an OTLP export request"):
        shallow.parse(bytes(2 << 20))


def test_a7_small_fields_without_end_are_too_many():
    most = shallow.FIELDS_EACH * 100 + shallow.FIELDS_FREE

    assert shallow.exceeds(b"\x20\x01" * (most + 1), 100)
    assert not shallow.exceeds(b"\x20\x01" * most, 100)


def test_every_field_that_an_envelope_has_leaves_room_for_the_most_messages():
    one = shallow.assemble(b"r", b"u", b"s", b"u", [b"a"]).SerializeToString()

    assert not shallow.exceeds(one * 1000, 3000)
    assert shallow.exceeds(one * 1000, 2999)
