"""
Export requests out of a stream of bytes, whatever way they were recorded; the format is found out by content.

    ONE        a serialised request, or several of one signal one after another, which is the same
    VARINT     requests, each behind its length as a varint (protobuf's own delimited format)
    BIG_ENDIAN requests, each behind its length in 4 bytes: the Collector's file exporter with `format: proto`, and
               whatever it compresses message by message, JSON too
    JSON       OTLP/JSON documents, one a line or spread over lines
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import TYPE_CHECKING

from enricher.capture import captured
from enricher.capture.content import first_fault, signal_of
from enricher.capture.documents import documents
from enricher.capture.inflate import is_compressed
from enricher.errors import BadRequestError, CaptureError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from enricher.capture.captured import Item
    from enricher.capture.inflate import Stream
    from enricher.capture.names import Encoding
    from enricher.otlp.shallow import Signal

HEAD = 1 << 16
"""So many bytes of a file tell its format."""

_VARINT_BYTES = 5  # more say a length that no message has
_TOP_KEY = re.compile(rb'"resource(?:Spans|Logs|Metrics)"')


class Format(Enum):
    """How the requests lie in a file."""

    ONE = auto()
    VARINT = auto()
    BIG_ENDIAN = auto()
    JSON = auto()


def format_of(head: bytes, *, complete: bool, named: Encoding | None) -> Format | None:
    """
    Return the format that the first bytes of a file, inflated, speak of; None if it holds no OTLP.

    What its name says counts only where the file is damaged: one named as JSON may begin with garbage, such as the
    second half of a line, and one named as protobuf may be cut off in its first request.
    """
    # Protobuf first: JSON text never looks like it, while a request may well begin with the bytes of `\n{\n"`.
    if _looks_like_request(head, complete=complete):
        return Format.ONE
    for form in (Format.BIG_ENDIAN, Format.VARINT):
        if _begins_with_message(head, form, may_be_cut=not complete):
            return form
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"{") and (_TOP_KEY.search(text) or text[1:].lstrip().startswith(b"}")):
        return Format.JSON
    return _format_of_damaged(head, named)


def _format_of_damaged(head: bytes, named: Encoding | None) -> Format | None:
    if named == "json" and _TOP_KEY.search(head):
        return Format.JSON
    if named == "protobuf" and head:
        if first_fault(head, complete=False) is None:
            return Format.ONE
        for form in (Format.BIG_ENDIAN, Format.VARINT):
            if _begins_with_message(head, form, may_be_cut=True):
                return form
    return None


def requests(stream: Stream, form: Format, path: str, hint: Signal | None) -> Iterator[Item]:
    """Yield what the stream holds; `path` and `hint` are the file's name and the signal that it speaks of."""
    if form is Format.JSON:
        return documents(stream, path, hint)
    if form is Format.ONE:
        return _one(stream, path, hint)
    return _messages(stream, form, path, hint)


def _begins_with_message(head: bytes, form: Format, *, may_be_cut: bool) -> bool:
    at = 0
    while at < len(head):
        size, start = _size_at(head, at, form)
        at = start + size
        if size > captured.MAX_MESSAGE:
            return False
        if size > 0:  # an empty request tells nothing
            message = head[start:at]
            if len(message) < size and not may_be_cut:
                return False
            if form is Format.BIG_ENDIAN and (is_compressed(message) or message.startswith(b"{")):
                return True
            return _looks_like_request(message, complete=len(message) == size)
    return False


def _looks_like_request(message: bytes, *, complete: bool) -> bool:
    if not message or first_fault(message, complete=complete) is not None:
        return False
    if not complete:
        return True
    try:
        return signal_of(message, None) is not None
    except BadRequestError:
        return False


def _one(stream: Stream, path: str, hint: Signal | None) -> Iterator[Item]:
    message = stream.read(captured.MAX_MESSAGE + 1)
    if len(message) > captured.MAX_MESSAGE:
        yield CaptureError(path, 0, f"a single request of more than {captured.MAX_MESSAGE} bytes; record it in parts")
    elif stream.failure:
        yield CaptureError(path, stream.offset, f"the request is cut off here: {stream.failure}")
    elif (fault := first_fault(message, complete=True)) is not None:
        yield CaptureError(path, fault, "the request is damaged or cut off from here on")
    else:
        yield captured.from_protobuf(message, path, 0, hint)


def _messages(stream: Stream, form: Format, path: str, hint: Signal | None) -> Iterator[Item]:
    bad = 0
    while True:
        start = stream.offset
        try:
            size = _read_size(stream, form)
        except EOFError:
            yield captured.cut_off(path, start, "length", stream.failure)
            return
        if size is None:
            break
        if size > captured.MAX_MESSAGE:
            yield CaptureError(
                path, start, f"a length above {captured.MAX_MESSAGE} bytes; the rest of the file is left"
            )
            return
        message = stream.read(size)
        if len(message) < size:
            yield captured.cut_off(path, start, "message", stream.failure)
            return
        item = captured.from_message(message, path, start, hint)
        yield item
        bad = bad + 1 if isinstance(item, CaptureError) else 0
        # One bad message may be just that. After two, the lengths themselves are no longer to be trusted.
        if bad == 2:
            yield CaptureError(path, stream.offset, "two bad messages in a row; the rest of the file is left")
            return
    if stream.failure:
        yield CaptureError(path, stream.offset, stream.failure)


def _read_size(stream: Stream, form: Format) -> int | None:
    """Return the length in front of the next message, None at the end; raises `EOFError` inside of a length."""
    head = stream.read(4 if form is Format.BIG_ENDIAN else 1)
    if not head:
        return None
    if form is Format.BIG_ENDIAN and len(head) < 4:
        raise EOFError
    while form is Format.VARINT and head[-1] >= 0x80 and len(head) < _VARINT_BYTES:
        more = stream.read(1)
        if not more:
            raise EOFError
        head += more
    return _size_at(head, 0, form)[0]


def _size_at(data: bytes, at: int, form: Format) -> tuple[int, int]:
    """Return a message's length and where it begins; a length that cannot be is larger than any message."""
    if form is Format.BIG_ENDIAN:
        return int.from_bytes(data[at : at + 4], "big"), at + 4
    size = 0
    for index, byte in enumerate(data[at : at + _VARINT_BYTES]):
        size |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return size, at + index + 1
    return captured.MAX_MESSAGE + 1, at
