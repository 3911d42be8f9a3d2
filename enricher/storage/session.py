"""
An opened store as the writer's thread has it: the directory's lock, the database, and what is done between groups.

Upkeep deletes expired evidence, gives freed pages back to the volume, brings the write-ahead log into the database and
writes the sentinel: in short steps while nothing waits, and a step now and then while something always does.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

import structlog

from enricher.errors import EnricherError
from enricher.storage import evidence, files
from enricher.storage.errors import StoreError, StoreFullError, from_sqlite, where
from enricher.storage.files import Sentinel
from enricher.storage.recovery import open_database

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from enricher.storage.quota import Quota
    from enricher.storage.rows import Recovery
    from enricher.storage.schema import Synchronous

IDLE_SECONDS: Final = 0.5
BUSY_SECONDS: Final = 5.0
"""How often upkeep takes a step while there is always something to write, and how old the sentinel gets."""
REST_SECONDS: Final = 10.0
"""How often it is tried whether anything can be written, and expired evidence is looked for, while nothing happens."""
VACUUM_PAGES: Final = 256
SLACK_PAGES: Final = 128
"""Free pages that stay in the file, so that a little coming and going does not resize it each time."""

# Of Python's classes of SQLite errors, those that tell of a mistake in the call and not of the disk.
_MISTAKES = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError, sqlite3.InterfaceError)

_log = structlog.get_logger()


class Session:
    """Belongs to the writer's thread; others may read `fault` and `path`."""

    def __init__(
        self,
        path: Path,
        quota: Quota,
        *,
        synchronous: Synchronous,
        clock: Callable[[], float],
        connect: Callable[[Path], sqlite3.Connection],
    ) -> None:
        self.path = path
        self.fault = ""
        """Why the last write failed; empty when it did not, or only found no room."""
        self.connection: sqlite3.Connection
        self._quota = quota
        self._synchronous: Synchronous = synchronous
        self._clock = clock
        self._connect = connect
        self._lock: int | None = None
        self._store, self._generation = "", 0
        self._written: Sentinel | None = None
        self._changes = 0
        self._has_work = True
        self._turn = 0.0

    def open(self) -> Recovery:
        """
        Lock the directory and open what is in it; nothing stays open if this raises.

        Raises `EnricherError` where the directory is in use or cannot be used, or a newer version wrote the database.
        """
        try:
            return self._open()
        except BaseException as error:
            self._unlock()
            if isinstance(error, sqlite3.Error):
                raise from_sqlite(error, str(self.path)) from None
            if isinstance(error, OSError):
                raise EnricherError(
                    f"{self.path.parent} cannot be used as storage.directory: {error.strerror or error}; "
                    "name a directory that this user may write"
                ) from None
            raise

    def begin(self) -> None:
        """Begin the transaction of a group."""
        # Deferred: what only reads works on a volume that has become read-only.
        self.connection.execute("BEGIN")
        self._quota.look()
        self._changes = self.connection.total_changes

    def admit(self, growth: int) -> None:
        """Return if an operation may add so many bytes; raises `StoreFullError`."""
        if growth:
            self._quota.admit(self.connection, growth)

    def commit(self) -> None:
        """Make the group last. Only a group that wrote something proves that writing works again."""
        self.connection.execute("COMMIT")
        if self.connection.total_changes != self._changes:
            self.fault = ""
            self._has_work = True

    def roll_back(self) -> None:
        """End the transaction, if there is one, without a trace."""
        # One that cannot be ended now keeps the next from beginning, and is ended then.
        with suppress(sqlite3.Error):
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")

    def failed(self, error: Exception) -> StoreError:
        """Take note of an error and return what to raise in its place; that there is no room is no fault (F24)."""
        if isinstance(error, StoreError):
            return error
        if isinstance(error, sqlite3.Error) and not isinstance(error, _MISTAKES):
            raised = from_sqlite(error, str(self.path))
        elif isinstance(error, OSError):
            raised = StoreError(f"{self.path}: {error.strerror or error}; see that the volume is healthy")
        else:
            # A bug and not the disk's. Its text may show what was to be written.
            _log.error("an operation of the store failed", error=type(error).__name__, at=where(error))
            return StoreError(f"{self.path}: the operation failed: {type(error).__name__}")
        if not isinstance(raised, StoreFullError):
            self.fault = str(raised)
        return raised

    def patience(self) -> float:
        """Return the seconds after which upkeep wants its turn if nothing else comes."""
        return IDLE_SECONDS if self._has_work or self.fault else REST_SECONDS

    def upkeep(self, *, is_idle: bool) -> bool:
        """Take a step if it is time for one, and tell whether there is more to do."""
        if not is_idle and time.monotonic() < self._turn:
            return False
        more = False
        try:
            more = self._tidy(is_idle=is_idle)
        except (sqlite3.Error, OSError) as error:
            self.roll_back()
            self.failed(error)
        self._note("open")
        self._has_work = more or not is_idle
        self._turn = time.monotonic() + BUSY_SECONDS
        return more

    def close(self, *, is_sound: bool) -> None:
        """Bring all into the database, write down what it holds, and let the directory go."""
        try:
            self.roll_back()
            with suppress(sqlite3.Error):
                self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            # Before the log goes with the connection: without it, a store that is noted as open has lost something.
            self._note("closed" if is_sound and not self.fault else "suspect")
            self.connection.close()
        finally:
            self._unlock()

    def _open(self) -> Recovery:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = files.lock(self.path.parent)
        opened = open_database(self.path, connect=self._connect, synchronous=self._synchronous, now=self._clock())
        self.connection = opened.connection
        self._store, self._generation = opened.store, opened.generation
        try:
            self._quota.attach(self.connection)
        except BaseException:
            self.connection.close()
            raise
        self._note("open")
        self._turn = time.monotonic() + BUSY_SECONDS
        return opened.recovery

    def _tidy(self, *, is_idle: bool) -> bool:
        self.begin()
        if self.fault or not self._has_work:
            # Somebody has to try: a stage that is not healthy gets no requests, and one whose downstream takes
            # everything at once writes nothing by which it would learn that the volume became read-only.
            self.connection.execute("UPDATE meta SET probe = probe + 1")
        more = evidence.expire(self.connection, self._clock())
        (unused,) = self.connection.execute("PRAGMA freelist_count").fetchone()
        if unused > SLACK_PAGES:
            pages = min(VACUUM_PAGES, unused - SLACK_PAGES)
            # A page for each row that is fetched.
            self.connection.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
            more = more or unused - pages > SLACK_PAGES
        self.commit()
        if is_idle and not more:
            self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        return more

    def _note(self, state: Literal["open", "closed", "suspect"]) -> None:
        """Write the sentinel if it says something new; where it cannot be written the old one stands."""
        with suppress(sqlite3.Error, OSError):
            rows: dict[str, int] = dict(self.connection.execute("SELECT kind, sum(rows) FROM totals GROUP BY kind"))
            held, queued, dead = rows.get("held", 0), rows.get("queue", 0), rows.get("dead", 0)
            note = Sentinel(self._store, self._generation, state, held, queued, dead)
            if state != "open":
                status = self.path.stat()
                note = replace(note, size=status.st_size, mtime_ns=status.st_mtime_ns)
            if note != self._written:
                files.write_sentinel(self.path.with_name(files.SENTINEL), note)
                self._written = note

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
