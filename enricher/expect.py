"""
Compare what came out of a replay with what was expected, and say the differences in words.

Spans are matched by trace and span id, log records by their bytes. Which request or which position a span left in
does not matter; what stands above it (resource, scope, schema URLs) does.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from enricher.otlp import shallow
from enricher.otlp.attributes import plain
from enricher.otlp.shallow import Signal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    Key = tuple[bytes, bytes]

MAX_SHOWN = 60
"""Characters of a value that a difference shows."""


def differences(expected: Iterable[tuple[Signal, bytes]], actual: Iterable[tuple[Signal, bytes]]) -> Iterator[str]:
    """Yield one line a difference; nothing if the two hold the same telemetry. Raises `BadRequestError`."""
    want, want_other = _read(expected)
    have, have_other = _read(actual)
    for key, spans in want.items():
        name = _name(key, spans[0])
        found = have.pop(key, [])
        if len(found) != len(spans):
            yield f"{name}: expected {_times(len(spans))}, found {_times(len(found))}"
        for one, other in zip(spans, found, strict=False):
            yield from (f"{name}: {line}" for line in _compare(one, other))
    for key, spans in have.items():
        yield f"{_name(key, spans[0])}: not expected"
    for what in sorted({what for what, _ in want_other | have_other}):
        wanted = Counter({data: n for (w, data), n in want_other.items() if w == what})
        got = Counter({data: n for (w, data), n in have_other.items() if w == what})
        if missing := (wanted - got).total():
            yield f"{missing} {what} expected and not found as they were"
        if extra := (got - wanted).total():
            yield f"{extra} {what} not expected"


class _Item:
    """A span and what stands above it."""

    __slots__ = ("above", "raw", "span")

    def __init__(self, above: tuple[bytes, ...], raw: bytes, span: Span) -> None:
        self.above, self.raw, self.span = above, raw, span


def _read(requests: Iterable[tuple[Signal, bytes]]) -> tuple[dict[Key, list[_Item]], Counter[tuple[str, bytes]]]:
    spans: defaultdict[Key, list[_Item]] = defaultdict(list)
    other: Counter[tuple[str, bytes]] = Counter()
    for signal, request in requests:
        if signal is Signal.METRICS:
            other["metrics requests", request] += 1
            continue
        for resourced, scoped, raw in shallow.items(shallow.parse(request)):
            pieces = (resourced.resource, resourced.schema_url, scoped.scope, scoped.schema_url)
            above = tuple(map(shallow.merged, pieces))
            if signal is Signal.LOGS:
                other["log records", b"\0".join((*above, raw))] += 1
                continue
            try:
                span = Span.FromString(raw)
            except DecodeError:
                other["spans that cannot be decoded", b"\0".join((*above, raw))] += 1
            else:
                spans[span.trace_id, span.span_id].append(_Item(above, raw, span))
    return dict(spans), other


def _compare(want: _Item, have: _Item) -> Iterator[str]:
    names = ("resource", "resource schema URL", "scope", "schema URL")
    kinds = (Resource, None, InstrumentationScope, None)
    for name, kind, one, other in zip(names, kinds, want.above, have.above, strict=True):
        # Through JSON, fields may come in another order: equal messages are equal.
        if one != other and (kind is None or _decoded(kind, one) != _decoded(kind, other)):
            yield f"the {name} differs"
    if want.raw == have.raw or want.span == have.span:
        return
    yield from _compare_attributes(_values(want.span), _values(have.span))
    for field in Span.DESCRIPTOR.fields:
        if field.name != "attributes" and getattr(want.span, field.name) != getattr(have.span, field.name):
            yield f"{field.name} differs"


def _decoded(kind: type[Resource | InstrumentationScope], data: bytes) -> object:
    try:
        return kind.FromString(data)
    except DecodeError:
        return data


def _compare_attributes(want: dict[str, list[Any]], have: dict[str, list[Any]]) -> Iterator[str]:
    for key in [*want, *(key for key in have if key not in want)]:
        one, other = want.get(key), have.get(key)
        if one == other:
            continue
        if one is None:
            yield f"attribute {key}: expected none, found {_shown(other)}"
        elif other is None:
            yield f"attribute {key}: expected {_shown(one)}, found none"
        else:
            wanted, found = _shown_apart(one, other)
            yield f"attribute {key}: expected {wanted}, found {found}"


def _values(span: Span) -> dict[str, list[Any]]:
    values: dict[str, list[Any]] = {}
    for attribute in span.attributes:
        # The kind belongs to the value: 1, 1.0 and true are equal in Python and not on the wire.
        values.setdefault(attribute.key, []).append((attribute.value.WhichOneof("value"), plain(attribute.value)))
    return values


def _shown(values: Sequence[Any] | None) -> str:
    shown = []
    for _, value in values or ():
        text = repr(value)
        shown.append(text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…")
    return " and ".join(shown)


def _shown_apart(want: Sequence[Any], have: Sequence[Any]) -> tuple[str, str]:
    """Return both as `_shown`; of long ones that begin alike, the part where they differ first."""
    wanted, found = _shown(want), _shown(have)
    if wanted != found:
        return wanted, found
    whole = [" and ".join(repr(value) for _, value in values) for values in (want, have)]
    alike = next((n for n, (one, other) in enumerate(zip(*whole, strict=False)) if one != other), len(min(whole)))
    start = alike - MAX_SHOWN // 2
    wanted, found = (f"…{text[start : start + MAX_SHOWN]}{'…' * (len(text) > start + MAX_SHOWN)}" for text in whole)
    return wanted, found


def _name(key: Key, item: _Item) -> str:
    return f"span {key[1].hex()} {item.span.name[:MAX_SHOWN]!r} of trace {key[0].hex()}"


def _times(count: int) -> str:
    return {0: "none", 1: "one"}.get(count, str(count))
