"""A stage that remembers, fed one span or record at a time in any order, never writes what a replay would not."""

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from enricher.outcome import Reason
from enricher.owners import run_of
from enricher.resolve import resolve
from enricher.scan import Settings
from enricher.verdict import has_counts_of
from tests.property.test_steps import items
from tests.support.build import candidates_and_index, in_world, items_of, signals
from tests.support.passing import through_memory


def _is_of_one_mind(found):
    """Tell whether no two payloads contradict each other: what identity wrote at once, a later one cannot take back."""
    candidates, index = candidates_and_index(found)
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
        # Counts that stand on a span without a run are believed at once, as those of the run that it names.
        and all(
            len({bare.usage for bare in index.in_trace(each.trace_id).bare}) < 2 - bool(each.run_ids)
            for each in candidates
        )
    )


def _spans_of_runs(found):
    """Return the starts of the spans of each run that they are tied to, and which spans these are."""
    candidates, index = candidates_and_index(found)
    spans = {}
    for candidate, resolution in zip(candidates, resolve(candidates, index), strict=True):
        if run_id := run_of(candidate, resolution):
            spans.setdefault(run_id, {}).setdefault(candidate.start_key, set()).add(candidate.span_id)
    return spans.values()


def _has_counts_of_unknown_origin(found):
    """
    Tell whether a run's counts stand on a span of its trace that nothing ties to a run.

    Where that span comes after one that identity ties, the run's usage has left with the other (decision 6).
    """
    candidates, index = candidates_and_index(found)
    return any(
        (usage := index.runs[run_id].usage) is not None and has_counts_of(candidate, usage)
        for candidate, resolution in zip(candidates, resolve(candidates, index), strict=True)
        if not run_of(candidate, resolution)
        for run_id in index.named_in_trace(candidate.trace_id)
    )


def _spans(requests):
    return {Span.FromString(raw).span_id: raw for request in requests if request for raw in items_of(request)}


def _values(raw):
    return {each.key: each.value.SerializeToString() for each in Span.FromString(raw).attributes}


@given(st.data())
@settings(max_examples=300)
def test_arrival_in_any_order_gives_what_replay_gives_or_less(data):
    found = data.draw(items())
    of_runs = _spans_of_runs(found)
    # Whichever of several spans of a run leaves first owns it (decision 6); others than listings are not tied together.
    assume(_is_of_one_mind(found) and all(len(starts) < 2 for starts in of_runs))
    assume(not _has_counts_of_unknown_origin(found))
    listings = {span for starts in of_runs for spans in starts.values() if len(spans) > 1 for span in spans}
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
            if span_id in listings:
                # One of them has it, this or another: `test_owner_properties`.
                more = {key: value for key, value in more.items() if not key.startswith("gen_ai.usage.")}
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
