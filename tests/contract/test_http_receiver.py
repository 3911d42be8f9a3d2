"""The HTTP receiver as its clients see it: an ordinary client, and bare sockets for what no client does."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import logging
import os
import socket
import ssl
import threading
import zlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import aiohttp
import pytest
import zstandard
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from structlog.testing import capture_logs

from enricher import pipeline
from enricher.errors import BadRequestError, EnricherError, PermanentError, RetryableError
from enricher.otlp import json as otlp_json
from enricher.otlp.shallow import Signal
from enricher.otlp.status import STATUS_KEY, Code, partial_success
from enricher.receive import http_body, http_server
from enricher.receive.admission import Admission
from enricher.receive.http_body import MAX_JSON_BYTES, MAX_JSON_MARKS
from enricher.receive.refusals import MAX_TEXT_BYTES
from enricher.scan import Settings
from tests.support.build import a_request, a_span
from tests.support.openssl import self_signed
from tests.support.receivers import Counting, Slow, accept, http_receiver, raising, stop_at_any_time
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from enricher.receive import Consume
    from enricher.receive.http_server import HttpReceiver

LIMIT = 1 << 20
PROTOBUF, JSON = "application/x-protobuf", "application/json"
TYPES = [PROTOBUF, JSON]
# Not protobuf, not UTF-8, with every byte: what must come through as it is.
ANY_BYTES = bytes(range(256)) * 4
TWO_EMPTY = b"\x0a\0\x0a\0"  # twice a ResourceSpans of nothing
EMPTY = {PROTOBUF: b"", JSON: b"{}"}
ERRORS = [code for code in Code if code is not Code.OK]

# What each code of downstream's becomes for good (HTP-08); every other is 500.
BY_CODE = {
    Code.INVALID_ARGUMENT: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.UNIMPLEMENTED: 404,
    Code.RESOURCE_EXHAUSTED: 429,
}


@pytest.fixture(autouse=True)
def short_lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients here that stop in the middle of a body are gone at once, and a test may leave nothing behind."""
    monkeypatch.setattr(http_server, "LINGER_SECONDS", 0.05)


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def error(self) -> Status:
        """The body as a `Status` in the encoding that it has."""
        if self.headers["content-type"] == PROTOBUF:
            return Status.FromString(self.body)
        document = json.loads(self.body)
        return Status(code=document["code"], message=document["message"])


@asynccontextmanager
async def receiving(consume: Consume, limit: int = LIMIT, **settings: object) -> AsyncIterator[HttpReceiver]:
    receiver = http_receiver(consume, max_receive_bytes=limit, **settings)
    await receiver.start()
    try:
        yield receiver
    finally:
        await receiver.shutdown(0)


async def post(
    receiver: HttpReceiver, body: object = b"", kind: str = PROTOBUF, path: str = "/v1/traces", **headers: str
) -> Answer:
    """Send one request on a connection of its own, the body as it is given; an underscore in a name is a hyphen."""
    named = {"Content-Type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return await send(receiver, "POST", path, body, named)


async def send(receiver: HttpReceiver, method: str, path: str, body: object, headers: Mapping[str, str]) -> Answer:
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.request(
            method,
            f"http://127.0.0.1:{receiver.port}{path}",
            data=io.BytesIO(body) if isinstance(body, bytes) else body,
            headers=headers,
            skip_auto_headers=("Content-Type", "Accept-Encoding"),
        ) as response,
    ):
        return Answer(
            response.status,
            {name.lower(): value for name, value in response.headers.items()},
            await response.read(),
        )


class Bare:
    """A connection on which a test says every byte itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def say(self, data: bytes) -> None:
        self._writer.write(data)

    async def answer(self) -> Answer:
        """Return the next answer."""
        head = (await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 30)).decode("latin-1")
        status, *lines = head.splitlines()
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(status.split()[1]), headers, body)

    async def rest(self) -> bytes:
        """Return all that is still said until the connection ends."""
        return await asyncio.wait_for(self._reader.read(), 30)


@asynccontextmanager
async def connected(receiver: HttpReceiver) -> AsyncIterator[Bare]:
    reader, writer = await asyncio.open_connection("127.0.0.1", receiver.port)
    try:
        yield Bare(reader, writer)
    finally:
        writer.close()


def head(*lines: str, path: str = "/v1/traces") -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: stage", f"Content-Type: {PROTOBUF}", *lines, "", ""]).encode()


async def never(_signal: Signal, _request: bytes) -> bytes:
    raise AssertionError("this must not be consumed")


class Keeping:
    """Takes everything and keeps it."""

    def __init__(self, response: bytes = b"") -> None:
        self.seen: list[tuple[Signal, bytes]] = []
        self._response = response

    async def __call__(self, signal: Signal, request: bytes) -> bytes:
        self.seen.append((signal, request))
        return self._response


class TestTheWayThrough:
    @pytest.mark.parametrize("signal", Signal)
    async def test_htp_01_protobuf_goes_through_as_the_same_bytes(self, signal):
        consume = Keeping(ANY_BYTES[::-1])
        async with receiving(consume) as receiver:
            answer = await post(receiver, ANY_BYTES, path=f"/v1/{signal}")

        assert consume.seen == [(signal, ANY_BYTES)]
        assert (answer.status, answer.body) == (200, ANY_BYTES[::-1])

    @pytest.mark.parametrize(
        ("signal", "document", "kind"),
        [
            (
                Signal.TRACES,
                {"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "s"}]}]}]},
                ExportTraceServiceRequest,
            ),
            (Signal.LOGS, {"resourceLogs": [{"schemaUrl": "u"}]}, ExportLogsServiceRequest),
            (Signal.METRICS, {"resourceMetrics": [{"schemaUrl": "u"}]}, ExportMetricsServiceRequest),
        ],
    )
    async def test_htp_02_json_on_the_same_port_is_consumed_as_protobuf(self, signal, document, kind):
        consume = Keeping()
        async with receiving(consume) as receiver:
            answer = await post(receiver, json.dumps(document), JSON, f"/v1/{signal}")
        ((seen, request),) = consume.seen
        parsed = kind.FromString(request)

        assert (seen, answer.status, answer.body) == (signal, 200, b"{}")
        assert getattr(parsed, next(iter(parsed.DESCRIPTOR.fields_by_name)))

    @pytest.mark.parametrize("kind", TYPES)
    @pytest.mark.parametrize("parameters", ["", "; charset=utf-8", ";charset=UTF-8", " ; a=b"])
    async def test_htp_02_htp_03_parameters_are_allowed_and_the_answer_has_the_requests_type(self, kind, parameters):
        async with receiving(accept) as receiver:
            answer = await post(receiver, EMPTY[kind], kind.upper() + parameters)

        assert (answer.status, answer.headers["content-type"]) == (200, kind)

    @pytest.mark.parametrize("kind", TYPES)
    async def test_srv_03_jsn_14_htp_04_an_empty_request_is_consumed_and_answered_with_a_message(self, kind):
        consume = Keeping()
        async with receiving(consume) as receiver:
            answer = await post(receiver, EMPTY[kind], kind)

        assert consume.seen == [(Signal.TRACES, b"")]
        assert (answer.status, answer.body) == (200, EMPTY[kind])

    async def test_srv_05_a_partial_success_is_passed_on_in_protobuf(self):
        async with receiving(Keeping(partial_success(3, "too old"))) as receiver:
            assert (await post(receiver)).body == partial_success(3, "too old")

    @pytest.mark.parametrize(
        ("signal", "key"),
        [
            (Signal.TRACES, "rejectedSpans"),
            (Signal.LOGS, "rejectedLogRecords"),
            (Signal.METRICS, "rejectedDataPoints"),
        ],
    )
    async def test_srv_05_jsn_05_a_partial_success_is_passed_on_in_json(self, signal, key):
        async with receiving(Keeping(partial_success(3, "too old"))) as receiver:
            answer = await post(receiver, b"{}", JSON, f"/v1/{signal}")

        assert json.loads(answer.body) == {"partialSuccess": {key: "3", "errorMessage": "too old"}}

    async def test_srv_04_srv_05_a_warning_has_no_number_and_nothing_is_said_of_nothing(self):
        async with receiving(Keeping(partial_success(0, "slow down"))) as receiver:
            warned = await post(receiver, b"{}", JSON)
        async with receiving(Keeping(partial_success(0, ""))) as receiver:
            silent = await post(receiver, b"{}", JSON)

        assert json.loads(warned.body) == {"partialSuccess": {"errorMessage": "slow down"}}
        assert silent.body == b"{}"

    @pytest.mark.parametrize(
        ("coding", "compress"),
        [
            ("gzip", gzip.compress),
            ("GZIP", gzip.compress),
            ("deflate", zlib.compress),
            ("zlib", zlib.compress),
            ("zstd", zstandard.compress),
            ("identity", bytes),
        ],
    )
    @pytest.mark.parametrize("size", [0, 100, 200_000])
    async def test_srv_01_compressed_bodies_arrive_inflated(self, coding, compress, size):
        """Below and above the size from which it is done in a thread."""
        consume, body = Keeping(), os.urandom(size)
        async with receiving(consume) as receiver:
            answer = await post(receiver, compress(body), Content_Encoding=coding)

        assert (answer.status, consume.seen) == (200, [(Signal.TRACES, body)])

    async def test_compressed_json_arrives(self):
        consume, spans = Keeping(), [{"name": os.urandom(30).hex()} for _ in range(2000)]
        document = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()
        async with receiving(consume) as receiver:
            answer = await post(receiver, gzip.compress(document), JSON, Content_Encoding="gzip")
        (scope,) = ExportTraceServiceRequest.FromString(consume.seen[0][1]).resource_spans[0].scope_spans

        assert answer.status == 200
        assert [span.name for span in scope.spans] == [span["name"] for span in spans]

    async def test_htp_13_an_answer_is_not_compressed(self):
        async with receiving(Keeping(bytes(5000))) as receiver:
            answer = await post(receiver, Accept_Encoding="gzip")

        assert "content-encoding" not in answer.headers
        assert answer.body == bytes(5000)

    async def test_htp_14_one_connection_takes_many_requests(self):
        consume = Keeping()
        async with receiving(consume) as receiver, connected(receiver) as connection:
            for number in range(3):
                connection.say(head("Content-Length: 1") + b"%d" % number)
                assert (await connection.answer()).status == 200

        assert [request for _, request in consume.seen] == [b"0", b"1", b"2"]

    async def test_htp_14_requests_that_are_sent_ahead_are_answered_in_their_order(self):
        async def echo(_signal: Signal, request: bytes) -> bytes:
            return request

        async with receiving(echo) as receiver, connected(receiver) as connection:
            connection.say(b"".join(head("Content-Length: 2") + b"%02d" % number for number in range(50)))

            assert [(await connection.answer()).body for _ in range(50)] == [b"%02d" % number for number in range(50)]

    async def test_htp_15_chunked_bodies_without_a_length_arrive(self):
        consume = Keeping()
        async with receiving(consume) as receiver, connected(receiver) as connection:
            connection.say(head("Transfer-Encoding: chunked") + b"3\r\nabc\r\n")
            connection.say(b"2\r\nde\r\n0\r\n\r\n")

            assert (await connection.answer()).status == 200
        assert consume.seen == [(Signal.TRACES, b"abcde")]

    async def test_htp_16_who_expects_100_continue_gets_it_before_the_body(self):
        consume = Keeping()
        async with receiving(consume) as receiver, connected(receiver) as connection:
            connection.say(head("Expect: 100-continue", "Content-Length: 3"))
            assert (await connection.answer()).status == 100
            connection.say(b"abc")

            assert (await connection.answer()).status == 200
        assert consume.seen == [(Signal.TRACES, b"abc")]

    async def test_htp_14_http_1_0_is_answered_and_closed(self):
        consume = Keeping()
        async with receiving(consume) as receiver, connected(receiver) as connection:
            connection.say(head("Content-Length: 3").replace(b"HTTP/1.1", b"HTTP/1.0") + b"abc")
            assert (await connection.answer()).status == 200
            assert await connection.rest() == b""

        assert consume.seen == [(Signal.TRACES, b"abc")]

    async def test_jsn_a_real_pipeline_takes_json(self):
        """What JSON clients send is the same request for everything behind the receiver."""
        request, sent = a_request([a_span()]), []

        async def consume(signal: Signal, given: bytes) -> bytes:
            sent.append(pipeline.process(signal, given, Settings()).request)
            return b""

        async with receiving(consume) as receiver:
            await post(receiver, otlp_json.encode(Signal.TRACES, request), JSON)

        assert ExportTraceServiceRequest.FromString(sent[0]) == ExportTraceServiceRequest.FromString(request)


def spans_with(**fields: object) -> bytes:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [fields]}]}]}).encode()


def deep(levels: int) -> bytes:
    value = '{"arrayValue":{"values":[' * levels + "{}" + "]}}" * levels
    return b'{"resourceSpans":[{"resource":{"attributes":[{"key":"k","value":' + value.encode() + b"}]}}]}"


class TestJson:
    """The rows of `enricher.otlp.json`, which has tests of its own, as a client sees them."""

    @pytest.mark.parametrize(
        ("body", "read"),
        [
            (spans_with(traceId="AB" * 16), lambda span: span.trace_id == b"\xab" * 16),
            (spans_with(spanId="ab" * 8), lambda span: span.span_id == b"\xab" * 8),
            (spans_with(trace_id="ab" * 16), lambda span: span.trace_id == b""),
            (spans_with(unknown={"a": [1]}), lambda span: not span.ListFields()),
            (spans_with(kind=99), lambda span: span.kind == 99),
            (spans_with(startTimeUnixNano="5"), lambda span: span.start_time_unix_nano == 5),
            (spans_with(startTimeUnixNano=5), lambda span: span.start_time_unix_nano == 5),
            (spans_with(startTimeUnixNano=5.0), lambda span: span.start_time_unix_nano == 5),
            (
                spans_with(attributes=[{"key": "d", "value": {"doubleValue": "Infinity"}}]),
                lambda span: span.attributes[0].value.double_value == float("inf"),
            ),
            (
                spans_with(attributes=[{"key": "b", "value": {"bytesValue": "AAE="}}]),
                lambda span: span.attributes[0].value.bytes_value == b"\0\1",
            ),
            (spans_with(name=None), lambda span: span.name == ""),
            (spans_with(name="a\0b"), lambda span: span.name == "a\0b"),
        ],
        ids=[
            "jsn_01_upper_case",
            "jsn_01_span_id",
            "jsn_02_snake_case_is_unknown",
            "jsn_03_unknown_key",
            "jsn_04_unknown_enum",
            "jsn_05_text",
            "jsn_05_number",
            "jsn_05_whole_float",
            "jsn_06_infinity",
            "jsn_07_base64",
            "jsn_08_null",
            "jsn_10_nul",
        ],
    )
    async def test_what_is_taken(self, body: bytes, read: Callable[..., bool]):
        consume = Keeping()
        async with receiving(consume) as receiver:
            answer = await post(receiver, body, JSON)
        ((_, request),) = consume.seen

        assert answer.status == 200
        assert read(ExportTraceServiceRequest.FromString(request).resource_spans[0].scope_spans[0].spans[0])

    @pytest.mark.parametrize("body", [b"{}", b'{"resourceSpans":[]}', b'{"resourceSpans":null}', b'{"other":1}'])
    async def test_jsn_14_without_resource_spans_it_is_an_empty_request(self, body):
        consume = Keeping()
        async with receiving(consume) as receiver:
            assert (await post(receiver, body, JSON)).status == 200
        assert consume.seen == [(Signal.TRACES, b"")]

    @pytest.mark.parametrize(
        "body",
        [
            spans_with(traceId="YWJjZA=="),
            spans_with(traceId="ab" * 15),
            spans_with(kind="SPAN_KIND_CLIENT"),
            spans_with(startTimeUnixNano=1.5),
            spans_with(startTimeUnixNano=2**64),
            spans_with(droppedAttributesCount=1e300),
            b'{"resourceSpans":[],"resourceSpans":[]}',
            b'{"resourceSpans":[{"schemaUrl":"\\ud800"}]}',
            deep(60),
            b"[" * 100_000,
            b'{"resourceSpans":' + b"9" * 5000 + b"}",
            b'{"resourceSpans":NaN}',
            b"",
            b"not JSON",
            b"\xff{}",
            b"[]",
            b"null",
        ],
        ids=[
            "jsn_01_base64",
            "jsn_01_length",
            "jsn_04_name",
            "jsn_05_fraction",
            "jsn_05_too_large",
            "jsn_05_huge",
            "jsn_09_key_twice",
            "jsn_10_lone_surrogate",
            "jsn_11_deep_values",
            "jsn_11_a8_deep_json",
            "jsn_12_a8_digits",
            "a8_nan",
            "nothing",
            "text",
            "not_utf_8",
            "array",
            "null",
        ],
    )
    async def test_htp_06_what_is_refused(self, body):
        async with receiving(never) as receiver:
            answer = await post(receiver, body, JSON)

        assert (answer.status, answer.error.code) == (400, Code.INVALID_ARGUMENT)
        assert json.loads(answer.body)["details"][0]["@type"] == "type.googleapis.com/google.rpc.BadRequest"

    async def test_jsn_11_a_depth_that_protobuf_reads_is_taken(self):
        async with receiving(accept) as receiver:
            assert (await post(receiver, deep(40), JSON)).status == 200

    async def test_a8_json_has_a_lower_limit(self):
        async with receiving(never, MAX_JSON_BYTES * 2) as receiver:
            answer = await post(receiver, b'{"x":"' + b"a" * MAX_JSON_BYTES + b'"}', JSON)

        assert answer.status == 413

    @pytest.mark.parametrize("coding", ["identity", "gzip"])
    async def test_others_are_answered_while_a_large_document_is_read(self, coding, monkeypatch):
        loop, started, done = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

        def read(_body: bytes, _signal: Signal) -> bytes:
            loop.call_soon_threadsafe(started.set)
            assert done.wait(30)
            return b"read"

        monkeypatch.setattr(http_body, "_from_json", read)
        document = b"{}".ljust(http_body.INLINE_JSON_BYTES + 1)
        body = gzip.compress(document) if coding == "gzip" else document
        consume = Keeping()
        async with receiving(consume) as receiver:
            large = asyncio.ensure_future(post(receiver, body, JSON, Content_Encoding=coding))
            await started.wait()
            await post(receiver, b"small")
            done.set()

            assert (await large).status == 200
        assert [request for _, request in consume.seen] == [b"small", b"read"]

    @pytest.mark.parametrize("element", [b"{},", b"[],", b"1,"])
    async def test_a8_json_of_nothing_but_marks_is_refused_before_it_is_read(self, element):
        body = b'{"resourceSpans":[' + element * MAX_JSON_MARKS + b"1]}"
        async with receiving(never, MAX_JSON_BYTES) as receiver:
            answer = await post(receiver, body, JSON)

        assert (answer.status, "in one request; send it in parts" in answer.error.message) == (400, True)


class TestErrors:
    @pytest.mark.parametrize("kind", TYPES)
    @pytest.mark.parametrize("code", ERRORS, ids=lambda code: code.name)
    async def test_htp_08_htp_05_a_permanent_answer_keeps_its_code_and_text(self, code, kind):
        async with receiving(raising(PermanentError(code, "no — nein"))) as receiver:
            answer = await post(receiver, EMPTY[kind], kind)

        assert answer.status == BY_CODE.get(code, 500)
        assert (answer.headers["content-type"], answer.error) == (kind, Status(code=code, message="no — nein"))
        assert "retry-after" not in answer.headers

    @pytest.mark.parametrize("kind", TYPES)
    @pytest.mark.parametrize("code", ERRORS, ids=lambda code: code.name)
    async def test_htp_08_htp_09_a_retryable_answer_comes_with_one_second(self, code, kind):
        async with receiving(raising(RetryableError(code, "busy", retry_delay=30.0))) as receiver:
            answer = await post(receiver, EMPTY[kind], kind)

        assert answer.status == (429 if code is Code.RESOURCE_EXHAUSTED else 503)
        assert (answer.error.code, answer.error.message, answer.headers["retry-after"]) == (code, "busy", "1")

    @pytest.mark.parametrize("kind", TYPES)
    async def test_htp_06_bad_data_is_400_with_what_was_wrong(self, kind):
        async with receiving(raising(BadRequestError("not an OTLP export request"))) as receiver:
            answer = await post(receiver, EMPTY[kind], kind)

        assert (answer.status, answer.error.code) == (400, Code.INVALID_ARGUMENT)
        assert answer.body.count(b"not an OTLP export request") == 2
        if kind == PROTOBUF:
            wrong = BadRequest()
            assert answer.error.details[0].Unpack(wrong)
            assert wrong.field_violations[0].description == "not an OTLP export request"

    @pytest.mark.parametrize("body", [b"\xff", b"\x0a\x7f", b"\x08\x01\x0d", b"\x0a\x05hello"])
    async def test_f39_garbage_is_400_by_the_pipeline_behind(self, body):
        async def consume(signal: Signal, request: bytes) -> bytes:
            return pipeline.process(signal, request, Settings()).request

        async with receiving(consume) as receiver:
            answer = await post(receiver, body)

        assert (answer.status, answer.error.code) == (400, Code.INVALID_ARGUMENT)

    async def test_downstreams_details_are_passed_on(self):
        info = RetryInfo()
        info.retry_delay.FromMilliseconds(250)
        status = Status(code=14, message="busy")
        status.details.add().Pack(info)
        status.details.add(type_url="type.googleapis.com/a.b.Unknown", value=b"x")
        given = ((STATUS_KEY, status.SerializeToString()),)
        async with receiving(raising(RetryableError(14, "busy", given, 0.25))) as receiver:
            protobuf, in_json = await post(receiver), await post(receiver, b"{}", JSON)

        assert Status.FromString(protobuf.body) == status
        assert json.loads(in_json.body)["details"] == [
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.25s"}
        ]

    @pytest.mark.parametrize("kind", TYPES)
    @pytest.mark.parametrize("details", [b"\xff" * 20, Status(code=3).SerializeToString(), b""])
    async def test_details_that_are_none_or_say_something_else_are_replaced(self, kind, details):
        async with receiving(raising(PermanentError(16, "who?", ((STATUS_KEY, details),)))) as receiver:
            answer = await post(receiver, EMPTY[kind], kind)

        assert answer.error == Status(code=16, message="who?")

    async def test_srv_06_a_long_text_is_cut(self):
        async with receiving(raising(PermanentError(3, "ü" * 100_000))) as receiver:
            answer = await post(receiver)

        assert answer.error.message == "ü" * (MAX_TEXT_BYTES // 2)

    @pytest.mark.parametrize("kind", TYPES)
    @pytest.mark.parametrize("path", ["/", "/v1/trace", "/v1/traces/", "/v1/profiles", "//v1/traces", "/v1/traces%2f"])
    async def test_htp_01_other_paths_are_404(self, kind, path):
        async with receiving(never) as receiver:
            answer = await post(receiver, EMPTY[kind], kind, path)

        assert (answer.status, answer.headers["content-type"]) == (404, kind)
        assert "/v1/traces, " in answer.error.message

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
    async def test_htp_10_other_methods_are_405(self, method):
        async with receiving(never) as receiver:
            answer = await send(receiver, method, "/v1/traces", None, {})

        assert (answer.status, answer.headers["allow"]) == (405, "POST")
        assert answer.error.message == "no such method; expected POST"

    @pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/json2", "x"])
    async def test_htp_10_no_or_another_content_type_is_415(self, kind):
        async with receiving(never) as receiver:
            answer = await send(receiver, "POST", "/v1/traces", b"", {"Content-Type": kind} if kind else {})

        assert (answer.status, answer.headers["content-type"]) == (415, JSON)
        assert answer.headers["accept"] == f"{PROTOBUF}, {JSON}"
        assert f"expected {PROTOBUF} or {JSON}" in answer.error.message

    @pytest.mark.parametrize("kind", TYPES)
    @pytest.mark.parametrize("coding", ["br", "snappy", "gzip, gzip", "secret"])
    async def test_htp_11_another_content_encoding_is_415(self, kind, coding):
        async with receiving(never) as receiver:
            answer = await post(receiver, EMPTY[kind], kind, Content_Encoding=coding)

        assert (answer.status, answer.headers["content-type"]) == (415, kind)
        assert answer.headers["accept-encoding"] == "gzip, deflate, zlib, zstd"
        assert "secret" not in answer.error.message

    @pytest.mark.parametrize("kind", TYPES)
    @pytest.mark.parametrize("body", [gzip.compress(b"{}")[:-1], gzip.compress(b"{}") + b"x", b"no gzip", b""])
    async def test_htp_12_f40_damaged_gzip_is_400(self, kind, body):
        async with receiving(never) as receiver:
            answer = await post(receiver, body, kind, Content_Encoding="gzip")

        assert (answer.status, answer.headers["content-type"], answer.error.code) == (400, kind, 3)

    async def test_a2_f40_many_empty_members_are_400(self):
        async with receiving(never, 64 << 20) as receiver:
            answer = await post(receiver, gzip.compress(b"") * 300_000, Content_Encoding="gzip")

        assert answer.status == 400


class TestLimits:
    @pytest.mark.parametrize("kind", TYPES)
    async def test_htp_07_one_byte_above_the_limit_is_413(self, kind):
        consume = Keeping()
        async with receiving(consume, 1000) as receiver:
            at = await post(receiver, b"{}".ljust(1000), kind)
            above = await post(receiver, b"{}".ljust(1001), kind)

        assert (at.status, above.status, len(consume.seen)) == (200, 413, 1)
        assert (above.headers["content-type"], above.error.code) == (kind, Code.RESOURCE_EXHAUSTED)
        assert "retry-after" not in above.headers

    async def test_htp_17_a_length_above_the_limit_is_refused_before_the_body_is_sent(self):
        async with receiving(never) as receiver, connected(receiver) as connection:
            connection.say(head(f"Content-Length: {LIMIT + 1}"))

            assert (await connection.answer()).status == 413

    async def test_htp_16_htp_17_and_who_asks_first_is_not_told_to_go_on(self):
        async with receiving(never) as receiver, connected(receiver) as connection:
            connection.say(head("Expect: 100-continue", f"Content-Length: {LIMIT + 1}"))

            assert (await connection.answer()).status == 413

    async def test_htp_15_a_chunked_body_is_refused_once_it_is_too_large(self):
        async with receiving(never) as receiver, connected(receiver) as connection:
            connection.say(head("Transfer-Encoding: chunked") + b"%x\r\n" % (LIMIT + 1) + bytes(LIMIT + 1))

            assert (await connection.answer()).status == 413

    @pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("zstd", zstandard.compress)])
    @pytest.mark.parametrize("size", [LIMIT + 1, LIMIT * 64])
    async def test_a1_f40_a_body_that_inflates_above_the_limit_is_413(self, coding, compress, size):
        async with receiving(never) as receiver:
            answer = await post(receiver, compress(bytes(size)), Content_Encoding=coding)

        assert (answer.status, answer.error.code) == (413, Code.RESOURCE_EXHAUSTED)

    async def test_htp_18_a_silent_connection_and_unfinished_headers_are_closed(self, monkeypatch):
        monkeypatch.setattr(http_server, "IDLE_SECONDS", 0.05)
        async with receiving(accept) as receiver:
            for said in (b"", head()[:-2], head("Content-Length: 0")):
                async with connected(receiver) as connection:
                    connection.say(said)
                    if said.endswith(b"\r\n\r\n"):
                        assert (await connection.answer()).status == 200

                    assert await connection.rest() == b""

    async def test_htp_18_a_body_that_does_not_arrive_is_408(self, monkeypatch):
        monkeypatch.setattr(http_body, "BODY_SECONDS", 0.05)
        async with receiving(never) as receiver, connected(receiver) as connection:
            connection.say(head("Content-Length: 10") + b"abc")
            answer = await connection.answer()

            assert (answer.status, answer.error.code) == (408, Code.DEADLINE_EXCEEDED)
            assert await connection.rest() == b""

    async def test_a4_other_clients_are_answered_beside_many_that_stall(self):
        async with receiving(accept) as receiver:
            stalled = [await asyncio.open_connection("127.0.0.1", receiver.port) for _ in range(100)]
            for _, writer in stalled:
                writer.write(head("Content-Length: 10") + b"abc")

            assert (await post(receiver)).status == 200
            for _, writer in stalled:
                writer.close()


class TestRoom:
    """What is read counts as in flight beside what is consumed, so that bodies that are read cannot fill the memory."""

    async def test_srv_07_htp_17_a_length_that_does_not_fit_is_refused_before_the_body_is_sent(self):
        admission = Admission(100)
        async with receiving(accept, admission=admission) as receiver, connected(receiver) as client:
            with admission.room() as others:
                others.take(60)
                client.say(head("Expect: 100-continue", "Content-Length: 41"))
                answer = await client.answer()

        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert (answer.error.code, "are in flight" in answer.error.message) == (Code.UNAVAILABLE, True)

    async def test_srv_07_htp_15_a_chunked_body_is_refused_once_it_does_not_fit(self):
        admission = Admission(100)
        async with receiving(accept, admission=admission) as receiver, connected(receiver) as client:
            with admission.room() as others:
                others.take(60)
                client.say(head("Transfer-Encoding: chunked") + b"28\r\n" + bytes(40) + b"\r\n")
                await until(lambda: admission.in_flight == 100)
                client.say(b"1\r\n\0\r\n")
                answer = await client.answer()
                in_flight = admission.in_flight

        assert (answer.status, answer.headers["retry-after"], in_flight) == (503, "1", 60)

    @pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("zstd", zstandard.compress)])
    @pytest.mark.parametrize("size", [LIMIT, LIMIT * 16])
    async def test_srv_07_a1_a_body_is_refused_once_what_it_inflates_to_does_not_fit(self, coding, compress, size):
        admission, body = Admission(size), bytes(size)
        async with receiving(accept, size, admission=admission) as receiver:
            with admission.room() as others:
                others.take(1)
                refused = await post(receiver, compress(body), Content_Encoding=coding)
                in_flight = admission.in_flight
            taken = await post(receiver, compress(body), Content_Encoding=coding)

        assert (refused.status, in_flight, taken.status) == (503, 1, 200)

    async def test_srv_07_of_two_bodies_that_are_half_read_one_is_refused_and_the_other_taken(self):
        admission = Admission(100)
        async with (
            receiving(accept, admission=admission) as receiver,
            connected(receiver) as one,
            connected(receiver) as other,
        ):
            for client in (one, other):
                client.say(head("Expect: 100-continue", "Content-Length: 80"))
                assert (await client.answer()).status == 100
            for client in (one, other):
                client.say(bytes(50))
            await until(lambda: admission.in_flight == 100)
            one.say(bytes(30))
            refused = await one.answer()
            other.say(bytes(30))
            taken = await other.answer()

        assert (refused.status, taken.status, admission.in_flight) == (503, 200, 0)

    async def test_f45_a_client_that_leaves_within_its_body_gives_its_room_back(self):
        admission = Admission(100)
        async with receiving(accept, admission=admission) as receiver:
            async with connected(receiver) as client:
                client.say(head("Content-Length: 80") + bytes(50))
                await until(lambda: admission.in_flight == 50)
            await until(lambda: admission.in_flight == 0)

    async def test_a4_lengths_that_are_told_and_not_sent_keep_nobody_out(self):
        admission = Admission(100)
        async with receiving(accept, admission=admission) as receiver, connected(receiver) as silent:
            silent.say(head("Expect: 100-continue", "Content-Length: 100"))
            assert (await silent.answer()).status == 100

            assert (await post(receiver, bytes(100))).status == 200

    @pytest.mark.parametrize(
        ("body", "headers"),
        [
            (TWO_EMPTY, {}),
            (gzip.compress(TWO_EMPTY), {"Content_Encoding": "gzip"}),
            (b'{"resourceSpans":[{}, {}]}', {"kind": JSON}),
        ],
    )
    async def test_a_request_is_counted_once_whatever_it_came_as(self, body, headers):
        admission, seen = Admission(), []

        async def consume(_signal: Signal, request: bytes) -> bytes:
            seen.append((request, admission.in_flight))
            return b""

        async with receiving(consume, admission=admission) as receiver:
            await post(receiver, body, **headers)

        assert (seen, admission.in_flight) == ([(TWO_EMPTY, len(TWO_EMPTY))], 0)


class TestMalformed:
    CASES = (
        pytest.param(head("X-Canary: " + "canary" * 5000), id="a18_large_header"),
        pytest.param(b"POST /" + b"canary" * 5000 + b" HTTP/1.1\r\n\r\n", id="a18_long_path"),
        pytest.param(head(*(f"X-Canary-{n}: 1" for n in range(200))), id="a18_many_headers"),
        pytest.param(head("Canary\0: 1"), id="a18_nul_in_a_name"),
        pytest.param(b"\x16\x03\x01canary\r\n\r\n", id="tls_on_the_plain_port"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ncanary", id="grpc_on_the_http_port"),
        pytest.param(head("Content-Length: canary"), id="a19_length_of_letters"),
        pytest.param(head("Content-Length: -1") + b"canary", id="a19_negative_length"),
        pytest.param(head("Content-Length: 6", "Content-Length: 7") + b"canary", id="a19_two_lengths"),
        pytest.param(
            head("Content-Length: 6", "Transfer-Encoding: chunked") + b"0\r\n\r\ncanary", id="a19_length_and_chunks"
        ),
        pytest.param(head("Transfer-Encoding: canary") + b"canary", id="a19_unknown_transfer"),
        pytest.param(head("Transfer-Encoding: chunked") + b"canary\r\n\r\n", id="a19_chunk_without_size"),
        pytest.param(head("Transfer-Encoding: chunked") + b"-1\r\ncanary\r\n0\r\n\r\n", id="a19_negative_chunk"),
        pytest.param(head("Transfer-Encoding: chunked") + b"1\r\ncanary\r\n0\r\n\r\n", id="a19_chunk_too_long"),
    )

    @pytest.mark.parametrize("said", CASES)
    async def test_it_is_400_and_closed_and_neither_quoted_nor_logged(self, said, caplog):
        with caplog.at_level(logging.DEBUG), capture_logs() as logs:
            async with receiving(never) as receiver, connected(receiver) as connection:
                connection.say(said)
                answer = await connection.answer()
                rest = await connection.rest()

        assert (answer.status, answer.error.code, rest) == (400, Code.INVALID_ARGUMENT, b"")
        assert b"canary" not in answer.body.lower()
        assert [record for record in caplog.records if record.name != "asyncio"] == logs == []

    async def test_a18_no_answer_names_a_version(self):
        async with receiving(accept) as receiver:
            assert (await post(receiver)).headers["server"] == "enricher"

    async def test_f45_a_client_that_leaves_within_its_body_is_no_error(self, caplog):
        consume = Keeping()
        with caplog.at_level(logging.INFO), capture_logs() as logs:
            async with receiving(consume) as receiver:
                async with connected(receiver) as connection:
                    connection.say(head("Content-Length: 10") + b"abc")
                await post(receiver, b"another")

        assert (consume.seen, logs, caplog.records) == ([(Signal.TRACES, b"another")], [], [])

    async def test_f45_what_came_whole_is_finished_although_its_client_leaves(self, caplog):
        entered, finish, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def consume(_signal: Signal, _request: bytes) -> bytes:
            entered.set()
            await finish.wait()
            finished.set()
            return b""

        with caplog.at_level(logging.INFO), capture_logs() as logs:
            async with receiving(consume) as receiver:
                async with connected(receiver) as connection:
                    connection.say(head("Content-Length: 3") + b"abc")
                    await entered.wait()
                finish.set()
                await finished.wait()

        assert (logs, caplog.records) == ([], [])


class TestCors:
    async def test_htp_19_no_page_of_another_origin_is_let_in(self):
        asked = {"Origin": "http://evil.test", "Access-Control-Request-Method": "POST"}
        async with receiving(accept) as receiver:
            preflight = await send(receiver, "OPTIONS", "/v1/traces", None, asked)
            answer = await post(receiver, Origin="http://evil.test")

        assert preflight.status == 405
        assert not [name for name in {**preflight.headers, **answer.headers} if name.startswith("access-control")]


class TestAuthentication:
    @pytest.mark.parametrize("kind", TYPES)
    async def test_f42_who_is_not_let_in_gets_401_in_its_encoding(self, kind):
        async with receiving(never, authenticate=lambda _: False) as receiver:
            answer = await post(receiver, EMPTY[kind], kind)

        assert (answer.status, answer.headers["content-type"]) == (401, kind)
        assert answer.error == Status(code=16, message="not authenticated")

    async def test_f42_the_body_is_not_read_first(self):
        async with receiving(never, authenticate=lambda _: False) as receiver, connected(receiver) as connection:
            connection.say(head(f"Content-Length: {60 << 20}"))

            assert (await connection.answer()).status == 401

    async def test_the_headers_are_given_by_lower_case_name(self):
        seen: list[Mapping[str, str]] = []
        async with receiving(accept, authenticate=lambda headers: seen.append(headers) or True) as receiver:
            answer = await post(receiver, Authorization="Bearer a")

        assert (answer.status, seen[0]["authorization"]) == (200, "Bearer a")

    async def test_f42_a_header_that_comes_twice_matches_no_token(self):
        seen: list[Mapping[str, str]] = []
        async with (
            receiving(accept, authenticate=lambda headers: seen.append(headers) or True) as receiver,
            connected(receiver) as connection,
        ):
            connection.say(head("Authorization: Bearer a", "Authorization: Bearer b", "Content-Length: 0"))
            await connection.answer()

        assert seen[0]["authorization"] == "Bearer a, Bearer b"

    async def test_a10_f42_a_header_that_is_not_ascii_can_be_encoded_again(self):
        seen: list[bytes] = []
        async with (
            receiving(never, authenticate=lambda headers: bool(seen.append(headers["authorization"].encode()))) as to,
            connected(to) as connection,
        ):
            connection.say(head("Content-Length: 0")[:-2] + b"Authorization: \xff\xc3\xa4\r\n\r\n")

            assert (await connection.answer()).status == 401
        assert seen == ["\xff\xc3\xa4".encode()]

    async def test_unauthenticated_peers_are_not_told_which_paths_there_are(self):
        async with receiving(never, authenticate=lambda _: False) as receiver:
            assert (await post(receiver, path="/v1/other")).status == 401

    async def test_a23_an_authentication_that_fails_lets_nobody_in(self):
        def broken(_headers: Mapping[str, str]) -> bool:
            raise ValueError("a secret")

        with capture_logs() as logs:
            async with receiving(never, authenticate=broken) as receiver:
                answer = await post(receiver)

        assert (answer.status, "secret" in answer.error.message) == (503, False)
        assert [line["error"] for line in logs] == ["ValueError"]


class TestInternalErrors:
    async def test_a23_the_client_gets_an_id_and_the_log_the_rest_once(self):
        with capture_logs() as logs:
            async with receiving(raising(ValueError("a secret"))) as receiver:
                answers = [await post(receiver) for _ in range(3)]

        assert {(answer.status, answer.headers["retry-after"]) for answer in answers} == {(503, "1")}
        assert [answer.error.message for answer in answers] == [f"internal error, id={line['id']}" for line in logs]
        assert [line["exc_info"] is None for line in logs] == [False, True, True], "one traceback for one kind (F43)"

    @pytest.mark.parametrize("kind", TYPES)
    @pytest.mark.parametrize(
        "error",
        [
            KeyError("secret"),
            RecursionError("secret"),
            TimeoutError("secret"),
            ConnectionResetError("secret"),
            EnricherError("secret"),
            aiohttp.web.HTTPOk(reason="secret"),
            asyncio.CancelledError("secret"),
            ExceptionGroup("secret", [ValueError("secret")]),
        ],
        ids=lambda error: type(error).__name__,
    )
    async def test_a23_whatever_fails_is_retryable_and_not_told(self, error, kind):
        with capture_logs() as logs:
            async with receiving(raising(error)) as receiver:
                answer = await post(receiver, EMPTY[kind], kind)

        assert (answer.status, answer.error.code) == (503, Code.UNAVAILABLE)
        assert b"secret" not in answer.body
        assert [line["error"] for line in logs] == [type(error).__name__]

    async def test_aiohttp_logs_nothing_of_its_own(self, caplog):
        with caplog.at_level(logging.INFO), capture_logs():
            async with receiving(raising(KeyError("x"))) as receiver:
                await post(receiver)

        assert caplog.records == []


class TestLifecycle:
    async def test_shutdown_before_start_and_twice(self):
        await stop_at_any_time(http_receiver(accept))

    async def test_grp_10_what_is_in_flight_finishes_and_what_is_new_is_503(self):
        consume = Slow()
        async with receiving(consume) as receiver:
            in_flight = asyncio.ensure_future(post(receiver))
            await consume.entered.wait()
            stopping = asyncio.ensure_future(receiver.shutdown(30))
            await asyncio.sleep(0)  # the stop is called, not awaited
            late = await post(receiver)
            consume.finish.set()

            assert (await in_flight).body == b"finished"
            await stopping
        assert (late.status, late.headers["retry-after"]) == (503, "1")
        assert (late.error.code, late.error.message) == (Code.UNAVAILABLE, "the receiver is shutting down")

    @pytest.mark.parametrize("body", [b"", b"ab"])
    async def test_f23_what_is_not_finished_within_grace_is_503(self, body):
        """Whether it is being consumed or is still on its way in."""
        consume = Slow()
        async with receiving(consume) as receiver, connected(receiver) as connection:
            connection.say(head("Expect: 100-continue", "Content-Length: 3"))
            await connection.answer()
            connection.say(body or b"abc")
            if not body:
                await consume.entered.wait()
            await receiver.shutdown(0)
            answer = await connection.answer()

        assert (answer.status, answer.error.message) == (503, "the receiver is shutting down")

    async def test_f20_a_stop_under_load_gives_answers_or_503_or_no_connection(self):
        """What the clients count as taken is what was consumed."""
        consume = Counting(200)
        results: list[object] = []

        async def keep_sending() -> None:
            url, headers = f"http://127.0.0.1:{receiver.port}/v1/traces", {"Content-Type": PROTOBUF}
            async with aiohttp.ClientSession() as session:
                while not results or results[-1] == 200:
                    async with session.post(url, data=b"x", headers=headers) as response:
                        results.append(response.status)

        async with receiving(consume) as receiver:
            clients = [asyncio.ensure_future(keep_sending()) for _ in range(8)]
            await consume.enough.wait()
            await receiver.shutdown(10)
            await asyncio.gather(*clients)

        assert set(results) == {200, 503}
        assert results.count(200) == consume.consumed

    async def test_f31_a_port_that_is_taken_is_named(self):
        with socket.create_server(("127.0.0.1", 0)) as other:
            endpoint = f"127.0.0.1:{other.getsockname()[1]}"

            with pytest.raises(EnricherError, match=f"cannot listen for HTTP on {endpoint}: the port is taken"):
                await http_receiver(accept, endpoint).start()

    async def test_a20_two_receivers_do_not_share_a_port(self):
        async with receiving(accept) as first:
            second = http_receiver(accept, f"localhost:{first.port}")

            with pytest.raises(EnricherError, match=r"set receivers\.otlp\.protocols\.http\.endpoint to another"):
                await second.start()

    @pytest.mark.parametrize(
        ("endpoint", "reached"),
        [
            ("localhost:0", {"127.0.0.1"}),
            ("127.0.0.1:0", {"127.0.0.1"}),
            ("[::1]:0", {"::1"}),
            ("0.0.0.0:0", {"127.0.0.1", "127.0.0.2"}),
            ("[::]:0", {"127.0.0.1", "127.0.0.2", "::1"}),
        ],
    )
    async def test_a6_the_addresses_that_are_listened_on(self, endpoint, reached):
        receiver = http_receiver(accept, endpoint)
        port = await receiver.start()
        try:
            assert receiver.address == f"{endpoint.rpartition(':')[0]}:{port}"
            assert {host for host in ("127.0.0.1", "127.0.0.2", "::1") if is_reached(host, port)} == reached
        finally:
            await receiver.shutdown(0)

    async def test_requests_come_over_tls_with_a_context(self, tmp_path):
        cert, key = self_signed(tmp_path, "IP:127.0.0.1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        trusting = ssl.create_default_context(cafile=cert)
        consume = Keeping()
        async with receiving(consume, ssl_context=context) as receiver, aiohttp.ClientSession() as session:
            url = f"https://127.0.0.1:{receiver.port}/v1/traces"
            async with session.post(url, data=b"x", headers={"Content-Type": PROTOBUF}, ssl=trusting) as response:
                assert response.status == 200

        assert consume.seen == [(Signal.TRACES, b"x")]


def is_reached(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 5).close()
    except OSError:
        return False
    return True
