"""What a store that did not do what it was asked raises, named by what the caller must do next."""

from __future__ import annotations

import sqlite3
import traceback

from enricher.errors import EnricherError


class StoreError(EnricherError):
    """
    The store did not do it: the disk failed, is read-only, the file is damaged, the writer ended, or it is closed.

    Acknowledge nothing that depended on the operation; the caller's client may try again.
    """


class StoreFullError(StoreError):
    """Nothing more goes in: the quota, the room that is kept free on the volume, or the volume itself. Deletes work."""


DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
"""SQLite's codes for a file that is not, or is no longer, a database."""


def primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's result code without its extension; 0 for an error that Python's module found itself."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def from_sqlite(error: sqlite3.Error, where: str) -> StoreError:
    """Return what to raise in place of SQLite's error; `where` is the database's path."""
    name: str = getattr(error, "sqlite_errorname", type(error).__name__)
    if primary_code(error) == sqlite3.SQLITE_FULL:
        return StoreFullError(
            f"{where}: no room ({name}): its quota or the volume is full; it takes rows again when the queue has "
            "drained, storage.max_size_mib is raised or space is freed"
        )
    return StoreError(f"{where}: {error} ({name}); see that the volume is healthy and writable")


def where(error: BaseException) -> str:
    """Return the places an error passed, for the log: without its text and the variables, which may hold payloads."""
    return " < ".join(
        f"{frame.filename}:{frame.lineno}" for frame in reversed(traceback.extract_tb(error.__traceback__))
    )
