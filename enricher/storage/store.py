"""
The store as the rest of the stage sees it: what is awaited here is on the disk when it returns.

One process holds a directory. Held spans and queued requests are in one database, because a release is a move from
one to the other and must be one transaction. The store is the first part to open and the last to close.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from enricher.storage import batches, evidence, files, held, schema
from enricher.storage.errors import StoreError
from enricher.storage.quota import Quota
from enricher.storage.rows import ROW_BYTES, Amount, Counts
from enricher.storage.session import Session
from enricher.storage.thread import Writer

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from enricher.storage.rows import Batch, DeadBatch, HeldSpan, QueuedBatch, QueueStats, Recovery

    T = TypeVar("T")

EVIDENCE_SHARE: Final = 8
"""Evidence takes at most this part of the store: it can be done without, spans cannot."""

MOST_WAITING: Final = 50_000
"""Pieces of evidence that wait to be written; more are let go and counted."""

WRITTEN_AT_ONCE: Final = 500
"""Pieces of evidence in one operation: what waits behind it is to wait a few milliseconds."""


class Store:
    """A component. `clock` is wall time in seconds, which deadlines in the store are of."""

    def __init__(
        self,
        directory: Path,
        *,
        max_size_bytes: int,
        synchronous: schema.Synchronous = "full",
        clock: Callable[[], float] = time.time,
        connect: Callable[[Path], sqlite3.Connection] = schema.connect,
    ) -> None:
        self.clock = clock
        self._began = clock() - time.monotonic()
        self._quota = Quota(directory, max_size_bytes)
        self._writer = Writer(
            Session(directory / files.DATABASE, self._quota, synchronous=synchronous, clock=clock, connect=connect)
        )
        self._to_remember: list[tuple[float, bytes]] = []
        self._remembering: asyncio.Future[Any] | None = None
        self._dropped = 0

    @property
    def healthy(self) -> bool:
        """Whether anything can be written."""
        return not self._writer.reason

    @property
    def reason(self) -> str:
        """Why nothing can be written; empty while it can."""
        return self._writer.reason

    @property
    def death(self) -> str:
        """Why the store is of no use until the process is started again (F44); empty while it is."""
        return self._writer.death

    async def open(self) -> Recovery:
        """
        Take the directory and open the database, mended if need be, and return what was found.

        Raises `EnricherError` where another process has the directory, a newer version wrote it, or nothing can be
        written there.
        """
        return await self._writer.start()

    async def close(self) -> None:
        """Write what waits and let the directory go. Safe without `open`, and twice."""
        with suppress(StoreError):
            await self._write_down()
        await self._writer.stop()

    async def ended(self) -> None:
        """Return when the store is closed or has died, after `open`."""
        await self._writer.ended()

    # ---- held spans

    async def hold(self, spans: Sequence[HeldSpan]) -> list[int]:
        """Take spans in and return their ids in order."""
        growth = sum(ROW_BYTES + sum(map(len, span[1:])) for span in spans)
        return await self._do(lambda connection: held.hold(connection, spans), growth)

    async def held(self) -> list[tuple[int, HeldSpan]]:
        """Return all that is held."""
        found: list[tuple[int, HeldSpan]] = []
        after: int | None = 0
        while after is not None:
            page, after = await self._do(partial(held.page, after=after, now=self.clock()))
            found += page
        return found

    async def release(self, ids: Sequence[int], moved: Sequence[Batch]) -> list[int] | None:
        """Move held spans into the queue in one transaction; None if one of them was not held any more."""
        return await self._do(lambda connection: held.release(connection, ids, moved, self.clock()))

    # ---- the queue

    def now(self) -> float:
        """Return the time that leases and tries go by: wall time at first, and no jump of it since (F32)."""
        return self._began + time.monotonic()

    async def enqueue(self, requests: Sequence[Batch], *, lease_seconds: float = 0.0) -> list[int]:
        """Take batches in and return their ids in order; with a lease, of those that are being sent already."""
        growth = sum(ROW_BYTES + len(batch.body) for batch in requests)
        until = self.now() + lease_seconds if lease_seconds else 0.0
        return await self._do(
            lambda connection: batches.enqueue(connection, requests, self.clock(), leased_until=until), growth
        )

    async def claim(self, destination: str, now: float, limit: int, lease_seconds: float) -> list[QueuedBatch]:
        """Return batches that are due, oldest first; nobody else gets them until the lease ends."""
        return await self._do(lambda connection: batches.claim(connection, destination, now, limit, lease_seconds))

    async def confirm(self, ids: Sequence[int]) -> bool:
        """Delete batches that were delivered."""
        return await self._do(lambda connection: batches.confirm(connection, ids))

    async def retry(self, identity: int, next_try: float) -> bool:
        """Put a claimed batch back."""
        return await self._do(lambda connection: batches.retry(connection, identity, next_try))

    async def bury(self, identity: int, reason: str, code: int) -> bool:
        """Keep a claimed batch among the dead."""
        return await self._do(lambda connection: batches.bury(connection, identity, reason, code, self.clock()))

    async def split(self, identity: int, parts: Sequence[Batch]) -> bool:
        """Queue parts in place of a claimed batch."""
        return await self._do(lambda connection: batches.split(connection, identity, parts))

    async def queue_stats(self, destination: str) -> QueueStats:
        """Return what waits for a destination."""
        return await self._do(lambda connection: batches.stats(connection, destination))

    # ---- dead letters

    async def dead(self, limit: int, after: int = 0) -> list[DeadBatch]:
        """Return dead batches behind an id, oldest first."""
        return await self._do(lambda connection: batches.dead(connection, limit, after))

    async def show(self, identity: int) -> tuple[DeadBatch, bytes] | None:
        """Return a dead batch and its body."""
        return await self._do(lambda connection: batches.show(connection, identity, self.clock()))

    async def resend(self, ids: Sequence[int]) -> int:
        """Queue dead batches anew."""
        return await self._do(lambda connection: batches.resend(connection, ids))

    async def drop(self, ids: Sequence[int]) -> int:
        """Delete dead batches for good."""
        return await self._do(lambda connection: batches.drop(connection, ids))

    # ---- evidence

    def remember(self, records: Sequence[tuple[float, bytes]]) -> None:
        """Have evidence written soon: nobody waits for it, and a crash may cost the last of it."""
        room = MOST_WAITING - len(self._to_remember)
        self._to_remember += records[:room]
        self._dropped += max(len(records) - room, 0)
        if self._to_remember and (self._remembering is None or self._remembering.done()) and self.healthy:
            self._remembering = asyncio.ensure_future(self._write_down())
            self._remembering.add_done_callback(_forget_failure)

    async def recall(self, now: float) -> list[bytes]:
        """Return evidence that has not expired."""
        found: list[bytes] = []
        after: int | None = 0
        while after is not None:
            page, after = await self._do(partial(evidence.page, after=after, now=now))
            found += page
        return found

    async def counts(self) -> Counts:
        """Return everything the store holds, at one moment."""
        return await self._do(self._count)

    # ---- inside

    async def _do(self, operation: Callable[[sqlite3.Connection], T], growth: int = 0) -> T:
        return await self._writer.submit(operation, growth)

    async def _write_down(self) -> None:
        while self._to_remember:
            records, self._to_remember = self._to_remember[:WRITTEN_AT_ONCE], self._to_remember[WRITTEN_AT_ONCE:]
            growth = sum(ROW_BYTES + len(data) for _, data in records)
            try:
                self._dropped += await self._do(self._remember(records), growth)
            except StoreError:
                self._dropped += len(records)
                raise

    def _remember(self, records: Sequence[tuple[float, bytes]]) -> Callable[[sqlite3.Connection], int]:
        most = self._quota.max_bytes // EVIDENCE_SHARE
        return lambda connection: evidence.remember(connection, records, most)

    def _count(self, connection: sqlite3.Connection) -> Counts:
        found: dict[str, dict[tuple[str, str], Amount]] = {}
        for kind, destination, signal, *amount in connection.execute("SELECT * FROM totals"):
            found.setdefault(kind, {})[destination, signal] = Amount(*amount)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (unused,) = connection.execute("PRAGMA freelist_count").fetchone()
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        held_, quarantined, seen = (
            found.get(kind, {}).get(("", ""), Amount()) for kind in ("held", "quarantine", "evidence")
        )
        queued, dead = found.get("queue", {}), found.get("dead", {})
        return Counts(
            held_,
            _sum(queued.values()),
            _sum(dead.values()),
            quarantined,
            seen,
            queued,
            dead,
            evidence_dropped=self._dropped,
            used_bytes=(pages - unused) * page_bytes,
            file_bytes=pages * page_bytes,
            max_bytes=self._quota.max_bytes,
        )


def _sum(amounts: Iterable[Amount]) -> Amount:
    return Amount(*map(sum, zip(*amounts, strict=True)))


def _forget_failure(done: asyncio.Future[Any]) -> None:
    """Take note of the exception, so that the loop does not complain of it: what was lost is counted."""
    if not done.cancelled():
        done.exception()
