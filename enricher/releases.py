"""
Moving held spans into the queues of the exporters: one transaction for what leaves together.

A store that fails for a while, or has no room, is asked again until it takes them: they have left the hold.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import structlog

from enricher.deliver.insist import FIRST_PAUSE, LONGEST_PAUSE
from enricher.otlp import shallow
from enricher.otlp.shallow import Signal
from enricher.storage import Batch, StoreError, StoreFullError
from enricher.waiting import at_most

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from enricher.storage import Store

    Leaving = tuple[bytes, list[int]]
    """A request and the rows of its spans, in its order; without bytes the rows are only deleted."""

_log = structlog.get_logger()


class Releases:
    """A component without a start; `queued` is called after each release. What a stop interrupts stays held."""

    def __init__(self, store: Store, destinations: Sequence[str], queued: Callable[[], None]) -> None:
        self._store, self._destinations, self._queued = store, destinations, queued
        self._under_way: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()

    def begin(self, requests: list[Leaving]) -> None:
        """Move the requests, for each destination, and delete the rows of their spans."""
        task = asyncio.create_task(self._move(requests))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def shutdown(self) -> None:
        """Return when every release is done or given up: a restart finds the spans in the store."""
        self._stopping.set()
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def _move(self, requests: list[Leaving]) -> None:
        delay = FIRST_PAUSE
        pieces = deque([requests])
        while pieces:
            piece = pieces.popleft()
            try:
                await self._release(piece)
            except StoreError as error:
                is_full = isinstance(error, StoreFullError) and not self._stopping.is_set()
                if is_full and (smaller := _halves(piece)):
                    # Several exporters' copies need room: a part of it, which makes more when it has been delivered.
                    pieces.extendleft(reversed(smaller))
                    continue
                left = sum(len(rows) for each in (piece, *pieces) for _, rows in each)
                _log.error("held spans cannot be moved to the queue", spans=left, error=str(error))
                if self._stopping.is_set():
                    return
                pieces.append(piece)
                await at_most(delay, self._stopping)
                delay = min(delay * 2, LONGEST_PAUSE)
            else:
                delay = FIRST_PAUSE
                self._queued()

    async def _release(self, requests: Sequence[Leaving]) -> None:
        await self._store.release(
            [row for _, rows in requests for row in rows],
            [
                Batch(destination, Signal.TRACES.value, body, len(rows))
                for destination in self._destinations
                for body, rows in requests
                if body
            ],
        )


def _halves(requests: list[Leaving]) -> list[list[Leaving]]:
    """Return in two what was to leave together; none if that is one span."""
    if len(requests) > 1:
        middle = len(requests) // 2
        return [requests[:middle], requests[middle:]]
    ((body, rows),) = requests
    parts = shallow.halves(body)
    middle = len(rows) // 2
    return [[(part, some)] for (part, _), some in zip(parts, (rows[:middle], rows[middle:]), strict=False)]
