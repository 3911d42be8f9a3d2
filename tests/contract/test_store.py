"""The durable store: what it promises to whoever acknowledges because of it."""

import asyncio
import json
import os
import sqlite3
import stat
import subprocess
import sys

import pytest

from enricher.errors import EnricherError
from enricher.storage import Batch, HeldSpan, Store, StoreError, StoreFullError, schema
from enricher.storage.files import DATABASE, SENTINEL

NOW = 1_700_000_000.0


def a_held_span(number=1, size=100):
    return HeldSpan(
        NOW, bytes([number]) * 16, bytes([number]) * 8, b"resource", b"", b"scope", b"url", b"x" * size, b""
    )


def a_batch(number=1, size=100):
    return Batch("default", "traces", bytes([number]) * size, number)


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


async def opened(directory, **options):
    store = Store(directory, **{"max_size_bytes": 16 << 20, "clock": Clock(), **options})
    store.recovery = await store.open()
    return store


async def claimed(store, limit=10):
    return await store.claim("default", store.clock(), limit, 60)


async def test_what_is_held_is_there_after_a_restart_byte_for_byte(tmp_path):
    store = await opened(tmp_path)
    spans = [a_held_span(n) for n in (1, 2, 3)]
    ids = await store.hold(spans)
    await store.close()
    store = await opened(tmp_path)

    assert await store.held() == list(zip(ids, spans, strict=True))
    assert (store.recovery.held, store.recovery.was_clean, store.recovery.problems) == (3, True, ())
    await store.close()


async def test_f34_a_release_moves_all_or_nothing_and_only_once(tmp_path):
    store = await opened(tmp_path)
    first, second = await store.hold([a_held_span(1), a_held_span(2)])

    assert await store.release([first], [a_batch(1)])
    assert await store.release([first, second], [a_batch(2)]) is None
    assert [each.body for each in await claimed(store)] == [a_batch(1).body]
    assert [row for row, _ in await store.held()] == [second]
    await store.close()


async def test_batches_come_oldest_first_and_keep_their_bytes_through_retries(tmp_path):
    store = await opened(tmp_path)
    await store.enqueue([a_batch(1), a_batch(2)])
    (first,) = await claimed(store, 1)
    assert (first.body, first.attempt) == (a_batch(1).body, 1)

    assert await store.retry(first.id, NOW + 5)
    assert [each.body for each in await claimed(store)] == [a_batch(2).body]
    store.clock.now += 5
    (again,) = await claimed(store)

    assert (again.body, again.attempt) == (first.body, 2)
    await store.close()


async def test_a_change_names_the_state_it_leaves(tmp_path):
    store = await opened(tmp_path)
    (row,) = await store.enqueue([a_batch()])

    assert not await store.confirm([row])
    assert not await store.retry(row, NOW)
    await claimed(store)
    assert await store.confirm([row])
    assert not await store.bury(row, "no", 3)
    await store.close()


async def test_f18_claimed_batches_are_queued_again_after_a_restart(tmp_path):
    store = await opened(tmp_path)
    await store.enqueue([a_batch()])
    await claimed(store)
    await store.close()
    store = await opened(tmp_path)

    assert store.recovery.requeued == 1
    assert len(await claimed(store)) == 1
    await store.close()


async def test_dead_letters_are_kept_shown_and_sent_again(tmp_path):
    store = await opened(tmp_path)
    await store.enqueue([a_batch(3)])
    (batch,) = await claimed(store)
    await store.bury(batch.id, "refused", 3)
    ((dead, body),) = [await store.show(each.id) for each in await store.dead(10)]

    assert (dead.reason, dead.code, dead.items, body) == ("refused", 3, 3, a_batch(3).body)
    assert await store.resend([dead.id]) == 1
    assert [each.body for each in await claimed(store)] == [body]
    await store.close()


async def test_f24_a_full_store_refuses_and_takes_again_when_it_has_drained(tmp_path):
    store = await opened(tmp_path, max_size_bytes=2 << 20)
    with pytest.raises(StoreFullError, match="max_size_mib"):  # noqa: PT012 - it is full after some of them
        for _ in range(1000):
            await store.enqueue([a_batch(size=50_000)])
    taken = await claimed(store, 1000)
    assert len(taken) > 10
    assert await store.confirm([each.id for each in taken])

    await store.enqueue([a_batch(size=50_000)])
    await store.close()


async def test_one_that_does_not_fit_costs_its_neighbours_nothing(tmp_path):
    store = await opened(tmp_path, max_size_bytes=2 << 20)
    results = await asyncio.gather(
        store.enqueue([a_batch(1)]),
        store.enqueue([a_batch(2, 4 << 20)]),
        store.enqueue([a_batch(3)]),
        return_exceptions=True,
    )

    assert [isinstance(each, StoreFullError) for each in results] == [False, True, False]
    assert [each.items for each in await claimed(store)] == [1, 3]
    await store.close()


async def test_f26_a_commit_that_fails_fails_whoever_waits_and_the_next_one_may_work(tmp_path):
    broken = False

    class Connection(sqlite3.Connection):
        def execute(self, sql, *args):
            if broken and sql == "COMMIT":
                raise sqlite3.OperationalError("disk I/O error")
            return super().execute(sql, *args)

    def connect(path):
        return sqlite3.connect(path, isolation_level=None, factory=Connection)

    store = await opened(tmp_path, connect=connect)
    broken = True
    with pytest.raises(StoreError, match="disk I/O error"):
        await store.hold([a_held_span()])
    broken = False

    assert await store.held() == []
    await store.hold([a_held_span()])
    await store.close()


@pytest.mark.parametrize("content", [b"no database at all", b"SQLite format 3\0" + b"\xff" * 5000])
async def test_f27_what_is_no_database_is_set_aside_and_reported(tmp_path, content):
    (tmp_path / DATABASE).write_bytes(content)
    store = await opened(tmp_path)

    assert [path.read_bytes() for path in store.recovery.set_aside if path.exists()][:1] == [content]
    assert store.recovery.problems
    await store.hold([a_held_span()])
    await store.close()


async def test_f28_an_emptied_database_is_a_loss_and_no_empty_one(tmp_path):
    store = await opened(tmp_path)
    await store.hold([a_held_span(1), a_held_span(2)])
    await store.close()
    (tmp_path / DATABASE).write_bytes(b"")
    store = await opened(tmp_path)

    assert store.recovery.lost_rows == 2
    assert store.recovery.problems
    await store.close()


async def test_f29_a_row_whose_bytes_changed_is_never_delivered_and_the_others_are(tmp_path):
    store = await opened(tmp_path)
    await store.enqueue([a_batch(1, 300), a_batch(2, 300), a_batch(3, 300)])
    await store.close()
    data = (tmp_path / DATABASE).read_bytes()
    (tmp_path / DATABASE).write_bytes(data.replace(b"\2" * 300, b"\2" * 299 + b"\7"))
    store = await opened(tmp_path)

    assert [each.items for each in await claimed(store)] == [1, 3]
    assert (await store.counts()).quarantined.rows == 1
    await store.close()


async def test_f31_a_second_process_is_told_who_has_the_directory(tmp_path):
    store = await opened(tmp_path)
    code = (
        "import asyncio, pathlib, sys\n"
        "from enricher.storage import Store\n"
        "from enricher.errors import EnricherError\n"
        "try: asyncio.run(Store(pathlib.Path(sys.argv[1]), max_size_bytes=1 << 24).open())\n"
        "except EnricherError as error: print(error); sys.exit(7)\n"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 7
    assert f"in use by process {os.getpid()}" in done.stdout
    await store.hold([a_held_span()])
    await store.close()


async def test_f48_a_database_of_a_newer_version_is_left_alone(tmp_path):
    store = await opened(tmp_path)
    await store.hold([a_held_span()])
    await store.close()
    with sqlite3.connect(tmp_path / DATABASE) as connection:
        connection.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
    connection.close()
    before = (tmp_path / DATABASE).read_bytes()

    with pytest.raises(EnricherError, match="newer version"):
        await opened(tmp_path)
    assert (tmp_path / DATABASE).read_bytes() == before


async def test_files_are_for_this_user_alone(tmp_path):
    store = await opened(tmp_path / "data")
    await store.hold([a_held_span()])

    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    for path in (tmp_path / "data").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await store.close()


async def test_evidence_is_recalled_until_it_expires(tmp_path):
    store = await opened(tmp_path)
    store.remember([(NOW + 10, b"soon"), (NOW + 100, b"later")])
    await store.close()
    store = await opened(tmp_path)

    assert await store.recall(NOW) == [b"soon", b"later"]
    assert await store.recall(NOW + 50) == [b"later"]
    await store.close()


async def test_whoever_calls_a_closed_store_is_told(tmp_path):
    store = Store(tmp_path, max_size_bytes=1 << 24)
    await store.close()
    with pytest.raises(StoreError, match="not open"):
        await store.hold([a_held_span()])
    store = await opened(tmp_path)
    await store.close()
    await store.close()
    with pytest.raises(StoreError):
        await store.hold([a_held_span()])


async def test_f44_a_writer_that_ends_is_told_to_everybody_who_waits(tmp_path, monkeypatch):
    store = await opened(tmp_path)

    def end(*_):
        raise SystemExit

    monkeypatch.setattr("enricher.storage.held.hold", end)
    results = await asyncio.gather(*(store.hold([a_held_span()]) for _ in range(3)), return_exceptions=True)

    assert all(isinstance(each, StoreError) for each in results)
    assert not store.healthy
    assert "SystemExit" in store.reason
    await store.close()


async def test_the_sentinel_says_what_was_left(tmp_path):
    store = await opened(tmp_path)
    await store.hold([a_held_span()])
    await store.enqueue([a_batch(), a_batch()])
    await store.close()
    note = json.loads((tmp_path / SENTINEL).read_bytes())

    assert (note["state"], note["held"], note["queued"], note["dead"]) == ("closed", 1, 2, 0)
