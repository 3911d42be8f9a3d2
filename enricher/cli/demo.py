"""`enricher demo`: the whole way in one process, on a recording that ships with the package."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.proto.trace.v1.trace_pb2 import Span
    from rich.console import RenderableType

    from enricher.otlp.shallow import Signal
    from enricher.outcome import Outcome

RECORDING = "demo.jsonl"
MAX_VALUE = 60


def demo() -> None:
    """
    Show what the stage does: a recorded run goes in by OTLP/gRPC, the mended span comes out.

    Starts a receiver, the pipeline and a downstream in this process, on free loopback ports, and ends by itself.
    """
    before, after, outcomes = asyncio.run(_through_the_stage())
    _print(before, after, outcomes)


async def _through_the_stage() -> tuple[list[Span], list[Span], list[Outcome]]:
    """Send the recording through a stage and return its candidates before and after."""
    from importlib import resources  # noqa: PLC0415 - only what is used is loaded: start-up time

    from enricher import pipeline  # noqa: PLC0415
    from enricher.deliver.grpc_exporter import GrpcExporter  # noqa: PLC0415
    from enricher.otlp import json  # noqa: PLC0415
    from enricher.receive.grpc_server import GrpcReceiver  # noqa: PLC0415
    from enricher.scan import Settings  # noqa: PLC0415

    text = resources.files(__package__).joinpath(RECORDING).read_bytes()
    signal, recorded = json.decode(text, None)
    arrived: list[bytes] = []
    outcomes: list[Outcome] = []

    async def keep(_: Signal, request: bytes) -> bytes:
        arrived.append(request)
        return b""

    downstream = GrpcReceiver("localhost:0", keep, max_receive_bytes=4 << 20)
    to_downstream = GrpcExporter(f"127.0.0.1:{await downstream.start()}", insecure=True)
    await to_downstream.start()

    async def consume(signal: Signal, request: bytes) -> bytes:
        processed = pipeline.process(signal, request, Settings())
        outcomes.extend(processed.outcomes)
        return await to_downstream.export(signal, processed.request)

    stage = GrpcReceiver("localhost:0", consume, max_receive_bytes=4 << 20)
    client = GrpcExporter(f"127.0.0.1:{await stage.start()}", insecure=True)
    await client.start()
    await client.export(signal, recorded)
    for part in (client, stage, to_downstream, downstream):
        await part.shutdown(1)
    wanted = {outcome.span_id for outcome in outcomes}
    return _spans([recorded], wanted), _spans(arrived, wanted), outcomes


def _spans(requests: list[bytes], span_ids: set[str]) -> list[Span]:
    from opentelemetry.proto.trace.v1.trace_pb2 import Span  # noqa: PLC0415

    from enricher.otlp import shallow  # noqa: PLC0415

    spans = [Span.FromString(raw) for request in requests for _, _, raw in shallow.items(shallow.parse(request))]
    return [span for span in spans if span.span_id.hex() in span_ids]


def _print(before: list[Span], after: list[Span], outcomes: list[Outcome]) -> None:
    from rich.console import Console  # noqa: PLC0415

    from enricher.cli.show import print_explanation  # noqa: PLC0415

    console = Console(highlight=False)
    console.print("A recorded run went in by OTLP/gRPC and came out at a downstream in this process.\n")
    for one, other, outcome in zip(before, after, outcomes, strict=True):
        console.print(_span("before", one, frozenset()))
        console.print(_span("after", other, frozenset(key for key, _ in outcome.inserted)))
        console.print("\nWhy (this is what [bold]enricher explain[/] prints for your own recordings):\n")
        print_explanation(console, outcome)
    console.print(
        "Next: [bold]enricher run --set exporters.otlp.endpoint=http://HOST:PORT[/] receives on localhost:4317 "
        "and sends the mended spans to your Collector."
    )


def _span(title: str, span: Span, inserted: frozenset[str]) -> RenderableType:
    from rich.markup import escape  # noqa: PLC0415
    from rich.panel import Panel  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    from enricher.otlp.attributes import plain  # noqa: PLC0415

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, min_width=2 + max(len(attribute.key) for attribute in span.attributes))
    grid.add_column(overflow="ellipsis", no_wrap=True)
    for attribute in span.attributes:
        value: Any = plain(attribute.value)
        added = attribute.key in inserted
        sign, style = ("+ ", "bold green") if added else ("  ", "")
        grid.add_row(f"{sign}{escape(attribute.key)}", escape(_cut(str(value))), style=style)
    return Panel(grid, title=f"{title}: {escape(span.name)} {span.span_id.hex()}", title_align="left")


def _cut(text: str) -> str:
    return text if len(text) <= MAX_VALUE else text[: MAX_VALUE - 1] + "…"
