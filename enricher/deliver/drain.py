"""
From the queue to the exporter: what was acknowledged before it was delivered goes out here, oldest first.

    claim ─▶ export ─┬─ taken                                    ─▶ confirm (deleted)
                     ├─ retryable, throttled                     ─▶ retry, later each time
                     ├─ UNAUTHENTICATED, PERMISSION_DENIED (F10)  ─▶ retry slowly: the operator mends it, not the data
                     └─ permanent                                ─▶ dead letters, kept

A batch keeps its bytes through every try. A row is deleted only on proof of delivery.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from enricher.errors import ExportError, RetryableError
from enricher.otlp.shallow import Signal
from enricher.otlp.status import Code
from enricher.storage import StoreError

if TYPE_CHECKING:
    from enricher.config.model import RetryConfig
    from enricher.deliver import Exporter
    from enricher.storage import QueuedBatch, Store

LEASE = 60.0
"""Seconds after which a claimed batch may be claimed again; longer than any export may take."""

IDLE = 1.0
"""Seconds after which the queue is looked at although nobody said that something came."""

OPERATOR = frozenset({Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.RESOURCE_EXHAUSTED})
"""Refusals that are not about the batch: credentials, and a memory limiter that gives no RetryInfo (CLI-17)."""

_log = structlog.get_logger()


class Drain:
    """A component: sends what the queue holds for one destination, `consumers` batches at a time."""

    def __init__(
        self, store: Store, destination: str, exporter: Exporter, retry: RetryConfig, *, consumers: int = 4
    ) -> None:
        self._store, self._destination, self._exporter, self._retry = store, destination, exporter, retry
        self._consumers = consumers
        self._something = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.delivered = 0
        self.buried = 0

    async def start(self) -> None:
        """Begin to send."""
        self._tasks = [asyncio.create_task(self._run()) for _ in range(self._consumers)]

    async def shutdown(self, grace: float = 0.0) -> None:
        """Stop, and let what is being sent be answered for `grace` seconds. What is left stays in the queue."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=grace + LEASE)

    def wake(self) -> None:
        """Say that something came into the queue."""
        self._something.set()

    async def _run(self) -> None:
        while True:
            self._something.clear()
            try:
                claimed = await self._store.claim(self._destination, self._store.clock(), 1, LEASE)
            except StoreError as error:
                _log.error("the queue cannot be read", error=str(error))
                await asyncio.sleep(IDLE)
                continue
            for batch in claimed:
                # What is under way is finished even if the drain is stopped: its row must say how it ended.
                sending = asyncio.create_task(self._send(batch))
                try:
                    await asyncio.shield(sending)
                except asyncio.CancelledError:
                    with suppress(Exception):
                        await sending
                    raise
            if not claimed:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._something.wait(), IDLE)

    async def _send(self, batch: QueuedBatch) -> None:
        try:
            await self._exporter.export(Signal(batch.signal), batch.body)
        except ExportError as error:
            if isinstance(error, RetryableError) or error.code in OPERATOR:
                wait = self._backoff(batch.attempt, error)
                _log.info(
                    "downstream did not take a batch; it is tried again", attempt=batch.attempt, seconds=round(wait, 1)
                )
                await self._settle(batch, self._store.retry(batch.id, self._store.clock() + wait))
            else:
                self.buried += batch.items
                _log.error("downstream refused a batch for good; it is kept", spans=batch.items, reason=error.details)
                await self._settle(batch, self._store.bury(batch.id, error.details[:1024], error.code))
        except Exception:  # noqa: BLE001 - a bug in an exporter must not cost a batch
            _log.exception("a batch could not be sent; it is tried again")
            wait = self._backoff(batch.attempt, None)
            await self._settle(batch, self._store.retry(batch.id, self._store.clock() + wait))
        else:
            self.delivered += batch.items
            await self._settle(batch, self._store.confirm([batch.id]))

    async def _settle(self, batch: QueuedBatch, change: object) -> None:
        try:
            await change  # type: ignore[misc]
        except StoreError as error:
            # The lease ends, and it is sent again: a duplicate rather than a loss.
            _log.error("the queue cannot be written", batch=batch.id, error=str(error))

    def _backoff(self, attempt: int, error: ExportError | None) -> float:
        """Return the seconds until the next try: exponential with jitter, not before downstream wishes (CLI-06)."""
        base = min(self._retry.initial_interval * 1.5 ** (attempt - 1), self._retry.max_interval)
        wished = error.retry_delay if isinstance(error, RetryableError) and error.retry_delay is not None else 0.0
        return max(base * random.uniform(0.5, 1.5), wished)  # noqa: S311 - jitter, not a secret
