"""
OTLP over gRPC in: the three Export methods on one port, each request handed to `consume` as the bytes that came.

A client is answered with what downstream answered, as far as there was an answer:

    consume ...                               the client sees
    returns bytes                             OK and these bytes, a partial success included
    raises BadRequestError                    INVALID_ARGUMENT with a BadRequest in the details (GRP-03)
    raises RetryableError                     its code, text and trailers; RetryInfo added in the form it lacks
      because downstream was not reached      the same: UNAVAILABLE, advised to come back within a second
    raises PermanentError                     its code, text and trailers, and nothing added
    raises anything else                      UNAVAILABLE "internal error, id=..." with RetryInfo; the log has the rest
    (not asked: shutting down)                UNAVAILABLE with RetryInfo (GRP-10)
    (not asked: no valid credentials)         UNAUTHENTICATED, before the request is read (F42)
    (request above max_receive_bytes)         RESOURCE_EXHAUSTED without RetryInfo, from grpc itself (GRP-01)
    (service or method unknown)               UNIMPLEMENTED, from grpc itself (GRP-06)
    (the health service, if it is offered)    see `grpc_health`

No code is translated. UNAUTHENTICATED and PERMISSION_DENIED mean that downstream refuses the *stage*, and a client
that gets them drops its data; whether to keep the request instead is decided in `deliver`, which then does not raise.
RESOURCE_EXHAUSTED without RetryInfo is permanent by the specification and passes as that. What downstream asked for
in one form of RetryInfo stays as asked; the form added beside it never asks for more, nor for more than a second.

Errors are Trailers-Only (GRP-05): nothing here may send initial metadata, because some clients then miss the status.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from enricher.otlp.status import SERVICES
from enricher.receive.grpc_gate import Gate
from enricher.receive.grpc_health import Health
from enricher.receive.refusals import DRAIN_SECONDS, Refusals, cannot_listen, shutting_down

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from enricher.otlp.shallow import Signal
    from enricher.receive import Consume
    from enricher.receive.tls import ServerTls

_CODES = {code.value[0]: code for code in grpc.StatusCode if code is not grpc.StatusCode.OK}

_OPTIONS = (
    # Streams that one connection may hold open. 100 would be enough against hoarders (A4), but a client that fires
    # 1,000 calls at once had up to 58 % of them refused at 100, 23 % at 256 and none at 1,000; grpc's own default
    # is no limit, which makes a rapid reset 25 times as costly (A3).
    ("grpc.max_concurrent_streams", 1000),
    ("grpc.max_send_message_length", 4 << 20),  # as much as is taken from downstream (SRV-06)
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.absolute_max_metadata_size", 32 << 10),  # between the two grpc refuses at random (GRP-09)
    ("grpc.so_reuseport", 0),  # by default a second process on the port shares it without a word (A20)
    ("grpc.server_handshake_timeout_ms", 10_000),
    # Old connections are asked to leave, so that hoarded streams end and clients spread over replicas again.
    ("grpc.max_connection_age_ms", 180_000),
    ("grpc.max_connection_age_grace_ms", 60_000),
    ("grpc.max_connection_idle_ms", 900_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Half of the 10 s that is the shortest a Go client can be set to; the default, 5 minutes, cuts it off (GRP-11).
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


class GrpcReceiver:
    """
    A component: listens from `start` until `shutdown`.

    `endpoint` is `host:port`; port 0 takes a free one, to be read from `port`. `localhost` is 127.0.0.1 alone, as it
    is for the Collector: were both loopback addresses tried, one that is taken would go unnoticed.

    `authenticate` gets the headers of a call, names in lower case, before anything else of it is looked at. With
    `ready`, the reason why nothing should be sent here now or an empty text, the health service is offered, to anybody.
    """

    def __init__(  # noqa: PLR0913 - where it listens, and what stands before and beside the Export methods
        self,
        endpoint: str,
        consume: Consume,
        *,
        max_receive_bytes: int,
        tls: ServerTls | None = None,
        authenticate: Callable[[Mapping[str, str]], bool] | None = None,
        ready: Callable[[], str] | None = None,
    ) -> None:
        self.port = 0
        self._endpoint = endpoint
        self._consume = consume
        self._max_receive_bytes = max_receive_bytes
        self._tls = tls
        self._authenticate = authenticate
        self._health = Health(ready, authenticate) if ready is not None else None
        self._server: Any = None
        self._draining = False
        self._refusals = Refusals()

    async def start(self) -> int:
        """Listen, and return the port. Raises `EnricherError` when the endpoint or a TLS file cannot be had."""
        credentials = self._tls.grpc_credentials() if self._tls is not None else None
        server = grpc.aio.server(options=[*_OPTIONS, ("grpc.max_receive_message_length", self._max_receive_bytes)])
        if self._health is not None:
            server.add_generic_rpc_handlers([self._health])
        if self._authenticate is not None:
            server.add_generic_rpc_handlers([Gate(self._authenticate)])
        server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(
                    service,
                    # No (de)serialisers: bytes in, bytes out.
                    {"Export": grpc.unary_unary_rpc_method_handler(self._handler(signal))},
                )
                for signal, service in SERVICES.items()
            ]
        )
        self.port = _listen(server, self._endpoint, credentials)
        await server.start()
        self._server = server
        return self.port

    @property
    def address(self) -> str:
        """Where it listens, with the port that it got."""
        return f"{self._endpoint.rpartition(':')[0]}:{self.port}"

    async def shutdown(self, grace: float) -> None:
        """
        Refuse new calls with UNAVAILABLE, and return when those in flight are answered (GRP-10).

        After `grace` seconds what is left is cancelled, and its clients see UNAVAILABLE. A second call may shorten
        the grace of the first.
        """
        if self._server is None:
            return
        if not self._draining:
            self._draining = True
            if self._health is not None:
                self._health.stop()
            pause = min(grace, DRAIN_SECONDS)
            grace -= pause
            await asyncio.sleep(pause)
        await self._server.stop(grace)

    def _handler(self, signal: Signal) -> Callable[[bytes, Any], Awaitable[bytes]]:
        async def export(request: bytes, context: Any) -> bytes:
            if self._draining:
                refusal = shutting_down()
            else:
                try:
                    return await self._consume(signal, request)
                except asyncio.CancelledError as error:
                    task = asyncio.current_task()
                    if task is not None and task.cancelling():
                        raise  # the client left, or the grace of shutdown is over
                    # Something inside was cancelled and this call was not; raised on, grpc would never answer it.
                    refusal = self._refusals.of(signal, error)
                except Exception as error:  # noqa: BLE001 - grpc would answer UNKNOWN, which is permanent, with the text (A23)
                    refusal = self._refusals.of(signal, error)
            # Outside of the handlers above, so that no traceback of grpc's chains to what happened there.
            await context.abort(_CODES[refusal.code], refusal.text, refusal.trailers)
            raise AssertionError("abort does not return")  # pragma: no cover

        return export


def _listen(server: Any, endpoint: str, credentials: grpc.ServerCredentials | None) -> int:
    host, _, port = endpoint.rpartition(":")
    address = f"127.0.0.1:{port}" if host == "localhost" else endpoint
    try:
        bound: int = (
            server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
        )
    except RuntimeError:
        raise cannot_listen("gRPC", endpoint) from None
    return bound
