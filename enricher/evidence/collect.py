"""
Where payloads sit: the attributes and events of any span, the bodies and attributes of log records.

Every attribute is looked at, whatever its key, because applications choose their own; left out are the keys that
hold what people or models said (`payload` explains why). `payload_attributes` of the configuration names keys that
are read all the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from enricher.evidence import payload
from enricher.evidence.payload import Said
from enricher.otlp import attributes as otlp
from enricher.semconv import RUN_URL, served_by_azure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

NEEDLES: Final = (b"prompt_tokens", b"assistant_id", b"thread.", b"/threads/thread_")
"""Bytes of which every span or record with evidence holds one."""

SPOKEN: Final = re.compile(
    r"(?:gen_ai|llm)\.(?:prompts?|completions?|input|output|input_messages|output_messages)\."
    r"|gen_ai\.(?:input|output)\.messages\Z|gen_ai\.system_instructions\Z|gen_ai\.event\.content\Z"
    r"|gen_ai\.(?:prompt|completion)\Z|gen_ai\.tool\.|(?:input\.value|llm\.invocation_parameters)\Z"
    r"|traceloop\.entity\.input\Z|gen_ai\.task\.input\Z|langfuse\.observation\.input\Z|mlflow\.spanInputs\Z"
    r"|http\.request\.body|request_data\Z|db\.(?:statement|query\.text)\Z|exception\.",
)
"""Keys that hold words, requests or statements: what stands there was not answered by the API."""

URL_LIMIT: Final = 2048


@dataclass(frozen=True, slots=True)
class Place:
    """Where a piece of evidence was recorded. Times are those of the span, event or record, in ns; 0 is unknown."""

    where: str
    """In words, for people: `attribute http.response.body of span GET`."""
    service: str = ""
    trace_id: bytes = b""
    span_id: bytes = b""
    start: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one place says."""

    place: Place
    said: Said
    urls: tuple[tuple[str, str], ...] = ()
    """Thread and run ids (either may be empty) of the API paths that stand there."""
    azure: bool | None = None
    """Whether the API was served by Azure; None where no address stands beside it."""


def of_span(span: Span, service: str, extra_keys: frozenset[str] = frozenset()) -> Iterator[Evidence]:
    """Yield what the attributes and events of a span say."""
    values = otlp.first_values(span.attributes)
    urls, azure = _addresses(values)
    for key, value in values.items():
        if said := _said(key, value, extra_keys):
            place = Place(
                f"attribute {_shown(key)} of span {_shown(span.name)}",
                service,
                span.trace_id,
                span.span_id,
                span.start_time_unix_nano,
                span.end_time_unix_nano,
            )
            yield Evidence(place, said, azure=azure)
    if urls:
        place = Place(
            f"URL of span {_shown(span.name)}",
            service,
            span.trace_id,
            span.span_id,
            span.start_time_unix_nano,
            span.end_time_unix_nano,
        )
        yield Evidence(place, Said(), urls, azure)
    for event in span.events:
        for key, value in otlp.first_values(event.attributes).items():
            if said := _said(key, value, extra_keys):
                at = event.time_unix_nano
                where = f"attribute {_shown(key)} of event {_shown(event.name)} of span {_shown(span.name)}"
                yield Evidence(Place(where, service, span.trace_id, span.span_id, at, at), said)


def of_record(record: LogRecord, service: str, extra_keys: frozenset[str] = frozenset()) -> Iterator[Evidence]:
    """Yield what the body and the attributes of a log record say."""
    at = record.time_unix_nano or record.observed_time_unix_nano
    for where, key, value in (
        ("log body", "", record.body),
        *((f"attribute {_shown(k)} of a log record", k, v) for k, v in otlp.first_values(record.attributes).items()),
    ):
        if said := _said(key, value, extra_keys):
            yield Evidence(Place(where, service, record.trace_id, record.span_id, at, at), said)


def _said(key: str, value: AnyValue, extra_keys: frozenset[str]) -> Said | None:
    if key not in extra_keys and SPOKEN.match(key):
        return None
    kind = value.WhichOneof("value")
    if kind in ("string_value", "bytes_value"):
        text = otlp.text(value)
        return payload.read(text) or None if text and payload.looks_like_payload(text) else None
    if kind in ("kvlist_value", "array_value"):
        return payload.read_value(otlp.plain(value)) or None
    return None


def _addresses(values: Mapping[str, AnyValue]) -> tuple[tuple[tuple[str, str], ...], bool | None]:
    """Return the API paths among a span's short values, and whether Azure served them."""
    urls: list[tuple[str, str]] = []
    hosts: list[str] = []
    for key, value in values.items():
        if value.WhichOneof("value") != "string_value" or len(text := value.string_value) > URL_LIMIT:
            continue
        if "/threads/thread_" in text and not SPOKEN.match(key) and (found := RUN_URL.search(text)):
            urls.append((found[1], found[2] or ""))
        if "://" in text[:12] or key in ("server.address", "net.peer.name", "http.host"):
            hosts.append(text)
    if not hosts:
        return tuple(urls), None
    return tuple(urls), any(served_by_azure(host) for host in hosts)


def _shown(name: str) -> str:
    return name[:80] if name.isprintable() else repr(name[:80])
