"""
The pages about the stage, put together: what its parts have counted, what its store holds, and whether it is well.

The store is asked each time a page is read. It counts for itself, so that the numbers of the two can be held against
each other from outside.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from enricher.otlp.shallow import Signal
from enricher.storage import StoreError
from enricher.telemetry.counters import Amount, Counters, NothingHeld, Stock
from enricher.telemetry.instruments import Reading
from enricher.telemetry.metrics import Metrics
from enricher.telemetry.server import TelemetryServer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from enricher.config.model import TelemetryConfig
    from enricher.storage import Store
    from enricher.storage.rows import Amount as StoredAmount
    from enricher.storage.rows import Counts
    from enricher.telemetry.counters import ExporterCounts, HoldCounts

STORE_SECONDS = 2.0
"""How long the store may take to say what it holds: less than the 10 s after which a scrape is given up."""


class Pages:
    """
    A component: the pages are there from `start` until `shutdown`; before `opened` is called, nothing is ready.

    `exporters` are the counts of each by name, in the order of the configuration. `alive` and `ready` return an empty
    text, or the reason why not; `expiries` when the certificates of each `tls` section expire.
    """

    def __init__(  # noqa: PLR0913 - what it tells of
        self,
        config: TelemetryConfig,
        counters: Counters,
        exporters: Mapping[str, ExporterCounts],
        *,
        hold: HoldCounts | None,
        store: Store | None,
        alive: Callable[[], str],
        ready: Callable[[], str],
        expiries: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self._counters, self._exporters, self._store, self._expiries = counters, exporters, store, expiries
        self._hold = NothingHeld() if hold is None else hold
        self._recovered: Stock | None = Stock() if store is None else None
        has_metrics = config.metrics.level != "none"
        self._metrics = Metrics() if has_metrics else None
        self.server = TelemetryServer(
            metrics_endpoint=str(config.metrics.endpoint) if has_metrics else None,
            health_endpoint=str(config.health.endpoint),
            page=self._page,
            alive=alive,
            ready=ready,
            # A port that nobody asked for is no reason not to start: a Collector beside the stage has 8888 too.
            optional={
                str(page.endpoint)
                for page in (config.metrics, config.health)
                if "endpoint" not in page.model_fields_set
            },
        )

    async def start(self) -> None:
        """Listen. Raises `EnricherError` when an endpoint cannot be had."""
        await self.server.start()

    async def opened(self) -> None:
        """Take what the store holds as what an earlier process left; right after it was opened."""
        if self._store is not None:
            self._recovered = stock(await self._store.counts())

    async def shutdown(self) -> None:
        """Close. Safe without `start`, and twice."""
        await self.server.shutdown()
        if self._metrics is not None:
            self._metrics.shutdown()
            self._metrics = None

    async def _page(self) -> bytes:
        if self._metrics is None:
            raise RuntimeError("metrics are switched off, or the pages are shut down")
        held, is_healthy = Stock() if self._store is None else None, True
        if self._store is not None:
            is_healthy = self._store.healthy
            try:
                async with asyncio.timeout(STORE_SECONDS):
                    held = stock(await self._store.counts())
            except (StoreError, TimeoutError):
                held = None
        return self._metrics.page(
            Reading(self._counters, self._exporters, self._hold, self._recovered, held, is_healthy, self._expiries())
        )


def stock(counts: Counts) -> Stock:
    """Return what the store says it holds."""
    return Stock(
        counts.held.items,
        _amounts(counts.queued_of),
        _amounts(counts.dead_of),
        counts.quarantined.items,
        counts.used_bytes,
        counts.max_bytes,
    )


def _amounts(stored: Mapping[tuple[str, str], StoredAmount]) -> dict[tuple[str, Signal], Amount]:
    return {
        (exporter, Signal(signal)): Amount(amount.rows, amount.items) for (exporter, signal), amount in stored.items()
    }
