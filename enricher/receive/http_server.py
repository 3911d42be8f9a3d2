"""
OTLP over HTTP in: POST to `/v1/traces`, `/v1/logs` and `/v1/metrics`, each request handed to `consume` as protobuf.

A client is answered with what downstream answered, in the encoding that it sent (HTP-03, HTP-05):

    consume ...                               the client sees
    returns bytes                             200 and these bytes, or the same as JSON
    raises BadRequestError                    400 with a BadRequest in the details (HTP-06)
    raises RetryableError                     429 where downstream throttles, else 503; Retry-After (HTP-08)
    raises PermanentError                     the status of its code: 400, 401, 403, 404, 429 or 500
    raises anything else                      503 "internal error, id=..."; the log has the rest (A23)
    (not asked: shutting down)                503
    (not asked: too much is in flight)        503 and Retry-After, before the body is read or within it (SRV-07)
    (not authenticated)                       401, before the body is read
    (other paths, methods, types, codings)    404, 405, 415
    (larger than the limit)                   413, before the body is read where its length is told (HTP-07, HTP-17)

RESOURCE_EXHAUSTED without RetryInfo, which gRPC calls permanent, is 429 as in the Collector: HTTP has no other word
for it, and behind it is more often a full memory than a large request. Retry-After is always one second: it counts
whole seconds, and stock clients drop at once what they are told to keep for longer than their budget.

A client that leaves while its request is under way does not end it: what was received whole is delivered.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp import web

from enricher.listening import listen
from enricher.otlp.shallow import Signal
from enricher.otlp.status import STATUS_KEY, Code, response_json, status_code, status_details, status_json
from enricher.receive.http_body import BODY_SECONDS, MAX_JSON_BYTES, Bodies
from enricher.receive.inflate import CODINGS, TooLargeError
from enricher.receive.refusals import DRAIN_SECONDS, Refusal, Refusals, bad_request, cannot_listen, shutting_down

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from enricher.receive import ConsumeInRoom
    from enricher.receive.admission import Room

PROTOBUF = "application/x-protobuf"
JSON = "application/json"

IDLE_SECONDS = 60.0
"""How long a connection may take to send a request's headers, or be silent after an answer (HTP-18)."""

LINGER_SECONDS = 2.0
"""How long what a refused client still sends is read and thrown away. Closed at once, the connection would be reset,
and the client would see that instead of the answer."""

LAST_WORDS_SECONDS = 0.5
"""How long answers may take to leave when the grace of a shutdown is over."""

_SIGNALS = {f"/v1/{signal.value}": signal for signal in Signal}
_STATUSES = {
    Code.INVALID_ARGUMENT: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.UNIMPLEMENTED: 404,
    Code.RESOURCE_EXHAUSTED: 429,
}


class HttpReceiver:
    """
    A component: listens from `start` until `shutdown`.

    `endpoint` is `host:port`; port 0 takes a free one, to be read from `port`. `localhost` is 127.0.0.1 alone, as for
    gRPC. `max_receive_bytes` holds for a body as it comes and for what it inflates to; JSON has a lower limit of its
    own. `room` returns where a request's bytes are counted from the first one that is read; `consume` gets it too.
    `authenticate` gets the headers, names in lower case, before anything else of a request is looked at.
    """

    def __init__(  # noqa: PLR0913 - where it listens, and what stands before and behind it
        self,
        endpoint: str,
        consume: ConsumeInRoom,
        *,
        room: Callable[[Signal], AbstractContextManager[Room]],
        max_receive_bytes: int,
        ssl_context: ssl.SSLContext | None = None,
        authenticate: Callable[[Mapping[str, str]], bool] | None = None,
    ) -> None:
        self.port = 0
        self._endpoint = endpoint
        self._consume = consume
        self._room = room
        self._limits = {PROTOBUF: max_receive_bytes, JSON: min(max_receive_bytes, MAX_JSON_BYTES)}
        self._ssl_context = ssl_context
        self._authenticate = authenticate
        self._refusals = Refusals()
        self._running: _Running | None = None
        self._in_flight: set[asyncio.Task[Any]] = set()
        self._draining = False
        self._grace_is_over = False

    async def start(self) -> int:
        """Listen, and return the port. Raises `EnricherError` when the endpoint cannot be had."""
        bodies = Bodies()
        server = web.Server(partial(self._handle, bodies))
        try:
            listener = await listen(
                server,
                self._endpoint,
                lambda request, text: _refused(request, bad_request(text)),
                ssl_context=self._ssl_context,
                auto_decompress=False,  # aiohttp takes what breaks off and grows without a limit (A2)
                keepalive_timeout=IDLE_SECONDS,
                lingering_time=LINGER_SECONDS,
                max_field_size=16 << 10,  # as for gRPC
            )
        except OSError:
            raise cannot_listen("HTTP", self._endpoint) from None
        self._running = _Running(listener, server, bodies)
        self.port = listener.sockets[0].getsockname()[1]
        return self.port

    @property
    def address(self) -> str:
        """Where it listens, with the port that it got."""
        return f"{self._endpoint.rpartition(':')[0]}:{self.port}"

    async def shutdown(self, grace: float) -> None:
        """
        Refuse new requests with 503, and return when those in flight are answered.

        After `grace` seconds what is left is cancelled, and its clients see 503. A second call may shorten the grace
        of the first.
        """
        if self._running is None:
            return
        if not self._draining:
            self._draining = True
            pause = min(grace, DRAIN_SECONDS)
            grace -= pause
            await asyncio.sleep(pause)
        listener, server, bodies = self._running
        listener.close()
        if self._in_flight and grace > 0:
            await asyncio.wait(self._in_flight, timeout=grace)
        self._grace_is_over = True
        for task in self._in_flight:
            task.cancel()
        server.pre_shutdown()
        await server.shutdown(LAST_WORDS_SECONDS)
        bodies.shutdown()

    async def _handle(self, bodies: Bodies, request: web.BaseRequest) -> web.Response:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - aiohttp runs every request in a task
        self._in_flight.add(task)
        try:
            refused = self._at_the_door(request)
            return await self._answer(bodies, request) if refused is None else refused
        except asyncio.CancelledError as error:
            if not task.cancelling():
                # Something inside was cancelled and this request was not; raised on, it would never be answered.
                return _refused(request, self._refusals.of(_SIGNALS.get(request.path, ""), error))
            if not self._grace_is_over:
                raise
            task.uncancel()
            return _refused(request, shutting_down())
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer (A23)
            return _refused(request, self._refusals.of(_SIGNALS.get(request.path, ""), error))
        finally:
            self._in_flight.discard(task)

    async def _answer(self, bodies: Bodies, request: web.BaseRequest) -> web.Response:
        signal, kind = _SIGNALS[request.path], request.content_type
        limit = self._limits[kind]
        with self._room(signal) as room:
            try:
                body = await bodies.read(request, _coding(request), limit, room)
            except TooLargeError:
                return _too_large(request, limit)
            except TimeoutError:
                late = Refusal(Code.DEADLINE_EXCEEDED, f"the body did not arrive within {BODY_SECONDS:g} s")
                return _refused(request, late, 408)
            except (ConnectionError, web.RequestPayloadError):
                return _refused(request, bad_request("the body is broken off, or its chunks are malformed"))
            if kind == JSON:
                body = await bodies.from_json(body, signal, room)
            response = await self._consume(signal, body, room)
        return _response(200, kind, response_json(signal, response) if kind == JSON else response)

    def _at_the_door(self, request: web.BaseRequest) -> web.Response | None:
        """Return the refusal of a request whose body need not be read, or None for one that is let in."""
        if self._draining:
            return _refused(request, shutting_down())
        if self._authenticate is not None and not self._authenticate(_headers(request)):
            return _refused(request, Refusal(Code.UNAUTHENTICATED, "not authenticated"))
        if request.path not in _SIGNALS:
            return _refused(request, Refusal(Code.UNIMPLEMENTED, f"no such path; expected {', '.join(_SIGNALS)}"))
        if request.method != "POST":
            refusal = Refusal(Code.UNIMPLEMENTED, "no such method; expected POST")
            return _refused(request, refusal, 405, Allow="POST")
        if (limit := self._limits.get(request.content_type)) is None:
            refusal = bad_request(f"unknown Content-Type; expected {PROTOBUF} or {JSON}")
            return _refused(request, refusal, 415, Accept=f"{PROTOBUF}, {JSON}")
        if _coding(request) not in ("", *CODINGS):
            refusal = bad_request(f"unknown Content-Encoding; expected one of {', '.join(CODINGS)}")
            return _refused(request, refusal, 415, **{"Accept-Encoding": ", ".join(CODINGS)})
        if (request.content_length or 0) > limit:
            return _too_large(request, limit)
        return None


class _Running(NamedTuple):
    listener: asyncio.Server
    server: web.Server
    bodies: Bodies


def _coding(request: web.BaseRequest) -> str:
    coding = ",".join(request.headers.getall("Content-Encoding", ())).strip().lower()
    return "" if coding == "identity" else coding


def _headers(request: web.BaseRequest) -> dict[str, str]:
    """Return the headers by lower-case name; of one that comes twice both values, which match no token."""
    found: dict[str, str] = {}
    for raw_name, raw_value in request.raw_headers:
        # Latin-1, so that every byte is a character that can be encoded again.
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _too_large(request: web.BaseRequest, limit: int) -> web.Response:
    text = f"the request is larger than {limit} bytes, as it comes or inflated; send it in parts"
    return _refused(request, Refusal(Code.RESOURCE_EXHAUSTED, text), 413)


def _refused(request: web.BaseRequest, refusal: Refusal, status: int | None = None, **headers: str) -> web.Response:
    """Return a refusal in the request's encoding, or as JSON where it has none of the two."""
    if refusal.is_retryable:
        status = 429 if refusal.code is Code.RESOURCE_EXHAUSTED else 503
        headers["Retry-After"] = "1"
    details = dict(refusal.trailers).get(STATUS_KEY, b"")
    if status_code(details) != refusal.code:
        details = status_details(refusal.code, refusal.text)
    kind = PROTOBUF if request.content_type == PROTOBUF else JSON
    body = details if kind == PROTOBUF else status_json(details)
    return _response(status or _STATUSES.get(refusal.code, 500), kind, body, **headers)


def _response(status: int, kind: str, body: bytes, **headers: str) -> web.Response:
    # A name of its own in Server, because aiohttp tells its version and Python's.
    return web.Response(status=status, body=body, content_type=kind, headers={"Server": "enricher", **headers})
