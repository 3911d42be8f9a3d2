"""The HTTP exporter in front of a real HTTP server that answers by script."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import subprocess
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import aiohttp
import pytest
import zstandard
from google.rpc.status_pb2 import Status

from enricher import __version__
from enricher.config.access import ClientAuthConfig
from enricher.deliver.auth import authorization
from enricher.deliver.http_exporter import (
    INLINE_BYTES,
    MAX_RESPONSE_BYTES,
    HttpExporter,
    client_tls,
    retry_after,
)
from enricher.errors import AnswerError, EnricherError, ExportError, PermanentError, RetryableError
from enricher.otlp.shallow import Signal
from enricher.otlp.status import (
    MAX_RETRY_DELAY,
    STATUS_KEY,
    Code,
    bad_request_details,
    partial_success,
    status_details,
)
from enricher.rotation import Rotating
from tests.support import peers
from tests.support.exporters import cut_short, failing, finished, running
from tests.support.http_downstream import Answer, HttpDownstream, partial, stall
from tests.support.openssl import self_signed
from tests.support.receivers import http_receiver

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

# Not protobuf, not UTF-8, with every byte: what must come through as it is.
ANY_BYTES = bytes(range(256)) * 4

# What each status becomes (CLI-04); what is not here is permanent and UNKNOWN.
BY_STATUS = {
    400: (PermanentError, Code.INVALID_ARGUMENT),
    401: (PermanentError, Code.UNAUTHENTICATED),
    403: (PermanentError, Code.PERMISSION_DENIED),
    404: (PermanentError, Code.UNIMPLEMENTED),
    413: (PermanentError, Code.RESOURCE_EXHAUSTED),
    429: (RetryableError, Code.RESOURCE_EXHAUSTED),
    500: (PermanentError, Code.INTERNAL),
    502: (RetryableError, Code.UNAVAILABLE),
    503: (RetryableError, Code.UNAVAILABLE),
    504: (RetryableError, Code.UNAVAILABLE),
}
OTHERS = [300, 304, 402, 405, 406, 408, 409, 410, 411, 412, 414, 415, 418, 422, 431, 451, 499, 501, 505, 511, 599]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def exporting(url: str, **settings: object) -> AbstractAsyncContextManager[HttpExporter]:
    return running(HttpExporter(url, **settings))


async def refusal(answer: Answer) -> ExportError:
    async with HttpDownstream(answer) as downstream, exporting(downstream.url) as exporter:
        return await failing(exporter)


class TestTheWayThrough:
    @pytest.mark.parametrize("signal", Signal)
    async def test_cli_15_a_request_is_posted_as_the_same_bytes(self, signal):
        async with HttpDownstream() as downstream, exporting(downstream.url) as exporter:
            await exporter.export(signal, ANY_BYTES)
        (request,) = downstream.received

        assert (request.method, request.path, request.body) == ("POST", f"/v1/{signal}", ANY_BYTES)
        assert request.headers["content-type"] == "application/x-protobuf"
        assert "content-encoding" not in request.headers

    @pytest.mark.parametrize("path", ["", "/", "/api/public/otel", "/api/"])
    async def test_the_paths_are_below_the_endpoint(self, path):
        async with HttpDownstream() as downstream, exporting(downstream.url + path) as exporter:
            await exporter.export(Signal.LOGS, b"")

        assert downstream.received[0].path == f"{path.rstrip('/')}/v1/logs"

    @pytest.mark.parametrize("size", [0, 1, 5 << 20])
    async def test_requests_of_any_size_go_out_with_their_length(self, size):
        async with HttpDownstream() as downstream, exporting(downstream.url) as exporter:
            await exporter.export(Signal.TRACES, bytes(size))

        assert downstream.received[0].body == bytes(size)
        assert downstream.received[0].headers["content-length"] == str(size)

    @pytest.mark.parametrize(
        ("compression", "inflate"), [("gzip", gzip.decompress), ("zstd", zstandard.decompress), ("none", bytes)]
    )
    @pytest.mark.parametrize("size", [1, INLINE_BYTES, INLINE_BYTES + 1])
    async def test_cli_15_requests_are_compressed_when_asked(self, compression, inflate, size):
        body = ANY_BYTES * (size // len(ANY_BYTES)) + bytes(size % len(ANY_BYTES))
        async with HttpDownstream() as downstream, exporting(downstream.url, compression=compression) as exporter:
            await exporter.export(Signal.TRACES, body)
            await exporter.export(Signal.TRACES, body)
        first, second = downstream.received

        assert inflate(first.body) == body
        assert first.body == second.body, "a retry is byte-identical (F16)"
        assert first.headers.get("content-encoding", "none") == compression

    async def test_cli_15_headers_go_out_with_a_user_agent(self):
        headers = {"authorization": "Bearer t", "x-tenant": "a", "content-type": "text/plain"}
        async with HttpDownstream() as downstream, exporting(downstream.url, headers=headers) as exporter:
            await exporter.export(Signal.TRACES, b"")
        seen = downstream.received[0].headers

        assert (seen["authorization"], seen["x-tenant"]) == ("Bearer t", "a")
        assert seen["user-agent"] == f"enricher/{__version__}"
        assert seen["content-type"] == "application/x-protobuf"

    async def test_a11_headers_are_in_no_error_and_no_repr(self):
        headers = {"authorization": "Bearer canary"}
        async with HttpDownstream(Answer(401)) as downstream, exporting(downstream.url, headers=headers) as exporter:
            error = await failing(exporter)

        assert "canary" not in repr(exporter) + repr(error) + repr(vars(error))

    async def test_cli_13_a_connection_is_used_again(self):
        async with HttpDownstream() as downstream, exporting(downstream.url) as exporter:
            for _ in range(3):
                await exporter.export(Signal.TRACES, b"x")

        assert len({request.peer for request in downstream.received}) == 1

    async def test_cookies_are_not_kept(self):
        async with (
            HttpDownstream(Answer(headers={"Set-Cookie": "a=b"})) as downstream,
            exporting(downstream.url) as exporter,
        ):
            await exporter.export(Signal.TRACES, b"")
            await exporter.export(Signal.TRACES, b"")

        assert "cookie" not in downstream.received[1].headers


class TestSuccess:
    @pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
    async def test_cli_15_every_2xx_with_an_empty_body_is_success(self, status):
        async with HttpDownstream(Answer(status)) as downstream, exporting(downstream.url) as exporter:
            assert await exporter.export(Signal.TRACES, b"") == b""

    @pytest.mark.parametrize(
        "answer",
        [
            Answer(body=b"<html>", kind="text/html"),
            Answer(body=b"{}", kind="application/json"),
            Answer(body=b"thanks", kind=""),
            Answer(body=b"\xff\xff\xff"),
            Answer(body=zlib.compress(b"x"), headers={"Content-Encoding": "deflate"}),
        ],
        ids=["html", "json", "none", "no_protobuf", "compressed"],
    )
    async def test_cli_15_a_body_that_is_no_response_is_full_success(self, answer):
        """It must not reach a client, who could not read it and would take the request for failed."""
        async with HttpDownstream(answer) as downstream, exporting(downstream.url) as exporter:
            assert await exporter.export(Signal.TRACES, b"") == b""

    async def test_cli_07_f14_a_partial_success_is_no_error(self):
        answer = partial(3, "too old")
        async with HttpDownstream(answer) as downstream, exporting(downstream.url) as exporter:
            assert await exporter.export(Signal.TRACES, b"x") == partial_success(3, "too old")

    async def test_cli_02_a_response_at_the_limit_is_read(self):
        body = partial_success(1, "x" * (MAX_RESPONSE_BYTES - 100))
        async with HttpDownstream(Answer(body=body)) as downstream, exporting(downstream.url) as exporter:
            assert await exporter.export(Signal.TRACES, b"") == body

    @pytest.mark.parametrize("size", [MAX_RESPONSE_BYTES + 1, 100 << 20])
    async def test_cli_02_a9_f15_a_response_that_is_too_large_is_permanent_and_not_read(self, size):
        async with HttpDownstream(Answer(body=bytes(size))) as downstream, exporting(downstream.url) as exporter:
            error = await failing(exporter)

        assert (type(error), error.code) == (AnswerError, Code.INTERNAL)

    async def test_f15_a_bomb_is_not_inflated(self):
        bomb = gzip.compress(bytes(64 << 20))
        answer = Answer(body=bomb, headers={"Content-Encoding": "gzip"})
        async with HttpDownstream(answer) as downstream, exporting(downstream.url) as exporter:
            assert await exporter.export(Signal.TRACES, b"") == b""

        assert downstream.received[0].headers["accept-encoding"] == "identity"


class TestErrors:
    @pytest.mark.parametrize("status", [*BY_STATUS, *OTHERS])
    async def test_cli_04_each_status(self, status):
        error = await refusal(Answer(status, headers={"Retry-After": "7"}))
        kind, code = BY_STATUS.get(status, (PermanentError, Code.UNKNOWN))

        assert (type(error), error.code, error.trailers) == (kind, code, ())
        assert error.details.startswith(f"downstream answered {status} ")
        assert getattr(error, "retry_delay", 7.0) == 7.0

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_cli_16_f13_redirects_are_not_followed(self, status):
        async with HttpDownstream() as other:
            answer = Answer(status, headers={"Location": f"{other.url}/elsewhere?token=canary"})
            error = await refusal(answer)

        assert (type(error), error.code, other.received) == (PermanentError, Code.UNKNOWN, [])
        assert "no redirect is followed" in error.details
        assert "canary" not in error.details

    @pytest.mark.parametrize("status", BY_STATUS)
    async def test_htp_05_the_text_of_a_status_is_told_and_its_details_are_kept(self, status):
        kind, code = BY_STATUS[status]
        body = status_details(code, "why — darum")
        error = await refusal(Answer(status, body))

        assert type(error) is kind
        assert error.details.endswith(": why — darum")
        assert error.trailers == ((STATUS_KEY, body),)

    @pytest.mark.parametrize("code", [0, Code.INTERNAL])
    async def test_a_status_with_another_code_is_not_passed_on(self, code):
        error = await refusal(Answer(503, Status(code=code, message="why").SerializeToString()))

        assert (error.details, error.trailers) == ("downstream answered 503 Service Unavailable: why", ())

    @pytest.mark.parametrize(
        "answer",
        [
            Answer(400, b"\xff\xff"),
            Answer(400, b"<html>canary", kind="text/html"),
            Answer(400, bad_request_details("canary"), headers={"Content-Encoding": "gzip"}),
            Answer(400, bytes(MAX_RESPONSE_BYTES + 1)),
        ],
        ids=["no_status", "html", "compressed", "too_large"],
    )
    async def test_a9_a_body_that_is_no_status_changes_nothing(self, answer):
        error = await refusal(answer)

        assert (type(error), error.code, error.trailers) == (PermanentError, Code.INVALID_ARGUMENT, ())
        assert error.details == "downstream answered 400 Bad Request"

    async def test_f07_a_request_too_large_for_downstream_says_so(self):
        """The queue splits what is told to be too large, by the words that gRPC servers use."""
        error = await refusal(Answer(413))

        assert (type(error), error.code) == (PermanentError, Code.RESOURCE_EXHAUSTED)
        assert "too large" in error.details.lower()

    async def test_f01_a_downstream_that_is_away_is_retryable_and_named_as_the_cause(self):
        async with exporting(f"http://{peers.free_endpoint()}") as exporter:
            error = await failing(exporter)

        assert (type(error), error.code) == (RetryableError, Code.UNAVAILABLE)
        assert error.details.startswith("downstream is not reachable: ")

    async def test_f17_a_name_that_is_not_resolved_is_retryable(self):
        async with exporting("http://downstream.invalid:4318") as exporter:
            error = await failing(exporter)

        assert (type(error), error.code) == (RetryableError, Code.UNAVAILABLE)
        assert error.details.startswith("downstream is not reachable: ")

    @pytest.mark.parametrize("breaks_after", [-1, 0, 5])
    async def test_cli_05_f12_a_connection_that_breaks_before_the_answer_is_whole_is_retryable(self, breaks_after):
        error = await refusal(Answer(body=partial_success(1, "too old"), breaks_after=breaks_after))

        assert (type(error), error.code) == (RetryableError, Code.UNAVAILABLE)
        assert error.details == "the connection broke before downstream answered"

    @pytest.mark.parametrize("said", [b"canary\r\n\r\n", b"HTTP/1.1 canary\r\n\r\n", b"\0" * 100, b""])
    async def test_cli_05_what_is_no_http_is_retryable_and_not_quoted(self, said):
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(said)
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server, exporting(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as exporter:
            error = await failing(exporter)

        assert (type(error), error.code) == (RetryableError, Code.UNAVAILABLE)
        assert "canary" not in error.details

    async def test_f02_a_downstream_that_never_answers_is_given_up_at_the_deadline(self):
        async with HttpDownstream(stall()) as downstream, exporting(downstream.url, timeout=0.05) as exporter:
            error = await failing(exporter)

        assert (type(error), error.code) == (RetryableError, Code.DEADLINE_EXCEEDED)
        assert error.details == "no answer within 0.05 s"

    async def test_a_broken_connection_is_replaced_by_the_next_request(self):
        async with (
            HttpDownstream(Answer(), Answer(breaks_after=-1)) as downstream,
            exporting(downstream.url) as exporter,
        ):
            await exporter.export(Signal.TRACES, b"1")
            await failing(exporter, b"2")

            assert await exporter.export(Signal.TRACES, b"3") == b""
        assert [request.body for request in downstream.received] == [b"1", b"2", b"3"], "each was sent once"


class TestRetryAfter:
    """CLI-06, F11: how long downstream wants to be left alone."""

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("7", 7.0),
            (" 7 ", 7.0),
            ("0", 0.0),
            ("-5", 0.0),
            ("1000000000", MAX_RETRY_DELAY),
            ("9" * 5000, None),
            ("1.5", None),
            ("soon", None),
            ("", None),
            ("\xb2", None),
            (format_datetime(NOW + timedelta(seconds=9), usegmt=True), 9.0),
            (format_datetime(NOW - timedelta(days=9), usegmt=True), 0.0),
            (format_datetime(NOW + timedelta(days=9), usegmt=True), MAX_RETRY_DELAY),
            ("Friday, 02-Jan-26 03:04:14 GMT", 9.0),
            ("Fri, 99 Jan 2026 03:04:14 GMT", None),
            (None, None),
        ],
    )
    def test_f11_what_it_means(self, value, seconds):
        assert retry_after(value, NOW.timestamp()) == seconds

    @pytest.mark.parametrize("status", [429, 502, 503, 504])
    async def test_f11_without_one_nothing_is_asked_for(self, status):
        error = await refusal(Answer(status, headers={"Retry-After": "later"}))

        assert error.retry_delay is None


class TestLifecycle:
    async def test_shutdown_before_start_and_twice(self):
        exporter = HttpExporter("http://127.0.0.1:1")
        await exporter.shutdown()
        await exporter.start()
        await exporter.shutdown(1)
        await exporter.shutdown(1)

    async def test_outside_of_its_life_a_call_is_retryable(self):
        exporter = HttpExporter("http://127.0.0.1:1")
        before = await failing(exporter)
        await exporter.start()
        await exporter.shutdown()
        after = await failing(exporter)

        assert (type(before), before.code) == (type(after), after.code) == (RetryableError, Code.UNAVAILABLE)

    async def test_shutdown_waits_for_the_requests_under_way(self):
        event, body = asyncio.Event(), partial_success(1, "late")
        async with HttpDownstream(Answer(body=body, after=event)) as downstream, exporting(downstream.url) as exporter:
            assert await finished(exporter, downstream, event) == body

    async def test_f21_what_is_under_way_after_the_grace_is_retryable_and_not_cancelled(self):
        async with HttpDownstream(stall()) as downstream, exporting(downstream.url) as exporter:
            error = await cut_short(exporter, downstream)

        assert (type(error), error.code) == (RetryableError, Code.UNAVAILABLE)
        assert error.details == "the exporter was shut down before downstream answered"

    async def test_a_caller_that_is_cancelled_stays_cancelled_and_ends_the_request(self):
        async with HttpDownstream(stall()) as downstream, exporting(downstream.url) as exporter:
            under_way = asyncio.ensure_future(exporter.export(Signal.TRACES, b""))
            await downstream.requests(1)
            under_way.cancel()
            with pytest.raises(asyncio.CancelledError):
                await under_way

    async def test_cli_14_f17_a_downstream_that_comes_up_later_is_found_without_a_restart(self):
        port = peers.free_port()
        async with exporting(f"http://127.0.0.1:{port}") as exporter:
            assert isinstance(await failing(exporter), RetryableError)
            async with HttpDownstream(port=port):
                assert await exporter.export(Signal.TRACES, b"") == b""


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a certificate for `downstream.test` and its key, made for this run."""
    return self_signed(tmp_path_factory.mktemp("tls"), "DNS:downstream.test")


def serving(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


def trusting(**files: Path | None) -> ssl.SSLContext:
    named = {"ca_file": None, "cert_file": None, "key_file": None, **files}
    return client_tls("exporters.otlphttp.tls", **named)


def held(make: Callable[[], ssl.SSLContext]) -> Rotating[ssl.SSLContext]:
    """Return what gives this context; no file of it is watched."""
    return Rotating("exporters.otlphttp.tls", [], make)


class TestTls:
    async def test_a_request_over_tls_to_the_authority_that_is_trusted(self, certificate):
        cert, key = certificate
        settings = {"tls": held(lambda: trusting(ca_file=cert)), "server_name_override": "downstream.test"}
        async with (
            HttpDownstream(ssl_context=serving(cert, key)) as downstream,
            exporting(downstream.url, **settings) as exporter,
        ):
            assert await exporter.export(Signal.TRACES, b"over TLS") == b""

        assert downstream.received[0].body == b"over TLS"

    @pytest.mark.parametrize("tls", [None, held(trusting)])
    async def test_f17_an_authority_that_is_not_trusted_is_retryable(self, certificate, tls):
        async with (
            HttpDownstream(ssl_context=serving(*certificate)) as downstream,
            exporting(downstream.url, tls=tls, server_name_override="downstream.test") as exporter,
        ):
            error = await failing(exporter)

        assert (type(error), error.code, downstream.received) == (RetryableError, Code.UNAVAILABLE, [])

    async def test_f17_a_certificate_of_another_name_is_retryable(self, certificate):
        cert, key = certificate
        async with (
            HttpDownstream(ssl_context=serving(cert, key)) as downstream,
            exporting(downstream.url, tls=held(lambda: trusting(ca_file=cert))) as exporter,
        ):
            error = await failing(exporter)

        assert (type(error), error.code, downstream.received) == (RetryableError, Code.UNAVAILABLE, [])

    async def test_a_client_certificate_is_shown(self, certificate):
        cert, key = certificate
        context = serving(cert, key)
        context.load_verify_locations(cert)
        context.verify_mode = ssl.CERT_REQUIRED
        override = {"server_name_override": "downstream.test"}
        without = trusting(ca_file=cert)
        with_pair = trusting(ca_file=cert, cert_file=cert, key_file=key)
        async with HttpDownstream(ssl_context=context) as downstream:
            async with exporting(downstream.url, tls=held(lambda: without), **override) as exporter:
                assert isinstance(await failing(exporter), RetryableError)
            async with exporting(downstream.url, tls=held(lambda: with_pair), **override) as exporter:
                assert await exporter.export(Signal.TRACES, b"") == b""

    @pytest.mark.parametrize("broken", ["ca_file", "cert_file", "key_file"])
    @pytest.mark.parametrize("content", [None, "", "no PEM"])
    async def test_a_file_that_cannot_be_used_is_named_at_start(self, certificate, tmp_path, broken, content):
        cert, key = certificate
        files = {"ca_file": cert, "cert_file": cert, "key_file": key}
        files[broken] = tmp_path / "broken.pem"
        if content is not None:
            files[broken].write_text(content)
        exporter = HttpExporter("https://127.0.0.1:1", tls=held(lambda: trusting(**files)))

        with pytest.raises(EnricherError, match=r"exporters\.otlphttp\.tls\.\w+: .*broken\.pem") as caught:
            await exporter.start()
        assert "BEGIN" not in str(caught.value)

    def test_an_encrypted_key_is_refused_without_asking_for_its_password(self, certificate, tmp_path):
        cert, key = certificate
        encrypted = tmp_path / "encrypted.pem"
        command = ["openssl", "rsa", "-aes256", "-passout", "pass:secret", "-in", key, "-out", encrypted]
        subprocess.run(command, check=True, capture_output=True)

        with pytest.raises(EnricherError, match=r"the key is encrypted"):
            trusting(cert_file=cert, key_file=encrypted)

    def test_a_certificate_without_its_key_is_refused(self, certificate):
        with pytest.raises(EnricherError, match="belong together"):
            trusting(cert_file=certificate[0])


class TestBehindTheReceiver:
    """The relay that the two make: what a client gets is what downstream answered."""

    @pytest.mark.parametrize("status", [200, *BY_STATUS])
    async def test_a_client_sees_downstreams_status(self, status):
        answered = await through(Answer(status, status_details(BY_STATUS[status][1], "why") if status != 200 else b""))
        # 413 becomes 429, as RESOURCE_EXHAUSTED does; every kind of absence is 503.
        expected = {413: 429, 502: 503, 504: 503}.get(status, status)

        assert answered.status == expected
        assert answered.headers.get("Retry-After") == ("1" if status in (429, 502, 503, 504) else None)

    async def test_srv_05_a_client_sees_downstreams_partial_success(self):
        assert (await through(partial(2, "too old"))).body == partial_success(2, "too old")

    async def test_a14_a_clients_headers_are_not_forwarded(self):
        answered = await through(Answer(), Authorization="Bearer of-the-client", traceparent="00-1-2-01")
        forwarded = answered.downstream.received[0].headers

        assert set(forwarded) == {"host", "user-agent", "accept", "accept-encoding", "content-type", "content-length"}


class Answered:
    def __init__(self, response: aiohttp.ClientResponse, body: bytes, downstream: HttpDownstream) -> None:
        self.status, self.headers, self.body, self.downstream = response.status, response.headers, body, downstream


async def through(answer: Answer, **headers: str) -> Answered:
    """Send a request through receiver and exporter to a downstream that gives the answer."""
    async with HttpDownstream(answer) as downstream, exporting(downstream.url) as exporter:
        receiver = http_receiver(exporter.export)
        url = f"http://127.0.0.1:{await receiver.start()}/v1/traces"
        try:
            sent = {"Content-Type": "application/x-protobuf", **headers}
            async with (
                aiohttp.ClientSession() as session,
                session.post(url, data=ANY_BYTES, headers=sent) as response,
            ):
                return Answered(response, await response.read(), downstream)
        finally:
            await receiver.shutdown(0)


async def test_a_token_from_a_file_that_changed_goes_out_with_the_next_request(tmp_path):
    token = tmp_path / "token"
    token.write_text("old\n")
    auth = ClientAuthConfig(bearer={"filename": str(token)})
    rotating = authorization(auth, "exporters.otlphttp.auth")
    async with HttpDownstream() as downstream, exporting(downstream.url, authorization=rotating) as exporter:
        await exporter.export(Signal.TRACES, b"a")
        token.write_text("new\n")
        rotating.reload()
        await exporter.export(Signal.TRACES, b"a")

    assert [call.headers["authorization"] for call in downstream.received] == ["Bearer old", "Bearer new"]
