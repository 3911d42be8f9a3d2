"""
From the queue to the exporter: what was acknowledged before it was delivered goes out here, oldest first.

    claim ─▶ export ─┬─ taken                                    ─▶ confirm (deleted)
                     ├─ retryable, throttled                     ─▶ retry, later each time
                     ├─ UNAUTHENTICATED, PERMISSION_DENIED (F10)  ─▶ retry: the operator mends it, not the data
                     ├─ RESOURCE_EXHAUSTED without RetryInfo     ─▶ split in halves, and retry what is small (F07, F08)
                     └─ permanent                                ─▶ dead letters, kept

A batch keeps its bytes through every try. A row is deleted only on proof of delivery.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog

from enricher.deliver.insist import insist
from enricher.errors import ExportError, RetryableError
from enricher.otlp.shallow import Signal, halves
from enricher.otlp.status import Code, rejected
from enricher.storage import Batch, StoreError
from enricher.waiting import at_most

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from enricher.deliver import Exporter
    from enricher.deliver.backoff import Backoff
    from enricher.deliver.counts import Counts
    from enricher.storage import QueuedBatch, Store

LEASE: Final = 3600.0
"""Seconds after which a claimed batch may be claimed again, should its row never learn how it ended."""

IDLE: Final = 1.0
"""Seconds after which the queue is looked at although nobody said that something came."""

OPERATOR: Final = frozenset({Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.RESOURCE_EXHAUSTED})
"""Refusals that are not about what the batch says: credentials, its size, and a memory limiter (CLI-17)."""

SMALL_BYTES: Final = 64 << 10
"""A batch up to here is halved only if downstream says that it is too large: a memory limiter says no such thing."""

_TOO_LARGE: Final = re.compile(r"larger|too (?:large|big|long)|exceed|max.{0,20}size|size.{0,20}limit", re.IGNORECASE)

_log = structlog.get_logger()


class Drain:
    """A component: sends what the queue holds for one destination, `consumers` batches at a time."""

    def __init__(  # noqa: PLR0913 - what it stands between
        self,
        destination: str,
        exporter: Exporter,
        store: Store,
        backoff: Backoff,
        counts: Counts,
        *,
        consumers: int = 4,
    ) -> None:
        self._destination, self._exporter, self._store = destination, exporter, store
        self._backoff, self.counts, self._consumers = backoff, counts, consumers
        self._something = asyncio.Event()
        self._draining: asyncio.Task[None] | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Begin to send."""
        self._draining = asyncio.create_task(self._drain())

    async def shutdown(self, grace: float = 0.0) -> None:
        """Stop, and let what is being sent be answered for `grace` seconds. What is left stays in the queue."""
        self._stopping.set()
        if self._draining is not None:
            self._draining.cancel()
            with suppress(asyncio.CancelledError):
                await self._draining
            self._draining = None
        if self._sending:
            await asyncio.wait(self._sending, timeout=grace)

    async def settled(self) -> None:
        """Return when no batch is being sent any more; once the exporter is shut down that is soon."""
        if self._sending:
            await asyncio.wait(self._sending)

    def wake(self) -> None:
        """Say that something came into the queue."""
        self._something.set()

    async def _drain(self) -> None:
        while True:
            await self._backoff.pause()
            free = (1 if self._backoff.is_away else self._consumers) - len(self._sending)
            if free <= 0:
                await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)
                continue
            self._something.clear()
            # A claim that nobody waits for any more would keep its batches until the lease ends.
            claiming = asyncio.ensure_future(self._store.claim(self._destination, self._store.now(), free, LEASE))
            try:
                claimed = await asyncio.shield(claiming)
            except StoreError as error:
                _log.error("the queue cannot be read", destination=self._destination, error=str(error))
                await asyncio.sleep(IDLE)
                continue
            except asyncio.CancelledError:
                with suppress(StoreError):
                    for batch in await claiming:
                        await self._store.retry(batch.id, 0.0)
                raise
            for batch in claimed:
                sending = asyncio.create_task(self._send(batch))
                self._sending.add(sending)
                sending.add_done_callback(self._sending.discard)
            if not claimed:
                await at_most(IDLE, self._something)

    async def _send(self, batch: QueuedBatch) -> None:
        signal = Signal(batch.signal)
        try:
            self.counts.in_flight += 1
            answer = await self._exporter.export(signal, batch.body)
        except ExportError as error:
            await self._refused(batch, signal, error)
        except Exception:  # noqa: BLE001 - a bug in an exporter must not cost a batch
            _log.exception("a batch could not be sent; it is tried again", destination=self._destination)
            self._backoff.failed()
            await self._try_again(batch, None)
        else:
            self._backoff.succeeded()
            self.counts.delivered(signal, batch.items, rejected(answer))
            await self._insist(batch, lambda: self._store.confirm([batch.id]))
        finally:
            self.counts.in_flight -= 1

    async def _refused(self, batch: QueuedBatch, signal: Signal, error: ExportError) -> None:
        self.counts.failed(signal, batch.items)
        is_of_operator = error.code in OPERATOR and not isinstance(error, RetryableError)
        if not isinstance(error, RetryableError) and not is_of_operator:
            self._backoff.succeeded()
            await self._bury(batch, signal, error)
            return
        is_too_large = error.code == Code.RESOURCE_EXHAUSTED and is_of_operator and _TOO_LARGE.search(error.details)
        if error.code == Code.RESOURCE_EXHAUSTED and is_of_operator:
            parts = halves(batch.body) if is_too_large or len(batch.body) > SMALL_BYTES else []
            if parts:
                self.counts.splits += 1
                try:
                    await self._store.split(
                        batch.id, [Batch(self._destination, batch.signal, body, items) for body, items in parts]
                    )
                except StoreError as failure:
                    # Not again at once: what waits for room must not keep from sending what would make it.
                    _log.error("the queue cannot be written", batch=batch.id, error=str(failure))
                    await self._try_again(batch, error)
                return
            if is_too_large:
                await self._bury(batch, signal, error)
                return
        self._backoff.failed(error)
        # That a shutdown broke it off says nothing of the batch.
        if not self._stopping.is_set() and self._backoff.gives_up(self._store.clock() - batch.created):
            await self._bury(batch, signal, error)
        else:
            await self._try_again(batch, error)

    async def _try_again(self, batch: QueuedBatch, error: ExportError | None) -> None:
        wait = self._backoff.delay(batch.attempt, error)
        _log.info(
            "downstream did not take a batch; it is tried again",
            destination=self._destination,
            attempt=batch.attempt,
            seconds=round(wait, 1),
            code=None if error is None else error.code,
            reason=None if error is None else error.details[:256],
        )
        await self._insist(batch, lambda: self._store.retry(batch.id, self._store.now() + wait))
        asyncio.get_running_loop().call_later(wait, self.wake)

    async def _bury(self, batch: QueuedBatch, signal: Signal, error: ExportError) -> None:
        _log.error(
            "downstream refused a batch for good; it is kept as a dead letter",
            destination=self._destination,
            items=batch.items,
            code=error.code,
            reason=error.details[:256],
        )
        await self._insist(batch, lambda: self._store.bury(batch.id, error.details[:1024], error.code))
        self.counts.dead(signal, batch.items)

    async def _insist(self, batch: QueuedBatch, change: Callable[[], Awaitable[object]]) -> None:
        await insist(change, batch.id, self._stopping)
