"""The real Collector on both sides of a stage in a process of its own."""

from __future__ import annotations

import asyncio
import json

import pytest

from enricher.deliver.lanes import MOST_CALLS
from tests.support import collector as collectors
from tests.support import load as loads
from tests.support import peers, sdk
from tests.support import stage as stages
from tests.support.build import BODY, a_request, a_span, openllmetry_span
from tests.support.downstream import Downstream
from tests.support.waiting import until

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
SPANS = 20
CONSUMERS = 10
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


async def test_srv_04_behind_a_stage_nobody_sees_the_collectors_empty_partial_success(stage, collector):
    """The Collector answers full success with a partial success that is set and says nothing."""
    async with Downstream() as downstream:
        behind = await collector(collectors.relay(downstream.endpoint))
        running = await stage(stages.relay(behind.grpc_endpoint))

        assert await peers.export(behind.grpc_endpoint, orders(1)) == b"\n\0"
        assert await peers.export(running.grpc_endpoint, orders(2)) == b""


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


def orders(number: int) -> bytes:
    """Return spans that no other request holds, an Assistant run's with its payload among them."""
    first = (number + 1) * SPANS
    answer = json.dumps(RUN | {"id": f"run_e2e{number}"})
    run = openllmetry_span("0.33.12", number=first, trace=first, usage=None, more={BODY: answer})
    return a_request([run, *(a_span(number=first + n, trace=first) for n in range(1, SPANS))])


def with_queue(endpoint: str) -> dict:
    """Return the configuration of a Collector that takes what its queue has room for and tries until it is taken."""
    queue = {"enabled": True, "queue_size": 10_000, "num_consumers": CONSUMERS}
    return collectors.relay(endpoint, sending_queue=queue, retry_on_failure=RETRY)


async def ended(peer: peers.Running, how: str) -> None:
    """End a peer by a signal, with all that it has under way."""
    if how == "killed":
        peer.kill()
        await peer.wait()
    else:
        assert await peer.stop() == 0


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_f18_f20_behind_a_collector_a_stage_that_goes_away_twice_loses_nothing(stage, collector, how):
    """What is stopped also sends nothing twice; what is killed may, but for no more than was under way."""
    async with Downstream() as downstream:
        behind = await collector(collectors.relay(downstream.endpoint))
        exporter = {"endpoint": behind.grpc_endpoint, "tls": {"insecure": True}}
        running = await stage({"exporters": {"otlp": exporter}})
        ahead = await collector(with_queue(running.grpc_endpoint))
        load = loads.Load(ahead.grpc_endpoint, orders, callers=8, per_second=100)
        async with load.running():
            for _ in range(2):
                await asyncio.sleep(0.5)
                await ended(running, how)
                await asyncio.sleep(0.5)
                running = await stage(running.config)
            await asyncio.sleep(0.5)
        twice = await all_as_sent(load, downstream)

    assert load.refused == {}
    # At a kill: what the Collector's consumers had under way, and the calls that the stage had.
    assert twice <= (2 * SPANS * (CONSUMERS + MOST_CALLS + 4) if how == "killed" else 0)


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_f16_in_front_of_a_collector_that_goes_away_twice_a_stage_neither_refuses_nor_loses(
    stage, collector, how
):
    async with Downstream() as downstream:
        behind = await collector(collectors.relay(downstream.endpoint))
        exporter = {"endpoint": behind.grpc_endpoint, "tls": {"insecure": True}}
        exporter |= {"retry_on_failure": {"initial_interval": "100ms"}}
        running = await stage({"exporters": {"otlp": exporter}, "delivery": {"patience": "300ms"}})
        load = loads.Load(running.grpc_endpoint, orders, callers=8, per_second=100)
        async with load.running():
            for _ in range(2):
                await asyncio.sleep(0.5)
                await ended(behind, how)
                await asyncio.sleep(0.5)
                behind = await collector(behind.config)
            await asyncio.sleep(0.5)
        twice = await all_as_sent(load, downstream)

    assert load.refused == {}
    assert twice <= 2 * SPANS * (MOST_CALLS + 4)


async def all_as_sent(load: loads.Load, downstream: Downstream) -> int:
    """Return how many spans came again, once all that was acknowledged is there as it was sent, with its usage."""
    await until(lambda: not load.acked - loads.arrived(downstream.taken))
    sent = sdk.spans(map(orders, {int.from_bytes(span_id) // SPANS - 1 for _, span_id in load.acked}))
    for seen in sent:
        seen.span.status.SetInParent()  # the Collector writes one where there was none
    came: dict[bytes, sdk.Seen] = {}
    got = sdk.spans(each.request for each in downstream.taken)
    for seen in got:
        assert came.setdefault(seen.span.span_id, seen) == seen
    assert_mended(sent, list(came.values()), runs=len(sent) // SPANS)
    return len(got) - len(came)


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


def assert_mended(sent: list[sdk.Seen], got: list[sdk.Seen], *, runs: int = 1) -> None:
    """Compare span by span: all as sent, and the Assistant runs' with provider and usage after what they had."""
    assert [seen.span.span_id for seen in got] == [seen.span.span_id for seen in sent]
    found = 0
    for before, after in zip(sent, got, strict=True):
        if before.span.name == "openai.assistant.run":
            found += 1
            had = len(before.span.attributes)
            inserted = {pair.key: pair.value for pair in after.span.attributes[had:]}
            del after.span.attributes[had:]
            assert inserted["gen_ai.system"].string_value == "openai"
            assert inserted["gen_ai.usage.prompt_tokens"].int_value == RUN["usage"]["prompt_tokens"]
            assert inserted["gen_ai.usage.completion_tokens"].int_value == RUN["usage"]["completion_tokens"]
            assert inserted["gen_ai.usage.total_tokens"].int_value == RUN["usage"]["total_tokens"]
        assert after == before
    assert found == runs
