"""Downstream away, slow, moody or refusing, with a load that keeps book: nothing acknowledged is lost or doubled."""

import asyncio
import itertools
import os
import random

import grpc
import pytest

from enricher.deliver.lanes import MOST_CALLS
from enricher.otlp.status import retry_trailers
from tests.support.build import a_request, a_span, openllmetry_span
from tests.support.downstream import Downstream, delayed, ok, partial, refuse, stall
from tests.support.load import Load, arrived
from tests.support.numbers import numbers_of
from tests.support.waiting import until

pytestmark = pytest.mark.e2e

SECONDS = float(os.environ.get("ENRICHER_OUTAGE_SECONDS", "3"))
SPANS = 20
UNAVAILABLE = refuse(grpc.StatusCode.UNAVAILABLE, "away")


def request(number):
    """Twenty spans that no other request holds."""
    first = number * SPANS + 1
    return a_request([a_span(number=first + n, trace=first) for n in range(SPANS)])


def behind(downstream, **exporter):
    exporter = {"endpoint": downstream.endpoint, "tls": {"insecure": True}, "timeout": "2s", **exporter}
    return {
        "exporters": {"otlp": {"retry_on_failure": {"initial_interval": "200ms"}, **exporter}},
        "delivery": {"patience": "500ms"},
    }


def a_load(stage):
    """2,000 spans a second."""
    return Load(stage.grpc_endpoint, request, callers=16, per_second=100)


async def all_arrived(load, downstream):
    """Return what downstream took once that is all that was acknowledged."""
    await until(lambda: not load.acked - arrived(downstream.taken))
    return arrived(downstream.taken)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(UNAVAILABLE, id="f01 refused"),
        pytest.param(stall(), id="f02 black hole"),
        pytest.param(refuse(grpc.StatusCode.UNAUTHENTICATED, "no token"), id="f10 no token"),
        pytest.param(refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "high memory usage"), id="f08 memory limiter"),
        pytest.param(
            refuse(grpc.StatusCode.UNAVAILABLE, "throttled", retry_trailers(0.5, 14, "throttled")), id="f05 throttled"
        ),
    ],
)
async def test_an_outage_costs_no_refusal_no_span_and_no_duplicate(stage, answer):
    async with Downstream() as downstream:
        running = await stage(behind(downstream))
        load = a_load(running)
        async with load.running():
            await asyncio.sleep(0.5)
            downstream.otherwise = answer
            await asyncio.sleep(SECONDS)
            downstream.otherwise = ok()
            await asyncio.sleep(1)
        came = await all_arrived(load, downstream)

        assert load.refused == {}
        assert sum(load.acked.values()) > SECONDS * 1000
        assert max(came.values()) == 1
        assert await running.stop() == 0


async def conserved(stage):
    """Scrape the stage, hold its numbers against each other, and return them by name."""
    found = await numbers_of(stage)
    came = found["receiver_accepted_spans_total"] + found["recovered_spans_total"]
    gone = found["exporter_sent_spans_total"] + found["exporter_rejected_spans_total"]
    assert came == gone + found["hold_spans"] + found["exporter_queue_spans"] + found["dead_letter_spans"]
    return found


def mixed(number):
    """Plain spans, and a candidate that waits."""
    first = number * SPANS + 1
    plain = [a_span(number=first + n, trace=first) for n in range(SPANS - 1)]
    return a_request([openllmetry_span("0.33.12", number=first + SPANS - 1, trace=first), *plain])


async def test_what_the_stage_counts_is_what_client_and_downstream_counted(stage, tmp_path):
    answers = itertools.cycle([ok(), UNAVAILABLE, refuse(grpc.StatusCode.INVALID_ARGUMENT, "bad"), partial(1, "odd")])
    async with Downstream(otherwise=lambda: next(answers)) as downstream:
        config = behind(downstream) | {
            "storage": {"directory": str(tmp_path / "store")},
            "hold": {"wait_duration": "1s"},
        }
        running = await stage(config)
        load = Load(running.grpc_endpoint, mixed, callers=8, per_second=50)
        async with load.running():
            await asyncio.sleep(SECONDS)
            downstream.otherwise = refuse(grpc.StatusCode.UNAVAILABLE, "away")
            await asyncio.sleep(0.5)
        found = await conserved(running)
        assert found["receiver_accepted_spans_total"] == load.acked.total()
        assert found["exporter_queue_spans"] > 0
        taken = arrived(downstream.taken).total()
        assert found["exporter_sent_spans_total"] + found["exporter_rejected_spans_total"] == taken

        await running.stop()
        downstream.otherwise = ok()
        again = await stage(config)

        async def is_drained():
            # Not conserved while it moves: what was sent a moment ago may still be in the queue.
            found = await numbers_of(again)
            return found["exporter_queue_spans"] + found["hold_spans"] == 0

        await until(is_drained)
        found = await conserved(again)
        assert arrived(downstream.taken).total() + found["dead_letter_spans"] == load.acked.total()
        assert await again.stop() == 0


async def test_f04_a_downstream_that_refuses_seven_of_ten_gets_everything_once(stage):
    rng = random.Random(4)
    async with Downstream(otherwise=lambda: UNAVAILABLE if rng.random() < 0.7 else ok()) as downstream:
        running = await stage(
            behind(downstream, retry_on_failure={"initial_interval": "20ms", "max_interval": "200ms"})
        )
        load = a_load(running)
        async with load.running():
            await asyncio.sleep(SECONDS)
        came = await all_arrived(load, downstream)

        assert load.refused == {}
        assert max(came.values()) == 1


async def test_f03_cli_09_a_slow_downstream_is_not_flooded(stage):
    now = peak = 0

    def slow():
        nonlocal now, peak
        now += 1
        peak = max(peak, now)
        answered = asyncio.Event()

        def answer():
            nonlocal now
            now -= 1
            answered.set()

        asyncio.get_running_loop().call_later(0.3, answer)
        return delayed(answered)

    async with Downstream(otherwise=slow) as downstream:
        running = await stage(behind(downstream))
        load = a_load(running)
        async with load.running():
            await asyncio.sleep(SECONDS)
        came = await all_arrived(load, downstream)

        assert load.refused == {}
        assert max(came.values()) == 1
        assert peak <= MOST_CALLS + 4


async def test_f16_a_downstream_that_goes_away_in_the_middle_gets_at_most_the_calls_under_way_twice(stage):
    async with Downstream() as downstream:
        running = await stage(behind(downstream))
        load = a_load(running)
        async with load.running():
            for _ in range(3):
                await asyncio.sleep(SECONDS / 6)
                await downstream.stop()
                await asyncio.sleep(SECONDS / 6)
                await downstream.start()
        came = await all_arrived(load, downstream)

        assert load.refused == {}
        assert sum(number - 1 for number in came.values()) <= 3 * (MOST_CALLS + 4) * SPANS


@pytest.mark.parametrize("is_away", [False, True], ids=["f20 cli_10 under load", "f21 downstream dead"])
async def test_a_stop_loses_nothing_that_was_acknowledged(stage, tmp_path, is_away):
    async with Downstream() as downstream:
        config = behind(downstream) | {"storage": {"directory": str(tmp_path / "store")}}
        running = await stage(config)
        load = a_load(running)
        async with load.running():
            await asyncio.sleep(SECONDS / 2)
            downstream.otherwise = stall() if is_away else ok()
            await asyncio.sleep(SECONDS / 2)
            running.terminate()
            assert await running.wait() == 0
        downstream.otherwise = ok()
        again = await stage(config)
        came = await all_arrived(load, downstream)

        assert set(load.refused) <= {"UNAVAILABLE"}
        assert max(came.values()) == 1
        assert await again.stop() == 0


async def test_f22_a_second_signal_ends_it_at_once_and_loses_nothing(stage, tmp_path):
    async with Downstream(otherwise=stall()) as downstream:
        config = behind(downstream, timeout="60s") | {"storage": {"directory": str(tmp_path / "store")}}
        running = await stage(config)
        load = a_load(running)
        async with load.running():
            await until(lambda: load.acked)
            running.terminate()
            await running.until_logged("shutting down")
            running.terminate()
            await running.wait()
        downstream.otherwise = ok()
        again = await stage(config)
        await all_arrived(load, downstream)

        assert await again.stop() == 0
