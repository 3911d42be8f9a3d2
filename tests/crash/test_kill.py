"""F18: `kill -9` at any point around hold, release and export costs no acknowledged span."""

import asyncio
import itertools
import os
import random

import pytest

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
from tests.support.load import Load, arrived
from tests.support.waiting import until

pytestmark = pytest.mark.e2e

KILLS = int(os.environ.get("ENRICHER_KILLS", "6"))
CALLERS = 8


def _request(number):
    """Three plain spans and a candidate; the payload of every other one comes with a later request."""
    number = number * 10 + 1
    candidate = openllmetry_span("0.45.6", number=number, trace=number, usage=None)
    items = [a_span(number=number + n, trace=number) for n in (1, 2, 3)]
    if number % 20 == 1:
        items += [an_http_span(a_run_payload(), number=number + 4, start=18, trace=number)]
        items += [an_http_span(a_list([a_message_payload()]), number=number + 5, start=20, trace=number)]
    return a_request([candidate, *items])


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
        load = Load(stage.grpc_endpoint, _request, callers=CALLERS)
        async with load.running():
            for _ in range(KILLS):
                await asyncio.sleep(rng.uniform(0.2, 1.2))
                stage.kill()
                await stage.wait()
                stage = await stages.start(stage.config, tmp_path / str(next(names) + 1))
            await asyncio.sleep(0.5)

        await until(lambda: not load.acked - arrived(downstream.received))
        await asyncio.sleep(1)
        came = arrived(downstream.received)
        twice = sum((came - load.acked).values()) - len(came.keys() - load.acked.keys())
        assert await stage.stop() == 0

    assert sum(load.acked.values()) > 1000
    assert not load.acked - came
    # At a kill, each caller's request and each consumer's batch may have been under way.
    assert twice <= KILLS * 6 * (CALLERS + 4 * 8)
