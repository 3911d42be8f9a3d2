"""
Compressed HTTP bodies, inflated within a limit: what a body grows to is counted before room is made for it (A1).

A body is one gzip member, zlib stream or zstd frame, whole, with nothing behind it. More members would be legal, and
no OTLP client makes them; a body of many empty ones is an attack (A2).
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import zstandard

from enricher.errors import BadRequestError, EnricherError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

AT_ONCE_BYTES = 4 << 20
"""Bodies up to this size are inflated once. Larger ones are inflated to be counted, and again into a buffer of just
their size: 64 MiB then take 64 MiB, not 130."""

_PIECE = 1 << 20
_SLICE = 1 << 16
_ZSTD_SLICE = 512
"""A block of 128 KiB may take 4 bytes, and the library inflates all that it is given: so much stays under 16 MiB."""

_ZSTD_WINDOW = 32 << 20
"""Most memory that a zstd frame may ask for. HTTP allows 8 MiB (RFC 9659); the highest levels of Go's encoder, which
the Collector can be set to, take 32."""

_WINDOW_BITS = {"gzip": 31, "deflate": 15, "zlib": 15}
CODINGS = ("gzip", "deflate", "zlib", "zstd")
"""What `inflate` takes. `zlib` is the Collector's second name for what HTTP calls deflate."""


class TooLargeError(EnricherError):
    """The body is, or grows, larger than is taken."""


def inflate(coding: str, data: bytes, limit: int, take: Callable[[int], None]) -> bytes:
    """
    Return what a body of one of the `CODINGS` holds; `take` is told of every byte before there is room for it.

    Raises `TooLargeError` above `limit` bytes and `BadRequestError` for a body that is damaged, breaks off, or has
    something behind its end, and what `take` raises.
    """
    kept: list[bytes] = []
    size = 0
    for piece in _unzstd(data) if coding == "zstd" else _unzip(coding, data):
        size += len(piece)
        if size > limit:
            raise TooLargeError
        take(len(piece))
        if size <= AT_ONCE_BYTES:
            kept.append(piece)
    if size <= AT_ONCE_BYTES:
        return b"".join(kept)
    kept.clear()
    if coding == "zstd":
        return zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompress(data, max_output_size=size)
    return zlib.decompress(data, _WINDOW_BITS[coding], size)


def _unzip(coding: str, data: bytes) -> Iterator[bytes]:
    stream = zlib.decompressobj(_WINDOW_BITS[coding])
    for at in range(0, len(data), _SLICE):
        if stream.eof:
            raise _trailing(coding)
        given = data[at : at + _SLICE]
        try:
            while piece := stream.decompress(given, _PIECE):
                yield piece
                given = stream.unconsumed_tail
        except zlib.error:
            raise _damaged(coding) from None
    if stream.unused_data:
        raise _trailing(coding)
    if not stream.eof:
        raise _early(coding)


def _unzstd(data: bytes) -> Iterator[bytes]:
    frame = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
    for at in range(0, len(data), _ZSTD_SLICE):
        if frame.eof:
            raise _trailing("zstd")
        try:
            piece = frame.decompress(data[at : at + _ZSTD_SLICE])
        except zstandard.ZstdError:
            raise _damaged("zstd") from None
        if piece:
            yield piece
    if frame.unused_data:
        raise _trailing("zstd")
    if not frame.eof:
        raise _early("zstd")


def _damaged(coding: str) -> BadRequestError:
    return BadRequestError(f"the {coding} data is damaged")


def _early(coding: str) -> BadRequestError:
    return BadRequestError(f"the {coding} data ends early")


def _trailing(coding: str) -> BadRequestError:
    return BadRequestError(f"something stands behind the end of the {coding} data; expected one member or frame")
