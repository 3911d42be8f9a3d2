"""
Batches: the queue of each destination, and those that were refused for good.

    enqueue ─▶ queued ──claim──▶ claimed ──confirm──▶ (deleted)
                 ▲ ▲                │ ├──split────▶ (deleted, its parts queued)
                 │ └─retry, lease───┘ └──bury─────▶ dead ──drop──▶ (deleted)
                 └─────────────────resend────────────┘

Every change names the state it leaves, so that a late caller cannot revive or delete what is no longer its own.
Functions that run inside a transaction, on the writer's thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from enricher.storage import content
from enricher.storage.rows import DeadBatch, QueuedBatch, QueueStats

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from enricher.storage.rows import Batch

_DEAD_COLUMNS = "id, destination, signal, items, size, attempt, created, buried, reason, code"


def enqueue(
    connection: sqlite3.Connection, batches: Iterable[Batch], now: float, *, leased_until: float = 0.0
) -> list[int]:
    """
    Take batches in, due at once, and return their ids in the same order.

    With `leased_until` they are claimed from the start: whoever brings them is sending them already.
    """
    ids = []
    state, attempt = ("claimed", 1) if leased_until else ("queued", 0)
    for destination, signal, body, items in batches:
        identity = content.add(connection, body)
        crc = content.checksum(_head(destination, signal, items), body)
        connection.execute(
            "INSERT INTO batch (id, destination, signal, items, size, crc, created, state, attempt, next_try)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (identity, destination, signal, items, len(body), crc, now, state, attempt, leased_until),
        )
        ids.append(identity)
    return ids


def claim(
    connection: sqlite3.Connection, destination: str, now: float, limit: int, lease_seconds: float
) -> list[QueuedBatch]:
    """Return up to `limit` batches that are due, oldest first, and nobody else gets them until the lease ends."""
    connection.execute(
        "UPDATE batch SET state = 'queued', next_try = 0 WHERE destination = ? AND state = 'claimed' AND next_try <= ?",
        (destination, now),
    )
    claimed: list[QueuedBatch] = []
    while len(claimed) < limit:
        rows = connection.execute(
            "SELECT id, signal, items, size, crc, attempt, created FROM batch"
            " WHERE destination = ? AND state = 'queued' AND next_try <= ? ORDER BY id LIMIT ?",
            (destination, now, limit - len(claimed)),
        ).fetchall()
        if not rows:
            break
        for identity, signal, items, size, crc, attempt, created in rows:
            row = content.Suspect("batch", identity, _head(destination, signal, items), crc, items, size)
            body = content.read(connection, row, now)
            if body is None:
                continue
            connection.execute(
                "UPDATE batch SET state = 'claimed', attempt = attempt + 1, next_try = ? WHERE id = ?",
                (now + lease_seconds, identity),
            )
            claimed.append(QueuedBatch(identity, destination, signal, body, items, attempt + 1, created))
    return claimed


def confirm(connection: sqlite3.Connection, ids: Sequence[int]) -> bool:
    """Delete batches that were delivered; false if one of them was not claimed, and that one is left alone."""
    return _delete(connection, ids, "claimed") == len(ids)


def retry(connection: sqlite3.Connection, identity: int, next_try: float) -> bool:
    """Put a claimed batch back, due at `next_try`."""
    changed = connection.execute(
        "UPDATE batch SET state = 'queued', next_try = ? WHERE id = ? AND state = 'claimed'", (next_try, identity)
    )
    return changed.rowcount == 1


def bury(connection: sqlite3.Connection, identity: int, reason: str, code: int, now: float) -> bool:
    """Keep a claimed batch among the dead; it is not delivered unless somebody resends it."""
    changed = connection.execute(
        "UPDATE batch SET state = 'dead', reason = ?, code = ?, buried = ? WHERE id = ? AND state = 'claimed'",
        (reason, code, now, identity),
    )
    return changed.rowcount == 1


def split(connection: sqlite3.Connection, identity: int, parts: Iterable[Batch]) -> bool:
    """Queue the parts in place of a claimed batch; they keep its age."""
    found = connection.execute("SELECT created FROM batch WHERE id = ? AND state = 'claimed'", (identity,)).fetchone()
    if found is None:
        return False
    # First, so that the parts may take its room.
    _delete(connection, [identity], "claimed")
    enqueue(connection, parts, found[0])
    return True


def stats(connection: sqlite3.Connection, destination: str) -> QueueStats:
    """Return what waits for a destination."""
    rows, items, size = connection.execute(
        "SELECT coalesce(sum(rows), 0), coalesce(sum(items), 0), coalesce(sum(bytes), 0) FROM totals"
        " WHERE kind = 'queue' AND destination = ?",
        (destination,),
    ).fetchone()
    oldest = [
        created
        for state in ("queued", "claimed")
        for (created,) in connection.execute(
            "SELECT created FROM batch WHERE destination = ? AND state = ? ORDER BY id LIMIT 1", (destination, state)
        )
    ]
    return QueueStats(rows, items, size, min(oldest, default=None))


def dead(connection: sqlite3.Connection, limit: int, after: int) -> list[DeadBatch]:
    """Return dead batches behind an id, oldest first."""
    rows = connection.execute(
        f"SELECT {_DEAD_COLUMNS} FROM batch WHERE state = 'dead' AND id > ? ORDER BY id LIMIT ?",  # noqa: S608 - columns
        (after, limit),
    )
    return [DeadBatch(*row) for row in rows]


def show(connection: sqlite3.Connection, identity: int, now: float) -> tuple[DeadBatch, bytes] | None:
    """Return a dead batch and its body; none where there is none, or none that can be read."""
    found = connection.execute(
        f"SELECT {_DEAD_COLUMNS}, crc FROM batch WHERE id = ? AND state = 'dead'",  # noqa: S608 - columns
        (identity,),
    ).fetchone()
    if found is None:
        return None
    batch, crc = DeadBatch(*found[:-1]), found[-1]
    head = _head(batch.destination, batch.signal, batch.items)
    body = content.read(connection, content.Suspect("batch", identity, head, crc, batch.items, batch.bytes), now)
    return None if body is None else (batch, body)


def resend(connection: sqlite3.Connection, ids: Iterable[int]) -> int:
    """Queue dead batches anew, due at once and with no try counted; return how many there were."""
    return sum(
        connection.execute(
            "UPDATE batch SET state = 'queued', attempt = 0, next_try = 0, reason = '', code = 0, buried = 0"
            " WHERE id = ? AND state = 'dead'",
            (identity,),
        ).rowcount
        for identity in ids
    )


def drop(connection: sqlite3.Connection, ids: Iterable[int]) -> int:
    """Delete dead batches for good; return how many there were."""
    return _delete(connection, ids, "dead")


def _delete(connection: sqlite3.Connection, ids: Iterable[int], state: str) -> int:
    deleted = 0
    for identity in ids:
        if connection.execute("DELETE FROM batch WHERE id = ? AND state = ?", (identity, state)).rowcount:
            content.remove(connection, identity)
            deleted += 1
    return deleted


def _head(destination: str, signal: str, items: int) -> bytes:
    return f"{destination}\0{signal}\0{items}".encode()
