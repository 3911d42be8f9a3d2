"""Recorded files: every format others write is read, bad parts cost only themselves, what is written is read again."""

import gzip
import io
import json as text_json
import os
import stat
import struct
import sys
import threading
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import pytest
import zstandard
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from enricher import capture
from enricher.capture import captured
from enricher.errors import CaptureError
from enricher.otlp import json
from enricher.otlp.shallow import Signal

START = 1_700_000_000_000_000_000


def traces(name="GET /threads", spans=2):
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    scope = resource.scope_spans.add()
    for number in range(spans):
        scope.spans.add(
            trace_id=bytes(range(16)),
            span_id=struct.pack(">Q", number + 1),
            name=name,
            kind=3,
            start_time_unix_nano=START + number,
            end_time_unix_nano=START + number + 5,
        )
    return request.SerializeToString()


def logs(text="hello"):
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=START, severity_number=9)
    record.body.string_value = text
    return request.SerializeToString()


def metrics(name="http.server.duration"):
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name=name)
    metric.gauge.data_points.add(time_unix_nano=START, as_double=1.5)
    return request.SerializeToString()


MIXED = [
    (Signal.TRACES, traces()),
    (Signal.LOGS, logs()),
    (Signal.METRICS, metrics()),
    (Signal.TRACES, traces("a longer name" * 40, spans=30)),
]


def varint(request):
    size, prefix = len(request), b""
    while size >= 0x80:
        prefix += bytes([size & 0x7F | 0x80])
        size >>= 7
    return prefix + bytes([size]) + request


def big_endian(request):
    return struct.pack(">I", len(request)) + request


def pretty(signal, request, **options):
    return text_json.dumps(text_json.loads(json.encode(signal, request)), **{"indent": 2} | options).encode() + b"\n"


def line(signal, request):
    return json.encode(signal, request) + b"\n"


def as_jsonl(mixed):
    return b"".join(line(*one) for one in mixed)


def as_varint(mixed):
    return b"".join(varint(request) for _, request in mixed)


def as_big_endian(mixed):
    return b"".join(big_endian(request) for _, request in mixed)


def as_pretty(mixed):
    return b"".join(pretty(*one) for one in mixed)


MANY = {"jsonl": as_jsonl, "varint": as_varint, "big_endian": as_big_endian, "pretty": as_pretty}


def zstd(data):
    return zstandard.ZstdCompressor().compress(data)


def in_parts(compress):
    """Several members or frames, cut without regard to lines or messages."""
    return lambda data: compress(data[:7]) + compress(b"") + compress(data[7:100]) + compress(data[100:])


def zstd_stream(data):
    """A frame that does not say its size, behind one that readers have to skip."""
    whole = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return b"\x50\x2a\x4d\x18\x03\0\0\0abc" + whole.compress(data) + whole.flush()


COMPRESS = {
    "plain": bytes,
    "gzip": gzip.compress,
    "gzip members": in_parts(gzip.compress),
    "gzip padded": lambda data: gzip.compress(data) + b"\0" * 512,
    "zstd": zstd,
    "zstd frames": in_parts(zstd),
    "zstd stream": zstd_stream,
}


@pytest.fixture
def file(tmp_path):
    def write(data, name="capture.bin"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return str(path)

    return write


def read(*inputs):
    """Return (signal, request) of what was read and (offset, what) of the errors."""
    items = list(capture.read(inputs))
    good = [(item.signal, item.request) for item in items if isinstance(item, capture.Captured)]
    return good, [(item.offset, item.what) for item in items if isinstance(item, CaptureError)]


def names_in(directory):
    return [path.name for path in directory.iterdir()]


def paths_of(*inputs):
    return [item.path for item in capture.read(inputs) if isinstance(item, capture.Captured)]


@pytest.fixture
def small_limit(monkeypatch):
    monkeypatch.setattr(captured, "MAX_MESSAGE", 10_000)


# formats


@pytest.mark.parametrize("compress", COMPRESS.values(), ids=COMPRESS)
@pytest.mark.parametrize("form", MANY.values(), ids=MANY)
def test_many_requests_of_all_signals_in_one_file(file, form, compress):
    assert read(file(compress(form(MIXED)))) == (MIXED, [])


@pytest.mark.parametrize("compress", COMPRESS.values(), ids=COMPRESS)
@pytest.mark.parametrize(("signal", "request_"), MIXED)
def test_one_serialised_request(file, compress, signal, request_):
    assert read(file(compress(request_), "a.binpb")) == ([(signal, request_)], [])


def test_serialised_requests_one_after_another_are_one_request(file):
    both = traces("a") + traces("b")

    assert read(file(both)) == ([(Signal.TRACES, both)], [])


@pytest.mark.parametrize("form", MANY.values(), ids=MANY)
@pytest.mark.parametrize("name", ["a.binpb", "a.pb", "a.jsonl", "a.json", "a.gz", "a.jsonl.zst", "a.md", "a", "A.PB"])
def test_the_name_is_only_a_hint(file, form, name):
    assert read(file(form(MIXED), name)) == (MIXED, [])


@pytest.mark.parametrize("options", [{}, {"indent": 4}, {"indent": "\t"}, {"indent": 0}, {"indent": None}])
def test_one_document_spread_over_lines(file, options):
    text = pretty(Signal.TRACES, traces(), **options)

    assert read(file(text)) == ([(Signal.TRACES, traces())], [])
    assert read(file(text.replace(b"\n", b"\r\n").rstrip())) == ([(Signal.TRACES, traces())], [])


def test_a_resource_a_line_is_one_document(file):
    parts = [json.encode(Signal.LOGS, logs(text))[len('{"resourceLogs":[') : -2] for text in "ab"]
    text = b'{"resourceLogs":[\n' + b",\n".join(parts) + b"\n]}"

    assert read(file(text)) == ([(Signal.LOGS, logs("a") + logs("b"))], [])


def test_brackets_inside_strings_are_text(file):
    awkward = traces('}]"\\{{[["')
    text = pretty(Signal.TRACES, awkward) + line(Signal.TRACES, awkward)

    assert read(file(text)) == ([(Signal.TRACES, awkward)] * 2, [])


@pytest.mark.parametrize("start", [b"\n\n", b"  \t", b"\xef\xbb\xbf"])
def test_blank_lines_and_a_byte_order_mark_are_nothing(file, start):
    assert read(file(start + as_jsonl(MIXED).replace(b"\n", b"\n\n"))) == (MIXED, [])


@pytest.mark.parametrize("compress", [zstd, gzip.compress])
def test_the_collector_compresses_message_by_message(file, compress):
    """`compression: zstd` of the file exporter: a length in 4 bytes, then a frame of its own, protobuf or JSON."""
    protobuf = b"".join(big_endian(compress(request)) for _, request in MIXED)
    as_json = b"".join(big_endian(compress(json.encode(*one))) for one in MIXED)

    assert read(file(protobuf)) == (MIXED, [])
    assert read(file(as_json)) == (MIXED, [])
    assert read(file(protobuf + as_json)) == (MIXED * 2, [])


def test_the_encoding_and_the_offset_are_told(file):
    path = file(as_jsonl(MIXED))
    offsets = [0]
    for one in MIXED[:-1]:
        offsets.append(offsets[-1] + len(line(*one)))

    items = list(capture.read([path]))

    assert [(item.path, item.offset, item.encoding) for item in items] == [(path, at, "json") for at in offsets]
    assert {item.encoding for item in capture.read([file(as_varint(MIXED))])} == {"protobuf"}


def test_offsets_count_inflated_bytes(file):
    items = list(capture.read([file(gzip.compress(as_varint(MIXED)))]))

    assert items[1].offset == len(varint(MIXED[0][1]))


def test_a_message_may_begin_like_json_text(file):
    """A length of 123 and the tag behind it are a brace and a line end."""
    request = next(request for size in range(200) if len(request := traces("x" * size, spans=1)) == 123)

    assert read(file(varint(request) * 3)) == ([(Signal.TRACES, request)] * 3, [])


def test_a_request_may_begin_like_json_text(file):
    """Field 1 of 123 bytes that holds one of 34: a line end, a brace, a line end and a quote."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "a" * 14
    resource.scope_spans.add().spans.add(trace_id=bytes(16), span_id=bytes(8), name="n", start_time_unix_nano=START)
    resource.schema_url = "u" * (123 - resource.ByteSize() - 2)
    data = request.SerializeToString()
    assert data.startswith(b'\n{\n"')

    assert read(file(data)) == ([(Signal.TRACES, data)], [])


def test_unknown_fields_and_invalid_utf8_stay_as_they_are(file):
    request = traces("@@").replace(b"@@", b"\xff\xfe") + b"\x98\x3f\x05"

    assert read(file(request), file(varint(request) * 2, "b")) == ([(Signal.TRACES, request)] * 3, [])


# signals


def span(**fields):
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(**fields)
    return request.SerializeToString()


def record(**fields):
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add(**fields)
    return request.SerializeToString()


def metric(**fields):
    request = ExportMetricsServiceRequest()
    request.resource_metrics.add().scope_metrics.add().metrics.add(**fields)
    return request.SerializeToString()


def one_point(kind):
    request = ExportMetricsServiceRequest()
    added = (
        request.resource_metrics.add()
        .scope_metrics.add()
        .metrics.add(name="sixteen.letters.", description="8 bytes.", unit="s")
    )
    getattr(added, kind).data_points.add(time_unix_nano=START)
    return request.SerializeToString()


@pytest.mark.parametrize(
    ("signal", "request_"),
    [
        (Signal.TRACES, span(trace_id=bytes(16), span_id=bytes(8), name="n")),
        (Signal.TRACES, span(trace_id=b"abc", span_id=b"d", name="n", start_time_unix_nano=1)),
        (Signal.TRACES, span(name="n", end_time_unix_nano=1)),
        (Signal.TRACES, span() + span(name="n", kind=1)),
        (Signal.LOGS, record(observed_time_unix_nano=1)),
        (Signal.LOGS, record(severity_text="INFO", body={"string_value": "text"})),
        (Signal.LOGS, record(body={"string_value": "text"}, trace_id=bytes(16), span_id=bytes(8))),
        (Signal.METRICS, metric(name="requests")),
        *((Signal.METRICS, one_point(kind)) for kind in ("gauge", "sum", "histogram", "summary")),
        (Signal.METRICS, one_point("exponential_histogram")),
    ],
)
def test_the_signal_is_in_the_items(file, signal, request_):
    """A name that says something else is overruled."""
    for name in ("a", "a.logs.binpb", "metrics.pb", "traces.bin"):
        if name != "a" and request_ in (metric(name="requests"), span() + span(name="n", kind=1)):
            continue
        assert read(file(request_, name)) == ([(signal, request_)], [])


@pytest.mark.parametrize(
    ("name", "signal"),
    [
        ("a.binpb", Signal.TRACES),
        ("a.logs.binpb", Signal.LOGS),
        ("a.logs.r01.binpb.gz", Signal.LOGS),
        ("metrics.pb", Signal.METRICS),
        ("app_log.pb", Signal.LOGS),
        ("traces-and-logs.pb", Signal.TRACES),
        ("catalogs.pb", Signal.TRACES),
    ],
)
def test_the_name_decides_where_there_are_no_items(file, name, signal):
    request = ExportTraceServiceRequest()
    request.resource_spans.add().resource.attributes.add(key="k")
    empty = request.SerializeToString()

    assert read(file(empty, name)) == ([(signal, empty)], [])


def test_empty_json_requests_take_the_names_signal(file):
    assert read(file(b"{}\n{}\n", "x.logs.jsonl")) == ([(Signal.LOGS, b"")] * 2, [])
    assert read(file(b"{}", "x.jsonl")) == ([(Signal.TRACES, b"")], [])


def test_a_malformed_item_does_not_hide_its_neighbours(file):
    """Field 2 of the scope holds bytes that are no message; the rest is a good trace request."""
    good = ExportTraceServiceRequest.FromString(traces())
    scope = good.resource_spans[0].scope_spans[0].SerializeToString()
    bad = b"\x12\x03\xff\xff\xff" + scope
    request = b"\x0a" + varint(b"\x12" + varint(bad))

    assert read(file(request)) == ([(Signal.TRACES, request)], [])


# bad parts


@pytest.mark.parametrize(
    "garbage",
    [
        b"not json\n",
        b'{"resourceSpans":[}\n',
        b'{"resourceSpans":[{"scopeSpans":5}]}\n',
        b'{"other":1}\n',
        b"\xff\xfe\0\n",
        b"]\n",
        b'"\n',
    ],
)
def test_a_bad_line_costs_one_line(file, garbage):
    first = line(*MIXED[0])
    text = first + garbage + as_jsonl(MIXED[1:])

    good, errors = read(file(text))

    assert good == MIXED
    assert [offset for offset, _ in errors] == [len(first)]


def test_a_json_error_names_the_place_and_not_the_text(file):
    text = b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"kind":"SECRET"}]}]}]}\n'

    _, errors = read(file(text))

    place = "$.resourceSpans[0].scopeSpans[0].spans[0].kind: "
    what = "expected an integer of 32 bits, not the name of an enum value, found a string of 6 characters"
    assert errors == [(0, place + what)]


def test_a_line_that_was_never_finished_costs_itself(file):
    """As after a crash of the writer that then went on in the same file."""
    first = line(*MIXED[0])
    text = first + first[:60] + b"\n" + as_jsonl(MIXED[1:])

    good, errors = read(file(text))

    assert good == MIXED
    assert errors == [(len(first), "the document that begins here is never closed")]


@pytest.mark.parametrize("cut", [1, 2, 30, 100])
@pytest.mark.parametrize("form", MANY.values(), ids=MANY)
def test_what_is_complete_is_read_and_the_cut_part_is_named(file, form, cut):
    whole = form(MIXED)
    last = len(form(MIXED[:3]))
    size = len(whole.rstrip()) if form is as_jsonl or form is as_pretty else len(whole)

    good, errors = read(file(whole[: size - cut]))

    assert good == MIXED[:3]
    assert [offset for offset, _ in errors] == [last]
    assert "that begins here is cut off" in errors[0][1]


@pytest.mark.parametrize("form", [as_varint, as_big_endian])
def test_a_cut_length_is_named(file, form):
    whole = form([MIXED[0], MIXED[3]])
    first = len(form(MIXED[:1]))

    assert read(file(whole[: first + 1])) == (MIXED[:1], [(first, "the length that begins here is cut off")])


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
@pytest.mark.parametrize("form", MANY.values(), ids=MANY)
def test_truncated_compression_gives_what_was_complete(file, form, compress):
    many = [(Signal.TRACES, traces(f"{number}-{number * 7919}")) for number in range(2000)]
    whole = form(many)
    packed = compress(whole)

    items = list(capture.read([file(packed[: len(packed) // 2])]))

    error = items.pop()
    assert isinstance(error, CaptureError)
    assert "data ends early" in error.what
    assert 0 < len(items) < len(many)
    assert [item.request for item in items] == [request for _, request in many[: len(items)]]
    assert error.offset == len(form(many[: len(items)]))


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
def test_a_truncated_end_is_an_error_even_behind_complete_requests(file, compress):
    whole = as_jsonl(MIXED)

    good, errors = read(file(compress(whole) + compress(b"\n")[:-3]))

    assert good == MIXED
    assert errors[0][0] == len(whole) + (compress is gzip.compress)


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
def test_junk_behind_compressed_data_is_an_error(file, compress):
    good, errors = read(file(compress(as_jsonl(MIXED)) + b"junk junk junk"))

    assert good == MIXED
    assert [(offset, "damaged" in what) for offset, what in errors] == [(len(as_jsonl(MIXED)), True)]


@pytest.mark.parametrize("form", [varint, big_endian])
def test_one_bad_message_costs_itself(file, form):
    data = form(traces()) + form(b"\xff" * 40) + form(logs())

    good, errors = read(file(data))

    assert good == [(Signal.TRACES, traces()), (Signal.LOGS, logs())]
    assert [offset for offset, _ in errors] == [len(form(traces()))]


@pytest.mark.parametrize("form", [varint, big_endian])
def test_two_bad_messages_in_a_row_end_the_file(file, form):
    """The lengths are not to be trusted any more; the other files are read."""
    first, bad = form(traces()), form(b"\xff" * 40)

    good, errors = read(file(first + bad + bad + bad + form(logs())), file(logs(), "b"))

    assert good == [(Signal.TRACES, traces()), (Signal.LOGS, logs())]
    assert [offset for offset, _ in errors] == [
        len(first),
        len(first) + len(bad),
        len(first) + 2 * len(bad),
    ]


def test_a_foreign_message_is_named(file):
    foreign = b"\x0a" + varint(b"\x12" + varint(b"\x12" + varint(b"plain text, no item")))

    good, errors = read(file(varint(traces()) + varint(foreign)))

    assert good == [(Signal.TRACES, traces())]
    assert errors == [(len(varint(traces())), "the items are neither spans, log records nor metrics")]


@pytest.mark.parametrize("many", [1, 3000])
def test_damage_inside_a_single_request_is_found_to_the_byte(file, many):
    """From the field of the resource on that is no field."""
    before, after = traces(spans=many), traces("after")

    good, errors = read(file(before + b"\x0f" + after, "a.binpb"))

    assert good == []
    assert [offset for offset, _ in errors] == [len(before)]


@pytest.mark.parametrize("form", [varint, big_endian])
def test_a_first_message_that_is_cut_off_is_named(file, form):
    [error] = capture.read([file(form(traces())[:-5], "a.pb")])

    assert (error.offset, error.what) == (0, "the message that begins here is cut off")


def test_a_file_that_shrinks_is_named(file):
    path = file(as_jsonl(MIXED))
    with capture.open_inputs([path]) as inputs:
        os.truncate(path, len(line(*MIXED[0])) + 10)

        item, error = inputs

    assert item.request == MIXED[0][1]
    assert error.offset == len(line(*MIXED[0]))
    assert error.what == "the document that begins here is cut off: the file became shorter while it was read"


@pytest.mark.parametrize("many", [1, 3000])
@pytest.mark.parametrize("name", ["a.binpb", "a.pb.gz"])
def test_a_single_request_that_is_cut_off_is_named_in_a_directory_too(file, tmp_path, many, name):
    file(traces(spans=many)[:-20], name)

    good, errors = read(str(tmp_path))

    assert good == []
    assert len(errors) == 1
    assert "cut off from here on" in errors[0][1]


def test_a_file_that_begins_with_garbage_is_still_read_if_its_name_says_json_lines(file):
    """A rotated file may begin in the middle of a line."""
    half = line(*MIXED[0])[50:]

    good, errors = read(file(half + as_jsonl(MIXED), "rotated.jsonl"))

    assert good == MIXED
    assert [offset for offset, _ in errors] == [0]


@pytest.mark.parametrize(
    "data", [b"hello world", b"# Title\n\nText", b"\n", b"\0" * 100, b'{"a": 1}', b"[1]", b"\x0a\x02"]
)
def test_a_named_file_that_is_not_otlp_is_an_error(file, data):
    path = file(data, "notes.md")

    [error] = capture.read([path])

    assert isinstance(error, CaptureError)
    assert (error.path, error.offset, error.what) == (path, 0, "neither export requests in protobuf nor OTLP/JSON")


@pytest.mark.parametrize("name", ["a.jsonl", "a.binpb", "a", "a.json.gz"])
def test_an_empty_file_holds_nothing(file, name):
    assert read(file(b"", name)) == ([], [])
    assert read(file(gzip.compress(b""), name)) == ([], [])


def test_a_file_that_cannot_be_opened_is_an_error_and_the_next_one_is_read(file):
    gone, kept = file(traces(), "gone"), file(logs(), "kept")
    with capture.open_inputs([gone, kept]) as inputs:
        Path(gone).unlink()

        error, item = inputs

    assert isinstance(error, CaptureError)
    assert (error.path, error.what) == (gone, "cannot be read: No such file or directory")
    assert item.request == logs()


# sizes


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd])
def test_a_line_that_is_too_long_costs_one_line(file, compress):
    text = line(*MIXED[0]) + b'{"resourceSpans":' + b" " * 200_000 + b"[]}\n" + line(*MIXED[1])

    good, errors = read(file(compress(text)))

    assert good == MIXED[:2]
    assert errors == [(len(line(*MIXED[0])), "a document of more than 10000 bytes")]


@pytest.mark.usefixtures("small_limit")
def test_a_document_over_too_many_lines_ends_the_file(file):
    """Where the next document begins cannot be told."""
    text = line(*MIXED[0]) + pretty(Signal.TRACES, traces(spans=100)) + line(*MIXED[1])

    assert read(file(text)) == (MIXED[:1], [(len(line(*MIXED[0])), "a document of more than 10000 bytes")])


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize("form", [varint, big_endian])
def test_a_message_that_is_too_long_ends_the_file(file, form):
    good, errors = read(file(form(traces()) + form(bytes(10_001)) + form(logs())))

    assert good == [(Signal.TRACES, traces())]
    assert errors == [(len(form(traces())), "a length above 10000 bytes; the rest of the file is left")]


@pytest.mark.usefixtures("small_limit")
def test_a_single_request_that_is_too_long_is_an_error(file):
    _, errors = read(file(traces(spans=1000)))

    assert errors == [(0, "a single request of more than 10000 bytes; record it in parts")]


def test_a1_a_message_that_inflates_beyond_the_limit_is_refused_early(file, monkeypatch):
    """1 GiB of zeros in 32 KiB costs some MiB, itself, and nothing else."""
    monkeypatch.setattr(captured, "MAX_MESSAGE", 1 << 20)
    path = file(big_endian(traces()) + big_endian(zstd(bytes(1 << 30))) + big_endian(logs()))

    tracemalloc.start()
    good, errors = read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert good == [(Signal.TRACES, traces()), (Signal.LOGS, logs())]
    assert errors == [(len(big_endian(traces())), "a message of more than 1048576 bytes, inflated")]
    assert peak < 64 << 20


def test_files_are_read_bit_by_bit(file):
    """After the first request most of the file has not been looked at."""
    path = file(as_jsonl([(Signal.TRACES, traces(spans=20))] * 500))
    with capture.open_inputs([path]) as inputs:
        next(iter(inputs))

        assert 0 < inputs.bytes_read < inputs.total_bytes / 4


# what to read


def test_directories_are_searched_to_the_bottom_in_the_order_of_names(file, tmp_path):
    names = ["b.binpb", "a/2.jsonl", "a/1.binpb.gz", "c/d/e.pb", "a.binpb"]
    for name in names:
        file(gzip.compress(traces()) if name.endswith("gz") else traces(), name)
    file(b"# Title\n", "README.md")
    file(b"a: 1\n", "c/truth.yaml")
    file(b'{"runs": []}', "truth.json")
    file(traces(), ".hidden.binpb")
    file(traces(), ".git/a.binpb")

    good, errors = read(str(tmp_path))

    expected = sorted(names, key=lambda name: name.split("/"))
    assert paths_of(str(tmp_path)) == [str(tmp_path / name) for name in expected]
    assert (len(good), errors) == (5, [])


def test_links_to_files_are_followed_and_loops_are_not(file, tmp_path):
    elsewhere = file(traces(), "elsewhere/a.binpb")
    world = tmp_path / "world"
    world.mkdir()
    (world / "link.binpb").symlink_to(elsewhere)
    (world / "loop").symlink_to(world)
    (world / "broken").symlink_to(tmp_path / "nowhere")
    os.mkfifo(world / "pipe")

    assert paths_of(str(world)) == [str(world / "link.binpb")]
    assert paths_of(f"{world}/**/*.binpb") == [str(world / "link.binpb")]


def test_a_file_that_is_reached_twice_is_read_once(file, tmp_path):
    path = file(traces(), "a.binpb")
    (tmp_path / "b.binpb").symlink_to(path)

    assert paths_of(path, str(tmp_path), path, f"{tmp_path}/*", f"{tmp_path}/./a.binpb") == [path]
    assert read(path, str(tmp_path))[1] == []


def test_a_directory_without_otlp_is_an_error(file, tmp_path):
    file(b"# Title", "README.md")

    [error] = capture.read([str(tmp_path)])

    assert (error.path, error.what) == (str(tmp_path), "no OTLP found there")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.binpb", ["a.binpb", "b.binpb"]),
        ("[ab].binpb", ["a.binpb", "b.binpb"]),
        ("?.binpb", ["a.binpb", "b.binpb"]),
        ("**/*.binpb", ["a.binpb", "b.binpb", "d/c.binpb", "d/e/f.binpb"]),
        ("d/**", ["d/c.binpb", "d/e/f.binpb"]),
        ("d*", ["d/c.binpb", "d/e/f.binpb"]),
        ("*", ["a.binpb", "b.binpb", "d/c.binpb", "d/e/f.binpb"]),
        (".*.binpb", [".h.binpb"]),
    ],
)
def test_patterns(file, tmp_path, monkeypatch, pattern, expected):
    for name in ("b.binpb", "a.binpb", "d/c.binpb", "d/e/f.binpb", ".h.binpb", "d/.h/g.binpb"):
        file(traces(), name)
    file(b"text", "notes.md")
    monkeypatch.chdir(tmp_path)

    assert paths_of(pattern) == expected
    assert paths_of(f"{tmp_path}/{pattern}") == [f"{tmp_path}/{name}" for name in expected]


def test_a_name_with_pattern_characters_is_taken_as_it_is(file):
    path = file(traces(), "a[1].binpb")

    assert paths_of(path) == [path]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("nothing.binpb", "cannot be read: No such file or directory"),
        ("", "cannot be read: No such file or directory"),
        ("*.binpb", "matches nothing"),
        ("a/../**x/[", "cannot be used as a pattern"),
    ],
)
def test_arguments_that_lead_nowhere_are_refused_at_once(tmp_path, monkeypatch, name, what):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(CaptureError) as caught:
        capture.open_inputs([name])

    assert caught.value.path == name
    assert what in caught.value.what or "matches nothing" in caught.value.what


def test_standard_input_is_read_as_often_as_needed(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(gzip.compress(as_jsonl(MIXED)))))

    with capture.open_inputs(["-"]) as inputs:
        first, second = list(inputs), list(inputs)

    assert first == second
    assert [(item.path, item.request) for item in first] == [("-", request) for _, request in MIXED]


def test_pipes_are_read_as_often_as_needed(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(as_varint(MIXED),))
    writer.start()

    with capture.open_inputs([str(pipe)]) as inputs:
        writer.join()
        turns = [[item.request for item in inputs] for _ in range(2)]

    assert turns == [[request for _, request in MIXED]] * 2


def test_every_turn_is_the_same_although_a_file_grows(file):
    path = file(as_jsonl(MIXED))
    with capture.open_inputs([path]) as inputs:
        first = list(inputs)
        with Path(path).open("ab") as growing:
            growing.write(as_jsonl(MIXED))

        assert list(inputs) == first


def test_progress_ends_at_the_total(file, tmp_path):
    file(as_jsonl(MIXED), "a.jsonl")
    file(gzip.compress(as_varint(MIXED)), "b.gz")
    file(b"text" * 1000, "c.md")
    with capture.open_inputs([str(tmp_path)]) as inputs:
        assert inputs.total_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
        for _ in range(2):
            assert list(inputs)
            assert inputs.bytes_read == inputs.total_bytes


# writing


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.parametrize("suffix", [".binpb", ".pb", ".jsonl", ".json", ".ndjson", ".JSONL"])
@pytest.mark.parametrize("many", [0, 1, 2, 4])
def test_what_is_written_is_read_again(tmp_path, suffix, compression, many):
    path = str(tmp_path / f"out{suffix}{compression}")

    with capture.open_writer(path) as writer:
        for one in MIXED[:many]:
            writer.write(*one)

    assert read(path) == (MIXED[:many], [])
    assert names_in(tmp_path) == [f"out{suffix}{compression}"]


def test_one_request_is_written_bare_and_several_behind_their_lengths(tmp_path):
    path = tmp_path / "out.binpb"
    for many, expected in ((1, MIXED[0][1]), (3, as_varint(MIXED[:3]))):
        with capture.open_writer(str(path)) as writer:
            for one in MIXED[:many]:
                writer.write(*one)

        assert path.read_bytes() == expected


def test_json_is_written_a_request_a_line(tmp_path):
    path = tmp_path / "out.json"
    with capture.open_writer(str(path)) as writer:
        for one in MIXED:
            writer.write(*one)
        assert writer.offset == len(as_jsonl(MIXED))

    assert path.read_bytes() == as_jsonl(MIXED)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_the_same_input_gives_the_same_bytes(tmp_path, suffix):
    written = []
    for name in ("a.jsonl", "b.jsonl"):
        with capture.open_writer(str(tmp_path / name) + suffix) as writer:
            writer.write(*MIXED[0])
        written.append((tmp_path / (name + suffix)).read_bytes())

    assert written[0] == written[1]


def test_empty_requests_leave_no_trace(tmp_path):
    path = tmp_path / "out.binpb"
    with capture.open_writer(str(path)) as writer:
        writer.write(Signal.LOGS, b"")
        writer.write(*MIXED[0])
        writer.write(Signal.TRACES, b"")

    assert path.read_bytes() == MIXED[0][1]


def test_standard_output_is_json_lines(monkeypatch):
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=out))

    with capture.open_writer("-") as writer:
        for one in MIXED:
            writer.write(*one)

    assert out.getvalue() == as_jsonl(MIXED)


@pytest.mark.parametrize("name", ["out", "out.txt", "out.gz", "out.binpb.bz2", ".jsonl"])
def test_a_name_without_a_format_is_refused(tmp_path, name):
    with pytest.raises(CaptureError, match=r"\.binpb, \.pb, \.jsonl, \.json, \.ndjson, with \.gz or \.zst"):
        capture.open_writer(str(tmp_path / name))

    assert names_in(tmp_path) == []


def test_what_json_cannot_hold_is_refused_and_the_rest_is_written(tmp_path):
    path = tmp_path / "out.jsonl"
    broken = traces("@@").replace(b"@@", b"\xff\xfe")
    with capture.open_writer(str(path)) as writer:
        writer.write(*MIXED[0])
        with pytest.raises(CaptureError, match=r"not UTF-8.*a \.binpb file would keep it") as caught:
            writer.write(Signal.TRACES, broken)
        writer.write(*MIXED[1])

    assert (caught.value.path, caught.value.offset) == (str(path), len(line(*MIXED[0])))
    assert path.read_bytes() == as_jsonl(MIXED[:2])


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.binpb.zst"])
def test_an_error_leaves_what_was_there(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"before")

    def fail():
        with capture.open_writer(str(path)) as writer:
            for one in MIXED:
                writer.write(*one)
            assert path.read_bytes() == b"before"
            raise KeyError

    with pytest.raises(KeyError):
        fail()

    assert path.read_bytes() == b"before"
    assert names_in(tmp_path) == [name]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_told(tmp_path, monkeypatch):
    path = tmp_path / "out.jsonl"
    writer = capture.open_writer(str(path))
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(writer._target, "file", full)

        with pytest.raises(CaptureError, match="cannot be written: No space left on device"):
            writer.write(*MIXED[0])

    assert names_in(tmp_path) == []


@pytest.mark.parametrize("name", ["nowhere/out.jsonl", "directory.jsonl"])
def test_a_place_that_cannot_be_written_is_told(tmp_path, name):
    (tmp_path / "directory.jsonl").mkdir()

    with pytest.raises(CaptureError, match="cannot be written"):
        capture.open_writer(str(tmp_path / name))

    assert names_in(tmp_path) == ["directory.jsonl"]


def test_files_are_as_readable_as_others(tmp_path):
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    with capture.open_writer(str(tmp_path / "out.pb")) as writer:
        writer.write(*MIXED[0])

    assert stat.S_IMODE((tmp_path / "out.pb").stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def test_behind_a_link_the_file_is_replaced(tmp_path):
    (tmp_path / "real.pb").touch()
    (tmp_path / "link.pb").symlink_to("real.pb")

    with capture.open_writer(str(tmp_path / "link.pb")) as writer:
        writer.write(*MIXED[0])

    assert (tmp_path / "link.pb").is_symlink()
    assert (tmp_path / "real.pb").read_bytes() == MIXED[0][1]


def test_an_output_that_is_an_input_is_refused(file, tmp_path):
    path = file(traces(), "a.binpb")
    (tmp_path / "link.binpb").symlink_to(path)
    with capture.open_inputs([str(tmp_path)]) as inputs:
        for name in (path, str(tmp_path / "link.binpb"), f"{tmp_path}/../{tmp_path.name}/a.binpb"):
            with pytest.raises(CaptureError, match="the output is one of the inputs"):
                inputs.refuse_output(name)
        inputs.refuse_output(str(tmp_path / "b.binpb"))
        inputs.refuse_output("-")


@pytest.mark.parametrize(
    ("data", "name"), [(b'{"resourceSpans": [', "a.jsonl"), (b"\x0a\x7fcut", "a.binpb"), (b"no OTLP", "notes.md")]
)
def test_what_is_unreadable_from_the_start_is_named_with_that_offset(file, data, name):
    path = file(data, name)

    [error] = capture.read([path])

    assert str(error).startswith(f"{path}: byte 0: ")
