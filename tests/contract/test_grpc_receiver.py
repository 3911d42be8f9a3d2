"""The gRPC receiver as its clients see it: raw gRPC clients, and the SDK's own exporter where its habits matter."""

from __future__ import annotations

import asyncio
import gzip
import logging
import socket
import subprocess
import sys
import textwrap
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingAckReceived,
    ResponseReceived,
    StreamEnded,
    TrailersReceived,
)
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from structlog.testing import capture_logs

from enricher.config.model import Config
from enricher.errors import BadRequestError, EnricherError, PermanentError, RetryableError
from enricher.otlp.shallow import Signal
from enricher.otlp.status import RETRY_INFO_KEY, RETRYABLE, SERVICES, STATUS_KEY, Code, partial_success, retry_delay
from enricher.receive import grpc_server
from enricher.receive.grpc_server import GrpcReceiver
from enricher.receive.refusals import MAX_TEXT_BYTES, MAX_TRAILER_BYTES
from tests.support.receivers import Counting, Slow, accept, raising, stop_at_any_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from enricher.receive import Consume

LIMIT = 1 << 20
ERRORS = [code for code in Code if code is not Code.OK]
# Not protobuf, not UTF-8, with every byte: what must come through as it is.
ANY_BYTES = bytes(range(256)) * 4


@asynccontextmanager
async def receiving(consume: Consume, limit: int = LIMIT) -> AsyncIterator[GrpcReceiver]:
    receiver = GrpcReceiver("127.0.0.1:0", consume, max_receive_bytes=limit)
    await receiver.start()
    try:
        yield receiver
    finally:
        await receiver.shutdown(0)


@asynccontextmanager
async def connected(receiver: GrpcReceiver, **options: object) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{receiver.port}", **options) as channel:
        yield channel


async def call(channel: grpc.aio.Channel, request: bytes, signal: Signal = Signal.TRACES, **options: object) -> bytes:
    return await channel.unary_unary(f"/{SERVICES[signal]}/Export")(request, timeout=30, **options)


async def refused(channel: grpc.aio.Channel, request: bytes = b"", **options: object) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, request, **options)
    return caught.value


def trailers_of(error: grpc.aio.AioRpcError) -> dict[str, bytes]:
    return {key: value for key, value in error.trailing_metadata() if key in (STATUS_KEY, RETRY_INFO_KEY)}


async def spoken(receiver: GrpcReceiver, message: bytes, **headers: str) -> list[Event]:
    """Say one compressed message on a connection of its own, and return what is said of its stream, frame by frame."""
    connection = H2Connection()
    connection.initiate_connection()
    named = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/{SERVICES[Signal.TRACES]}/Export",
        ":authority": "stage",
        "content-type": "application/grpc",
        "te": "trailers",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    connection.send_headers(1, list(named.items()))
    connection.send_data(1, b"\1" + len(message).to_bytes(4) + message, end_stream=True)
    reader, writer = await asyncio.open_connection("127.0.0.1", receiver.port)
    events: list[Event] = []
    try:
        while not any(isinstance(event, StreamEnded) for event in events):
            writer.write(connection.data_to_send())
            data = await asyncio.wait_for(reader.read(1 << 16), 30)
            assert data, "the connection ended"
            events += connection.receive_data(data)
    finally:
        writer.close()
    return [event for event in events if isinstance(event, ResponseReceived | DataReceived | TrailersReceived)]


class TestTheWayThrough:
    @pytest.mark.parametrize("signal", Signal)
    async def test_request_and_response_are_the_same_bytes(self, signal):
        seen = []

        async def consume(signal: Signal, request: bytes) -> bytes:
            seen.append((signal, request))
            return request[::-1]

        async with receiving(consume) as receiver, connected(receiver) as channel:
            response = await call(channel, ANY_BYTES, signal)

        assert (seen, response) == ([(signal, ANY_BYTES)], ANY_BYTES[::-1])

    async def test_srv_03_an_empty_request_is_consumed_like_any_other(self):
        async with receiving(accept) as receiver, connected(receiver) as channel:
            assert await call(channel, b"") == b""

    @pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
    async def test_srv_01_compressed_requests_arrive_inflated(self, compression):
        seen = []

        async def consume(_signal: Signal, request: bytes) -> bytes:
            seen.append(request)
            return b""

        async with receiving(consume) as receiver, connected(receiver, compression=compression) as channel:
            await call(channel, ANY_BYTES)

        assert seen == [ANY_BYTES]

    async def test_grp_07_many_calls_at_once_on_one_connection(self):
        """A thousand at once, which a low limit on streams would refuse in part; each gets its own answer."""
        everyone_is_here = asyncio.Event()
        waiting = 0

        async def consume(_signal: Signal, request: bytes) -> bytes:
            nonlocal waiting
            waiting += 1
            if waiting == 1000:
                everyone_is_here.set()
            await everyone_is_here.wait()
            return request

        requests = [str(number).encode() for number in range(1000)]
        async with receiving(consume) as receiver, connected(receiver) as channel:
            responses = await asyncio.gather(*(call(channel, request) for request in requests))

        assert responses == requests

    async def test_srv_05_the_sdk_takes_a_partial_success_as_success(self):
        async def consume(_signal: Signal, _request: bytes) -> bytes:
            return partial_success(1, "one was too old")

        async with receiving(consume) as receiver:
            assert await asyncio.to_thread(sdk_export, receiver) is SpanExportResult.SUCCESS

    async def test_the_sdk_sends_gzip(self):
        seen = []

        async def consume(_signal: Signal, request: bytes) -> bytes:
            seen.append(request)
            return b""

        async with receiving(consume) as receiver:
            result = await asyncio.to_thread(sdk_export, receiver, compression=grpc.Compression.Gzip)

        assert result is SpanExportResult.SUCCESS
        assert b"a span of the SDK" in seen[0]


class TestErrors:
    @pytest.mark.parametrize("code", ERRORS, ids=lambda code: code.name)
    async def test_a_permanent_answer_is_passed_on_as_it_came(self, code):
        """Downstream's refusal of the stage itself (UNAUTHENTICATED, PERMISSION_DENIED) is no exception."""
        given = ((STATUS_KEY, Status(code=code, message="no — nein").SerializeToString()),)
        async with (
            receiving(raising(PermanentError(code, "no — nein", given))) as receiver,
            connected(receiver) as channel,
        ):
            error = await refused(channel)

        assert (error.code().value[0], error.details()) == (code, "no — nein")
        assert trailers_of(error) == dict(given)

    @pytest.mark.parametrize("code", ERRORS, ids=lambda code: code.name)
    async def test_grp_04_a_permanent_answer_without_retry_info_gets_none(self, code):
        """Above all RESOURCE_EXHAUSTED: with a RetryInfo it would turn retryable."""
        async with receiving(raising(PermanentError(code, "no"))) as receiver, connected(receiver) as channel:
            error = await refused(channel)

        assert error.code().value[0] == code
        assert trailers_of(error) == {}

    @pytest.mark.parametrize("code", sorted(RETRYABLE | {Code.RESOURCE_EXHAUSTED}), ids=lambda code: code.name)
    async def test_grp_02_a_retryable_answer_keeps_its_code_and_has_retry_info_in_both_forms(self, code):
        async with receiving(raising(RetryableError(code, "busy"))) as receiver, connected(receiver) as channel:
            error = await refused(channel)
        trailers = trailers_of(error)

        assert (error.code().value[0], error.details()) == (code, "busy")
        assert set(trailers) == {STATUS_KEY, RETRY_INFO_KEY}
        assert Status.FromString(trailers[STATUS_KEY]).code == code
        for key, value in trailers.items():
            assert 0 < retry_delay([(key, value)]) <= 1.0

    @pytest.mark.parametrize(("given", "added"), [(7, 1.0), (0.25, 0.25)])
    async def test_what_is_given_stays_and_what_is_added_asks_for_no_more(self, given, added):
        seconds, nanos = divmod(int(given * 1e9), 10**9)
        info = RetryInfo()
        info.retry_delay.seconds, info.retry_delay.nanos = seconds, nanos
        status = Status(code=14, message="busy")
        status.details.add().Pack(info)
        came = ((STATUS_KEY, status.SerializeToString()),)
        answer = RetryableError(Code.UNAVAILABLE, "busy", came, retry_delay=float(given))
        async with receiving(raising(answer)) as receiver, connected(receiver) as channel:
            trailers = trailers_of(await refused(channel))

        assert trailers[STATUS_KEY] == came[0][1]
        assert retry_delay([(RETRY_INFO_KEY, trailers[RETRY_INFO_KEY])]) == added

    async def test_grp_03_bad_data_is_invalid_argument_with_what_was_wrong(self):
        async with (
            receiving(raising(BadRequestError("not an OTLP export request"))) as receiver,
            connected(receiver) as channel,
        ):
            error = await refused(channel)
        status = Status.FromString(trailers_of(error)[STATUS_KEY])
        wrong = BadRequest()

        assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "not an OTLP export request")
        assert (status.code, status.message) == (3, "not an OTLP export request")
        assert status.details[0].Unpack(wrong)
        assert wrong.field_violations[0].description == "not an OTLP export request"
        assert RETRY_INFO_KEY not in trailers_of(error)

    @pytest.mark.parametrize("kind", [PermanentError, RetryableError])
    async def test_a_code_that_is_none_is_not_taken_for_success(self, kind):
        for code in (0, 99, -1):
            async with receiving(raising(kind(code, "odd"))) as receiver, connected(receiver) as channel:
                error = await refused(channel)

            expected = grpc.StatusCode.UNKNOWN if kind is PermanentError else grpc.StatusCode.UNAVAILABLE
            assert error.code() is expected

    @pytest.mark.parametrize("kind", [PermanentError, RetryableError])
    async def test_a_long_answer_still_reaches_a_client_with_default_limits(self, kind):
        """Above 8 KiB of metadata it would see RESOURCE_EXHAUSTED whatever the answer was."""
        trailers = ((STATUS_KEY, b"x" * (MAX_TRAILER_BYTES + 1)),)
        answer = kind(Code.DATA_LOSS, "ü" * 10_000, trailers)
        async with receiving(raising(answer)) as receiver, connected(receiver) as channel:
            error = await refused(channel)

        assert error.code() is grpc.StatusCode.DATA_LOSS
        assert error.details() == "ü" * (MAX_TEXT_BYTES // 2)
        assert trailers[0] not in trailers_of(error).items()

    @pytest.mark.parametrize(
        "error", [RetryableError(14, "busy"), PermanentError(3, "no"), BadRequestError("no"), ValueError("bug")]
    )
    async def test_grp_05_errors_are_trailers_only(self, error):
        """One block of headers, which ends the stream: clients miss a status that comes behind a first block."""
        with capture_logs():
            async with receiving(raising(error)) as receiver:
                events = await spoken(receiver, gzip.compress(b""), grpc_encoding="gzip")

        (only,) = events
        assert isinstance(only, ResponseReceived)
        assert dict(only.headers)[b"grpc-status"] not in {b"0", b""}

    @pytest.mark.parametrize(
        ("coding", "message"),
        [
            pytest.param("gzip", b"no gzip", id="corrupt"),
            pytest.param("gzip", gzip.compress(ANY_BYTES)[:-9], id="cut off"),
            pytest.param("gzip", gzip.compress(b"a") + gzip.compress(b"b"), id="two members"),
            pytest.param("zstd", b"(\xb5/\xfd", id="srv_01 unknown coding"),
        ],
    )
    async def test_grp_08_bad_compressed_data_is_internal_and_permanent(self, coding, message):
        """INTERNAL, which no client sends again, and UNIMPLEMENTED for a coding that is unknown."""
        kept = []

        async def consume(_signal: Signal, request: bytes) -> bytes:
            kept.append(request)
            return b""

        async with receiving(consume) as receiver, connected(receiver) as channel:
            headers = dict((await spoken(receiver, message, grpc_encoding=coding))[-1].headers)
            await call(channel, b"next")

        assert int(headers[b"grpc-status"]) == Code.INTERNAL
        assert b"google.rpc.retryinfo-bin" not in headers
        assert kept == [b"next"]

    async def test_grp_09_a18_metadata_above_every_limit_is_refused_and_the_next_call_served(self):
        async with receiving(accept) as receiver, connected(receiver) as channel:
            error = await refused(channel, metadata=(("x-large", "y" * 40_000),))
            assert await call(channel, b"") == b""

        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert trailers_of(error) == {}

    async def test_grp_01_too_large_is_resource_exhausted_without_retry_info(self):
        seen = []

        async def consume(_signal: Signal, request: bytes) -> bytes:
            seen.append(len(request))
            return b""

        async with receiving(consume) as receiver, connected(receiver) as channel:
            await call(channel, bytes(LIMIT))
            error = await refused(channel, bytes(LIMIT + 1))

        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert trailers_of(error) == {}
        assert seen == [LIMIT]

    async def test_f40_a_request_that_is_too_large_once_inflated_is_refused(self):
        async with (
            receiving(accept) as receiver,
            connected(receiver, compression=grpc.Compression.Gzip) as channel,
        ):
            error = await refused(channel, bytes(LIMIT * 64))

        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert trailers_of(error) == {}

    @pytest.mark.parametrize("method", ["/a.b.C/Export", f"/{SERVICES[Signal.LOGS]}/Import"])
    async def test_grp_06_unknown_methods_are_unimplemented(self, method):
        async with receiving(accept) as receiver, connected(receiver) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(method)(b"", timeout=30)

        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

    async def test_grp_09_a_large_header_within_the_limit_is_let_in(self):
        """Above grpc's default of 8 KiB refusal is random."""
        async with receiving(accept) as receiver, connected(receiver) as channel:
            assert await call(channel, b"", metadata=(("x-large", "y" * 15_000),)) == b""


class TestConnections:
    """Settings whose times are too long for a test: with shorter ones they do what they are there for."""

    @staticmethod
    def shorten(monkeypatch, **milliseconds: int) -> None:
        named = {f"grpc.{name.replace('http2_', 'http2.')}_ms": value for name, value in milliseconds.items()}
        assert named.keys() <= dict(grpc_server._OPTIONS).keys()
        monkeypatch.setattr(grpc_server, "_OPTIONS", tuple({**dict(grpc_server._OPTIONS), **named}.items()))

    async def test_a4_a_connection_that_says_nothing_is_closed(self, monkeypatch):
        self.shorten(monkeypatch, server_handshake_timeout=200)
        async with receiving(accept) as receiver:
            reader, writer = await asyncio.open_connection("127.0.0.1", receiver.port)
            await asyncio.wait_for(reader.read(), 30)
            writer.close()

    async def test_a4_a_message_that_never_comes_ends_with_its_connection(self, monkeypatch):
        self.shorten(monkeypatch, max_connection_age=200, max_connection_age_grace=200)

        over = asyncio.Event()

        async def nothing() -> AsyncIterator[bytes]:
            await over.wait()
            yield b""

        async with receiving(accept) as receiver, connected(receiver) as channel:
            hoarded = channel.stream_unary(f"/{SERVICES[Signal.TRACES]}/Export")(nothing(), timeout=30)

            assert await hoarded.code() is grpc.StatusCode.UNAVAILABLE
            assert await call(channel, b"", wait_for_ready=True) == b""
            over.set()

    async def test_grp_11_pings_of_a_client_are_tolerated(self, monkeypatch):
        """With what grpc takes by itself the connection ends at the third."""
        assert dict(grpc_server._OPTIONS)["grpc.http2.min_ping_interval_without_data_ms"] < 10_000
        self.shorten(monkeypatch, http2_min_ping_interval_without_data=20)
        connection = H2Connection()
        connection.initiate_connection()
        events: list[Event] = []
        async with receiving(accept) as receiver:
            reader, writer = await asyncio.open_connection("127.0.0.1", receiver.port)
            for number in range(6):
                connection.ping(b"%08d" % number)
                writer.write(connection.data_to_send())
                while sum(isinstance(event, PingAckReceived) for event in events) <= number:
                    data = await asyncio.wait_for(reader.read(1 << 16), 30)
                    assert data, "the connection ended"
                    events += connection.receive_data(data)
                await asyncio.sleep(0.05)  # of grpc's clock, which is not ours
            writer.close()

        assert not any(isinstance(event, ConnectionTerminated) for event in events)


class TestInternalErrors:
    async def test_a23_the_client_gets_an_id_and_the_log_the_rest_once(self):
        with capture_logs() as logs:
            async with (
                receiving(raising(ValueError("a secret"))) as receiver,
                connected(receiver) as channel,
            ):
                errors = [await refused(channel) for _ in range(3)]

        assert {error.code() for error in errors} == {grpc.StatusCode.UNAVAILABLE}
        assert [error.details() for error in errors] == [f"internal error, id={line['id']}" for line in logs]
        assert len({line["id"] for line in logs}) == 3
        assert [line["exc_info"] is None for line in logs] == [False, True, True], "one traceback for one kind (F43)"
        for error in errors:
            assert "secret" not in str(error) + str(error.trailing_metadata())
            assert 0 < retry_delay(error.trailing_metadata()) <= 1.0
            assert set(trailers_of(error)) == {STATUS_KEY, RETRY_INFO_KEY}

    @pytest.mark.parametrize(
        "error",
        [
            ValueError("secret"),
            KeyError("secret"),
            UnicodeDecodeError("utf-8", b"secret", 0, 1, "secret"),
            RecursionError("secret"),
            TimeoutError("secret"),
            OSError(28, "secret"),
            EnricherError("secret"),
            grpc.RpcError("secret"),
            asyncio.CancelledError("secret"),
            ExceptionGroup("secret", [ValueError("secret")]),
        ],
        ids=lambda error: type(error).__name__,
    )
    async def test_a23_whatever_fails_is_retryable_and_not_told(self, error):
        with capture_logs() as logs:
            async with receiving(raising(error)) as receiver, connected(receiver) as channel:
                answer = await refused(channel)

        assert answer.code() is grpc.StatusCode.UNAVAILABLE
        assert "secret" not in str(answer) + str(answer.trailing_metadata())
        assert [line["error"] for line in logs] == [type(error).__name__]

    async def test_grpc_logs_nothing_of_its_own(self, caplog):
        with caplog.at_level(logging.INFO), capture_logs():
            async with receiving(raising(KeyError("x"))) as receiver, connected(receiver) as channel:
                await refused(channel)

        assert caplog.records == []

    async def test_one_that_fails_does_no_harm_to_the_next(self):
        answers = [ValueError("bug"), PermanentError(3, "no"), b"fine"]

        async def consume(_signal: Signal, _request: bytes) -> bytes:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        with capture_logs():
            async with receiving(consume) as receiver, connected(receiver) as channel:
                await refused(channel)
                await refused(channel)

                assert await call(channel, b"") == b"fine"

    async def test_f45_a_client_that_leaves_is_no_error(self, caplog):
        entered, left = asyncio.Event(), asyncio.Event()

        async def consume(_signal: Signal, _request: bytes) -> bytes:
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                left.set()
            return b""

        with caplog.at_level(logging.INFO), capture_logs() as logs:
            async with receiving(consume) as receiver, connected(receiver) as channel:
                leaving = asyncio.ensure_future(call(channel, b""))
                await entered.wait()
                leaving.cancel()
                await left.wait()

        assert (logs, caplog.records) == ([], [])


class TestLifecycle:
    async def test_shutdown_before_start_and_twice(self):
        await stop_at_any_time(GrpcReceiver("127.0.0.1:0", accept, max_receive_bytes=LIMIT))

    async def test_grp_10_calls_in_flight_finish_and_new_ones_are_unavailable(self):
        consume = Slow()
        async with receiving(consume) as receiver, connected(receiver) as channel:
            in_flight = asyncio.ensure_future(call(channel, b""))
            await consume.entered.wait()
            stopping = asyncio.ensure_future(receiver.shutdown(30))
            await asyncio.sleep(0)  # the stop is called, not awaited
            late = await refused(channel)
            consume.finish.set()

            assert await in_flight == b"finished"
            await stopping
            assert late.code() is grpc.StatusCode.UNAVAILABLE

    async def test_f23_what_is_not_finished_within_grace_is_unavailable(self):
        consume = Slow()
        async with receiving(consume) as receiver, connected(receiver) as channel:
            in_flight = asyncio.ensure_future(refused(channel))
            await consume.entered.wait()
            await receiver.shutdown(0)

            assert (await in_flight).code() is grpc.StatusCode.UNAVAILABLE

    async def test_f20_a_stop_under_load_gives_answers_or_unavailable(self):
        """And never CANCELLED; what the clients count as taken is what was consumed."""
        consume = Counting(200)
        results: list[bytes | grpc.StatusCode] = []

        async def keep_sending() -> None:
            async with connected(receiver) as channel:
                while True:
                    try:
                        results.append(await call(channel, b"x"))
                    except grpc.aio.AioRpcError as error:
                        results.append(error.code())
                        return

        async with receiving(consume) as receiver:
            clients = [asyncio.ensure_future(keep_sending()) for _ in range(8)]
            await consume.enough.wait()
            await receiver.shutdown(10)
            await asyncio.gather(*clients)

        assert set(results) == {b"taken", grpc.StatusCode.UNAVAILABLE}
        assert results.count(b"taken") == consume.consumed

    async def test_f31_a_port_that_is_taken_is_named(self):
        with socket.create_server(("127.0.0.1", 0)) as other:
            endpoint = f"127.0.0.1:{other.getsockname()[1]}"

            with pytest.raises(EnricherError, match=f"cannot listen for gRPC on {endpoint}: the port is taken"):
                await GrpcReceiver(endpoint, accept, max_receive_bytes=LIMIT).start()

    async def test_a20_two_receivers_do_not_share_a_port(self):
        async with receiving(accept) as first:
            second = GrpcReceiver(f"localhost:{first.port}", accept, max_receive_bytes=LIMIT)

            with pytest.raises(EnricherError, match="endpoint to another"):
                await second.start()

    def test_a15_grpc_prints_nothing_of_its_own(self):
        """In a process of its own, because grpc reads its verbosity once, on its first import."""
        script = """
            import asyncio
            from enricher.receive.grpc_server import GrpcReceiver
            from enricher.errors import EnricherError

            async def main():
                first = GrpcReceiver("127.0.0.1:0", None, max_receive_bytes=1)
                second = GrpcReceiver(f"127.0.0.1:{await first.start()}", None, max_receive_bytes=1)
                try:
                    await second.start()
                except EnricherError as error:
                    print(error)
                await first.shutdown(0)

            asyncio.run(main())
        """
        run = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
        )

        assert run.stdout.startswith("cannot listen for gRPC on 127.0.0.1:")
        assert run.stderr == ""

    async def test_a6_localhost_is_the_loopback_address_alone(self):
        receiver = GrpcReceiver("localhost:0", accept, max_receive_bytes=LIMIT)
        port = await receiver.start()
        try:
            listening = listening_addresses(port)
        finally:
            await receiver.shutdown(0)

        assert port == receiver.port
        assert listening == {"127.0.0.1"}


class TestTheSdk:
    async def test_it_sees_the_retry_info_and_comes_back(self):
        """The second attempt comes after the 20 ms advised; without RetryInfo the SDK would wait a second first."""
        answers = [RetryableError(Code.UNAVAILABLE, "busy", retry_delay=0.02), None]

        async def consume(_signal: Signal, _request: bytes) -> bytes:
            answer = answers.pop(0)
            if answer:
                raise answer
            return b""

        waits: list[float] = []
        async with receiving(consume) as receiver:
            result = await asyncio.to_thread(sdk_export, receiver, waits=waits)

        assert (result, answers) == (SpanExportResult.SUCCESS, [])
        assert waits == [pytest.approx(0.02)]

    @pytest.mark.parametrize("code", [Code.INVALID_ARGUMENT, Code.UNAUTHENTICATED])
    async def test_it_does_not_come_back_after_a_permanent_answer(self, code):
        seen = 0

        async def consume(_signal: Signal, _request: bytes) -> bytes:
            nonlocal seen
            seen += 1
            raise PermanentError(code, "no")

        async with receiving(consume) as receiver:
            assert await asyncio.to_thread(sdk_export, receiver) is SpanExportResult.FAILURE
        assert seen == 1


def sdk_export(
    receiver: GrpcReceiver, compression: grpc.Compression | None = None, waits: list[float] | None = None
) -> SpanExportResult:
    """Send one span with the SDK's exporter; `waits` gets what it waits between attempts, without waiting."""
    exporter = OTLPSpanExporter(f"http://127.0.0.1:{receiver.port}", compression=compression)
    if waits is not None:
        exporter._shutdown_in_progress.wait = lambda seconds: waits.append(seconds) or False
    span = TracerProvider(shutdown_on_exit=False).get_tracer("t").start_span("a span of the SDK")
    span.end()
    try:
        return exporter.export([span])
    finally:
        exporter.shutdown()


def listening_addresses(port: int) -> set[str]:
    """Return the addresses of this machine on which the port is taken, of those that are tried."""
    taken = set()
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "127.0.0.2"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family) as probe:
                probe.bind((host, port))
        except OSError:
            taken.add(host)
    return taken


async def test_srv_10_all_three_signals_share_the_port_and_others_are_unknown() -> None:
    seen = []

    async def consume(signal: Signal, request: bytes) -> bytes:
        seen.append((signal, request))
        return b""

    async with receiving(consume) as receiver, connected(receiver) as channel:
        for signal in Signal:
            await call(channel, ANY_BYTES, signal)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary("/opentelemetry.proto.collector.profiles.v1.ProfilesService/Export")(b"")

    assert seen == [(signal, ANY_BYTES) for signal in Signal]
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_srv_09_the_default_ports_are_the_collectors_on_this_machine_alone() -> None:
    protocols = Config().receivers.otlp.protocols

    assert (str(protocols.grpc.endpoint), str(protocols.http.endpoint)) == ("localhost:4317", "localhost:4318")
