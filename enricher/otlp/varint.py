"""The wire's integers of variable length, written."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=4096)
def varint(number: int) -> bytes:
    """Return a number from 0 to 2**64 - 1 in base 128, the lowest digit first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
