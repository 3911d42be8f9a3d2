"""The schema's history: forwards by whole steps, never backwards, and nobody else's database is touched (F48)."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from enricher.errors import EnricherError
from enricher.storage import content, schema

PATH = Path("store.db")
NEXT = "ALTER TABLE held ADD COLUMN priority INTEGER NOT NULL DEFAULT 5"


@pytest.fixture
def connection():
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as opened:
        yield opened


def a_held_row(connection):
    identity = content.add(connection, b"x")
    connection.execute("INSERT INTO held VALUES (?, 1.0, 1, 0)", (identity,))


def test_f48_an_older_schema_is_brought_forward_with_its_rows(connection):
    schema.migrate(connection, 0)
    a_held_row(connection)
    schema.migrate(connection, len(schema.MIGRATIONS), (*schema.MIGRATIONS, NEXT))

    assert connection.execute("SELECT due, priority FROM held").fetchall() == [(1.0, 5)]
    assert connection.execute("PRAGMA user_version").fetchone() == (len(schema.MIGRATIONS) + 1,)


def test_f48_a_step_that_fails_leaves_the_schema_before_it(connection):
    schema.migrate(connection, 0)
    a_held_row(connection)
    with pytest.raises(sqlite3.OperationalError):
        schema.migrate(connection, len(schema.MIGRATIONS), (*schema.MIGRATIONS, f"{NEXT}; SELECT nothing"))

    assert connection.execute("SELECT * FROM held").fetchall() == [(1, 1.0, 1, 0)]
    assert schema.version(connection, PATH) == len(schema.MIGRATIONS)
    assert not connection.in_transaction


def test_f48_a_newer_schema_is_refused_by_both_numbers(connection):
    newer = len(schema.MIGRATIONS) + 1
    schema.migrate(connection, 0, (*schema.MIGRATIONS, NEXT))

    with pytest.raises(EnricherError, match=rf"has schema {newer}, .* up to {newer - 1}"):
        schema.version(connection, PATH)


def test_a_database_of_another_program_is_refused(connection):
    connection.execute("CREATE TABLE theirs (x)")

    with pytest.raises(EnricherError, match="another program"):
        schema.version(connection, PATH)


def test_an_empty_database_has_version_zero(connection):
    assert schema.version(connection, PATH) == 0


def test_ids_are_not_used_twice_although_the_rows_are_gone(connection):
    """A late `confirm` must not hit another row."""
    schema.migrate(connection, 0)
    first = content.add(connection, b"x")
    content.remove(connection, first)

    assert content.add(connection, b"x") > first


def test_totals_are_counted_at_open_and_kept_by_every_change(connection):
    schema.migrate(connection, 0)
    a_held_row(connection)
    schema.count(connection)
    a_held_row(connection)
    connection.execute(
        "INSERT INTO batch (id, destination, signal, items, size, crc, created, state, attempt, next_try)"
        " VALUES (9, 'd', 'traces', 7, 70, 0, 0, 'queued', 0, 0)"
    )
    connection.execute("UPDATE batch SET state = 'claimed'")
    connection.execute("UPDATE batch SET state = 'dead'")
    connection.execute("BEGIN")
    connection.execute("DELETE FROM held")
    connection.execute("ROLLBACK")

    assert dict(connection.execute("SELECT kind, rows FROM totals")) == {
        "held": 2,
        "evidence": 0,
        "quarantine": 0,
        "queue": 0,
        "dead": 1,
    }
    assert connection.execute("SELECT items, bytes FROM totals WHERE kind = 'dead'").fetchone() == (7, 70)
