"""What the store makes of a directory that something happened to: rows of the fault matrix, each by its number."""

import asyncio
import contextlib
import os
import shutil
import sqlite3
import subprocess

import pytest

from enricher.storage import Batch, HeldSpan, Store, StoreError, StoreFullError, files, quota, schema

NOW = 1_700_000_000.0
MIB = 1 << 20
WAL = files.DATABASE + "-wal"


def a_span(number):
    return HeldSpan(NOW, bytes([number]) * 16, bytes([number]) * 8, b"", b"", b"", b"", bytes([number]) * 200, b"")


def a_batch(number, size=300):
    return Batch("default", "traces", bytes([number]) * size, number)


async def opened(directory, **options):
    store = Store(directory, **{"max_size_bytes": 16 * MIB, "clock": lambda: NOW, **options})
    return store, await store.open()


async def bodies(store, limit=1000):
    return [each.body for each in await store.claim("default", NOW, limit, 60)]


async def a_crash(store, directory, target):
    """Copy the files as a process that dies now would leave them, and close the store."""
    # On the writer's thread, so that no upkeep writes meanwhile.
    await store._do(lambda _: shutil.copytree(directory, target))
    await store.close()


def damage_in_content(data):
    """Spoil the header of a page that nothing reads at start but the check."""
    start = data.index(b"\7" * 1000) // schema.PAGE_BYTES * schema.PAGE_BYTES
    return data[:start] + b"\xff" * 8 + data[start + 8 :]


@contextlib.contextmanager
def a_small_volume(path, size):
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no volume can be mounted here: {mounted.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


async def test_f24_deletes_and_moves_work_on_a_store_that_is_full_to_the_last_page(tmp_path):
    store, _ = await opened(tmp_path, max_size_bytes=2 * MIB)
    (held,) = await store.hold([a_span(9)])
    rows = []
    with pytest.raises(StoreFullError):  # noqa: PT012 - it is full after some of them
        while True:
            rows += await store.enqueue([a_batch(1, 5_000)])

    assert await store.release([held], [a_batch(2)])
    (first, *_) = await store.claim("default", NOW, len(rows), 60)
    assert await store.split(first.id, [a_batch(1, 2_500), a_batch(1, 2_500)])
    assert await store.bury(rows[1], "refused", 3)
    assert await store.confirm(rows[2:])
    assert await store.drop([rows[1]]) == 1
    assert await store.enqueue([a_batch(3, 5_000)])
    counts = await store.counts()
    assert counts.file_bytes <= counts.max_bytes
    await store.close()


async def test_f25_what_was_acknowledged_before_the_volume_was_full_is_there_after_it(tmp_path, monkeypatch):
    # The arithmetic would refuse in time; here somebody else has taken the room since.
    monkeypatch.setattr(quota, "free_bytes", lambda _: 1 << 40)
    with a_small_volume(tmp_path / "volume", "4m") as volume:
        ballast = volume / "ballast"
        ballast.write_bytes(bytes(MIB))
        directory = volume / "data"
        store, _ = await opened(directory, max_size_bytes=64 * MIB)
        rows = []
        with pytest.raises(StoreFullError):  # noqa: PT012 - it is full after some of them
            while True:
                rows += await store.enqueue([a_batch(len(rows) % 250, 20_000)])
        with contextlib.suppress(StoreFullError):
            await store.hold([a_span(1)])
        await store.close()

        store, found = await opened(directory, max_size_bytes=64 * MIB)
        assert (found.queued, found.set_aside, found.lost_rows) == (len(rows), (), 0)
        ballast.unlink()
        assert await store.enqueue([a_batch(251, 20_000)])
        expected = [a_batch(number % 250, 20_000).body for number in range(len(rows))] + [a_batch(251, 20_000).body]
        assert await bodies(store) == expected
        await store.close()
        with contextlib.closing(sqlite3.connect(directory / files.DATABASE)) as connection:
            # Without shared memory, for which there is no room.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_f25_the_headroom_is_refused_before_the_volume_is_full(tmp_path, monkeypatch):
    store, _ = await opened(tmp_path, max_size_bytes=1 << 30)
    (row,) = await store.enqueue([a_batch(1)])
    monkeypatch.setattr(quota, "free_bytes", lambda _: quota.HEADROOM_BYTES)
    with pytest.raises(StoreFullError, match="free on the volume"):
        await store.enqueue([a_batch(2)])

    await store.claim("default", NOW, 1, 60)
    assert await store.confirm([row])
    await store.close()


async def test_f26_a_database_that_became_read_only_takes_nothing_and_says_so(tmp_path):
    refused = False

    class Connection(sqlite3.Connection):
        def execute(self, sql, *args):
            if refused and sql.startswith("INSERT"):
                raise sqlite3.OperationalError("attempt to write a readonly database")
            return super().execute(sql, *args)

    store, _ = await opened(
        tmp_path, connect=lambda path: sqlite3.connect(path, isolation_level=None, factory=Connection)
    )
    await store.hold([a_span(1)])
    refused = True
    with pytest.raises(StoreError, match="readonly"):
        await store.hold([a_span(2)])

    assert [span for _, span in await store.held()] == [a_span(1)]
    await store.close()


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"this is a text file\n" * 400,
        lambda data: data[:50],
        lambda data: data[: len(data) // 2],
        lambda data: data[: len(data) // 3],
        lambda data: os.urandom(100) + data[100:],
        lambda data: data[: 2 * schema.PAGE_BYTES] + os.urandom(4 * schema.PAGE_BYTES) + data[6 * schema.PAGE_BYTES :],
        damage_in_content,
    ],
    ids=["text", "50 bytes", "half", "a third", "header", "pages", "content"],
)
async def test_f27_a_damaged_database_is_kept_under_another_name_and_counted_as_lost(tmp_path, damage):
    store, _ = await opened(tmp_path)
    await store.enqueue([a_batch(n, 4_000) for n in range(40)])
    await store.close()
    database = tmp_path / files.DATABASE
    damaged = damage(database.read_bytes())
    database.write_bytes(damaged)

    store, found = await opened(tmp_path)
    (kept,) = [path for path in found.set_aside if not path.name.endswith(files.JOURNALS)]
    assert kept.read_bytes() == damaged
    assert (found.lost_rows, found.queued, len(found.problems)) == (40, 0, 2)
    assert str(kept) in found.problems[0]
    await store.enqueue([a_batch(1)])
    await store.close()
    store, found = await opened(tmp_path)
    assert (found.queued, found.problems) == (1, ())
    await store.close()


async def test_f27_the_write_ahead_log_of_a_damaged_database_is_kept_with_it(tmp_path):
    store, _ = await opened(tmp_path / "before")
    await store.enqueue([a_batch(n) for n in range(10)])
    await a_crash(store, tmp_path / "before", tmp_path / "after")
    log = (tmp_path / "after" / WAL).read_bytes()
    assert log
    (tmp_path / "after" / files.DATABASE).write_bytes(b"no database" * 1000)

    store, found = await opened(tmp_path / "after")
    assert {path.name.rpartition("Z")[2]: path.read_bytes() for path in found.set_aside}["-wal"] == log
    await store.close()


async def test_f19_a_recovery_that_was_killed_half_way_is_done_again(tmp_path):
    """The log was already renamed when the process died, and the damaged database was not."""
    store, _ = await opened(tmp_path)
    await store.enqueue([a_batch(1)])
    await store.close()
    (tmp_path / f"{files.DATABASE}.corrupt-20231114T221320Z-wal").write_bytes(b"log")
    (tmp_path / files.DATABASE).write_bytes(b"no database")

    store, found = await opened(tmp_path)
    assert [path.name for path in found.set_aside] == [f"{files.DATABASE}.corrupt-20231114T221320Z-2"]
    assert (tmp_path / f"{files.DATABASE}.corrupt-20231114T221320Z-wal").read_bytes() == b"log"
    await store.close()


async def test_f28_a_database_that_is_missing_is_a_loss(tmp_path):
    store, _ = await opened(tmp_path)
    await store.hold([a_span(1)])
    await store.enqueue([a_batch(1), a_batch(2)])
    await store.close()
    (tmp_path / files.DATABASE).unlink()

    store, found = await opened(tmp_path)
    assert found.lost_rows == 3
    assert "lost" in found.problems[0]
    await store.close()


async def test_f28_another_store_in_its_place_is_a_loss(tmp_path):
    for name in ("one", "two"):
        store, _ = await opened(tmp_path / name)
        await store.enqueue([a_batch(1)] * (3 if name == "one" else 1))
        await store.close()
    shutil.copy(tmp_path / "two" / files.DATABASE, tmp_path / "one" / files.DATABASE)

    store, found = await opened(tmp_path / "one")
    assert (found.lost_rows, found.queued) == (3, 1)
    assert found.problems
    await store.close()


async def test_f28_an_older_copy_of_itself_is_reported(tmp_path):
    store, _ = await opened(tmp_path)
    await store.enqueue([a_batch(1)])
    await store.close()
    copy = (tmp_path / files.DATABASE).read_bytes()
    store, _ = await opened(tmp_path)
    await store.enqueue([a_batch(2)])
    await store.close()
    (tmp_path / files.DATABASE).write_bytes(copy)

    store, found = await opened(tmp_path)
    assert (found.lost_rows, found.queued) == (1, 1)
    assert "older state" in found.problems[0]
    await store.close()


async def test_f28_rows_that_somebody_deleted_are_missed(tmp_path):
    store, _ = await opened(tmp_path)
    await store.enqueue([a_batch(1), a_batch(2)])
    await store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / files.DATABASE)) as connection, connection:
        connection.execute("DELETE FROM batch")

    store, found = await opened(tmp_path)
    assert found.lost_rows == 2
    await store.close()


async def test_f28_an_empty_store_that_is_deleted_lost_nothing(tmp_path):
    store, _ = await opened(tmp_path)
    await store.close()
    (tmp_path / files.DATABASE).unlink()

    store, found = await opened(tmp_path)
    assert (found.lost_rows, found.problems) == (0, ())
    await store.close()


async def test_f28_a_sentinel_that_cannot_be_read_is_reported_and_made_anew(tmp_path):
    store, _ = await opened(tmp_path)
    await store.enqueue([a_batch(1)])
    await store.close()
    (tmp_path / files.SENTINEL).write_bytes(b"garbage")

    store, found = await opened(tmp_path)
    assert (found.queued, len(found.problems)) == (1, 1)
    await store.close()
    assert files.read_sentinel(tmp_path / files.SENTINEL).queued == 1


async def test_f30_a_write_ahead_log_that_is_gone_is_reported(tmp_path):
    store, _ = await opened(tmp_path / "before")
    await store.enqueue([a_batch(1)])
    await a_crash(store, tmp_path / "before", tmp_path / "after")
    (tmp_path / "after" / WAL).unlink()

    store, found = await opened(tmp_path / "after")
    assert (found.queued, len(found.problems), found.set_aside) == (0, 1, ())
    assert await store.enqueue([a_batch(2)])
    await store.close()


@pytest.mark.parametrize("part", [0.3, 0.5, 0.8, 0.95])
async def test_f30_of_a_write_ahead_log_that_was_cut_the_commits_before_the_cut_are_there(tmp_path, part):
    store, _ = await opened(tmp_path / "before")
    for number in range(20):
        await store.enqueue([a_batch(number, 3_000)])
    await a_crash(store, tmp_path / "before", tmp_path / "after")
    log = tmp_path / "after" / WAL
    os.truncate(log, int(log.stat().st_size * part))

    store, found = await opened(tmp_path / "after")
    present = await bodies(store)
    assert present == [a_batch(number, 3_000).body for number in range(len(present))]
    assert 0 < len(present) == found.queued < 20
    await store.close()


async def test_f18_what_a_crash_left_is_all_there_and_nothing_is_reported(tmp_path):
    store, _ = await opened(tmp_path / "before")
    (held,) = await store.hold([a_span(1)])
    await store.enqueue([a_batch(1), a_batch(2)])
    await store.claim("default", NOW, 1, 60)
    await a_crash(store, tmp_path / "before", tmp_path / "after")

    store, found = await opened(tmp_path / "after")
    assert (found.held, found.queued, found.requeued, found.was_clean, found.problems) == (1, 2, 1, False, ())
    assert await store.held() == [(held, a_span(1))]
    assert await bodies(store) == [a_batch(1).body, a_batch(2).body]
    await store.close()


async def test_f32_a_wait_that_the_clock_made_too_long_ends_with_a_restart(tmp_path):
    store, _ = await opened(tmp_path)
    await store.enqueue([a_batch(1)])
    (claimed,) = await store.claim("default", NOW, 1, 60)
    await store.retry(claimed.id, NOW + 30)
    await store.close()
    yesterday = NOW - 86_400

    store, _ = await opened(tmp_path, clock=lambda: yesterday)
    assert not await store.claim("default", yesterday + 60, 1, 60)
    assert await store.claim("default", yesterday + 3600, 1, 60)
    await store.close()


async def test_f48_a_store_of_an_older_version_is_migrated_with_all_it_holds(tmp_path, monkeypatch):
    store, _ = await opened(tmp_path)
    await store.hold([a_span(1)])
    await store.enqueue([a_batch(1)])
    await store.close()
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, "ALTER TABLE held ADD COLUMN note TEXT"))
    monkeypatch.setattr(schema.migrate, "__defaults__", (schema.MIGRATIONS,))

    store, found = await opened(tmp_path)
    assert (found.held, found.queued, found.problems) == (1, 1, ())
    assert [span for _, span in await store.held()] == [a_span(1)]
    await store.close()


async def test_whoever_stops_waiting_does_not_stop_the_commit(tmp_path):
    store, _ = await opened(tmp_path)
    waiting = asyncio.create_task(store.hold([a_span(1)]))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert [span for _, span in await store.held()] == [a_span(1)]
    await store.close()


async def test_what_was_asked_before_the_close_is_done(tmp_path):
    store, _ = await opened(tmp_path)
    waiting = [asyncio.create_task(store.enqueue([a_batch(n)])) for n in range(50)]
    await asyncio.sleep(0)
    await store.close()
    rows = [row for (row,) in await asyncio.gather(*waiting)]

    assert rows == sorted(rows)
    store, found = await opened(tmp_path)
    assert found.queued == 50
    await store.close()


async def test_operations_of_one_moment_are_committed_in_the_order_they_were_asked(tmp_path):
    store, _ = await opened(tmp_path)
    await asyncio.gather(*(store.enqueue([a_batch(n % 250)]) for n in range(600)))

    assert await bodies(store) == [a_batch(n % 250).body for n in range(600)]
    await store.close()
