"""Whether downstream takes requests, and how long to leave it alone when it does not."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

from enricher.errors import RetryableError
from enricher.waiting import at_most

if TYPE_CHECKING:
    from collections.abc import Callable

    from enricher.config.model import RetryConfig
    from enricher.errors import ExportError

SPARED: Final = 4
"""Failures in a row that may be chance: up to here nothing pauses."""

FIRST_PAUSE: Final = 0.05
GROWTH: Final = 1.3
"""Pauses are a quarter of the time for which downstream has been away, so it is found soon after it is back."""


class Backoff:
    """
    What is known of one downstream, shared by all who send to it.

    One batch that is refused waits for itself (`delay`). When every try fails, all pause (`pause`), and one at a time
    tries whether downstream is back.
    """

    def __init__(self, retry: RetryConfig, clock: Callable[[], float]) -> None:
        self._retry, self._clock = retry, clock
        self._failures = 0
        self._paused_until = self._throttled_until = 0.0
        self._changed = asyncio.Event()

    @property
    def is_troubled(self) -> bool:
        """Whether the last answer was a refusal: new requests are not to wait for another."""
        return self._failures > 0 or self._throttled_until > self._clock()

    @property
    def is_away(self) -> bool:
        """Whether so many tries failed that one at a time is enough."""
        return self._failures > SPARED

    @property
    def is_pausing(self) -> bool:
        """Whether it is too early for the next try."""
        return self._remaining > 0

    @property
    def _remaining(self) -> float:
        return max(self._paused_until, self._throttled_until) - self._clock()

    def succeeded(self) -> None:
        """Say that downstream answered; whoever pauses goes on, unless downstream asked for time."""
        if self._failures:
            self._failures, self._paused_until = 0, 0.0
            self._changed.set()

    def failed(self, error: ExportError | None = None) -> None:
        """Say that downstream did not take a request, or not in time."""
        self._failures += 1
        now = self._clock()
        if self.is_away:
            longest = min(self._retry.initial_interval, self._retry.max_interval)
            pause = FIRST_PAUSE * GROWTH ** min(self._failures - SPARED, 100)
            self._paused_until = now + min(pause, longest)
        if isinstance(error, RetryableError) and error.retry_delay is not None:
            self._throttled_until = max(self._throttled_until, now + error.retry_delay)

    def delay(self, attempt: int, error: ExportError | None = None) -> float:
        """Return the seconds until a batch is tried again: exponential with jitter, or downstream's wish (CLI-06)."""
        base = min(self._retry.initial_interval * 1.5 ** min(attempt - 1, 100), self._retry.max_interval)
        wished = error.retry_delay if isinstance(error, RetryableError) else None
        return max(base * random.uniform(0.5, 1.5), wished or 0.0)  # noqa: S311 - jitter, not a secret

    def gives_up(self, age_seconds: float) -> bool:
        """Tell whether a batch of this age is not to be tried again (`max_elapsed_time`, `enabled`)."""
        longest = self._retry.max_elapsed_time
        return not self._retry.enabled or 0 < longest <= age_seconds

    async def pause(self) -> None:
        """Return when the next try may be made."""
        while (remaining := self._remaining) > 0:
            self._changed.clear()
            await at_most(remaining, self._changed)
