"""What goes in: never more than the quota, and never the last of the volume."""

import contextlib
import sqlite3

import pytest

from enricher.storage import quota, schema
from enricher.storage.errors import StoreFullError
from enricher.storage.quota import HEADROOM_BYTES, Quota

MIB = 1 << 20


@pytest.fixture
def connection():
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as opened:
        opened.execute(f"PRAGMA page_size = {schema.PAGE_BYTES}")
        schema.migrate(opened, 0)
        yield opened


def a_quota(connection, directory, max_size_bytes):
    made = Quota(directory, max_size_bytes)
    made.attach(connection)
    made.look()
    return made


def test_f24_what_fits_goes_in_and_what_does_not_is_named(connection, tmp_path):
    limit = a_quota(connection, tmp_path, 16 * MIB)
    limit.admit(connection, 8 * MIB)

    with pytest.raises(StoreFullError, match=r"storage\.max_size_mib"):
        limit.admit(connection, 16 * MIB)


def test_f24_sqlite_keeps_to_the_whole_of_the_quota(connection, tmp_path):
    """The reserve between what inserts may take and this is for deletes and moves."""
    a_quota(connection, tmp_path, 16 * MIB)

    assert connection.execute("PRAGMA max_page_count").fetchone() == (16 * MIB // schema.PAGE_BYTES,)


def test_f25_the_headroom_stays_free_and_a_group_shares_what_is_above_it(connection, tmp_path, monkeypatch):
    monkeypatch.setattr(quota, "free_bytes", lambda _: HEADROOM_BYTES + 4 * MIB)
    limit = a_quota(connection, tmp_path, 1 << 30)
    limit.admit(connection, MIB)
    limit.admit(connection, MIB)
    with pytest.raises(StoreFullError, match="free on the volume"):
        limit.admit(connection, MIB)
    limit.look()

    limit.admit(connection, MIB)


def test_a_small_store_leaves_less_free(connection, tmp_path, monkeypatch):
    monkeypatch.setattr(quota, "free_bytes", lambda _: 3 * MIB)

    a_quota(connection, tmp_path, 8 * MIB).admit(connection, MIB // 2)
