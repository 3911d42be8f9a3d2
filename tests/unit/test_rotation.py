"""A value that follows its files: looked at seldom, never lost to a file that is wrong."""

import os
import threading

import pytest
from structlog.testing import capture_logs

from enricher.errors import EnricherError
from enricher.rotation import Rotating


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "token"
    file.write_text("first")
    return file


def reading(file, **settings):
    def make():
        text = file.read_text() if file.exists() else ""
        if not text:
            raise EnricherError("nothing in it")
        return [text]

    return Rotating("a.key", [file], make, **settings)


def test_a_change_is_seen_at_the_next_look_and_not_before(file):
    clock = Clock()
    rotating = reading(file, every=10.0, clock=clock)
    before = rotating.get()
    file.write_text("second, longer")

    clock.now = 9.9
    assert rotating.get() is before
    clock.now = 10.0
    assert rotating.get() == ["second, longer"]


def test_the_value_stays_the_same_object_while_nothing_changes(file):
    clock = Clock()
    rotating = reading(file, every=1.0, clock=clock)
    before = rotating.get()
    clock.now = 100.0

    assert rotating.get() is before


def test_a_link_that_is_turned_is_a_change(tmp_path, file):
    """As a mounted secret of Kubernetes changes: the file's own name stays."""
    other = tmp_path / "other"
    other.write_text("other")
    link = tmp_path / "link"
    link.symlink_to(file)
    clock = Clock()
    rotating = reading(link, every=1.0, clock=clock)
    rotating.get()
    turned = tmp_path / "turned"
    turned.symlink_to(other)
    turned.rename(link)
    clock.now = 1.0

    assert rotating.get() == ["other"]


def test_without_an_interval_only_a_reload_reads_again(file):
    rotating = reading(file)
    before = rotating.get()
    file.write_text("second, longer")

    assert rotating.get() is before
    assert rotating.reload()
    assert rotating.get() == ["second, longer"]


def test_a_reload_reads_what_looks_unchanged(file):
    """A file of the same size and time, which no look would notice."""
    rotating = reading(file, every=1.0)
    rotating.get()
    stat = file.stat()
    file.write_text("FIRST")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    rotating.reload()

    assert rotating.get() == ["FIRST"]


@pytest.mark.parametrize("broken", ["empty", "gone"])
def test_a_file_that_cannot_be_used_leaves_the_old_value_is_told_once_and_heals(file, broken):
    clock = Clock()
    rotating = reading(file, every=1.0, clock=clock)
    rotating.get()
    file.write_text("") if broken == "empty" else file.unlink()
    with capture_logs() as logs:
        for now in (1.0, 2.0, 3.0):
            clock.now = now
            assert rotating.get() == ["first"]
    file.write_text("healed")
    clock.now = 4.0

    assert rotating.get() == ["healed"]
    assert [(line["log_level"], line["error"]) for line in logs] == [("error", "nothing in it")]


def test_the_first_value_is_needed(tmp_path):
    with pytest.raises(EnricherError, match="nothing in it"):
        reading(tmp_path / "none").get()


def test_without_files_nothing_is_read_again():
    made = []
    rotating = Rotating("a.key", [], lambda: made.append(1), every=0.0)
    rotating.get()
    rotating.get()

    assert rotating.reload()
    assert made == [1]


def test_a_thread_that_comes_while_another_reads_gets_a_whole_value(file):
    """grpc asks from threads of its own."""
    rotating = reading(file, every=0.0)
    rotating.get()
    seen = []
    threads = [threading.Thread(target=lambda: seen.extend(rotating.get() for _ in range(200))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(50):
        fresh = file.with_suffix(".new")
        fresh.write_text("x" * (number + 1))
        fresh.rename(file)
    for thread in threads:
        thread.join()

    assert len(seen) == 800
    assert all(value == ["first"] or set(value[0]) == {"x"} for value in seen)
