"""A downstream in this process: a real gRPC server that answers by script and keeps what it got, as bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio

from enricher.otlp.status import SERVICES, partial_success

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from enricher.otlp.shallow import Signal

PATIENCE_SECONDS = 30.0

Trailers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True)
class Received:
    """One call as it came, whatever it was answered."""

    signal: Signal
    request: bytes
    metadata: tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True)
class Answer:
    """What one call gets: the response if `code` is OK, the rest if not; `after` an event where one is given."""

    response: bytes = b""
    code: grpc.StatusCode = grpc.StatusCode.OK
    details: str = ""
    trailers: Trailers = ()
    after: asyncio.Event | None = None


def ok(response: bytes = b"") -> Answer:
    """Answer OK with the response's bytes, by default a full success."""
    return Answer(response)


def partial(rejected: int, message: str) -> Answer:
    """Answer OK, with some items rejected."""
    return Answer(partial_success(rejected, message))


def refuse(code: grpc.StatusCode, details: str = "", trailers: Trailers = ()) -> Answer:
    """Answer with an error."""
    return Answer(code=code, details=details, trailers=trailers)


def stall() -> Answer:
    """Take the request and never answer; the call ends with its client, or with the server."""
    return Answer(after=asyncio.Event())


def delayed(after: asyncio.Event, answer: Answer | None = None) -> Answer:
    """Take the request and answer once the event is set."""
    return replace(answer or ok(), after=after)


class Downstream:
    """
    Serves the three OTLP services on a port of its own as an async context manager.

    Calls take the answers of `script` in the order they come; when it is empty they get `otherwise`, or what it
    returns. Both may be changed at any time. `received` is every call, `taken` those that were answered with OK.
    `compression` is that of responses; requests of any size are taken unless a limit is given.
    """

    def __init__(
        self,
        *script: Answer,
        otherwise: Answer | Callable[[], Answer] | None = None,
        endpoint: str = "127.0.0.1:0",
        compression: grpc.Compression | None = None,
        max_receive_bytes: int = -1,
    ) -> None:
        self.script = deque(script)
        self.otherwise = otherwise or ok()
        self.received: list[Received] = []
        self.taken: list[Received] = []
        self.endpoint = endpoint
        self._compression = compression
        self._options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", max_receive_bytes)]
        self._arrived = asyncio.Condition()
        self._server: Any = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, credentials: grpc.ServerCredentials | None = None) -> None:
        """Listen; after a `stop`, on the same port again."""
        self._server = grpc.aio.server(options=self._options, compression=self._compression)
        self._server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(
                    service, {"Export": grpc.unary_unary_rpc_method_handler(self._handler(signal))}
                )
                for signal, service in SERVICES.items()
            ]
        )
        if credentials is None:
            port = self._server.add_insecure_port(self.endpoint)
        else:
            port = self._server.add_secure_port(self.endpoint, credentials)
        self.endpoint = f"{self.endpoint.rpartition(':')[0]}:{port}"
        await self._server.start()

    async def stop(self) -> None:
        """Go away at once: calls under way are cut off."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def requests(self, count: int) -> list[Received]:
        """Wait until so many calls have come in all, and return them; raises `TimeoutError` after a while."""
        async with asyncio.timeout(PATIENCE_SECONDS), self._arrived:
            await self._arrived.wait_for(lambda: len(self.received) >= count)
            return list(self.received)

    def _handler(self, signal: Signal) -> Callable[[bytes, Any], Awaitable[bytes]]:
        async def export(request: bytes, context: Any) -> bytes:
            answer = self.script.popleft() if self.script else self.otherwise
            if not isinstance(answer, Answer):
                answer = answer()
            came = Received(signal, request, tuple(context.invocation_metadata() or ()))
            async with self._arrived:
                self.received.append(came)
                self._arrived.notify_all()
            if answer.after is not None:
                await answer.after.wait()
            if answer.code is not grpc.StatusCode.OK:
                await context.abort(answer.code, answer.details, answer.trailers)
            self.taken.append(came)
            return answer.response

        return export
