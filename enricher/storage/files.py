"""
The files of a store beside its database: the lock, the sentinel, and what was set aside.

The sentinel is a note outside the database of what is inside, so that a database which was emptied, replaced or cut to
nothing is not taken for an empty one (F28).
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from enricher.errors import EnricherError

DATABASE, LOCK, SENTINEL = "store.db", "store.lock", "store.json"
JOURNALS = ("-wal", "-shm", "-journal")
"""What SQLite adds to a database's name for the files that belong to it."""


@dataclass(frozen=True, slots=True)
class Sentinel:
    """
    What the database held when this was written.

    `open` is written now and then while the store is in use, `closed` at the end, `suspect` at the end of a store that
    had met a fault; the numbers of these two are exact.
    """

    store: str
    generation: int
    state: Literal["open", "closed", "suspect"]
    held: int
    queued: int
    dead: int
    size: int = 0
    mtime_ns: int = 0
    """With `size`, how the database was left: a file that differs is checked."""

    @property
    def rows(self) -> int:
        """All rows whose loss would lose spans."""
        return self.held + self.queued + self.dead


def lock(directory: Path) -> int:
    """
    Return the descriptor that holds the directory for this process; closing it lets go.

    Raises `EnricherError` where another store has it, and `OSError` where there can be no lock.
    """
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise EnricherError(
            f"{directory} is in use by process {holder or '(unknown)'}; stop that one, or give each instance a "
            "storage.directory of its own"
        ) from None
    except OSError:
        os.close(descriptor)
        raise
    with suppress(OSError):
        # On a full volume the lock holds all the same, only without a name.
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    return descriptor


def read_sentinel(path: Path) -> Sentinel | None:
    """Return the sentinel, or none where there is none or it cannot be read."""
    try:
        found = Sentinel(**json.loads(path.read_bytes()))
        return found if found.rows >= 0 and isinstance(found.store, str) else None
    except (OSError, ValueError, TypeError):
        return None


def write_sentinel(path: Path, sentinel: Sentinel) -> None:
    """Replace the sentinel as a whole. Raises `OSError`; the old one stands then."""
    new = path.with_suffix(".new")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123 - the mode
            file.write(json.dumps(asdict(sentinel)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise
    sync_directory(path.parent)


def make_private(path: Path) -> None:
    """Let the file exist, empty if it is new, for nobody but this user. SQLite gives its journals the same mode."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if os.fstat(descriptor).st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    sync_directory(path.parent)


def set_aside(database: Path, now: float) -> list[Path]:
    """
    Rename a database and its journals to `*.corrupt-<time>`, still as one set, and return the new names.

    Nothing is deleted or overwritten. The journals go first: a process that dies in between leaves a database that is
    found corrupt again, not a journal that a new database would swallow.
    """
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    target, number = database.with_name(f"{database.name}.corrupt-{stamp}"), 1
    while any(_exists(target, suffix) for suffix in ("", *JOURNALS)):
        number += 1
        target = database.with_name(f"{database.name}.corrupt-{stamp}-{number}")
    moved = []
    for suffix in (*JOURNALS, ""):
        if _exists(database, suffix):
            new = Path(f"{target}{suffix}")
            Path(f"{database}{suffix}").rename(new)
            moved.append(new)
    sync_directory(database.parent)
    return moved


def size(path: Path) -> int:
    """Return the file's size in bytes, 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def sync_directory(directory: Path) -> None:
    """Make renames and new names in the directory last."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exists(path: Path, suffix: str) -> bool:
    return Path(f"{path}{suffix}").exists()
