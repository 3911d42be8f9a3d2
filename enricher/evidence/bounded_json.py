"""JSON out of recorded files, with a limit on what it takes in memory: a value of 3 bytes may take 100 decoded."""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

MAX_MARKS: Final = 6_000_000
"""Commas, colons and opening brackets in a document, those in its texts included: one in 11 bytes of the largest. Each
value has one, and most have two; so many take 400 MiB at worst, and half a second."""

COUNT_FROM: Final = 4 << 20
"""Bytes from which on they are counted before anything is decoded."""

PIECE: Final = 1 << 20

BLANKS: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*")


class BoundedJsonError(ValueError):
    """The bytes are no JSON, or too much of it; `at` is the byte where that shows. The text never quotes them."""

    def __init__(self, what: str, at: int = 0) -> None:
        super().__init__(what)
        self.at = at


def loads(data: bytes) -> Any:
    """Return decoded JSON; a byte order mark and blanks may stand before it. Raises `BoundedJsonError`."""
    check(data)
    start = first(data)
    try:
        return orjson.loads(data[start:])
    except orjson.JSONDecodeError as error:
        raise BoundedJsonError("JSON that is cut off or damaged", start + error.pos) from None


def check(data: bytes) -> None:
    """Raise `BoundedJsonError` for more than `MAX_MARKS` marks."""
    if len(data) <= COUNT_FROM:
        return
    marks = 0
    # In pieces, so that other threads may run in between and a bomb ends early.
    for start in range(0, len(data), PIECE):
        piece = data[start : start + PIECE]
        marks += sum(map(piece.count, (b",", b":", b"{", b"[")))
        if marks > MAX_MARKS:
            raise BoundedJsonError("JSON of too many values")


def first(data: bytes) -> int:
    """Return where the first byte stands that is no blank."""
    match = BLANKS.match(data)
    return match.end() if match else 0


def looks_like_json(data: bytes) -> bool:
    """Tell from its first byte whether this can be an object, a list or a string."""
    return data[(start := first(data)) : start + 1] in {b"{", b"[", b'"'}


def is_json(data: bytes) -> bool:
    """Tell whether this is an object, a list or a string, complete."""
    if not looks_like_json(data):
        return False
    try:
        loads(data)
    except BoundedJsonError:
        return False
    return True
