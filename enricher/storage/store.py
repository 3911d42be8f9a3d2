"""
The store as the rest of the stage sees it: what is awaited here is on the disk when it returns.

One process holds a directory. Held spans and queued requests are in one database, because a release is a move from
one to the other and must be one transaction. The store is the first part to open and the last to close.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from enricher.errors import EnricherError
from enricher.storage import batches, evidence, files, held, recovery, schema
from enricher.storage.errors import StoreError, from_sqlite
from enricher.storage.quota import Quota
from enricher.storage.rows import ROW_BYTES, Amount, Counts
from enricher.storage.thread import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from enricher.storage.rows import Batch, DeadBatch, HeldSpan, QueuedBatch, QueueStats, Recovery

    T = TypeVar("T")

EVIDENCE_SHARE: Final = 8
"""Evidence takes at most this part of the store: it can be done without, spans cannot."""

MOST_WAITING: Final = 50_000
"""Pieces of evidence that wait to be written; more are let go and counted."""

VACUUM_PAGES: Final = 256
"""Pages given back to the volume in one turn of housekeeping."""


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
        self._directory, self._path = directory, directory / files.DATABASE
        self._synchronous, self._connect = synchronous, connect
        self._quota = Quota(directory, max_size_bytes)
        self._writer: Writer | None = None
        self._lock: int | None = None
        self._opened: recovery.Opened | None = None
        self._to_remember: list[tuple[float, bytes]] = []
        self._remembering: asyncio.Future[Any] | None = None
        self._dropped = 0
        self._noted: tuple[Amount, Amount, Amount] | None = None

    @property
    def healthy(self) -> bool:
        """Whether anything can be written."""
        return self._writer is not None and not self._writer.failure

    @property
    def reason(self) -> str:
        """Why nothing can be written; empty while it can."""
        return "the store is not open" if self._writer is None else self._writer.failure

    async def open(self) -> Recovery:
        """
        Take the directory and open the database, mended if need be, and return what was found.

        Raises `EnricherError` where another process has the directory, a newer version wrote it, or nothing can be
        written there.
        """
        return await asyncio.to_thread(self._open)

    async def close(self) -> None:
        """Write what waits and let the directory go. Safe without `open`, and twice."""
        if self._writer is not None and self.healthy:
            with suppress(StoreError):
                await self._write_down()
        await asyncio.to_thread(self._close)

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

    async def enqueue(self, requests: Sequence[Batch]) -> list[int]:
        """Take batches in and return their ids in order."""
        growth = sum(ROW_BYTES + len(batch.body) for batch in requests)
        return await self._do(lambda connection: batches.enqueue(connection, requests, self.clock()), growth)

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
        if self._writer is None:
            raise StoreError(f"{self._path}: the store is not open")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._writer.submit(operation, growth, future)
        return await future

    async def _write_down(self) -> None:
        while self._to_remember:
            records, self._to_remember = self._to_remember, []
            growth = sum(ROW_BYTES + len(data) for _, data in records)
            try:
                self._dropped += await self._do(self._remember(records), growth)
            except StoreError:
                self._dropped += len(records)
                raise

    def _remember(self, records: Sequence[tuple[float, bytes]]) -> Callable[[sqlite3.Connection], int]:
        most = self._quota.max_bytes // EVIDENCE_SHARE
        return lambda connection: evidence.remember(connection, records, most)

    def _open(self) -> Recovery:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = files.lock(self._directory)
            self._writer = Writer(
                str(self._path),
                self._quota,
                connect=self._open_database,
                keep_house=self._keep_house,
                close=self._close_database,
            )
            self._writer.start()
        except sqlite3.Error as error:
            self._close()
            raise from_sqlite(error, str(self._path)) from None
        except OSError as error:
            self._close()
            raise EnricherError(
                f"{self._directory} cannot be used as storage.directory: {error.strerror or error}"
            ) from None
        except BaseException:
            self._close()
            raise
        assert self._opened is not None  # noqa: S101 - the writer has started
        return self._opened.recovery

    def _open_database(self) -> sqlite3.Connection:
        opened = recovery.open_database(
            self._path, connect=self._connect, synchronous=self._synchronous, now=self.clock()
        )
        self._opened = opened
        self._quota.attach(opened.connection)
        with suppress(OSError):
            # On a full volume the old note stands.
            self._note(self._count(opened.connection), "open")
        return opened.connection

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.stop()
        self._writer, self._opened = None, None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # ---- on the writer's thread

    def _close_database(self, connection: sqlite3.Connection) -> None:
        with suppress(sqlite3.Error, OSError):
            counts = self._count(connection)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.close()
            self._note(counts, "closed")
        connection.close()

    def _keep_house(self, connection: sqlite3.Connection) -> None:
        """Use a quiet moment: expired evidence goes, free pages go back, and the sentinel says what there is."""
        try:
            connection.execute("BEGIN IMMEDIATE")
            evidence.expire(connection, self.clock())
            connection.execute("COMMIT")
            connection.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
            counts = self._count(connection)
            if (counts.held, counts.queued, counts.dead) != self._noted:
                self._note(counts, "open")
        except (sqlite3.Error, OSError):
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _note(self, counts: Counts, state: Literal["open", "closed"]) -> None:
        opened = self._opened
        if opened is None:
            return
        status = self._path.stat()
        rows = (counts.held.rows, counts.queued.rows, counts.dead.rows)
        note = files.Sentinel(opened.store, opened.generation, state, *rows, status.st_size, status.st_mtime_ns)
        files.write_sentinel(self._path.with_name(files.SENTINEL), note)
        self._noted = (counts.held, counts.queued, counts.dead)

    def _count(self, connection: sqlite3.Connection) -> Counts:
        found = {
            kind: Amount(rows, items, size)
            for kind, rows, items, size in connection.execute(
                "SELECT kind, sum(rows), sum(items), sum(bytes) FROM totals GROUP BY kind"
            )
        }
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (unused,) = connection.execute("PRAGMA freelist_count").fetchone()
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        held_, queued, dead, quarantined, seen = (
            found.get(kind, Amount()) for kind in ("held", "queue", "dead", "quarantine", "evidence")
        )
        return Counts(
            held_,
            queued,
            dead,
            quarantined,
            seen,
            evidence_dropped=self._dropped,
            used_bytes=(pages - unused) * page_bytes,
            file_bytes=pages * page_bytes,
            max_bytes=self._quota.max_bytes,
        )


def _forget_failure(done: asyncio.Future[Any]) -> None:
    """Take note of the exception, so that the loop does not complain of it: what was lost is counted."""
    if not done.cancelled():
        done.exception()
