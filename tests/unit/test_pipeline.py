"""One request through the stage without memory: what is mended, what has to be left, and that nothing is lost."""

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from enricher import learn, pipeline, scan, write
from enricher.config import Config
from enricher.errors import BadRequestError
from enricher.evidence import collect
from enricher.evidence.index import Index
from enricher.otlp import shallow
from enricher.otlp.haystack import Haystack
from enricher.otlp.shallow import Signal
from enricher.outcome import Reason, Rung
from enricher.pipeline import process
from enricher.rules import BUILT_IN, Recogniser, Rule
from enricher.scan import Settings
from enricher.semconv import Convention, Fact
from tests.support.build import (
    OPENAI_SCOPE,
    OPENLLMETRY_VERSIONS,
    SERVICE,
    Item,
    a_list,
    a_log_record,
    a_message_payload,
    a_request,
    a_run_payload,
    a_span,
    a_usage,
    an_http_span,
    as_json,
    attributes,
    items_of,
    openllmetry_span,
    run_id,
    thread_id,
)

OLD = "0.33.12"
NEW = "0.62.4"
RUN_TEXT = as_json(a_run_payload())
SETTINGS = Settings()
TOTAL = "gen_ai.usage.total_tokens"

BAD_TEXT = b"\x2a\x02\xff\xfe"
"""A name that is not UTF-8, which replaces the name before it."""


def _field(number, payload):
    """Return a length-delimited field of less than 16 KiB."""
    size = len(payload)
    length = bytes([size]) if size < 128 else bytes([size & 0x7F | 0x80, size >> 7])
    return bytes([number << 3 | 2]) + length + payload


def deep_attribute(levels=60):
    """Return an attribute nested deeper than protobuf parses."""
    value = b""
    for _ in range(levels):
        value = _field(5, _field(1, value))
    return _field(9, _field(1, b"deep") + _field(2, value))


def run(*items, settings=SETTINGS):
    return process(Signal.TRACES, a_request(items), settings)


def reasons(processed):
    return [outcome.reason for outcome in processed.outcomes]


def with_raw(items, exchanged):
    """Return a request in which the items at some positions are other bytes."""
    parsed = shallow.parse(a_request(items))
    flat = [(scoped, at) for each in parsed.resourced for scoped in each.scoped for at in range(len(scoped.items))]
    for position, raw in exchanged.items():
        scoped, at = flat[position]
        scoped.items[at] = raw
    return parsed.SerializeToString()


# ---- nothing of interest


@pytest.mark.parametrize("signal", [Signal.METRICS, Signal.LOGS])
def test_f46_metrics_and_logs_pass_as_they_came(signal):
    request = a_request([openllmetry_span(OLD, more={"app.run": RUN_TEXT}), a_span()])
    processed = process(signal, request, SETTINGS)

    assert processed.request is request
    assert processed.items == (0 if signal is Signal.METRICS else 2)
    assert (processed.outcomes, processed.failures) == ([], [])


def test_records_of_logs_are_counted():
    assert process(Signal.LOGS, a_request([a_log_record(), a_log_record()]), SETTINGS).items == 2


@pytest.mark.parametrize("request_bytes", [b"", b"\x0a\x00", a_request([a_span(), an_http_span(a_run_payload())])])
def test_f46_a_request_without_candidates_is_not_looked_into(request_bytes, monkeypatch):
    monkeypatch.setattr(scan, "Span", None)
    processed = process(Signal.TRACES, request_bytes, SETTINGS)

    assert processed.failures == []
    assert processed.request is request_bytes
    assert processed.items == len(items_of(request_bytes))


def test_a_request_of_other_model_calls_is_not_looked_into(monkeypatch):
    """The instrumentation's scope and its keys stand in every request of an application that calls the API."""
    monkeypatch.setattr(scan, "Span", None)
    chats = [a_span("openai.chat", {"gen_ai.operation.name": "chat"}, scope=(OPENAI_SCOPE, NEW)) for _ in range(3)]

    assert run(*chats).outcomes == []


def test_a_span_that_only_mentions_the_name_is_no_candidate():
    request = a_request([a_span("GET", {"note": "openai.assistant.run"})])
    processed = process(Signal.TRACES, request, SETTINGS)

    assert (processed.request, processed.outcomes) == (request, [])


@pytest.mark.parametrize("signal", list(Signal))
@pytest.mark.parametrize("data", [b"\x0a\x05ab", b"not a request", b"\x0a\x02\x12\x05"])
def test_f39_bytes_that_are_not_a_request_are_refused(signal, data):
    with pytest.raises(BadRequestError):
        process(signal, data, SETTINGS)


# ---- identity decides at once


@pytest.mark.parametrize("version", OPENLLMETRY_VERSIONS)
def test_a_payload_on_the_span_mends_it(version):
    items = [a_span(), openllmetry_span(version, usage=None, more={"app.run": RUN_TEXT}), a_span()]
    processed = run(*items)
    (before, mended, after) = items_of(processed.request)

    assert attributes(mended)[TOTAL] == 1540
    assert mended.startswith(items[1].raw)
    assert (before, after) == (items[0].raw, items[2].raw)
    (outcome,) = processed.outcomes
    assert (outcome.reason, outcome.rung, outcome.run_id) == (Reason.ENRICHED, Rung.PAYLOAD, run_id())


def test_ids_decide_from_what_the_request_holds():
    processed = run(
        an_http_span(a_run_payload(), trace=2),
        openllmetry_span(OLD, parent=77, more={"app.run_id": run_id()}),
        an_http_span(a_run_payload(number=2), trace=3),
    )

    assert [(each.reason, each.rung) for each in processed.outcomes] == [(Reason.ENRICHED, Rung.RUN_ID)]


def test_a_message_decides_from_what_the_request_holds():
    processed = run(
        openllmetry_span(NEW, parent=77, usage=None),
        an_http_span(a_list([a_message_payload()]), trace=2, start=20),
        an_http_span(a_run_payload(), trace=3, start=19),
    )

    assert [(each.reason, each.rung) for each in processed.outcomes] == [(Reason.ENRICHED, Rung.MESSAGE_ID)]


def test_evidence_around_a_payload_on_the_span_is_believed_as_well():
    """The HTTP span beside it says who served the run."""
    path = f"https://tutors.openai.azure.com/openai/threads/{thread_id()}/runs/{run_id()}"
    item = openllmetry_span(OLD, number=1, existing=True, more={"app.run": RUN_TEXT})
    processed = run(item, an_http_span(a_run_payload(), url=path, number=2, start=18))

    assert attributes(items_of(processed.request)[0])["gen_ai.provider.name"] == "azure.ai.openai"


def test_a_payload_on_the_span_that_another_of_the_request_contradicts_is_a_conflict():
    item = openllmetry_span(OLD, more={"app.run": RUN_TEXT})
    processed = run(item, an_http_span(a_run_payload(usage=(1, 1)), start=18))

    assert reasons(processed) == [Reason.PAYLOAD_CONFLICT]


# ---- uniqueness decides where the request holds the whole trace


WHOLE = {
    "a root and its children": [
        a_span("ask", number=1, start=9, end=21),
        openllmetry_span(OLD, number=2, parent=1),
        an_http_span(a_run_payload(), number=3, parent=1, start=18),
    ],
    "a root that is the candidate": [
        openllmetry_span(OLD, number=1),
        an_http_span(a_run_payload(), number=2, parent=1, start=18),
    ],
    "a payload on the root": [
        a_span("ask", {"app.run": RUN_TEXT}, number=1, start=9, end=21),
        a_span("read", number=2, parent=1),
        openllmetry_span(OLD, number=3, parent=2),
    ],
}


@pytest.mark.parametrize("items", WHOLE.values(), ids=WHOLE)
def test_the_only_run_of_a_whole_trace_decides(items):
    for order in (items, items[::-1]):
        assert [(each.reason, each.rung) for each in run(*order).outcomes] == [(Reason.ENRICHED, Rung.TRACE)]


@pytest.mark.parametrize(
    ("items", "missing"),
    [
        pytest.param(WHOLE["a root and its children"], 0, id="the root"),
        pytest.param(WHOLE["a payload on the root"], 1, id="a parent in between"),
    ],
)
def test_the_only_run_of_a_part_of_a_trace_does_not(items, missing):
    """A second run may be in the part that is elsewhere."""
    processed = run(*(each for n, each in enumerate(items) if n != missing))

    assert reasons(processed) == [Reason.NOT_SETTLED]
    assert TOTAL not in attributes(next(raw for raw in items_of(processed.request) if b"assistant.run" in raw))


def test_a_root_whose_parent_is_written_as_zeros_is_one():
    span = openllmetry_span(OLD, number=1)
    span.message.parent_span_id = bytes(8)

    assert reasons(run(span, an_http_span(a_run_payload(), number=2, parent=1, start=18))) == [Reason.ENRICHED]


def test_a_trace_without_a_root_is_not_whole():
    items = [openllmetry_span(OLD, number=2, parent=3), an_http_span(a_run_payload(), number=3, parent=2, start=18)]

    assert reasons(run(*items)) == [Reason.NOT_SETTLED]


def test_a_trace_of_which_a_span_cannot_be_decoded_is_judged_by_the_others():
    items = [*WHOLE["a root and its children"], a_span(number=4, parent=1)]
    processed = process(Signal.TRACES, with_raw(items, {3: items[3].raw + BAD_TEXT}), SETTINGS)

    assert reasons(processed) == [Reason.ENRICHED]


def test_other_traces_of_the_request_do_not_have_to_be_whole():
    assert reasons(run(*WHOLE["a root and its children"], a_span(trace=2, number=9, parent=8))) == [Reason.ENRICHED]


def test_a_span_without_a_trace_is_never_whole():
    items = [
        openllmetry_span(OLD, trace=0, more={"app.thread_id": thread_id()}),
        an_http_span(a_run_payload(), trace=0, start=18),
    ]

    assert reasons(run(*items)) == [Reason.NOT_SETTLED]


@pytest.mark.parametrize(
    "items",
    [
        pytest.param(
            [
                openllmetry_span(OLD, more={"app.thread_id": thread_id()}),
                an_http_span(a_run_payload(), trace=2, start=18),
            ],
            id="thread",
        ),
        pytest.param(
            [
                openllmetry_span(OLD),
                an_http_span(a_run_payload(), trace=2, start=18),
                an_http_span(a_list([a_message_payload()]), trace=3, start=20),
            ],
            id="service",
        ),
    ],
)
def test_what_spans_traces_is_never_settled_by_one_request(items):
    assert reasons(run(*items)) == [Reason.NOT_SETTLED]


def test_a_usage_object_alone_in_a_whole_trace_decides():
    processed = run(
        a_span("ask", {"app.usage": as_json(a_usage())}, number=1, start=9, end=21),
        openllmetry_span(OLD, number=2, parent=1),
    )

    assert [each.rung for each in processed.outcomes] == [Rung.BARE_USAGE]


def test_a_span_that_gets_no_usage_gets_its_provider_all_the_same():
    processed = run(openllmetry_span(OLD, parent=5))

    assert reasons(processed) == [Reason.PAYLOAD_ABSENT]
    assert attributes(items_of(processed.request)[0])["gen_ai.system"] == "openai"


# ---- many


@pytest.mark.parametrize("many", [1, 13, 36, 500])
def test_candidates_are_found_among_many_spans(many):
    others = [a_span(scope=(OPENAI_SCOPE, NEW)) for _ in range(many)]
    payloads = (as_json(a_run_payload(number=n)) for n in (1, 2))
    first, second = (openllmetry_span(NEW, usage=None, more={"app.run": payload}) for payload in payloads)
    items = [first, *others, second]
    processed = run(*items)
    out = items_of(processed.request)

    assert reasons(processed) == [Reason.ENRICHED] * 2
    assert out[1:-1] == [each.raw for each in others]
    assert out[0].startswith(first.raw)
    assert out[-1].startswith(second.raw)
    assert processed.items == many + 2


def test_a_large_scope_that_only_seems_to_hold_one_is_passed():
    others = [a_span("GET", {"note": "openai.assistant.run"} if n == 30 else {}) for n in range(40)]
    request = a_request(others)

    assert process(Signal.TRACES, request, SETTINGS).request == request


def test_a_rule_with_a_scope_is_found_by_the_scope_whatever_else_the_request_holds():
    settings = Settings(Recogniser((Rule("own", scope="acme.agents", span_name="run"), *BUILT_IN)))
    own = a_span("run", {"app.run": RUN_TEXT}, scope=("acme.agents", "1"))
    other = a_span("walk", {"app.run": RUN_TEXT}, scope=("acme.agents", "1"))

    assert [each.rule for each in run(own, settings=settings).outcomes] == ["own"]
    assert run(other, settings=settings).outcomes == []
    assert [each.rule for each in run(openllmetry_span(OLD), own, settings=settings).outcomes] == [
        "openllmetry-assistant-run",
        "own",
    ]
    assert [each.rule for each in run(own, a_span(), openllmetry_span(OLD), settings=settings).outcomes] == [
        "own",
        "openllmetry-assistant-run",
    ]


def test_conservation_of_number_and_order():
    items = [
        a_span("a"),
        openllmetry_span(OLD, service="one", more={"app.run": RUN_TEXT}),
        a_span("b", service="one"),
        openllmetry_span(NEW, service="two"),
        a_span("c", service="two"),
    ]
    out = items_of(run(*items).request)

    assert [Span.FromString(raw).span_id for raw in out] == [each.span.span_id for each in items]
    assert [out[n] for n in (0, 2, 4)] == [items[n].raw for n in (0, 2, 4)]


def test_a_span_sent_twice_is_mended_twice():
    item = openllmetry_span(OLD, more={"app.run": RUN_TEXT})
    first, second = items_of(run(item, item).request)

    assert first == second
    assert attributes(first)[TOTAL] == 1540


# ---- bad spans


@pytest.mark.parametrize("bad", [BAD_TEXT, deep_attribute(), b"\x0a\xff"], ids=["text", "depth", "garbage"])
def test_f38_bad_span_among_good_ones_is_forwarded_as_it_came(bad):
    good = openllmetry_span(OLD, more={"app.run": RUN_TEXT})
    items = [good, openllmetry_span(OLD), a_span(), an_http_span(a_run_payload(number=5)), a_span()]
    exchanged = {n: items[n].raw + bad for n in (1, 2, 3)}
    processed = process(Signal.TRACES, with_raw(items, exchanged), SETTINGS)
    out = items_of(processed.request)

    assert out[1:] == [*exchanged.values(), items[4].raw]
    assert attributes(out[0])[TOTAL] == 1540
    assert reasons(processed) == [Reason.ENRICHED, Reason.SPAN_UNREADABLE]
    assert processed.failures == []


def test_f38_an_outcome_of_a_span_that_cannot_be_decoded_says_where_it_was():
    item = openllmetry_span(OLD)
    (outcome,) = process(Signal.TRACES, with_raw([item], {0: item.raw + BAD_TEXT}), SETTINGS).outcomes

    assert (outcome.reason, outcome.service, outcome.scope) == (
        Reason.SPAN_UNREADABLE,
        SERVICE,
        f"{OPENAI_SCOPE} {OLD}",
    )
    assert (outcome.trace_id, outcome.span_id, outcome.rule) == ("", "", "")


def test_f38_a_bad_span_of_another_kind_is_no_candidate():
    """The scope of the instrumentation alone does not make a span one."""
    chat = a_span("openai.chat", scope=(OPENAI_SCOPE, NEW))
    item = openllmetry_span(OLD, more={"app.run": RUN_TEXT})
    processed = process(Signal.TRACES, with_raw([item, chat], {1: chat.raw + deep_attribute()}), SETTINGS)

    assert reasons(processed) == [Reason.ENRICHED]


def test_f38_a_request_of_nothing_but_bad_spans_is_the_same_bytes():
    item = openllmetry_span(OLD)
    request = with_raw([item], {0: item.raw + BAD_TEXT})

    assert process(Signal.TRACES, request, SETTINGS).request is request


def test_f38_a_scope_that_cannot_be_decoded_leaves_its_spans_to_the_rules_without_scope():
    parsed = shallow.parse(a_request([openllmetry_span(OLD, more={"app.run": RUN_TEXT})]))
    parsed.resourced[0].scoped[0].scope[0] += b"\x0a\x01\xff"
    processed = process(Signal.TRACES, parsed.SerializeToString(), SETTINGS)

    assert [(each.reason, each.rule, each.scope) for each in processed.outcomes] == [
        (Reason.ENRICHED, "unscoped-assistant-run", "")
    ]


@pytest.mark.parametrize(
    "resource",
    [b"\x0a\xff", b"", b"\x0a\x12\x0a\x0cservice.name\x12\x02\x18\x05"],
    ids=["cannot be decoded", "empty", "a number"],
)
def test_f38_a_resource_that_names_no_service_harms_nothing(resource):
    parsed = shallow.parse(a_request([openllmetry_span(OLD, more={"app.run": RUN_TEXT})]))
    parsed.resourced[0].resource[:] = [resource]
    processed = process(Signal.TRACES, parsed.SerializeToString(), SETTINGS)

    assert [(each.reason, each.service) for each in processed.outcomes] == [(Reason.ENRICHED, "")]
    assert shallow.parse(processed.request).resourced[0].resource == [resource]


def test_srv_08_unknown_fields_survive_on_every_level():
    unknown = b"\xfa\x06\x05hello"
    item = openllmetry_span(OLD, more={"app.run": RUN_TEXT})
    parsed = shallow.parse(with_raw([item], {0: item.raw + unknown}))
    parsed.resourced[0].resource[0] += unknown
    parsed.resourced[0].scoped[0].scope[0] += unknown
    processed = process(Signal.TRACES, parsed.SerializeToString() + unknown, SETTINGS)
    out = shallow.parse(processed.request)

    assert reasons(processed) == [Reason.ENRICHED]
    assert processed.request.endswith(unknown)
    assert out.resourced[0].resource[0].endswith(unknown)
    assert out.resourced[0].scoped[0].scope[0].endswith(unknown)
    assert items_of(processed.request)[0].startswith(item.raw + unknown)


def test_srv_08_a_resource_and_a_scope_written_in_two_pieces_are_kept_whole():
    """Protobuf lets a message field stand twice; both pieces together are its value."""
    piece = ExportTraceServiceRequest()
    above = piece.resource_spans.add()
    above.resource.attributes.add(key="zone").value.string_value = "a"
    above.scope_spans.add().scope.attributes.add(key="build").value.int_value = 1
    whole = ExportTraceServiceRequest.FromString(a_request([openllmetry_span(OLD, more={"app.run": RUN_TEXT})]))
    (spans,) = whole.resource_spans[0].scope_spans
    scoped = above.scope_spans[0].SerializeToString() + spans.SerializeToString()
    del above.scope_spans[:], whole.resource_spans[0].scope_spans[:]
    in_pieces = above.SerializeToString() + whole.resource_spans[0].SerializeToString() + _field(2, scoped)
    processed = process(Signal.TRACES, _field(1, in_pieces), SETTINGS)
    (out,) = ExportTraceServiceRequest.FromString(processed.request).resource_spans

    assert reasons(processed) == [Reason.ENRICHED]
    assert [each.key for each in out.resource.attributes] == ["zone", "service.name"]
    assert [each.key for each in out.scope_spans[0].scope.attributes] == ["build"]


# ---- bugs in a step

STEPS = {
    "describing a span": (scan, "candidate"),
    "tying a span": (scan, "tie"),
    "collecting evidence": (collect, "of_span"),
    "climbing the ladder": (pipeline, "resolve"),
    "looking whether a trace is whole": (pipeline, "whole_traces"),
    "planning": (write, "plan"),
    "writing": (write, "apply"),
}


@pytest.mark.parametrize("step", STEPS)
def test_f43_an_exception_in_a_step_costs_no_span(step, monkeypatch):
    """The span passes on as it came, or with what is known without the step; the failure is told once a span."""

    def broken(*_, **__):
        raise RuntimeError("a bug")

    items = [a_span(), openllmetry_span(OLD, number=5), a_span(), an_http_span(a_run_payload(), start=18)]
    request = a_request(items)
    monkeypatch.setattr(*STEPS[step], broken)
    processed = process(Signal.TRACES, request, SETTINGS)
    out = items_of(processed.request)

    assert [out[n] for n in (0, 2, 3)] == [items[n].raw for n in (0, 2, 3)]
    assert out[1].startswith(items[1].raw)
    assert len(processed.outcomes) == 1
    assert TOTAL not in attributes(out[1])
    assert processed.failures
    assert all("RuntimeError: a bug" in failure.trace for failure in processed.failures)


@pytest.mark.parametrize("step", ["describing a span", "climbing the ladder", "planning", "writing"])
def test_f43_a_span_whose_step_failed_is_counted_as_such_and_the_request_is_the_same_bytes(step, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("a bug")

    request = a_request([openllmetry_span(OLD, more={"app.run": RUN_TEXT})])
    monkeypatch.setattr(*STEPS[step], broken)
    processed = process(Signal.TRACES, request, SETTINGS)

    assert processed.request == request
    assert reasons(processed) == [Reason.STEP_FAILED]
    assert len(processed.failures) == 1


def test_f43_one_span_whose_step_failed_does_not_harm_its_neighbours(monkeypatch):
    plan = write.plan

    def broken(candidate, *args, **options):
        if candidate.span_id == (5).to_bytes(8, "big"):
            raise RuntimeError("a bug")
        return plan(candidate, *args, **options)

    monkeypatch.setattr(write, "plan", broken)
    items = [openllmetry_span(OLD, number=n, more={"app.run": as_json(a_run_payload(number=n))}) for n in (4, 5, 6)]
    processed = run(*items)

    assert reasons(processed) == [Reason.ENRICHED, Reason.STEP_FAILED, Reason.ENRICHED]
    assert items_of(processed.request)[1] == items[1].raw
    assert [failure.where for failure in processed.failures] == ["write span 0000000000000005"]


def test_f43_evidence_that_raises_is_told_once(monkeypatch):
    collected = collect.of_span

    def broken(span, *args):
        if span.name == "openai.assistant.run":
            raise RuntimeError("a bug")
        return collected(span, *args)

    monkeypatch.setattr(collect, "of_span", broken)
    processed = run(
        a_span(number=1),
        openllmetry_span(OLD, number=2, parent=1, more={"app.run": RUN_TEXT}),
        an_http_span(a_run_payload(), parent=1, start=18),
    )

    assert reasons(processed) == [Reason.ENRICHED]
    assert len(processed.failures) == 1


def test_f43_a_log_record_that_raises_is_told_and_the_others_are_read(monkeypatch):
    collected = collect.of_record

    def broken(record, *args):
        if record.trace_id == (2).to_bytes(16, "big"):
            raise RuntimeError("a bug")
        return collected(record, *args)

    monkeypatch.setattr(collect, "of_record", broken)
    failures, index = [], Index()
    request = a_request([a_log_record(RUN_TEXT, trace=2), a_log_record(RUN_TEXT)])
    learn.learn(Signal.LOGS, Haystack(request, shallow.parse(request)), index, SETTINGS, failures)

    assert [failure.where for failure in failures] == ["collect evidence"]
    assert index.runs.keys() == {run_id()}


def test_f38_a_log_record_that_cannot_be_decoded_is_no_evidence():
    item = a_log_record(RUN_TEXT)
    failures, index = [], Index()
    request = with_raw([item, item], {0: item.raw + b"\x1a\x02\xff\xfe"})
    learn.learn(Signal.LOGS, Haystack(request, shallow.parse(request)), index, SETTINGS, failures)

    assert failures == []
    assert index.runs.keys() == {run_id()}


def test_a_failure_holds_no_contents_of_the_span(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("a bug")

    monkeypatch.setattr(write, "plan", broken)
    (failure,) = run(openllmetry_span(OLD, answers=["a secret"], more={"app.run": RUN_TEXT})).failures

    assert "a secret" not in failure.where + failure.trace
    assert run_id() not in failure.where + failure.trace


# ---- hostile spans


def test_a21_duplicate_attribute_keys_stay_and_no_third_is_added():
    duplicates = [("gen_ai.system", "openai"), ("gen_ai.system", "azure"), ("app", 1), ("app", 2)]
    item = openllmetry_span(OLD, more=[*duplicates, ("app.run", RUN_TEXT)])
    (out,) = items_of(run(item).request)
    keys = [each.key for each in Span.FromString(out).attributes]

    assert out.startswith(item.raw)
    assert [keys.count(key) for key in ("gen_ai.system", "app", TOTAL)] == [2, 2, 1]


def test_a22_a_span_of_100_000_attributes_is_forwarded_and_mended():
    more = [("app.run", RUN_TEXT), *((f"k{n}", n) for n in range(100_000))]
    item = openllmetry_span(OLD, more=more)
    (out,) = items_of(run(item).request)

    assert out.startswith(item.raw)
    assert attributes(out)[TOTAL] == 1540


def test_a22_keys_of_facts_behind_100_000_attributes_are_not_inserted_again():
    more = [("app.run", RUN_TEXT), *((f"k{n}", n) for n in range(100_000)), (TOTAL, 1540), ("gen_ai.system", "openai")]
    (out,) = items_of(run(openllmetry_span(OLD, more=more)).request)

    assert attributes(out)[TOTAL] == 1540


def test_counts_that_would_not_fit_do_not_reach_the_span():
    item = openllmetry_span(
        OLD, more={"app.run": as_json(a_run_payload(usage={"prompt_tokens": 1 << 62, "completion_tokens": 1 << 62}))}
    )
    processed = run(item)
    found = attributes(items_of(processed.request)[0])

    assert processed.failures == []
    assert not [key for key, value in found.items() if isinstance(value, int) and value < 0]
    assert TOTAL not in found


# ---- settings


def settings_of(**enrichment):
    return Settings.from_config(Config.model_validate({"enrichment": enrichment}))


def test_the_defaults_of_the_configuration_are_the_steps_defaults():
    settings = settings_of()

    assert settings.recogniser.rules == BUILT_IN
    assert settings.policy == write.Policy()
    assert settings.payload_attributes == frozenset()


def test_the_policy_follows_the_configuration():
    settings = settings_of(conventions=["current"], provenance=True, on_conflict="repair")

    assert settings.policy == write.Policy((Convention.CURRENT,), provenance=True, repair=True)


def test_payload_attributes_of_the_configuration_are_read():
    item = openllmetry_span(OLD, more={"input.value": RUN_TEXT})

    assert reasons(run(item)) == [Reason.PAYLOAD_ABSENT]
    assert reasons(run(item, settings=settings_of(payload_attributes=["input.value"]))) == [Reason.ENRICHED]


@pytest.mark.parametrize(
    ("named", "system", "provider"),
    [
        ({}, "openai", "openai"),
        ({"system": "acme"}, "acme", "acme"),
        ({"provider": "acme"}, "acme", "acme"),
        ({"system": "acme", "provider": "acme.llm"}, "acme", "acme.llm"),
    ],
)
def test_rules_of_the_configuration_stand_before_the_built_in_ones(named, system, provider):
    rule = {"name": "own", "span_name": "openai.assistant.run*", "attributes": {"llm.request.type": "*"}, **named}
    processed = run(openllmetry_span(OLD), settings=settings_of(rules=[rule]))
    (outcome,) = processed.outcomes

    assert outcome.rule == "own"
    assert dict(outcome.inserted)["gen_ai.system"] == system
    assert dict(outcome.inserted)["gen_ai.provider.name"] == provider


def test_an_outcome_tells_all_there_is_to_say():
    item = openllmetry_span("0.50.1", number=5, trace=6, more={"app.run": RUN_TEXT})
    (outcome,) = run(item).outcomes

    assert (outcome.trace_id, outcome.span_id) == (f"{6:032x}", f"{5:016x}")
    assert (outcome.span_name, outcome.service) == ("openai.assistant.run", SERVICE)
    assert (outcome.scope, outcome.rule) == (f"{OPENAI_SCOPE} 0.50.1", "openllmetry-assistant-run")
    assert (outcome.reason, outcome.rung) == (Reason.USAGE_CONFLICT, Rung.PAYLOAD)
    assert (outcome.run_id, outcome.place) == (run_id(), "attribute app.run of span openai.assistant.run")
    assert outcome.defects == ("swapped_usage",)
    assert (Fact.TOTAL in outcome.lacked, Fact.TOTAL in outcome.still_lacks) == (True, False)
    assert Fact.PROMPT in outcome.still_lacks


def test_the_builders_keep_requests_apart_by_service_and_scope():
    """Guards the tests above: an item must come out of a request as it went in."""
    items = [a_span("a"), a_span("b", service="other"), openllmetry_span(OLD)]

    assert items_of(a_request(items)) == [each.raw for each in items]
    assert all(isinstance(each, Item) for each in items)
