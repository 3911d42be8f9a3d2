"""Receivers in front of what a test gives them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from enricher.receive.admission import Admission
from enricher.receive.http_server import HttpReceiver

if TYPE_CHECKING:
    from enricher.otlp.shallow import Signal
    from enricher.receive import Consume
    from enricher.receive.admission import Room
    from enricher.receive.grpc_server import GrpcReceiver


def http_receiver(
    consume: Consume, endpoint: str = "127.0.0.1:0", admission: Admission | None = None, **settings: object
) -> HttpReceiver:
    """Return a receiver in front of what does not ask for a request's room; without `admission` one of its own."""
    counted = Admission() if admission is None else admission

    async def consume_in_room(signal: Signal, request: bytes, _room: Room) -> bytes:
        return await consume(signal, request)

    settings.setdefault("max_receive_bytes", 1 << 20)
    return HttpReceiver(endpoint, consume_in_room, room=lambda _signal: counted.room(), **settings)


async def accept(_signal: Signal, _request: bytes) -> bytes:
    """Take all."""
    return b""


def raising(error: BaseException) -> Consume:
    """Return a `consume` that takes nothing."""

    async def consume(_signal: Signal, _request: bytes) -> bytes:
        raise error

    return consume


class Slow:
    """A `consume` that has `entered` and returns once `finish` is set."""

    def __init__(self) -> None:
        self.entered, self.finish = asyncio.Event(), asyncio.Event()

    async def __call__(self, _signal: Signal, _request: bytes) -> bytes:
        self.entered.set()
        await self.finish.wait()
        return b"finished"


class Counting:
    """A `consume` that takes all and says when that were `many`."""

    def __init__(self, many: int) -> None:
        self.consumed, self.enough = 0, asyncio.Event()
        self._many = many

    async def __call__(self, _signal: Signal, _request: bytes) -> bytes:
        await asyncio.sleep(0)
        self.consumed += 1
        if self.consumed == self._many:
            self.enough.set()
        return b"taken"


async def stop_at_any_time(receiver: GrpcReceiver | HttpReceiver) -> None:
    """Shut a receiver down that has not started, that has, and that was shut down."""
    await receiver.shutdown(1)
    await receiver.start()
    await receiver.shutdown(1)
    await receiver.shutdown(0)
