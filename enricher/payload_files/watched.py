"""
What is new in the files that patterns match: remembers how each was when it was read, and how far.

A file is known by its inode, so that one of several names is read once and a rotated log is not read again. JSON lines
are read on where they ended; anything else that changed is read as a whole.
"""

from __future__ import annotations

import math
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import IO, TYPE_CHECKING, Any, Final

from enricher.capture.inflate import Stream, is_compressed, pieces_of
from enricher.errors import CaptureError
from enricher.evidence import files
from enricher.evidence.bounded_json import looks_like_json
from enricher.payload_files.names import Found, Pattern, shown, why

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from enricher.evidence.files import Item

REST: Final = 10
"""What is read as a whole is read again after so many times its last reading's length: one that grows takes 9 % of a
core."""

RETRY_SECONDS: Final = 30.0
"""When a file that the system did not let us read is tried again although it looks unchanged."""

TAIL: Final = 4096
"""Bytes before the place where reading goes on, by which a file that only grew is told from one written anew: more than
a line, because lines often begin with their ids and end alike."""

FLAGS: Final = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""A link or a pipe that took the file's place meanwhile is refused and does not block."""

Signature = tuple[Any, ...]


@dataclass(slots=True)
class _File:
    """What is remembered of a file, or of what stands in the place of one."""

    tried: Signature = ()
    """How it was when it was last read."""
    offset: int = 0
    """Bytes of complete lines that were read; 0 for what is no file of lines."""
    tail: bytes = b""
    """A digest of the last bytes before `offset`."""
    skipping: bool = False
    """The line at `offset` is the rest of one that is too long."""
    problem: CaptureError | None = None
    """Found at the last reading and not told yet."""
    told: Signature = ()
    """How the file was whose problem was last told."""
    not_before: float = 0.0
    again: float = math.inf


class Watched:
    """
    The files that match, between one look and the next.

    `once` is for a single look that takes no change for granted: problems are told as they are found.
    """

    def __init__(self, patterns: Sequence[str], clock: Callable[[], float], *, once: bool = False) -> None:
        self._patterns = [Pattern(each) for each in patterns]
        self._clock = clock
        self._once = once
        self._files: dict[Any, _File] = {}
        self.reading_seconds = 0.0
        """How much of the last look went by with what is new, and not with searching."""

    def look(self) -> Generator[Item | None]:
        """
        Yield what is new, problems in the place of what cannot be read, and None after each file as a breath.

        Blocks. The problem of a file is yielded once a change, when the file is the same at two looks.
        """
        self.reading_seconds = 0.0
        present: set[Any] = set()
        for pattern in self._patterns:
            matched = False
            for found in pattern.find():
                matched = True
                if isinstance(found, CaptureError):
                    yield from self._meet_problem(found.path, found, present)
                else:
                    yield from self._meet(found, pattern, present)
            if not matched:
                nothing = CaptureError(shown(pattern.text), None, "matches nothing")
                yield from self._meet_problem(("pattern", pattern.text), nothing, present)
        for key in self._files.keys() - present:
            del self._files[key]

    def _meet(self, found: Found, pattern: Pattern, present: set[Any]) -> Iterator[Item | None]:
        path = found.path
        try:
            leads_out = not found.direct and not _is_below(path, pattern.root or ".")
            status = os.stat(path)  # noqa: PTH116 - ten thousand a look
        except (OSError, ValueError) as error:
            problem = CaptureError(shown(path), None, f"cannot be read: {why(error)}")
            yield from self._meet_problem(path, problem, present)
            return
        key, signature = (status.st_dev, status.st_ino), _signature(status)
        if leads_out:
            what = f"leads out of {shown(pattern.root or '.')}; add a pattern for the place where it leads"
            yield from self._meet_problem(path, CaptureError(shown(path), None, what), present)
        elif not stat.S_ISREG(status.st_mode):
            what = "is no regular file" + ("; add /* to read the files in it" if stat.S_ISDIR(status.st_mode) else "")
            yield from self._meet_problem(key, CaptureError(shown(path), None, what), present)
        elif key not in present:
            present.add(key)
            file = self._files.get(key) or self._files.setdefault(key, _File())
            if file.tried != signature or file.problem is not None or file.again <= self._clock():
                yield from self._meet_file(path, shown(path), signature, file)

    def _meet_problem(self, key: Any, problem: CaptureError, present: set[Any]) -> Iterator[CaptureError]:
        """Tell a problem at the second look that finds it."""
        if key in present:
            return
        present.add(key)
        file = self._files.setdefault(key, _File())
        signature = (problem.what,)
        if self._once or (file.tried == signature and file.told != signature):
            file.told = signature
            yield problem
        file.tried = signature

    def _meet_file(self, path: str, name: str, signature: Signature, file: _File) -> Iterator[Item | None]:
        now = self._clock()
        if file.tried == signature and now < file.again:
            problem, file.problem = file.problem, None
            if problem is not None and file.told != signature:
                file.told = signature
                yield problem
        elif now >= file.not_before:
            file.tried, file.again, file.problem = signature, math.inf, None
            for item in self._read(path, name, file):
                if isinstance(item, CaptureError) and not self._once:
                    file.problem = file.problem or item
                else:
                    yield item
            if not file.offset:
                file.not_before = self._clock() + REST * (self._clock() - now)
            yield None
            self.reading_seconds += self._clock() - now

    def _read(self, path: str, name: str, file: _File) -> Iterator[Item | None]:
        try:
            with _opened(path) as handle:
                status = os.fstat(handle.fileno())
                if not stat.S_ISREG(status.st_mode):
                    yield CaptureError(name, None, "is no regular file any more")
                    return
                file.tried = _signature(status)
                yield from _contents(handle, status.st_size, name, file)
            if self._once and not _is_same(path, file):
                yield CaptureError(name, None, "was changed, replaced or removed while it was read")
        except OSError as error:
            file.again = self._clock() + RETRY_SECONDS
            yield CaptureError(name, None, f"cannot be read: {why(error)}")
        except Exception as error:  # noqa: BLE001 - one file, whatever is in it, must not cost the others
            yield CaptureError(name, None, f"cannot be read for an error of this program: {type(error).__name__}")


def _contents(handle: IO[bytes], size: int, name: str, file: _File) -> Iterator[Item | None]:
    if file.offset and not _only_grew(handle, size, file):
        file.offset, file.tail, file.skipping = 0, b"", False
    handle.seek(0)
    head = handle.read(min(files.HEAD, size))
    if file.offset or (not is_compressed(head) and files.are_lines(head)):
        yield from _lines(handle, size, name, file)
        return
    handle.seek(0)
    stream = Stream(pieces_of(handle, size, lambda _: None))
    data = stream.read(files.MAX_DOCUMENT + 1)
    if _signature(os.fstat(handle.fileno())) != file.tried:
        # Half of the old and half of the new may well be JSON, and of no run. The next look reads it.
        return
    if stream.failure:
        yield CaptureError(name, len(data), stream.failure)
    for item in files.read(data, name):
        if not stream.failure or not isinstance(item, CaptureError):
            yield item


def _lines(handle: IO[bytes], size: int, name: str, file: _File) -> Iterator[Item | None]:
    """Read on from the last complete line, a piece at a time."""
    handle.seek(file.offset)
    rest, left = bytearray(), size - file.offset
    while left > 0 and (piece := handle.read(min(files.HEAD, left))):
        left -= len(piece)
        end = piece.rfind(b"\n") + 1
        rest += piece
        if end:
            yield from _consume(rest, len(rest) - len(piece) + end, name, file)
            yield None
        elif len(rest) > files.MAX_DOCUMENT:
            if not file.skipping:
                yield CaptureError(name, file.offset, files.too_large("line"))
            file.skipping = True
            yield from _consume(rest, len(rest), name, file)
    if file.skipping:
        yield from _consume(rest, len(rest), name, file)
    elif rest:
        yield from _consume(rest, files.complete(bytes(rest)), name, file)
        if looks_like_json(bytes(rest)):
            yield files.cut_off(name, file.offset)
    file.tail = _tail(handle, file.offset)


def _consume(rest: bytearray, end: int, name: str, file: _File) -> Iterator[Item]:
    """Yield what the first bytes say, and go on behind them."""
    data, at = bytes(rest[:end]), file.offset
    if file.skipping:
        skipped = data.find(b"\n") + 1
        file.skipping = not skipped
        data, at = data[skipped:] if skipped else b"", at + skipped
    yield from files.lines(data, name, at)
    file.offset += end
    del rest[:end]


def _only_grew(handle: IO[bytes], size: int, file: _File) -> bool:
    """Tell whether what was read is still there: a file that is written anew in place has the same inode."""
    return size >= file.offset and _tail(handle, file.offset) == file.tail


def _tail(handle: IO[bytes], offset: int) -> bytes:
    start = max(0, offset - TAIL)
    handle.seek(start)
    return blake2b(handle.read(offset - start), digest_size=16).digest()


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    descriptor = os.open(os.path.realpath(path), FLAGS)
    with open(descriptor, "rb") as handle:  # noqa: PTH123 - a descriptor
        yield handle


def _is_below(path: str, root: str) -> bool:
    return os.path.realpath(path).startswith(os.path.realpath(root).rstrip("/") + "/")


def _is_same(path: str, file: _File) -> bool:
    """Tell whether a path still leads to the file that was read; lines may have been added to it."""
    try:
        status = os.stat(path)  # noqa: PTH116 - beside the others
    except OSError:
        return False
    now = _signature(status)
    return now == file.tried or (now[:2] == file.tried[:2] and 0 < file.offset <= status.st_size)


def _signature(status: os.stat_result) -> Signature:
    """Return what changes when a file does; the change time tells of a copy that kept the time, and of new rights."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
