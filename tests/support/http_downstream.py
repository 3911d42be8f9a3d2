"""A downstream in this process that speaks HTTP: it answers by script and keeps what it got, as bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from aiohttp import web

from enricher.otlp.status import partial_success

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

PATIENCE_SECONDS = 30.0
PROTOBUF = "application/x-protobuf"


@dataclass(frozen=True)
class Received:
    """One request as it came, whatever it was answered; header names in lower case."""

    method: str
    path: str
    body: bytes
    headers: Mapping[str, str]
    peer: object
    """The client's address and port, by which connections are told apart."""


@dataclass(frozen=True)
class Answer:
    """What one request gets; `after` an event where one is given."""

    status: int = 200
    body: bytes = b""
    kind: str = PROTOBUF
    """The Content-Type; empty for none."""
    headers: Mapping[str, str] = field(default_factory=dict)
    after: asyncio.Event | None = None
    breaks_after: int | None = None
    """Close the connection after so many bytes of the body; -1 for before anything is said."""


def partial(rejected: int, message: str) -> Answer:
    """Take the request, with some items rejected."""
    return Answer(body=partial_success(rejected, message))


def stall() -> Answer:
    """Take the request and never answer."""
    return Answer(after=asyncio.Event())


class HttpDownstream:
    """
    Listens on a port of its own as an async context manager.

    Requests take the answers of `script` in the order they come; when it is empty they get `otherwise`.
    """

    def __init__(
        self, *script: Answer, otherwise: Answer | None = None, port: int = 0, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self.script = deque(script)
        self.otherwise = otherwise or Answer()
        self.received: list[Received] = []
        self._port = port
        self._ssl_context = ssl_context
        self._arrived = asyncio.Condition()
        self._runner: web.ServerRunner | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"{'https' if self._ssl_context else 'http'}://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; after a `stop`, on the same port again."""
        server = web.Server(self._handle, access_log=None, auto_decompress=False, handler_cancellation=True)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._ssl_context)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Go away: requests under way are cut off."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def requests(self, count: int) -> list[Received]:
        """Wait until so many requests have come in all, and return them; raises `TimeoutError` after a while."""
        async with asyncio.timeout(PATIENCE_SECONDS), self._arrived:
            await self._arrived.wait_for(lambda: len(self.received) >= count)
            return list(self.received)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        answer = self.script.popleft() if self.script else self.otherwise
        body = b"".join([piece async for piece in request.content.iter_any()])
        headers = {name.lower(): value for name, value in request.headers.items()}
        peer = request.transport.get_extra_info("peername") if request.transport else None
        async with self._arrived:
            self.received.append(Received(request.method, request.path, body, headers, peer))
            self._arrived.notify_all()
        if answer.after is not None:
            await answer.after.wait()
        if answer.breaks_after == -1:
            return self._cut_off(request)
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        response.headers["Content-Type"] = answer.kind
        if not answer.kind:
            del response.headers["Content-Type"]
        response.content_length = len(answer.body)
        await response.prepare(request)
        await response.write(answer.body[: answer.breaks_after])
        return response if answer.breaks_after is None else self._cut_off(request)

    def _cut_off(self, request: web.BaseRequest) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()
