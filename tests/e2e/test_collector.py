"""The real Collector on both sides of a stage in a process of its own."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.support import collector as collectors
from tests.support import peers, sdk
from tests.support import stage as stages
from tests.support.downstream import Downstream

pytestmark = pytest.mark.e2e

RUN = {
    "id": "run_e2eGhIjKl0001",
    "object": "thread.run",
    "assistant_id": "asst_e2eGhIjKl0002",
    "thread_id": "thread_e2eGhIjKl0003",
    "status": "completed",
    "model": "gpt-4o-mini",
    "usage": {"prompt_tokens": 300, "completion_tokens": 21, "total_tokens": 321},
}
RETRY = {"enabled": True, "initial_interval": "100ms", "max_interval": "300ms", "max_elapsed_time": "60s"}


@pytest.mark.parametrize("simple", [False, True], ids=["batch", "simple"])
async def test_sdk_to_stage_to_collector(stage, collector, simple):
    """Every span exactly once, equal but for what was appended to the Assistant run's."""
    async with Downstream() as downstream:
        behind = await collector(collectors.relay(downstream.endpoint))
        running = await stage(stages.relay(behind.grpc_endpoint))
        async with sdk.client(running.grpc_endpoint, simple=simple) as client:
            await asyncio.to_thread(record_traffic, client)
            await client.flush()

    assert set(client.exporters["traces"].results) == {"SUCCESS"}
    assert_mended(sdk.spans(client.exporters["traces"].sent), arrived(downstream))


async def test_sdk_to_collector_to_stage_to_collector(stage, collector):
    async with Downstream() as downstream:
        behind = await collector(collectors.relay(downstream.endpoint))
        running = await stage(stages.relay(behind.grpc_endpoint))
        # gzip is the Collector's default between its own kind.
        ahead = await collector(collectors.relay(running.grpc_endpoint, compression="gzip"))
        async with sdk.client(ahead.grpc_endpoint) as client:
            await asyncio.to_thread(record_traffic, client)
            await client.flush()

    assert set(client.exporters["traces"].results) == {"SUCCESS"}
    assert_mended(sdk.spans(client.exporters["traces"].sent), arrived(downstream))


async def test_f46_metrics_and_logs_pass_between_collectors(stage, collector):
    """Compared with the same Collectors without a stage between them, which decode and encode everything again."""
    async with Downstream() as through, Downstream() as beside:
        running = await stage(stages.relay(through.endpoint))
        ahead = await collector(collectors.relay(running.grpc_endpoint))
        reference = await collector(collectors.relay(beside.endpoint))
        async with sdk.client(ahead.grpc_endpoint) as client:
            sdk.record_metrics(client.metrics)
            sdk.record_logs(client.logs)
            await client.flush()
            for signal in ("metrics", "logs"):
                for request in client.exporters[signal].sent:
                    await peers.export(reference.grpc_endpoint, request, of=signal)
            # Before the shutdown, which collects the metrics once more.
            got, expected = by_signal(through), by_signal(beside)

    assert expected.keys() == {"metrics", "logs"}
    assert got == expected


async def test_a_collector_keeps_its_spans_while_the_stage_is_away(stage, collector):
    async with Downstream() as downstream:
        running = await stage(stages.relay(downstream.endpoint))
        ahead = await collector(collectors.relay(running.grpc_endpoint, retry_on_failure=RETRY))
        async with sdk.client(ahead.grpc_endpoint, simple=True) as client:
            await asyncio.to_thread(sdk.record_orders, client.traces.get_tracer("shop"), 5)
            assert await running.stop() == 0

            meanwhile = asyncio.create_task(asyncio.to_thread(record_traffic, client))
            await ahead.until_logged("Exporting failed. Will retry the request after interval.")
            await stage(running.config)
            await meanwhile
            await client.flush()

    assert set(client.exporters["traces"].results) == {"SUCCESS"}
    assert_mended(sdk.spans(client.exporters["traces"].sent), arrived(downstream))


def record_traffic(client: sdk.Client) -> None:
    tracer = client.traces.get_tracer("shop", "2.0")
    sdk.record_orders(tracer, 30)
    sdk.record_assistant_run(client.traces, json.dumps(RUN))
    sdk.record_orders(tracer, 30)


def arrived(downstream: Downstream) -> list[sdk.Seen]:
    return sdk.spans(received.request for received in downstream.received)


def by_signal(downstream: Downstream) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for received in downstream.received:
        if received.request:  # not the one that asks whether the stage is up
            found.setdefault(received.signal, []).append(received.request)
    return found


def assert_mended(sent: list[sdk.Seen], got: list[sdk.Seen]) -> None:
    """Compare span by span: all as sent, and the Assistant run's with its provider and usage after what it had."""
    assert [seen.span.span_id for seen in got] == [seen.span.span_id for seen in sent]
    runs = 0
    for before, after in zip(sent, got, strict=True):
        if before.span.name == "openai.assistant.run":
            runs += 1
            had = len(before.span.attributes)
            inserted = {pair.key: pair.value for pair in after.span.attributes[had:]}
            del after.span.attributes[had:]
            assert inserted["gen_ai.system"].string_value == "openai"
            assert inserted["gen_ai.usage.prompt_tokens"].int_value == RUN["usage"]["prompt_tokens"]
            assert inserted["gen_ai.usage.completion_tokens"].int_value == RUN["usage"]["completion_tokens"]
            assert inserted["gen_ai.usage.total_tokens"].int_value == RUN["usage"]["total_tokens"]
        assert after == before
    assert runs == 1
