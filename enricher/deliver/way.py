"""The way to one downstream: its exporter, what is delivered at once, and what drains from its queue."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from enricher.deliver.backoff import Backoff
from enricher.deliver.counts import Counts
from enricher.deliver.delivery import Delivery
from enricher.deliver.drain import Drain

if TYPE_CHECKING:
    from enricher.config.model import RetryConfig, SendingQueueConfig
    from enricher.deliver import Exporter
    from enricher.storage import Store


class Way:
    """
    A component. `name` is that of the exporter and of its queue.

    With a store and without a queue (`queue.enabled`), what the store releases is still drained.
    """

    def __init__(  # noqa: PLR0913 - what it stands between
        self,
        name: str,
        exporter: Exporter,
        store: Store | None,
        *,
        retry: RetryConfig,
        queue: SendingQueueConfig,
        patience: float,
    ) -> None:
        self.name, self.counts = name, Counts()
        self._exporter = exporter
        backoff = Backoff(retry, time.monotonic)
        self._drain = None
        if store is not None:
            self._drain = Drain(name, exporter, store, backoff, self.counts, consumers=queue.num_consumers)
        kept_in = store if queue.enabled else None
        self._delivery = Delivery(name, exporter, kept_in, backoff, self.counts, patience=patience, queued=self.wake)
        self.deliver = self._delivery.deliver

    async def start(self) -> None:
        """Make ready to deliver. Raises `EnricherError` if the exporter cannot be started."""
        await self._exporter.start()
        await self._delivery.start()
        if self._drain is not None:
            await self._drain.start()

    def wake(self) -> None:
        """Say that something came into the queue."""
        if self._drain is not None:
            self._drain.wake()

    async def shutdown(self, grace: float = 0.0) -> None:
        """
        Let what is being sent be answered for `grace` seconds; what is left stays in the queue.

        The store must be open until this returns: what fails at last is put back.
        """
        senders = [part for part in (self._drain, self._delivery) if part is not None]
        await asyncio.gather(*(part.shutdown(grace) for part in senders))
        await self._exporter.shutdown(0)
        await asyncio.gather(*(part.settled() for part in senders))
