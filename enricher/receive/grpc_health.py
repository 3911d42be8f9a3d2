"""
The standard health service, `grpc.health.v1.Health`, beside the Export methods: what `/readyz` says, over gRPC.

    name asked for                  Check                      Watch
    "" and the OTLP services        SERVING or NOT_SERVING     the same, and each change
    any other                       NOT_FOUND                  SERVICE_UNKNOWN

Who asks needs no credentials, because Kubernetes' probes cannot send any (F42).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.wrappers_pb2 import StringValue, UInt32Value

from enricher.otlp.status import SERVICES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

NAMES: Final = frozenset({"", *SERVICES.values()})

LOOK_SECONDS: Final = 1.0
"""How often a watcher's answer is looked at again."""

READ_SECONDS: Final = 1.0
READERS: Final = 4
"""Questions that are read at one time. grpc has one limit of size for all methods, so that a stranger's may be as large
as an export: four of them cannot fill the memory. An honest one comes with its call and is read at once."""

MAX_WATCHERS: Final = 100
"""A watcher stays, and strangers may be watchers."""


class Status(IntEnum):
    """The values of `HealthCheckResponse.ServingStatus`."""

    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


class Health(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers until `stop`. `ready` returns an empty text, or the reason why nothing should be sent here now."""

    def __init__(self, ready: Callable[[], str]) -> None:
        self._ready = ready
        self._readers = asyncio.Semaphore(READERS)
        self._watchers = 0
        self._stopped = asyncio.Event()
        # As if the questions were streams: a handler of a single message runs once that is read, whatever its size.
        self._methods = {
            "/grpc.health.v1.Health/Check": grpc.stream_unary_rpc_method_handler(self._check),
            "/grpc.health.v1.Health/Watch": grpc.stream_stream_rpc_method_handler(self._watch),
        }

    def service(self, details: Any) -> Any:
        """Return the handler of a method of the service, or None."""
        return self._methods.get(details.method)

    def stop(self) -> None:
        """Tell watchers that this ends, and let them go, so that nobody waits for them."""
        self._stopped.set()

    async def _check(self, questions: AsyncIterator[bytes], context: Any) -> bytes:
        status = self._status(await self._name(questions, context))
        if status is Status.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return _answer(status)

    async def _watch(self, questions: AsyncIterator[bytes], context: Any) -> None:
        name = await self._name(questions, context)
        if self._watchers >= MAX_WATCHERS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"more than {MAX_WATCHERS} watch already")
        self._watchers += 1
        try:
            told = None
            while True:
                # Before the look: a watcher that is let go has been told the last word.
                is_last = self._stopped.is_set()
                if (status := self._status(name)) is not told:
                    await context.write(_answer(status))
                    told = status
                if is_last:
                    break
                await self._a_while()
        finally:
            self._watchers -= 1
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the receiver is shutting down")

    async def _a_while(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await self._stopped.wait()

    def _status(self, name: str) -> Status:
        if name not in NAMES:
            return Status.SERVICE_UNKNOWN
        return Status.NOT_SERVING if self._stopped.is_set() or self._ready() else Status.SERVING

    async def _name(self, questions: AsyncIterator[bytes], context: Any) -> str:
        try:
            async with asyncio.timeout(READ_SECONDS), self._readers:
                # `HealthCheckRequest` is a text in field 1 as well; its own package asks for a protobuf of this year.
                return StringValue.FromString(await anext(questions)).value
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"nothing was read within {READ_SECONDS:g} s")
        except (DecodeError, StopAsyncIteration):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "expected a grpc.health.v1.HealthCheckRequest")
        raise AssertionError("abort does not return")  # pragma: no cover


def _answer(status: Status) -> bytes:
    return UInt32Value(value=status).SerializeToString()  # `HealthCheckResponse` is a number in field 1 as well
