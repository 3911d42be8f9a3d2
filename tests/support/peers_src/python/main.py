"""
A client of the tests: sends a known set of spans with the OpenTelemetry SDK for Python, set up by OTEL_* variables.

    python main.py COUNT SEED

ids and times depend on the arguments alone, so two runs send the same. It ends with 0 if every export succeeded.
"""

from __future__ import annotations

import importlib
import itertools
import math
import os
import sys
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

EXPORTERS = {
    "grpc": "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "http/json": "opentelemetry.exporter.otlp.json.http.trace_exporter",
}


class Ids(IdGenerator):
    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._traces = itertools.count(1)
        self._spans = itertools.count(1)

    def generate_trace_id(self) -> int:
        return trace_id(self._seed, next(self._traces))

    def generate_span_id(self) -> int:
        return self._seed << 40 | next(self._spans)


def trace_id(seed: int, number: int) -> int:
    return seed << 64 | number


def order(tracer: Tracer, seed: int, number: int) -> None:
    begin = 1_750_000_000_123_456_789 + number * 1_000_000
    state = TraceState([("vendor", "1"), ("other", "2")])
    context = Context()
    if number % 2 == 0:
        remote = SpanContext(trace_id(seed, 1_000_000 + number), 1 << 56, True, TraceFlags(1), state)
        context = set_span_in_context(NonRecordingSpan(remote), context)
    attributes: dict[str, Any] = {
        "text": 'Größe M8\t尺寸 🔩 \0 "\\',
        "empty": "",
        "yes": True,
        "no": False,
        "zero": 0,
        "large": 9_007_199_254_740_993 + number,
        "least": -(1 << 63),
        "most": (1 << 63) - 1,
        "double": 0.1 + number,
        "tiny": 5e-324,
        "huge": sys.float_info.max,
        "endless": -math.inf,
        "nan": math.nan,
        "texts": ["nuts", "", "Größe"],
        "flags": [True, False],
        "ints": [1, -1, 9_007_199_254_740_995],
        "doubles": [0.25, 1.5e300],
        "none": [],
        "bytes": b"\x00\x7f\x80\xff",
        "map": {"ä": "ö", "mixed": [1, "zwei", True]},
    }
    name = f"POST /orders/{{id}} Größe 尺寸 🔩 {number}"
    server = tracer.start_span(name, context, SpanKind.SERVER, attributes, start_time=begin)
    links = [
        Link(server.get_span_context(), {"why": "same basket"}),
        Link(SpanContext(trace_id(seed, 77), 7, False, TraceFlags(0), state)),
    ]
    inside = set_span_in_context(server, context)
    insert = tracer.start_span("INSERT orders", inside, SpanKind.CLIENT, links=links, start_time=begin + 1000)
    for attempt in range(3):
        insert.add_event("retried ↻", {"try": attempt, "cause": "deadlock"}, begin + 2 + attempt)
    if number % 3 == 0:
        insert.set_status(StatusCode.ERROR, "Verklemmung ⚠")
    else:
        insert.set_status(StatusCode.OK)
    insert.end(begin + 1_000_000_000)
    server.end(begin + 2_000_000_000)


def run(tracer: Tracer, number: int) -> None:
    begin = 1_750_000_100_987_654_321 + number * 1_000_000_000
    attributes = {
        "llm.request.type": "chat",
        "http.response.body": os.environ["RUN_PAYLOAD"].replace("%d", str(number)),
    }
    span = tracer.start_span("openai.assistant.run", Context(), SpanKind.CLIENT, attributes, start_time=begin)
    span.end(begin + 1_000_000_000)


def exporter_class() -> type[Any]:
    found: type[Any] = importlib.import_module(EXPORTERS[os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"]]).OTLPSpanExporter

    class Remembering(found):  # type: ignore[misc]
        failed = False

        def export(self, spans: Any) -> SpanExportResult:
            result: SpanExportResult = super().export(spans)
            self.failed |= result is not SpanExportResult.SUCCESS
            return result

    return Remembering


def main(count: int, seed: int) -> int:
    exporter = exporter_class()()
    provider = TracerProvider(id_generator=Ids(seed), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    orders = provider.get_tracer("shop", "2.0", "urn:shop", {"scope": "ö"})
    runs = provider.get_tracer("opentelemetry.instrumentation.openai.v1", "0.33.12")
    for number in range(count):
        order(orders, seed, number)
        if number % 10 == 0:
            run(runs, number)
    provider.shutdown()
    return int(exporter.failed)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
