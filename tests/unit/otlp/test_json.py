"""OTLP/JSON: the rows JSN-01..14, one by one."""

import json as text_json
import sys

import pytest
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from enricher.errors import BadRequestError
from enricher.otlp import json
from enricher.otlp.shallow import Signal

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"
SECRET = "do-not-show-this"


def span_document(**fields):
    return {"resourceSpans": [{"scopeSpans": [{"spans": [fields]}]}]}


def value_document(value):
    return span_document(attributes=[{"key": "k", "value": value}])


def decode(document, signal=None):
    text = document if isinstance(document, bytes) else text_json.dumps(document).encode()
    return json.decode(text, signal)


def decode_span(**fields):
    signal, request = decode(span_document(**fields))
    assert signal == Signal.TRACES
    return ExportTraceServiceRequest.FromString(request).resource_spans[0].scope_spans[0].spans[0]


def decode_value(value):
    return decode_span(attributes=[{"key": "k", "value": value}]).attributes[0].value


def refusal(document, signal=None):
    with pytest.raises(BadRequestError) as caught:
        decode(document, signal)
    assert SECRET not in str(caught.value)
    return str(caught.value)


def trace_request(**fields):
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(**fields)
    return request


def encode_span(**fields):
    line = json.encode(Signal.TRACES, trace_request(**fields).SerializeToString())
    return text_json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]


# ids


def test_jsn_01_ids_of_spans_and_links_are_hex():
    span = decode_span(
        traceId=TRACE_ID, spanId=SPAN_ID, parentSpanId=SPAN_ID[::-1], links=[{"traceId": TRACE_ID, "spanId": SPAN_ID}]
    )

    assert span.trace_id == span.links[0].trace_id == bytes.fromhex(TRACE_ID)
    assert span.span_id == span.links[0].span_id == bytes.fromhex(SPAN_ID)
    assert span.parent_span_id == bytes.fromhex(SPAN_ID[::-1])


def test_jsn_01_ids_of_log_records_are_hex():
    document = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"traceId": TRACE_ID, "spanId": SPAN_ID}]}]}]}

    signal, request = decode(document)

    record = ExportLogsServiceRequest.FromString(request).resource_logs[0].scope_logs[0].log_records[0]
    assert signal == Signal.LOGS
    assert (record.trace_id, record.span_id) == (bytes.fromhex(TRACE_ID), bytes.fromhex(SPAN_ID))


@pytest.mark.parametrize("kind", ["gauge", "sum", "histogram", "exponentialHistogram"])
def test_jsn_01_ids_of_exemplars_are_hex(kind):
    exemplar = {"traceId": TRACE_ID, "spanId": SPAN_ID, "asDouble": 1.5}
    metric = {"name": "m", kind: {"dataPoints": [{"exemplars": [exemplar]}]}}
    document = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}

    signal, request = decode(document)

    assert signal == Signal.METRICS
    assert bytes.fromhex(TRACE_ID) in request
    assert bytes.fromhex(SPAN_ID) in request
    assert text_json.loads(json.encode(signal, request)) == document


@pytest.mark.parametrize("spelt", [TRACE_ID.upper(), TRACE_ID.lower(), TRACE_ID.title()])
def test_jsn_01_hex_is_case_insensitive(spelt):
    assert decode_span(traceId=spelt).trace_id == bytes.fromhex(TRACE_ID)


def test_jsn_01_empty_ids_are_taken():
    assert decode_span(traceId="", spanId="", parentSpanId="").trace_id == b""


@pytest.mark.parametrize(
    "wrong",
    [
        TRACE_ID[:-1],
        TRACE_ID[:-2],
        TRACE_ID + "00",
        SPAN_ID,
        TRACE_ID[:-1] + "g",
        TRACE_ID[:-2] + "  ",
        " " * 32,
        "CvdlGRbNQ92ESOshHIAxnA==",
        5,
        ["0af7"],
        {},
        True,
    ],
)
def test_jsn_01_other_ids_are_refused(wrong):
    message = refusal(span_document(name="a", traceId=wrong))

    assert message.startswith("$.resourceSpans[0].scopeSpans[0].spans[0].traceId: expected 32 hexadecimal digits")


def test_jsn_01_ids_are_told_by_place_and_not_by_key():
    """An attribute, or a map entry in one, that is called `traceId` is nobody's id."""
    inner = {"kvlistValue": {"values": [{"key": "traceId", "value": {"stringValue": TRACE_ID}}]}}

    span = decode_span(attributes=[{"key": "spanId", "value": inner}])

    assert span.attributes[0].key == "spanId"
    assert span.attributes[0].value.kvlist_value.values[0].value.string_value == TRACE_ID


def test_jsn_01_an_id_inside_a_value_is_an_unknown_key():
    assert decode_value({"traceId": "not hex", "stringValue": "x"}).string_value == "x"


# keys


def test_jsn_02_snake_case_keys_are_unknown():
    span = decode_span(trace_id=TRACE_ID, start_time_unix_nano="7", name="a")

    assert (span.trace_id, span.start_time_unix_nano, span.name) == (b"", 0, "a")


def test_jsn_02_snake_case_at_the_top_is_no_signal():
    assert "none of them" in refusal({"resource_spans": []})


def test_jsn_03_unknown_keys_are_ignored():
    assert decode_span(name="a", futureField={"name": [1, {"x": None}]}, SECRET=1).name == "a"


@pytest.mark.parametrize("kind", ["SPAN_KIND_SERVER", "2", "", 1.5, True, [2], {}])
def test_jsn_04_enums_are_integers_only(kind):
    assert refusal(span_document(kind=kind)).startswith("$.resourceSpans[0].scopeSpans[0].spans[0].kind: ")


def test_jsn_04_unknown_enum_integers_are_kept():
    assert decode_span(kind=99).kind == 99
    assert encode_span(kind=99) == {"kind": 99}


def test_jsn_04_enum_integers_beyond_32_bits_are_refused():
    refusal(span_document(kind=2**31))


# numbers


@pytest.mark.parametrize("number", ["9007199254740993", 9007199254740993])
def test_jsn_05_64_bit_integers_are_read_as_strings_or_numbers(number):
    assert decode_span(startTimeUnixNano=number).start_time_unix_nano == 9007199254740993


@pytest.mark.parametrize("written", [b"1.0", b"1e0", b"10e-1"])
def test_jsn_05_whole_floats_are_integers(written):
    text = text_json.dumps(value_document({"intValue": "@"})).encode().replace(b'"@"', written)

    _, request = json.decode(text, None)

    assert ExportTraceServiceRequest.FromString(request).resource_spans[0].scope_spans[0].spans[0].attributes[
        0
    ].value == AnyValue(int_value=1)


@pytest.mark.parametrize(
    "wrong", [1.5, 1e400, 2**63, -(2**63) - 1, "1.5", "1_0", " 1", "1 ", "٣", "", "0x10", "NaN", True, [], {}, SECRET]
)
def test_jsn_05_what_is_no_64_bit_integer_is_refused(wrong):
    text = text_json.dumps(value_document({"intValue": wrong})).replace("Infinity", "1e400").encode()

    assert refusal(text).startswith(
        "$.resourceSpans[0].scopeSpans[0].spans[0].attributes[0].value.intValue: expected a signed integer of 64 bits"
    )


@pytest.mark.parametrize("wrong", [-1, 2**32, "-1"])
def test_jsn_05_unsigned_32_bit_fields_have_their_range(wrong):
    refusal(span_document(droppedEventsCount=wrong))


def test_jsn_05_64_bit_integers_are_written_as_strings_and_32_bit_ones_as_numbers():
    span = encode_span(start_time_unix_nano=2**64 - 1, flags=257, dropped_events_count=3)

    assert span == {"startTimeUnixNano": "18446744073709551615", "flags": 257, "droppedEventsCount": 3}


@pytest.mark.parametrize(
    ("written", "read"), [("Infinity", "inf"), ("-Infinity", "-inf"), ("NaN", "nan"), ("2.5e3", "2500.0"), (3, "3.0")]
)
def test_jsn_06_doubles(written, read):
    assert str(decode_value({"doubleValue": written}).double_value) == read


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan"), -0.0, 5e-324, 1.7976931348623157e308])
def test_jsn_06_doubles_survive_both_ways(number):
    request = trace_request()
    request.resource_spans[0].scope_spans[0].spans[0].attributes.add(key="k").value.double_value = number
    wire = request.SerializeToString()

    assert json.decode(json.encode(Signal.TRACES, wire), None) == (Signal.TRACES, wire)


@pytest.mark.parametrize("wrong", ["nan", "inf", "infinity", "1_0", "1e400", " 1", "", True, [], 10**400, SECRET])
def test_jsn_06_what_is_no_double_is_refused(wrong):
    refusal(value_document({"doubleValue": wrong}))


@pytest.mark.parametrize("constant", [b"NaN", b"Infinity", b"-Infinity", b"1e400"])
def test_jsn_06_bare_infinities_are_refused(constant):
    refusal(text_json.dumps(value_document({"doubleValue": "@"})).encode().replace(b'"@"', constant))


@pytest.mark.parametrize("wrong", ["true", 1, 0, [], {}])
def test_booleans_are_true_or_false(wrong):
    refusal(value_document({"boolValue": wrong}))


# strings and bytes


@pytest.mark.parametrize("written", ["+/8A", "-_8A"])
def test_jsn_07_bytes_are_base64(written):
    assert decode_value({"bytesValue": written}).bytes_value == b"\xfb\xff\x00"


@pytest.mark.parametrize("written", ["AA==", "AA"])
def test_jsn_07_padding_may_be_missing(written):
    assert decode_value({"bytesValue": written}).bytes_value == b"\0"


@pytest.mark.parametrize("wrong", ["A", "AA!A", "A A=", "=AAA", 5, [], {}])
def test_jsn_07_what_is_no_base64_is_refused(wrong):
    refusal(value_document({"bytesValue": wrong}))


def test_jsn_08_null_is_absent():
    span = decode_span(traceId=None, name="a", attributes=None, status=None, kind=None)

    assert span.name == "a"
    assert not span.HasField("status")


def test_jsn_08_null_does_not_choose_a_kind_of_value():
    assert decode_value({"stringValue": None, "intValue": "4"}).int_value == 4


def test_jsn_08_null_is_no_element():
    assert refusal(span_document(attributes=[None])).endswith("attributes[0]: expected an object, found null")


def test_two_kinds_of_one_value_are_refused():
    assert refusal(value_document({"stringValue": "a", "intValue": 1})).endswith(
        "value.intValue: expected one kind of value, found a second one beside the first"
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b'{"resourceSpans":[],"resourceSpans":[]}', "$: "),
        (b'{"resourceSpans":[{"resource":{},"resource":{}}]}', "$.resourceSpans[0]: "),
        (b'{"resourceSpans":[],"x":[{"a":{"b":1,"b":1}}]}', "$: an object under an unknown key"),
    ],
)
def test_jsn_09_duplicate_keys_are_refused(text, place):
    message = refusal(text)

    assert message.startswith(place)
    assert "a key twice" in message


@pytest.mark.parametrize("escape", [b"\\ud800", b"\\udc00", b"\\ud800x\\udc00", b"\\ude00\\ud83d"])
def test_jsn_10_lone_surrogates_are_refused(escape):
    assert "without lone surrogates" in refusal(text_json.dumps(span_document(name="@")).encode().replace(b"@", escape))


def test_jsn_10_pairs_and_nul_are_taken():
    assert decode_span(name="\U0001f600\0").name == "\U0001f600\0"


@pytest.mark.parametrize("text", [b'{"resourceSpans":[{"schemaUrl":"\xff"}]}', b"\xff\xfe{\0}\0"])
def test_jsn_10_invalid_utf8_is_refused(text):
    assert "is not UTF-8" in refusal(text)


# shape


@pytest.mark.parametrize("maps", [0, 1])
@pytest.mark.parametrize("arrays", range(44, 51))
def test_jsn_11_both_ways_stop_at_the_level_where_protobuf_does(arrays, maps):
    """An array is two messages deep and a map three, so together they meet both sides of the limit."""
    request = trace_request()
    value = request.resource_spans[0].scope_spans[0].spans[0].attributes.add().value
    for _ in range(maps):
        value = value.kvlist_value.values.add().value
    for _ in range(arrays):
        value = value.array_value.values.add()
    wire = request.SerializeToString()
    nested = {}
    for _ in range(arrays):
        nested = {"arrayValue": {"values": [nested]}}
    for _ in range(maps):
        nested = {"kvlistValue": {"values": [{"value": nested}]}}
    document = span_document(attributes=[{"value": nested}])

    try:
        ExportTraceServiceRequest.FromString(wire)
    except DecodeError:
        assert "inside one another" in refusal(document)
        with pytest.raises(BadRequestError, match="more than 100 levels"):
            json.encode(Signal.TRACES, wire)
    else:
        assert decode(document) == (Signal.TRACES, wire)
        assert text_json.loads(json.encode(Signal.TRACES, wire)) == document


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"arrayValue":{"values":['])
def test_jsn_11_endless_nesting_is_refused(opening):
    refusal(b'{"resourceSpans":' + opening * 200_000)


def test_jsn_11_too_deep_a_value_is_refused():
    value = {"stringValue": SECRET}
    for _ in range(60):
        value = {"arrayValue": {"values": [value]}}

    assert "inside one another" in refusal(value_document(value))


@pytest.mark.parametrize("number", ["9" * 5000, '"' + "9" * 5000 + '"'])
def test_jsn_12_numbers_of_thousands_of_digits_are_refused(number):
    assert sys.get_int_max_str_digits() == 4300
    refusal(text_json.dumps(value_document({"intValue": "@"})).replace('"@"', number).encode())


def test_jsn_13_output_is_compact_with_integer_enums_and_hex_ids():
    request = trace_request(trace_id=bytes.fromhex(TRACE_ID), span_id=bytes.fromhex(SPAN_ID), name="é", kind=3)
    request.resource_spans[0].resource.SetInParent()

    line = json.encode(Signal.TRACES, request.SerializeToString())

    assert line.decode() == (
        '{"resourceSpans":[{"resource":{},"scopeSpans":[{"spans":[{"traceId":"0af7651916cd43dd8448eb211c80319c",'
        '"spanId":"b7ad6b7169203331","name":"é","kind":3}]}]}]}'
    )


def test_jsn_13_line_ends_inside_strings_are_escaped():
    assert b"\n" not in json.encode(Signal.TRACES, trace_request(name="a\nb\r").SerializeToString())


@pytest.mark.parametrize("signal", list(Signal))
@pytest.mark.parametrize("text", [b"{}", b" {} ", b'{"resourceProfiles": 5}'])
def test_jsn_14_a_document_without_the_key_is_an_empty_request(text, signal):
    assert json.decode(text, signal) == (signal, b"")


def test_jsn_14_empty_requests_are_written_as_an_empty_object():
    assert json.encode(Signal.METRICS, b"") == b"{}"


@pytest.mark.parametrize(
    ("text", "signal"),
    [
        (b"{}", Signal.TRACES),
        (b'{"resourceSpans":null}', Signal.TRACES),
        (b'{"x":1,"resourceLogs":[]}', Signal.LOGS),
        (b'{"resourceMetrics":[]}', Signal.METRICS),
        (b'\xef\xbb\xbf{"resourceLogs":[]}', Signal.LOGS),
    ],
)
def test_the_signal_is_found_out_from_the_top(text, signal):
    assert json.decode(text, None) == (signal, b"")


def test_another_signals_key_is_unknown_when_the_signal_is_given():
    assert json.decode(b'{"resourceLogs":[{}]}', Signal.TRACES) == (Signal.TRACES, b"")


def test_two_signals_in_one_document_are_refused():
    assert "found resourceSpans and resourceLogs" in refusal(b'{"resourceSpans":[],"resourceLogs":[]}')


@pytest.mark.parametrize("text", [b"[]", b"null", b'"x"', b"5", b"", b"{", b"{}{}", b"{'a':1}", b"{} x"])
def test_what_is_no_object_is_refused(text):
    refusal(text)


@pytest.mark.parametrize("wrong", [SECRET, 5, True, {"a": 1}])
def test_what_is_no_list_is_refused_in_its_place(wrong):
    assert refusal({"resourceSpans": wrong}).startswith("$.resourceSpans: expected an array, found ")


@pytest.mark.parametrize("wrong", [SECRET, 5, True, []])
def test_what_is_no_message_is_refused_in_its_place(wrong):
    assert refusal({"resourceSpans": [{"resource": wrong}]}).startswith(
        "$.resourceSpans[0].resource: expected an object, found "
    )


def test_present_but_empty_messages_stay_present():
    assert decode_span(status={}).HasField("status")
    assert encode_span(name="a").keys() == {"name"}


# what JSON cannot hold


def test_invalid_utf8_cannot_be_written():
    wire = trace_request(name="@@").SerializeToString().replace(b"@@", b"\xff\xff")

    with pytest.raises(BadRequestError, match="not UTF-8"):
        json.encode(Signal.TRACES, wire)


def test_ids_that_no_reader_would_take_cannot_be_written():
    with pytest.raises(BadRequestError, match="a spanId has 3 bytes, expected 8"):
        json.encode(Signal.TRACES, trace_request(span_id=b"abc").SerializeToString())


def test_garbage_cannot_be_written():
    with pytest.raises(BadRequestError, match="malformed"):
        json.encode(Signal.LOGS, b"\x0a\xff")


def test_metrics_survive_both_ways():
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="m", unit="1")
    point = metric.exponential_histogram.data_points.add(count=2**63, sum=-1.5, scale=-2, zero_count=1)
    point.positive.bucket_counts.extend([1, 2**64 - 1])
    point.positive.offset = -7
    point.exemplars.add(as_int=-5, trace_id=bytes(16), span_id=bytes(8))
    wire = request.SerializeToString()

    assert json.decode(json.encode(Signal.METRICS, wire), None) == (Signal.METRICS, wire)
