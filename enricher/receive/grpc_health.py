"""
The standard health service, `grpc.health.v1.Health`, beside the Export methods: what `/readyz` says, over gRPC.

    name asked for                  Check                      Watch
    "" and the OTLP services        SERVING or NOT_SERVING     the same, and each change
    any other                       NOT_FOUND                  SERVICE_UNKNOWN

Who asks needs no credentials, because Kubernetes' probes cannot send any. Where a receiver wants some, a stranger's
question is answered as if no name was asked for, and never read: it may be as large as an export (F42).
"""

from __future__ import annotations

import asyncio
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.wrappers_pb2 import StringValue, UInt32Value

from enricher.otlp.status import SERVICES
from enricher.waiting import at_most

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CHECK: Final = "/grpc.health.v1.Health/Check"
WATCH: Final = "/grpc.health.v1.Health/Watch"

NAMES: Final = frozenset({"", *SERVICES.values()})

LOOK_SECONDS: Final = 1.0
"""How often a watcher's answer is looked at again."""

MAX_WATCHERS: Final = 100
"""A watcher stays, and strangers may be watchers."""


class Status(IntEnum):
    """The values of `HealthCheckResponse.ServingStatus`."""

    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


class Health(grpc.GenericRpcHandler):  # type: ignore[misc]
    """
    Answers until `stop`. `ready` returns an empty text, or the reason why nothing should be sent here now.

    Without `authenticate` everybody is known.
    """

    def __init__(
        self, ready: Callable[[], str], authenticate: Callable[[Mapping[str, str]], bool] | None = None
    ) -> None:
        self._ready = ready
        self._authenticate = authenticate
        self._watchers = 0
        self._stopped = asyncio.Event()
        self._of_known = {
            CHECK: grpc.unary_unary_rpc_method_handler(self._check),
            WATCH: grpc.unary_stream_rpc_method_handler(self._watch),
        }
        # As if the questions were streams: a handler of a single message runs once that is read, whatever its size.
        self._of_strangers = {
            CHECK: grpc.stream_unary_rpc_method_handler(self._check_unread),
            WATCH: grpc.stream_stream_rpc_method_handler(self._watch_unread),
        }

    def service(self, details: Any) -> Any:
        """Return the handler of a method of the service, or None."""
        if details.method not in self._of_known:
            return None
        headers = dict(details.invocation_metadata)
        # Without a token nobody has tried to get in, so that probes are no failures that count.
        is_known = self._authenticate is None or ("authorization" in headers and self._authenticate(headers))
        return (self._of_known if is_known else self._of_strangers)[details.method]

    def stop(self) -> None:
        """Tell watchers that this ends, and let them go, so that nobody waits for them."""
        self._stopped.set()

    async def _check_unread(self, _questions: object, context: Any) -> bytes:
        return await self._check(b"", context)

    async def _watch_unread(self, _questions: object, context: Any) -> None:
        await self._watch(b"", context)

    async def _check(self, question: bytes, context: Any) -> bytes:
        status = self._status(await _name(question, context))
        if status is Status.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return _answer(status)

    async def _watch(self, question: bytes, context: Any) -> None:
        name = await _name(question, context)
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
                await at_most(LOOK_SECONDS, self._stopped)
        finally:
            self._watchers -= 1
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the receiver is shutting down")

    def _status(self, name: str) -> Status:
        if name not in NAMES:
            return Status.SERVICE_UNKNOWN
        return Status.NOT_SERVING if self._stopped.is_set() or self._ready() else Status.SERVING


async def _name(question: bytes, context: Any) -> str:
    try:
        # `HealthCheckRequest` is a text in field 1 as well; its own package asks for a protobuf of this year.
        return StringValue.FromString(question).value
    except DecodeError:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "expected a grpc.health.v1.HealthCheckRequest")
        raise AssertionError("abort does not return") from None  # pragma: no cover


def _answer(status: Status) -> bytes:
    return UInt32Value(value=status).SerializeToString()  # `HealthCheckResponse` is a number in field 1 as well
