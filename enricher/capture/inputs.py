"""
What a user names as INPUT - files, directories, patterns, `-` - as one sequence of recorded requests.

    names ──▶ sources (found once, in a fixed order) ──▶ inflate ──▶ framing ──▶ Captured | CaptureError

The sequence may be gone through more than once and is the same each time: files are read up to the size that they had
when they were found, and what can be read only once (standard input, a pipe) is kept in a temporary file.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from enricher.capture.content import first_fault, hint_of
from enricher.capture.framing import HEAD, format_of, requests
from enricher.capture.inflate import Stream, pieces_of
from enricher.capture.names import STANDARD_STREAM, encoding_of
from enricher.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from enricher.capture.captured import Item

_MAGIC = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class _Source:
    path: str
    """As the user would write it; `-` for standard input."""
    size: int
    given: str
    """The INPUT that led here. When that is the path itself, the file has to be OTLP."""
    spooled: IO[bytes] | None = None
    """The content of what can be read only once."""


class Inputs:
    """
    Recorded requests, to be gone through as often as needed; not by two loops at a time.

    An item is a `Captured` request or the `CaptureError` of a part that cannot be read, in its place: the loop decides
    what an error means, and going on gives the next good request of the same file or of the next one. Reading blocks.
    """

    def __init__(
        self, sources: Sequence[_Source | CaptureError], searched: Sequence[str], resources: ExitStack
    ) -> None:
        self._sources = sources
        self._searched = searched
        self._resources = resources
        self.total_bytes = sum(source.size for source in sources if isinstance(source, _Source))
        self.bytes_read = 0
        """How much of `total_bytes` (before inflation) this turn has read or passed over."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._resources.close()

    def __iter__(self) -> Iterator[Item]:
        """Yield every request and error, files in the order of the arguments, and sorted where one names many."""
        self.bytes_read = before = 0
        fruitful: set[str] = set()
        for source in self._sources:
            if isinstance(source, CaptureError):
                yield source
                continue
            for item in self._read(source):
                fruitful.add(source.given)
                yield item
            before += source.size
            self.bytes_read = before
        for given in self._searched:
            if given not in fruitful:
                yield CaptureError(given, None, "no OTLP found there")

    def refuse_output(self, path: str) -> None:
        """Raise `CaptureError` if writing to `path` would overwrite one of the inputs."""
        target = os.path.realpath(path)
        for source in self._sources:
            if isinstance(source, _Source) and source.spooled is None and os.path.realpath(source.path) == target:
                raise CaptureError(path, None, "the output is one of the inputs; write to another file")

    def _read(self, source: _Source) -> Iterator[Item]:
        try:
            with _opened(source) as file:
                head = Stream(pieces_of(file, source.size, _ignore))
                start = head.read(HEAD)
                complete = len(start) < HEAD and not head.failure
                form = format_of(start, complete=complete, named=encoding_of(source.path))
                if form is None:
                    yield from _unrecognised(source, start, head.failure)
                    return
                file.seek(0)
                stream = Stream(pieces_of(file, source.size, self._count))
                yield from requests(stream, form, source.path, hint_of(source.path))
        except OSError as error:
            yield CaptureError(source.path, None, f"cannot be read: {error.strerror}")

    def _count(self, size: int) -> None:
        self.bytes_read += size


def open_inputs(inputs: Sequence[str]) -> Inputs:
    """
    Find the files behind the arguments; use the result in a `with` statement.

    A directory is searched to the bottom, a pattern (`*`, `?`, `[...]`, `**`) is expanded here; both pass over hidden
    names and over files that are not OTLP, and do not follow links to directories while they search. A file that is
    reached twice is read once. Raises `CaptureError` for a file that is not there and a pattern that matches nothing.
    """
    with ExitStack() as resources:
        sources: list[_Source | CaptureError] = []
        seen: set[str] = set()
        searched = {given: None for given in inputs if given != STANDARD_STREAM}
        for given in dict.fromkeys(inputs):
            for source in _find(given, resources):
                if isinstance(source, _Source):
                    real = os.path.realpath(source.path)
                    if real in seen or source.path == given:
                        searched.pop(given, None)
                    if real in seen:
                        continue
                    seen.add(real)
                sources.append(source)
        return Inputs(sources, tuple(searched), resources.pop_all())


def read(inputs: Sequence[str]) -> Iterator[Item]:
    """Go once through the inputs; what `open_inputs` raises comes with the first item."""
    with open_inputs(inputs) as captured:
        yield from captured


def _ignore(_: int) -> None:
    """Count nothing: a first look at a file is not its reading."""


def _unrecognised(source: _Source, start: bytes, failure: str) -> Iterator[CaptureError]:
    """Pass over a file that is not OTLP, unless it was named, or by its own name should be OTLP."""
    encoding = encoding_of(source.path)
    named = source.path == source.given
    if failure and (named or encoding):
        yield CaptureError(source.path, len(start), failure)
    elif start and encoding == "protobuf":
        fault = first_fault(start, complete=True) or 0
        yield CaptureError(source.path, fault, "no export request, or damaged or cut off from here on")
    elif start and named:
        yield CaptureError(source.path, 0, "neither export requests in protobuf nor OTLP/JSON")


@contextmanager
def _opened(source: _Source) -> Iterator[IO[bytes]]:
    if source.spooled is None:
        with Path(source.path).open("rb") as file:
            yield file
    else:
        source.spooled.seek(0)
        yield source.spooled


def _find(given: str, resources: ExitStack) -> Iterator[_Source | CaptureError]:
    if given == STANDARD_STREAM:
        yield _spool(given, sys.stdin.buffer, resources)
        return
    try:
        status = os.stat(given)  # noqa: PTH116 - Path("") is the current directory, and nobody means that
    except OSError as error:
        if not _MAGIC.intersection(given):
            raise CaptureError(given, None, f"cannot be read: {error.strerror}") from None
        yield from _match(given)
        return
    if stat.S_ISDIR(status.st_mode):
        yield from _search(given, given)
    elif stat.S_ISREG(status.st_mode):
        yield _Source(given, status.st_size, given)
    else:
        try:
            with Path(given).open("rb") as pipe:
                yield _spool(given, pipe, resources)
        except OSError as error:
            raise CaptureError(given, None, f"cannot be read: {error.strerror}") from None


def _spool(given: str, pipe: IO[bytes], resources: ExitStack) -> _Source:
    spooled = resources.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - `resources` closes it
    shutil.copyfileobj(pipe, spooled)
    return _Source(given, spooled.tell(), given, spooled)


def _match(pattern: str) -> Iterator[_Source | CaptureError]:
    parts = Path(pattern).parts
    literal = next(index for index, part in enumerate(parts) if _MAGIC.intersection(part))
    base, rest = Path(*parts[:literal]), Path(*parts[literal:])
    try:
        found = sorted(base.glob(str(rest)))
    except (ValueError, OSError) as error:
        raise CaptureError(pattern, None, f"cannot be used as a pattern: {error}") from None
    if not any(part.startswith(".") for part in rest.parts):
        found = [path for path in found if not any(part.startswith(".") for part in path.relative_to(base).parts)]
    if not found:
        raise CaptureError(pattern, None, "matches nothing")
    for path in found:
        if path.is_dir():
            yield from _search(str(path), pattern)
        elif path.is_file():
            yield _Source(str(path), path.stat().st_size, pattern)


def _search(directory: str, given: str) -> Iterator[_Source | CaptureError]:
    """Yield the regular files below a directory in the order of their names, links to files included."""
    errors: list[CaptureError] = []

    def note(error: OSError) -> None:
        errors.append(CaptureError(str(error.filename), None, f"cannot be searched: {error.strerror}"))

    found: list[Path] = []
    for root, directories, files in os.walk(directory, onerror=note):
        directories[:] = [name for name in directories if not name.startswith(".")]
        found += [Path(root, name) for name in files if not name.startswith(".")]
    for path in sorted(found):
        if path.is_file():
            yield _Source(str(path), path.stat().st_size, given)
    yield from errors
