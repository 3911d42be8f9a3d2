"""
A recorded file as one stream of plain bytes: opened, inflated if its first bytes say so, never whole in memory.

Every offset of this package counts the plain bytes, after inflation.
"""

from __future__ import annotations

import io
import zlib
from typing import IO, TYPE_CHECKING, Any

import zstandard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

PIECE = 1 << 16

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPED = tuple(bytes([low]) + b"\x2a\x4d\x18" for low in range(0x50, 0x60))
_ZSTD_SLICE = 512
"""A block of 128 KiB may take 4 bytes, and the library inflates all that it is given: so much stays under 16 MiB."""


class _BrokenError(Exception):
    """The data ends here, before its time; the text says why."""


class Stream:
    """
    Plain bytes from the front to the back, and the offset of the next one.

    Data that breaks off ends the stream like any other; `failure` then says why, else it is empty.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = _Pieces(_inflated(iter(pieces)))
        self._reader = io.BufferedReader(self._pieces, PIECE)
        self.offset = 0

    @property
    def failure(self) -> str:
        """Why the data ended early; complete only once the end is reached."""
        return self._pieces.failure

    def read(self, size: int) -> bytes:
        """Return the next bytes, fewer only at the end."""
        parts = []
        # In parts, because a reader makes room for all that it is asked for, and a length may be garbage.
        while size > 0 and (part := self._reader.read(min(size, 1 << 20))):
            parts.append(part)
            size -= len(part)
        return self._count(b"".join(parts))

    def line(self, limit: int) -> bytes:
        """Return the next line with its end, or its first `limit` bytes; empty at the end of the stream."""
        return self._count(self._reader.readline(limit))

    def _count(self, data: bytes) -> bytes:
        self.offset += len(data)
        return data


def pieces_of(file: IO[bytes], size: int, progress: Callable[[int], None]) -> Iterator[bytes]:
    """Yield the file's bytes up to `size`, telling `progress` how many each time."""
    while size > 0:
        try:
            piece = file.read(min(PIECE, size))
        except OSError as error:
            raise _BrokenError(f"cannot be read: {error.strerror}") from None
        if not piece:
            raise _BrokenError("the file became shorter while it was read")
        size -= len(piece)
        progress(len(piece))
        yield piece


def is_compressed(data: bytes) -> bool:
    """Tell whether the first bytes are those of gzip or zstd."""
    return data.startswith((_GZIP, _ZSTD, *_ZSTD_SKIPPED))


class _Pieces(io.RawIOBase):
    """Makes a readable of byte pieces; a failure between them becomes the end, and is kept."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")
        self.failure = ""

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        while not self._left:
            try:
                self._left = memoryview(next(self._pieces))
            except StopIteration:
                return 0
            except _BrokenError as error:
                self.failure = str(error)
        size = min(len(target), len(self._left))
        target[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


def _inflated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= len(_ZSTD):
            break
    rest = _joined(head, pieces)
    if head.startswith(_GZIP):
        return (yield from _gunzipped(rest))
    if is_compressed(head):
        return (yield from _unzstd(rest))
    return (yield from rest)


def _joined(head: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from pieces


def _gunzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Inflate gzip members one after another; zeros between and behind them are padding, as for gzip itself."""
    member = None
    for piece in pieces:
        data = piece
        while data:
            if member is None:
                data = data.lstrip(b"\0")
                if not data:
                    break
                member = zlib.decompressobj(31)
            try:
                plain = member.decompress(data, PIECE)
                while plain:
                    yield plain
                    plain = member.decompress(member.unconsumed_tail, PIECE)
            except zlib.error:
                raise _BrokenError("the gzip data is damaged") from None
            data = member.unused_data
            if member.eof:
                member = None
    if member is not None:
        raise _BrokenError("the gzip data ends early")


def _unzstd(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Inflate zstd frames one after another, skippable ones included."""
    frame = None
    for piece in pieces:
        for at in range(0, len(piece), _ZSTD_SLICE):
            data = piece[at : at + _ZSTD_SLICE]
            while data:
                frame = frame or zstandard.ZstdDecompressor().decompressobj()
                try:
                    plain = frame.decompress(data)
                except zstandard.ZstdError as error:
                    raise _BrokenError(f"the zstd data is damaged or asks for too much memory ({error})") from None
                if plain:
                    yield plain
                data = frame.unused_data
                if frame.eof:
                    frame = None
    if frame is not None:
        raise _BrokenError("the zstd data ends early")
