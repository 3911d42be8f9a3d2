"""
OTLP over gRPC out: one channel to downstream, requests and responses as bytes.

One call is one attempt. Whether to try again, to queue or to split is decided by the caller from the exception:

    downstream answers                        `export`
    OK                                        returns the response's bytes, a partial success included (CLI-07)
    CANCELLED, DEADLINE_EXCEEDED, ABORTED,    raises RetryableError (CLI-03)
      OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS
    RESOURCE_EXHAUSTED with RetryInfo         raises RetryableError
    RESOURCE_EXHAUSTED without                raises PermanentError with that code (too large, or a memory limiter)
    any other code                            raises PermanentError
    nothing: not reached, broken off,         raises RetryableError with UNAVAILABLE or DEADLINE_EXCEEDED (CLI-05)
      or `timeout` is over
    a response above 4 MiB                    raises AnswerError with INTERNAL (CLI-02): it was taken, so neither
                                              sending again nor splitting may follow
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import grpc

from enricher import __version__
from enricher.errors import AnswerError, EnricherError, ExportError, PermanentError, RetryableError
from enricher.otlp.status import RETRY_INFO_KEY, RETRYABLE, SERVICES, STATUS_KEY, Code, retry_delay

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from enricher.otlp.shallow import Signal

Compression = Literal["none", "gzip"]

MAX_RESPONSE_BYTES = 4 << 20
"""A full success has 0 bytes and a partial one a line of text; the limit is the specification's (CLI-02)."""

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
    ("grpc.max_send_message_length", -1),  # what the receiver let in may go out; downstream has the last word
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.absolute_max_metadata_size", 32 << 10),
    ("grpc.primary_user_agent", f"enricher/{__version__}"),
    # grpc's defaults are 1 s and 120 s: a downstream that is back would be found too late for a client to see it.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # in spite of its name: what one attempt to connect may take
    # A dead connection is noticed within 40 s instead of TCP's quarter of an hour. Only while calls are under way,
    # which is grpc's default: servers in Go close a connection that pings while idle.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A TXT record may prescribe retries; retrying is the caller's, who keeps count.
    ("grpc.service_config_disable_resolution", 1),
)


class GrpcExporter:
    """
    A component: `export` works between `start` and `shutdown`.

    `endpoint` is `host:port` or another target of grpc's. `timeout` is in seconds and holds for one attempt. `headers`
    go out with every call and may be secrets: they appear in no error and no log. Nothing of a client's own metadata
    is passed on (A14). The three files are PEM; `ca_file` replaces the authorities that grpc trusts by default.
    """

    def __init__(  # noqa: PLR0913 - one keyword for each key of `exporters.otlp`
        self,
        endpoint: str,
        *,
        insecure: bool = False,
        timeout: float = 5.0,
        compression: Compression = "none",
        headers: Mapping[str, str] | None = None,
        ca_file: str | Path | None = None,
        cert_file: str | Path | None = None,
        key_file: str | Path | None = None,
        server_name_override: str | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._insecure = insecure
        self._timeout = timeout
        self._compression: Compression = compression
        self._metadata = grpc.aio.Metadata(*((name.lower(), value) for name, value in (headers or {}).items()))
        self._files = (ca_file, cert_file, key_file)
        self._server_name_override = server_name_override
        self._channel: Any = None
        self._calls: dict[Signal, Any] = {}

    async def start(self) -> None:
        """
        Make the channel; the connection itself comes with the first call, and downstream may still be away.

        Raises `EnricherError` when a TLS file cannot be used.
        """
        options: list[tuple[str, Any]] = list(_OPTIONS)
        compression = grpc.Compression.Gzip if self._compression == "gzip" else grpc.Compression.NoCompression
        if self._insecure:
            channel = grpc.aio.insecure_channel(self._endpoint, options=options, compression=compression)
        else:
            credentials = _credentials(*self._files)
            if self._server_name_override:
                options.append(("grpc.ssl_target_name_override", self._server_name_override))
                options.append(("grpc.default_authority", self._server_name_override))
            channel = grpc.aio.secure_channel(self._endpoint, credentials, options=options, compression=compression)
        self._calls = {signal: channel.unary_unary(f"/{service}/Export") for signal, service in SERVICES.items()}
        self._channel = channel

    async def shutdown(self, grace: float = 0.0) -> None:
        """
        Return when the calls under way are answered; after `grace` seconds the rest raise `RetryableError`.

        They may have been taken nevertheless: whoever sends them again makes a duplicate, whoever does not a loss.
        """
        channel, self._channel, self._calls = self._channel, None, {}
        if channel is not None:
            await channel.close(grace)

    async def export(self, signal: Signal, request: bytes) -> bytes:
        """
        Send one request and return the response's bytes.

        Raises `RetryableError` or `PermanentError`, which hold downstream's answer, by the table above.
        """
        call = self._calls.get(signal)
        if call is None:
            raise RetryableError(Code.UNAVAILABLE, "the exporter is not running")
        try:
            response: bytes = await call(request, timeout=self._timeout, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise self._export_error(error) from None
        except asyncio.CancelledError:
            # Closing the channel cancels its calls. The task that waits is not cancelled then, and must get an answer.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise RetryableError(Code.UNAVAILABLE, "the exporter was shut down before downstream answered") from None
        return response

    def _export_error(self, error: grpc.aio.AioRpcError) -> ExportError:
        code: int = error.code().value[0]
        details: str = error.details() or ""
        trailers: dict[str, bytes] = {}
        for key, value in error.trailing_metadata() or ():
            if key in (STATUS_KEY, RETRY_INFO_KEY):
                trailers.setdefault(key, value)
        raw = tuple(trailers.items())
        if code == Code.RESOURCE_EXHAUSTED and self._is_about_the_response(details):
            return AnswerError(Code.INTERNAL, f"downstream's response is larger than {MAX_RESPONSE_BYTES} bytes")
        if code == Code.UNAVAILABLE and not raw and self._is_disconnected():
            details = f"downstream is not reachable: {details}"
        delay = retry_delay(raw)
        if code in RETRYABLE or (code == Code.RESOURCE_EXHAUSTED and delay is not None):
            return RetryableError(code, details, raw, delay)
        return PermanentError(code, details, raw)

    def _is_about_the_response(self, details: str) -> bool:
        # grpc gives one code for a response that it did not read and for a request that downstream did not take. The
        # second text is the same from both sides; without compression it can only be ours.
        return "CLIENT: Received message larger than max" in details or (
            self._compression == "none" and details == "Decompressed message larger than max"
        )

    def _is_disconnected(self) -> bool:
        # Otherwise a client reads "failed to connect" and looks for the fault between itself and the stage.
        return self._channel is not None and self._channel.get_state() is not grpc.ChannelConnectivity.READY


def _credentials(
    ca_file: str | Path | None, cert_file: str | Path | None, key_file: str | Path | None
) -> grpc.ChannelCredentials:
    """Return credentials from PEM files, tried first: grpc takes any bytes and then fails at every handshake."""
    ca = cert = key = None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca_file is not None:
        with _naming("ca_file", ca_file):
            ca = Path(ca_file).read_bytes()
            context.load_verify_locations(ca_file)
    if cert_file is not None and key_file is not None:
        with _naming("cert_file", cert_file):
            cert = Path(cert_file).read_bytes()
        with _naming("key_file", key_file):
            key = Path(key_file).read_bytes()
        with _naming("cert_file", f"{cert_file} with key_file {key_file}"):
            context.load_cert_chain(cert_file, key_file, password=_no_password)
    elif cert_file is not None or key_file is not None:
        raise EnricherError("exporters.otlp.tls: cert_file and key_file belong together; expected both or neither")
    return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)


def _no_password() -> str:
    # Without this OpenSSL asks at the terminal and the start hangs; grpc cannot use an encrypted key anyway.
    raise OSError("the key is encrypted")


@contextmanager
def _naming(key: str, file: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise EnricherError(
            f"exporters.otlp.tls.{key}: {file} cannot be used: {reason}; expected a readable, unencrypted PEM file"
        ) from None
