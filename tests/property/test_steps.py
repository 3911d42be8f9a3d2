"""The promises of the steps under random telemetry: nothing lost, nothing overwritten, nothing said twice."""

import dataclasses
import json

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from enricher import write
from enricher.errors import BadRequestError
from enricher.evidence import payload
from enricher.otlp import shallow
from enricher.otlp.shallow import Signal
from enricher.pipeline import Processed, process
from enricher.resolve import resolve
from enricher.scan import Settings
from enricher.semconv import FACT_OF_KEY, Convention
from tests.fuzz.targets import check_said
from tests.support.build import (
    BODY,
    OPENLLMETRY_VERSIONS,
    a_chat_completion,
    a_list,
    a_log_record,
    a_message_payload,
    a_request,
    a_run_payload,
    a_span,
    a_step_payload,
    a_usage,
    an_sse_transcript,
    as_json,
    candidates_and_index,
    in_world,
    items_of,
    message_id,
    openllmetry_span,
    run_id,
    signals,
    thread_id,
)

# ---- telemetry that is likely to meet: few runs, threads, texts, traces and times

few = st.integers(1, 3)
counts = st.sampled_from([(1200, 340), (340, 1200), (900, 250), (0, 0)])
texts = st.sampled_from(["One.", "Two.", "Three."])

usages = st.none() | st.builds(
    lambda pair, cached, reasoning: a_usage(*pair, cached=cached, reasoning=reasoning),
    counts,
    st.none() | st.just(0),
    st.none() | st.just(0),
)
runs = st.builds(a_run_payload, st.sampled_from(["in_progress", "completed", "failed"]), usages, number=few, thread=few)
messages = st.builds(
    a_message_payload, texts, number=few, run=st.none() | few, thread=few, created=st.none() | st.sampled_from([1, 2])
)
steps = st.builds(a_step_payload, number=few, run=few, thread=few, message=st.none() | few)
single = st.one_of(runs, runs, messages, steps, usages, st.just(a_chat_completion()))
payloads = st.one_of(
    single.map(as_json),
    single.map(as_json).map(json.dumps),
    st.lists(single, max_size=3).map(a_list).map(as_json),
    st.lists(st.one_of(runs, messages, steps), max_size=3).map(lambda found: an_sse_transcript(*found)),
    runs.map(as_json).map(lambda text: text[:300]),
)
ids = st.one_of(few.map(run_id), few.map(thread_id), few.map(message_id))
odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.binary(max_size=4),
    st.lists(ids, max_size=2),
)
pairs = st.tuples(
    st.sampled_from([BODY, "app", "app.run_id", "gen_ai.prompt.0.content", *sorted(FACT_OF_KEY)]),
    st.one_of(payloads, ids, st.integers(0, 2000), st.just("openai"), odd),
)
places = {
    "trace": st.integers(0, 3),
    "parent": st.integers(0, 4),
    "start": st.sampled_from([1.0, 10.0, 11.0, 18.0, 40.0]),
    "end": st.sampled_from([19.0, 20.0, 41.0]),
    "service": st.sampled_from(["tutor", "tutor", ""]),
}


@st.composite
def items(draw, signals_too=True):
    """A few spans and records, candidates among them; each span has its own id."""
    found = []
    for number in range(1, draw(st.integers(1, 6)) + 1):
        where = {key: draw(place) for key, place in places.items()}
        more = draw(st.lists(pairs, max_size=2))
        kind = draw(st.sampled_from(["candidate", "candidate", "http", "http", "record" if signals_too else "http"]))
        if kind == "candidate":
            version = draw(st.sampled_from(OPENLLMETRY_VERSIONS))
            answers = draw(st.lists(texts, max_size=2))
            item = openllmetry_span(
                version,
                stream=draw(st.booleans()),
                existing=draw(st.booleans()),
                usage=draw(st.none() | counts),
                answers=answers,
                messages=draw(st.lists(few, min_size=len(answers), max_size=len(answers))),
                more=more,
                number=number,
                **where,
            )
        elif kind == "http":
            item = a_span("GET", [(BODY, draw(payloads)), *more], number=number, **where)
        else:
            item = a_log_record(
                draw(payloads),
                more,
                trace=where["trace"],
                span=where["parent"],
                seconds=where["end"],
                service=where["service"],
            )
        found.append(item)
    return found


policies = st.builds(
    write.Policy,
    st.sampled_from([(Convention.LEGACY, Convention.CURRENT), (Convention.LEGACY,), (Convention.CURRENT,)]),
    st.booleans(),
    st.booleans(),
)
without_repair = policies.map(lambda policy: dataclasses.replace(policy, repair=False))


def request_of(found, additions):
    """Return the spans' request with bytes appended to them: unknown fields, or what makes them undecodable."""
    parsed = shallow.parse(a_request(found))
    at = 0
    for each in parsed.resourced:
        for scoped in each.scoped:
            for position, item in enumerate(scoped.items):
                scoped.items[position] = bytes(item) + additions[at % len(additions)]
                at += 1
    return parsed.SerializeToString()


additions = st.lists(
    st.sampled_from([b"", b"", b"\xfa\x06\x05hello", b"\x2a\x01\xff", b"\x0a\xff"]), min_size=1, max_size=6
)


# ---- insert only, append only, conservation


@given(items(signals_too=False), additions, without_repair)
def test_every_span_begins_with_the_bytes_that_came_in_and_others_are_the_same(found, added, policy):
    request = request_of(found, added)
    processed = process(Signal.TRACES, request, Settings(policy=policy))
    before, after = items_of(request), items_of(processed.request)

    assert processed.failures == []
    assert processed.items == len(before) == len(after)
    assert all(out.startswith(raw) for raw, out in zip(before, after, strict=True))
    changed = {outcome.span_id for outcome in processed.outcomes if outcome.inserted}
    for item, raw, out in zip(found, before, after, strict=True):
        assert (raw != out) == (item.span.span_id.hex() in changed)


@given(items(signals_too=False), policies)
def test_every_attribute_is_still_there_unchanged_and_only_keys_of_facts_are_new(found, policy):
    request = a_request(found)
    processed = process(Signal.TRACES, request, Settings(policy=policy))
    outcomes = {outcome.span_id: outcome for outcome in processed.outcomes}
    for raw, out in zip(items_of(request), items_of(processed.request), strict=True):
        before, after = Span.FromString(raw), Span.FromString(out)
        outcome = outcomes.get(before.span_id.hex())
        new = [each.key for each in after.attributes[len(before.attributes) :]]
        replaced = {key for key, _ in outcome.replaced} if outcome else set()

        for one, other in zip(before.attributes, after.attributes, strict=False):
            assert one.key == other.key
            assert one.value == other.value or one.key in replaced
        assert len(new) == len(set(new))
        assert not set(new) & {each.key for each in before.attributes}
        assert all(key in FACT_OF_KEY or key.startswith("enricher.") for key in new)
        assert policy.repair or not replaced
        del before.attributes[:], after.attributes[:]
        assert before == after


@given(items(signals_too=False), policies)
def test_what_an_outcome_says_was_inserted_is_what_the_span_says(found, policy):
    processed = process(Signal.TRACES, a_request(found), Settings(policy=policy))
    out = {Span.FromString(raw).span_id.hex(): Span.FromString(raw) for raw in items_of(processed.request)}
    for outcome in processed.outcomes:
        said = {}
        for each in out[outcome.span_id].attributes:
            kind = each.value.WhichOneof("value")
            said.setdefault(each.key, getattr(each.value, kind) if kind else None)

        assert {key: said[key] for key, _ in outcome.inserted} == dict(outcome.inserted)
        assert all(value >= 0 for _, value in outcome.inserted if isinstance(value, int))


# ---- idempotence


@given(items(signals_too=False), policies)
@settings(max_examples=200)
def test_processing_twice_is_processing_once(found, policy):
    once = process(Signal.TRACES, a_request(found), Settings(policy=policy)).request

    assert process(Signal.TRACES, once, Settings(policy=policy)).request == once


@given(items(), policies)
@settings(max_examples=200)
def test_replaying_twice_is_replaying_once(found, policy):
    recorded = signals(*([each] for each in found))
    once = [
        (signal, mended.request)
        for (signal, _), mended in zip(recorded, in_world(recorded, Settings(policy=policy)), strict=True)
    ]

    assert [each.request for each in in_world(once, Settings(policy=policy))] == [request for _, request in once]


# ---- any bytes


@given(st.sampled_from(list(Signal)), st.binary(max_size=200))
def test_f39_any_bytes_are_processed_or_refused(signal, data):
    _process_or_refuse(signal, data)


@given(st.data())
def test_f39_a_damaged_request_is_processed_or_refused(data):
    request = bytearray(a_request(data.draw(items(signals_too=False))))
    for _ in range(data.draw(st.integers(1, 4))):
        request[data.draw(st.integers(0, len(request) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(request)) | st.just(len(request)))

    _process_or_refuse(Signal.TRACES, bytes(request[:end]))


def _process_or_refuse(signal, data):
    try:
        processed = process(signal, data, Settings())
    except BadRequestError:
        return
    assert isinstance(processed, Processed)
    assert processed.failures == []
    before, after = items_of(data), items_of(processed.request)
    assert len(before) == len(after)
    assert all(out.startswith(raw) for raw, out in zip(before, after, strict=True))


# ---- payloads

keys = st.sampled_from(
    [
        "object",
        "id",
        "run_id",
        "thread_id",
        "assistant_id",
        "status",
        "usage",
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "prompt_token_details",
        "cached_tokens",
        "completion_tokens_details",
        "reasoning_tokens",
        "content",
        "text",
        "value",
        "data",
        "step_details",
        "message_creation",
        "message_id",
        "created_at",
        "role",
        "model",
    ]
)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(
        ["thread.run", "thread.run.step", "thread.message", "list", "completed", "run_1", "thread_1", "msg_1"]
    ),
)
documents = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=6), inner.map(json.dumps)
    ),
    max_leaves=20,
)


@given(documents)
@settings(max_examples=300)
def test_any_json_is_read_without_raising_and_counts_are_counts(document):
    check_said(payload.read(json.dumps(document)))
    check_said(payload.read_value(document))


@given(st.text(), st.sampled_from(["", "{", "[", '"', "data: ", "event: x\ndata: {", '{"run_id": ']))
def test_any_text_is_read_without_raising(text, start):
    check_said(payload.read(start + text + "run_id"))


@given(payloads, st.data())
def test_a_damaged_payload_is_read_without_raising(text, data):
    at = data.draw(st.integers(0, len(text)))

    check_said(payload.read(text[:at] + data.draw(st.text(max_size=3)) + text[at + 1 :]))


# ---- order


def _resolved(found, order):
    """Return what the ladder says of each candidate by its span, evidence having come in the given order."""
    candidates, index = candidates_and_index(found, order)
    return {
        each.span_id: (
            resolution.reason,
            resolution.rung,
            resolution.usage,
            resolution.place,
            sorted(map(repr, resolution.considered)),
            resolution.run
            and (resolution.run.run_id, resolution.run.model, resolution.run.thread_id, resolution.run.assistant_id),
        )
        for each, resolution in zip(candidates, resolve(candidates, index), strict=True)
    }


@given(st.data())
@settings(max_examples=200)
def test_the_order_of_evidence_does_not_change_what_is_resolved(data):
    found = data.draw(items())
    order = data.draw(st.permutations(range(len(found))))

    assert _resolved(found, order) == _resolved(found, range(len(found)))


def _mended(requests, policy):
    """Return the spans that a replay of the requests gives, by their ids."""
    processed = in_world(signals(*requests), Settings(policy=policy))
    spans = {}
    for items_in, out in zip(requests, processed, strict=True):
        if isinstance(items_in[0].message, Span):
            spans |= {Span.FromString(raw).span_id: raw for raw in items_of(out.request)}
    return spans


@given(st.data(), policies)
@settings(max_examples=200)
def test_how_a_recording_is_cut_and_ordered_does_not_change_what_is_written(data, policy):
    found = data.draw(items())
    spans = [each for each in found if isinstance(each.message, Span)]
    records = [each for each in found if not isinstance(each.message, Span)]
    whole = [part for part in (spans, records) if part]
    split = [[each] for each in data.draw(st.permutations(found))]

    assert _mended(split, policy) == _mended(whole, policy)
