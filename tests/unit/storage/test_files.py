"""The files beside the database: nothing is overwritten, and whoever comes second is told who was first."""

import os
import stat

import pytest

from enricher.errors import EnricherError
from enricher.storage import files
from enricher.storage.files import Sentinel

NOW = 1_700_000_000.0


def a_sentinel(**fields):
    return Sentinel(**{"store": "s", "generation": 1, "state": "open", "held": 1, "queued": 2, "dead": 3, **fields})


def a_set(directory, content):
    database = directory / files.DATABASE
    database.write_bytes(content)
    for suffix in ("-wal", "-shm"):
        (directory / (files.DATABASE + suffix)).write_bytes(content + suffix.encode())
    return database


def test_f31_the_second_lock_names_the_first_holder(tmp_path):
    descriptor = files.lock(tmp_path)
    with pytest.raises(EnricherError, match=f"{tmp_path} is in use by process {os.getpid()};"):
        files.lock(tmp_path)
    os.close(descriptor)

    os.close(files.lock(tmp_path))


def test_f27_a_set_that_is_put_aside_is_still_a_set_and_overwrites_none(tmp_path):
    """SQLite finds a journal by the database's name, so the suffix stays last."""
    first = files.set_aside(a_set(tmp_path, b"one"), NOW)
    second = files.set_aside(a_set(tmp_path, b"two"), NOW)

    base = f"{files.DATABASE}.corrupt-20231114T221320Z"
    assert sorted(path.name for path in first) == [base, base + "-shm", base + "-wal"]
    assert sorted(path.name for path in second) == [base + "-2", base + "-2-shm", base + "-2-wal"]
    assert [path.read_bytes() for path in sorted(first)] == [b"one", b"one-shm", b"one-wal"]
    assert not list(tmp_path.glob(files.DATABASE))


def test_the_sentinel_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / files.SENTINEL
    files.write_sentinel(path, a_sentinel(size=4096, mtime_ns=5))

    assert files.read_sentinel(path) == a_sentinel(size=4096, mtime_ns=5)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert a_sentinel().rows == 6


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"store": 1}', b"\xff"])
def test_a_sentinel_that_cannot_be_read_is_none(tmp_path, content):
    path = tmp_path / files.SENTINEL
    path.write_bytes(content)

    assert files.read_sentinel(path) is None


def test_a_sentinel_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / files.SENTINEL
    files.write_sentinel(path, a_sentinel())
    path.with_suffix(".new").mkdir()
    with pytest.raises(OSError, match="directory"):
        files.write_sentinel(path, a_sentinel(held=9))

    assert files.read_sentinel(path) == a_sentinel()


def test_a_database_that_others_could_read_becomes_private(tmp_path):
    path = tmp_path / files.DATABASE
    path.write_bytes(b"content")
    path.chmod(0o644)
    files.make_private(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == b"content"
