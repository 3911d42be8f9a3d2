"""
Builders of telemetry and API answers for tests: spans, log records, requests, and the payloads that stand in them.

Everything counts from one: `run_id(1)`, `trace_id(1)`; times are seconds after `BEGIN`. Spans get the next free number
unless one is named, which recorded cases do, so that they stay the same.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from enricher import learn, scan
from enricher.evidence import collect
from enricher.evidence.index import Index
from enricher.otlp import attributes as otlp
from enricher.otlp import shallow
from enricher.otlp.haystack import Haystack
from enricher.otlp.shallow import Signal
from enricher.recognise import Candidate, candidate, tie
from enricher.rules import Rule
from enricher.scan import Settings
from enricher.semconv import Convention
from enricher.world import World

if TYPE_CHECKING:
    from enricher.pipeline import Processed

BEGIN: Final = 1_700_000_000_123_456_789
"""The time at which every test begins, in ns: on no whole microsecond, as clocks of Linux give it."""

CREATED: Final = 1_700_000_000
"""The API's own clock at that time, in seconds."""

OPENAI_SCOPE: Final = "opentelemetry.instrumentation.openai.v1"
HTTPX_SCOPE: Final = "opentelemetry.instrumentation.httpx"
SERVICE: Final = "tutor"
MODEL: Final = "gpt-4o-mini"
QUESTION: Final = "How far is the moon?"
ANSWER: Final = "About 384,400 kilometres."
BODY: Final = "http.response.body"
RULE: Final = Rule("r")

OPENLLMETRY_VERSIONS: Final = (
    "0.15.0",
    "0.33.12",
    "0.34.0",
    "0.38.12",
    "0.45.6",
    "0.48.0",
    "0.50.1",
    "0.55.0",
    "0.62.4",
)
"""One version of OpenLLMetry for each shape that its Assistant spans have had."""

Attributes = Mapping[str, Any] | Sequence[tuple[str, Any]]
Event = tuple[str, Mapping[str, Any], float]

_numbers = itertools.count(1)


def run_id(number: int = 1) -> str:
    return f"run_{number:024d}"


def thread_id(number: int = 1) -> str:
    return f"thread_{number:024d}"


def message_id(number: int = 1) -> str:
    return f"msg_{number:024d}"


def assistant_id(number: int = 1) -> str:
    return f"asst_{number:024d}"


def trace_id(number: int = 1) -> bytes:
    return number.to_bytes(16, "big")


def span_id(number: int = 1) -> bytes:
    return number.to_bytes(8, "big")


def at(seconds: float) -> int:
    """Return a time of the test in ns."""
    return BEGIN + round(seconds * 1_000_000_000)


# ---- what the API answers ----------------------------------------------------------------------------------------


def a_usage(
    prompt: int = 1200, completion: int = 340, *, cached: int | None = None, reasoning: int | None = None
) -> dict[str, Any]:
    """Return a usage object as the Assistants API writes it."""
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if cached is not None:
        usage["prompt_token_details"] = {"cached_tokens": cached}
    if reasoning is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return usage


def a_run_payload(
    status: str = "completed",
    usage: Mapping[str, Any] | tuple[int, int] | None = (1200, 340),
    *,
    number: int = 1,
    thread: int = 1,
    model: str = MODEL,
    **changed: Any,
) -> dict[str, Any]:
    """Return a `thread.run`; `changed` replaces fields, and what is replaced by `...` is left out."""
    payload: dict[str, Any] = {
        "id": run_id(number),
        "object": "thread.run",
        "created_at": CREATED + number,
        "assistant_id": assistant_id(),
        "thread_id": thread_id(thread),
        "status": status,
        "model": model,
        "instructions": "Answer in one sentence.",
        "tools": [],
        "metadata": {},
        "max_prompt_tokens": 5000,
        "max_completion_tokens": 1000,
        "usage": a_usage(*usage) if isinstance(usage, tuple) else usage,
    }
    payload |= changed
    return {key: value for key, value in payload.items() if value is not ...}


def a_message_payload(
    text: str = ANSWER,
    *,
    number: int = 1,
    run: int | None = 1,
    thread: int = 1,
    role: str = "assistant",
    created: int | None = None,
    **changed: Any,
) -> dict[str, Any]:
    """Return a `thread.message`; a user's message has no run."""
    payload: dict[str, Any] = {
        "id": message_id(number),
        "object": "thread.message",
        "created_at": CREATED + (number if created is None else created),
        "thread_id": thread_id(thread),
        "run_id": None if run is None else run_id(run),
        "assistant_id": None if run is None else assistant_id(),
        "role": role,
        "content": [{"type": "text", "text": {"value": text, "annotations": []}}],
        "metadata": {},
    }
    payload |= changed
    return {key: value for key, value in payload.items() if value is not ...}


def a_step_payload(
    *,
    number: int = 1,
    run: int = 1,
    thread: int = 1,
    message: int | None = 1,
    usage: tuple[int, int] | None = (700, 90),
) -> dict[str, Any]:
    """Return a `thread.run.step`, which has its own usage; without a message it is a step of tool calls."""
    details: dict[str, Any] = {"type": "tool_calls", "tool_calls": []}
    if message is not None:
        details = {"type": "message_creation", "message_creation": {"message_id": message_id(message)}}
    return {
        "id": f"step_{number:024d}",
        "object": "thread.run.step",
        "created_at": CREATED + number,
        "run_id": run_id(run),
        "thread_id": thread_id(thread),
        "status": "completed",
        "step_details": details,
        "usage": None if usage is None else a_usage(*usage),
    }


def a_list(items: Iterable[Any]) -> dict[str, Any]:
    """Return a page of a list."""
    data = list(items)
    return {"object": "list", "data": data, "has_more": False}


def a_chat_completion(prompt: int = 17, completion: int = 5) -> dict[str, Any]:
    """Return the answer of another API, which has usage too."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes."}}],
        "usage": a_usage(prompt, completion),
    }


def an_sse_transcript(*payloads: Mapping[str, Any]) -> str:
    """Return the server-sent events of a streamed run, each payload one event."""
    lines = [f"event: {each['object']}.{each.get('status', 'created')}\ndata: {as_json(each)}\n\n" for each in payloads]
    return "".join(lines) + "event: done\ndata: [DONE]\n\n"


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# ---- what telemetry is made of -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """A span or a log record, and what stands above it."""

    message: Span | LogRecord
    scope: tuple[str, str]
    service: str

    @property
    def raw(self) -> bytes:
        return self.message.SerializeToString()

    @property
    def span(self) -> Span:
        assert isinstance(self.message, Span)
        return self.message


def a_value(value: Any) -> AnyValue:
    """Return any plain value as it stands on the wire."""
    match value:
        case None:
            return AnyValue()
        case bool():
            return AnyValue(bool_value=value)
        case str():
            return AnyValue(string_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case bytes():
            return AnyValue(bytes_value=value)
        case Mapping():
            wrapped = AnyValue()
            wrapped.kvlist_value.SetInParent()
            wrapped.kvlist_value.values.extend(key_values(value))
            return wrapped
        case _:
            wrapped = AnyValue()
            wrapped.array_value.SetInParent()
            wrapped.array_value.values.extend(a_value(each) for each in value)
            return wrapped


def key_values(attributes: Attributes) -> list[KeyValue]:
    pairs = attributes.items() if isinstance(attributes, Mapping) else attributes
    return [KeyValue(key=key, value=a_value(value)) for key, value in pairs]


def a_span(
    name: str = "GET",
    attributes: Attributes = (),
    *,
    scope: tuple[str, str] = (HTTPX_SCOPE, "0.60b0"),
    service: str = SERVICE,
    trace: int = 1,
    number: int | None = None,
    parent: int = 0,
    start: float = 0,
    end: float | None = None,
    events: Iterable[Event] = (),
) -> Item:
    """Return a span. `trace`, `number` and `parent` count ids (a parent of 0 is none); an event has its own time."""
    span = Span(
        trace_id=trace_id(trace) if trace else b"",
        span_id=span_id(next(_numbers) + 1000 if number is None else number),
        parent_span_id=span_id(parent) if parent else b"",
        name=name,
        kind=Span.SPAN_KIND_CLIENT,
        start_time_unix_nano=at(start),
        end_time_unix_nano=at(start + 1 if end is None else end),
        attributes=key_values(attributes),
    )
    for event_name, event_attributes, seconds in events:
        span.events.add(name=event_name, time_unix_nano=at(seconds), attributes=key_values(event_attributes))
    return Item(span, scope, service)


def an_http_span(
    payload: Any = None, *, url: str | None = None, method: str = "GET", attributes: Attributes = (), **where: Any
) -> Item:
    """Return the span of one API call whose body is recorded; a payload that is no text is written as JSON."""
    found: list[tuple[str, Any]] = [] if url is None else [("http.url", url)]
    if payload is not None:
        found.append((BODY, payload if isinstance(payload, str) else as_json(payload)))
    pairs = attributes.items() if isinstance(attributes, Mapping) else attributes
    return a_span(method, [*found, *pairs], **where)


def a_log_record(
    body: Any = None,
    attributes: Attributes = (),
    *,
    service: str = SERVICE,
    trace: int = 1,
    span: int = 0,
    seconds: float = 0,
    observed: float | None = None,
) -> Item:
    """Return a log record; one that was only `observed` has no time of its own."""
    record = LogRecord(
        trace_id=trace_id(trace) if trace else b"",
        span_id=span_id(span) if span else b"",
        time_unix_nano=at(seconds) if observed is None else 0,
        observed_time_unix_nano=0 if observed is None else at(observed),
        body=a_value(body),
        attributes=key_values(attributes),
    )
    return Item(record, ("app.logger", ""), service)


def a_request(items: Iterable[Item]) -> bytes:
    """Return an export request of spans or of log records; neighbours of one service and scope stand together."""
    found = list(items)
    traces, logs = ExportTraceServiceRequest(), ExportLogsServiceRequest()
    for service, of_service in itertools.groupby(found, key=lambda each: each.service):
        members = list(of_service)
        resource = key_values({"service.name": service} if service else {})
        spans, records = traces.resource_spans.add(), logs.resource_logs.add()
        spans.resource.attributes.extend(resource)
        records.resource.attributes.extend(resource)
        for (name, version), of_scope in itertools.groupby(members, key=lambda each: each.scope):
            scope_spans, scope_logs = spans.scope_spans.add(), records.scope_logs.add()
            for scoped in (scope_spans.scope, scope_logs.scope):
                scoped.name, scoped.version = name, version
            for each in of_scope:
                if isinstance(each.message, Span):
                    scope_spans.spans.append(each.message)
                else:
                    scope_logs.log_records.append(each.message)
    records_only = bool(found) and all(isinstance(each.message, LogRecord) for each in found)
    return logs.SerializeToString() if records_only else traces.SerializeToString()


# ---- what OpenLLMetry writes -------------------------------------------------------------------------------------


def openllmetry_span(
    version: str,
    *,
    stream: bool = False,
    existing: bool = False,
    usage: tuple[int, int] | None = (1200, 340),
    answers: Sequence[str] = (ANSWER,),
    messages: Sequence[int] = (1,),
    question: str = QUESTION,
    question_message: int = 900,
    more: Attributes = (),
    **where: Any,
) -> Item:
    """
    Return an Assistant span as one version of OpenLLMetry for Python writes it.

    `existing` is an assistant that was made elsewhere, of which the instrumentation knows neither model nor provider.
    `usage` is the truth; what the version makes of it is on the span. `messages` number the assistant's messages.
    """
    shape = tuple(int(part) for part in version.split("."))
    found = _spoken(shape, stream=stream, answers=answers, question=question) if shape < (0, 55) else _messages(answers)
    if shape >= (0, 34) and not existing:
        found["gen_ai.provider.name" if shape >= (0, 55) else "gen_ai.system"] = "openai"
    if not existing:
        vendor = "llm" if shape < (0, 33) else "gen_ai"
        found |= {f"{vendor}.request.model": MODEL, f"{vendor}.response.model": MODEL}
    if shape >= (0, 38):
        ids = [message_id(each) for each in messages[: len(answers)]]
        if shape < (0, 45) and not stream:
            ids.insert(0, message_id(question_message))
        found |= {f"gen_ai.response.{n}.id": each for n, each in enumerate(ids)}
    if usage is not None and shape >= (0, 34):
        found |= _counts(shape, usage, stream=stream)
    pairs = more.items() if isinstance(more, Mapping) else more
    name = "openai.assistant.run_stream" if stream else "openai.assistant.run"
    return a_span(name, [*found.items(), *pairs], scope=(OPENAI_SCOPE, version), **({"start": 10, "end": 20} | where))


def _spoken(shape: tuple[int, ...], *, stream: bool, answers: Sequence[str], question: str) -> dict[str, Any]:
    asked, said = [("system", "Answer in one sentence.")], [("assistant", each) for each in answers]
    if not stream and shape < (0, 45):
        # Up to 0.38 the user's message is recorded as the first completion.
        said.insert(0, ("user", question))
    elif not stream:
        asked.append(("user", question))
    found: dict[str, Any] = {"llm.request.type": "chat"}
    prompt, completion = (
        ("llm.prompts", "llm.completions") if shape < (0, 33) else ("gen_ai.prompt", "gen_ai.completion")
    )
    for prefix, words in ((prompt, asked), (completion, said)):
        for n, (role, text) in enumerate(words):
            found |= {f"{prefix}.{n}.role": role, f"{prefix}.{n}.content": text}
    return found


def _messages(answers: Sequence[str]) -> dict[str, Any]:
    def message(role: str, text: str) -> dict[str, Any]:
        return {"role": role, "parts": [{"type": "text", "content": text}]}

    found: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.input.messages": as_json([message("system", "Answer in one sentence."), message("user", QUESTION)]),
    }
    if answers:
        found["gen_ai.output.messages"] = as_json([message("assistant", each) for each in answers])
    return found


def _counts(shape: tuple[int, ...], usage: tuple[int, int], *, stream: bool) -> dict[str, int]:
    prompt, completion = usage
    if shape < (0, 48):
        return {"gen_ai.usage.completion_tokens": completion, "gen_ai.usage.prompt_tokens": prompt}
    if shape < (0, 55) and not stream:
        prompt, completion = completion, prompt
    return {"gen_ai.usage.input_tokens": prompt, "gen_ai.usage.output_tokens": completion}


# ---- what came out -----------------------------------------------------------------------------------------------


def items_of(request: bytes) -> list[bytes]:
    """Return the spans or log records of a request as they stand in it."""
    return [bytes(item) for _, _, item in shallow.items(shallow.parse(request))]


def attributes(span: bytes) -> dict[str, Any]:
    """Return a span's attributes as plain values. A key that stands twice fails the test."""
    found: dict[str, Any] = {}
    for each in Span.FromString(span).attributes:
        assert each.key not in found, f"{each.key} stands twice"
        found[each.key] = otlp.plain(each.value)
    return found


# ---- through the steps -------------------------------------------------------------------------------------------


def described(
    item: Item, conventions: tuple[Convention, ...] = (Convention.LEGACY, Convention.CURRENT), rule: Rule = RULE
) -> Candidate:
    """Return the span as a candidate of the rule, whether it matches or not."""
    read = otlp.read(item.span.attributes)
    found = candidate(item.span, read, rule=rule, service=item.service, scope=item.scope, conventions=conventions)
    tie(found, read)
    return found


def evidence_of(item: Item, *extra_keys: str) -> list[collect.Evidence]:
    """Return what one span or log record says."""
    extra = frozenset(extra_keys)
    if isinstance(item.message, LogRecord):
        return list(collect.of_record(item.message, item.service, extra))
    return list(collect.of_span(item.message, otlp.read(item.message.attributes), item.service, extra))


def candidates_and_index(items: Sequence[Item], order: Iterable[int] | None = None) -> tuple[list[Candidate], Index]:
    """Return the candidates among the items, and what all of them say, learned one by one in their order or another."""
    settings, index = Settings(), Index()
    failures: list[scan.Failure] = []
    for number in range(len(items)) if order is None else order:
        signal, request = signals([items[number]])[0]
        sought = Haystack(request, shallow.parse(request))
        learn.learn(signal, sought, index, settings, failures)
        if signal is Signal.TRACES:
            learn.learn_model_calls(sought, index)
    spans = a_request(each for each in items if isinstance(each.message, Span))
    found = scan.find(Haystack(spans, shallow.parse(spans)), settings, failures)
    scan.tie_all(found, failures)
    assert not failures
    return [each.candidate for each in found if each.candidate is not None], index


def in_world(requests: Iterable[tuple[Signal, bytes]], settings: Settings | None = None) -> list[Processed]:
    """Return the requests after the pipeline as a recording of which every part is known."""
    recorded = list(requests)
    world = World(settings or Settings())
    for signal, request in recorded:
        world.learn(signal, request)
    mended = [world.mend(signal, request) for signal, request in recorded]
    assert not world.failures
    return mended


def signals(*requests: Sequence[Item]) -> list[tuple[Signal, bytes]]:
    """Return the requests with their signals, as the inputs of `in_world`."""
    return [
        (Signal.TRACES if isinstance(items[0].message, Span) else Signal.LOGS, a_request(items)) for items in requests
    ]
