"""The stock Python SDK in front of a stage in a process of its own."""

from __future__ import annotations

import asyncio
import json

import grpc
import pytest
from grpc.aio import AioRpcError
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from enricher.otlp import attributes, shallow
from tests.support import peers, sdk
from tests.support import stage as stages
from tests.support.downstream import Downstream, delayed

pytestmark = pytest.mark.e2e

RUN = {
    "id": "run_e2eAbCdEf0001",
    "object": "thread.run",
    "created_at": 1_750_000_000,
    "completed_at": 1_750_000_004,
    "assistant_id": "asst_e2eAbCdEf0002",
    "thread_id": "thread_e2eAbCdEf0003",
    "status": "completed",
    "model": "gpt-4o-mini",
    "usage": {"prompt_tokens": 1234, "completion_tokens": 56, "total_tokens": 1290},
}


@pytest.mark.parametrize("simple", [False, True], ids=["batch", "simple"])
async def test_every_request_of_the_sdk_arrives_as_the_bytes_it_was(stage, simple):
    async with Downstream() as downstream:
        running = await stage(stages.relay(downstream.endpoint))
        async with sdk.client(running.grpc_endpoint, simple=simple) as client:
            await asyncio.to_thread(sdk.record_orders, client.traces.get_tracer("shop"), 100)
            await client.flush()

    exporter = client.exporters["traces"]
    assert set(exporter.results) == {"SUCCESS"}
    assert len(sdk.spans(exporter.sent)) == 200
    # Concatenated, because requests under way at once may be merged, and their merge is their concatenation.
    assert b"".join(arrived(downstream, "traces")) == b"".join(exporter.sent)


async def test_an_assistant_run_gains_provider_and_usage_and_keeps_its_bytes(stage):
    async with Downstream() as downstream:
        running = await stage(stages.relay(downstream.endpoint))
        async with sdk.client(running.grpc_endpoint) as client:
            sdk.record_orders(client.traces.get_tracer("shop"), 3)
            sdk.record_assistant_run(client.traces, json.dumps(RUN))
            sdk.record_orders(client.traces.get_tracer("shop"), 3)
            await client.flush()

    sent, got = span_bytes(client.exporters["traces"].sent), span_bytes(arrived(downstream, "traces"))
    assert len(got) == len(sent)
    changed = [(before, after) for before, after in zip(sent, got, strict=True) if before != after]
    assert len(changed) == 1
    before, after = changed[0]
    assert after.startswith(before)
    inserted = Span.FromString(after.removeprefix(before)).attributes
    assert {pair.key: attributes.plain(pair.value) for pair in inserted} == {
        "gen_ai.system": "openai",
        "gen_ai.provider.name": "openai",
        "gen_ai.usage.prompt_tokens": 1234,
        "gen_ai.usage.input_tokens": 1234,
        "gen_ai.usage.completion_tokens": 56,
        "gen_ai.usage.output_tokens": 56,
        "gen_ai.usage.total_tokens": 1290,
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.response.model": "gpt-4o-mini",
        "gen_ai.response.id": "run_e2eAbCdEf0001",
        "gen_ai.conversation.id": "thread_e2eAbCdEf0003",
        "gen_ai.agent.id": "asst_e2eAbCdEf0002",
    }


async def test_f46_metrics_and_logs_arrive_as_the_bytes_they_were(stage):
    async with Downstream() as downstream:
        running = await stage(stages.relay(downstream.endpoint))
        async with sdk.client(running.grpc_endpoint) as client:
            sdk.record_metrics(client.metrics)
            sdk.record_logs(client.logs)
            await client.flush()
            # Before the shutdown, which collects the metrics once more.
            sent = {name: list(client.exporters[name].sent) for name in ("metrics", "logs")}
            got = {name: arrived(downstream, name) for name in ("metrics", "logs")}

    assert all(sent.values())
    assert got == sent


async def test_f01_a_client_sees_unavailable_while_downstream_is_down_and_success_once_it_is_up(stage):
    """Without a queue the answer is downstream's own, so the client keeps the request and sends it again."""
    endpoint = peers.free_endpoint()
    running = await stage(stages.relay(endpoint))

    with pytest.raises(AioRpcError) as refused:
        await peers.export(running.grpc_endpoint, _request())

    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    async with Downstream(endpoint=endpoint) as downstream, sdk.client(running.grpc_endpoint) as client:
        sdk.record_orders(client.traces.get_tracer("shop"), 1)
        await client.flush()
        assert client.exporters["traces"].results == ["SUCCESS"]
        assert sdk.spans(arrived(downstream, "traces")) == sdk.spans(client.exporters["traces"].sent)


async def test_f20_sigterm_finishes_what_is_in_flight_and_exits_with_0(stage):
    opened = asyncio.Event()
    async with Downstream() as downstream:
        running = await stage(stages.relay(downstream.endpoint))
        so_far = len(downstream.received)
        downstream.script.append(delayed(opened))
        async with peers.channel(running.grpc_endpoint) as bystander:
            await bystander.channel_ready()
            in_flight = asyncio.create_task(peers.export(running.grpc_endpoint, _request()))
            await downstream.requests(so_far + 1)

            running.terminate()
            # The stage has taken the signal when it says goodbye to an idle connection.
            await asyncio.wait_for(bystander.wait_for_state_change(grpc.ChannelConnectivity.READY), 10)
            assert not in_flight.done()
            opened.set()

            assert await in_flight == b""
        assert await running.wait() == 0
        assert arrived(downstream, "traces") == [_request()]


def arrived(downstream: Downstream, signal: str) -> list[bytes]:
    """Return the requests of a signal; the empty one that asks whether the stage is up may come through or not."""
    return [received.request for received in downstream.received if received.signal == signal and received.request]


def span_bytes(requests: list[bytes]) -> list[bytes]:
    return [span for request in requests for _, _, span in shallow.items(shallow.parse(request))]


def _request() -> bytes:
    """Return a small request of one span, made without the SDK."""
    request = sdk.ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id, span.name = b"\x01" * 16, b"\x02" * 8, "GET /"
    return request.SerializeToString()
