"""What the index knows after learning: the same whatever the order, and however often."""

import itertools
from math import inf

import pytest

from enricher.evidence.index import Index
from enricher.evidence.known import MOST
from enricher.evidence.objects import Usage
from enricher.otlp.attributes import digest
from tests.support.build import (
    ANSWER,
    CREATED,
    MODEL,
    SERVICE,
    Item,
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
    assistant_id,
    at,
    evidence_of,
    message_id,
    run_id,
    span_id,
    thread_id,
    trace_id,
)

DONE = Usage(1200, 340, 1540)


def of_service(index, service):
    return {run_id for run_id, run in index.runs.items() if service in run.services}


def learn(index: Index, item: Item):
    for evidence in evidence_of(item):
        index.add(evidence)


def index_of(*items):
    index = Index()
    for item in items:
        learn(index, item)
    return index


def knowledge(index):
    """Return all that an index can be asked, in a form in which the order of learning does not show."""

    def table(name):
        return {key: sorted(map(repr, value)) for key, value in getattr(index, name).items() if value}

    def run(known):
        fields = {name: getattr(known, name) for name in type(known).__slots__}
        return {name: sorted(map(repr, value)) if isinstance(value, tuple) else value for name, value in fields.items()}

    def trace(known):
        return (sorted(map(repr, known.bare)), known.model_calls, known.azure, known.unreadable)

    tables = ("_of_thread", "_of_trace", "_named_in_trace", "_on_span", "_named_on_span")
    return {
        "runs": {key: run(known) for key, known in index.runs.items()},
        "messages": dict(index.messages),
        "traces": {key: trace(known) for key, known in index.traces.items()},
        "silent": index._silent._of,
        **{name: table(name) for name in tables},
    }


# runs


def test_a_run_is_known_by_all_its_payloads_together():
    index = index_of(
        an_http_span(a_run_payload("queued", None), start=1, end=2, number=3),
        an_http_span(a_run_payload("in_progress", None), start=3, end=4),
        an_http_span(a_run_payload(), start=5, end=6, number=4),
        an_http_span(a_run_payload(), start=7, end=8),
    )
    run = index.runs[run_id()]

    assert (run.usage, run.model, run.thread_id, run.assistant_id) == (DONE, MODEL, thread_id(), assistant_id())
    assert (run.shown, run.ended, run.conflicting, run.azure) == (True, True, False, False)
    assert (run.first, run.last, run.answered) == (at(1), at(8), at(6))
    assert (run.place.span_id, run.place.where) == (span_id(4), "attribute http.response.body of span GET")
    assert index.of_thread(thread_id()) == index.of_trace(trace_id()) == of_service(index, SERVICE) == {run_id()}
    assert index.on_span(trace_id(), span_id(3)) == index.on_span(trace_id(), span_id(4)) == {run_id()}


def test_an_unfinished_run_has_no_usage_and_no_end():
    run = index_of(an_http_span(a_run_payload("in_progress", None), number=3)).runs[run_id()]

    assert (run.usage, run.ended, run.answered, run.place.span_id) == (None, False, 0, span_id(3))


def test_a_run_that_ended_without_usage_has_ended():
    run = index_of(an_http_span(a_run_payload("expired", None), start=1, end=2)).runs[run_id()]

    assert (run.usage, run.ended, run.answered) == (None, True, at(2))


def test_duplicates_of_a_final_payload_are_one():
    """A finished run is fetched and listed again and again."""
    run = index_of(an_http_span(a_run_payload()), an_http_span(a_list([a_run_payload(), a_run_payload()]))).runs[
        run_id()
    ]

    assert run.usage == DONE


@pytest.mark.parametrize("other", [(1201, 340), (1200, 339), (0, 0), (340, 1200)])
def test_final_payloads_that_disagree_leave_the_run_without_usage(other):
    run = index_of(an_http_span(a_run_payload()), an_http_span(a_run_payload(usage=other))).runs[run_id()]

    assert (run.usage, run.conflicting) == (None, True)


def test_final_payloads_of_which_one_has_details_agree():
    """The typed client drops the details, the wire has them."""
    run = index_of(
        an_http_span(a_run_payload()), an_http_span(a_run_payload(usage=a_usage(cached=64, reasoning=32)))
    ).runs[run_id()]

    assert (run.usage, run.conflicting) == (Usage(1200, 340, 1540, 64, 32), False)


def test_details_that_disagree_are_unknown_and_the_counts_stay():
    run = index_of(
        an_http_span(a_run_payload(usage=a_usage(cached=64))), an_http_span(a_run_payload(usage=a_usage(cached=65)))
    ).runs[run_id()]

    assert run.usage == DONE


def test_models_that_disagree_are_unknown():
    assert (
        index_of(an_http_span(a_run_payload()), an_http_span(a_run_payload(model="gpt-4o"))).runs[run_id()].model
        is None
    )
    assert index_of(an_http_span(a_run_payload(model=...))).runs[run_id()].model is None


def test_a_run_that_only_steps_and_messages_name_is_named_and_not_shown():
    index = index_of(an_http_span(a_list([a_step_payload(), a_message_payload()]), number=3))
    run = index.runs[run_id()]

    assert (run.shown, run.usage, run.place, run.first) == (False, None, None, at(0))
    assert index.named_in_trace(trace_id()) == index.named_on_span(trace_id(), span_id(3)) == {run_id()}
    assert index.of_trace(trace_id()) == index.on_span(trace_id(), span_id(3)) == set()


def test_a_run_of_an_api_path_is_handled_by_the_trace_and_not_shown():
    url = f"https://api.openai.com/v1/threads/{thread_id()}/runs/{run_id()}"
    index = index_of(an_http_span(url=url, number=3))

    assert index.of_trace(trace_id()) == index.of_thread(thread_id()) == {run_id()}
    assert index.named_on_span(trace_id(), span_id(3)) == {run_id()}
    assert (index.runs[run_id()].thread_id, index.runs[run_id()].shown) == (thread_id(), False)
    assert index.on_span(trace_id(), span_id(3)) == set()


def test_an_api_path_without_a_run_names_none():
    index = index_of(an_http_span(url=f"https://api.openai.com/v1/threads/{thread_id()}/runs"))

    assert index.runs == {}


@pytest.mark.parametrize(("host", "azure"), [("tutors.openai.azure.com", True), ("api.openai.com", False)])
def test_azure_is_known_of_runs_and_traces_by_the_address_beside_them(host, azure):
    path = f"https://{host}/openai/threads/{thread_id()}/runs/{run_id()}"

    assert index_of(an_http_span(a_run_payload(), url=path)).runs[run_id()].azure is azure
    assert index_of(an_http_span(url=path)).in_trace(trace_id()).azure is azure


def test_azure_is_known_of_a_run_whose_path_alone_names_it():
    """The HTTP span has the address, the application's log has the payload."""
    path = f"https://tutors.openai.azure.com/openai/threads/{thread_id()}/runs/{run_id()}"
    index = index_of(an_http_span(url=path), a_log_record(as_json(a_run_payload())))

    assert index.runs[run_id()].azure


def test_times_that_are_unknown_are_not_taken_for_the_earliest():
    record = a_log_record(as_json(a_run_payload()))
    record.message.time_unix_nano = 0
    run = index_of(record, an_http_span(a_run_payload(), start=1, end=2)).runs[run_id()]

    assert (run.first, run.last, run.answered) == (at(1), at(2), at(2))


# messages, bare usage, unreadable payloads


def test_a_message_is_known_by_its_run_its_time_and_its_text():
    index = index_of(
        an_http_span(a_list([a_message_payload(number=2), a_message_payload(number=3, run=None, role="user")]))
    )

    assert (index.messages[message_id(2)].run_ids, index.messages[message_id(2)].created_at) == (
        {run_id()},
        CREATED + 2,
    )
    assert (index.messages[message_id(3)].run_ids, index.messages[message_id(3)].from_assistant) == (set(), False)
    assert index.runs[run_id()].texts == {digest(ANSWER): CREATED + 2}
    assert (index.runs[run_id()].thread_id, index.of_thread(thread_id())) == (thread_id(), {run_id()})


def test_a_message_that_names_no_thread_is_its_runs_all_the_same():
    index = index_of(an_http_span(a_message_payload(thread_id=None)))

    assert index.messages[message_id()].run_ids == {run_id()}
    assert (index.runs[run_id()].thread_id, index.of_thread(thread_id())) == (None, set())


def test_a_step_and_the_message_it_wrote_are_one_message():
    index = index_of(an_http_span(an_sse_transcript(a_step_payload(), a_message_payload())))

    assert index.messages[message_id()].run_ids == {run_id()}


def test_a_message_of_which_two_runs_are_named_knows_both():
    index = index_of(an_http_span(a_message_payload(run=1)), an_http_span(a_message_payload(run=2)))

    assert index.messages[message_id()].run_ids == {run_id(1), run_id(2)}


def test_a_usage_object_alone_is_known_by_its_trace_and_place():
    index = index_of(a_span("work", {"usage": as_json(a_usage())}, number=3))

    assert [(bare.usage, bare.place.span_id) for bare in index.in_trace(trace_id()).bare] == [(DONE, span_id(3))]


def test_a_payload_that_is_cut_off_is_known_by_its_trace():
    assert index_of(an_http_span(as_json(a_run_payload())[:300])).in_trace(trace_id()).unreadable


def test_other_calls_of_a_model_are_known_by_trace():
    index = Index()
    index.add_model_call(trace_id(), span_id(3))
    index.add_model_call(trace_id(), span_id(4))

    assert index.in_trace(trace_id()).model_calls == {span_id(3), span_id(4)}


# order

URL = f"https://tutors.openai.azure.com/openai/threads/{thread_id()}/runs/{run_id()}"

SETS = {
    "revisions": [
        an_http_span(a_run_payload("queued", None, model=...), start=1, end=2, number=11),
        an_http_span(a_run_payload(), start=5, end=6, number=12),
        an_http_span(a_run_payload(usage=a_usage(cached=1)), start=7, end=8, number=13),
        a_log_record(as_json(a_run_payload()), seconds=9, span=14),
    ],
    "places of one time": [
        an_http_span(a_run_payload(), number=11),
        a_span("work", {"b": as_json(a_run_payload()), "a": as_json(a_run_payload())}, number=12),
    ],
    "a conflict": [
        an_http_span(a_run_payload(), start=1, end=2, number=11),
        an_http_span(a_run_payload(usage=(1, 1)), start=3, end=4, number=12),
        an_http_span(a_run_payload(usage=None), start=5, end=6, number=13),
    ],
    "messages": [
        an_http_span(a_message_payload(), start=1, end=2, number=11),
        an_http_span(a_message_payload(created_at=None), start=3, end=4, number=12),
        an_http_span(a_step_payload(number=2), start=5, end=6, number=13),
        an_http_span(a_message_payload(number=2, created=9), start=7, end=8, number=14),
    ],
    "ids that disagree": [
        an_http_span(a_run_payload(thread=1), start=1, end=2, number=11),
        an_http_span(a_run_payload(thread=2, assistant_id=assistant_id(2)), start=3, end=4, number=12),
        an_http_span(a_run_payload(thread_id=None, assistant_id=None), start=5, end=6, number=13),
        an_http_span(url=URL, start=7, end=8, number=14),
    ],
    "everything else": [
        an_http_span(as_json(a_run_payload())[:300], number=11),
        a_span("work", {"usage": as_json(a_usage())}, number=12),
        a_span("work", {"usage": as_json(a_usage(1, 2))}, number=13),
        an_http_span(a_message_payload(run=None, role="user"), number=14),
    ],
}


@pytest.mark.parametrize("items", SETS.values(), ids=SETS)
def test_the_order_in_which_evidence_comes_does_not_matter(items):
    expected = knowledge(index_of(*items))

    for other in itertools.permutations(items):
        assert knowledge(index_of(*other)) == expected


@pytest.mark.parametrize("items", [each for key, each in SETS.items() if key != "everything else"])
def test_learning_the_same_twice_changes_nothing(items):
    assert knowledge(index_of(*items, *items)) == knowledge(index_of(*items))


# forgetting


def test_what_was_not_touched_lately_is_forgotten_as_a_whole():
    index, old = (
        Index(),
        an_http_span(a_run_payload(), url=f"https://api.openai.com/v1/threads/{thread_id()}/runs/{run_id()}"),
    )
    nothing = knowledge(index)
    for evidence in evidence_of(old):
        index.add(evidence, 1.0)

    assert index.forget(before=1.0, keep=100) == 0
    assert index.forget(before=1.5, keep=100) > 0
    assert knowledge(index) == nothing


def test_the_oldest_of_too_much_is_forgotten():
    index = Index()
    for number in range(1, 5):
        for evidence in evidence_of(an_http_span(a_run_payload(number=number), trace=number)):
            index.add(evidence, float(number))
    index.forget(before=0, keep=2)

    assert list(index.runs) == [run_id(3), run_id(4)]
    assert of_service(index, SERVICE) == {run_id(3), run_id(4)}


def test_a_run_that_was_begun_and_not_recorded_is_missing_until_it_is_recorded_or_forgotten():
    index = Index()
    path = f"https://api.openai.com/v1/threads/{thread_id()}/runs"
    for item in (
        an_http_span(url=path, start=1, end=2),
        an_http_span(url=path, start=5, end=6),
        an_http_span(url=path, trace=2, start=3, end=4),
        an_http_span(url=path, trace=0),
        an_http_span(url=path, start=7, end=8, service="other"),
    ):
        for evidence in evidence_of(item):
            index.add(evidence, 1.0)

    assert index.is_missing_a_run(trace_id(1), at(2), at(3))
    assert index.is_missing_a_run(SERVICE, at(2), at(3))
    assert index.is_missing_a_run(trace_id(1), at(7.5), at(9))
    assert not index.is_missing_a_run(trace_id(1), at(8.1), at(9))
    assert not index.is_missing_a_run(trace_id(1), at(0), at(0.9))
    assert index.is_missing_a_run("other", at(0), at(9))
    assert not index.is_missing_a_run("other", at(0), at(6))
    index.forget(before=2.0, keep=100)
    assert not index.is_missing_a_run(trace_id(1), at(2), at(3))
    assert not index.is_missing_a_run(SERVICE, at(2), at(3))
    assert index.forgotten_until == {SERVICE: at(6), "other": at(8)}


def test_a_run_that_was_begun_and_recorded_is_not_missing():
    index = Index()
    path = f"https://api.openai.com/v1/threads/{thread_id()}/runs"
    for evidence in (*evidence_of(an_http_span(url=path)), *evidence_of(an_http_span(a_run_payload(), trace=2))):
        index.add(evidence, 1.0 + (evidence.place.trace_id == trace_id(2)))

    assert not index.is_missing_a_run(trace_id(1), at(0), at(9))
    index.forget(before=1.5, keep=100)
    assert index.forgotten_until == {}


@pytest.mark.parametrize(
    ("start", "end", "is_missing"),
    [
        pytest.param(1, 2, True, id="an earlier turn of the thread"),
        pytest.param(20, 21, False, id="what a poll showed afterwards"),
        pytest.param(0, 30, False, id="what the span around it showed"),
        pytest.param(700, 701, True, id="a run of long after"),
    ],
)
def test_only_a_run_of_the_time_is_the_one_that_was_begun(start, end, is_missing):
    index = Index()
    path = f"https://api.openai.com/v1/threads/{thread_id()}/runs"
    recorded = an_http_span(a_run_payload(), trace=2, start=start, end=end)
    for evidence in (*evidence_of(recorded), *evidence_of(an_http_span(url=path, start=10, end=12))):
        index.add(evidence)

    assert index.is_missing_a_run(trace_id(1), at(9), at(13)) is is_missing


def test_begun_runs_are_bounded_like_the_rest_and_cost_what_was_begun_at_the_time():
    index = Index()
    for second in range(300):
        url = f"https://api.openai.com/v1/threads/{thread_id(second)}/runs"
        for evidence in evidence_of(an_http_span(url=url, trace=1 + second % 3, start=second, end=second + 1)):
            index.add(evidence, float(second))
            index.add(evidence, float(second))

    assert len(index) == 300
    assert index.is_missing_a_run(SERVICE, at(100.2), at(100.4))
    assert not index.is_missing_a_run(trace_id(3), at(100.2), at(100.4))
    assert index.forget(before=0.0, keep=10) == 290
    assert not index.is_missing_a_run(SERVICE, at(0), at(289.9))
    assert index.is_missing_a_run(SERVICE, at(0), at(290))


@pytest.mark.parametrize("length", [0, 0.5, 1, 1.5, 63.9, 64, 300, 599, 600, 4000])
def test_a_beginning_is_found_at_any_time_of_its_span_however_long_and_at_no_other(length):
    index = Index()
    url = f"https://api.openai.com/v1/threads/{thread_id()}/runs"
    for evidence in evidence_of(an_http_span(url=url, start=1000, end=1000 + length)):
        index.add(evidence)

    for where in (SERVICE, trace_id(1)):
        assert not index.is_missing_a_run(where, at(990), at(999.9))
        assert index.is_missing_a_run(where, at(999), at(1000))
        assert index.is_missing_a_run(where, at(1000 + min(length, 599)), at(5000))
        assert not index.is_missing_a_run(where, at(1000.1 + length), at(6000))
    index.forget(before=1.0, keep=10)
    assert not index.is_missing_a_run(SERVICE, at(0), at(6000))


def test_a_look_at_what_was_begun_costs_what_was_begun_around_it():
    index = Index()
    for second in range(300):
        url = f"https://api.openai.com/v1/threads/{thread_id(second)}/runs"
        for evidence in evidence_of(an_http_span(url=url, trace=1 + second, start=second, end=second + 1)):
            index.add(evidence)

    looked_at = []
    index._begun._of = {key: _Counted(begun, looked_at) for key, begun in index._begun._of.items()}

    assert index.is_missing_a_run(SERVICE, at(200.2), at(200.4))
    assert len(looked_at) < 30


class _Counted(list):
    """A list that notes which of its items are looked at."""

    def __init__(self, items, looked_at):
        super().__init__(items)
        self._looked_at = looked_at

    def __getitem__(self, at):
        self._looked_at.append(at)
        return super().__getitem__(at)


def test_runs_without_a_text_are_known_by_service_and_when_they_answered():
    index = index_of(
        an_http_span(a_run_payload(number=1), start=1, end=2),
        an_http_span(a_run_payload(number=2), start=3, end=4),
        an_http_span(a_run_payload("in_progress", None, number=3), start=0, end=1),
        an_http_span(a_run_payload(number=4), service="other", start=3, end=4),
        an_http_span(a_list([a_message_payload(number=5, run=5)]), start=3, end=4),
    )

    assert list(index.silent(SERVICE, at(2), at(9))) == [run_id(1), run_id(2), run_id(3)]
    assert list(index.silent(SERVICE, at(2.1), at(9))) == [run_id(2), run_id(3)]
    assert list(index.silent(SERVICE, at(2), at(2.9))) == [run_id(1), run_id(3)]
    assert list(index.silent("nobody", 0, at(9))) == []

    learn(index, an_http_span(a_run_payload(number=3), service="other", start=2, end=3))
    learn(index, an_http_span(a_list([a_message_payload(number=2, run=2)]), start=5, end=6))
    assert list(index.silent(SERVICE, 0, at(9))) == [run_id(1), run_id(3)]
    assert list(index.silent("other", 0, at(9))) == [run_id(3), run_id(4)]

    index.forget(before=1.0, keep=10)
    assert list(index.silent(SERVICE, 0, at(9))) == list(index.silent("other", 0, at(9))) == []


def test_a_run_that_never_ends_to_speak_may_have_said_anything_and_grows_no_more():
    index = Index()
    learn(index, an_http_span(a_run_payload()))
    for number in range(1, MOST + 50):
        learn(index, an_http_span(a_message_payload(f"Answer {number}.", number=number), start=number))
    run = index.runs[run_id()]

    assert (len(run.texts), len(run.messages)) == (0, MOST + 1)
    assert index.said(digest("Answer 7.")) == index.said(digest(f"Answer {MOST + 20}.")) == ()
    assert list(index.silent(SERVICE, 0, at(9))) == [run_id()]


def test_a_trace_that_never_ends_decides_nothing_by_what_stands_alone_and_grows_no_more():
    index = Index()
    for number in range(MOST + 50):
        learn(index, an_http_span(a_usage(), start=number, number=number + 1))
        index.add_model_call(trace_id(), number.to_bytes(8))
    trace = index.in_trace(trace_id())

    assert (trace.bare, len(trace.model_calls)) == ([], MOST)


def test_what_lasts_is_neither_forgotten_nor_counted_nor_in_the_way_of_the_rest():
    index = Index()
    for number, now in ((1, inf), (2, 1.0), (3, inf), (4, 2.0), (5, 9.0)):
        for evidence in evidence_of(an_http_span(a_run_payload(number=number), trace=number)):
            index.add(evidence, now)
    index.forget(before=3, keep=1)

    assert set(index.runs) == {run_id(1), run_id(3), run_id(5)}
    assert index.lasting == 2
    index.forget(before=99, keep=0)
    assert set(index.runs) == {run_id(1), run_id(3)}
    assert index.forget(before=99, keep=0) == 0


def test_what_was_seen_once_lasts_when_a_file_says_it_too():
    index = Index()
    for now in (1.0, inf, 2.0):
        for evidence in evidence_of(an_http_span(a_list([a_run_payload(), a_message_payload()]))):
            index.add(evidence, now)

    assert (index.lasting, index.forget(before=99, keep=0)) == (2, 0)


def test_what_lasts_is_not_noted_in_the_journal():
    index = Index()
    index.journal = []
    (evidence,) = evidence_of(an_http_span(a_run_payload()))
    index.add(evidence, inf)

    assert index.journal == []


def test_many_runs_that_said_the_same_are_kept_apart_and_forgotten_one_by_one():
    index = Index()
    for number in range(1, 31):
        for evidence in evidence_of(an_http_span(a_message_payload(number=number, run=number), trace=number)):
            index.add(evidence, float(number))
            index.add(evidence, float(number))
    assert set(index.said(digest(ANSWER))) == {run_id(number) for number in range(1, 31)}
    index.forget(before=30, keep=100)

    assert set(index.said(digest(ANSWER))) == {run_id(30)}
    index.forget(before=31, keep=100)
    assert not index.said(digest(ANSWER))


def test_what_a_forgotten_run_said_is_forgotten():
    index = Index()
    for evidence in evidence_of(an_http_span(a_message_payload())):
        index.add(evidence, 1.0)
    assert index.said(digest(ANSWER)) == (run_id(),)
    index.forget(before=2, keep=100)

    assert index.said(digest(ANSWER)) == ()


def test_messages_and_what_stands_in_traces_are_forgotten_too():
    index = Index()
    for item in (an_http_span(a_message_payload(run=None)), a_span("work", {"usage": as_json(a_usage())})):
        for evidence in evidence_of(item):
            index.add(evidence, 1.0)
    index.forget(before=2, keep=100)

    assert len(index) == 0


def test_of_a_run_that_is_named_for_ever_the_traces_and_spans_of_long_ago_are_forgotten():
    index = Index()
    for second in range(1000):
        for evidence in evidence_of(an_http_span(a_run_payload(), trace=second + 1, number=second + 1, start=second)):
            index.add(evidence, float(second))
        index.forget(before=second - 300.0, keep=100)

    assert index.of_trace(trace_id(600)) == index.named_in_trace(trace_id(600)) == set()
    assert index.on_span(trace_id(600), span_id(600)) == index.named_on_span(trace_id(600), span_id(600)) == set()
    assert index.of_trace(trace_id(900)) == index.on_span(trace_id(900), span_id(900)) == {run_id()}
    assert index.runs[run_id()].usage == DONE
    assert len(index._of_trace) == len(index._named_on_span) == len(index.runs[run_id()].traces) <= 302
    assert at(690) < index.forgotten_until[SERVICE] < at(701)


def test_evidence_that_comes_again_is_kept():
    index = Index()
    for now in (1.0, 5.0):
        for evidence in evidence_of(an_http_span(a_run_payload())):
            index.add(evidence, now)

    assert index.forget(before=4, keep=100) == 0
    assert index.of_trace(trace_id()) == {run_id()}


def test_of_which_time_evidence_was_forgotten_is_known():
    index = Index()
    for evidence in evidence_of(an_http_span(a_run_payload(), start=5, end=6)):
        index.add(evidence, 1.0)
    index.forget(before=2, keep=100)

    assert index.forgotten_until == {SERVICE: at(6)}


def test_what_stands_on_a_span_that_is_no_candidate_need_not_be_remembered():
    index = Index()
    for evidence in evidence_of(an_http_span(a_run_payload(), number=3)):
        index.add(evidence, of_span=False)

    assert index.on_span(trace_id(), span_id(3)) == index.named_on_span(trace_id(), span_id(3)) == set()
    assert index.of_trace(trace_id()) == {run_id()}


def test_evidence_without_trace_or_service_is_found_by_ids_alone():
    index = Index()
    for evidence in evidence_of(an_http_span(a_list([a_run_payload(), a_message_payload()]))):
        index.add(evidence._replace(place=evidence.place._replace(trace_id=b"", span_id=b"", service="")))

    assert (index.of_trace(b""), of_service(index, ""), index.on_span(b"", b"")) == (set(), set(), set())
    assert index.of_thread(thread_id()) == {run_id()}
