"""The pages with a real store behind them: what it holds is on the page, and is told apart from what came before."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from enricher.config.model import Config
from enricher.deliver.counts import Counts
from enricher.otlp.shallow import Signal
from enricher.pages import Pages
from enricher.storage import Batch, HeldSpan, Store
from enricher.telemetry.counters import Counters, NothingHeld

if TYPE_CHECKING:
    from pathlib import Path

OTLP = (("exporter", "otlp"),)
SPAN = HeldSpan(2e9, b"", b"", b"", b"", b"", b"", b"span", b"")


def batch(items: int, signal: Signal = Signal.TRACES) -> Batch:
    return Batch("otlp", signal.value, b"a request", items)


def pages(store: Store | None, level: str = "normal", **counts) -> Pages:
    telemetry = {
        "metrics": {"level": level, "endpoint": "localhost:0"},
        "health": {"endpoint": "localhost:0"},
    }
    exporters, hold = {"otlp": counts.get("exporter", Counts())}, counts.get("hold")
    config = Config(telemetry=telemetry).telemetry
    return Pages(config, Counters(), exporters, hold=hold, store=store, alive=str, ready=str)


async def metrics(of: Pages) -> tuple[int, dict[str, dict[tuple[tuple[str, str], ...], float]]]:
    """Return the status and the values by name and labels."""
    port = of.server.ports["localhost:0"]
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as answer:
        found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        if answer.status == 200:
            for family in text_string_to_metric_families(await answer.text()):
                for sample in family.samples:
                    found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
        return answer.status, found


@pytest.fixture(name="store")
async def _store(tmp_path: Path):
    store = Store(tmp_path / "data", max_size_bytes=64 << 20)
    await store.open()
    yield store
    await store.close()


async def test_f18_what_an_earlier_process_left_is_recovered_and_what_comes_is_not(store):
    """Held spans, queue and dead letters, each with its items; the identity holds from the page alone."""
    await store.hold([SPAN, SPAN])
    await store.enqueue([batch(10), batch(4, Signal.LOGS), batch(100)])
    (claimed,) = await store.claim("otlp", store.now() + 1, 1, 60.0)
    await store.bury(claimed.id, "refused", 3)
    shown = pages(store, exporter=Counts(taken=Counter({Signal.TRACES: 7})), hold=NothingHeld(held=1))
    await shown.start()
    await shown.opened()
    await store.enqueue([batch(7)])
    await store.hold([SPAN])
    _, found = await metrics(shown)
    await shown.shutdown()

    assert found["enricher_recovered_spans_total"] == {OTLP: 112}
    assert found["enricher_recovered_log_records_total"] == {OTLP: 4}
    assert found["enricher_exporter_queue_size"] == {OTLP: 3}
    assert found["enricher_exporter_queue_spans"] == {OTLP: 107}
    assert found["enricher_exporter_queue_log_records"] == {OTLP: 4}
    assert (found["enricher_dead_letter_batches"], found["enricher_dead_letter_spans"]) == ({OTLP: 1}, {OTLP: 10})
    assert found["enricher_hold_spans"] == {(): 3}
    assert found["enricher_receiver_accepted_spans_total"] == {(): 8}
    assert 8 + 112 == 107 + 10 + 3
    assert found["enricher_exporter_queue_capacity_bytes"] == {(): 64 << 20}


async def test_f26_a_store_that_does_not_answer_leaves_its_numbers_out(store):
    shown = pages(store)
    await shown.start()
    await shown.opened()
    await store.close()
    status, found = await metrics(shown)
    await shown.shutdown()

    assert status == 200
    assert found["enricher_store_healthy"] == {(): 0}
    assert found["enricher_receiver_accepted_spans_total"] == {(): 0}
    assert "enricher_exporter_queue_size" not in found
    assert "enricher_hold_spans" not in found


async def test_a_stage_without_a_store_holds_nothing():
    shown = pages(None)
    await shown.start()
    _, found = await metrics(shown)
    await shown.shutdown()
    await shown.shutdown()

    assert found["enricher_store_healthy"] == {(): 1}
    assert found["enricher_hold_spans"] == {(): 0}
    assert found["enricher_recovered_spans_total"] == {OTLP: 0}


async def test_metrics_that_are_switched_off_have_no_page_and_probes_answer_still():
    shown = pages(None, level="none")
    await shown.start()
    port = shown.server.ports["localhost:0"]
    async with aiohttp.ClientSession() as session:
        for path, status in (("/metrics", 404), ("/readyz", 200)):
            async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
                assert answer.status == status
    await shown.shutdown()
