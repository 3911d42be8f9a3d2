"""OTLP/JSON and recorded files under random requests: what goes in comes out, and garbage is refused, not raised on."""

import json as text_json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from enricher import capture
from enricher.capture.names import COMPRESSIONS, ENCODINGS
from enricher.errors import BadRequestError, CaptureError
from enricher.otlp import json, shallow
from enricher.otlp.shallow import Signal

REQUESTS = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
}
IDS = {"trace_id": 16, "span_id": 8, "parent_span_id": 8}
KEYS = sorted(
    {"resourceSpans", "resourceLogs", "resourceMetrics", "scopeSpans", "scopeLogs", "spans", "logRecords", "resource"}
    | {"attributes", "key", "value", "stringValue", "intValue", "arrayValue", "values", "traceId", "kind", "bytesValue"}
)

unhurried = settings(deadline=None)  # a busy machine is no failure

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@cache
def scalars(field):
    f = FieldDescriptor
    if field.type == f.TYPE_BYTES:
        size = IDS.get(field.name)
        return st.binary(max_size=8) if size is None else st.binary(min_size=size, max_size=size)
    return {
        f.CPPTYPE_STRING: texts,
        f.CPPTYPE_BOOL: st.booleans(),
        f.CPPTYPE_DOUBLE: st.floats(allow_nan=False) | st.just(float("nan")),
        f.CPPTYPE_ENUM: st.integers(0, 5) | st.integers(-(2**31), 2**31 - 1),
        f.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
        f.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
        f.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
        f.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
    }[field.cpp_type]


@st.composite
def messages(draw, descriptor, depth=0):
    """Any message of a type: each field may be absent, each choice is made at most once, values nest a little."""
    message = GetMessageClass(descriptor)()
    settled = set()
    fields = st.sampled_from(list(descriptor.fields))
    for field in draw(st.lists(fields, unique_by=lambda field: field.name, min_size=depth < 5, max_size=4)):
        choice = field.containing_oneof and field.containing_oneof.name
        if choice in settled or (field.message_type and depth > 8):
            continue
        if choice:
            settled.add(choice)
        if field.is_repeated:
            of = messages(field.message_type, depth + 1) if field.message_type else scalars(field)
            getattr(message, field.name).extend(draw(st.lists(of, min_size=depth < 3, max_size=2)))
        elif field.message_type:
            getattr(message, field.name).SetInParent()
            getattr(message, field.name).CopyFrom(draw(messages(field.message_type, depth + 1)))
        else:
            setattr(message, field.name, draw(scalars(field)))
    return message


@st.composite
def requests(draw):
    signal = draw(st.sampled_from(list(Signal)))
    return signal, draw(messages(REQUESTS[signal].DESCRIPTOR))


def without_ids(message):
    for field, value in message.ListFields():
        if field.name in IDS and field.type == FieldDescriptor.TYPE_BYTES:
            message.ClearField(field.name)
        elif field.message_type:
            for inner in value if field.is_repeated else [value]:
                without_ids(inner)
    return message


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["NaN", "00" * 16]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)


@unhurried
@given(requests())
def test_requests_survive_both_ways(drawn):
    signal, request = drawn
    wire = request.SerializeToString()

    line = json.encode(signal, wire)

    assert b"\n" not in line
    assert json.decode(line, signal) == (signal, wire)


@unhurried
@given(requests())
def test_reading_agrees_with_protobuf_where_otlp_does(drawn):
    """Ids apart, what protobuf's own JSON mapping writes is read as it means it."""
    signal, request = drawn
    wire = without_ids(request).SerializeToString()

    text = json_format.MessageToJson(request, use_integers_for_enums=True)

    assert json.decode(text.encode(), signal) == (signal, wire)


@unhurried
@given(documents)
def test_any_document_is_read_or_refused(document):
    text = text_json.dumps(document).encode()
    for signal in Signal:
        try:
            _, wire = json.decode(text, signal)
        except BadRequestError:
            continue
        REQUESTS[signal].FromString(wire)


@unhurried
@given(st.binary(max_size=40), st.sampled_from([None, *Signal]))
def test_any_bytes_are_read_or_refused(data, signal):
    try:
        json.decode(data, signal)
    except BadRequestError as error:
        assert str(error)  # noqa: PT017 - any other exception fails the test


@unhurried
@given(st.binary(max_size=40), st.sampled_from(Signal))
def test_any_bytes_are_written_or_refused(data, signal):
    try:
        line = json.encode(signal, data)
    except BadRequestError:
        return
    json.decode(line, signal)


# recorded files


def with_telling_item(signal, request):
    """Add an item that can be of one signal only, as nearly all real ones are."""
    if signal == Signal.TRACES:
        span = request.resource_spans.add().scope_spans.add().spans.add(trace_id=bytes(16), span_id=bytes(8))
        span.start_time_unix_nano = 1
    elif signal == Signal.LOGS:
        request.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=1)
    else:
        metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
        metric.gauge.data_points.add(as_int=1)
    return signal, request.SerializeToString()


recordings = st.lists(requests().map(lambda drawn: with_telling_item(*drawn)), max_size=3)


@unhurried
@given(recordings, st.sampled_from([*ENCODINGS]), st.sampled_from(["", *COMPRESSIONS]))
def test_recorded_requests_survive_both_ways(recorded, suffix, compression):
    with TemporaryDirectory() as directory:
        path = f"{directory}/out{suffix}{compression}"
        with capture.open_writer(path) as writer:
            for signal, request in recorded:
                writer.write(signal, request)

        items = list(capture.read([path]))

    assert [(item.signal, item.request) for item in items] == recorded


@unhurried
@given(
    recordings,
    st.sampled_from([*ENCODINGS]),
    st.sampled_from(["", *COMPRESSIONS]),
    st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=3), st.integers(0, 20)), min_size=1, max_size=3),
)
def test_damaged_files_give_requests_and_errors_and_nothing_else(recorded, suffix, compression, damages):
    """Whatever is cut out of a file or put into it, every item is whole or an error with a place in the file."""
    with TemporaryDirectory() as directory:
        path = Path(directory, f"out{suffix}{compression}")
        with capture.open_writer(str(path)) as writer:
            for signal, request in recorded:
                writer.write(signal, request)
        data = path.read_bytes()
        for place, put_in, cut_out in damages:
            at = place % (len(data) + 1)
            data = data[:at] + put_in + data[at + cut_out :]
        path.write_bytes(data)

        items = list(capture.read([str(path)]))

    offsets = [item.offset for item in items]
    assert offsets == sorted(offsets)
    for item in items:
        if isinstance(item, capture.Captured):
            shallow.parse(item.request)


@unhurried
@given(st.binary(max_size=200))
def test_any_file_gives_requests_or_errors(data):
    with TemporaryDirectory() as directory:
        path = Path(directory, "any")
        path.write_bytes(data)

        items = list(capture.read([str(path)]))

    assert all(isinstance(item, capture.Captured | CaptureError) for item in items)
