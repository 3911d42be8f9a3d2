"""
Finding a few byte strings in a whole request, fast.

`bytes.find` reads some 3 GB/s where the C library's `memmem` reads 10 and more; on a 400 KiB request without
candidates that is most of what the stage adds to a bare relay (decision 0002). Where the C library has no `memmem`
(Windows), `in` does the same. Several at once are found by Vectorscan; where it is not installed, one after the other.
"""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable


def _memmem() -> Callable[[int | bytes, int, bytes, int], int | None] | None:
    if sys.platform == "win32":
        return None
    try:
        # `PyDLL` keeps the interpreter's lock: giving it up for some 30 us and waiting for it again takes longer.
        memmem = ctypes.PyDLL(None).memmem
    except (OSError, AttributeError):
        return None
    memmem.restype = ctypes.c_void_p
    memmem.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)
    found: Callable[[int | bytes, int, bytes, int], int | None] = memmem
    return found


_find = _memmem()


def contains(data: bytes, needle: bytes) -> bool:
    """Tell whether `data` holds `needle`. Both are `bytes`, whose buffers stay where they are during the call."""
    if _find is None:
        return needle in data
    return _find(data, len(data), needle, len(needle)) is not None


def contains_any(data: bytes, needles: Iterable[bytes]) -> bool:
    """Tell whether `data` holds one of the needles."""
    return any(contains(data, needle) for needle in needles)


def find(data: bytes, needle: bytes, start: int = 0) -> int:
    """Return where `data` holds `needle` from `start` on, or -1, as `bytes.find` does."""
    if _find is None or start > len(data):
        return data.find(needle, start)
    first = ctypes.c_void_p.from_buffer(ctypes.c_char_p(data)).value or 0
    at = _find(first + start, len(data) - start, needle, len(needle))
    return -1 if at is None else at - first


class Needles:
    """
    Byte strings of which one search tells whether any is there, in a single pass however many they are.

    For one thread at a time: the search has working memory of its own.
    """

    def __init__(self, needles: Iterable[bytes]) -> None:
        self.all = frozenset(needles)
        self._any_in = _single_pass(self.all)

    def any_in(self, data: bytes) -> bool:
        """Tell whether `data` holds one of them."""
        return contains_any(data, self.all) if self._any_in is None else self._any_in(data)


def _single_pass(needles: Collection[bytes]) -> Callable[[bytes], bool] | None:
    """Return a search for any of the needles; None where the library is not there or cannot look for one of them."""
    if any(b"\0" in needle for needle in needles):
        return None  # it would be looked for up to there
    try:
        import hyperscan  # noqa: PLC0415 - there are machines without, and commands that need none

        database = hyperscan.Database()
        database.compile(expressions=list(needles), flags=hyperscan.HS_FLAG_SINGLEMATCH, literal=True)
    except Exception:  # noqa: BLE001 - a stage can do without, whatever is wrong with what is installed
        return None

    def any_in(data: bytes) -> bool:
        try:
            database.scan(data, match_event_handler=_stop)
        except hyperscan.error:
            # That it was stopped, by a hit. Had it failed, the needles would have to be looked for one by one as well.
            return True
        return False

    return any_in


def _stop(*_: object) -> bool:
    return True
