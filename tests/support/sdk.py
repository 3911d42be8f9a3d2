"""The real OpenTelemetry SDK as a client: its providers and OTLP/gRPC exporters, and a record of what they sent."""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.trace import Link, SpanKind, StatusCode, Tracer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
    from opentelemetry.proto.resource.v1 import resource_pb2
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

ASSISTANT_SCOPE = "opentelemetry.instrumentation.openai.v1"

_BATCH = 64


def _recording(exporter: type[Any], encode: Callable[[Any], Any]) -> type[Any]:
    class Recording(exporter):  # type: ignore[misc]
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.sent: list[bytes] = []
            self.results: list[str] = []

        def export(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
            self.sent.append(encode(batch).SerializeToString())
            result = super().export(batch, *args, **kwargs)
            self.results.append(result.name)
            return result

    return Recording


_Spans = _recording(OTLPSpanExporter, encode_spans)
_Metrics = _recording(OTLPMetricExporter, encode_metrics)
_Logs = _recording(OTLPLogExporter, encode_logs)


class Client:
    """
    An application with the three providers of the SDK, all exporting to one endpoint.

    `exporters` has, by signal, `sent`, the serialised requests in order, and `results`, what became of each.
    """

    def __init__(self, endpoint: str, *, simple: bool) -> None:
        settings = {"endpoint": f"http://{endpoint}", "insecure": True}
        self.exporters = {"traces": _Spans(**settings), "metrics": _Metrics(**settings), "logs": _Logs(**settings)}
        resource = Resource.create({"service.name": "shop", "deployment.environment": "test"})
        self.traces = TracerProvider(resource=resource)
        if simple:
            self.traces.add_span_processor(SimpleSpanProcessor(self.exporters["traces"]))
        else:
            # Nothing leaves before `flush` but full batches.
            self.traces.add_span_processor(
                BatchSpanProcessor(
                    self.exporters["traces"], schedule_delay_millis=3_600_000, max_export_batch_size=_BATCH
                )
            )
        reader = PeriodicExportingMetricReader(self.exporters["metrics"], export_interval_millis=math.inf)
        self.metrics = MeterProvider(metric_readers=[reader], resource=resource)
        self.logs = LoggerProvider(resource=resource)
        self.logs.add_log_record_processor(BatchLogRecordProcessor(self.exporters["logs"]))

    async def flush(self) -> None:
        """Return once everything recorded so far is answered for, by success or by failure."""
        for provider in (self.traces, self.metrics, self.logs):
            await asyncio.to_thread(provider.force_flush)

    async def shutdown(self) -> None:
        """End the providers' threads and connections."""
        for provider in (self.traces, self.metrics, self.logs):
            await asyncio.to_thread(provider.shutdown)


@asynccontextmanager
async def client(endpoint: str, *, simple: bool = False) -> AsyncIterator[Client]:
    """Return a client of `endpoint`; `simple` exports each span as it ends, from the thread that ends it."""
    running = Client(endpoint, simple=simple)
    try:
        yield running
    finally:
        await running.shutdown()


def record_orders(tracer: Tracer, count: int) -> None:
    """Record `count` traces of two spans each that hold every kind of value, an event, a link and a status."""
    for number in range(count):
        with tracer.start_as_current_span(f"POST /orders/{{id}} {number}", kind=SpanKind.SERVER) as server:
            server.set_attributes(
                {
                    "http.request.method": "POST",
                    "http.response.status_code": 201,
                    "order.total": 12.5 * number,
                    "order.express": number % 2 == 0,
                    "order.articles": ["nuts", "bolts", "Größe M8"],
                    "order.weights": [0.25, number / 3],
                }
            )
            links = [Link(server.get_span_context(), {"why": "same basket"})]
            with tracer.start_as_current_span("INSERT orders", kind=SpanKind.CLIENT, links=links) as insert:
                insert.add_event("retried", {"attempt": number})
                insert.set_status(StatusCode.ERROR, "deadlock") if number % 7 == 3 else insert.set_status(StatusCode.OK)


def record_assistant_run(traces: TracerProvider, payload: str) -> None:
    """Record an Assistant run as old instrumentations do: neither provider nor usage, the API's answer beside it."""
    tracer = traces.get_tracer(ASSISTANT_SCOPE, "0.33.12")
    with tracer.start_as_current_span("openai.assistant.run", kind=SpanKind.CLIENT) as run:
        run.set_attributes({"llm.request.type": "chat", "http.response.body": payload})


def record_metrics(metrics: MeterProvider) -> None:
    """Record one instrument of each shape."""
    meter = metrics.get_meter("shop.metrics", "1.2")
    meter.create_counter("orders", unit="{order}").add(3, {"express": True})
    meter.create_up_down_counter("baskets").add(-2)
    meter.create_histogram("order.total", unit="EUR").record(12.5, {"country": "AT"})


def record_logs(logs: LoggerProvider) -> None:
    """Record one plain and one structured log record."""
    logger = logs.get_logger("shop.logs", "1.2")
    logger.emit(LogRecord(timestamp=1_750_000_000_000_000_000, severity_number=SeverityNumber.WARN, body="low stock"))
    logger.emit(LogRecord(timestamp=1_750_000_000_000_000_001, body={"article": "nuts", "left": [1, 2.5, None]}))


@dataclass(frozen=True)
class Seen:
    """One span with all that belongs to it."""

    resource: resource_pb2.Resource
    scope: InstrumentationScope
    schema_urls: tuple[str, str]
    span: Span


def spans(requests: Iterable[bytes]) -> list[Seen]:
    """Return every span of the serialised requests by id, so that two lists are equal where each came exactly once."""
    found = [
        Seen(resourced.resource, scoped.scope, (resourced.schema_url, scoped.schema_url), span)
        for request in requests
        for resourced in ExportTraceServiceRequest.FromString(request).resource_spans
        for scoped in resourced.scope_spans
        for span in scoped.spans
    ]
    return sorted(found, key=lambda seen: seen.span.span_id)
