"""Rows whose bytes are not those that were written go to quarantine, whatever was to be read (F29)."""

import contextlib
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enricher.storage import batches, content, evidence, held, schema
from enricher.storage.rows import Batch, HeldSpan

NOW = 1_700_000_000.0


@pytest.fixture
def connection():
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as opened:
        schema.migrate(opened, 0)
        schema.count(opened)
        yield opened


def a_span(number=1):
    return HeldSpan(NOW + number, b"t" * 16, b"s" * 8, b"resource", b"", b"scope", b"url", bytes([number]) * 50, b"")


def flip(connection, identity, at=60):
    (data,) = connection.execute("SELECT data FROM content WHERE id = ?", (identity,)).fetchone()
    at = min(at, len(data) - 1)
    changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    connection.execute("UPDATE content SET data = ? WHERE id = ?", (changed, identity))


def quarantined(connection):
    return connection.execute("SELECT id, origin, items FROM quarantine").fetchall()


def test_f29_a_held_span(connection):
    spans = [a_span(n) for n in (1, 2, 3)]
    first, second, third = held.hold(connection, spans)
    flip(connection, second)

    assert held.page(connection, 0, NOW) == ([(first, spans[0]), (third, spans[2])], None)
    assert quarantined(connection) == [(second, "held", 1)]


def test_f29_the_deadline_of_a_held_span(connection):
    (row,) = held.hold(connection, [a_span()])
    connection.execute("UPDATE held SET due = due + 86400")

    assert held.page(connection, 0, NOW) == ([], None)
    assert quarantined(connection) == [(row, "held", 1)]


@pytest.mark.parametrize("column", ["signal = 'logs'", "items = items + 1", "crc = crc + 1"])
def test_f29_what_stands_beside_a_batch(connection, column):
    (row,) = batches.enqueue(connection, [Batch("d", "traces", b"body", 7)], NOW)
    connection.execute(f"UPDATE batch SET {column}")

    assert batches.claim(connection, "d", NOW, 10, 60) == []
    assert [identity for identity, _, _ in quarantined(connection)] == [row]


def test_f29_a_claim_is_filled_up_with_good_batches(connection):
    rows = batches.enqueue(connection, [Batch("d", "traces", bytes([n]) * 80, n) for n in range(6)], NOW)
    for row in rows[:3]:
        flip(connection, row)

    assert [each.id for each in batches.claim(connection, "d", NOW, 3, 60)] == rows[3:]
    assert len(quarantined(connection)) == 3


def test_f29_a_dead_batch(connection):
    (row,) = batches.enqueue(connection, [Batch("d", "traces", b"body" * 20, 7)], NOW)
    batches.claim(connection, "d", NOW, 1, 60)
    batches.bury(connection, row, "refused", 3, NOW)
    flip(connection, row)

    assert batches.show(connection, row, NOW) is None
    assert batches.dead(connection, 10, 0) == []
    assert quarantined(connection) == [(row, "batch", 7)]


def test_f29_evidence_counts_as_no_item(connection):
    evidence.remember(connection, [(NOW + 5, b"a" * 80), (NOW + 5, b"b" * 80)], 1000)
    (bad, _), *_ = connection.execute("SELECT id, size FROM evidence ORDER BY id").fetchall()
    flip(connection, bad)

    assert evidence.page(connection, 0, NOW) == ([b"b" * 80], None)
    assert quarantined(connection) == [(bad, "evidence", 0)]


def test_f29_content_that_is_gone(connection):
    (row,) = batches.enqueue(connection, [Batch("d", "traces", b"body", 7)], NOW)
    content.remove(connection, row)

    assert batches.claim(connection, "d", NOW, 1, 60) == []
    assert quarantined(connection) == [(row, "batch", 7)]


def test_evidence_takes_no_more_than_its_share(connection):
    assert evidence.remember(connection, [(NOW, b"x" * 40)] * 5, 100) == 3
    assert evidence.remember(connection, [(NOW, b"x" * 40)], 100) == 1


def test_evidence_expires_in_chunks(connection):
    evidence.remember(connection, [(NOW - 1, b"x")] * (evidence.EXPIRE_ROWS + 1) + [(NOW + 1, b"y")], 10_000)

    assert evidence.expire(connection, NOW)
    assert not evidence.expire(connection, NOW)
    assert connection.execute("SELECT count(*) FROM content").fetchone() == (1,)


@given(
    st.builds(
        HeldSpan,
        st.floats(allow_nan=False, allow_infinity=False),
        *[st.binary(max_size=40)] * 8,
    )
)
def test_a_held_span_is_packed_without_loss(span):
    assert held.unpack(span.due, held.pack(span)) == span
