"""The one durable store: held candidates, queued requests, dead letters and what was seen."""

from enricher.storage.errors import StoreError, StoreFullError
from enricher.storage.rows import Amount, Batch, Counts, DeadBatch, HeldSpan, QueuedBatch, QueueStats, Recovery
from enricher.storage.store import Store

__all__ = [
    "Amount",
    "Batch",
    "Counts",
    "DeadBatch",
    "HeldSpan",
    "QueueStats",
    "QueuedBatch",
    "Recovery",
    "Store",
    "StoreError",
    "StoreFullError",
]
