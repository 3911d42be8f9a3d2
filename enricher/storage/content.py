"""
The bytes behind every row, and the check that they are the ones which were written (F29).

Functions that run inside a transaction, on the writer's thread.
"""

from __future__ import annotations

import sqlite3
import zlib
from typing import NamedTuple, cast

from enricher.storage.errors import DAMAGED, primary_code


class Suspect(NamedTuple):
    """A row whose content is to be read: where it is, and the columns beside the content that its CRC covers."""

    table: str
    id: int
    head: bytes
    crc: int
    items: int
    size: int


def checksum(head: bytes, data: bytes) -> int:
    """Return the CRC-32 of a row: `head` is what of its columns must not change."""
    return zlib.crc32(data, zlib.crc32(head))


def add(connection: sqlite3.Connection, data: bytes) -> int:
    """Store the bytes and return the id that their row takes."""
    return cast("int", connection.execute("INSERT INTO content (data) VALUES (?)", (data,)).lastrowid)


def remove(connection: sqlite3.Connection, identity: int) -> None:
    """Delete the bytes; their row is the caller's."""
    connection.execute("DELETE FROM content WHERE id = ?", (identity,))


def read(connection: sqlite3.Connection, row: Suspect, now: float) -> bytes | None:
    """
    Return the row's bytes, or none after moving the row to quarantine because they are not what was written.

    The bytes stay where they are: where they cannot be read they could not be moved either.
    """
    try:
        found = connection.execute("SELECT data FROM content WHERE id = ?", (row.id,)).fetchone()
    except sqlite3.DatabaseError as error:
        if primary_code(error) not in DAMAGED:
            raise
        found = None
    if found and isinstance(found[0], bytes) and checksum(row.head, found[0]) == row.crc:
        return found[0]
    connection.execute(
        "INSERT INTO quarantine (id, origin, items, size, found) VALUES (?, ?, ?, ?, ?)",
        (row.id, row.table, row.items, row.size, now),
    )
    connection.execute(f"DELETE FROM {row.table} WHERE id = ?", (row.id,))  # noqa: S608 - a name from this package
    return None
