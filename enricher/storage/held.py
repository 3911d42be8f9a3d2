"""
Held spans: taken in, read back at start, and moved to the queue.

Functions that run inside a transaction, on the writer's thread.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from enricher.storage import batches, content
from enricher.storage.rows import HeldSpan

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from enricher.storage.rows import Batch

PAGE_ROWS: Final = 500
PAGE_BYTES: Final = 4 << 20
"""A page of held spans ends with the row that reaches either, so that nobody waits long behind its reading."""

_SIZES: Final = struct.Struct("<8I")
_DUE: Final = struct.Struct("<d")


def pack(span: HeldSpan) -> bytes:
    """Return the fields but `due` as one string of bytes: their eight sizes, then they themselves."""
    fields = span[1:]
    return b"".join((_SIZES.pack(*map(len, fields)), *fields))


def unpack(due: float, data: bytes) -> HeldSpan:
    """Return what was packed; only for bytes whose CRC was right."""
    fields = []
    at = _SIZES.size
    for size in _SIZES.unpack_from(data):
        fields.append(data[at : at + size])
        at += size
    return HeldSpan(due, *fields)


def hold(connection: sqlite3.Connection, spans: Sequence[HeldSpan]) -> list[int]:
    """Take spans in and return their ids in the same order."""
    ids = []
    for span in spans:
        data = pack(span)
        identity = content.add(connection, data)
        crc = content.checksum(_DUE.pack(span.due), data)
        connection.execute(
            "INSERT INTO held (id, due, size, crc) VALUES (?, ?, ?, ?)", (identity, span.due, len(data), crc)
        )
        ids.append(identity)
    return ids


def page(connection: sqlite3.Connection, after: int, now: float) -> tuple[list[tuple[int, HeldSpan]], int | None]:
    """Return the held spans behind an id, up to a page of them, and the id to go on from; none at the end."""
    rows = connection.execute(
        "SELECT id, due, size, crc FROM held WHERE id > ? ORDER BY id LIMIT ?", (after, PAGE_ROWS)
    ).fetchall()
    found: list[tuple[int, HeldSpan]] = []
    seen_bytes = 0
    for identity, due, size, crc in rows:
        data = content.read(connection, content.Suspect("held", identity, _DUE.pack(due), crc, 1, size), now)
        if data is not None:
            found.append((identity, unpack(due, data)))
        seen_bytes += size
        if seen_bytes >= PAGE_BYTES:
            return found, identity
    return found, rows[-1][0] if len(rows) == PAGE_ROWS else None


def release(connection: sqlite3.Connection, ids: Sequence[int], moved: Sequence[Batch], now: float) -> list[int] | None:
    """
    Delete held spans and queue what was made of them; return the batches' ids.

    None, and nothing is done, if one of them is not held any more: somebody else has released it (F34).
    """
    wanted = list(dict.fromkeys(ids))
    for identity in wanted:
        if connection.execute("SELECT 1 FROM held WHERE id = ?", (identity,)).fetchone() is None:
            return None
    for identity in wanted:
        connection.execute("DELETE FROM held WHERE id = ?", (identity,))
        content.remove(connection, identity)
    return batches.enqueue(connection, moved, now)
