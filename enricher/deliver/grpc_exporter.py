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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import grpc

from enricher import __version__
from enricher.credentials import TlsFiles, load_tls
from enricher.errors import AnswerError, ExportError, PermanentError, RetryableError
from enricher.otlp.status import RETRY_INFO_KEY, RETRYABLE, SERVICES, STATUS_KEY, Code, retry_delay
from enricher.rotation import Rotating

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    is passed on (A14). `authorization` gives the header of that name.

    The three files are PEM; `ca_file` replaces the authorities that grpc trusts by default. They are looked at every
    `reload_interval` seconds; when one changed, later calls take a new connection, and those under way finish on the
    old one.
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
        reload_interval: float | None = None,
        authorization: Rotating[str] | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._compression: Compression = compression
        self._headers = tuple((name.lower(), value) for name, value in (headers or {}).items())
        self._authorization = authorization
        self._tls: Rotating[TlsFiles] | None = None
        if not insecure:
            files = [Path(file) for file in (ca_file, cert_file, key_file) if file is not None]
            self._tls = Rotating(
                "exporters.otlp.tls", files, lambda: _load(ca_file, cert_file, key_file), every=reload_interval
            )
        self._server_name_override = server_name_override
        self._connection: _Connection | None = None
        self._leaving: set[_Connection] = set()

    async def start(self) -> None:
        """
        Make the channel; the connection itself comes with the first call, and downstream may still be away.

        Raises `EnricherError` when a TLS file or a token's cannot be used.
        """
        if self._authorization is not None:
            self._authorization.get()
        self._connection = self._connect(self._tls.get() if self._tls is not None else None)

    @property
    def rotating(self) -> list[Rotating[Any]]:
        """What is read from files and can be read again."""
        return [each for each in (self._tls, self._authorization) if each is not None]

    async def shutdown(self, grace: float = 0.0) -> None:
        """
        Return when the calls under way are answered; after `grace` seconds the rest raise `RetryableError`.

        They may have been taken nevertheless: whoever sends them again makes a duplicate, whoever does not a loss.
        """
        closing = [*self._leaving, *([self._connection] if self._connection is not None else [])]
        self._connection, self._leaving = None, set()
        await asyncio.gather(*(connection.channel.close(grace) for connection in closing))

    async def export(self, signal: Signal, request: bytes) -> bytes:
        """
        Send one request and return the response's bytes.

        Raises `RetryableError` or `PermanentError`, which hold downstream's answer, by the table above.
        """
        connection = self._current()
        if connection is None:
            raise RetryableError(Code.UNAVAILABLE, "the exporter is not running")
        headers = self._headers
        if self._authorization is not None:
            headers = (*headers, ("authorization", self._authorization.get()))
        connection.under_way += 1
        try:
            response: bytes = await connection.calls[signal](request, timeout=self._timeout, metadata=headers)
        except grpc.aio.AioRpcError as error:
            raise self._export_error(error, connection) from None
        except asyncio.CancelledError:
            # Closing the channel cancels its calls. The task that waits is not cancelled then, and must get an answer.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise RetryableError(Code.UNAVAILABLE, "the exporter was shut down before downstream answered") from None
        finally:
            connection.under_way -= 1
            await self._close_unused()
        return response

    def _connect(self, tls: TlsFiles | None) -> _Connection:
        options: list[tuple[str, Any]] = list(_OPTIONS)
        compression = grpc.Compression.Gzip if self._compression == "gzip" else grpc.Compression.NoCompression
        if tls is None:
            channel = grpc.aio.insecure_channel(self._endpoint, options=options, compression=compression)
        else:
            if self._server_name_override:
                options.append(("grpc.ssl_target_name_override", self._server_name_override))
                options.append(("grpc.default_authority", self._server_name_override))
            credentials = grpc.ssl_channel_credentials(tls.authorities, tls.key, tls.certificates)
            channel = grpc.aio.secure_channel(self._endpoint, credentials, options=options, compression=compression)
        calls = {signal: channel.unary_unary(f"/{service}/Export") for signal, service in SERVICES.items()}
        return _Connection(channel, tls, calls)

    def _current(self) -> _Connection | None:
        """Return the connection for a new call, another one than before if the files changed."""
        before = self._connection
        if before is not None and self._tls is not None:
            tls = self._tls.get()
            if tls is not before.tls:
                self._leaving.add(before)
                self._connection = self._connect(tls)
        return self._connection

    async def _close_unused(self) -> None:
        for connection in [each for each in self._leaving if not each.under_way]:
            self._leaving.discard(connection)
            await connection.channel.close()

    def _export_error(self, error: grpc.aio.AioRpcError, connection: _Connection) -> ExportError:
        code: int = error.code().value[0]
        details: str = error.details() or ""
        trailers: dict[str, bytes] = {}
        for key, value in error.trailing_metadata() or ():
            if key in (STATUS_KEY, RETRY_INFO_KEY):
                trailers.setdefault(key, value)
        raw = tuple(trailers.items())
        if code == Code.RESOURCE_EXHAUSTED and self._is_about_the_response(details):
            return AnswerError(Code.INTERNAL, f"downstream's response is larger than {MAX_RESPONSE_BYTES} bytes")
        if code == Code.UNAVAILABLE and not raw and self._is_disconnected(connection):
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

    def _is_disconnected(self, connection: _Connection) -> bool:
        # Otherwise a client reads "failed to connect" and looks for the fault between itself and the stage.
        return connection is self._connection and connection.channel.get_state() is not grpc.ChannelConnectivity.READY


@dataclass(eq=False, slots=True)
class _Connection:
    """A channel and the calls on it, which close together."""

    channel: Any
    tls: TlsFiles | None
    calls: dict[Signal, Any]
    under_way: int = 0


def _load(ca_file: str | Path | None, cert_file: str | Path | None, key_file: str | Path | None) -> TlsFiles:
    return load_tls(
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        "exporters.otlp.tls",
        cert_file=cert_file,
        key_file=key_file,
        ca_file=ca_file,
    )
