"""The gRPC exporter in front of a real gRPC server that answers by script."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from enricher import __version__
from enricher.config.access import ClientAuthConfig
from enricher.deliver.auth import authorization
from enricher.deliver.grpc_exporter import MAX_RESPONSE_BYTES, GrpcExporter
from enricher.errors import AnswerError, EnricherError, PermanentError, RetryableError
from enricher.otlp.shallow import Signal
from enricher.otlp.status import MAX_RETRY_DELAY, RETRY_INFO_KEY, SERVICES, STATUS_KEY, Code, retry_trailers
from enricher.receive.grpc_server import GrpcReceiver
from tests.support import peers
from tests.support.certificates import Authority, Pair
from tests.support.downstream import Downstream, delayed, ok, partial, refuse, stall
from tests.support.exporters import cut_short, failing, finished, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

# Not protobuf, not UTF-8, with every byte: what must come through as it is.
ANY_BYTES = bytes(range(256)) * 4

# What each code becomes without a RetryInfo (CLI-03).
BY_CODE = {
    grpc.StatusCode.OK: None,
    grpc.StatusCode.CANCELLED: RetryableError,
    grpc.StatusCode.UNKNOWN: PermanentError,
    grpc.StatusCode.INVALID_ARGUMENT: PermanentError,
    grpc.StatusCode.DEADLINE_EXCEEDED: RetryableError,
    grpc.StatusCode.NOT_FOUND: PermanentError,
    grpc.StatusCode.ALREADY_EXISTS: PermanentError,
    grpc.StatusCode.PERMISSION_DENIED: PermanentError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: PermanentError,
    grpc.StatusCode.FAILED_PRECONDITION: PermanentError,
    grpc.StatusCode.ABORTED: RetryableError,
    grpc.StatusCode.OUT_OF_RANGE: RetryableError,
    grpc.StatusCode.UNIMPLEMENTED: PermanentError,
    grpc.StatusCode.INTERNAL: PermanentError,
    grpc.StatusCode.UNAVAILABLE: RetryableError,
    grpc.StatusCode.DATA_LOSS: RetryableError,
    grpc.StatusCode.UNAUTHENTICATED: PermanentError,
}
ERRORS = [code for code in BY_CODE if code is not grpc.StatusCode.OK]


def exporting(endpoint: str, **settings: object) -> AbstractAsyncContextManager[GrpcExporter]:
    return running(GrpcExporter(endpoint, **{"insecure": True, "timeout": 30.0, **settings}))


def a_retry_info(seconds: int) -> RetryInfo:
    info = RetryInfo()
    info.retry_delay.seconds = seconds
    return info


def in_details(code: grpc.StatusCode, seconds: int) -> tuple[tuple[str, bytes], ...]:
    status = Status(code=code.value[0])
    status.details.add().Pack(a_retry_info(seconds))
    return ((STATUS_KEY, status.SerializeToString()),)


def in_retry_info(_code: grpc.StatusCode, seconds: int) -> tuple[tuple[str, bytes], ...]:
    return ((RETRY_INFO_KEY, a_retry_info(seconds).SerializeToString()),)


def test_every_code_has_a_row():
    assert set(BY_CODE) == set(grpc.StatusCode)


class TestTheWayThrough:
    @pytest.mark.parametrize("signal", Signal)
    async def test_request_and_response_are_the_same_bytes(self, signal):
        async with Downstream(ok(ANY_BYTES[::-1])) as downstream, exporting(downstream.endpoint) as exporter:
            response = await exporter.export(signal, ANY_BYTES)

        assert response == ANY_BYTES[::-1]
        assert [(call.signal, call.request) for call in downstream.received] == [(signal, ANY_BYTES)]

    async def test_an_empty_response_is_full_success(self):
        async with Downstream() as downstream, exporting(downstream.endpoint) as exporter:
            assert await exporter.export(Signal.LOGS, b"") == b""

    async def test_cli_07_a_partial_success_is_no_error(self):
        answer = partial(3, "too old")
        async with Downstream(answer) as downstream, exporting(downstream.endpoint) as exporter:
            assert await exporter.export(Signal.TRACES, b"x") == answer.response

    async def test_headers_go_out_in_lower_case_with_a_user_agent(self):
        headers = {"Authorization": "Bearer t", "x-tenant": "a"}
        async with Downstream() as downstream, exporting(downstream.endpoint, headers=headers) as exporter:
            await exporter.export(Signal.TRACES, b"")
        metadata = dict(downstream.received[0].metadata)

        assert (metadata["authorization"], metadata["x-tenant"]) == ("Bearer t", "a")
        assert metadata["user-agent"].startswith(f"enricher/{__version__} ")

    async def test_a11_headers_are_in_no_error_and_no_repr(self):
        headers = {"authorization": "Bearer canary"}
        async with (
            Downstream(otherwise=refuse(grpc.StatusCode.UNAUTHENTICATED, "no")) as downstream,
            exporting(downstream.endpoint, headers=headers) as exporter,
        ):
            error = await failing(exporter)

        assert "canary" not in repr(exporter) + repr(error) + repr(vars(error))

    @pytest.mark.parametrize(("compression", "text"), [("gzip", "Decompressed"), ("none", "SERVER: Received")])
    async def test_requests_are_compressed_when_asked(self, compression, text):
        """Nothing of it is to be seen behind grpc, but its server names what it measured in refusing."""
        async with (
            Downstream(max_receive_bytes=1000) as downstream,
            exporting(downstream.endpoint, compression=compression) as exporter,
        ):
            await exporter.export(Signal.TRACES, ANY_BYTES[:1000])
            error = await failing(exporter, bytes(100_000))

        assert error.details.startswith(f"{text} message larger than max")
        assert downstream.received[0].request == ANY_BYTES[:1000]

    async def test_a_request_above_grpcs_default_limit_goes_out(self):
        request = bytes(5 << 20)
        async with Downstream() as downstream, exporting(downstream.endpoint) as exporter:
            await exporter.export(Signal.TRACES, request)

        assert len(downstream.received[0].request) == len(request)


class TestErrors:
    @pytest.mark.parametrize("code", ERRORS, ids=lambda code: code.name)
    async def test_cli_03_each_code(self, code):
        async with Downstream(refuse(code, "why")) as downstream, exporting(downstream.endpoint) as exporter:
            error = await failing(exporter)

        assert (type(error), error.code, error.details, error.trailers) == (BY_CODE[code], code.value[0], "why", ())
        assert getattr(error, "retry_delay", None) is None

    @pytest.mark.parametrize("code", ERRORS, ids=lambda code: code.name)
    @pytest.mark.parametrize("form", [in_details, in_retry_info])
    async def test_cli_03_each_code_with_retry_info(self, code, form):
        """Only RESOURCE_EXHAUSTED changes its kind by it; the trailers are kept as they came."""
        trailers = form(code, 7)
        answer = refuse(code, "why", trailers)
        async with Downstream(answer) as downstream, exporting(downstream.endpoint) as exporter:
            error = await failing(exporter)
        expected = RetryableError if code is grpc.StatusCode.RESOURCE_EXHAUSTED else BY_CODE[code]

        assert (type(error), error.code, error.trailers) == (expected, code.value[0], trailers)
        assert getattr(error, "retry_delay", 7.0) == 7.0

    @pytest.mark.parametrize(
        ("trailers", "delay"),
        [
            (in_retry_info(grpc.StatusCode.UNAVAILABLE, -1), 0.0),
            (in_retry_info(grpc.StatusCode.UNAVAILABLE, 10**11), MAX_RETRY_DELAY),
            (((STATUS_KEY, b"\xff" * 200), (RETRY_INFO_KEY, b"\x0a\xff")), None),
        ],
    )
    async def test_a9_odd_retry_info_is_clamped_or_ignored(self, trailers, delay):
        answer = refuse(grpc.StatusCode.UNAVAILABLE, "", trailers)
        async with Downstream(answer) as downstream, exporting(downstream.endpoint) as exporter:
            error = await failing(exporter)

        assert isinstance(error, RetryableError)
        assert error.retry_delay == delay

    async def test_only_the_two_trailers_are_kept(self):
        trailers = (*retry_trailers(1.0, Code.UNAVAILABLE, "busy"), ("x-other-bin", b"x"))
        answer = refuse(grpc.StatusCode.UNAVAILABLE, "busy", trailers)
        async with Downstream(answer) as downstream, exporting(downstream.endpoint) as exporter:
            error = await failing(exporter)

        assert error.trailers == trailers[:2]

    async def test_f01_a_downstream_that_is_away_is_retryable_and_named_as_the_cause(self):
        """Otherwise a client reads "failed to connect" and looks between itself and the stage."""
        async with exporting(peers.free_endpoint()) as exporter:
            error = await failing(exporter)

        assert isinstance(error, RetryableError)
        assert error.code == Code.UNAVAILABLE
        assert error.details.startswith("downstream is not reachable: ")

    async def test_an_answer_of_downstream_is_not_taken_for_its_absence(self):
        answer = refuse(grpc.StatusCode.UNAVAILABLE, "in maintenance")
        async with Downstream(answer) as downstream, exporting(downstream.endpoint) as exporter:
            assert (await failing(exporter)).details == "in maintenance"

    async def test_cli_05_a_connection_that_breaks_before_the_answer_is_retryable(self):
        async def take_and_hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"\0\0\0\4\0\0\0\0\0")  # an empty SETTINGS frame: all that HTTP/2 needs for a start
            await reader.readuntil(ANY_BYTES[:16])
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(take_and_hang_up, "127.0.0.1", 0)
        async with server, exporting(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as exporter:
            error = await failing(exporter, ANY_BYTES)

        assert (type(error), error.code) == (RetryableError, Code.UNAVAILABLE)

    async def test_f02_a_downstream_that_never_answers_is_given_up_at_the_deadline(self):
        async with Downstream(stall()) as downstream, exporting(downstream.endpoint, timeout=0.05) as exporter:
            error = await failing(exporter)

        assert (type(error), error.code) == (RetryableError, Code.DEADLINE_EXCEEDED)

    @pytest.mark.parametrize("compressed", [False, True])
    async def test_cli_02_a_response_that_is_too_large_is_permanent_and_not_read(self, compressed):
        """And not RESOURCE_EXHAUSTED, which asks for the request to be split and sent again: it was taken."""
        large = ok(bytes(MAX_RESPONSE_BYTES + 1))
        compression = grpc.Compression.Gzip if compressed else None
        async with Downstream(large, compression=compression) as downstream, exporting(downstream.endpoint) as exporter:
            error = await failing(exporter)

        assert (type(error), error.code) == (AnswerError, Code.INTERNAL)

    async def test_cli_02_a_response_at_the_limit_is_read(self):
        async with (
            Downstream(ok(bytes(MAX_RESPONSE_BYTES))) as downstream,
            exporting(downstream.endpoint) as exporter,
        ):
            assert len(await exporter.export(Signal.TRACES, b"")) == MAX_RESPONSE_BYTES

    @pytest.mark.parametrize("compression", ["none", "gzip"])
    async def test_f07_a_request_too_large_for_downstream_is_resource_exhausted(self, compression):
        async with (
            Downstream(max_receive_bytes=1000) as downstream,
            exporting(downstream.endpoint, compression=compression) as exporter,
        ):
            error = await failing(exporter, bytes(100_000))

        assert (type(error), error.code, error.trailers) == (PermanentError, Code.RESOURCE_EXHAUSTED, ())

    async def test_an_answer_with_long_metadata_is_read(self):
        """Above grpc's default limit of 8 KiB the code would be lost."""
        answer = refuse(grpc.StatusCode.ABORTED, "x" * 9000)
        async with Downstream(answer) as downstream, exporting(downstream.endpoint) as exporter:
            assert (await failing(exporter)).code == Code.ABORTED


class TestLifecycle:
    async def test_shutdown_before_start_and_twice(self):
        exporter = GrpcExporter("127.0.0.1:1", insecure=True)
        await exporter.shutdown()
        await exporter.start()
        await exporter.shutdown(1)
        await exporter.shutdown(1)

    async def test_outside_of_its_life_a_call_is_retryable(self):
        exporter = GrpcExporter("127.0.0.1:1", insecure=True)
        before = await failing(exporter)
        await exporter.start()
        await exporter.shutdown()
        after = await failing(exporter)

        assert (type(before), before.code) == (type(after), after.code) == (RetryableError, Code.UNAVAILABLE)

    async def test_shutdown_waits_for_the_calls_under_way(self):
        answer = asyncio.Event()
        async with Downstream(delayed(answer, ok(b"late"))) as downstream, exporting(downstream.endpoint) as exporter:
            assert await finished(exporter, downstream, answer) == b"late"

    async def test_f21_what_is_under_way_after_the_grace_is_retryable_and_not_cancelled(self):
        """A cancellation would pass every `except Exception` between here and the client, who then gets no answer."""
        async with Downstream(stall()) as downstream, exporting(downstream.endpoint) as exporter:
            error = await cut_short(exporter, downstream)

        assert (type(error), error.code) == (RetryableError, Code.UNAVAILABLE)

    async def test_a_caller_that_is_cancelled_stays_cancelled_and_ends_the_call(self):
        async with Downstream(stall()) as downstream, exporting(downstream.endpoint) as exporter:
            under_way = asyncio.ensure_future(exporter.export(Signal.TRACES, b""))
            await downstream.requests(1)
            under_way.cancel()
            with pytest.raises(asyncio.CancelledError):
                await under_way

    async def test_f17_a_downstream_that_comes_up_later_is_found_without_a_restart(self):
        endpoint = peers.free_endpoint()
        async with exporting(endpoint) as exporter:
            assert isinstance(await failing(exporter), RetryableError)
            async with Downstream(endpoint=endpoint):
                while True:
                    try:
                        response = await exporter.export(Signal.TRACES, b"")
                    except RetryableError:
                        await asyncio.sleep(0.01)  # the reconnection is grpc's, and nothing tells when
                    else:
                        break

        assert response == b""


class TestTls:
    async def test_a_call_over_tls_to_the_authority_that_is_trusted(self, certificate):
        cert, key = certificate
        credentials = grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())])
        downstream = Downstream()
        await downstream.start(credentials)
        settings = {"insecure": False, "ca_file": cert, "server_name_override": "downstream.test"}
        try:
            async with exporting(downstream.endpoint, **settings) as exporter:
                assert await exporter.export(Signal.TRACES, b"over TLS") == b""
        finally:
            await downstream.stop()

        assert downstream.received[0].request == b"over TLS"

    async def test_a_client_certificate_is_shown(self, certificate):
        cert, key = certificate
        pair = [(key.read_bytes(), cert.read_bytes())]
        downstream = Downstream()
        await downstream.start(grpc.ssl_server_credentials(pair, cert.read_bytes(), require_client_auth=True))
        trusted = {"insecure": False, "ca_file": cert, "server_name_override": "downstream.test"}
        try:
            async with exporting(downstream.endpoint, **trusted) as exporter:
                assert isinstance(await failing(exporter), RetryableError)
            async with exporting(downstream.endpoint, **trusted, cert_file=cert, key_file=key) as exporter:
                assert await exporter.export(Signal.TRACES, b"") == b""
        finally:
            await downstream.stop()

    async def test_f17_an_authority_that_is_not_trusted_is_retryable(self, certificate):
        """The operator mends it without a restart of downstream; nothing may be dropped meanwhile."""
        cert, key = certificate
        downstream = Downstream()
        await downstream.start(grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())]))
        try:
            async with exporting(downstream.endpoint, insecure=False) as exporter:
                error = await failing(exporter)
        finally:
            await downstream.stop()

        assert (type(error), error.code) == (RetryableError, Code.UNAVAILABLE)

    @pytest.mark.parametrize("broken", ["ca_file", "cert_file", "key_file"])
    @pytest.mark.parametrize("content", [None, "", "no PEM"])
    async def test_a_file_that_cannot_be_used_is_named_at_start(self, certificate, tmp_path, broken, content):
        cert, key = certificate
        files = {"ca_file": cert, "cert_file": cert, "key_file": key}
        files[broken] = tmp_path / "broken.pem"
        if content is not None:
            files[broken].write_text(content)
        exporter = GrpcExporter("127.0.0.1:1", **files)

        with pytest.raises(EnricherError, match=r"exporters\.otlp\.tls\.\w+: .*broken\.pem") as caught:
            await exporter.start()
        assert "BEGIN" not in str(caught.value)

    async def test_an_encrypted_key_is_refused_without_asking_for_its_password(self, certificate, tmp_path):
        cert, key = certificate
        encrypted = tmp_path / "encrypted.pem"
        openssl("rsa", "-aes256", "-passout", "pass:secret", "-in", str(key), "-out", str(encrypted))

        with pytest.raises(EnricherError, match=r"the key is encrypted"):
            await GrpcExporter("127.0.0.1:1", cert_file=cert, key_file=encrypted).start()

    async def test_a_certificate_without_its_key_is_refused(self, certificate):
        with pytest.raises(EnricherError, match="belong together"):
            await GrpcExporter("127.0.0.1:1", cert_file=certificate[0]).start()


@asynccontextmanager
async def over_tls(*script: object, server: Pair, clients: Path | None = None) -> AsyncIterator[Downstream]:
    """Give a downstream whose certificate is what the files hold at each handshake."""

    def held() -> grpc.ServerCertificateConfiguration:
        pair = (server.key.read_bytes(), server.cert.read_bytes())
        return grpc.ssl_server_certificate_configuration([pair], clients.read_bytes() if clients else None)

    downstream = Downstream(*script)
    await downstream.start(grpc.dynamic_ssl_server_credentials(held(), held, clients is not None))
    try:
        yield downstream
    finally:
        await downstream.stop()


async def until_taken(exporter: GrpcExporter) -> bytes:
    while True:
        try:
            return await exporter.export(Signal.TRACES, b"")
        except RetryableError:
            await asyncio.sleep(0.01)  # the reconnection is grpc's, and nothing tells when


class TestRotation:
    async def test_f17_an_expired_certificate_of_downstream_is_retryable_and_its_renewal_is_found(self, tmp_path):
        authority = Authority(tmp_path)
        server = authority.issue("server", expired=True)
        async with (
            over_tls(server=server) as downstream,
            exporting(downstream.endpoint, insecure=False, ca_file=authority.ca) as exporter,
        ):
            error = await failing(exporter)
            server.replace_with(authority.issue("renewed"))

            assert (type(error), error.code) == (RetryableError, Code.UNAVAILABLE)
            assert await until_taken(exporter) == b""

    async def test_a_new_certificate_of_the_client_is_shown_and_calls_under_way_finish(self, tmp_path):
        """One call is under way on the first connection while the next goes out on the second, and then shutdown."""
        authority, old, new = Authority(tmp_path), Authority(tmp_path, "old"), Authority(tmp_path, "new")
        server, client, accepted = authority.issue("server"), old.issue("client"), tmp_path / "clients.pem"
        accepted.write_bytes(old.ca.read_bytes())
        answer = asyncio.Event()
        settings = {"insecure": False, "ca_file": authority.ca, "cert_file": client.cert, "key_file": client.key}
        async with (
            over_tls(delayed(answer, ok(b"late")), ok(b"new"), server=server, clients=accepted) as downstream,
            exporting(downstream.endpoint, **settings) as exporter,
        ):
            under_way = asyncio.ensure_future(exporter.export(Signal.TRACES, b""))
            await downstream.requests(1)
            accepted.write_bytes(new.ca.read_bytes())
            client.replace_with(new.issue("renewed"))
            for each in exporter.rotating:
                each.reload()

            assert await exporter.export(Signal.TRACES, b"") == b"new"
            assert not under_way.done()
            answer.set()
            assert await under_way == b"late"
            assert not exporter._leaving

    async def test_a_shutdown_ends_the_calls_on_a_connection_that_was_left(self, tmp_path):
        authority = Authority(tmp_path)
        server = authority.issue("server")
        async with (
            over_tls(stall(), ok(b"new"), server=server) as downstream,
            exporting(downstream.endpoint, insecure=False, ca_file=authority.ca) as exporter,
        ):
            under_way = asyncio.ensure_future(failing(exporter))
            await downstream.requests(1)
            exporter.rotating[0].reload()
            await exporter.export(Signal.TRACES, b"")
            await exporter.shutdown()

            assert (await under_way).code == Code.UNAVAILABLE

    async def test_with_reload_interval_an_authority_that_changed_is_trusted(self, tmp_path):
        authority, other = Authority(tmp_path), Authority(tmp_path, "other")
        settings = {"insecure": False, "ca_file": other.ca, "reload_interval": 1e-9}
        async with (
            over_tls(server=authority.issue("server")) as downstream,
            exporting(downstream.endpoint, **settings) as exporter,
        ):
            error = await failing(exporter)
            other.ca.write_bytes(authority.ca.read_bytes())

            assert isinstance(error, RetryableError)
            assert await exporter.export(Signal.TRACES, b"") == b""

    async def test_a_token_that_changed_is_sent_from_the_next_call_on(self, tmp_path):
        file = tmp_path / "token"
        file.write_text("old\n")
        token = authorization(ClientAuthConfig(bearer={"filename": file}), "exporters.otlp.auth")
        async with Downstream() as downstream, exporting(downstream.endpoint, authorization=token) as exporter:
            await exporter.export(Signal.TRACES, b"")
            file.write_text("new\n")
            for each in exporter.rotating:
                each.reload()
            await exporter.export(Signal.TRACES, b"")

        assert [dict(call.metadata)["authorization"] for call in downstream.received] == ["Bearer old", "Bearer new"]

    async def test_a_token_that_cannot_be_read_is_named_at_start(self, tmp_path):
        token = authorization(ClientAuthConfig(bearer={"filename": tmp_path / "none"}), "exporters.otlp.auth")

        with pytest.raises(EnricherError, match=r"exporters\.otlp\.auth\.bearer\.filename: .*cannot be read"):
            await GrpcExporter("127.0.0.1:1", insecure=True, authorization=token).start()


class TestInFrontOfTheReceiver:
    """The relay that the two make: what a client gets is what downstream answered."""

    @pytest.mark.parametrize("code", ERRORS, ids=lambda code: code.name)
    async def test_a_client_sees_downstreams_code_and_text(self, code):
        async with relay(Downstream(refuse(code, "why"))) as (channel, _):
            error = await client_error(channel)

        assert (error.code(), error.details()) == (code, "why")

    async def test_srv_05_a_client_sees_downstreams_partial_success(self):
        answer = partial(2, "too old")
        async with relay(Downstream(answer)) as (channel, _):
            assert await channel.unary_unary(EXPORT)(ANY_BYTES, timeout=30) == answer.response

    async def test_a14_a_clients_metadata_is_not_forwarded(self):
        sent = (("authorization", "Bearer of-the-client"), ("x-tenant", "a"), ("traceparent", "00-1-2-01"))
        async with relay(Downstream()) as (channel, downstream):
            await channel.unary_unary(EXPORT)(b"", timeout=30, metadata=sent)

        assert {key for key, _ in downstream.received[0].metadata} == {"user-agent"}

    async def test_a_client_of_an_absent_downstream_is_told_to_come_back_within_a_second(self):
        downstream = Downstream()
        async with relay(downstream) as (channel, _):
            await downstream.stop()
            error = await client_error(channel)
        trailers = dict(error.trailing_metadata())

        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert error.details().startswith("downstream is not reachable: ")
        assert RetryInfo.FromString(trailers[RETRY_INFO_KEY]) == a_retry_info(1)
        assert Status.FromString(trailers[STATUS_KEY]).code == 14

    async def test_grp_04_a_throttling_downstream_is_passed_on_as_throttling(self):
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
        async with relay(Downstream(refuse(code, "slow down", in_details(code, 1)))) as (channel, _):
            error = await client_error(channel)
        trailers = dict(error.trailing_metadata())

        assert error.code() is code
        assert (STATUS_KEY, trailers[STATUS_KEY]) in in_details(code, 1)
        assert RetryInfo.FromString(trailers[RETRY_INFO_KEY]) == a_retry_info(1)


EXPORT = f"/{SERVICES[Signal.TRACES]}/Export"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a self-signed certificate for `downstream.test` and its key, made for this run."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    name = ("-subj", "/CN=downstream.test", "-addext", "subjectAltName=DNS:downstream.test")
    openssl(
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *name, "-keyout", str(key), "-out", str(cert)
    )
    return cert, key


def openssl(*arguments: str) -> None:
    if not (program := shutil.which("openssl")):
        peers.missing("openssl")
    subprocess.run([program, *arguments], check=True, capture_output=True)


@asynccontextmanager
async def relay(downstream: Downstream) -> AsyncIterator[tuple[grpc.aio.Channel, Downstream]]:
    async with downstream, exporting(downstream.endpoint) as exporter:
        receiver = GrpcReceiver("127.0.0.1:0", exporter.export, max_receive_bytes=1 << 20)
        await receiver.start()
        try:
            async with peers.channel(f"127.0.0.1:{receiver.port}") as channel:
                yield channel, downstream
        finally:
            await receiver.shutdown(0)


async def client_error(channel: grpc.aio.Channel) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(EXPORT)(b"", timeout=30)
    return caught.value
