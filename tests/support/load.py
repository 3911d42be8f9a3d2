"""A client that keeps book: what was acknowledged is an obligation, and what was refused is counted."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
import grpc.aio
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from enricher.otlp import shallow
from enricher.otlp.shallow import Signal
from enricher.otlp.status import SERVICES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from tests.support.downstream import Received

    SpanId = tuple[bytes, bytes]

METHOD = f"/{SERVICES[Signal.TRACES]}/Export"
OPTIONS = (("grpc.min_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200))


def spans_of(request: bytes) -> list[SpanId]:
    """Return trace and span id of each span."""
    spans = [Span.FromString(raw) for _, _, raw in shallow.items(shallow.parse(request))]
    return [(span.trace_id, span.span_id) for span in spans]


def arrived(received: Iterable[Received]) -> Counter[SpanId]:
    """Return how often each span came."""
    return Counter(span for each in received for span in spans_of(each.request))


class Load:
    """
    Sends `request(number)` from `callers` tasks while it is `running`.

    `per_second` requests are begun in all, or as many as are answered where it is None. `refused` counts answers other
    than OK by their code; nothing is sent again.
    """

    def __init__(
        self, endpoint: str, request: Callable[[int], bytes], *, callers: int = 8, per_second: float | None = None
    ) -> None:
        self.acked: Counter[SpanId] = Counter()
        self.refused: Counter[str] = Counter()
        self._endpoint, self._request, self._callers = endpoint, request, callers
        self._pause = callers / per_second if per_second else 0.0
        self._numbers = itertools.count()
        self._stop = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send in the background; at the end let what is under way be answered, and send no more."""
        sending = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._stop = True
            await sending

    async def _run(self) -> None:
        async with grpc.aio.insecure_channel(self._endpoint, options=OPTIONS) as channel:
            await asyncio.gather(*(self._call(channel.unary_unary(METHOD)) for _ in range(self._callers)))

    async def _call(self, export: grpc.aio.UnaryUnaryMultiCallable) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self._stop:
            due = max(due + self._pause, loop.time() - 1.0)
            request = self._request(next(self._numbers))
            try:
                await export(request, timeout=10)
            except grpc.aio.AioRpcError as error:
                self.refused[error.code().name] += 1
                await asyncio.sleep(0.05)
            else:
                self.acked.update(spans_of(request))
            await asyncio.sleep(max(due - loop.time(), 0.0))
