"""
Where payloads sit: the attributes and events of any span, the bodies and attributes of log records.

Every attribute is looked at, whatever its key, because applications choose their own; left out are the keys that
hold what people or models said (`payload` explains why). `payload_attributes` of the configuration names keys that
are read all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from enricher.evidence import payload
from enricher.evidence.payload import Said
from enricher.otlp import attributes as otlp
from enricher.semconv import RUN_URL, SPOKEN, served_by_azure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    Attributes = list[tuple[str, AnyValue, str]]

THREAD_PATH: Final = "/threads/thread_"

NEEDLES: Final = tuple(each.encode() for each in (*payload.NEEDLES, THREAD_PATH))
"""Bytes of which every span or record with evidence holds one."""

URL_LIMIT: Final = 2048

SHORTEST: Final = 30
"""Characters of the shortest payload: a usage object without blanks."""

STRUCTURED: Final = frozenset({"bytes_value", "kvlist_value", "array_value"})

ADDRESS_KEYS: Final = frozenset({"server.address", "net.peer.name", "http.host"})


class Place(NamedTuple):
    """Where a piece of evidence was recorded. Times are those of the span, event or record, in ns; 0 is unknown."""

    where: str
    """In words, for people: `attribute http.response.body of span GET`."""
    service: str = ""
    trace_id: bytes = b""
    span_id: bytes = b""
    start: int = 0
    end: int = 0


class Evidence(NamedTuple):
    """What one place says."""

    place: Place
    said: Said
    urls: tuple[tuple[str, str], ...] = ()
    """Thread and run ids of the API paths that stand there; `ANY_RUN` where the path is that of the thread's runs."""
    azure: bool | None = None
    """Whether the API was served by Azure; None where no address stands beside it."""


def of_span(
    span: Span, attributes: Attributes, service: str, extra_keys: frozenset[str] = frozenset()
) -> Iterator[Evidence]:
    """Yield what the attributes and events of a span say. `attributes` are the span's, read."""
    found: list[tuple[str, Said]] = []
    paths: list[str] = []
    for key, value, text in attributes:
        if THREAD_PATH in text and len(text) <= URL_LIMIT and not SPOKEN.match(key):
            paths.append(text)
        if (not text or len(text) >= SHORTEST) and (said := _said(key, value, text, extra_keys)):
            found.append((f"attribute {_shown(key)} of span {_shown(span.name)}", said))
    urls = tuple([(path[1], path[3] or path[2] or "") for text in paths if (path := RUN_URL.search(text))])
    if urls:
        found.append((f"URL of span {_shown(span.name)}", Said()))
    trace_id, span_id = otlp.valid_id(span.trace_id), otlp.valid_id(span.span_id)
    if found:
        azure = _azure(attributes)
        start, end = span.start_time_unix_nano, span.end_time_unix_nano
        for where, said in found:
            place = Place(where, service, trace_id, span_id, start, end)
            yield Evidence(place, said, () if said else urls, azure)
    for event in span.events:
        for key, value, text in otlp.read(event.attributes):
            if said := _said(key, value, text, extra_keys):
                at = event.time_unix_nano
                where = f"attribute {_shown(key)} of event {_shown(event.name)} of span {_shown(span.name)}"
                yield Evidence(Place(where, service, trace_id, span_id, at, at), said)


def of_record(record: LogRecord, service: str, extra_keys: frozenset[str] = frozenset()) -> Iterator[Evidence]:
    """Yield what the body and the attributes of a log record say."""
    at = record.time_unix_nano or record.observed_time_unix_nano
    trace_id, span_id = otlp.valid_id(record.trace_id), otlp.valid_id(record.span_id)
    places = [("log body", "", record.body, record.body.string_value)]
    places += [(f"attribute {_shown(k)} of a log record", k, v, t) for k, v, t in otlp.read(record.attributes)]
    for where, key, value, text in places:
        if said := _said(key, value, text, extra_keys):
            yield Evidence(Place(where, service, trace_id, span_id, at, at), said)


def _azure(attributes: Attributes) -> bool | None:
    """Tell whether one of the addresses among the values is Azure's; None if there is none."""
    addresses = [
        text
        for key, _, text in attributes
        if (key in ADDRESS_KEYS or text.startswith(("http://", "https://")))
        and len(text) <= URL_LIMIT
        and not SPOKEN.match(key)
    ]
    return any(map(served_by_azure, addresses)) if addresses else None


def _said(key: str, value: AnyValue, text: str, extra_keys: frozenset[str]) -> Said | None:
    # The value is looked at before the key: few values can be a payload, and most keys would have to be matched.
    if text:
        if not payload.looks_like_payload(text) or _is_spoken(key, extra_keys):
            return None
        return payload.read(text) or None
    kind = value.WhichOneof("value")
    if kind not in STRUCTURED or _is_spoken(key, extra_keys):
        return None
    if kind == "bytes_value":
        return payload.read(otlp.text(value) or "") or None
    return payload.read_value(otlp.plain(value)) or None


def _is_spoken(key: str, extra_keys: frozenset[str]) -> bool:
    return key not in extra_keys and SPOKEN.match(key) is not None


def _shown(name: str) -> str:
    return name[:80] if name.isprintable() else repr(name[:80])
