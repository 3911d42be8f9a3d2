"""Which candidates a stage remembers, so that one that is decided later knows of its rivals."""

import pytest

from enricher import live
from enricher.otlp.shallow import Signal
from enricher.outcome import Reason, Rung
from enricher.scan import Settings
from tests.support.build import a_request, a_run_payload, a_span, as_json, candidates_and_index, openllmetry_span

OLD = "0.33.12"
SHOWN = {"app.run": as_json(a_run_payload())}


def remembered(*spans):
    """Return how many candidates a stage remembers that got these one after the other."""
    memory = live.Memory()
    for now, span in enumerate(spans):
        live.process(Signal.TRACES, a_request([span]), Settings(), memory, float(now), room=10)
    return memory.recent


@pytest.mark.parametrize("more", [{}, SHOWN])
def test_f37_a_span_that_is_sent_again_and_again_is_remembered_once(more):
    """Else a client in a storm of retries would make every later look at the run dearer."""
    assert len(remembered(*[openllmetry_span(OLD, number=1, more=more)] * 50)) == 1


def test_spans_without_ids_are_told_apart():
    assert len(remembered(*[openllmetry_span(OLD, number=0)] * 3)) == 3


def test_a_copy_that_is_sent_again_is_remembered_as_long_as_if_it_were_the_first():
    recent = remembered(
        openllmetry_span(OLD, number=1), openllmetry_span(OLD, number=2), openllmetry_span(OLD, number=1)
    )
    recent.forget(1.5, 10)
    assert len(recent) == 1
    recent.forget(2.5, 10)
    assert len(recent) == 0


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_who_began_together_is_found_until_it_is_forgotten(number):
    recent = remembered(*(openllmetry_span(OLD, number=each, trace=each) for each in range(1, number + 1)))
    candidates = candidates_and_index([openllmetry_span(OLD, number=9, trace=9)])[0]

    assert sorted(each.span_id[-1] for each in recent.twins(candidates)) == list(range(1, number + 1))
    for gone in range(1, number + 1):
        recent.forget(gone - 0.5, 10)
        assert sorted(each.span_id[-1] for each in recent.peers(candidates)) == list(range(gone + 1, number + 1))


class Unwalked(dict):
    """What may hold a hundred thousand runs: it may be asked for one, and not be gone through."""

    def __iter__(self):
        raise AssertionError("gone through")

    keys = values = items = __iter__


def test_whatever_is_remembered_of_runs_a_request_and_a_deadline_cost_the_same():
    memory, settings = live.Memory.of(Settings()), Settings()
    memory.recent.owners, memory.recent.claimed = Unwalked(), Unwalked()
    by_identity = openllmetry_span(OLD, number=1, trace=1, more=SHOWN)
    by_trace = openllmetry_span(OLD, number=2, trace=2, answers=["another"])
    run = a_span("GET", {"http.response.body": as_json(a_run_payload(number=2))}, number=3, trace=2, start=11, end=19)

    passing = live.process(Signal.TRACES, a_request([by_identity, by_trace, run]), settings, memory, 0.0, room=10)
    resolutions = live.climb(
        [each.candidate for each in passing.waiting], memory, live.settled_at_deadline(memory), failures := []
    )

    assert [each.reason for each in passing.processed.outcomes] == [Reason.ENRICHED]
    assert [(each.reason, each.rung) for each in resolutions] == [(Reason.ENRICHED, Rung.TRACE)]
    assert passing.processed.failures == failures == []
