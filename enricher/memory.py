"""Settings of the process under which a request costs what its work costs."""

from __future__ import annotations

import ctypes
import gc
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 8 << 20
MAPPED_FROM_BYTES = 4 << 20


def keep_freed_memory() -> None:
    """
    Tell glibc to keep a few MiB of freed memory instead of handing it back at once.

    By default each buffer above 128 KiB is mapped and unmapped: a 450 KiB request then costs some 300 page faults
    and 0.65 ms of kernel time a copy, ten times the copy itself (decision 0003). Other C libraries have no such knob
    and are left alone.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_THRESHOLD, MAPPED_FROM_BYTES)
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def look_for_garbage_seldom() -> None:
    """
    Let the collector pass over what the program itself is made of, and look less often at what requests leave.

    Requests leave no cycles, only counts: by default every few of them start a walk through some 100,000 objects
    that live as long as the process.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
