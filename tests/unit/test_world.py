"""A whole recording: evidence anywhere in it serves spans anywhere in it."""

import itertools

import pytest

from enricher.errors import BadRequestError
from enricher.evidence import collect
from enricher.otlp.shallow import Signal
from enricher.outcome import Reason, Rung
from enricher.scan import Settings
from enricher.world import World
from enricher.write import Policy
from tests.support.build import (
    a_list,
    a_log_record,
    a_message_payload,
    a_request,
    a_run_payload,
    a_span,
    an_http_span,
    as_json,
    attributes,
    in_world,
    items_of,
    openllmetry_span,
    run_id,
    signals,
    thread_id,
)

OLD = "0.33.12"
SPAN = openllmetry_span(OLD, number=1)
EVIDENCE = {
    "the same trace": an_http_span(a_run_payload(), start=18, number=2),
    "another trace, by thread": an_http_span(a_run_payload(), start=18, number=2, trace=2),
    "a log record": a_log_record(as_json(a_run_payload()), seconds=19),
}


def outcomes(processed):
    return [outcome for each in processed for outcome in each.outcomes]


@pytest.mark.parametrize("evidence", EVIDENCE.values(), ids=EVIDENCE)
@pytest.mark.parametrize("order", [1, -1], ids=["evidence later", "evidence earlier"])
def test_evidence_in_another_request_serves_the_span(evidence, order):
    span = openllmetry_span(OLD, number=1, more={"app.thread_id": thread_id()})
    requests = [[span], [evidence]][::order]
    processed = in_world(signals(*requests))

    (outcome,) = outcomes(processed)
    assert (outcome.reason, outcome.run_id) == (Reason.ENRICHED, run_id())
    mended = processed[0 if order == 1 else 1]
    assert attributes(items_of(mended.request)[0])["gen_ai.usage.total_tokens"] == 1540


def test_an_answer_and_a_run_in_three_requests_are_joined():
    """HTTP spans without a parent are traces of their own."""
    processed = in_world(
        signals(
            [an_http_span(a_run_payload(), start=18, trace=2)],
            [SPAN],
            [an_http_span(a_list([a_message_payload()]), start=20, trace=3)],
        )
    )

    assert [(each.reason, each.rung) for each in outcomes(processed)] == [(Reason.ENRICHED, Rung.SERVICE)]


def test_requests_leave_in_the_order_they_came_and_what_is_not_ours_as_it_came():
    other = a_request([a_span("a"), a_span("b")])
    records = a_request([a_log_record("x")])
    metrics = b"\x0a\x00"
    recorded = [
        (Signal.TRACES, other),
        (Signal.LOGS, records),
        (Signal.METRICS, metrics),
        *signals([SPAN], [an_http_span(a_run_payload(), start=18)]),
    ]
    processed = in_world(recorded)

    assert [each.request for each in processed[:3]] == [other, records, metrics]
    assert processed[4].request == recorded[4][1]
    assert [each.items for each in processed] == [2, 1, 0, 1, 1]
    assert [len(each.outcomes) for each in processed] == [0, 0, 0, 1, 0]


def test_each_span_gets_its_own_resolution_across_requests():
    spans = [openllmetry_span(OLD, trace=n, number=n) for n in (1, 2, 3, 4)]
    runs = [an_http_span(a_run_payload(number=n, usage=(n, 1)), trace=n, start=18) for n in (4, 2, 1)]
    processed = in_world(signals([spans[0], runs[0]], [spans[1], spans[2]], runs[1:], [spans[3]]))

    assert [outcome.run_id for outcome in outcomes(processed)] == [run_id(1), run_id(2), "", run_id(4)]


def test_a_span_that_cannot_be_decoded_does_not_shift_the_others():
    bad = a_request([openllmetry_span(OLD, trace=3)]).replace(b"About", b"\xff\xfeout")
    processed = in_world(
        [
            *signals([openllmetry_span(OLD, trace=1, start=11)]),
            (Signal.TRACES, bad),
            *signals([openllmetry_span(OLD, trace=2)], [an_http_span(a_run_payload(), start=18, trace=2)]),
        ]
    )

    assert [each.reason for each in outcomes(processed)] == [
        Reason.PAYLOAD_ABSENT,
        Reason.SPAN_UNREADABLE,
        Reason.ENRICHED,
    ]
    assert processed[1].request == bad


def test_a_run_that_is_known_from_two_requests_is_one_run():
    processed = in_world(
        signals(
            [an_http_span(a_run_payload("in_progress", None), start=12)],
            [SPAN],
            [an_http_span(a_run_payload(), start=18)],
            [a_log_record(as_json(a_run_payload()), seconds=19)],
        )
    )

    assert [each.reason for each in outcomes(processed)] == [Reason.ENRICHED]


def test_a_second_run_anywhere_in_the_recording_makes_the_trace_ambiguous():
    requests = [[SPAN], [EVIDENCE["the same trace"]], [an_http_span(a_run_payload(number=2), start=17)]]
    for order in itertools.permutations(requests):
        assert [each.reason for each in outcomes(in_world(signals(*order)))] == [Reason.AMBIGUOUS]


def test_f39_a_request_that_is_none_is_refused_in_both_passes_and_harms_no_other():
    world = World(Settings())
    good = signals([SPAN], [EVIDENCE["the same trace"]])
    with pytest.raises(BadRequestError):
        world.learn(Signal.TRACES, b"\x0a\x05ab")
    for signal, request in good:
        world.learn(signal, request)
    with pytest.raises(BadRequestError):
        world.mend(Signal.TRACES, b"\x0a\x05ab")

    assert [each.reason for each in outcomes(world.mend(*each) for each in good)] == [Reason.ENRICHED]


@pytest.mark.parametrize("span", [openllmetry_span("0.50.1"), openllmetry_span("0.34.0", stream=True, usage=(700, 90))])
def test_a_second_replay_does_not_take_for_identity_what_the_first_found_by_uniqueness(span):
    """Repair overwrites what identity contradicts; an id that uniqueness inserted is no more than uniqueness."""
    repair = Settings(policy=Policy(repair=True))
    recorded = signals([span], [EVIDENCE["the same trace"]])
    once = in_world(recorded, repair)
    again = [(signal, mended.request) for (signal, _), mended in zip(recorded, once, strict=True)]

    assert [each.reason for each in outcomes(once)] == [Reason.USAGE_CONFLICT]
    assert [each.request for each in in_world(again, repair)] == [each.request for each in once]


def test_a_world_without_requests_has_nothing_to_say():
    assert in_world([]) == []


def test_f43_an_exception_while_learning_is_told_and_the_request_still_mended(monkeypatch):
    def broken(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(collect, "of_span", broken)
    world = World(Settings())
    recorded = signals([SPAN], [EVIDENCE["the same trace"]])
    for signal, request in recorded:
        world.learn(signal, request)
    processed = [world.mend(signal, request) for signal, request in recorded]

    assert [each.reason for each in outcomes(processed)] == [Reason.PAYLOAD_ABSENT]
    assert all("a bug" in failure.trace for failure in world.failures)
    assert len(world.failures) >= 1


def test_f43_an_exception_on_the_ladder_costs_no_span(monkeypatch):
    def broken(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr("enricher.world.resolve", broken)
    world = World(Settings())
    (recorded,) = signals([SPAN])
    world.learn(*recorded)
    processed = world.mend(*recorded)

    assert processed.request == recorded[1]
    assert [each.reason for each in processed.outcomes] == [Reason.STEP_FAILED]
