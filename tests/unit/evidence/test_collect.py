"""Where payloads are looked for, and where they are not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enricher.evidence import collect
from enricher.evidence.collect import Place
from enricher.evidence.objects import Usage
from enricher.otlp.attributes import MAX_ATTRIBUTES
from enricher.semconv import ANY_RUN
from tests.support.build import (
    BODY,
    SERVICE,
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
    at,
    evidence_of,
    run_id,
    span_id,
    thread_id,
    trace_id,
)

RUN_TEXT = as_json(a_run_payload())
RUN_PATH = f"/v1/threads/{thread_id()}/runs/{run_id()}"
AZURE = "https://tutors.openai.azure.com"


def runs(evidence):
    return [run.run_id for each in evidence for run in each.said.runs]


# spans


@pytest.mark.parametrize(
    "key",
    [
        BODY,
        "http.response.body.text",
        "traceloop.entity.output",
        "output.value",
        "langfuse.observation.output",
        "mlflow.spanOutputs",
        "app.run",
        "gen_ai.task.output",
    ],
)
def test_an_attribute_of_any_key_may_hold_a_payload(key):
    assert runs(evidence_of(a_span("work", {key: RUN_TEXT}))) == [run_id()]


@pytest.mark.parametrize("value", [a_run_payload(), [a_run_payload()], RUN_TEXT.encode(), {"run": RUN_TEXT}])
def test_a_payload_may_be_bytes_or_structured(value):
    assert runs(evidence_of(a_span("work", {"app.run": value}))) == [run_id()]


@pytest.mark.parametrize("value", [None, True, 7, 1.5, b"\xff\xfe", "", "done", [], {}])
def test_values_that_are_no_payload_are_no_evidence(value):
    assert evidence_of(a_span("work", {"app.run": value})) == []


def test_the_place_says_in_words_where_the_payload_stands_and_when():
    item = a_span("read answer", {"app.run": RUN_TEXT}, number=5, trace=3, start=2, end=4)
    (evidence,) = evidence_of(item)

    assert evidence.place == Place(
        "attribute app.run of span read answer", SERVICE, trace_id(3), span_id(5), at(2), at(4)
    )


def test_a_place_of_an_event_has_the_events_own_time():
    item = a_span("work", number=5, start=1, end=9, events=[("answered", {"run": RUN_TEXT}, 3)])
    (evidence,) = evidence_of(item)

    assert evidence.place == Place(
        "attribute run of event answered of span work", SERVICE, trace_id(), span_id(5), at(3), at(3)
    )
    assert runs([evidence]) == [run_id()]


def test_a15_names_in_a_place_are_short_and_printable():
    (evidence,) = evidence_of(a_span("a\nb\x1b[31m", {"k" * 100: RUN_TEXT}))

    assert evidence.place.where == f"attribute {'k' * 80} of span 'a\\nb\\x1b[31m'"


def test_each_attribute_that_says_something_is_evidence_of_its_own():
    item = a_span("work", {"a": RUN_TEXT, "b": "nothing", "c": as_json(a_message_payload())})

    assert len(evidence_of(item)) == 2


def test_a22_attributes_beyond_the_limit_are_not_read():
    filler = [(f"k{n}", n) for n in range(MAX_ATTRIBUTES)]

    assert runs(evidence_of(a_span("work", [*filler[:-1], ("app.run", RUN_TEXT)]))) == [run_id()]
    assert evidence_of(a_span("work", [*filler, ("app.run", RUN_TEXT)])) == []


# words of people and models

SPOKEN = [
    "gen_ai.prompt.0.content",
    "gen_ai.completion.3.content",
    "gen_ai.completion.0.tool_calls.0.arguments",
    "gen_ai.prompt",
    "gen_ai.completion",
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.event.content",
    "gen_ai.tool.call.result",
    "gen_ai.task.input",
    "llm.prompts.0.content",
    "llm.completions.0.content",
    "llm.input_messages.0.message.content",
    "llm.output_messages.0.message.content",
    "llm.invocation_parameters",
    "input.value",
    "traceloop.entity.input",
    "langfuse.observation.input",
    "mlflow.spanInputs",
    "http.request.body",
    "http.request.body.text",
    "request_data",
    "db.statement",
    "db.query.text",
    "exception.message",
    "gen_ai.content.prompt",
    "gen_ai.content.completion",
    "llm.prompt_template.variables",
    "llm.prompt_template.template",
    "prompt",
    "content",
]
"""Keys under which instrumentations record what people, models or clients said."""


@pytest.mark.parametrize("key", SPOKEN)
def test_a_payload_inside_a_prompt_or_an_answer_is_not_evidence(key):
    """Whoever may write into a prompt could otherwise write token counts."""
    for value in (RUN_TEXT, RUN_TEXT.encode(), a_run_payload(), [a_run_payload()]):
        assert evidence_of(a_span("work", {key: value})) == []
        assert evidence_of(a_span("work", events=[("said", {key: value}, 0)])) == []
        assert evidence_of(a_log_record("said", {key: value})) == []


def test_an_api_path_inside_a_prompt_is_not_evidence():
    assert evidence_of(a_span("work", {"gen_ai.prompt.0.content": f"see {RUN_PATH}"})) == []


def test_an_address_inside_a_prompt_says_nothing_of_the_provider():
    (evidence,) = evidence_of(a_span("work", {"gen_ai.prompt.0.content": f"{AZURE}/docs", "app.run": RUN_TEXT}))

    assert evidence.azure is None


@pytest.mark.parametrize("key", ["input.value", "gen_ai.completion.0.content"])
def test_keys_that_the_configuration_names_are_read_all_the_same(key):
    assert runs(evidence_of(a_span("work", {key: RUN_TEXT}), key)) == [run_id()]
    assert runs(evidence_of(a_log_record(attributes={key: RUN_TEXT}), key)) == [run_id()]


# addresses


@pytest.mark.parametrize(
    ("text", "thread", "run"),
    [
        (f"https://api.openai.com{RUN_PATH}", thread_id(), run_id()),
        (f"https://api.openai.com{RUN_PATH}?include[]=x", thread_id(), run_id()),
        (f"https://api.openai.com{RUN_PATH}/steps", thread_id(), run_id()),
        (f"{AZURE}/openai/threads/{thread_id()}/runs?api-version=1", thread_id(), ANY_RUN),
        (f"/threads/{thread_id()}/messages", thread_id(), ""),
        (f"/v1/threads/{thread_id()}", thread_id(), ""),
    ],
)
def test_ids_are_read_from_the_paths_of_the_api(text, thread, run):
    (evidence,) = evidence_of(a_span("GET", {"url": text}, number=5, start=1, end=2))

    assert evidence.urls == ((thread, run),)
    assert (evidence.place.where, evidence.place.start, evidence.place.end) == ("URL of span GET", at(1), at(2))
    assert not evidence.said


@pytest.mark.parametrize(
    "text", ["/threads/", "/threads/x/runs/run_1", f"/threads/{'thread_' + 'x' * 200}", "/runs/run_1"]
)
def test_other_paths_are_no_evidence(text):
    assert evidence_of(a_span("GET", {"url.full": f"https://api.openai.com{text}"})) == []


def test_a_path_in_a_value_longer_than_any_url_is_not_read():
    text = f"https://api.openai.com{RUN_PATH}?"

    assert evidence_of(a_span("GET", {"url.full": text + "x" * collect.URL_LIMIT})) == []
    assert len(evidence_of(a_span("GET", {"url.full": text}))) == 1


@pytest.mark.parametrize(
    ("attributes", "azure"),
    [
        ({"http.url": f"{AZURE}/openai/threads"}, True),
        ({"url.full": f"{AZURE}:443/openai"}, True),
        ({"server.address": "tutors.openai.azure.com"}, True),
        ({"net.peer.name": "TUTORS.OPENAI.AZURE.COM."}, True),
        ({"http.host": "tutors.cognitiveservices.azure.com:443"}, True),
        ({"http.url": "https://api.openai.com/v1"}, False),
        ({"server.address": "openai.azure.com.example.org"}, False),
        ({"http.url": "https://example.org/?to=x.openai.azure.com"}, False),
        ({"http.url": "https://x.openai.azure.com@example.org/"}, False),
        ({}, None),
        ({"http.url": 5}, None),
        ({"http.url": "tutors.openai.azure.com"}, None),
    ],
)
def test_addresses_beside_a_payload_tell_whether_azure_served_it(attributes, azure):
    (evidence,) = evidence_of(a_span("GET", {**attributes, BODY: RUN_TEXT}))

    assert evidence.azure is azure


def test_a_path_of_the_api_carries_the_word_of_its_address():
    (evidence,) = evidence_of(a_span("GET", {"http.url": f"{AZURE}{RUN_PATH}"}))

    assert evidence.azure is True


# log records


def test_a_body_is_read_as_text_and_as_structure():
    for body in (RUN_TEXT, a_run_payload(), {"event": "answered", "run": a_run_payload()}):
        assert runs(evidence_of(a_log_record(body))) == [run_id()]


def test_a_place_of_a_record_has_the_records_ids_and_time():
    (evidence,) = evidence_of(a_log_record(RUN_TEXT, trace=2, span=7, seconds=3))

    assert evidence.place == Place("log body", SERVICE, trace_id(2), span_id(7), at(3), at(3))


def test_a_record_without_a_time_of_its_own_has_the_time_it_was_observed():
    (evidence,) = evidence_of(a_log_record(RUN_TEXT, observed=4))

    assert (evidence.place.start, evidence.place.end) == (at(4), at(4))


def test_attributes_of_a_record_are_read():
    (evidence,) = evidence_of(a_log_record("answered", {"run": RUN_TEXT}))

    assert (evidence.place.where, runs([evidence])) == ("attribute run of a log record", [run_id()])


def test_what_people_say_in_a_body_is_not_evidence():
    assert evidence_of(a_log_record({"role": "user", "content": RUN_TEXT})) == []


def test_a_record_that_says_nothing_is_no_evidence():
    assert evidence_of(a_log_record("run_id missing", {"thread_id": 5})) == []


# needles


@pytest.mark.parametrize(
    "item",
    [
        an_http_span(a_run_payload("in_progress", None)),
        an_http_span(a_run_payload("in_progress", None, object=...)),
        an_http_span(a_run_payload(object=..., assistant_id=...)),
        an_http_span(a_list([a_step_payload(usage=None)])),
        an_http_span(a_message_payload()),
        an_http_span(a_usage()),
        an_http_span(an_sse_transcript(a_message_payload())),
        an_http_span(as_json(a_run_payload())[:200]),
        an_http_span(url=f"https://api.openai.com{RUN_PATH}"),
        a_span("work", {"app.run": a_run_payload("queued", None)}),
        a_log_record(as_json(as_json(a_run_payload()))),
    ],
)
def test_whatever_holds_evidence_holds_a_needle(item):
    assert evidence_of(item)
    assert any(needle in item.raw for needle in collect.NEEDLES)


@given(st.text(max_size=40), st.text(max_size=200) | st.binary(max_size=200))
def test_any_key_and_value_give_evidence_or_none_and_never_raise(key, value):
    for evidence in evidence_of(a_span("work", {key.encode("utf-8", "replace").decode(): _clean(value)})):
        assert all(isinstance(usage, Usage) for usage in evidence.said.bare)


def _clean(value):
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
