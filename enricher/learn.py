"""Put what the spans or log records of a request say into the index."""

from __future__ import annotations

import traceback
from contextlib import suppress
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from enricher.evidence import collect
from enricher.otlp import shallow
from enricher.otlp.shallow import Signal
from enricher.rules import RUN_OBJECT
from enricher.scan import TRACE_ID_FIELD, Failure, decode_span, service_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from enricher.evidence.collect import Evidence
    from enricher.evidence.index import Index
    from enricher.otlp.haystack import Haystack
    from enricher.scan import Found, Settings

MODEL_CALL = (b"gen_ai.", b"llm.", b"langfuse.observation.usage_details", b"mlflow.chat.")
"""Bytes that a span of a model call holds."""

EVIDENCE = (b"thread_", b"prompt_tokens")
"""Bytes of which a request with evidence holds one; `collect.NEEDLES` then tells which spans."""

AZURE = (b".azure.", b".cognitive.microsoft.")
"""Bytes of which the names of Azure's hosts hold one."""

SPAN_ID_FIELD = b"\x12\x08"
"""Field 2 of a span: 8 bytes."""


def learn(  # noqa: PLR0913 - from a request into an index, with what dates and bounds it
    signal: Signal,
    sought: Haystack,
    index: Index,
    settings: Settings,
    failures: list[Failure],
    *,
    found: Sequence[Found] = (),
    now: float = 0.0,
    own: set[tuple[bytes, bytes]] | None = None,
) -> set[str]:
    """
    Put what a request's spans or log records say into the index, and return of which ids and spans it was said.

    Spans are named as `name_of_span` does. `found` are spans of the request that are decoded already. `own` are those
    that may be candidates; of other spans is not remembered what stands on them.
    """
    touched: set[str] = set()
    decoded = {(id(each.items), each.at): (each.span, each.attributes) for each in found if each.span is not None}
    for (r, s), places in sought.holding(EVIDENCE).items():
        resourced = sought.parsed.resourced[r]
        service, items = service_of(shallow.merged(resourced.resource)), resourced.scoped[s].items
        for at in places:
            item = items[at]
            if not any(needle in item for needle in collect.NEEDLES):
                continue
            try:
                if signal is Signal.LOGS:
                    said = collect.of_record(LogRecord.FromString(item), service, settings.payload_attributes)
                    touched |= add_all(said, index, now=now, own=None)
                else:
                    span, attributes = decoded.get((id(items), at)) or decode_span(item)
                    said = collect.of_span(span, attributes, service, settings.payload_attributes)
                    touched |= add_all(said, index, now=now, own=own)
            except DecodeError:
                continue
            except Exception:  # noqa: BLE001 - evidence that cannot be read is evidence that is not there
                failures.append(Failure("collect evidence", traceback.format_exc()))
    return touched


def add_all(
    found: Iterable[Evidence], index: Index, *, now: float = 0.0, own: set[tuple[bytes, bytes]] | None = None
) -> set[str]:
    """Add evidence to the index, and return what it was said of."""
    touched: set[str] = set()
    for each in found:
        span = (each.place.trace_id, each.place.span_id)
        of_span = own is None or span in own
        touched |= index.add(each, now, of_span=of_span)
        if of_span and each.place.span_id:
            touched.add(name_of_span(*span))
    return touched


def name_of_span(trace_id: bytes, span_id: bytes) -> str:
    """Return the name under which `learn` says that something was said of a span."""
    return f"span {trace_id.hex()} {span_id.hex()}"


def learn_model_calls(sought: Haystack, index: Index, now: float = 0.0) -> None:
    """Note the spans that call a model: near them, a usage object that stands alone may be theirs."""
    for (r, s), places in sought.holding(MODEL_CALL).items():
        items = sought.parsed.resourced[r].scoped[s].items
        for item in [items[at] for at in places]:
            # Trace and span id come first wherever anybody writes fields in order: no need to decode the span.
            if item[:2] == TRACE_ID_FIELD and item[18:20] == SPAN_ID_FIELD:
                index.add_model_call(item[2:18], item[20:28], now)
                continue
            with suppress(DecodeError):
                span = Span.FromString(item)
                index.add_model_call(span.trace_id, span.span_id, now)


def stands_elsewhere(sought: Haystack, found: Sequence[Found]) -> bool:
    """
    Tell whether other spans than the candidates may say something of their runs, or of who serves them.

    Who does is told by the address beside a payload or in the path of an API call.
    """
    holding = sum(map(len, sought.holding((RUN_OBJECT,)).values()))
    if holding > sum(RUN_OBJECT in each.items[each.at] for each in found):
        return True
    return sought.holds_any((collect.THREAD_PATH.encode(),)) and sought.holds_any(AZURE)


def learn_found(found: Found, index: Index, settings: Settings, failures: list[Failure]) -> None:
    """Put what a candidate's own span says into the index."""
    if found.span is None or found.candidate is None:
        return
    try:
        service, extra = found.candidate.service, settings.payload_attributes
        for each in collect.of_span(found.span, found.attributes, service, extra):
            index.add(each)
    except Exception:  # noqa: BLE001 - evidence that cannot be read is evidence that is not there
        failures.append(Failure("collect evidence", traceback.format_exc()))
