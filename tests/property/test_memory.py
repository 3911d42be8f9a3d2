"""A stage that remembers, fed one span or record at a time in any order, never writes what a replay would not."""

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from enricher.outcome import Reason
from enricher.owners import run_of
from enricher.resolve import resolve
from enricher.scan import Settings
from tests.property.test_steps import items
from tests.support.build import candidates_and_index, in_world, items_of, signals
from tests.support.passing import through_memory


def _is_of_one_mind(found):
    """Tell whether no two payloads contradict each other: what identity wrote at once, a later one cannot take back."""
    _, index = candidates_and_index(found)
    of_one_mind = all(
        not run.conflicting
        and len(run.threads) < 2
        and "" not in (run.assistant, run.said_model)
        and -1 not in (run.final or ())
        for run in index.runs.values()
    )
    return (
        of_one_mind
        and all(len(runs) < 2 for runs in index._named_on_span.values())
        and all(len(message.run_ids) < 2 for message in index.messages.values())
    )


def _has_one_start_a_run(found):
    """Tell whether no run has whole spans of several starts: whichever of them leaves first owns it (decision 6)."""
    candidates, index = candidates_and_index(found)
    starts = {}
    for candidate, resolution in zip(candidates, resolve(candidates, index), strict=True):
        starts.setdefault(run_of(candidate, resolution), set()).add(candidate.start_key)
    return all(len(keys) < 2 for run_id, keys in starts.items() if run_id)


def _spans(requests):
    return {Span.FromString(raw).span_id: raw for request in requests if request for raw in items_of(request)}


def _values(raw):
    return {each.key: each.value.SerializeToString() for each in Span.FromString(raw).attributes}


@given(st.data())
@settings(max_examples=300)
def test_arrival_in_any_order_gives_what_replay_gives_or_less(data):
    found = data.draw(items())
    assume(_is_of_one_mind(found) and _has_one_start_a_run(found))
    order = data.draw(st.permutations(found))
    recorded = signals(*([each] for each in order))
    sent = {each.message.span_id: each.message for each in found if isinstance(each.message, Span)}
    world = in_world(recorded)
    # A message id decides at once; a record of an earlier listing may come later and speak against it.
    assume(all(outcome.reason is not Reason.CONTRADICTED for out in world for outcome in out.outcomes))
    replayed = _spans(out.request for (signal, _), out in zip(recorded, world, strict=True) if signal == "traces")

    passed, left = through_memory(recorded, Settings())
    arrived = _spans([request for signal, request in passed if signal == "traces"] + left)

    assert arrived.keys() == replayed.keys()
    for span_id, raw in arrived.items():
        if raw != replayed[span_id]:
            ours, theirs = _values(raw), _values(replayed[span_id])
            more = {key: value for key, value in ours.items() if theirs.get(key) != value}
            # What the span states itself is carried on at once; contradicting evidence may come afterwards.
            assert set(more.values()) <= _own_counts(sent[span_id])


def _own_counts(span):
    counts = [each.value.int_value for each in span.attributes if each.key.startswith(("gen_ai.usage.", "llm.usage."))]
    return {AnyValue(int_value=count).SerializeToString() for count in (*counts, sum(counts))}


@given(st.data())
@settings(max_examples=100)
def test_every_span_leaves_once_and_records_as_they_came(data):
    found = data.draw(items())
    recorded = signals(*([each] for each in found))
    passed, left = through_memory(recorded, Settings())
    spans = [raw for signal, request in passed if signal == "traces" and request for raw in items_of(request)]
    spans += [raw for request in left for raw in items_of(request)]

    assert sorted(Span.FromString(raw).span_id for raw in spans) == sorted(
        each.message.span_id for each in found if isinstance(each.message, Span)
    )
    assert [r for s, r in passed if s == "logs"] == [r for s, r in recorded if s == "logs"]
