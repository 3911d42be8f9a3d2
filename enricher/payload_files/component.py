"""The component that watches payload files, and the plain function that reads them once."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import structlog

from enricher.errors import CaptureError
from enricher.payload_files.watched import Watched
from enricher.waiting import at_most

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from enricher.evidence.collect import Evidence
    from enricher.evidence.files import Item

START_PATIENCE: Final = 5.0
"""Seconds for which the start waits until what is there has been read."""

SHARE: Final = 20
"""A look is followed by a pause of so many times its length, reading apart: looking takes 5 % of a core at most."""

BATCH: Final = 256
BATCH_SECONDS: Final = 0.1

_log = structlog.get_logger()


class PayloadFiles:
    """
    A component: `start` reads what is there and begins to watch, `shutdown` ends that.

    Files are found and read in a thread, the callbacks called in the event loop. `on_evidence` is called for all that
    is said, and again when a file changed: learning twice must do no harm. `on_error` is called once for each change of
    a file that cannot be read, and not before the file is the same at two looks: one that is being written is no error.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        on_evidence: Callable[[Evidence], None],
        on_error: Callable[[CaptureError], None],
        *,
        interval_seconds: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_evidence, self._on_error = on_evidence, on_error
        self._interval, self._clock = interval_seconds, clock
        self._watched = Watched(patterns, clock)
        self._stop, self._looked = asyncio.Event(), asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to watch. Returns when what is there has been read, and after `START_PATIENCE` in any case."""
        self._watching = asyncio.create_task(self._watch())
        await at_most(START_PATIENCE, self._looked)

    async def shutdown(self) -> None:
        """Stop. A file that is being read is read to its end first, which may take a second or two."""
        self._stop.set()
        if self._watching is not None:
            await self._watching
            self._watching = None

    async def _watch(self) -> None:
        while not self._stop.is_set():
            began = self._clock()
            try:
                await self._look()
            except Exception:  # noqa: BLE001 - whatever happens, the next look comes
                _log.exception("payload files could not be looked at; the next look comes")
            self._looked.set()
            searching = self._clock() - began - self._watched.reading_seconds
            pause = max(self._interval, SHARE * searching)
            await at_most(pause, self._stop)

    async def _look(self) -> None:
        news, done = self._watched.look(), False
        while not done and not self._stop.is_set():
            items, done = await asyncio.to_thread(_take, news)
            self._deliver(items)
        news.close()

    def _deliver(self, items: Sequence[Item]) -> None:
        failed = 0
        for item in items:
            try:
                if isinstance(item, CaptureError):
                    self._on_error(item)
                else:
                    self._on_evidence(item)
            except Exception:  # noqa: BLE001 - what one file says must not cost what the others say
                failed += 1
                if failed == 1:
                    _log.exception("what payload files say could not be taken up")


def read_once(patterns: Sequence[str]) -> Iterator[Item]:
    """
    Yield what the files say that match now, and in its place the error of each part that cannot be read.

    A pattern that matches nothing is an error, and so is a file that changes while it is read. Blocks; never raises.
    """
    for item in Watched(patterns, time.monotonic, once=True).look():
        if item is not None:
            yield item


def _take(news: Generator[Item | None]) -> tuple[list[Item], bool]:
    """Return the next items, and whether there are no more; not many at a time, so that the loop may stop it."""
    items: list[Item] = []
    until = time.monotonic() + BATCH_SECONDS
    for item in news:
        if item is not None:
            items.append(item)
        if len(items) >= BATCH or time.monotonic() > until:
            return items, False
    return items, True
