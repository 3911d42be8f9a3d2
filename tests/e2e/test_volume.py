"""Some 100,000 spans, with log records and metrics beside them: each arrives once, and as it was sent."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter

import aiohttp
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from enricher.otlp import json, shallow
from enricher.otlp.shallow import Signal
from tests.support import peers, sdk, telemetrygen
from tests.support.build import (
    BODY,
    a_list,
    a_log_record,
    a_message_payload,
    a_request,
    a_run_payload,
    a_span,
    an_http_span,
    as_json,
    attributes,
    openllmetry_span,
)
from tests.support.downstream import Downstream
from tests.support.load import arrived
from tests.support.numbers import numbers_of
from tests.support.waiting import until

pytestmark = pytest.mark.e2e

SPANS = 200
REQUESTS = 500
CALLERS = 4
ORDERS = 1250
KINDS = {"protobuf": "application/x-protobuf", "json": "application/json"}


def an_answer(number, which):
    """Return one of a request's two runs, with counts that no other has."""
    run = 2 * number + 1 + which
    return a_run_payload(usage=(1_000_000 * (which + 1) + number, number), number=run, thread=run)


def spans(number):
    """
    Return a request of spans that no other one holds, two runs' among them.

    One run's answer is on its span, and that of the other one comes with the next request, or came with the one before.
    """
    first = number * SPANS + 1
    pair = number + 1 if number % 2 == 0 else number - 1
    there = pair * SPANS + 1
    found = [
        openllmetry_span(
            "0.33.12",
            number=first,
            trace=first,
            usage=None,
            more=[(BODY, as_json(an_answer(number, 0)))],
        ),
        openllmetry_span(
            "0.45.6", number=first + 1, trace=first + 1, usage=None, messages=[2 * number + 2], existing=True
        ),
        an_http_span(
            an_answer(pair, 1),
            number=first + 2,
            trace=there + 1,
            start=18,
        ),
        an_http_span(
            a_list([a_message_payload(number=2 * pair + 2, run=2 * pair + 2, thread=2 * pair + 2)]),
            number=first + 3,
            trace=there + 1,
            start=19,
        ),
    ]
    plain = [
        a_span(
            "POST /orders", {"http.request.method": "POST", "order": first + n, "text": "Größe M8"}, number=first + n
        )
        for n in range(4, SPANS)
    ]
    return a_request([*found, *plain])


def logs(number):
    return a_request([a_log_record(f"order {number * 100 + n} is packed", {"n": n}) for n in range(100)])


def metrics(number):
    request = ExportMetricsServiceRequest()
    scope = request.resource_metrics.add().scope_metrics.add()
    for n in range(50):
        scope.metrics.add(name=f"orders_{number}_{n}").gauge.data_points.add(as_int=n)
    return request.SerializeToString()


def items_of(requests):
    """Return how often each item came, with what stood above it."""
    return Counter(
        (b"".join(resourced.resource), b"".join(scoped.scope), bytes(item))
        for request in requests
        for resourced, scoped, item in shallow.items(shallow.parse(request))
    )


def count_of(downstream, signal):
    """Return how many items of a signal downstream has taken."""
    return sum(shallow.count(shallow.parse(each.request)) for each in downstream.taken if each.signal is signal)


def split(items):
    """Return the spans of Assistant runs by their ids, and all the others."""
    runs, others = {}, Counter()
    for (resource, scope, raw), count in items.items():
        if b"openai.assistant.run" in raw:
            assert count == 1
            span = Span.FromString(raw)
            assert (span.trace_id, span.span_id) not in runs
            runs[span.trace_id, span.span_id] = (resource, scope, raw)
        else:
            others[resource, scope, raw] = count
    return runs, others


async def over_grpc(stage, requests):
    async with peers.channel(stage.grpc_endpoint) as channel:
        for signal, request in requests:
            assert await channel.unary_unary(peers.EXPORT[signal])(request, timeout=20) == b""


async def over_http(stage, requests, kind):
    entry = stage.config["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    async with aiohttp.ClientSession(headers={"Content-Type": KINDS[kind]}) as session:
        for signal, request in requests:
            body = json.encode(signal, request) if kind == "json" else request
            async with session.post(f"http://{entry}/v1/{signal}", data=body) as response:
                assert (response.status, await response.read()) == (200, b"{}" if kind == "json" else b"")


async def from_an_sdk(stage):
    """Record with the real SDK in a thread, and return what its exporter sent."""
    async with sdk.client(stage.grpc_endpoint, simple=False) as client:
        tracer = client.traces.get_tracer("shop", "2.0")
        for _ in range(ORDERS // 250):
            # Its queue holds 2,048 spans, and what is beyond is dropped.
            await asyncio.to_thread(sdk.record_orders, tracer, 250)
            await client.flush()
    assert set(client.exporters["traces"].results) == {"SUCCESS"}
    return client.exporters["traces"].sent


def counts_on(runs):
    """Return the token counts on each run's span, by the span's number."""
    found = {}
    for (_, span_id), (_, _, raw) in runs.items():
        said = attributes(raw)
        found[int.from_bytes(span_id)] = (said["gen_ai.usage.prompt_tokens"], said["gen_ai.usage.completion_tokens"])
    return found


async def test_every_span_of_many_clients_arrives_once_and_as_it_was_sent(stage):
    """The runs' spans with their own counts behind them, wherever the answer was; the stage counts the same."""
    sent = {signal: [] for signal in Signal}
    make = {Signal.TRACES: spans, Signal.LOGS: logs, Signal.METRICS: metrics}

    def requests():
        for number in range(REQUESTS):
            for signal in Signal if number % 2 else [Signal.TRACES]:
                request = make[signal](number)
                sent[signal].append(request)
                yield signal, request

    async with Downstream() as downstream:
        running = await stage({"exporters": {"otlp": {"endpoint": downstream.endpoint, "tls": {"insecure": True}}}})
        book = requests()
        recorded = await asyncio.gather(
            *(from_an_sdk(running) for _ in range(2)),
            *(over_grpc(running, book) for _ in range(CALLERS)),
            *(over_http(running, book, "protobuf") for _ in range(CALLERS)),
            over_http(running, book, "json"),
        )
        sent[Signal.TRACES] += itertools.chain(*filter(None, recorded))
        total = items_of(sent[Signal.TRACES]).total()
        await until(lambda: count_of(downstream, Signal.TRACES) >= total)
        counted = await numbers_of(running)
        assert await running.stop() == 0

    came = {signal: items_of(each.request for each in downstream.taken if each.signal is signal) for signal in Signal}
    expected, others = split(items_of(sent[Signal.TRACES]))
    mended, passed = split(came[Signal.TRACES])
    assert total >= 100_000
    assert passed == others
    for signal in (Signal.LOGS, Signal.METRICS):
        assert came[signal] == items_of(sent[signal])
    assert mended.keys() == expected.keys()
    for identity, (resource, scope, raw) in expected.items():
        assert mended[identity][:2] == (resource, scope)
        assert mended[identity][2].startswith(raw)
    assert counts_on(mended) == {
        number * SPANS + 1 + which: (1_000_000 * (which + 1) + number, number)
        for number in range(REQUESTS)
        for which in (0, 1)
    }
    log_records = came[Signal.LOGS].total()
    assert counted["receiver_accepted_spans_total"] == counted["exporter_sent_spans_total"] == total
    assert counted["receiver_accepted_log_records_total"] == counted["exporter_sent_log_records_total"] == log_records
    assert counted["hold_spans"] == counted["exporter_queue_spans"] == counted["dead_letter_spans"] == 0
    assert counted["enrich_errors_total"] == 0


@pytest.fixture(scope="session")
def generator():
    """Of the session, so it is built before the proxy settings are taken away."""
    return telemetrygen.build()


def shapes(received):
    """Return what the spans are but for their ids and times, with what stands above them."""
    found = set()
    for resource, scope, raw in items_of(each.request for each in received if each.signal is Signal.TRACES):
        span = Span.FromString(raw)
        for name in ("trace_id", "span_id", "parent_span_id", "start_time_unix_nano", "end_time_unix_nano"):
            span.ClearField(name)
        found.add((resource, scope, span.SerializeToString()))
    return found


async def test_what_telemetrygen_sends_arrives_once(stage, generator):
    """Spans one a request, because what it batches it drops; three signals over both protocols at the same time."""
    traces = ("traces", "--child-spans", "3", "--batch=false", "--traces")
    async with Downstream() as beside:
        await telemetrygen.send(generator, beside.endpoint, *traces, "1")
    async with Downstream() as downstream:
        running = await stage({"exporters": {"otlp": {"endpoint": downstream.endpoint, "tls": {"insecure": True}}}})
        over_http = running.config["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
        await asyncio.gather(
            *(
                telemetrygen.send(generator, endpoint, *arguments, "--workers", "2", *protocol)
                for endpoint, *protocol in ((running.grpc_endpoint,), (over_http, "--otlp-http"))
                for arguments in ((*traces, "250"), ("logs", "--logs", "5000"), ("metrics", "--metrics", "2500"))
            )
        )
        await until(lambda: count_of(downstream, Signal.TRACES) >= 4000)
        counted = await numbers_of(running)
        assert await running.stop() == 0

    ids = arrived(each for each in downstream.taken if each.signal is Signal.TRACES)
    assert (len(ids), ids.total()) == (4000, 4000)
    assert shapes(downstream.taken) == shapes(beside.taken)
    assert count_of(downstream, Signal.LOGS) == 20_000
    assert count_of(downstream, Signal.METRICS) == 10_000
    assert counted["receiver_accepted_spans_total"] == counted["exporter_sent_spans_total"] == 4000
    assert counted["receiver_accepted_log_records_total"] == counted["exporter_sent_log_records_total"] == 20_000
