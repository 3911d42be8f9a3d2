"""Of all spans of one run one gets the usage, in whatever order, cut and pace they arrive."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from enricher.scan import Settings
from tests.support.build import (
    OPENLLMETRY_VERSIONS,
    a_list,
    a_message_payload,
    a_run_payload,
    a_usage,
    an_http_span,
    as_json,
    attributes,
    in_world,
    items_of,
    openllmetry_span,
    run_id,
    signals,
)
from tests.support.families import (
    azure_span,
    kernel_span,
    langchain_span,
    langfuse_span,
    logfire_span,
    mlflow_span,
    openinference_span,
)
from tests.support.passing import through_memory

USAGES = {1: (1200, 340), 2: (900, 250), 3: (0, 0)}
COUNTS = ("gen_ai.usage.prompt_tokens", "gen_ai.usage.input_tokens", "gen_ai.usage.total_tokens")
CALLS = ("openinference", "logfire", "langfuse", "mlflow", "azure_call")
WHOLE = ("azure", "langchain", "kernel", "openllmetry", "openllmetry_shown")


def _payload(run, status):
    return a_run_payload(status, USAGES[run] if status in ("completed", "failed") else None, number=run, thread=run)


def _span(kind, run, status, version, where):
    payload, usage = _payload(run, status), USAGES[run] if status in ("completed", "failed") else None
    spans = {
        "openinference": lambda: openinference_span(payload, **where),
        "logfire": lambda: logfire_span(usage=a_usage(*usage) if usage else None, number_of_run=run, **where),
        "langfuse": lambda: langfuse_span(payload, **where),
        "mlflow": lambda: mlflow_span(payload, **where),
        "azure_call": lambda: azure_span("get_thread_run", status, usage, number_of_run=run, **where),
        "azure": lambda: azure_span("start_thread_run", status, usage, number_of_run=run, **where),
        "langchain": lambda: langchain_span(run=run, **where),
        "kernel": lambda: kernel_span(**where),
        "openllmetry": lambda: openllmetry_span(version, usage=USAGES[run], messages=[run], **where),
        "openllmetry_shown": lambda: openllmetry_span("0.33.12", more={"app.run": as_json(payload)}, **where),
        "messages": lambda: an_http_span(a_list([a_message_payload(number=run, run=run, thread=run)]), **where),
        "http": lambda: an_http_span(payload, **where),
    }
    return spans[kind]()


@st.composite
def telemetry(draw, kinds):
    found = []
    for number in range(1, draw(st.integers(2, 7)) + 1):
        where = {
            "number": number,
            "trace": draw(st.integers(1, 4)),
            "start": draw(st.sampled_from([1.0, 10.0])),
            "end": draw(st.sampled_from([15.0, 20.0, 21.0])) + number / 100,
        }
        status = draw(st.sampled_from(["queued", "in_progress", "completed", "completed", "failed"]))
        version = draw(st.sampled_from(OPENLLMETRY_VERSIONS))
        run = draw(st.integers(1, 3))
        # A run ends once, and what failed took nothing.
        status = "failed" if run == 3 and status == "completed" else "completed" if status == "failed" else status
        kind = draw(st.sampled_from(kinds))
        # The whole ends after the calls in it.
        where["end"] += 10 if kind in WHOLE else 0
        found.append(_span(kind, run, status, version, where))
    return found


def _spans(requests):
    return {Span.FromString(raw).span_id: raw for request in requests if request for raw in items_of(request)}


def _written(found, after):
    """Return how many spans got counts of each run, and how many had them."""
    written, carried = Counter(), Counter()
    for item in found:
        old, new = attributes(item.raw), attributes(after[item.span.span_id])
        if any(key in new and key not in old for key in COUNTS):
            written[new.get("gen_ai.response.id")] += 1
        elif any(key in old for key in COUNTS):
            carried[new.get("gen_ai.response.id")] += 1
    written.pop(None, None)
    return written, carried


def _live(found, cut, deadlines=()):
    requests = []
    for item, joined in zip(found, cut, strict=True):
        if joined and requests:
            requests[-1].append(item)
        else:
            requests.append([item])
    passed, left = through_memory(signals(*requests), Settings(), deadlines=deadlines)
    return _spans([request for _, request in passed] + left)


def _replayed(found):
    recorded = signals(*([each] for each in found))
    return _spans(out.request for out in in_world(recorded))


@given(st.data())
@settings(max_examples=300)
def test_no_run_has_two_owners_in_any_order_cut_and_pace(data):
    found = data.draw(st.permutations(data.draw(telemetry((*CALLS, *WHOLE, "http", "messages")))))
    cut = data.draw(st.lists(st.booleans(), min_size=len(found), max_size=len(found)))
    deadlines = data.draw(st.sets(st.integers(0, len(found))))

    for after in (_live(found, cut, deadlines), _replayed(found)):
        written, _ = _written(found, after)
        assert all(count == 1 for count in written.values())


@given(st.data())
@settings(max_examples=200)
def test_nothing_is_written_beside_a_span_that_carries_the_usage(data):
    found = data.draw(st.permutations(data.draw(telemetry(("openinference", "logfire", "langfuse", "azure", "http")))))
    written, carried = _written(found, _replayed(found))
    sent = {run_id(run): any(_carries(item, run) for item in found) for run in USAGES}

    for run in written:
        owners = [item for item in found if _carries(item, int(run.removeprefix("run_")))]
        assert not sent[run] or len(owners) == carried[run] + 1


def _carries(item, run):
    old = attributes(item.raw)
    named = run_id(run) in (old.get("gen_ai.response.id"), old.get("gen_ai.thread.run.id"))
    return named and any(key in old for key in COUNTS)


def _more(arrived, replayed):
    """Return what spans hold that they would not hold after a replay."""
    assert arrived.keys() == replayed.keys()
    return {
        span.hex(): more
        for span, raw in arrived.items()
        if (more := attributes(raw).items() - attributes(replayed[span]).items())
    }


@given(st.data())
@settings(max_examples=200)
def test_calls_in_any_order_give_what_replay_gives_or_less(data):
    found = data.draw(st.permutations(data.draw(telemetry((*CALLS, "http", "messages")))))
    cut = data.draw(st.lists(st.booleans(), min_size=len(found), max_size=len(found)))

    assert _more(_live(found, cut), _replayed(found)) == {}


@given(st.data())
@settings(max_examples=300)
def test_spans_in_the_order_in_which_they_ended_give_what_replay_gives_or_less(data):
    """Exporters send them so. Of spans of the whole run none carries usage here: a late one could not be undone."""
    kinds = ("openinference", "logfire", "langfuse", "langchain", "kernel", "openllmetry_shown", "http", "messages")
    found = data.draw(telemetry(kinds))
    found.sort(key=lambda each: each.span.end_time_unix_nano)
    cut = data.draw(st.lists(st.booleans(), min_size=len(found), max_size=len(found)))

    assert _more(_live(found, cut), _replayed(found)) == {}
