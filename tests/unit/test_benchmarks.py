"""What the benchmarks send is valid and holds what they say; nothing is timed here."""

from __future__ import annotations

from collections import Counter

import orjson
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from enricher import pipeline, scan
from enricher.otlp.shallow import Signal
from enricher.outcome import Reason
from tests.benchmarks.generate import ASSISTANT_SCOPE, ASSISTANT_SPAN, PAYLOAD_KEY, Kind, requests

KINDS = [
    *(Kind(spans, share) for spans in (20, 512) for share in (0, 1, 10, 100)),
    *(Kind(spans, 10, "sibling") for spans in (20, 512)),
]


def spans_of(request):
    """Return (scope name and version, span) of every span."""
    return [
        ((scoped.scope.name, scoped.scope.version), span)
        for resourced in ExportTraceServiceRequest.FromString(request).resource_spans
        for scoped in resourced.scope_spans
        for span in scoped.spans
    ]


def test_the_share_is_exact_over_100_requests():
    assert sum(Kind(20, 1).candidates(index) for index in range(100)) == 20
    assert sum(Kind(512, 1).candidates(index) for index in range(100)) == 512


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_requests_hold_the_asked_number_of_spans_and_candidates(kind):
    for index, request in enumerate(requests(kind, 10)):
        spans = spans_of(request)
        candidates = [scope for scope, span in spans if span.name == ASSISTANT_SPAN]

        assert len(spans) == kind.spans
        assert candidates == [(ASSISTANT_SCOPE, "0.33.12")] * kind.candidates(index)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_span_has_ids_of_its_own_and_times_in_order(kind):
    spans = [span for request in requests(kind, 5) for _, span in spans_of(request)]

    assert {(len(span.trace_id), len(span.span_id)) for span in spans} == {(16, 8)}
    assert len({span.span_id for span in spans}) == len(spans)
    assert all(span.start_time_unix_nano < span.end_time_unix_nano for span in spans)


def test_ordinary_spans_are_as_large_as_real_ones():
    made = requests(Kind(512, 0), 4)
    spans = [span for request in made for _, span in spans_of(request)]

    assert sum(map(len, made)) / len(spans) == pytest.approx(850, rel=0.05)
    assert Counter(len(span.attributes) for span in spans) == {25: len(spans)}


@pytest.mark.parametrize("kind", [Kind(512, 10), Kind(512, 10, "sibling")], ids=str)
def test_each_payload_is_a_run_with_ids_and_usage_of_its_own(kind):
    found = []
    for _, span in spans_of(requests(kind, 1)[0]):
        bodies = [each.value.string_value for each in span.attributes if each.key == PAYLOAD_KEY]
        found += [(span.name, orjson.loads(body)) for body in bodies]

    assert {name for name, _ in found} == {ASSISTANT_SPAN if kind.payload == "own" else "GET"}
    assert len({run["id"] for _, run in found}) == len(found) == kind.candidates(0)
    for _, run in found:
        usage = run["usage"]
        assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_stage_enriches_every_candidate(kind):
    """A benchmark of spans that are left alone would measure nothing."""
    settings = scan.Settings()
    for index, request in enumerate(requests(kind, 6)):
        processed = pipeline.process(Signal.TRACES, request, settings)

        assert [each.reason for each in processed.outcomes] == [Reason.ENRICHED] * kind.candidates(index)
        assert not processed.failures


def test_the_seed_alone_decides():
    kind = Kind(20, 10)

    assert requests(kind, 3) == requests(kind, 3)
    assert requests(kind, 3) != requests(kind, 3, seed=1)


def test_more_siblings_than_fit_are_refused():
    with pytest.raises(ValueError, match="30 % is the most"):
        requests(Kind(20, 50, "sibling"), 1)
