"""
What is fuzzed. A target takes any bytes the way that the stage takes them, and fails where a promise is broken.

Each is named after what its input is: `grpc` an export request, `http` the body of a request behind a byte that tells
what its headers say, `inflate` a compressed body, `json` a document or a request to be made one, `payload` a recorded
answer, `files` a file of recorded answers. What is refused is refused with the one exception that clients are told of.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from typing import TYPE_CHECKING

import zstandard

from enricher import live, pipeline, write
from enricher.errors import BadRequestError, CaptureError
from enricher.evidence import files as recorded
from enricher.evidence import payload as answers
from enricher.otlp import json as otlp_json
from enricher.otlp import shallow
from enricher.otlp.shallow import Signal
from enricher.receive import inflate as receiving
from enricher.receive.http_body import _from_json
from enricher.receive.inflate import CODINGS, TooLargeError
from enricher.scan import Settings
from enricher.waiting_spans import Waiting, released

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from enricher.evidence.payload import Said

LIMIT = 1 << 20
"""Bytes that a body may inflate to here."""

MAX_GROWTH = 8 << 10
"""Bytes that may be appended to one span: some twenty attributes, of which a model's name is the longest."""

SIGNALS = tuple(Signal)
HEADERS = tuple(
    (coding, is_json, signal) for coding in ("", *CODINGS) for is_json in (True, False) for signal in SIGNALS
)
"""What the first byte of an input of `http` stands for."""

INSERT = Settings()
REPAIR = Settings(policy=write.Policy(provenance=True, repair=True))
COMPRESS = {"gzip": gzip.compress, "deflate": zlib.compress, "zlib": zlib.compress, "zstd": zstandard.compress}

Placed = tuple[bytes, bytes, bytes, bytes, bytes]


def grpc(data: bytes) -> None:
    """A request over gRPC, as every signal, by a stage without memory and by one with."""
    try:
        before = _placed(data)
    except BadRequestError:
        for signal in SIGNALS:
            _is_refused(lambda signal=signal: pipeline.process(signal, data, INSERT))
        return
    for signal in SIGNALS:
        for settings in (INSERT, REPAIR):
            _check_processed(signal, data, before, settings)
    _check_live(data, before, INSERT)
    memory = live.Memory.of(INSERT)
    logged = live.process(Signal.LOGS, data, INSERT, memory, 0.0, room=9)
    assert (logged.processed.request, logged.processed.failures, logged.waiting) == (data, [], [])


def http(data: bytes) -> None:
    """A body over HTTP, and what the headers say of it in the first byte."""
    if not data:
        return
    coding, is_json, signal = HEADERS[data[0] % len(HEADERS)]
    body = data[1:]
    try:
        if coding:
            body = inflated(coding, body, LIMIT)
        request = _from_json(body, signal) if is_json else body
        before = _placed(request)
    except (BadRequestError, TooLargeError):
        return
    _check_processed(signal, request, before, INSERT)


def inflate(data: bytes) -> None:
    """A compressed body, as every coding, and a body to be compressed."""
    for coding, compress in COMPRESS.items():
        assert inflated(coding, compress(data), len(data)) == data
        try:
            body = inflated(coding, data, LIMIT)
        except (BadRequestError, TooLargeError):
            continue
        assert len(body) <= LIMIT
        assert body == (
            zstandard.ZstdDecompressor().decompressobj().decompress(data)
            if coding == "zstd"
            else zlib.decompress(data, 31 if coding == "gzip" else 15)
        )


def otlp(data: bytes) -> None:
    """OTLP/JSON to protobuf and back, and protobuf to OTLP/JSON and back, as every signal."""
    for signal in (None, *SIGNALS):
        try:
            found, request = otlp_json.decode(data, signal)
        except BadRequestError:
            continue
        assert signal in {None, found}
        assert otlp_json.decode(otlp_json.encode(found, request), found) == (found, request)
    for signal in SIGNALS:
        try:
            text = otlp_json.encode(signal, data)
        except BadRequestError:
            continue
        assert b"\n" not in text
        # Unknown fields are gone, and a NaN has lost its bits: the text is what has to stay.
        assert otlp_json.encode(*otlp_json.decode(text, signal)) == text


def payload(data: bytes) -> None:
    """A recorded answer as text."""
    text = data.decode("utf-8", errors="replace")
    said = answers.read(text)
    check_said(said)
    assert answers.read(text) == said
    whole = text.strip("\ufeff \t\r\n")
    if whole.startswith(("{", "[", '"')) and not said.unreadable:
        # Cut off, it says nothing.
        cut = answers.read(whole[:-1])
        assert (cut.runs, cut.messages, cut.bare, cut.mentioned) == ([], [], [], set())
    # As text inside of JSON it says no more.
    wrapped = answers.read(json.dumps(text))
    check_said(wrapped)
    assert set(wrapped.runs) <= set(said.runs)
    assert set(wrapped.bare) <= set(said.bare)


def files(data: bytes) -> None:
    """A file of recorded answers."""
    found = list(recorded.read(data, "a"))
    for each in found:
        if isinstance(each, CaptureError):
            assert each.offset is None or 0 <= each.offset <= len(data)
            continue
        check_said(each.said)
        assert each.said.bare == []
        assert each.said or each.urls
        assert each.place.where.startswith("file a")
    assert list(map(repr, recorded.read(data, "a"))) == list(map(repr, found))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "grpc": grpc,
    "http": http,
    "inflate": inflate,
    "json": otlp,
    "payload": payload,
    "files": files,
}


def inflated(coding: str, data: bytes, limit: int) -> bytes:
    """Return what a body holds; every byte of it was told before."""
    told: list[int] = []
    body = receiving.inflate(coding, data, limit, told.append)
    assert sum(told) == len(body)
    return body


def check_said(said: Said) -> None:
    """Counts are counts, whole and in range, and runs have ids."""
    for usage in [*said.bare, *(run.usage for run in said.runs if run.usage is not None)]:
        numbers = [usage.prompt, usage.completion, usage.total]
        numbers += [each for each in (usage.cached, usage.reasoning) if each is not None]
        assert all(type(number) is int and 0 <= number < 1 << 63 for number in numbers)
        assert usage.total == usage.prompt + usage.completion
    for run in said.runs:
        assert isinstance(run.run_id, str)
        assert run.run_id


def _is_refused(call: Callable[[], object]) -> None:
    try:
        call()
    except BadRequestError:
        return
    raise AssertionError("taken, though it is no request")


def _placed(request: bytes) -> list[Placed]:
    """Return every item with what stands above it."""
    return [
        (
            *map(shallow.merged, (resourced.resource, resourced.schema_url, scoped.scope, scoped.schema_url)),
            bytes(item),
        )
        for resourced, scoped, item in shallow.items(shallow.parse(request))
    ]


def _check_processed(signal: Signal, request: bytes, before: list[Placed], settings: Settings) -> None:
    """Without memory: nothing is lost or moved, what is no candidate is as it came, and twice is once."""
    processed = pipeline.process(signal, request, settings)
    after = _placed(processed.request)
    assert processed.failures == []
    assert signal is Signal.METRICS or processed.items == len(before)
    assert len(before) == len(after)
    changed = 0
    for one, other in zip(before, after, strict=True):
        assert one[:4] == other[:4]
        changed += one[4] != other[4]
        assert settings.policy.repair or other[4].startswith(one[4])
        assert len(other[4]) <= len(one[4]) + MAX_GROWTH
    written = [each for each in processed.outcomes if each.inserted or each.replaced]
    assert changed <= len(written)
    if not changed:
        assert processed.request == request
    assert pipeline.process(signal, processed.request, settings).request == processed.request


def _check_live(request: bytes, before: list[Placed], settings: Settings) -> None:
    """With memory, the request in two parts: what leaves at once and what leaves later is together what came."""
    memory, failures = live.Memory.of(settings), []
    waiting: list[Waiting] = []
    out: list[Placed] = []
    for now, (part, _) in enumerate(shallow.halves(request) or [(request, 0)]):
        passing = live.process(Signal.TRACES, part, settings, memory, float(now), room=3)
        leaving = _placed(passing.processed.request)
        assert passing.processed.failures == []
        assert passing.processed.items == len(leaving)
        out += leaving
        waiting += passing.waiting
    resolutions = live.climb([each.candidate for each in waiting], memory, live.settled_at_deadline(memory), failures)
    requests, _, more = released(waiting, resolutions, settings, memory.index)
    assert [*failures, *more] == []
    for body, numbers in requests:
        leaving = _placed(body)
        assert len(leaving) == len(numbers)
        out += leaving
    _check_conserved(before, out)


def _check_conserved(before: Iterable[Placed], after: Iterable[Placed]) -> None:
    """Every item is there once, with at most something behind it, under what it was under."""
    came, left = Counter(before), Counter(after)
    left.subtract(came)
    grown = [each for each, count in left.items() for _ in range(count)]
    missing = [each for each, count in left.items() for _ in range(-count)]
    assert len(grown) == len(missing)
    for one in sorted(missing, key=lambda each: -len(each[4])):
        match = next(each for each in grown if each[:4] == one[:4] and each[4].startswith(one[4]))
        assert len(match[4]) <= len(one[4]) + MAX_GROWTH
        grown.remove(match)
