"""OTLP/JSON documents out of lines: one a line, as the Collector's file exporter writes them, or over several."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from enricher.capture import captured
from enricher.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from enricher.capture.captured import Item
    from enricher.capture.inflate import Stream
    from enricher.otlp.shallow import Signal

_BEGINNING = re.compile(rb'\{\s*"resource(?:Spans|Logs|Metrics)"')
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
"""A string, or the rest of the line where it does not end: looking for its end from each quote would be quadratic."""


def documents(stream: Stream, path: str, hint: Signal | None) -> Iterator[Item]:
    """
    Yield each document, or the error of what is none.

    A bad line costs one line. A document without an end costs what is before the next line that begins one.
    """
    block = bytearray()  # the lines of a document that is not closed yet
    start = depth = 0
    while line := stream.line(captured.MAX_MESSAGE + 1):
        if block and _BEGINNING.match(line):
            yield CaptureError(path, start, "the document that begins here is never closed")
            block.clear()
        if not block:
            start, depth = stream.offset - len(line), 0
        block += line
        depth += _nesting(line)
        if len(block) > captured.MAX_MESSAGE:
            yield CaptureError(path, start, f"a document of more than {captured.MAX_MESSAGE} bytes")
            if line.endswith(b"\n"):  # spread over lines: where the next one begins is anybody's guess
                return
            _skip_line(stream)
            block.clear()
        elif depth <= 0:
            if not block.isspace():
                yield captured.from_json(bytes(block), path, start, hint)
            block.clear()
    if block:
        yield captured.cut_off(path, start, "document", stream.failure)
    elif stream.failure:
        yield CaptureError(path, stream.offset, stream.failure)


def _skip_line(stream: Stream) -> None:
    piece = b"-"
    while piece and not piece.endswith(b"\n"):
        piece = stream.line(1 << 16)


def _nesting(line: bytes) -> int:
    """Return how many more brackets a line opens than it closes, outside of strings."""
    bare = _STRING.sub(b"", line)
    return bare.count(b"{") + bare.count(b"[") - bare.count(b"}") - bare.count(b"]")
