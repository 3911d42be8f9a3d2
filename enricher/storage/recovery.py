"""
From whatever lies in the directory to a database that can be used: what is damaged is set aside and reported.

Every step may be interrupted and done again (F19). Runs on the writer's thread.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from enricher.storage import files, schema
from enricher.storage.errors import DAMAGED, StoreError, primary_code
from enricher.storage.rows import Recovery

if TYPE_CHECKING:
    from collections.abc import Callable

    from enricher.storage.files import Sentinel

LONGEST_WAIT_SECONDS: Final = 3600.0
"""No batch waits longer than this after a start, whatever the clock said when its wait was set (F32)."""

_HEADER: Final = b"SQLite format 3\0"


class _DamagedError(Exception):
    """The file is not a database, or not a sound one."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A database in use, which store it is, and what was found on the way."""

    connection: sqlite3.Connection
    store: str
    generation: int
    recovery: Recovery


@dataclass(frozen=True, slots=True)
class _Before:
    """What lay in the directory before anything was opened, and what had to be set aside."""

    path: Path
    has_database: bool
    has_journal: bool
    has_sentinel: bool
    sentinel: Sentinel | None
    damage: str = ""
    set_aside: tuple[Path, ...] = ()

    @property
    def is_as_left(self) -> bool:
        """Whether a store was closed in order, and nobody has written to its file since."""
        if self.sentinel is None or self.sentinel.state != "closed":
            return False
        status = self.path.stat()
        return (status.st_size, status.st_mtime_ns) == (self.sentinel.size, self.sentinel.mtime_ns)


def open_database(
    path: Path,
    *,
    connect: Callable[[Path], sqlite3.Connection],
    synchronous: schema.Synchronous,
    now: float,
) -> Opened:
    """
    Open the database, or set it aside and make a new one.

    Raises `EnricherError` for one that is not ours to change, and `StoreError`, `sqlite3.Error` or `OSError` where the
    volume does not let us.
    """
    note = path.with_name(files.SENTINEL)
    has_journal = Path(f"{path}-wal").exists()
    before = _Before(path, files.size(path) > 0, has_journal, files.size(note) > 0, files.read_sentinel(note))
    files.make_private(path)
    connection = connect(path)
    try:
        try:
            _check_files(before)
            _prepare(connection, path, synchronous, is_trusted=before.is_as_left)
        except _DamagedError as error:
            # Before the close, which would write the journal into the database and delete it by its old name.
            aside = tuple(files.set_aside(path, now))
            connection.close()
            before = replace(before, damage=str(error), set_aside=aside)
            files.make_private(path)
            connection = connect(path)
            _prepare(connection, path, synchronous, is_trusted=True)
        requeued, store, generation = _take_over(connection, now)
        recovery = _recovery(connection, before, requeued, store, generation)
    except _DamagedError as error:
        connection.close()
        raise StoreError(
            f"{path}: a new database is damaged already: {error}; see that the volume is healthy"
        ) from None
    except BaseException:
        connection.close()
        raise
    return Opened(connection, store, generation + 1, recovery)


def _prepare(connection: sqlite3.Connection, path: Path, synchronous: schema.Synchronous, *, is_trusted: bool) -> None:
    try:
        schema.exclude_others(connection)
        found = schema.version(connection, path)
        if found and not is_trusted:
            _check(connection)
        schema.configure(connection, synchronous)
        schema.migrate(connection, found)
        schema.count(connection)
    except sqlite3.Error as error:
        # SQLITE_ERROR: tables that a database of this version has are not there.
        if primary_code(error) in (*DAMAGED, sqlite3.SQLITE_ERROR):
            raise _DamagedError(str(error)) from error
        raise


def _check_files(before: _Before) -> None:
    if before.has_database:
        with before.path.open("rb") as file:
            if file.read(len(_HEADER)) != _HEADER:
                raise _DamagedError("it does not begin as a database does")
    elif files.size(Path(f"{before.path}-wal")):
        # SQLite would delete it.
        raise _DamagedError("there is a write-ahead log without its database")


def _check(connection: sqlite3.Connection) -> None:
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise _DamagedError(" ".join(verdict.split()))


def _take_over(connection: sqlite3.Connection, now: float) -> tuple[int, str, int]:
    """Put claimed batches back (F18), end waits that are too long, and return how many, store, generation."""
    store, generation = connection.execute("SELECT store, generation FROM meta").fetchone()
    requeued = 0
    try:
        connection.execute("BEGIN IMMEDIATE")
        requeued = connection.execute(
            "UPDATE batch SET state = 'queued', next_try = 0 WHERE state NOT IN ('queued', 'dead')"
        ).rowcount
        connection.execute(
            "UPDATE batch SET next_try = ?1 WHERE state = 'queued' AND next_try > ?1", (now + LONGEST_WAIT_SECONDS,)
        )
        connection.execute("UPDATE meta SET generation = generation + 1")
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if primary_code(error) != sqlite3.SQLITE_FULL:
            raise
        # A full volume must not keep the stage from starting (F25); `claim` puts batches back too, when leases end.
        requeued = 0
    return requeued, store, generation


def _recovery(connection: sqlite3.Connection, before: _Before, requeued: int, store: str, generation: int) -> Recovery:
    rows: dict[str, int] = dict(connection.execute("SELECT kind, sum(rows) FROM totals GROUP BY kind"))
    queued = connection.execute("SELECT destination FROM totals WHERE kind = 'queue' AND rows > 0 ORDER BY destination")
    held, in_queue, dead = rows.get("held", 0), rows.get("queue", 0), rows.get("dead", 0)
    lost, problems = _losses(before, store, generation, held + in_queue + dead)
    if before.damage:
        names = ", ".join(map(str, before.set_aside))
        problems.insert(
            0, f"{before.path} cannot be used: {before.damage}; it is kept as {names}, and a new one is begun"
        )
    return Recovery(
        held=held,
        queued=in_queue,
        dead=dead,
        quarantined=rows.get("quarantine", 0),
        requeued=requeued,
        destinations=tuple(destination for (destination,) in queued),
        was_clean=before.sentinel.state == "closed" if before.sentinel else not before.has_database,
        set_aside=before.set_aside,
        lost_rows=lost,
        problems=tuple(problems),
    )


def _losses(before: _Before, store: str, generation: int, rows: int) -> tuple[int, list[str]]:
    """Return how many rows are missing, as far as is known, and what was wrong."""
    path, sentinel = before.path, before.sentinel
    if sentinel is None:
        if before.has_sentinel:
            return 0, [f"{path.with_name(files.SENTINEL)} cannot be read, so it is not known what {path} should hold"]
        return 0, []
    if before.damage or not before.has_database:
        about = "about " if sentinel.state == "open" else ""
        if not sentinel.rows and not about:
            return 0, []
        return sentinel.rows, [f"{path} was lost, and with it {about}{sentinel.rows} rows"]
    if store != sentinel.store:
        return sentinel.rows, [f"{path} is not the one that was here, which held {sentinel.rows} rows"]
    missing = max(0, sentinel.rows - rows)
    if generation < sentinel.generation:
        return missing, [f"{path} is an older state of itself: {missing} rows that are known of are missing"]
    if sentinel.state == "open":
        if not before.has_journal:
            return missing, [f"{path}-wal is gone, and with it what was committed last"]
        return 0, []
    if missing:
        return missing, [f"{path} was left with {sentinel.rows} rows and has {rows}"]
    return 0, []
