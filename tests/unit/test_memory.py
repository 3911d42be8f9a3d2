"""What the process does about its memory, seen in what Linux says of a mapped file."""

import ctypes
import mmap
from pathlib import Path

import pytest

from enricher.memory import areas_of_libraries, give_back_pages

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells what is resident")

SIZE = 64 * mmap.PAGESIZE


def mapped(path, protection):
    path.write_bytes(b"as in the file" * (SIZE // 14 + 1))
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), SIZE, flags=mmap.MAP_PRIVATE, prot=protection)


def resident_kib(path):
    lines = Path("/proc/self/smaps").read_bytes().decode().split("\n")
    header = next(number for number, line in enumerate(lines) if line.endswith(str(path)))
    return next(int(line.split()[1]) for line in lines[header:] if line.startswith("Rss:"))


@pytest.mark.parametrize("name", ["library", "a library", "a\rb", "a\x0cb", "a\x85b", "a\u2028b"], ids=ascii)
def test_unchanged_pages_are_given_back_and_come_back_as_they_were(tmp_path, name):
    path = tmp_path / name
    with mapped(path, mmap.PROT_READ) as area:
        before = area[:]
        assert resident_kib(path) == SIZE >> 10

        give_back_pages(areas_of_libraries())

        assert resident_kib(path) == 0
        assert area[:] == before


def test_what_was_mapped_since_the_look_is_left_alone(tmp_path):
    areas = areas_of_libraries()
    path = tmp_path / "library"
    with mapped(path, mmap.PROT_READ) as area:
        assert area[:]

        give_back_pages(areas)

        assert resident_kib(path) == SIZE >> 10


@pytest.mark.parametrize("is_protected", [False, True], ids=["writable", "read-only since, as relocations are"])
def test_pages_that_were_written_on_keep_what_was_written(tmp_path, is_protected):
    with mapped(tmp_path / "library", mmap.PROT_READ | mmap.PROT_WRITE) as area:
        area[:7] = b"changed"
        if is_protected:
            view = ctypes.c_char.from_buffer(area)
            start = ctypes.addressof(view)
            del view
            assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(start), ctypes.c_size_t(SIZE), mmap.PROT_READ) == 0

        give_back_pages(areas_of_libraries())

        assert area[:7] == b"changed"


@pytest.mark.parametrize(
    ("told", "is_given_back"),
    [
        ({}, True),
        ({"Anonymous": 4}, False),
        ({"Swap": 4}, False),
        ({"Private_Hugetlb": 2048}, False),
    ],
    ids=["unchanged", "changed", "changed, and in swap since", "huge pages"],
)
def test_pages_that_were_written_on_are_kept_wherever_they_are_now(monkeypatch, told, is_given_back):
    advised = []

    class Library:
        def __init__(self, _):
            self.madvise = lambda *advice: advised.append(advice)

    told = {"Rss": 16, "Anonymous": 0, "Private_Hugetlb": 0, "Swap": 0} | told
    lines = ["7f0000000000-7f0000004000 r--p 00001000 08:01 1234 /usr/lib/library.so"]
    lines += [f"{name}: {kib:10} kB" for name, kib in told.items()]
    monkeypatch.setattr(Path, "read_bytes", lambda _: "\n".join([*lines, "VmFlags: rd mr mw me"]).encode())
    monkeypatch.setattr(ctypes, "CDLL", Library)

    give_back_pages(areas_of_libraries())

    assert advised == ([(0x7F0000000000, 0x4000, 4)] if is_given_back else [])


def test_a_system_that_does_not_tell_what_is_mapped_is_left_alone(monkeypatch):
    def unreadable(*_, **__):
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", unreadable)
        assert areas_of_libraries() == frozenset()
        give_back_pages(frozenset({(0, mmap.PAGESIZE)}))
