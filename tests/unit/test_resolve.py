"""The ladder: what decides, what is ambiguous, what speaks against a run, and what has to wait."""

import pytest

from enricher.evidence import files
from enricher.evidence.index import Index
from enricher.evidence.objects import Usage
from enricher.outcome import IDENTITY, Reason, Rung
from enricher.resolve import resolve
from enricher.verdict import LATE_NS, Resolution
from tests.support.build import (
    ANSWER,
    QUESTION,
    a_chat_completion,
    a_list,
    a_log_record,
    a_message_payload,
    a_run_payload,
    a_span,
    a_step_payload,
    a_usage,
    an_http_span,
    an_sse_transcript,
    as_json,
    candidates_and_index,
    message_id,
    openllmetry_span,
    run_id,
    thread_id,
)

OLD = "0.33.12"
"""A version that writes neither ids nor usage."""
NEW = "0.62.4"

FIRST = Usage(1200, 340, 1540)
SECOND = Usage(900, 250, 1150)
LATE = LATE_NS / 1_000_000_000


def climb(*items, settled=True):
    """Return the resolutions of the candidates among the items, in their order."""
    candidates, index = candidates_and_index(items)
    return resolve(candidates, index, lambda *_: settled)


def decided(resolution):
    """Return by which rung, for which run, with what usage."""
    return resolution.rung, resolution.run.run_id if resolution.run else None, resolution.usage


def verdicts(resolution):
    return {each.run_id: each.verdict for each in resolution.considered}


def final(number=1, *, start=18.0, end=19.0, **where):
    """Return the HTTP span that fetched a finished run."""
    usage = (1200, 340) if number == 1 else (900, 250)
    thread = where.pop("thread", number)
    return an_http_span(a_run_payload(number=number, usage=usage, thread=thread), start=start, end=end, **where)


def listing(*messages, start=20.0, end=20.5, **where):
    """Return the HTTP span that listed messages."""
    return an_http_span(a_list(messages), start=start, end=end, **where)


def assert_undecided(resolution, reason):
    assert (resolution.reason, *decided(resolution)) == (reason, None, None, None)


# ---- payload on the span


def test_a_payload_on_the_span_decides():
    (found,) = climb(openllmetry_span(OLD, more={"app.run": as_json(a_run_payload())}))

    assert decided(found) == (Rung.PAYLOAD, run_id(), FIRST)
    assert found.reason is Reason.ENRICHED
    assert found.place == "attribute app.run of span openai.assistant.run"
    assert verdicts(found) == {run_id(): "decided"}


def test_a_payload_in_an_event_of_the_span_decides():
    (found,) = climb(openllmetry_span(OLD, events=[("answer", {"run": as_json(a_run_payload())}, 19)]))

    assert decided(found) == (Rung.PAYLOAD, run_id(), FIRST)


def test_a_payload_of_a_log_record_that_names_the_span_decides():
    (found, other) = climb(
        openllmetry_span(OLD, number=5),
        openllmetry_span(OLD, number=6, start=11),
        a_log_record(as_json(a_run_payload()), span=5, seconds=19),
        a_log_record(as_json(a_run_payload(number=2)), span=7, seconds=19),
    )

    assert decided(found) == (Rung.PAYLOAD, run_id(), FIRST)
    assert other.rung is not Rung.PAYLOAD


def test_two_payloads_on_the_span_are_ambiguous_and_end_the_climb():
    both = as_json([a_run_payload(number=1), a_run_payload(number=2)])
    (found,) = climb(openllmetry_span(NEW, more={"app.runs": both}), listing(a_message_payload()))

    assert_undecided(found, Reason.AMBIGUOUS)
    assert verdicts(found) == {run_id(1): "could be the span's", run_id(2): "could be the span's"}


def test_an_id_on_the_span_tells_which_of_two_payloads_there_is_its_own():
    both = as_json([a_run_payload(number=1), a_run_payload(number=2, usage=(900, 250))])
    (found,) = climb(openllmetry_span(OLD, more={"app.runs": both, "app.run_id": run_id(2)}))

    assert decided(found) == (Rung.RUN_ID, run_id(2), SECOND)


def test_a_payload_and_an_id_on_the_span_that_differ_are_ambiguous():
    (found,) = climb(openllmetry_span(OLD, more={"app.run": as_json(a_run_payload()), "app.run_id": run_id(2)}))

    assert_undecided(found, Reason.AMBIGUOUS)
    assert set(verdicts(found)) == {run_id(1), run_id(2)}


def test_nothing_contradicts_a_payload_on_the_span():
    """A recorded answer may be served again much later."""
    (found,) = climb(
        openllmetry_span(OLD, more={"app.run": as_json(a_run_payload())}),
        listing(a_message_payload("Something else.")),
        final(start=1, end=2),
    )

    assert decided(found) == (Rung.PAYLOAD, run_id(), FIRST)


def test_a_usage_object_alone_on_the_span_is_its_own():
    (found,) = climb(openllmetry_span(OLD, more={"app.usage": as_json(a_usage(cached=64))}))

    assert decided(found) == (Rung.PAYLOAD, None, Usage(1200, 340, 1540, 64))
    assert found.place == "attribute app.usage of span openai.assistant.run"


def test_two_usage_objects_on_the_span_decide_nothing():
    (found,) = climb(openllmetry_span(OLD, more={"a": as_json(a_usage()), "b": as_json(a_usage(1, 2))}))

    assert_undecided(found, Reason.AMBIGUOUS)


def test_a_usage_object_of_the_span_in_two_places_is_one_whatever_the_order():
    span = openllmetry_span(OLD, number=5, more={"app.usage": as_json(a_usage())})
    record = a_log_record(as_json(a_usage()), span=5, seconds=19)

    assert decided(climb(span, record)[0]) == (Rung.PAYLOAD, None, FIRST)
    assert climb(span, record) == climb(record, span)


def test_a_usage_object_on_the_span_completes_a_run_that_is_named_without_usage():
    more = {"app.usage": as_json(a_usage()), "app.run_id": run_id()}

    assert decided(climb(openllmetry_span(OLD, more=more))[0]) == (Rung.RUN_ID, None, FIRST)
    (found,) = climb(openllmetry_span(OLD, more=more), an_http_span(a_run_payload("in_progress", None), start=12))
    assert decided(found) == (Rung.RUN_ID, run_id(), FIRST)
    assert found.place == "attribute app.usage of span openai.assistant.run"


def test_the_runs_own_usage_goes_before_a_usage_object_on_the_span():
    more = {"app.usage": as_json(a_usage(5, 5)), "app.run_id": run_id()}
    (found,) = climb(openllmetry_span(OLD, more=more), final())

    assert decided(found) == (Rung.RUN_ID, run_id(), FIRST)


def test_a_span_without_an_id_holds_no_payload_of_its_own():
    """Log records without ids would all stand on it."""
    (found,) = climb(
        openllmetry_span(OLD, number=0, trace=0),
        a_log_record(as_json(a_run_payload()), trace=0),
        a_log_record(as_json(a_usage()), trace=0),
    )

    assert found.rung is None


def test_ids_of_zeros_are_none():
    """Everything without a trace would else be one trace."""
    span = openllmetry_span(OLD, number=0)
    others = [an_http_span(a_run_payload(), start=12, number=8), a_log_record(as_json(a_run_payload()))]
    for each in (span, *others):
        each.message.trace_id = bytes(16)
    others[1].message.span_id = bytes(8)
    for other in others:
        assert climb(span, other)[0].rung is None


# ---- run id


def test_the_run_id_on_the_span_decides_wherever_the_payload_is():
    (found,) = climb(
        openllmetry_span(OLD, more={"app.run_id": run_id(2)}), final(1), final(2, trace=9, service="other")
    )

    assert decided(found) == (Rung.RUN_ID, run_id(2), SECOND)


def test_the_run_of_an_api_path_on_the_span_decides():
    url = f"https://api.openai.com/v1/threads/{thread_id()}/runs/{run_id()}"
    (found,) = climb(openllmetry_span(OLD, more={"url.full": url}), final(1, trace=2), final(2))

    assert decided(found) == (Rung.RUN_ID, run_id(), FIRST)


def test_two_run_ids_on_the_span_are_ambiguous():
    (found,) = climb(openllmetry_span(OLD, more={"a.run_id": run_id(1), "b.run_id": run_id(2)}), final())

    assert_undecided(found, Reason.AMBIGUOUS)
    assert set(verdicts(found)) == {run_id(1), run_id(2)}


def test_a_run_that_is_named_and_not_recorded_is_known_not_to_be_another():
    (found,) = climb(openllmetry_span(OLD, more={"app.run_id": run_id(5)}), final(), listing(a_message_payload()))

    assert_undecided(found, Reason.PAYLOAD_ABSENT)


def test_a_function_whose_name_begins_like_an_id_names_no_run():
    (found,) = climb(openllmetry_span(OLD, more={"traceloop.workflow.name": "run_assistant"}), final())

    assert decided(found) == (Rung.TRACE, run_id(), FIRST)


def test_a_run_id_inside_an_answer_decides_nothing():
    (found,) = climb(openllmetry_span(OLD, answers=[run_id(2)]), final(2, trace=5))

    assert_undecided(found, Reason.PAYLOAD_ABSENT)


# ---- message id


def test_the_runs_message_on_the_span_decides():
    (found,) = climb(openllmetry_span(NEW, usage=None), listing(a_message_payload()), final(1), final(2))

    assert decided(found) == (Rung.MESSAGE_ID, run_id(), FIRST)


def test_the_step_that_wrote_the_message_decides_as_well():
    transcript = an_sse_transcript(a_step_payload(), a_run_payload())
    (found,) = climb(
        openllmetry_span(NEW, stream=True, usage=None), an_http_span(transcript, start=10, end=19), final(2)
    )

    assert decided(found) == (Rung.MESSAGE_ID, run_id(), FIRST)


def test_the_users_message_among_the_ids_of_0_38_does_not_matter():
    span = openllmetry_span("0.38.12", usage=None)
    (found,) = climb(
        span, listing(a_message_payload(), a_message_payload(number=900, run=None, role="user", created=0)), final()
    )

    assert decided(found) == (Rung.MESSAGE_ID, run_id(), FIRST)


def test_the_users_message_after_the_last_answer_means_that_the_run_has_not_answered_yet():
    span = openllmetry_span("0.38.12", usage=None)
    (found,) = climb(
        span, listing(a_message_payload(), a_message_payload(number=900, run=None, role="user", created=50))
    )

    assert found.rung is not Rung.MESSAGE_ID


def test_of_the_messages_of_a_thread_the_newest_tells_the_run():
    """The second run's span lists the first run's messages too."""
    span = openllmetry_span(NEW, usage=None, answers=["One.", "Two."], messages=[1, 2])
    both = listing(a_message_payload("One.", number=1, run=1), a_message_payload("Two.", number=2, run=2))
    (found,) = climb(span, both, final(1, start=1, end=2, thread=1), final(2, thread=1))

    assert decided(found) == (Rung.MESSAGE_ID, run_id(2), SECOND)


def test_messages_of_two_runs_of_one_second_are_ambiguous():
    span = openllmetry_span(NEW, usage=None, answers=["One.", "Two."], messages=[1, 2])
    both = listing(
        a_message_payload("One.", number=1, run=1, created=5), a_message_payload("Two.", number=2, run=2, created=5)
    )

    assert_undecided(climb(span, both, final(1), final(2))[0], Reason.AMBIGUOUS)


def test_messages_of_two_runs_without_times_are_ambiguous():
    span = openllmetry_span(NEW, usage=None, answers=["One.", "Two."], messages=[1, 2])
    both = listing(
        a_message_payload("One.", number=1, run=1), a_message_payload("Two.", number=2, run=2, created_at=None)
    )

    assert_undecided(climb(span, both, final(1), final(2))[0], Reason.AMBIGUOUS)


def test_messages_of_one_run_need_no_times():
    span = openllmetry_span(NEW, usage=None, answers=["One.", "Two."], messages=[1, 2])
    both = listing(*(a_message_payload(t, number=n, created_at=None) for n, t in ((1, "One."), (2, "Two."))))

    assert decided(climb(span, both, final(1), final(2))[0]) == (Rung.MESSAGE_ID, run_id(), FIRST)


def test_a_message_that_two_runs_claim_is_ambiguous():
    (found,) = climb(
        openllmetry_span(NEW, usage=None),
        listing(a_message_payload(run=1), a_message_payload(run=2)),
        final(1),
        final(2),
    )

    assert_undecided(found, Reason.AMBIGUOUS)


def test_while_one_of_the_messages_is_unknown_the_newest_cannot_be_told():
    span = openllmetry_span(NEW, usage=None, answers=["One.", "Two."], messages=[1, 2])
    (found,) = climb(span, listing(a_message_payload("One.", number=1, run=1)), final(1), final(2), settled=False)

    assert found.rung is None


def test_the_message_of_a_run_that_finished_before_the_span_is_a_contradiction():
    """Messages listed before the run is done are the run's before it."""
    (found,) = climb(openllmetry_span(NEW, usage=None), listing(a_message_payload()), final(start=1, end=2))

    assert_undecided(found, Reason.CONTRADICTED)
    assert verdicts(found) == {run_id(): "had answered before the span began"}


def test_a_message_that_was_listed_before_the_span_began_is_not_its_runs():
    """The usage of the run before it is recorded only later, so nothing else shows that it had finished."""
    (found,) = climb(
        openllmetry_span(NEW, usage=None),
        listing(a_message_payload(), start=5, end=6),
        listing(a_message_payload(), start=15, end=16),
        a_log_record(as_json(a_run_payload()), seconds=25),
    )

    assert_undecided(found, Reason.CONTRADICTED)


# ---- thread id


def test_the_only_run_of_the_spans_thread_decides():
    (found,) = climb(openllmetry_span(OLD, more={"app.thread_id": thread_id(1)}), final(1, trace=2), final(2, trace=2))

    assert decided(found) == (Rung.THREAD_ID, run_id(), FIRST)


def test_two_runs_of_the_spans_thread_are_ambiguous():
    (found,) = climb(
        openllmetry_span(OLD, more={"app.thread_id": thread_id()}), final(1, thread=1), final(2, thread=1, trace=3)
    )

    assert_undecided(found, Reason.AMBIGUOUS)


def test_the_spans_own_counts_tell_which_run_of_its_thread_it_is():
    span = openllmetry_span("0.34.0", usage=(900, 250), more={"app.thread_id": thread_id()})
    (found,) = climb(span, final(1, thread=1, trace=3), final(2, thread=1, trace=3))

    assert decided(found) == (Rung.THREAD_ID, run_id(2), SECOND)


def test_two_threads_on_the_span_decide_nothing():
    more = {"a.thread_id": thread_id(1), "b.thread_id": thread_id(2)}
    (found,) = climb(openllmetry_span(OLD, more=more), final(1, trace=2))

    assert_undecided(found, Reason.PAYLOAD_ABSENT)


def test_a_thread_whose_run_finished_before_the_span_is_a_contradiction():
    (found,) = climb(openllmetry_span(OLD, more={"app.thread_id": thread_id()}), final(start=1, end=2))

    assert_undecided(found, Reason.CONTRADICTED)


@pytest.mark.parametrize(
    ("said", "usage"),
    [
        ((), None),
        ((a_message_payload(),), Usage(1200, 340, 1540)),
        ((a_message_payload(text="Something else."),), None),
    ],
)
def test_a_run_of_the_thread_that_only_a_file_shows_must_have_said_what_the_span_holds(said, usage):
    """A file may hold any old run of a thread, and tells no time."""
    candidates, index = candidates_and_index([openllmetry_span(OLD, more={"app.thread_id": thread_id()})])
    for payload in (a_run_payload(), *said):
        for evidence in files.read(as_json(payload).encode(), "answers.json"):
            index.add(evidence)
    (found,) = resolve(candidates, index)

    assert found.usage == usage


def test_two_spans_of_a_thread_of_which_one_run_is_recorded_are_ambiguous():
    """The run of one of them was not recorded: the recorded one may be either's."""
    more = {"app.thread_id": thread_id()}
    found = climb(openllmetry_span(OLD, more=more), openllmetry_span(OLD, more=more, start=15, end=25), final())

    for each in found:
        assert_undecided(each, Reason.AMBIGUOUS)


# ---- answer text


def test_the_run_that_wrote_the_spans_answer_decides():
    found = climb(
        openllmetry_span(OLD, answers=["One."]),
        openllmetry_span(OLD, answers=["Two."], start=11, end=21),
        listing(a_message_payload("One.", run=1)),
        listing(a_message_payload("Two.", number=2, run=2)),
        final(1),
        final(2),
    )

    assert [decided(each) for each in found] == [(Rung.TEXT, run_id(1), FIRST), (Rung.TEXT, run_id(2), SECOND)]


def test_blanks_around_an_answer_do_not_matter():
    (found,) = climb(openllmetry_span(OLD, answers=["One.\n"]), listing(a_message_payload(" One.")), final(1), final(2))

    assert found.reason in (Reason.ENRICHED, Reason.AMBIGUOUS)


def test_concurrent_runs_with_identical_answers_are_ambiguous():
    found = climb(
        openllmetry_span(OLD),
        openllmetry_span(OLD, start=11, end=21),
        listing(a_message_payload(run=1)),
        listing(a_message_payload(number=2, run=2, thread=2)),
        final(1),
        final(2),
    )

    for each in found:
        assert_undecided(each, Reason.AMBIGUOUS)


def test_concurrent_runs_with_identical_answers_are_told_apart_by_message_ids():
    found = climb(
        openllmetry_span(NEW, usage=None, messages=[1]),
        openllmetry_span(NEW, usage=None, messages=[2], start=11, end=21),
        listing(a_message_payload(run=1)),
        listing(a_message_payload(number=2, run=2, thread=2)),
        final(1),
        final(2),
    )

    assert [decided(each) for each in found] == [
        (Rung.MESSAGE_ID, run_id(1), FIRST),
        (Rung.MESSAGE_ID, run_id(2), SECOND),
    ]


def test_concurrent_runs_with_identical_answers_are_told_apart_by_the_spans_own_counts():
    found = climb(
        openllmetry_span("0.34.0", usage=(1200, 340)),
        openllmetry_span("0.34.0", usage=(900, 250), start=11, end=21),
        listing(a_message_payload(run=1)),
        listing(a_message_payload(number=2, run=2, thread=2)),
        final(1),
        final(2),
    )

    assert [decided(each) for each in found] == [(Rung.TEXT, run_id(1), FIRST), (Rung.TEXT, run_id(2), SECOND)]


def test_a_run_of_the_trace_whose_answer_nobody_recorded_may_have_said_the_same():
    (found,) = climb(openllmetry_span(OLD), listing(a_message_payload()), final(1), final(2))

    assert_undecided(found, Reason.AMBIGUOUS)


def test_two_spans_with_one_answer_and_one_recorded_run_are_ambiguous():
    """A streamed run leaves no payload with a hook that reads JSON only; both said "OK"."""
    found = climb(
        openllmetry_span(OLD, answers=["OK"]),
        openllmetry_span(OLD, answers=["OK"], stream=True, start=11, end=21),
        listing(a_message_payload("OK")),
        final(),
    )

    for each in found:
        assert_undecided(each, Reason.AMBIGUOUS)


def test_a_run_that_an_id_ties_to_another_span_is_not_given_away_by_its_answer():
    found = climb(
        openllmetry_span(NEW, usage=None, answers=["OK"]),
        openllmetry_span(OLD, answers=["OK"], stream=True, start=11, end=21),
        listing(a_message_payload("OK")),
        final(),
    )

    assert decided(found[0]) == (Rung.MESSAGE_ID, run_id(), FIRST)
    assert found[1].usage is None


def test_a_listing_twice_gives_both_spans_their_run():
    """OpenLLMetry writes one span for each listing, with the same start."""
    found = climb(openllmetry_span(OLD, end=20), openllmetry_span(OLD, end=22), listing(a_message_payload()), final())

    assert [decided(each) for each in found] == [(Rung.TEXT, run_id(), FIRST)] * 2


def test_of_two_runs_of_a_thread_the_one_that_spoke_last_is_the_spans():
    span = openllmetry_span(OLD, answers=["One.", "Two."])
    both = listing(a_message_payload("One.", run=1), a_message_payload("Two.", number=2, run=2))
    (found,) = climb(span, both, final(1, thread=1, start=1, end=2), final(2, thread=1))

    assert decided(found) == (Rung.TEXT, run_id(2), SECOND)


def test_a_listing_after_each_of_two_runs_of_a_thread_gives_each_span_its_own_run():
    """The second span shows the first run's answer again."""
    one, two = a_message_payload("One.", run=1), a_message_payload("Two.", number=2, run=2)
    found = climb(
        openllmetry_span(OLD, answers=["One."], start=10, end=20),
        openllmetry_span(OLD, answers=["One.", "Two."], start=30, end=40),
        final(1, thread=1),
        listing(one),
        final(2, thread=1, start=38, end=39),
        listing(one, two, start=40, end=40.5),
    )

    assert [decided(each) for each in found] == [(Rung.TEXT, run_id(1), FIRST), (Rung.TEXT, run_id(2), SECOND)]


def test_a_listing_before_the_run_is_done_is_a_span_of_the_same_run():
    found = climb(
        openllmetry_span(OLD, answers=[], end=15),
        openllmetry_span(OLD, end=20),
        listing(start=15, end=15.5),
        final(),
        listing(a_message_payload()),
    )

    assert [decided(each)[1:] for each in found] == [(run_id(), FIRST)] * 2


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param(
            (a_message_payload("One.", run=1), a_message_payload("Two.", number=2, run=2, thread=2)), id="two threads"
        ),
        pytest.param(
            (a_message_payload("One.", run=1, created=5), a_message_payload("Two.", number=2, run=2, created=5)),
            id="one second",
        ),
        pytest.param(
            (a_message_payload("One.", run=1), a_message_payload("Two.", number=2, run=2, created_at=None)),
            id="no time",
        ),
        pytest.param(
            (a_message_payload("One.", run=1), a_message_payload("One.", number=2, run=2)), id="the same words"
        ),
    ],
)
def test_of_two_runs_that_wrote_the_spans_answers_neither_is_the_last(messages):
    span = openllmetry_span(OLD, answers=["One.", "Two."])
    thread = {"thread": 1} if all(each["thread_id"] == thread_id(1) for each in messages) else {}
    (found,) = climb(span, listing(*messages), final(1, **thread), final(2, **thread))

    assert_undecided(found, Reason.AMBIGUOUS)


def test_while_one_answer_is_nobodys_the_last_speaker_cannot_be_told():
    span = openllmetry_span(OLD, answers=["One.", "Two.", "Three."])
    both = listing(a_message_payload("One.", run=1), a_message_payload("Two.", number=2, run=2))

    assert_undecided(climb(span, both, final(1, thread=1), final(2, thread=1))[0], Reason.AMBIGUOUS)


def test_an_answer_that_is_nobodys_may_be_the_run_that_was_not_recorded():
    """The second run's span lists the first run's answer too; only the first is recorded, in a late log."""
    (found,) = climb(
        openllmetry_span(OLD, answers=["One.", "Two."]),
        a_log_record(as_json(a_list([a_message_payload("One."), a_run_payload()])), seconds=21),
    )

    assert found.usage is None


def test_a_user_who_says_what_a_run_said_is_not_its_span():
    """Up to 0.38 the user's messages are among the completions, marked as the user's."""
    (found,) = climb(
        openllmetry_span(OLD, answers=[]), listing(a_message_payload("How far is the moon?")), final(1), final(2)
    )

    assert_undecided(found, Reason.AMBIGUOUS)


def test_a_message_of_a_run_that_finished_before_the_span_is_a_contradiction():
    (found,) = climb(openllmetry_span(OLD), listing(a_message_payload()), final(start=1, end=2))

    assert_undecided(found, Reason.CONTRADICTED)


def test_a_span_without_a_trace_is_compared_with_no_trace():
    (found,) = climb(
        openllmetry_span(OLD, trace=0, service=""),
        a_log_record(as_json(a_list([a_run_payload(), a_message_payload()])), trace=0, service=""),
    )

    assert found.rung is None


# ---- the only run of the trace


def test_the_only_run_of_the_trace_decides():
    (found,) = climb(openllmetry_span(OLD), final(), final(2, trace=2))

    assert decided(found) == (Rung.TRACE, run_id(), FIRST)
    assert found.place == "attribute http.response.body of span GET"


def test_a_run_polled_many_times_is_one_run():
    polls = [an_http_span(a_run_payload("in_progress", None), start=10 + n, end=10.5 + n) for n in range(8)]
    (found,) = climb(openllmetry_span(OLD), *polls, final(), final(start=19.2, end=19.5))

    assert decided(found) == (Rung.TRACE, run_id(), FIRST)


def test_usage_of_steps_beside_the_run_is_not_added_to_it():
    steps = an_http_span(a_list([a_step_payload(), a_step_payload(number=2)]), start=19, end=19.5)

    assert decided(climb(openllmetry_span(OLD), steps, final())[0]) == (Rung.TRACE, run_id(), FIRST)
    assert climb(openllmetry_span(OLD), steps)[0].usage is None


def begun(number=1, *, start=9.0, end=19.0, **where):
    """Return the HTTP span that began a run and of which the answer, a stream, was not recorded."""
    url = f"https://api.openai.com/v1/threads/{thread_id(number)}/runs"
    return an_http_span(url=url, method="POST", start=start, end=end, **where)


@pytest.mark.parametrize("answers", [[], [ANSWER]])
def test_a_run_that_was_begun_in_the_trace_and_not_recorded_may_be_the_spans(answers):
    """HTTP hooks leave out streams; the run beside it was begun by a call that no span stands for."""
    span = openllmetry_span(OLD, stream=True, answers=answers)
    (found,) = climb(span, begun(), final(2), listing(a_message_payload(number=2, run=2, thread=2)))

    assert_undecided(found, Reason.AMBIGUOUS)


def test_a_run_that_was_begun_and_is_recorded_is_no_other():
    (found,) = climb(openllmetry_span(OLD), begun(), final())

    assert decided(found) == (Rung.TRACE, run_id(), FIRST)


@pytest.mark.parametrize(
    "elsewhere",
    [
        pytest.param(begun(2, trace=9), id="another trace"),
        pytest.param(begun(2, start=0 - LATE, end=9.9 - LATE), id="long before the span began"),
        pytest.param(begun(2, start=20.1 + LATE, end=21 + LATE), id="long after it ended"),
    ],
)
def test_a_run_that_was_begun_elsewhere_is_not_the_spans(elsewhere):
    (found,) = climb(openllmetry_span(OLD), elsewhere, final())

    assert decided(found) == (Rung.TRACE, run_id(), FIRST)


def test_two_runs_in_the_trace_are_ambiguous():
    (found,) = climb(openllmetry_span(OLD), final(1), final(2))

    assert_undecided(found, Reason.AMBIGUOUS)
    assert set(verdicts(found)) == {run_id(1), run_id(2)}


def test_two_spans_and_one_run_in_the_trace_are_ambiguous():
    found = climb(openllmetry_span(OLD, answers=[]), openllmetry_span(OLD, answers=[], start=11, end=21), final())

    for each in found:
        assert_undecided(each, Reason.AMBIGUOUS)


def test_two_spans_of_one_start_are_one_taker():
    found = climb(openllmetry_span(OLD, answers=[]), openllmetry_span(OLD, answers=[], end=22), final())

    assert [decided(each) for each in found] == [(Rung.TRACE, run_id(), FIRST)] * 2


def test_the_run_left_over_when_ids_have_taken_theirs_decides():
    found = climb(
        openllmetry_span(OLD, more={"app.run_id": run_id(1)}),
        openllmetry_span(OLD, start=11, end=21),
        final(1),
        final(2),
    )

    assert [decided(each) for each in found] == [(Rung.RUN_ID, run_id(1), FIRST), (Rung.TRACE, run_id(2), SECOND)]


def test_a_run_with_other_counts_than_the_span_is_not_its_run():
    span = openllmetry_span("0.34.0", usage=(900, 250), answers=[])
    (found,) = climb(span, final(1), final(2))

    assert decided(found) == (Rung.TRACE, run_id(2), SECOND)


@pytest.mark.parametrize("version", ["0.48.0", "0.50.1"])
def test_swapped_counts_are_the_runs_counts(version):
    (found,) = climb(openllmetry_span(version, existing=True, answers=[]), final(1), final(2))

    assert decided(found) == (Rung.TRACE, run_id(), FIRST)


def test_swapped_counts_of_a_version_that_does_not_swap_are_other_counts():
    span = openllmetry_span(NEW, usage=(340, 1200), answers=[])
    (found,) = climb(span, final())

    assert_undecided(found, Reason.CONTRADICTED)
    assert verdicts(found) == {run_id(): "has other token counts than the span"}


@pytest.mark.parametrize("usage", [(0, 0), (700, 90)])
def test_counts_of_a_stream_that_reported_little_or_was_left_early_speak_against_no_run(usage):
    (found,) = climb(openllmetry_span("0.34.0", stream=True, usage=usage, answers=[]), final())

    assert decided(found) == (Rung.TRACE, run_id(), FIRST)


@pytest.mark.parametrize(
    ("start", "end", "why"),
    [
        (1, 9, "had answered before the span began"),
        (20 + LATE + 0.1, 40, "began after the span ended"),
    ],
)
def test_a_run_seen_only_at_another_time_is_a_contradiction(start, end, why):
    (found,) = climb(openllmetry_span(OLD), final(start=start, end=end))

    assert_undecided(found, Reason.CONTRADICTED)
    assert verdicts(found) == {run_id(): why}


@pytest.mark.parametrize(("start", "end"), [(1, 10), (1, 30), (20 + LATE, 40), (0, 0)])
def test_a_run_seen_around_the_span_is_none(start, end):
    (found,) = climb(openllmetry_span(OLD), final(start=start, end=max(end, 10)))

    assert decided(found) == (Rung.TRACE, run_id(), FIRST)


def test_a_run_that_wrote_other_answers_is_a_contradiction():
    (found,) = climb(openllmetry_span(OLD), listing(a_message_payload("Something else.")), final())

    assert_undecided(found, Reason.CONTRADICTED)
    assert verdicts(found) == {run_id(): "wrote other answers than the span shows"}


def test_a_contradiction_never_leaves_the_other_of_two_runs_as_the_only_one():
    """A gateway's clock may be wrong, a text may be cut off."""
    (found,) = climb(openllmetry_span(OLD, answers=[]), final(1, start=1, end=2), final(2))

    assert_undecided(found, Reason.AMBIGUOUS)


def test_a_contradiction_never_leaves_the_other_of_two_spans_as_the_only_taker():
    """The run said what the first span shows, but a clock is wrong; the second span's run was not recorded."""
    found = climb(
        openllmetry_span(OLD, answers=["One."], start=10, end=20),
        openllmetry_span(OLD, answers=[], start=2, end=25),
        listing(a_message_payload("One.")),
        final(start=8, end=9),
    )

    assert_undecided(found[0], Reason.CONTRADICTED)
    assert found[1].usage is None


def test_a_run_without_usage_beside_one_with_usage_may_be_the_spans():
    (found,) = climb(
        openllmetry_span(OLD, answers=[]), final(1), an_http_span(a_run_payload("queued", None, number=2), start=12)
    )

    assert_undecided(found, Reason.AMBIGUOUS)


# ---- a usage object alone


def test_a_usage_object_alone_in_the_trace_decides():
    (found,) = climb(openllmetry_span(OLD), a_span("ask", {"app.usage": as_json(a_usage())}, start=9, end=21))

    assert decided(found) == (Rung.BARE_USAGE, None, FIRST)
    assert found.place == "attribute app.usage of span ask"


def test_the_same_usage_object_twice_is_one():
    more = {"app.usage": as_json(a_usage())}
    (found,) = climb(openllmetry_span(OLD), a_span("ask", more, start=9, end=21), a_span("tell", more, start=9, end=21))

    assert decided(found) == (Rung.BARE_USAGE, None, FIRST)


def test_two_usage_objects_in_the_trace_are_ambiguous():
    (found,) = climb(
        openllmetry_span(OLD),
        a_span("ask", {"a": as_json(a_usage()), "b": as_json(a_usage(5, 6))}, start=9, end=21),
    )

    assert_undecided(found, Reason.AMBIGUOUS)


def test_two_spans_and_one_usage_object_are_ambiguous():
    found = climb(
        openllmetry_span(OLD),
        openllmetry_span(OLD, start=11, end=21),
        a_span("ask", {"app.usage": as_json(a_usage())}, start=9, end=25),
    )

    for each in found:
        assert_undecided(each, Reason.AMBIGUOUS)


@pytest.mark.parametrize(
    "call",
    [
        pytest.param({"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}, id="GenAI conventions"),
        pytest.param({"llm.model_name": "m"}, id="OpenInference"),
    ],
)
def test_a_usage_object_beside_another_model_call_may_be_that_calls(call):
    (found,) = climb(
        openllmetry_span(OLD),
        a_span("chat", call, start=12, end=13),
        a_span("ask", {"app.usage": as_json(a_usage())}, start=9, end=21),
    )

    assert_undecided(found, Reason.AMBIGUOUS)


def test_a_usage_object_that_langfuse_writes_for_a_chat_is_that_chats():
    chat = {"langfuse.observation.type": "generation", "langfuse.observation.usage_details": as_json(a_usage(17, 5))}
    (found,) = climb(openllmetry_span(OLD), a_span("chat", chat, start=12, end=13))

    assert found.usage is None


@pytest.mark.parametrize(
    "payload", [a_chat_completion(), {"usage": a_usage()}, a_list([a_step_payload()]), [a_usage()]]
)
def test_a_usage_object_inside_another_object_is_nobodys(payload):
    (found,) = climb(openllmetry_span(OLD), an_http_span(payload, start=12, end=13))

    assert_undecided(found, Reason.PAYLOAD_ABSENT)


def test_a_usage_object_beside_a_run_is_not_the_spans():
    (found,) = climb(
        openllmetry_span(OLD),
        a_span("ask", {"app.usage": as_json(a_usage(17, 5))}, start=9, end=21),
        an_http_span(a_run_payload("in_progress", None), start=12, end=13),
    )

    assert_undecided(found, Reason.RUN_IN_PROGRESS)


@pytest.mark.parametrize(("start", "end"), [(1, 9), (20 + LATE + 0.1, 40)])
def test_a_usage_object_of_another_time_is_a_contradiction(start, end):
    (found,) = climb(openllmetry_span(OLD), a_span("ask", {"u": as_json(a_usage())}, start=start, end=end))

    assert_undecided(found, Reason.CONTRADICTED)


def test_one_place_of_a_usage_object_at_the_spans_time_is_enough_whatever_the_order():
    early = a_span("ask", {"u": as_json(a_usage())}, start=1, end=2)
    inside = a_span("tell", {"u": as_json(a_usage())}, start=12, end=13)

    assert climb(openllmetry_span(OLD), early, inside)[0] == climb(openllmetry_span(OLD), inside, early)[0]


def test_a_usage_object_with_other_counts_than_the_span_is_a_contradiction():
    (found,) = climb(openllmetry_span("0.34.0"), a_span("ask", {"u": as_json(a_usage(17, 5))}, start=9, end=21))

    assert_undecided(found, Reason.CONTRADICTED)


def test_a_usage_object_in_a_log_record_without_a_time_decides():
    record = a_log_record(as_json(a_usage()))
    record.message.time_unix_nano = 0

    assert decided(climb(openllmetry_span(OLD), record)[0]) == (Rung.BARE_USAGE, None, FIRST)


@pytest.mark.parametrize("trace", [1, 2])
def test_an_older_answer_of_a_run_with_other_counts_is_no_unknown_one(trace):
    """The span lists its whole thread, and its own counts say which of the two runs is its."""
    messages = [a_message_payload(text, number=n, run=n) for n, text in ((1, "One."), (2, ANSWER))]
    (found,) = climb(
        openllmetry_span("0.34.0", usage=(900, 250), answers=["One.", ANSWER]),
        final(1, thread=1, trace=trace),
        final(2, thread=1, trace=trace),
        an_http_span(a_list(messages), start=19, end=19.5, trace=trace),
    )

    assert decided(found) == (Rung.TEXT if trace == 1 else Rung.SERVICE, run_id(2), SECOND)


# ---- across traces


def apart(number, *, text=ANSWER, start=18.0, **where):
    """Return a run and its messages, each in a trace of its own, as HTTP spans without a parent are."""
    return (
        final(number, start=start, end=start + 0.5, trace=100 + number, **where),
        listing(
            a_message_payload(text, number=number, run=number, thread=number),
            start=start + 1,
            end=start + 1.5,
            trace=200 + number,
            **where,
        ),
    )


def test_an_answer_of_one_run_of_the_service_at_that_time_decides():
    (found,) = climb(openllmetry_span(OLD), *apart(1), *apart(2, text="Two."))

    assert decided(found) == (Rung.SERVICE, run_id(), FIRST)


@pytest.mark.parametrize(
    ("where", "reason"),
    [({}, Reason.AMBIGUOUS), ({"service": "other"}, Reason.ENRICHED), ({"start": 50.0, "end": 51.0}, Reason.ENRICHED)],
)
def test_a_run_that_the_service_began_and_nobody_recorded_may_have_said_the_same(where, reason):
    (found,) = climb(openllmetry_span(OLD, stream=True), begun(trace=300, **where), *apart(2))

    assert found.reason is reason


def test_an_answer_of_two_runs_of_the_service_is_ambiguous():
    (found,) = climb(openllmetry_span(OLD), *apart(1), *apart(2))

    assert_undecided(found, Reason.AMBIGUOUS)
    assert set(verdicts(found)) == {run_id(1), run_id(2)}


def test_a_run_of_the_service_whose_answer_nobody_recorded_may_have_said_the_same():
    (found,) = climb(openllmetry_span(OLD), *apart(1), apart(2)[0])

    assert_undecided(found, Reason.AMBIGUOUS)


def test_two_spans_of_the_service_with_one_answer_are_ambiguous():
    found = climb(openllmetry_span(OLD), openllmetry_span(OLD, trace=2, start=11, end=21), *apart(1))

    for each in found:
        assert_undecided(each, Reason.AMBIGUOUS)


def test_spans_of_the_service_with_other_answers_or_at_other_times_do_not_matter():
    found = climb(
        openllmetry_span(OLD),
        openllmetry_span(OLD, trace=2, answers=["Two."], start=12),
        openllmetry_span(OLD, trace=3, start=100, end=110),
        openllmetry_span(OLD, trace=4, start=11, service="other"),
        *apart(1),
    )

    assert decided(found[0]) == (Rung.SERVICE, run_id(), FIRST)
    assert [each.usage for each in found[1:]] == [None, None, None]


def test_a_run_that_an_id_ties_to_a_span_of_another_trace_is_not_given_away_by_its_answer():
    found = climb(
        openllmetry_span(NEW, usage=None),
        openllmetry_span(OLD, trace=2, stream=True, start=11, end=21),
        *apart(1),
    )

    assert decided(found[0]) == (Rung.MESSAGE_ID, run_id(), FIRST)
    assert found[1].usage is None


@pytest.mark.parametrize(
    "elsewhere",
    [
        pytest.param({"service": "other"}, id="another service"),
        pytest.param({"start": 1}, id="earlier"),
        pytest.param({"start": 20 + LATE + 1}, id="later"),
        pytest.param({"text": "Something else."}, id="another answer"),
    ],
)
def test_runs_elsewhere_in_space_or_time_are_not_the_spans(elsewhere):
    (found,) = climb(openllmetry_span(OLD), *apart(1, **elsewhere))

    assert_undecided(found, Reason.PAYLOAD_ABSENT)


@pytest.mark.parametrize(("seen", "reason"), [(20.5, Reason.CONTRADICTED), (11, Reason.ENRICHED)])
def test_a_run_that_was_only_begun_when_the_span_had_ended_is_not_its_run(seen, reason):
    """It says the same, and of the span's own nothing was recorded."""
    begun_late = an_http_span(a_run_payload("queued", None), start=seen, end=seen + 0.1, trace=300)
    (found,) = climb(openllmetry_span(OLD), begun_late, *apart(1, start=22))

    assert found.reason is reason
    assert (found.usage is None) is (reason is Reason.CONTRADICTED)


@pytest.mark.parametrize("span", [openllmetry_span(OLD, service=""), openllmetry_span(OLD, answers=[])])
def test_a_span_without_a_service_or_an_answer_is_not_looked_for_across_traces(span):
    (found,) = climb(span, *apart(1, service=span.service))

    assert_undecided(found, Reason.PAYLOAD_ABSENT)


def test_a_run_of_the_service_with_other_counts_than_the_span_is_not_its_run():
    (found,) = climb(openllmetry_span("0.34.0", usage=(900, 250)), *apart(1), *apart(2))

    assert decided(found) == (Rung.SERVICE, run_id(2), SECOND)


# ---- the same start


def test_a_span_that_began_in_the_same_nanosecond_is_of_the_same_run():
    """The first listing came before the answer: it shows no message, and its trace holds no payload."""
    found = climb(
        openllmetry_span(NEW, usage=None, answers=[], trace=2, end=15),
        openllmetry_span(NEW, usage=None),
        listing(a_message_payload()),
        final(),
    )

    assert [decided(each) for each in found] == [
        (Rung.SAME_START, run_id(), FIRST),
        (Rung.MESSAGE_ID, run_id(), FIRST),
    ]


@pytest.mark.parametrize("version", [OLD, NEW])
def test_spans_that_began_together_and_list_different_messages_are_of_different_runs(version):
    """Calls with positional arguments are noted under one name, and the next run's listing gets the older start."""
    found = climb(
        openllmetry_span(version, usage=None, answers=["One."], messages=[1]),
        openllmetry_span(version, usage=None, answers=["Two."], messages=[2], trace=2),
        listing(a_message_payload("One.")),
        final(),
    )

    assert decided(found[0])[1:] == (run_id(), FIRST)
    assert_undecided(found[1], Reason.PAYLOAD_ABSENT)


@pytest.mark.parametrize("question", ["How far is the sun?", QUESTION])
def test_a_span_that_lists_another_question_and_no_answer_is_no_twin(question):
    """A run that failed, beside one that ended: the question is all that its listing shows."""
    found = climb(
        openllmetry_span(OLD, answers=["One."]),
        openllmetry_span(OLD, answers=[], trace=2, question=question),
        listing(a_message_payload("One.")),
        final(),
    )

    assert decided(found[0])[1:] == (run_id(), FIRST)
    assert (found[1].run is not None) == (question == QUESTION)


def test_the_same_start_goes_before_the_only_run_that_is_left_in_the_trace():
    """The other run of the trace has no span of its own: nobody listed its messages."""
    found = climb(
        openllmetry_span(NEW, usage=None, answers=[], trace=2, end=15),
        openllmetry_span(NEW, usage=None),
        listing(a_message_payload()),
        final(1),
        final(1, trace=2),
        final(2, trace=2),
    )

    assert [decided(each) for each in found] == [
        (Rung.SAME_START, run_id(), FIRST),
        (Rung.MESSAGE_ID, run_id(), FIRST),
    ]


@pytest.mark.parametrize(
    "twin",
    [
        pytest.param(openllmetry_span(OLD, trace=2, answers=[], start=10.000000001), id="a nanosecond later"),
        pytest.param(openllmetry_span(OLD, trace=2, answers=[], service="other"), id="another service"),
        pytest.param(openllmetry_span("0.34.0", trace=2, usage=None, answers=[]), id="another version"),
        pytest.param(openllmetry_span(OLD, trace=2, answers=[], stream=True), id="a stream"),
        pytest.param(
            openllmetry_span(OLD, trace=2, answers=[], more={"app.run_id": run_id(7)}), id="names another run"
        ),
    ],
)
def test_a_span_that_is_no_twin_gets_nothing(twin):
    found = climb(openllmetry_span(OLD), twin, final())

    assert decided(found[0]) == (Rung.TRACE, run_id(), FIRST)
    assert found[1].usage is None


def test_a_twin_with_other_counts_gets_nothing():
    found = climb(
        openllmetry_span("0.34.0"), openllmetry_span("0.34.0", usage=(900, 250), trace=2, answers=[]), final()
    )

    assert found[1].usage is None


def test_a_twin_with_other_counts_than_the_usage_object_on_the_span_gets_nothing():
    """The run's own payload is unfinished; its usage stands alone beside it, so the run has none to compare with."""
    more = {"app.run": as_json(a_run_payload("in_progress", None)), "app.usage": as_json(a_usage())}
    found = climb(
        openllmetry_span("0.34.0", usage=None, more=more),
        openllmetry_span("0.34.0", usage=(900, 250), trace=2, answers=[]),
    )

    assert decided(found[0]) == (Rung.PAYLOAD, run_id(), FIRST)
    assert found[1].usage is None


def test_twins_of_two_runs_tell_nothing():
    found = climb(
        openllmetry_span(OLD, more={"app.run_id": run_id(1)}),
        openllmetry_span(OLD, more={"app.run_id": run_id(2)}),
        openllmetry_span(OLD, trace=2, answers=[]),
        final(1),
        final(2),
    )

    assert found[2].usage is None


def test_streams_that_began_in_the_same_nanosecond_are_runs_of_their_own():
    """A stream has one span, whatever is listed afterwards."""
    found = climb(
        openllmetry_span(NEW, stream=True),
        openllmetry_span(NEW, stream=True, usage=(900, 250), trace=2, answers=["No."], messages=[2]),
        final(),
    )

    assert decided(found[0]) == (Rung.TRACE, run_id(), FIRST)
    assert found[1].run is None


@pytest.mark.parametrize(
    "digits",
    [
        pytest.param(456_000, id="a whole microsecond"),
        pytest.param(456_700, id="Windows counts in 100 ns, and many milliseconds long the same"),
    ],
)
def test_a_coarse_clock_may_give_two_runs_one_start(digits):
    spans = [openllmetry_span(OLD), openllmetry_span(OLD, trace=2, answers=[])]
    for span in spans:
        span.message.start_time_unix_nano += digits - span.message.start_time_unix_nano % 1_000_000

    assert climb(*spans, final())[1].usage is None


# ---- what is missing


def test_a_run_that_is_not_finished_in_any_payload_is_in_progress():
    (found,) = climb(openllmetry_span(OLD), an_http_span(a_run_payload("in_progress", None), start=12))

    assert_undecided(found, Reason.RUN_IN_PROGRESS)
    assert verdicts(found) == {run_id(): "holds no usage"}


def test_a_run_that_finished_without_usage_has_none():
    (found,) = climb(openllmetry_span(OLD), an_http_span(a_run_payload("expired", None), start=12))

    assert_undecided(found, Reason.USAGE_ABSENT)


def test_a_run_that_is_only_named_is_absent():
    url = f"https://api.openai.com/v1/threads/{thread_id()}/runs/{run_id()}"
    (found,) = climb(openllmetry_span(OLD), an_http_span(url=url, start=12))

    assert_undecided(found, Reason.PAYLOAD_ABSENT)


def test_a_run_whose_final_payloads_disagree_is_a_conflict():
    (found,) = climb(openllmetry_span(OLD), final(), an_http_span(a_run_payload(usage=(1, 1)), start=19, end=20))

    assert found.reason is Reason.PAYLOAD_CONFLICT
    assert found.usage is None
    assert verdicts(found)[run_id()] in ("contradicts itself", "decided")


def test_a_run_that_contradicts_itself_is_not_mended_by_a_usage_object():
    more = {"app.usage": as_json(a_usage(5, 5)), "app.run_id": run_id()}
    (found,) = climb(openllmetry_span(OLD, more=more), final(), an_http_span(a_run_payload(usage=(1, 1)), start=19))

    assert (found.reason, found.usage, found.rung) == (Reason.PAYLOAD_CONFLICT, None, Rung.RUN_ID)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (a_run_payload("in_progress", None), Reason.RUN_IN_PROGRESS),
        (a_run_payload("expired", None), Reason.USAGE_ABSENT),
        (a_message_payload(), Reason.PAYLOAD_ABSENT),
    ],
)
def test_a_run_that_an_id_decides_keeps_its_rung_without_usage(payload, reason):
    (found,) = climb(openllmetry_span(OLD, more={"app.run_id": run_id()}), an_http_span(payload, start=12))

    assert (found.reason, *decided(found)) == (reason, Rung.RUN_ID, run_id(), None)


@pytest.mark.parametrize("usages", [(FIRST, None), (None, FIRST)])
def test_the_final_revision_of_a_run_wins_whatever_the_order(usages):
    payloads = [a_run_payload("completed" if each else "in_progress", (1200, 340) if each else None) for each in usages]
    (found,) = climb(openllmetry_span(OLD), *(an_http_span(each, start=12 + n) for n, each in enumerate(payloads)))

    assert decided(found) == (Rung.TRACE, run_id(), FIRST)


def test_a_payload_that_is_cut_off_is_unreadable():
    (found,) = climb(openllmetry_span(OLD), an_http_span(as_json(a_run_payload())[:400], start=12))

    assert_undecided(found, Reason.PAYLOAD_UNREADABLE)


@pytest.mark.parametrize("polls", [[], [an_http_span(a_run_payload("in_progress", None), start=12)]])
def test_a_cut_off_payload_is_named_although_its_url_or_an_earlier_poll_names_the_run(polls):
    url = f"https://api.openai.com/v1/threads/{thread_id()}/runs/{run_id()}"
    cut = an_http_span(as_json(a_run_payload())[:400], url=url, start=18)

    assert_undecided(climb(openllmetry_span(OLD), *polls, cut)[0], Reason.PAYLOAD_UNREADABLE)


def test_a_cut_off_payload_beside_a_run_that_ended_without_usage_is_not_what_is_missing():
    ended = an_http_span(a_run_payload("cancelled", None), start=18)
    cut = an_http_span(as_json(a_run_payload())[:400], start=12)

    assert_undecided(climb(openllmetry_span(OLD), cut, ended)[0], Reason.USAGE_ABSENT)


@pytest.mark.parametrize(
    "attributes", [{}, {"output.value": "__REDACTED__"}, {"app.limits": '{"max_prompt_tokens": 5000}'}]
)
def test_nothing_is_found_where_nothing_is_recorded(attributes):
    (found,) = climb(openllmetry_span(OLD), a_span("Run", attributes))

    assert_undecided(found, Reason.PAYLOAD_ABSENT)


def test_runs_whose_ids_were_taken_out_are_not_taken_for_one():
    masked = {"id": "__REDACTED__", "thread_id": "__REDACTED__"}
    elsewhere = an_http_span(a_run_payload(**masked), start=18, trace=2)
    polled = an_http_span(a_run_payload("in_progress", None, **masked), start=12)

    assert_undecided(climb(openllmetry_span(OLD), polled, elsewhere)[0], Reason.PAYLOAD_UNREADABLE)


def test_a_message_whose_run_id_was_taken_out_names_no_run():
    message = a_message_payload() | {"run_id": "__REDACTED__"}
    elsewhere = an_http_span(a_run_payload(id="__REDACTED__"), start=18, trace=2)

    assert_undecided(climb(openllmetry_span(NEW, usage=None), listing(message), elsewhere)[0], Reason.PAYLOAD_ABSENT)


def test_genuine_zeros_are_usage():
    (found,) = climb(openllmetry_span(OLD), an_http_span(a_run_payload("failed", (0, 0)), start=12))

    assert decided(found) == (Rung.TRACE, run_id(), Usage(0, 0, 0))


def test_a_payload_in_a_prompt_of_the_span_decides_nothing():
    more = {"gen_ai.prompt.7.content": as_json(a_run_payload()), "input.value": as_json(a_run_payload())}

    assert_undecided(climb(openllmetry_span(OLD, more=more))[0], Reason.PAYLOAD_ABSENT)


def test_a_payload_in_an_answer_of_the_span_decides_nothing():
    for version in (OLD, NEW):
        (found,) = climb(openllmetry_span(version, usage=None, answers=[as_json(a_run_payload())]))
        assert_undecided(found, Reason.PAYLOAD_ABSENT)


def test_a_payload_in_a_messages_own_text_decides_nothing():
    told = as_json(a_run_payload(number=9, usage=(1, 1)))
    found = climb(openllmetry_span(OLD, answers=[told]), listing(a_message_payload(told)), final())

    assert decided(found[0]) == (Rung.TEXT, run_id(), FIRST)


# ---- settled

UNSETTLED = {
    Rung.THREAD_ID: (openllmetry_span(OLD, more={"app.thread_id": thread_id()}), final(trace=2)),
    Rung.TEXT: (openllmetry_span(OLD), listing(a_message_payload()), final()),
    Rung.TRACE: (openllmetry_span(OLD), final()),
    Rung.BARE_USAGE: (openllmetry_span(OLD), a_span("ask", {"u": as_json(a_usage())}, start=9, end=21)),
    Rung.SERVICE: (openllmetry_span(OLD), *apart(1)),
}

SETTLED = {
    Rung.PAYLOAD: (openllmetry_span(OLD, more={"app.run": as_json(a_run_payload())}),),
    Rung.RUN_ID: (openllmetry_span(OLD, more={"app.run_id": run_id()}), final()),
    Rung.MESSAGE_ID: (openllmetry_span(NEW, usage=None), listing(a_message_payload()), final()),
}


@pytest.mark.parametrize("rung", SETTLED)
def test_identity_decides_at_once(rung):
    (found,) = climb(*SETTLED[rung], settled=False)

    assert decided(found) == (rung, run_id(), FIRST)


@pytest.mark.parametrize("rung", UNSETTLED)
def test_uniqueness_decides_only_once_everything_was_seen(rung):
    assert climb(*UNSETTLED[rung])[0].rung is rung
    (found,) = climb(*UNSETTLED[rung], settled=False)

    assert_undecided(found, Reason.NOT_SETTLED)


def test_every_rung_either_decides_at_once_or_waits():
    assert SETTLED.keys() == IDENTITY
    assert SETTLED.keys() | UNSETTLED.keys() | {Rung.SAME_START} == set(Rung)


def test_whoever_tells_whether_it_is_settled_is_asked_about_the_rung():
    asked = []
    candidates, index = candidates_and_index([openllmetry_span(OLD), final()])
    resolve(candidates, index, lambda candidate, rung: asked.append((candidate.span_name, rung)) or True)

    assert asked == [("openai.assistant.run", Rung.TRACE)]


def test_what_is_ambiguous_stays_so_before_everything_was_seen():
    assert_undecided(climb(openllmetry_span(OLD), final(1), final(2), settled=False)[0], Reason.AMBIGUOUS)


def test_the_twin_of_a_span_that_identity_decided_need_not_wait():
    found = climb(
        openllmetry_span(NEW, usage=None, answers=[], trace=2),
        openllmetry_span(NEW, usage=None),
        listing(a_message_payload()),
        final(),
        settled=False,
    )

    assert [each.rung for each in found] == [Rung.SAME_START, Rung.MESSAGE_ID]


def test_no_candidates_have_no_resolutions():
    assert resolve([], Index()) == []


def test_a_resolution_is_decided_by_its_rung():
    assert not Resolution(Reason.AMBIGUOUS).decided
    assert Resolution(Reason.RUN_IN_PROGRESS, Rung.RUN_ID).decided


def test_message_ids_of_the_builders_are_what_the_ladder_reads():
    """Guards the tests above: a span whose ids were not read would pass them by other rungs."""
    assert message_id(1) in str(openllmetry_span(NEW).message)
