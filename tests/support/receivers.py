"""Receivers in front of what a test gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enricher.receive.admission import Admission
from enricher.receive.http_server import HttpReceiver

if TYPE_CHECKING:
    from enricher.otlp.shallow import Signal
    from enricher.receive import Consume
    from enricher.receive.admission import Room


def http_receiver(
    consume: Consume, endpoint: str = "127.0.0.1:0", admission: Admission | None = None, **settings: object
) -> HttpReceiver:
    """Return a receiver in front of what does not ask for a request's room; without `admission` one of its own."""
    counted = Admission() if admission is None else admission

    async def consume_in_room(signal: Signal, request: bytes, _room: Room) -> bytes:
        return await consume(signal, request)

    settings.setdefault("max_receive_bytes", 1 << 20)
    return HttpReceiver(endpoint, consume_in_room, room=lambda _signal: counted.room(), **settings)
