"""
OTLP over HTTP out: protobuf requests to `/v1/traces`, `/v1/logs` and `/v1/metrics` below one address.

One call is one attempt. Whether to try again, to queue or to split is decided by the caller from the exception, whose
code is the one that gRPC has for it:

    downstream answers                        `export`
    2xx                                       returns the response's bytes; a body that is none is full success (CLI-15)
    429                                       raises RetryableError with RESOURCE_EXHAUSTED (CLI-04)
    502, 503, 504                             raises RetryableError with UNAVAILABLE
    400, 401, 403, 404, 413                   raises PermanentError with the code that it stands for
    3xx                                       the same with UNKNOWN: no redirect is followed, it would turn POST into
                                              GET, or take the headers to somebody else (CLI-16)
    any other status                          raises PermanentError with INTERNAL or UNKNOWN
    nothing: not reached, broken off,         raises RetryableError with UNAVAILABLE or DEADLINE_EXCEEDED (CLI-05)
      no HTTP, or `timeout` is over
    2xx and a body above 4 MiB                raises AnswerError with INTERNAL (CLI-02)
"""

from __future__ import annotations

import asyncio
import gzip
import io
import re
import ssl
import time
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal

import aiohttp
import zstandard

from enricher import __version__
from enricher.credentials import TlsFiles, load_tls
from enricher.errors import AnswerError, ExportError, PermanentError, RetryableError
from enricher.otlp.status import MAX_RETRY_DELAY, STATUS_KEY, Code, is_response, status_code, status_message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from enricher.otlp.shallow import Signal
    from enricher.rotation import Rotating

Compression = Literal["none", "gzip", "zstd"]

MAX_RESPONSE_BYTES = 4 << 20
"""As for gRPC. Nothing above it is read, whatever the status."""

INLINE_BYTES = 64 << 10
"""Requests up to this size are compressed in 2 ms and by the event loop itself, larger ones in a thread."""

PROTOBUF = "application/x-protobuf"

_RETRYABLE = {429: Code.RESOURCE_EXHAUSTED, 502: Code.UNAVAILABLE, 503: Code.UNAVAILABLE, 504: Code.UNAVAILABLE}
_PERMANENT = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.UNIMPLEMENTED,
    413: Code.RESOURCE_EXHAUSTED,
    500: Code.INTERNAL,
}
_SECONDS = re.compile(r"-?[0-9]{1,18}")


class HttpExporter:
    """
    A component: `export` works between `start` and `shutdown`.

    `endpoint` is the URL below which the three paths are. `timeout` is in seconds and holds for one attempt. `headers`
    go out with every request and may be secrets: they appear in no error and no log. Nothing of a client's own headers
    is passed on (A14). `tls` gives the context of the next connection, by default one that trusts what the system
    trusts, `authorization` the header of that name; `start` raises `EnricherError` if there is none to be had.
    """

    def __init__(  # noqa: PLR0913 - one keyword for each key of `exporters.otlphttp`
        self,
        endpoint: str,
        *,
        timeout: float = 30.0,
        compression: Compression = "none",
        headers: Mapping[str, str] | None = None,
        tls: Rotating[TlsFiles] | None = None,
        server_name_override: str | None = None,
        authorization: Rotating[str] | None = None,
    ) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._timeout = timeout
        self._compression: Compression = compression
        self._headers = {
            "User-Agent": f"enricher/{__version__}",
            **(headers or {}),
            "Content-Type": PROTOBUF,
            "Accept-Encoding": "identity",  # else an answer may be a bomb (F15)
            **({"Content-Encoding": compression} if compression != "none" else {}),
        }
        self._tls, self._authorization = tls, authorization
        self._server_name_override = server_name_override
        self._session: aiohttp.ClientSession | None = None
        self._under_way: set[asyncio.Task[Any]] = set()

    @property
    def rotating(self) -> list[Rotating[Any]]:
        """What is read from files again when they change."""
        return [each for each in (self._tls, self._authorization) if each is not None]

    async def start(self) -> None:
        """Make ready; the connection itself comes with the first request, and downstream may still be away."""
        for each in self.rotating:
            each.get()
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._timeout),
        )

    async def shutdown(self, grace: float = 0.0) -> None:
        """
        Return when the requests under way are answered; after `grace` seconds the rest raise `RetryableError`.

        They may have been taken nevertheless: whoever sends them again makes a duplicate, whoever does not a loss.
        """
        session, self._session = self._session, None
        if session is None:
            return
        if self._under_way and grace > 0:
            await asyncio.wait(self._under_way, timeout=grace)
        for sending in self._under_way:
            sending.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)
        await session.close()

    async def export(self, signal: Signal, request: bytes) -> bytes:
        """
        Send one request and return the response's bytes.

        Raises `RetryableError` or `PermanentError`, which hold downstream's answer, by the table above.
        """
        if self._session is None:
            raise RetryableError(Code.UNAVAILABLE, "the exporter is not running")
        # A task of its own, so that a shutdown can end the sending without cancelling whoever waits for it.
        sending = asyncio.create_task(self._send(self._session, signal, request))
        self._under_way.add(sending)
        sending.add_done_callback(self._under_way.discard)
        try:
            return await sending
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise RetryableError(Code.UNAVAILABLE, "the exporter was shut down before downstream answered") from None

    async def _send(self, session: aiohttp.ClientSession, signal: Signal, request: bytes) -> bytes:
        try:
            body = await self._compressed(request)
            async with session.post(
                f"{self._endpoint}/v1/{signal.value}",
                data=io.BytesIO(body),
                headers=self._headers | self._credentials(),
                allow_redirects=False,
                ssl=self._tls.get().context if self._tls is not None else True,
                server_hostname=self._server_name_override,
            ) as response:
                answer = await _read(response)
        except TimeoutError:
            raise RetryableError(Code.DEADLINE_EXCEEDED, f"no answer within {self._timeout:g} s") from None
        except aiohttp.ClientConnectorError as error:
            raise RetryableError(Code.UNAVAILABLE, f"downstream is not reachable: {error}") from None
        except aiohttp.ClientResponseError:
            # Its text quotes what came.
            raise RetryableError(Code.UNAVAILABLE, "downstream's answer is not HTTP") from None
        except (aiohttp.ClientError, OSError):
            raise RetryableError(Code.UNAVAILABLE, "the connection broke before downstream answered") from None
        is_protobuf = response.content_type == PROTOBUF and "Content-Encoding" not in response.headers
        if 200 <= response.status < 300:
            if answer is None:
                raise AnswerError(Code.INTERNAL, f"downstream's response is larger than {MAX_RESPONSE_BYTES} bytes")
            return answer if is_protobuf and is_response(answer) else b""
        details = answer if is_protobuf and answer is not None else b""
        raise _error(response.status, details, response.headers.get("Retry-After"))

    def _credentials(self) -> dict[str, str]:
        return {} if self._authorization is None else {"Authorization": self._authorization.get()}

    async def _compressed(self, request: bytes) -> bytes:
        compress = _COMPRESS.get(self._compression)
        if compress is None:
            return request
        return await asyncio.to_thread(compress, request) if len(request) > INLINE_BYTES else compress(request)


def client_tls(
    where: str,
    *,
    ca_file: Path | None,
    cert_file: Path | None,
    key_file: Path | None,
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
) -> TlsFiles:
    """Return the PEM files, loaded; `ca_file` replaces the system's authorities. Raises `EnricherError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = minimum
    if ca_file is None:
        context.load_default_certs()
    return load_tls(context, where, cert_file=cert_file, key_file=key_file, ca_file=ca_file)


def _gzip(data: bytes) -> bytes:
    # Level 6 as Go's default, and no time, so that the same request is the same bytes.
    return gzip.compress(data, 6, mtime=0)


_COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": _gzip, "zstd": zstandard.compress}


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    """Return the body, or None as soon as it is too large; the connection is then closed with the response."""
    pieces, size = [], 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > MAX_RESPONSE_BYTES:
            response.close()
            return None
        pieces.append(piece)
    return b"".join(pieces)


def _error(status: int, details: bytes, wished: str | None) -> ExportError:
    text = f"downstream answered {status} {_phrase(status)}"
    if 300 <= status < 400:
        text += ", and no redirect is followed; set the endpoint to where it leads"
    if message := status_message(details):
        text += f": {message}"
    code = _RETRYABLE.get(status) or _PERMANENT.get(status, Code.UNKNOWN)
    # A Status that says another code would confuse a client that gets it beside this one.
    trailers = ((STATUS_KEY, details),) if details and status_code(details) == code else ()
    if status in _RETRYABLE:
        return RetryableError(code, text, trailers, retry_after(wished, time.time()))
    return PermanentError(code, text, trailers)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "(no known status)"


def retry_after(value: str | None, now: float) -> float | None:
    """
    Return the seconds that a Retry-After header asks for, whole seconds or an HTTP-date, or None without a valid one.

    What lies in the past counts as 0, what is absurd as `MAX_RETRY_DELAY`.
    """
    if value is None:
        return None
    if _SECONDS.fullmatch(value.strip()):
        seconds = float(value)
    else:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), MAX_RETRY_DELAY)
