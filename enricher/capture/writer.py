"""Writes export requests to a file in the format that its name says; nothing is seen under that name before the end."""

from __future__ import annotations

import gzip
import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

import zstandard

from enricher.capture.names import COMPRESSIONS, ENCODINGS, STANDARD_STREAM, compression_of, encoding_of
from enricher.errors import BadRequestError, CaptureError
from enricher.otlp import json
from enricher.otlp.varint import varint

if TYPE_CHECKING:
    from types import TracebackType

    from enricher.otlp.shallow import Signal


class Writer:
    """
    One output file, written beside its place and moved there by `close`.

    Left by an error, or by `discard`, it never was: what stood at the path stays. JSON is a request a line; protobuf is
    the bare request if there is just one, so that any tool reads it, else each request behind its length as a varint.
    Standard output is written as it comes and cannot be taken back. Writing blocks.
    """

    def __init__(self, path: str) -> None:
        encoding = "json" if path == STANDARD_STREAM else encoding_of(path)
        if encoding is None:
            raise CaptureError(
                path,
                None,
                f"the name does not say how to write it; expected one that ends in {', '.join(ENCODINGS)}, "
                f"with {' or '.join(COMPRESSIONS)} behind it to compress, or - for standard output",
            )
        self._path = path
        self._as_json = encoding == "json"
        self._only: bytes | None = None
        self._several = False
        self.offset = 0
        """How many bytes have been written, before compression."""
        try:
            self._target: _Target = _Target(path)
        except OSError as error:
            raise self._cannot(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self.close()
        else:
            self.discard()

    def write(self, signal: Signal, request: bytes) -> None:
        """
        Add a request; an empty one leaves no trace, as it holds nothing.

        Raises `CaptureError` for a request that JSON cannot hold, of which nothing is written: the caller may go on
        with the next, but has to say that this one is missing. Raises it as well when the file cannot be written;
        then the caller should give up.
        """
        if not request:
            return
        if self._as_json:
            try:
                line = json.encode(signal, request)
            except BadRequestError as error:
                raise CaptureError(self._path, self.offset, f"{error}; a .binpb file would keep it as it is") from None
            self._put(line + b"\n")
        elif self._several:
            self._put(_delimited(request))
        elif self._only is None:
            self._only = request
        else:
            self._several = True
            self._put(_delimited(self._only) + _delimited(request))
            self._only = None

    def close(self) -> None:
        """Finish the file and move it to its place. Raises `CaptureError` if that fails; then nothing is left of it."""
        if self._only is not None:
            self._put(self._only)
            self._only = None
        try:
            self._target.finish()
        except OSError as error:
            self.discard()
            raise self._cannot(error) from None

    def discard(self) -> None:
        """Leave nothing behind."""
        self._target.discard()

    def _put(self, data: bytes) -> None:
        try:
            self._target.file.write(data)
        except OSError as error:
            self.discard()
            raise self._cannot(error) from None
        self.offset += len(data)

    def _cannot(self, error: OSError) -> CaptureError:
        return CaptureError(self._path, self.offset, f"cannot be written: {error.strerror}")


def open_writer(path: str) -> Writer:
    """
    Begin a file of recorded requests; use it in a `with` statement.

    Raises `CaptureError` for a name that says no format and for a place that cannot be written. Ask
    `Inputs.refuse_output` first where the requests come out of files.
    """
    return Writer(path)


class _Target:
    """The file beside its place, and the compression in front of it."""

    def __init__(self, path: str) -> None:
        self._place: Path | None = None
        self._beside: Path | None = None
        if path == STANDARD_STREAM:
            self._raw: IO[bytes] = sys.stdout.buffer
        else:
            # Behind a link, the file itself is replaced and the link stays.
            self._place = Path(os.path.realpath(path))
            if self._place.is_dir():
                raise IsADirectoryError(None, "it is a directory")
            # Hidden, so that a directory read meanwhile, or after a crash, passes over it.
            self._beside = self._place.with_name(f".{self._place.name}.{secrets.token_hex(4)}.tmp")
            self._raw = self._beside.open("xb")
        self.file = _compressing(self._raw, path)

    def finish(self) -> None:
        """Write everything out, and let the file be seen."""
        if self.file is not self._raw:
            self.file.close()
        self._raw.flush()
        if self._place is not None and self._beside is not None:
            os.fsync(self._raw.fileno())
            self._raw.close()
            self._beside.replace(self._place)

    def discard(self) -> None:
        """Remove the file beside; what cannot be written out any more is of no interest."""
        with suppress(OSError, ValueError, zstandard.ZstdError):
            if self.file is not self._raw:
                self.file.close()
        if self._beside is not None:
            with suppress(OSError):
                self._raw.close()
            self._beside.unlink(missing_ok=True)


def _compressing(raw: IO[bytes], path: str) -> IO[bytes]:
    """Return a file in front of `raw` that leaves it open when closed; the same input gives the same bytes."""
    match compression_of(path):
        case "gzip":
            return gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0)  # type: ignore[return-value]
        case "zstd":
            return zstandard.ZstdCompressor(write_checksum=True).stream_writer(raw, closefd=False)
        case None:
            return raw


def _delimited(request: bytes) -> bytes:
    return varint(len(request)) + request
