"""Groups: everybody is answered, and what fails costs its neighbours nothing, however SQLite or the disk fails."""

import asyncio
import contextlib
import sqlite3
import time

import pytest

from enricher.storage import Batch, HeldSpan, Store, StoreError, StoreFullError, files, schema, session, thread
from enricher.storage.quota import Quota
from enricher.storage.session import Session

NOW = 1_700_000_000.0
MIB = 1 << 20


def a_span(number=1):
    return HeldSpan(NOW, b"t" * 16, b"s" * 8, b"", b"", b"", b"", bytes([number]) * 200, b"")


def a_batch(number=1, size=300):
    return Batch("default", "traces", bytes([number]) * size, number)


async def opened(directory, **options):
    store = Store(directory, **{"max_size_bytes": 2 * MIB, "clock": lambda: NOW, **options})
    return store, await store.open()


def failing(*statements):
    """Return a way to connect and a set: statements put into it fail from then on."""
    broken = set(statements)

    class Connection(sqlite3.Connection):
        def execute(self, sql, *args):
            if sql in broken:
                raise sqlite3.OperationalError("disk I/O error")
            return super().execute(sql, *args)

    return (lambda path: sqlite3.connect(path, isolation_level=None, factory=Connection)), broken


@contextlib.contextmanager
def a_session(directory, clock=lambda: NOW, connect=schema.connect):
    made = Session(
        directory / files.DATABASE, Quota(directory, 64 * MIB), synchronous="full", clock=clock, connect=connect
    )
    made.open()
    yield made
    made.close(is_sound=True)


def enqueue_and_delete(opened_session, size):
    with_rows = "INSERT INTO content (data) VALUES (zeroblob(?))"
    opened_session.begin()
    for _ in range(size // MIB):
        opened_session.connection.execute(with_rows, (MIB,))
    opened_session.commit()
    opened_session.begin()
    opened_session.connection.execute("DELETE FROM content")
    opened_session.commit()


def pages(opened_session):
    return opened_session.connection.execute("PRAGMA page_count").fetchone()[0]


@pytest.mark.parametrize("limit", [1, 3, thread.GROUP_OPERATIONS])
async def test_everybody_is_answered_when_more_wait_than_a_group_takes(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(thread, "GROUP_OPERATIONS", limit)
    # Else a slow machine ends its groups for another reason.
    monkeypatch.setattr(thread, "GROUP_SECONDS", 60.0)
    store, _ = await opened(tmp_path)
    async with asyncio.timeout(30):
        rows = await asyncio.gather(*(store.enqueue([a_batch()]) for _ in range(2 * limit + 1)))

    assert (await store.counts()).queued.rows == len(rows)
    await store.close()


async def test_everybody_is_answered_when_a_group_takes_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(thread, "GROUP_SECONDS", -1.0)
    store, _ = await opened(tmp_path)
    async with asyncio.timeout(30):
        rows = await asyncio.gather(*(store.enqueue([a_batch()]) for _ in range(20)))

    assert len(rows) == 20
    await store.close()


async def test_f24_an_operation_for_which_sqlite_takes_back_the_transaction_costs_no_neighbour(tmp_path):
    """A move is not asked for its size, so here SQLite itself finds no room, and rolls back what was before it too."""
    store, _ = await opened(tmp_path)
    (claimed,) = await store.enqueue([a_batch(1)])
    held = await store.hold([a_span()])
    await store.claim("default", NOW, 1, 60)
    results = await asyncio.gather(
        store.confirm([claimed]),
        store.enqueue([a_batch(2)]),
        store.release(held, [a_batch(3, 4 * MIB)]),
        store.enqueue([a_batch(4)]),
        return_exceptions=True,
    )

    assert results[0] is True
    assert [type(each) for each in results] == [bool, list, StoreFullError, list]
    assert [each.items for each in await store.claim("default", NOW, 10, 60)] == [2, 4]
    assert [row for row, _ in await store.held()] == held
    await store.close()


async def test_f26_whoever_waits_is_answered_when_even_the_rollback_fails(tmp_path):
    connect, broken = failing()
    store, _ = await opened(tmp_path, connect=connect)
    broken |= {"COMMIT", "ROLLBACK"}
    async with asyncio.timeout(30):
        results = await asyncio.gather(*(store.hold([a_span()]) for _ in range(5)), return_exceptions=True)
        broken.clear()
        # The transaction that could not be ended keeps this one from beginning.
        with pytest.raises(StoreError):
            await store.hold([a_span()])
        assert await store.held() == []

    assert [type(each) for each in results] == [StoreError] * 5
    assert len({id(each) for each in results}) == 5
    await store.close()


async def test_f26_a_disk_that_fails_makes_the_store_unhealthy_until_something_is_written(tmp_path):
    connect, broken = failing()
    store, _ = await opened(tmp_path, connect=connect)
    broken.add("COMMIT")
    with pytest.raises(StoreError):
        await store.hold([a_span()])
    assert not store.healthy
    assert "disk I/O error" in store.reason
    broken.clear()
    await store.counts()
    assert not store.healthy

    await store.hold([a_span()])
    assert (store.healthy, store.reason) == (True, "")
    await store.close()


def test_f26_a_store_that_nobody_asks_finds_out_that_the_disk_is_well_again(tmp_path):
    """A stage that is not healthy gets no requests, and would never be asked."""
    connect, broken = failing()
    with a_session(tmp_path, connect=connect) as opened_session:
        broken.add("COMMIT")
        opened_session.failed(sqlite3.OperationalError("disk I/O error"))
        opened_session.upkeep(is_idle=True)
        assert opened_session.fault
        assert opened_session.patience() == session.IDLE_SECONDS
        broken.clear()

        opened_session.upkeep(is_idle=True)
        assert not opened_session.fault


async def test_f24_a_full_store_is_healthy(tmp_path):
    store, _ = await opened(tmp_path)
    with pytest.raises(StoreFullError):
        await store.enqueue([a_batch(1, 4 * MIB)])

    assert store.healthy
    await store.close()


async def test_a_mistake_in_a_call_is_told_without_what_was_to_be_written_and_is_no_fault_of_the_disk(tmp_path):
    store, _ = await opened(tmp_path)
    with pytest.raises(StoreError) as raised:
        await store.enqueue([Batch("default", "traces", "secret text", 1)])
    with pytest.raises(StoreError):
        await store.hold([a_span()._replace(due=float("nan"))])

    assert "secret" not in str(raised.value)
    assert store.healthy
    await store.close()


async def test_f44_after_the_writer_has_ended_nothing_waits_for_ever_and_nothing_is_missing(tmp_path, monkeypatch):
    store, _ = await opened(tmp_path)
    await store.enqueue([a_batch(1)])

    def end(*_):
        raise SystemExit

    monkeypatch.setattr("enricher.storage.held.hold", end)
    async with asyncio.timeout(30):
        results = await asyncio.gather(
            *(store.hold([a_span()]) for _ in range(3)),
            *(store.enqueue([a_batch(2)]) for _ in range(300)),
            return_exceptions=True,
        )
        with pytest.raises(StoreError, match="SystemExit"):
            await store.counts()
    await store.close()
    assert {type(each) for each in results} == {StoreError}

    store, found = await opened(tmp_path)
    assert (found.queued, found.lost_rows, found.problems, found.was_clean) == (1, 0, (), False)
    await store.close()


async def test_a_volume_that_cannot_be_looked_at_fails_the_group_and_not_the_writer(tmp_path, monkeypatch):
    store, _ = await opened(tmp_path)

    def fail(_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("enricher.storage.quota.free_bytes", fail)
        with pytest.raises(StoreError, match="Input/output error"):
            await store.hold([a_span()])

    assert await store.hold([a_span()])
    await store.close()


def test_upkeep_gives_back_the_pages_that_were_freed(tmp_path):
    with a_session(tmp_path) as opened_session:
        enqueue_and_delete(opened_session, 16 * MIB)
        large = pages(opened_session)
        while opened_session.upkeep(is_idle=True):
            pass

        assert pages(opened_session) < large // 4
        assert opened_session.patience() == session.REST_SECONDS


def test_upkeep_takes_its_turn_though_something_always_waits(tmp_path, monkeypatch):
    """Under lasting load evidence expires too, and the sentinel does not grow old (F28)."""
    monkeypatch.setattr(session, "BUSY_SECONDS", -1.0)
    with a_session(tmp_path) as opened_session:
        opened_session.begin()
        opened_session.connection.execute("INSERT INTO content VALUES (1, x'00'), (2, x'00')")
        opened_session.connection.execute("INSERT INTO held VALUES (1, 0, 1, 0)")
        opened_session.connection.execute("INSERT INTO evidence VALUES (2, 0, 1, 0)")
        opened_session.commit()
        opened_session.upkeep(is_idle=False)

        assert opened_session.connection.execute("SELECT count(*) FROM evidence").fetchone() == (0,)
        assert files.read_sentinel(tmp_path / files.SENTINEL).held == 1


def test_upkeep_does_nothing_between_its_turns(tmp_path, monkeypatch):
    with a_session(tmp_path) as opened_session:
        monkeypatch.setattr(opened_session, "_tidy", pytest.fail)
        assert opened_session._turn > time.monotonic()

        assert not opened_session.upkeep(is_idle=False)


def test_an_upkeep_that_fails_is_told_and_tried_again(tmp_path):
    connect, broken = failing()
    with a_session(tmp_path, connect=connect) as opened_session:
        broken.add("BEGIN")
        assert not opened_session.upkeep(is_idle=True)
        assert opened_session.fault
        broken.clear()

        opened_session.upkeep(is_idle=True)
        assert not opened_session.fault


def test_f26_where_nothing_is_written_it_is_tried_whether_anything_can_be(tmp_path):
    """A stage whose downstream takes everything at once has to learn that the volume became read-only."""
    connect, broken = failing()
    with a_session(tmp_path, connect=connect) as opened_session:
        opened_session.upkeep(is_idle=True)
        broken.add("UPDATE meta SET probe = probe + 1")
        opened_session.upkeep(is_idle=True)
        assert opened_session.fault
        broken.clear()

        opened_session.upkeep(is_idle=True)
        assert not opened_session.fault


def test_evidence_is_looked_at_now_and_then_though_nothing_happens(tmp_path):
    with a_session(tmp_path) as opened_session:
        opened_session.begin()
        opened_session.connection.execute("INSERT INTO content VALUES (2, x'00')")
        opened_session.connection.execute("INSERT INTO evidence VALUES (2, ?, 1, 0)", (NOW + 1,))
        opened_session.commit()
        opened_session.upkeep(is_idle=True)

        assert opened_session.patience() == session.REST_SECONDS


async def test_an_operation_that_fails_half_way_leaves_nothing_and_costs_no_neighbour(tmp_path):
    store, _ = await opened(tmp_path)

    def half(connection):
        connection.execute("INSERT INTO content (data) VALUES (x'00')")
        connection.execute("DELETE FROM batch")
        raise ValueError

    results = await asyncio.gather(
        store.enqueue([a_batch(1)]), store._do(half), store.enqueue([a_batch(2)]), return_exceptions=True
    )

    assert [type(each) for each in results] == [list, StoreError, list]
    assert [each.items for each in await store.claim("default", NOW, 10, 60)] == [1, 2]
    assert await store._do(lambda connection: connection.execute("SELECT count(*) FROM content").fetchone()) == (2,)
    await store.close()
