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

from enricher.errors import CaptureError
from enricher.evidence import bounded_json, payload
from enricher.evidence.bounded_json import BoundedJsonError, first, is_json, looks_like_json
from enricher.evidence.collect import Evidence, Place
from enricher.evidence.exchanges import answer, exchanges_of
from enricher.evidence.plain_yaml import PlainYamlError, load
from enricher.otlp.search import contains_any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from enricher.evidence.payload import Said

Item = Evidence | CaptureError
"""An error stands in the place of what could not be read; what follows it is good."""

MAX_DOCUMENT: Final = 64 << 20
"""Bytes of the largest document, and of all bodies that are read of it."""

HEAD: Final = 1 << 20
"""Bytes in which the first line has to end for a file to be one of lines."""

NEEDLES: Final = (b"prompt_tokens", b"assistant_id", b"thread.run", b"thread.message", b"threads", b"base64")
"""Bytes of which every line with evidence holds one."""

EVENTS: Final = re.compile(rb"(?:event|data|id|retry)?:")
CASSETTE: Final = b"interactions:"


def read(data: bytes, name: str) -> Iterator[Item]:
    """
    Yield what a whole file says. Never raises, whatever the bytes.

    `name` is what people shall read: it goes into places and errors as it is.
    """
    if len(data) > MAX_DOCUMENT:
        yield CaptureError(name, None, too_large("file"))
        return
    start = first(data)
    try:
        if start == len(data):
            return
        if are_lines(data):
            yield from _whole_lines(data, name)
        elif looks_like_json(data):
            yield from _document(bounded_json.loads(data), name, "", 0)
        elif data.startswith(CASSETTE, start) or b"\n" + CASSETTE in data:
            yield from _document(load(data), name, "", 0)
        elif EVENTS.match(data, start):
            yield from _events(data, name)
        else:
            yield from _whole_lines(data, name)
    except BoundedJsonError as error:
        yield CaptureError(name, error.at, str(error))
    except PlainYamlError as error:
        yield CaptureError(name, None, f"a cassette that cannot be read: {error}")


def too_large(what: str) -> str:
    """Return the words for what is past `MAX_DOCUMENT`."""
    return f"a {what} of more than {MAX_DOCUMENT >> 20} MiB, inflated; it is skipped"


def are_lines(start: bytes) -> bool:
    """Tell from a file's first bytes whether it is a JSON value a line: the first line is complete and is one."""
    line, end, _ = start[first(start) : HEAD].partition(b"\n")
    return bool(end) and is_json(line)


def complete(data: bytes) -> int:
    """Return how many of the bytes are complete lines; a last one without its end is, if it is a JSON value."""
    end = data.rfind(b"\n") + 1
    return len(data) if is_json(data[end:]) else end


def lines(data: bytes, name: str, at: int = 0) -> Iterator[Item]:
    """Yield what complete lines say that begin at byte `at`; lines that cannot hold evidence are passed over."""
    for start, block in _blocks(data):
        if not contains_any(block, NEEDLES):
            continue
        begin = at + start
        for line in block.split(b"\n"):
            if looks_like_json(line) and contains_any(line, NEEDLES):
                try:
                    yield from _document(bounded_json.loads(line), name, f"byte {begin}", begin)
                except BoundedJsonError as error:
                    yield CaptureError(name, begin + error.at, str(error))
            begin += len(line) + 1


def cut_off(name: str, at: int) -> CaptureError:
    """Return the error of a last line that begins at `at` and does not end."""
    return CaptureError(name, at, "the last line is cut off")


def _whole_lines(data: bytes, name: str) -> Iterator[Item]:
    if not any(looks_like_json(line) for _, block in _blocks(data) for line in block.split(b"\n")):
        yield CaptureError(name, None, "neither JSON, JSON lines, HAR, a cassette in YAML nor server-sent events")
        return
    end = complete(data)
    yield from lines(data[:end], name)
    if looks_like_json(data[end:]):
        yield cut_off(name, end)


def _blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """
    Yield whole lines, some `HEAD` bytes of them at a time, each block with its beginning.

    A list of all lines at once would fill the memory if there is nothing but line ends, and one search through all of
    them would hold up the other threads.
    """
    start = 0
    while start < len(data):
        end = data.find(b"\n", start + HEAD) + 1 or len(data)
        yield start, data[start:end]
        start = end


def _events(data: bytes, name: str) -> Iterator[Item]:
    if len(data) > payload.MAX_TEXT:
        what = f"server-sent events of more than {payload.MAX_TEXT >> 20} MiB; they are skipped"
        yield CaptureError(name, None, what)
        return
    bounded_json.check(data)
    try:
        said = payload.read(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        yield CaptureError(name, None, "server-sent events that are not UTF-8")
    else:
        yield from _found(said, name, "", 0)


def _document(document: Any, name: str, where: str, at: int) -> Iterator[Item]:
    """Yield what one decoded document says; `where` tells its place within the file."""
    found = exchanges_of(document)
    if found is not None:
        yield from _exchanges(*found, name, where, at)
    elif isinstance(document, list):
        for number, each in enumerate(document, 1):
            if isinstance(each, dict | list | str):
                # Text stays in a list, because it is believed less there.
                said = payload.read_value(each if isinstance(each, dict) else [each])
                yield from _found(said, name, _joined(where, f"item {number}"), at)
    else:
        yield from _found(payload.read_value(document), name, where, at)


def _exchanges(kind: str, exchanges: Sequence[Any], name: str, where: str, at: int) -> Iterator[Item]:
    room = MAX_DOCUMENT
    for number, each in enumerate(exchanges, 1):
        place = _joined(where, f"{kind} {number}")
        if room <= 0:
            yield CaptureError(name, at, f"{place}: {too_large('file').partition(';')[0]}; the rest is skipped")
            return
        answered = answer(each, room)
        room -= answered.size
        yield from _found(answered.said, name, place, at, answered.urls, answered.azure)
        if answered.problem:
            yield CaptureError(name, at, f"{place}: {answered.problem}")


def _found(  # noqa: PLR0913, PLR0917 - what was said, and all that tells where
    said: Said,
    name: str,
    where: str,
    at: int,
    urls: tuple[tuple[str, str], ...] = (),
    azure: bool | None = None,
) -> Iterator[Item]:
    said.bare.clear()
    unreadable, said.unreadable = said.unreadable, False
    if said or urls:
        yield Evidence(Place(_joined(f"file {name}", where)), said, urls, azure)
    if unreadable:
        what = "an answer that is cut off, not JSON, without a valid id, or of too many values"
        yield CaptureError(name, at, f"{where}: {what}" if where else what)


def _joined(outer: str, inner: str) -> str:
    return f"{outer}, {inner}" if outer and inner else outer or inner
