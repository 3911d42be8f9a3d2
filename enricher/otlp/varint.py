"""The wire's integers of variable length: base 128, the lowest digit first."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=4096)
def varint(number: int) -> bytes:
    """Return a number from 0 to 2**64 - 1 as the wire writes it."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read(data: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at a position, and where it ends; raises `IndexError` if none does."""
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value = byte & 0x7F
    for shift in range(7, 70, 7):
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
    raise IndexError(at)
