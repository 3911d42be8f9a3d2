"""
Tells by their bytes whether something is an export request, and of which signal; nothing else in a file says so.

The three requests have the same shape down to the items, so the signal is read from the items: field 1 is the time
(fixed64) of a log record, the trace id (16 bytes) of a span and the name of a metric.
"""

from __future__ import annotations

import re
from itertools import islice
from pathlib import PurePath
from typing import TYPE_CHECKING

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from enricher.otlp import shallow
from enricher.otlp.shallow import Signal

if TYPE_CHECKING:
    from collections.abc import Iterator

ITEMS_LOOKED_AT = 16
"""The first item nearly always decides; a few more help where it holds next to nothing."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_WIDTHS = {_FIXED64: 8, _FIXED32: 4}
_WIRE_TYPES = {
    FieldDescriptor.TYPE_FIXED64: _FIXED64,
    FieldDescriptor.TYPE_FIXED32: _FIXED32,
    FieldDescriptor.TYPE_STRING: _LENGTH,
    FieldDescriptor.TYPE_BYTES: _LENGTH,
    FieldDescriptor.TYPE_MESSAGE: _LENGTH,
}
_ITEMS: dict[Signal, type[Message]] = {Signal.TRACES: Span, Signal.LOGS: LogRecord, Signal.METRICS: Metric}
_WIRE_TYPES_OF_ITEMS = {
    signal: {field.number: _WIRE_TYPES.get(field.type, _VARINT) for field in item.DESCRIPTOR.fields}
    for signal, item in _ITEMS.items()
}
_NAMES = {"trace": Signal.TRACES, "span": Signal.TRACES, "log": Signal.LOGS, "metric": Signal.METRICS}


class _FaultError(Exception):
    """The bytes from `at` on do not fit."""

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.at = at


class _CutError(Exception):
    """Everything fits up to where the data ends early."""


def first_fault(data: bytes, *, complete: bool) -> int | None:
    """
    Return where the bytes stop looking like an export request, or None if they do not.

    Looks at the three levels above the items. Where the data is only the beginning (not `complete`), what is cut off
    at its end is no fault.
    """
    try:
        _check(data, 0, len(data) if complete else 1 << 62, 0)
    except _FaultError as fault:
        return fault.at
    except _CutError:
        pass
    return None


def signal_of(request: bytes, hint: Signal | None) -> Signal | None:
    """
    Return the signal of a serialised request; None if its items are of none.

    `hint` decides where the bytes leave it open, as in a request without items; without a hint that is traces.
    Raises `BadRequestError` for bytes that are no request.
    """
    candidates = set(Signal)
    telling = b""
    malformed = False
    for _, _, item in islice(shallow.items(shallow.parse(request)), ITEMS_LOOKED_AT):
        fits = _signals_that_fit(item)
        malformed |= not fits
        if item and candidates & fits:
            candidates &= fits
            telling = telling or item
        if len(candidates) == 1:
            return candidates.pop()
    if telling:
        return _decide(candidates, telling, hint)
    return hint or (None if malformed else Signal.TRACES)


def hint_of(name: str) -> Signal | None:
    """Return the signal that a file name such as `a.logs.binpb` or `metrics.jsonl` speaks of, if it is one."""
    words = {word.removesuffix("s") for word in re.split("[^a-z]+", PurePath(name).name.lower())}
    signals = {_NAMES[word] for word in words & _NAMES.keys()}
    return signals.pop() if len(signals) == 1 else None


def _check(data: bytes, at: int, end: int, level: int) -> None:
    """Check one message; level 0 is the request, 1 a resource's part of it, 2 a scope's, whose items stay shut."""
    first = True
    for tag_at, number, wire_type, start, stop in _fields(data, at, end):
        known = number == 1 if level == 0 else number in (1, 2, 3)
        # Text and foreign bytes are full of accidental unknown fields, so something known has to come first.
        if (known and wire_type != _LENGTH) or (first and not known):
            raise _FaultError(tag_at)
        if (level, number) in ((0, 1), (1, 2)):
            _check(data, start, stop, level + 1)
        first = False


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield where each field's tag is, its number, its wire type, and where its value starts and stops."""
    while at < end:
        tag_at = at
        tag, start = _varint(data, at, end)
        number, wire_type = tag >> 3, tag & 7
        stop = start
        if wire_type == _LENGTH:
            size, start = _varint(data, start, end)
            stop = start + size
        elif wire_type == _VARINT:
            _, stop = _varint(data, start, end)
        elif wire_type in _WIDTHS:
            stop = start + _WIDTHS[wire_type]
        if number == 0 or stop == tag_at or wire_type not in (_LENGTH, _VARINT, *_WIDTHS) or stop > end:
            raise _FaultError(tag_at)
        yield tag_at, number, wire_type, start, stop
        at = stop


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for index in range(10):
        if at + index >= end:
            raise _FaultError(at)
        if at + index >= len(data):
            raise _CutError
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise _FaultError(at)


def _signals_that_fit(item: bytes) -> set[Signal]:
    """
    Return the signals in which every known field has the right wire type; none for an item that is malformed.

    Fields of a later version may be unknown, but the signal that knows more of them is the better one.
    """
    try:
        found = [(number, wire_type) for _, number, wire_type, _, _ in _fields(item, 0, len(item))]
    except _FaultError:
        return set()
    unknown = {
        signal: sum(number not in known for number, _ in found)
        for signal, known in _WIRE_TYPES_OF_ITEMS.items()
        if all(known.get(number, wire_type) == wire_type for number, wire_type in found)
    }
    return {signal for signal, count in unknown.items() if count == min(unknown.values())}


def _decide(candidates: set[Signal], item: bytes, hint: Signal | None) -> Signal:
    """Choose among the signals that an item may be of, judged by its field numbers and wire types."""
    candidates = {signal for signal in candidates if _parses(_ITEMS[signal], item)} or candidates
    sizes = {number: stop - start for _, number, _, start, stop in _fields(item, 0, len(item))}
    # A span without a trace id and a metric without a name are no use to anybody.
    if Signal.LOGS in candidates and 1 not in sizes:
        return Signal.LOGS
    if Signal.METRICS in candidates and _has_data_points(item):
        return Signal.METRICS
    if Signal.TRACES in candidates and (sizes.get(1), sizes.get(2)) == (16, 8):
        return Signal.TRACES
    if hint in candidates:
        return hint
    return next(signal for signal in (Signal.METRICS, Signal.TRACES, Signal.LOGS) if signal in candidates)


def _parses(kind: type[Message], item: bytes) -> bool:
    try:
        kind.FromString(item)
    except DecodeError:
        return False
    return True


def _has_data_points(item: bytes) -> bool:
    if not _parses(Metric, item):
        return False
    metric = Metric.FromString(item)
    data = metric.WhichOneof("data")
    return data is not None and len(getattr(metric, data).data_points) > 0
