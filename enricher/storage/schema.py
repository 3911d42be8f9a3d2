"""
The database's tables, their history, and the settings of the one connection.

    content     the bytes of every row below, by id; an id is never used twice
    held        spans that wait for evidence
    batch       requests: queued -> claimed -> (deleted) | queued | dead, dead -> queued | (deleted)
    evidence    what payloads said, until it expires
    quarantine  rows of these three whose content had changed on the disk
    meta        one row: which store this is, how often it was opened
    totals      temporary, counted at open and kept by triggers: `counts` reads no table from end to end

Rows are split from their content so that a state changes without its megabytes being written again, and so that a row
with unreadable content can be moved without touching that content.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Literal

from enricher.errors import EnricherError
from enricher.storage.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Synchronous = Literal["full", "normal"]

APPLICATION_ID = int.from_bytes(b"enrc", "big")
PAGE_BYTES = 8192
"""Measured against 4096 and 16384: as fast as the first, with a fifth less CPU at 100 KB (decision 0004)."""
CHECKPOINT_PAGES = 500
JOURNAL_BYTES = 64 << 20

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE meta (store TEXT NOT NULL, generation INTEGER NOT NULL, probe INTEGER NOT NULL);
    INSERT INTO meta VALUES (lower(hex(randomblob(16))), 0, 0);
    CREATE TABLE content (id INTEGER PRIMARY KEY AUTOINCREMENT, data BLOB NOT NULL);
    CREATE TABLE held (
        id INTEGER PRIMARY KEY, due REAL NOT NULL, size INTEGER NOT NULL, crc INTEGER NOT NULL
    );
    CREATE TABLE batch (
        id INTEGER PRIMARY KEY, destination TEXT NOT NULL, signal TEXT NOT NULL, items INTEGER NOT NULL,
        size INTEGER NOT NULL, crc INTEGER NOT NULL, created REAL NOT NULL,
        state TEXT NOT NULL, attempt INTEGER NOT NULL, next_try REAL NOT NULL,
        reason TEXT NOT NULL DEFAULT '', code INTEGER NOT NULL DEFAULT 0, buried REAL NOT NULL DEFAULT 0
    );
    CREATE INDEX batch_order ON batch (destination, state, id);
    CREATE INDEX batch_dead ON batch (id) WHERE state = 'dead';
    CREATE TABLE evidence (
        id INTEGER PRIMARY KEY, expires REAL NOT NULL, size INTEGER NOT NULL, crc INTEGER NOT NULL
    );
    CREATE INDEX evidence_expires ON evidence (expires);
    CREATE TABLE quarantine (
        id INTEGER PRIMARY KEY, origin TEXT NOT NULL, items INTEGER NOT NULL, size INTEGER NOT NULL, found REAL NOT NULL
    );
    """,
)
"""The script at index n makes schema n + 1 out of schema n. What was released is never changed, only added to."""

_TOTALS = """
    CREATE TEMP TABLE totals (
        kind TEXT, destination TEXT, signal TEXT, rows INTEGER, items INTEGER, bytes INTEGER,
        PRIMARY KEY (kind, destination, signal)
    ) WITHOUT ROWID;
    INSERT INTO totals SELECT 'held', '', '', count(*), count(*), coalesce(sum(size), 0) FROM held;
    INSERT INTO totals SELECT 'evidence', '', '', count(*), count(*), coalesce(sum(size), 0) FROM evidence;
    INSERT INTO totals SELECT 'quarantine', '', '', count(*), coalesce(sum(items), 0), coalesce(sum(size), 0)
        FROM quarantine;
    INSERT INTO totals SELECT CASE state WHEN 'dead' THEN 'dead' ELSE 'queue' END, destination, signal,
        count(*), sum(items), sum(size) FROM batch GROUP BY 1, 2, 3;
"""


def connect(path: Path) -> sqlite3.Connection:
    """Open the database as it is: transactions are written out, and nothing is set yet."""
    return sqlite3.connect(path, isolation_level=None)


def exclude_others(connection: sqlite3.Connection) -> None:
    """
    Keep the file to this connection, from its first access on.

    That keeps out the long readers and second connections which let the write-ahead log grow or lose it (SQLite before
    3.51.3), and the log's index needs no shared memory.
    """
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")


def version(connection: sqlite3.Connection, path: Path) -> int:
    """
    Return the schema's version, 0 for a database without tables, and change nothing.

    Raises `EnricherError` for a database that is not ours to change: another program's, or a newer version's (F48).
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if not tables:
        return 0
    if application != APPLICATION_ID:
        raise EnricherError(f"{path} is a database of another program; let storage.directory name another directory")
    if found > len(MIGRATIONS):
        raise EnricherError(
            f"{path} has schema {found}, and this version knows those up to {len(MIGRATIONS)}: a newer version wrote "
            "it; run that one until the store is empty, or let storage.directory name another directory"
        )
    return int(found)


def configure(connection: sqlite3.Connection, synchronous: Synchronous) -> None:
    """Set what durability, privacy and size need; raises `StoreError` where there can be no write-ahead log."""
    for setting in (
        # These two count for a new file alone, and only before it has a journal mode.
        f"page_size = {PAGE_BYTES}",
        "auto_vacuum = INCREMENTAL",
        "journal_mode = WAL",
        f"synchronous = {synchronous}",
        # FAST: deleted content, which is users' text, is overwritten where that costs no further write.
        "secure_delete = FAST",
        "temp_store = MEMORY",
        f"journal_size_limit = {JOURNAL_BYTES}",
        f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
    ):
        answer = connection.execute(f"PRAGMA {setting}").fetchall()
        if setting.startswith("journal_mode") and answer != [("wal",)]:
            raise StoreError(f"the volume cannot hold a write-ahead log: journal mode is {answer[0][0]}")


def migrate(connection: sqlite3.Connection, found: int, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring the schema from version `found` to the newest; each step and its number are one transaction."""
    for number, script in enumerate(migrations[found:], found + 1):
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE; {script}; PRAGMA application_id = {APPLICATION_ID};"
                f" PRAGMA user_version = {number}; COMMIT;"
            )
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def count(connection: sqlite3.Connection) -> None:
    """Count every row, and from now on every change."""
    connection.executescript(_TOTALS + "".join(_triggers()))


def _triggers() -> list[str]:
    state = "CASE {row}.state WHEN 'dead' THEN 'dead' ELSE 'queue' END"
    batch = (state, "{row}.destination", "{row}.signal", "{row}.items")
    kinds = {
        "held": ("'held'", "''", "''", "1"),
        "evidence": ("'evidence'", "''", "''", "1"),
        "quarantine": ("'quarantine'", "''", "''", "{row}.items"),
        "batch": batch,
    }
    made = []
    for table, columns in kinds.items():
        comes, goes = _change("+", "new", columns), _change("-", "old", columns)
        made += [
            f"CREATE TEMP TRIGGER {table}_in AFTER INSERT ON main.{table} BEGIN {comes} END;",
            f"CREATE TEMP TRIGGER {table}_out AFTER DELETE ON main.{table} BEGIN {goes} END;",
        ]
    moved = "(old.state = 'dead') <> (new.state = 'dead')"
    change = _change("-", "old", batch) + _change("+", "new", batch)
    made.append(f"CREATE TEMP TRIGGER batch_moved AFTER UPDATE OF state ON main.batch WHEN {moved} BEGIN {change} END;")
    return made


def _change(sign: str, row: str, columns: tuple[str, str, str, str]) -> str:
    kind, destination, signal, items = (column.format(row=row) for column in columns)
    return (
        f"INSERT INTO totals VALUES ({kind}, {destination}, {signal}, {sign}1, {sign}{items}, {sign}{row}.size)"  # noqa: S608 - from above
        " ON CONFLICT (kind, destination, signal) DO UPDATE SET"
        " rows = rows + excluded.rows, items = items + excluded.items, bytes = bytes + excluded.bytes;"
    )
