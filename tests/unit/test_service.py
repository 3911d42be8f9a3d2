"""The composition root: what it says of a configuration, and what it does when a part cannot start."""

from pathlib import Path

import pytest

from enricher.config import load
from enricher.errors import EnricherError, RetryableError
from enricher.otlp.shallow import Signal
from enricher.service import WITHOUT_EFFECT, Service, destination, without_effect
from enricher.storage import StoreFullError
from tests.support.build import a_request, a_span, items_of, openllmetry_span


def config(tmp_path, *overrides):
    return load(
        None,
        [
            "receivers.otlp.protocols.grpc.endpoint=127.0.0.1:0",
            f"storage.directory={tmp_path / 'data'}",
            f"exporters.file.path={tmp_path / 'out.jsonl'}",
            *overrides,
        ],
    )


def test_keys_without_effect_are_told_only_when_they_are_written(tmp_path):
    assert without_effect(config(tmp_path)) == []
    assert without_effect(config(tmp_path, "telemetry.health.endpoint=localhost:1", "delivery.patience=1s")) == [
        "delivery",
        "telemetry.health",
    ]


def test_every_key_without_effect_is_documented():
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()

    assert [key for key in WITHOUT_EFFECT if f"`{key}`" not in text] == []


def test_where_requests_go_is_said_in_words(tmp_path):
    both = config(tmp_path, "exporters.otlp.endpoint=http://localhost:14317")

    assert destination(both) == f"otlp http://localhost:14317 and file {tmp_path / 'out.jsonl'}"


async def test_a_port_that_is_taken_stops_the_parts_that_had_started(tmp_path):
    first = Service(config(tmp_path))
    await first.start()
    taken = f"receivers.otlp.protocols.grpc.endpoint=127.0.0.1:{first.receiver.port}"
    second = Service(config(tmp_path / "second", taken))
    with pytest.raises(EnricherError, match="cannot listen"):
        await second.start()
    await first.shutdown(0)

    third = Service(config(tmp_path / "second"))
    await third.start()
    await third.shutdown(0)


async def test_f31_a_directory_that_is_in_use_is_told(tmp_path):
    first = Service(config(tmp_path))
    await first.start()
    with pytest.raises(EnricherError, match="in use by process"):
        await Service(config(tmp_path)).start()
    await first.shutdown(0)


class Refusing:
    async def start(self):
        pass

    async def export(self, *_):
        raise RetryableError(14, "away")

    async def shutdown(self, grace=0.0):
        pass


async def test_a_refused_request_leaves_nothing_held(tmp_path):
    service = Service(config(tmp_path))
    service._exporter = Refusing()
    await service.start()
    with pytest.raises(RetryableError):
        await service.consume(Signal.TRACES, a_request([openllmetry_span("0.33.12"), a_span(number=2)]))

    assert (await service._store.counts()).held.rows == 0
    await service.shutdown(0)


async def test_f36_a_store_that_takes_nothing_lets_candidates_pass(tmp_path):
    service = Service(config(tmp_path, "hold.enabled=true"))
    await service.start()
    sent = []

    class Exporter(Refusing):
        async def export(self, _, request):
            sent.append(request)
            return b""

    async def full(_):
        raise StoreFullError("full")

    service._exporter, service._store.hold = Exporter(), full
    await service.consume(Signal.TRACES, a_request([openllmetry_span("0.33.12"), a_span(number=2)]))
    await service.shutdown(0)

    assert sorted(len(items_of(request)) for request in sent) == [1, 1]


async def test_an_empty_request_is_answered_here(tmp_path):
    service = Service(config(tmp_path))

    assert await service.consume(Signal.TRACES, b"") == b""
