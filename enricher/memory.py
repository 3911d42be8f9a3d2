"""Settings of the process under which a request costs what its work costs."""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
MADV_DONTNEED = 4
KEPT_BYTES = 8 << 20
MAPPED_FROM_BYTES = 4 << 20
ARENAS = 4


def keep_freed_memory() -> None:
    """
    Tell glibc to keep a few MiB of freed memory instead of handing it back at once.

    By default each buffer above 128 KiB is mapped and unmapped: a 450 KiB request then costs some 300 page faults
    and 0.65 ms of kernel time a copy, ten times the copy itself (decision 0003). Four heaps at most for all threads,
    since each keeps what was freed in it. Other C libraries have no such knobs and are left alone.
    """
    if not sys.platform.startswith("linux"):
        return
    if (mallopt := _of_c_library("mallopt")) is None:
        return
    mallopt(M_MMAP_THRESHOLD, MAPPED_FROM_BYTES)
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
    mallopt(M_ARENA_MAX, ARENAS)


def look_for_garbage_seldom() -> None:
    """
    Let the collector pass over what the program itself is made of, and look less often at what requests leave.

    Requests leave no cycles, only counts: by default every few of them start a walk through some 100,000 objects
    that live as long as the process.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)


def areas_of_libraries() -> frozenset[tuple[int, int]]:
    """
    Return where libraries are mapped and as they are in their files; nothing where the system does not tell.

    To be asked while there is one thread: another one may be loading a library, and what is mapped for that only.
    """
    try:
        return frozenset(_unchanged(Path("/proc/self/smaps").read_bytes()))
    except OSError:
        return frozenset()  # not Linux, or a Linux that does not tell


def give_back_pages(areas: frozenset[tuple[int, int]]) -> None:
    """
    Tell Linux that the pages of loaded libraries are not needed now: a third of what a stage has resident at rest.

    Starting runs through most of them once. Those that are used come back from the page cache at their next use, some
    16 at a time (decision 0007). Only what is as it is in its file is given back: areas on which the loader or anybody
    else wrote are left alone, and so are those that can be written on. `areas` are `areas_of_libraries` of before there
    were other threads: nobody unloads those, where anything else may be gone, and its place taken, before it is given
    back. Takes some milliseconds.
    """
    unchanged = areas & areas_of_libraries()
    if not unchanged or (madvise := _of_c_library("madvise")) is None:
        return
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for start, end in unchanged:
        madvise(start, end - start, MADV_DONTNEED)


def _unchanged(smaps: bytes) -> list[tuple[int, int]]:
    """Return from where to where files are mapped that nobody can write on or has written on (proc(5), smaps)."""
    found: list[tuple[int, int]] = []
    start = end = 0
    is_unchanged = False
    # A file's name is the bytes that it was given, a line feed apart: whatever else ends lines may be in it.
    for line in smaps.split(b"\n"):
        match line.split():
            case [name, mode, _, _, inode, *_] if not name.endswith(b":"):
                # 7f..-7f.. r-xp 00001000 08:01 1234 /usr/lib/...
                start, end = (int(address, 16) for address in name.split(b"-"))
                is_unchanged = b"w" not in mode and mode.endswith(b"p") and inode != b"0"
            # What was written on may be in swap since, and huge pages are told of apart.
            case [b"Anonymous:" | b"Private_Hugetlb:" | b"Swap:", kib, *_] if kib != b"0":
                is_unchanged = False
            case [b"Swap:", *_] if is_unchanged:
                found.append((start, end))
    return found


def _of_c_library(name: str) -> Any:
    """Return a function of the C library; None where there is no such one."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
