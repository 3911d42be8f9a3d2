"""
What a recorded file says: API answers in JSON, JSON lines, HAR files, cassettes and transcripts of events.

    bytes ─▶ shape, by content ─▶ documents ─▶ exchanges? ─▶ only what the API answered ─▶ Evidence
                                          └─▶ else every object of the API in it ───────▶ Evidence

A file says nothing of traces, services or times: it is evidence of the runs that it shows, and never of how many there
were. A usage object that stands alone in a file is nobody's and left out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import orjson

from enricher.errors import CaptureError
from enricher.evidence import payload
from enricher.evidence.collect import Evidence, Place
from enricher.evidence.exchanges import ExchangeError, answer, exchanges_of
from enricher.evidence.plain_yaml import PlainYamlError, load
from enricher.otlp.search import contains_any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from enricher.evidence.payload import Said

Item = Evidence | CaptureError
"""An error stands in the place of what could not be read; what follows it is good."""

MAX_DOCUMENT: Final = 64 << 20
"""Bytes of the largest document, and of all bodies that are read of it."""

MAX_VALUES: Final = 3_000_000
"""Values in a JSON document: each may take 100 bytes decoded and only 3 in the file."""

COUNT_FROM: Final = 4 << 20
"""Bytes from which on a document's values are counted before it is decoded."""

HEAD: Final = 1 << 20
"""Bytes in which the first line has to end for the file to be followed line by line."""

NEEDLES: Final = (b"prompt_tokens", b"assistant_id", b"thread.run", b"thread.message", b"threads", b"base64")
"""Bytes of which every line with evidence holds one."""

BLANKS: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*")
EVENTS: Final = re.compile(rb"(?:event|data|id|retry)?:")
CASSETTE: Final = re.compile(rb"^interactions:", re.MULTILINE)
# A string without an end counts as one to the end of the document: looking for its end from each quote would take
# the square of its length.
STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)


def read(data: bytes, name: str) -> Iterator[Item]:
    """
    Yield what a whole file says. Never raises, whatever the bytes.

    `name` is what people shall read: it goes into places and errors as it is.
    """
    if len(data) > MAX_DOCUMENT:
        yield CaptureError(name, 0, too_large("document"))
        return
    try:
        yield from _read(data, name)
    except CaptureError as error:
        yield error


def too_large(what: str) -> str:
    """Return the words for what is past `MAX_DOCUMENT`."""
    return f"a {what} of more than {MAX_DOCUMENT >> 20} MiB, inflated; it is skipped"


def are_lines(start: bytes) -> bool:
    """Tell from a file's first bytes whether it is a JSON value a line: the first line is complete and is one."""
    line, end, _ = start[_first(start) : HEAD].partition(b"\n")
    return bool(end) and _looks_like_json(line) and _decoded(line) is not None


def complete(data: bytes) -> int:
    """Return how many of the bytes are complete lines; a last one without its end is, if it is a JSON value."""
    end = data.rfind(b"\n") + 1
    last = data[end:]
    return len(data) if _looks_like_json(last) and _decoded(last) is not None else end


def lines(data: bytes, name: str, at: int = 0) -> Iterator[Item]:
    """Yield what complete lines say that begin at byte `at`; lines that cannot hold evidence are passed over."""
    if not contains_any(data, NEEDLES):
        return
    for line in data.split(b"\n"):
        if contains_any(line, NEEDLES) and _looks_like_json(line):
            try:
                yield from _document(_json(line, name, at), name, f"byte {at}", at)
            except CaptureError as error:
                yield error
        at += len(line) + 1


def _read(data: bytes, name: str) -> Iterator[Item]:
    start = _first(data)
    if start == len(data):
        return
    if are_lines(data) or (not _looks_like_json(data) and not EVENTS.match(data, start) and not CASSETTE.search(data)):
        yield from _whole_lines(data, name)
    elif _looks_like_json(data):
        yield from _document(_json(data, name, 0), name, "", 0)
    elif EVENTS.match(data, start):
        try:
            said = payload.read(data.decode("utf-8-sig"))
        except UnicodeDecodeError:
            raise CaptureError(name, 0, "events that are not UTF-8") from None
        yield from _found(said, name, "", 0)
    else:
        try:
            document = load(data)
        except PlainYamlError as error:
            raise CaptureError(name, 0, f"a cassette that cannot be read: {error}") from None
        yield from _document(document, name, "", 0)


def _whole_lines(data: bytes, name: str) -> Iterator[Item]:
    if not any(map(_looks_like_json, data.split(b"\n"))):
        raise CaptureError(name, 0, "neither JSON, JSON lines, HAR, a cassette in YAML nor server-sent events")
    end = complete(data)
    yield from lines(data[:end], name)
    if _looks_like_json(data[end:]):
        yield CaptureError(name, end, "the last line is cut off")


def _document(document: Any, name: str, where: str, at: int) -> Iterator[Item]:
    """Yield what one decoded document says; `where` tells its place within the file."""
    found = exchanges_of(document)
    if found is not None:
        yield from _exchanges(*found, name, where, at)
    elif isinstance(document, list):
        for number, each in enumerate(document, 1):
            # In a list as it was, because text is believed less in one.
            said = payload.read_value(each if isinstance(each, dict) else [each])
            yield from _found(said, name, _joined(where, f"item {number}"), at)
    else:
        yield from _found(payload.read_value(document), name, where, at)


def _exchanges(kind: str, exchanges: Any, name: str, where: str, at: int) -> Iterator[Item]:
    room = MAX_DOCUMENT
    for number, each in enumerate(exchanges, 1):
        place = _joined(where, f"{kind} {number}")
        try:
            answered = answer(each, room)
        except ExchangeError as error:
            yield CaptureError(name, at, f"{place}: {error}")
        else:
            if answered is not None:
                room -= answered.size
                yield from _found(answered.said, name, place, at, answered.urls, answered.azure)


def _found(
    said: Said, name: str, where: str, at: int, urls: tuple[tuple[str, str], ...] = (), azure: bool | None = None
) -> Iterator[Item]:
    said.bare.clear()
    unreadable, said.unreadable = said.unreadable, False
    if said or urls:
        yield Evidence(Place(_joined(f"file {name}", where)), said, urls, azure)
    if unreadable:
        what = "an answer that is cut off, not JSON, without a valid id, or of too many values"
        yield CaptureError(name, at, _joined(where, what, ": "))


def _joined(outer: str, inner: str, between: str = ", ") -> str:
    return f"{outer}{between}{inner}" if outer and inner else outer or inner


def _first(data: bytes) -> int:
    """Return where the first byte stands that is no blank."""
    match = BLANKS.match(data)
    return match.end() if match else 0


def _looks_like_json(data: bytes) -> bool:
    return data[(start := _first(data)) : start + 1] in {b"{", b"[", b'"'}


def _json(data: bytes, name: str, at: int) -> Any:
    """Return decoded JSON. Raises `CaptureError`."""
    if len(data) > MAX_DOCUMENT:
        raise CaptureError(name, at, too_large("line"))
    if len(data) > COUNT_FROM:
        bare = STRING.sub(b"", data)
        if sum(map(bare.count, (b",", b":", b"{", b"["))) > MAX_VALUES:
            raise CaptureError(name, at, f"a document of more than {MAX_VALUES} values")
    try:
        return orjson.loads(data[_first(data) :])
    except orjson.JSONDecodeError as error:
        raise CaptureError(name, at + error.pos, "JSON that is cut off or damaged") from None


def _decoded(line: bytes) -> Any:
    """Return decoded JSON; None for what is none, or is `null`."""
    try:
        return orjson.loads(line[_first(line) :])
    except orjson.JSONDecodeError:
        return None
