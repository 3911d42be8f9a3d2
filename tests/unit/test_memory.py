"""What the process does about its memory, seen in what Linux says of a mapped file."""

import ctypes
import mmap
from pathlib import Path

import pytest

from enricher.memory import give_back_pages_of_libraries

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells what is resident")

SIZE = 64 * mmap.PAGESIZE


def mapped(path, protection):
    path.write_bytes(b"as in the file" * (SIZE // 14 + 1))
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), SIZE, flags=mmap.MAP_PRIVATE, prot=protection)


def resident_kib(path):
    lines = Path("/proc/self/smaps").read_text().splitlines()
    header = next(number for number, line in enumerate(lines) if line.endswith(str(path)))
    return next(int(line.split()[1]) for line in lines[header:] if line.startswith("Rss:"))


def test_unchanged_pages_are_given_back_and_come_back_as_they_were(tmp_path):
    path = tmp_path / "library"
    with mapped(path, mmap.PROT_READ) as area:
        before = area[:]
        assert resident_kib(path) == SIZE >> 10

        give_back_pages_of_libraries()

        assert resident_kib(path) == 0
        assert area[:] == before


@pytest.mark.parametrize("is_protected", [False, True], ids=["writable", "read-only since, as relocations are"])
def test_pages_that_were_written_on_keep_what_was_written(tmp_path, is_protected):
    with mapped(tmp_path / "library", mmap.PROT_READ | mmap.PROT_WRITE) as area:
        area[:7] = b"changed"
        if is_protected:
            view = ctypes.c_char.from_buffer(area)
            start = ctypes.addressof(view)
            del view
            assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(start), ctypes.c_size_t(SIZE), mmap.PROT_READ) == 0

        give_back_pages_of_libraries()

        assert area[:7] == b"changed"


def test_a_system_that_does_not_tell_what_is_mapped_is_left_alone(monkeypatch):
    def unreadable(*_, **__):
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", unreadable)
        give_back_pages_of_libraries()
