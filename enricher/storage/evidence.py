"""
Evidence that outlives a restart: written in bulk, read once at start, deleted when it has expired.

Functions that run inside a transaction, on the writer's thread.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from enricher.storage import content

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

PAGE_ROWS: Final = 1000
EXPIRE_ROWS: Final = 500

_EXPIRES: Final = struct.Struct("<d")


def remember(connection: sqlite3.Connection, records: Sequence[tuple[float, bytes]], most_bytes: int) -> int:
    """Take in what fits into `most_bytes` of evidence in all, and return how many records did not."""
    (held,) = connection.execute("SELECT coalesce(sum(bytes), 0) FROM totals WHERE kind = 'evidence'").fetchone()
    room = most_bytes - held
    for number, (expires, data) in enumerate(records):
        room -= len(data)
        if room < 0:
            return len(records) - number
        identity = content.add(connection, data)
        connection.execute(
            "INSERT INTO evidence (id, expires, size, crc) VALUES (?, ?, ?, ?)",
            (identity, expires, len(data), content.checksum(_EXPIRES.pack(expires), data)),
        )
    return 0


def page(connection: sqlite3.Connection, after: int, now: float) -> tuple[list[bytes], int | None]:
    """Return unexpired evidence behind an id, up to a page of it, and the id to go on from; none at the end."""
    rows = connection.execute(
        "SELECT id, expires, size, crc FROM evidence WHERE id > ? ORDER BY id LIMIT ?", (after, PAGE_ROWS)
    ).fetchall()
    found = []
    for identity, expires, size, crc in rows:
        if expires > now:
            row = content.Suspect("evidence", identity, _EXPIRES.pack(expires), crc, 0, size)
            if (data := content.read(connection, row, now)) is not None:
                found.append(data)
    return found, rows[-1][0] if len(rows) == PAGE_ROWS else None


def expire(connection: sqlite3.Connection, now: float) -> bool:
    """Delete a chunk of what has expired, and tell whether there may be more."""
    ids = connection.execute("SELECT id FROM evidence WHERE expires <= ? LIMIT ?", (now, EXPIRE_ROWS)).fetchall()
    connection.executemany("DELETE FROM evidence WHERE id = ?", ids)
    connection.executemany("DELETE FROM content WHERE id = ?", ids)
    return len(ids) == EXPIRE_ROWS
