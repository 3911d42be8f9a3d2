"""
How much goes in: the quota of the database file, and the room that is kept free on the volume.

Both are asked before an insert, by arithmetic. Deletes and moves are not asked: what they need stays in reserve,
because on a volume that is really full even a DELETE fails. SQLite's own page limit stands behind the reserve.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from enricher.storage.errors import StoreFullError

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

HEADROOM_BYTES: Final = 64 << 20
LEAST_PAGES: Final = 64
"""The tables take some 20 pages empty."""
WRITTEN_TWICE: Final = 2
"""What is inserted goes to the write-ahead log first."""


def free_bytes(directory: Path) -> int:
    """Return what this user can still write on the directory's volume."""
    volume = os.statvfs(directory)
    return volume.f_bavail * volume.f_frsize


class Quota:
    """Says whether a row may go in. Belongs to the writer's thread."""

    def __init__(self, directory: Path, max_size_bytes: int) -> None:
        self.max_bytes = max_size_bytes
        self._directory = directory
        # A small store on a small volume cannot leave 64 MiB free.
        self._headroom = min(HEADROOM_BYTES, max_size_bytes // 8)
        self._page_bytes = self._insert_pages = self._free = 0

    def attach(self, connection: sqlite3.Connection) -> None:
        """Take the database's page size, and tell SQLite the most pages it may have."""
        (self._page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        most = max(LEAST_PAGES, self.max_bytes // self._page_bytes)
        connection.execute(f"PRAGMA max_page_count = {most}")
        self._insert_pages = most - min(128, max(16, most // 32))

    def look(self) -> None:
        """Take the volume's free space as it is now; once for each group of operations is enough."""
        self._free = free_bytes(self._directory) - self._headroom

    def admit(self, connection: sqlite3.Connection, growth: int) -> None:
        """Return if `growth` more bytes may go in; raises `StoreFullError`."""
        need = growth * WRITTEN_TWICE
        if need > self._free:
            raise StoreFullError(
                f"{self._directory}: {need} bytes would leave less than {self._headroom} free on the volume; free space"
            )
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (unused,) = connection.execute("PRAGMA freelist_count").fetchone()
        # A page holds some bytes less than its size, and each tree may begin a new one.
        if pages - unused + growth // (self._page_bytes - 64) + 4 > self._insert_pages:
            raise StoreFullError(
                f"{self._directory}: {growth} bytes do not fit into the {self.max_bytes} of storage.max_size_mib; "
                "raise it, or wait for the queue to drain"
            )
        self._free -= need
