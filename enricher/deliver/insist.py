"""Changes of claimed batches that the store has to take, though it may fail for a while (F26)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from enricher.storage import StoreError
from enricher.waiting import at_most

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0
"""Seconds until a store is asked again that did not take what it has to take."""

_log = structlog.get_logger()


async def insist(change: Callable[[], Awaitable[object]], batch: int, stopping: asyncio.Event) -> None:
    """
    Change a batch's row, again after each failure; given up once `stopping` is set.

    A row that never hears how its batch ended is nobody's until its lease ends, and is sent again then.
    """
    pause = FIRST_PAUSE
    while True:
        try:
            await change()
        except StoreError as error:
            _log.error("the queue cannot be written", batch=batch, error=str(error))
            if stopping.is_set():
                # The next start sends it again: a duplicate rather than a loss.
                return
        else:
            return
        await at_most(pause, stopping)
        pause = min(pause * 2, LONGEST_PAUSE)
