"""F18: `kill -9` at any point around hold, release and export costs no acknowledged span."""

import asyncio
import itertools
import os
import random
from collections import Counter

import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from enricher.otlp import shallow
from enricher.otlp.shallow import Signal
from enricher.otlp.status import SERVICES
from tests.support import stage as stages
from tests.support.build import (
    a_list,
    a_message_payload,
    a_request,
    a_run_payload,
    a_span,
    an_http_span,
    openllmetry_span,
)
from tests.support.downstream import Downstream

pytestmark = pytest.mark.e2e

KILLS = int(os.environ.get("ENRICHER_KILLS", "6"))
CALLERS = 8
METHOD = f"/{SERVICES[Signal.TRACES]}/Export"


def _request(number):
    """Three plain spans and a candidate; the payload of every other one comes with a later request."""
    number = number * 10 + 1
    candidate = openllmetry_span("0.45.6", number=number, trace=number, usage=None)
    items = [a_span(number=number + n, trace=number) for n in (1, 2, 3)]
    if number % 20 == 1:
        items += [an_http_span(a_run_payload(), number=number + 4, start=18, trace=number)]
        items += [an_http_span(a_list([a_message_payload()]), number=number + 5, start=20, trace=number)]
    return a_request([candidate, *items])


def _ids(request):
    spans = [Span.FromString(raw) for _, _, raw in shallow.items(shallow.parse(request))]
    return [(span.trace_id, span.span_id) for span in spans]


class Load:
    """Sends requests until told to stop, and keeps what was acknowledged: each is an obligation."""

    def __init__(self, endpoint):
        self.acked = Counter()
        self._endpoint = endpoint
        self._numbers = itertools.count()
        self._stop = False

    async def run(self):
        async with grpc.aio.insecure_channel(
            self._endpoint, options=[("grpc.min_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]
        ) as channel:
            await asyncio.gather(*(self._caller(channel.unary_unary(METHOD)) for _ in range(CALLERS)))

    def stop(self):
        self._stop = True

    async def _caller(self, export):
        while not self._stop:
            request = _request(next(self._numbers))
            try:
                await export(request, timeout=10)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)
            else:
                self.acked.update(_ids(request))


async def test_f18_every_acknowledged_span_arrives_and_duplicates_only_of_what_was_in_flight(tmp_path):
    rng = random.Random(7)
    async with Downstream() as downstream:
        config = {
            "hold": {"wait_duration": "500ms"},
            "exporters": {"otlp": {"endpoint": downstream.endpoint, "tls": {"insecure": True}}},
            "storage": {"max_size_mib": 256},
        }
        names = itertools.count()
        stage = await stages.start(
            {**config, "storage": {**config["storage"], "directory": str(tmp_path / "data")}}, tmp_path / "0"
        )
        load = Load(stage.grpc_endpoint)
        running = asyncio.create_task(load.run())
        for _ in range(KILLS):
            await asyncio.sleep(rng.uniform(0.2, 1.2))
            stage.kill()
            await stage.wait()
            stage = await stages.start(stage.config, tmp_path / str(next(names) + 1))
        await asyncio.sleep(0.5)
        load.stop()
        await running

        def arrived():
            return Counter(span for each in downstream.received for span in _ids(each.request))

        async with asyncio.timeout(60):
            while load.acked - arrived():  # noqa: ASYNC110 - the downstream does not tell what it got
                await asyncio.sleep(0.2)
        await asyncio.sleep(1)
        twice = sum((arrived() - load.acked).values()) - len(arrived().keys() - load.acked.keys())
        assert await stage.stop() == 0

    assert sum(load.acked.values()) > 1000
    assert not load.acked - arrived()
    # At a kill, each caller's request and each consumer's batch may have been under way.
    assert twice <= KILLS * 6 * (CALLERS + 4 * 8)
