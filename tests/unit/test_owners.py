"""Whose a run's usage is: one owner, whoever of the run's spans there are."""

import itertools

import pytest

from enricher.defects import REPEATED_USAGE
from enricher.otlp.shallow import Signal
from enricher.outcome import Reason, Rung
from enricher.owners import assign, has_counts, run_of
from enricher.pipeline import process
from enricher.resolve import resolve
from enricher.scan import Settings
from enricher.verdict import Resolution
from enricher.write import Policy
from tests.support.build import (
    OPENLLMETRY_VERSIONS,
    a_list,
    a_message_payload,
    a_request,
    a_run_payload,
    a_span,
    a_usage,
    an_http_span,
    as_json,
    attributes,
    candidates_and_index,
    in_world,
    items_of,
    openllmetry_span,
    run_id,
    signals,
    thread_id,
)
from tests.support.families import (
    OPENINFERENCE_LANGCHAIN,
    azure_span,
    kernel_span,
    langchain_span,
    langfuse_span,
    logfire_span,
    mlflow_span,
    older_logfire_span,
    openinference_span,
)

OLD, NEW = "0.33.12", "0.62.4"
SHOWN = {"app.run": as_json(a_run_payload())}
COUNTS = ("gen_ai.usage.prompt_tokens", "gen_ai.usage.input_tokens")


def with_usage(*items, **settings):
    """Return the numbers of the spans that leave a replay with counts that the stage wrote."""
    out = in_world(signals(*([each] for each in items)), Settings(**settings))
    owners = []
    for item, processed in zip(items, out, strict=True):
        (raw,) = items_of(processed.request)
        before, after = attributes(item.raw), attributes(raw)
        if any(key in after and key not in before for key in (*COUNTS, "gen_ai.usage.total_tokens")):
            owners.append(int.from_bytes(item.span.span_id, "big"))
    return owners


def assigned(*items, owned=None, settled=True):
    candidates, index = candidates_and_index(items)
    return assign(candidates, resolve(candidates, index), index, owned or {}, lambda _: settled)


def poll(status="completed", number=1, **where):
    usage = (1200, 340) if status == "completed" else None
    return openinference_span(a_run_payload(status, usage), number=number, trace=number, **where)


# who owns


def test_the_first_call_to_show_the_end_owns():
    polls = [poll("queued", 1, end=11), poll("in_progress", 2, end=12), poll(number=3, end=13), poll(number=4, end=14)]

    for order in itertools.permutations(polls):
        assert with_usage(*order) == [3]


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "expired", "incomplete"])
def test_every_status_of_a_finished_run_shows_its_end(status):
    assert with_usage(openinference_span(a_run_payload(status), number=1)) == [1]


@pytest.mark.parametrize("status", ["queued", "in_progress", "requires_action", "cancelling"])
def test_a_call_that_shows_the_run_unfinished_owns_nothing_whatever_else_is_known_of_it(status):
    final = an_http_span(a_run_payload(), number=9, trace=9)

    assert with_usage(openinference_span(a_run_payload(status, None), number=1), final) == []


@pytest.mark.parametrize("answer", [None, "__REDACTED__", as_json(a_run_payload())[:300]])
def test_a_call_whose_answer_was_not_recorded_owns_nothing(answer):
    final = an_http_span(a_run_payload(), number=9)

    assert with_usage(openinference_span(answer, number=1), final) == []


def test_a_page_of_runs_owns_nothing():
    assert with_usage(openinference_span(a_list([a_run_payload()]), name="SyncCursorPage[Run]", number=1)) == []


def test_a_span_of_the_whole_run_that_is_tied_by_an_id_goes_before_calls():
    whole = openllmetry_span(OLD, number=7, trace=7, more=SHOWN)

    for order in itertools.permutations([poll(number=1, end=11), whole, poll(number=2, end=12)]):
        assert with_usage(*order) == [7]


def test_a_span_of_a_whole_run_that_is_tied_by_being_alone_goes_behind_calls():
    """A call that shows the run is certainly the run's."""
    whole = openllmetry_span(OLD, number=7, trace=1)
    out = in_world(signals([whole], [poll(number=1, start=15, end=16)]))

    assert with_usage(whole, poll(number=1, start=15, end=16)) == [1]
    assert [each.outcomes[0].reason for each in out] == [Reason.NOT_OWNER, Reason.ENRICHED]
    assert out[0].outcomes[0].rung is Rung.TRACE


@pytest.mark.parametrize("version", ["0.34.0", "0.45.6", NEW])
def test_a_span_that_carries_the_usage_goes_before_all(version):
    """OpenLLMetry's span has the run's counts; calls of the run in the same trace get none."""
    whole = openllmetry_span(version, number=7, trace=1)
    call = openinference_span(a_run_payload(), number=1, trace=1, start=15, end=16)

    assert with_usage(whole, call) == [7]
    assert with_usage(call, whole) == [7]
    assert with_usage(openllmetry_span(OLD, number=8, more=SHOWN), logfire_span(usage=a_usage(), number=1)) == [1]


@pytest.mark.parametrize("version", ["0.34.0", "0.45.6", "0.50.1", NEW])
@pytest.mark.parametrize("usage", [(1200, 340), (900, 250)])
def test_a_runs_counts_on_a_span_of_its_trace_that_nothing_ties_are_not_written_again(version, usage):
    """LangChain has the run, which leaves none for OpenLLMetry's span; that one's counts may well be the same run's."""
    inner = openllmetry_span(version, usage=usage, answers=[], number=7, trace=1)
    around = langchain_span(number=2, trace=1, start=9, end=21)
    final = an_http_span(a_run_payload(), number=3, trace=1, start=18, end=19)

    for order in itertools.permutations([inner, around, final]):
        assert (2 in with_usage(*order)) is (usage != (1200, 340))


def test_a_runs_counts_in_another_trace_are_another_runs():
    inner = openllmetry_span("0.34.0", answers=[], number=7, trace=4)
    around = langchain_span(number=2, trace=1, start=9, end=21)
    final = an_http_span(a_run_payload(), number=3, trace=1, start=18, end=19)

    assert 2 in with_usage(inner, around, final)


def test_without_memory_a_run_whose_counts_another_span_may_carry_is_not_settled():
    inner = openllmetry_span("0.34.0", answers=[], number=7, trace=1)
    around = langchain_span(number=2, trace=1, start=9, end=21)
    processed = process(
        Signal.TRACES,
        a_request([inner, around, poll("in_progress", 1, parent=2), an_http_span(a_run_payload(), trace=1)]),
        Settings(),
    )
    reasons = {int(each.span_id, 16): each.reason for each in processed.outcomes}

    assert reasons[2] is Reason.NOT_SETTLED
    assert reasons[1] is Reason.NOT_OWNER


def test_0_0_carries_nothing_where_the_run_has_counts():
    """Streams of OpenLLMetry begin with it."""
    zero = openllmetry_span("0.34.0", stream=True, usage=(0, 0), number=7, trace=1, more=SHOWN)
    candidates, index = candidates_and_index([zero, poll(number=2)])
    whole, call = assign(candidates, resolve(candidates, index), index)

    assert (whole.reason, call.reason) == (Reason.ENRICHED, Reason.NOT_OWNER)


def test_0_0_of_a_run_that_failed_is_carried():
    failed = a_run_payload("failed", (0, 0))
    spans = [
        openinference_span(failed, number=1, trace=1, end=11),
        azure_span("process_thread_run", "failed", (0, 0), number=2, trace=2, end=12),
    ]

    assert with_usage(*spans) == [2]


def test_runs_have_owners_of_their_own():
    other = openinference_span(a_run_payload(number=2, usage=(900, 250)), number=5, trace=5)

    assert with_usage(poll(number=1), poll(number=2, end=9), other) == [1, 5]


def test_what_ended_first_owns_and_the_smaller_id_where_all_is_alike():
    assert with_usage(poll(number=1, start=1, end=12), poll(number=2, start=2, end=11)) == [2]
    assert with_usage(poll(number=1, start=2, end=12), poll(number=2, start=1, end=12)) == [2]
    assert with_usage(poll(number=2), poll(number=1)) == [1]


@pytest.mark.parametrize("version", OPENLLMETRY_VERSIONS)
def test_of_spans_that_openllmetry_writes_for_each_listing_the_first_owns(version):
    spans = [openllmetry_span(version, number=n, trace=n, end=20 + n, more=SHOWN) for n in (1, 2, 3)]

    for order in itertools.permutations(spans):
        found = {span.span.span_id: each for span, each in zip(order, assigned(*order), strict=True)}
        assert [found[span.span.span_id].reason for span in spans] == [Reason.ENRICHED, *[Reason.NOT_OWNER] * 2]
        # Each but the first that carries counts is told.
        assert [found[span.span.span_id].repeats for span in spans] == [False, *[version not in ("0.15.0", OLD)] * 2]


@pytest.mark.parametrize("version", OPENLLMETRY_VERSIONS[2:])
def test_listings_that_carry_counts_of_a_run_that_nothing_names_are_told_as_repeated(version):
    same = {"usage": (1200, 340), "end": 20}
    first, again = (openllmetry_span(version, number=n, trace=n, **same) for n in (1, 2))
    others = [
        openllmetry_span(version, number=3, trace=3, usage=(900, 250), end=20),
        openllmetry_span(version, number=4, trace=4, start=11, **same),
    ]
    found = assigned(again, *others, first)

    assert [each.repeats for each in found] == [True, False, False, False]
    assert [each.repeats for each in assigned(first, again, settled=False)] == [False, True]
    coarse = [openllmetry_span(version, number=n, trace=n, start=10.000000011, **same) for n in (1, 2)]
    assert [each.repeats for each in assigned(*coarse)] == [False, False]


def test_a_listing_that_shows_the_answer_owns_before_one_that_came_too_early():
    early = openllmetry_span(OLD, number=1, answers=[], end=15)
    later = openllmetry_span(OLD, number=2, end=20)
    payload = an_http_span(a_run_payload(), number=9, start=18, end=19)
    listing = an_http_span(a_list([a_message_payload()]), number=10, start=20, end=20.5)

    assert with_usage(early, later, payload, listing) == [2]


def test_a_listing_that_carries_the_counts_owns_before_one_that_came_too_early():
    early = openllmetry_span(NEW, number=1, usage=None, answers=[], end=15)
    later = openllmetry_span(NEW, number=2, end=20, more=SHOWN)

    assert with_usage(early, later) == [2]


def test_a_span_that_is_sent_twice_owns_both_times():
    """What a client sends again after a timeout is the same span; whether one is dropped is the backend's to say."""
    spans = [openllmetry_span(OLD, number=1, more=SHOWN) for _ in range(2)]

    assert [each.reason for each in assigned(*spans)] == [Reason.ENRICHED] * 2


def test_spans_of_others_that_begin_together_own_nothing_together():
    spans = [langchain_span(number=n, trace=n, start=10, end=20) for n in (1, 2)]

    assert with_usage(*spans, an_http_span(a_run_payload(), number=9, trace=9)) == [1]


# instrumentations


def test_azure_writes_usage_twice_and_the_span_around_owns():
    """1.1.0 calls it like the start inside, 1.2 otherwise."""
    inner = azure_span("start_thread_run", "queued", number=2, start=10, end=11)
    polls = [
        azure_span("get_thread_run", "in_progress", number=3, start=11, end=12),
        azure_span("get_thread_run", "completed", (1200, 340), number=4, start=12, end=13),
    ]
    for name in ("start_thread_run", "process_thread_run"):
        outer = azure_span(name, "completed", (1200, 340), number=1, start=10, end=14)
        for order in itertools.permutations([inner, *polls, outer]):
            assert with_usage(*order) == [1]
    (processed,) = in_world(signals([inner, *polls, outer]))
    assert [REPEATED_USAGE in each.defects for each in processed.outcomes] == [False, False, True, False]


def test_azure_operations_that_have_no_run_are_not_touched():
    others = [
        azure_span("create_agent", None, number=1),
        azure_span("start_thread_run", None, number=2),
        azure_span("list_run_steps", "completed", number=3),
    ]
    (processed,) = in_world(signals(others))

    assert processed.outcomes == []


def test_logfire_repeats_usage_on_every_look_and_the_first_owns():
    looks = [logfire_span(usage=a_usage(cached=3), number=n, end=10 + n) for n in (1, 2, 3)]
    polls = [logfire_span(f"/threads/{thread_id()}/runs", number=4), logfire_span(number=5)]

    for order in itertools.permutations([*looks, *polls]):
        assert with_usage(*order) == [1]


def test_older_logfire_names_the_run_by_its_path_alone():
    """It writes no id, and the same counts on every look at the finished run."""
    looks = [older_logfire_span(usage=(1200, 340), number=n, end=10 + n) for n in (1, 2)]
    poll = older_logfire_span(number=3, end=10)
    step = older_logfire_span(
        f"/threads/{thread_id()}/runs/{run_id()}/steps/step_1", (700, 90), model=None, number=4, end=14
    )

    for order in itertools.permutations([*looks, poll, step]):
        assert with_usage(*order) == [1]
    (processed,) = in_world(signals([*looks, poll, step]))
    assert [each.run_id for each in processed.outcomes] == [run_id()] * 3
    assert [each.defects for each in processed.outcomes] == [(), ("repeated_usage",), ()]
    first, *_, last = map(attributes, items_of(processed.request))
    assert first["gen_ai.usage.total_tokens"] == 1540
    assert first["gen_ai.response.id"] == run_id()
    assert first["gen_ai.conversation.id"] == thread_id()
    assert first["gen_ai.provider.name"] == "openai"
    assert last == attributes(step.raw)


@pytest.mark.parametrize(
    ("path", "answered"),
    [
        (f"/threads/{thread_id()}/runs", None),  # a list, or a stream
        (f"/threads/{thread_id()}/runs/{run_id()}/steps", None),
        (f"/threads/{thread_id()}/messages", "msg_1"),
        (f"/threads/{thread_id()}", thread_id()),
        ("/chat/completions", "chatcmpl-1"),
        ("/threads/runs", run_id()),
    ],
)
def test_other_calls_under_logfire_are_not_touched(path, answered):
    (processed,) = in_world(signals([logfire_span(path, answered=answered), an_http_span(a_run_payload())]))

    assert processed.outcomes == []


def test_functions_that_return_one_run_outwards_have_one_owner():
    for span in (langfuse_span, mlflow_span):
        inner = span(a_run_payload(), name="wait", number=2, end=12)
        outer = span(["Here it is.", a_run_payload()], number=1, end=13)

        assert with_usage(outer, inner) == [2]


@pytest.mark.parametrize(
    "returned",
    [
        a_run_payload("queued", None),
        [a_run_payload(), a_run_payload(number=2)],
        a_message_payload(),
        "The answer.",
        {"usage": a_usage()},
        None,
    ],
)
def test_functions_that_return_no_finished_run_or_several_are_not_touched(returned):
    for span in (langfuse_span, mlflow_span):
        (processed,) = in_world(signals([span(returned, number=1), an_http_span(a_run_payload())]))

        assert processed.outcomes == []


def test_a_text_that_a_traced_function_returned_is_no_answer():
    """Whoever talks to the model could have it say one."""
    (processed,) = in_world(signals([mlflow_span(as_json(a_run_payload()))]))

    assert processed.outcomes == []


@pytest.mark.parametrize("openinference", [False, True])
def test_langchain_names_its_run_in_what_it_returns(openinference):
    span = langchain_span(openinference=openinference, number=1, start=10, end=20)
    elsewhere = an_http_span(a_run_payload(), number=9, trace=9)

    assert with_usage(span, elsewhere) == [1]
    assert with_usage(span, poll(number=2, start=18, end=19)) == [1]
    assert with_usage(langchain_span(openinference=openinference, number=1, run=2), elsewhere) == []


def test_of_an_agent_of_langchain_that_calls_tools_the_span_that_finishes_owns():
    """It is called again with what the tools gave: two spans of one run, of which the last names it."""
    ids = {"run_id": run_id(), "thread_id": thread_id()}
    asks = [{"type": "AgentAction", "tool": "weather", **ids}]
    finish = {"type": "AgentFinish", "return_values": {"output": "It rains.", **ids}, **ids}
    first, last = (
        a_span("OpenAIAssistantRunnable", {"output.value": as_json(said)}, scope=OPENINFERENCE_LANGCHAIN, **where)
        for said, where in (
            (asks, {"number": 1, "start": 10, "end": 12}),
            (finish, {"number": 2, "start": 13, "end": 20}),
        )
    )

    for order in itertools.permutations([first, last, an_http_span(a_run_payload(), number=9, start=18, end=19)]):
        assert with_usage(*order) == [2]


def test_an_agents_span_that_names_another_assistant_is_not_the_runs():
    own = kernel_span("asst_another", number=1, start=10, end=20)
    final = an_http_span(a_run_payload(), number=9, start=18)
    (processed,) = in_world(signals([own, final]))

    assert processed.outcomes[0].reason is Reason.CONTRADICTED
    assert with_usage(kernel_span(number=1, start=10, end=20), final) == [1]
    assert with_usage(own, an_http_span(a_run_payload(assistant_id=None), number=9, start=18)) == [1]


def test_agents_of_other_apis_are_not_recognised():
    (processed,) = in_world(signals([kernel_span("agent-1"), kernel_span("0192-ab")]))

    assert processed.outcomes == []


# what is written on the others


def test_what_carries_counts_of_a_run_that_another_owns_gets_no_more_of_them():
    first, second = (logfire_span(usage=a_usage(), number=n, end=10 + n) for n in (1, 2))
    out = in_world(signals([first, second]))[0]
    written = [dict(each.inserted) for each in out.outcomes]

    assert written[0]["gen_ai.usage.total_tokens"] == 1540
    assert written[1] == {"gen_ai.conversation.id": thread_id()}


def test_all_that_show_the_end_may_be_asked_for():
    policy = Policy(one_owner=False)
    polls = [poll("queued", 1), openinference_span(number=2), poll(number=3), poll(number=4)]

    assert with_usage(*polls, policy=policy) == [3, 4]


def test_without_memory_all_that_show_the_end_get_the_usage_too():
    request = a_request([poll("queued", 1), poll(number=2), poll(number=3)])
    out = process(Signal.TRACES, request, Settings(policy=Policy(one_owner=False)))

    assert [COUNTS[0] in attributes(raw) for raw in items_of(out.request)] == [False, True, True]


@pytest.mark.parametrize("version", OPENLLMETRY_VERSIONS)
def test_all_listings_of_a_run_may_be_asked_for(version):
    listings = [openllmetry_span(version, number=n, trace=1, end=20 + n) for n in (1, 2)]
    payload = an_http_span(a_run_payload(), start=18, end=19, number=61)

    (totals,) = {tuple(with_usage(*listings, payload, policy=Policy(one_owner=False)))}
    assert totals == (1, 2)


# what is known of owners


def test_who_owned_before_owns_still():
    later = poll(number=2)
    (candidate,), _ = candidates_and_index([later])

    assert assigned(later, owned={run_id(): ("", "", "", 0)})[0].reason is Reason.NOT_OWNER
    assert assigned(later, owned={run_id(): candidate.span_key})[0].reason is Reason.ENRICHED
    assert assigned(later, owned={run_id(): candidate.span_key}, settled=False)[0].reason is Reason.ENRICHED
    assert assigned(openllmetry_span(OLD, more=SHOWN), owned={run_id(): ("", "", "", 0)})[0].reason is Reason.NOT_OWNER


def test_a_call_owns_only_where_nobody_with_a_better_claim_can_come():
    call, other = assigned(poll(number=1), poll(number=2), settled=False)
    carrying = assigned(logfire_span(usage=a_usage()), settled=False)[0]
    whole = assigned(openllmetry_span(OLD, more=SHOWN), settled=False)[0]

    assert (call.reason, call.usage, other.reason) == (Reason.NOT_SETTLED, None, Reason.NOT_OWNER)
    assert (carrying.reason, whole.reason) == (Reason.ENRICHED, Reason.ENRICHED)


def test_without_memory_the_first_of_several_calls_cannot_be_told():
    processed = process(Signal.TRACES, a_request([poll(number=1)]), Settings())
    everyone = process(Signal.TRACES, a_request([poll(number=1)]), Settings(policy=Policy(one_owner=False)))

    assert [each.reason for each in processed.outcomes] == [Reason.NOT_SETTLED]
    assert "gen_ai.usage.input_tokens" not in attributes(items_of(processed.request)[0])
    assert [each.reason for each in everyone.outcomes] == [Reason.ENRICHED]


def test_a_usage_object_that_stands_alone_on_a_call_of_no_known_run_is_not_taken():
    call = openinference_span(more={"app.usage": as_json(a_usage())}, number=1)

    assert with_usage(call) == []


def test_of_which_run_a_span_is_and_whether_it_leaves_with_its_counts():
    named, unnamed, carrying = (
        candidates_and_index([span])[0][0]
        for span in (azure_span(), openinference_span(), azure_span(usage=(1200, 340)))
    )

    assert [run_of(each, Resolution(Reason.PAYLOAD_ABSENT)) for each in (named, unnamed)] == [run_id(), ""]
    assert not has_counts(named, Resolution(Reason.PAYLOAD_ABSENT))
    assert has_counts(carrying, Resolution(Reason.PAYLOAD_ABSENT))
    assert not has_counts(carrying, Resolution(Reason.NOT_OWNER))
