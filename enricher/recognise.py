"""
Tell whether a span is an Assistant run, and what it lacks.

Rules are data: a span is a candidate when one rule's scope, name and attributes all match; the first rule that
matches names it. Rules of the configuration stand before the built-in ones. Every rule has a needle, bytes that
a request must hold for the rule to match at all, so that requests without candidates are never parsed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

import orjson

from enricher.otlp import attributes as otlp
from enricher.semconv import (
    COUNTS,
    FACT_OF_KEY,
    KEYS,
    MESSAGE_ID,
    RUN_ID,
    THREAD_ID,
    Convention,
    Fact,
    served_by_azure,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

OPENLLMETRY: Final = "opentelemetry.instrumentation.openai*"
SUBJECT_LIMIT: Final = 512
"""Characters of a name or value that a pattern is held against."""

SWAPPED_USAGE: Final = "swapped_usage"
ZERO_STREAM_USAGE: Final = "zero_stream_usage"
DISAGREEING_USAGE: Final = "disagreeing_usage"


@dataclass(frozen=True)
class Rule:
    """
    One way to recognise an Assistant run.

    `scope`, `span_name` and the attribute values are exact texts or globs (`*`, `?`); None matches anything.
    `system` and `provider` are written where neither the span nor its evidence names another.
    """

    name: str
    scope: str | None = None
    span_name: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    system: str = "openai"
    provider: str = "openai"

    @cached_property
    def needle(self) -> bytes:
        """Bytes that every match holds; empty if the patterns hold no literal text."""
        pieces = [
            piece for pattern in (self.span_name, self.scope) if pattern for piece in re.split(r"[*?]+", pattern)
        ] + list(self.attributes)
        return max(pieces, key=len, default="").encode()

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], re.Pattern[str], tuple[tuple[str, re.Pattern[str]], ...]]:
        return _glob(self.scope), _glob(self.span_name), tuple((k, _glob(v)) for k, v in self.attributes.items())

    def matches_scope(self, scope_name: str) -> bool:
        """Tell whether spans of the scope can match."""
        return self._patterns[0].fullmatch(scope_name[:SUBJECT_LIMIT]) is not None

    def matches_span(self, span: Span) -> bool:
        """Tell whether the span matches, its scope apart."""
        _, name, wanted = self._patterns
        if name.fullmatch(span.name[:SUBJECT_LIMIT]) is None:
            return False
        if not wanted:
            return True
        values = otlp.first_values(span.attributes)
        return all(key in values and pattern.fullmatch(_subject(values[key])) for key, pattern in wanted)


def _glob(pattern: str | None) -> re.Pattern[str]:
    if pattern is None:
        return re.compile(r".*", re.DOTALL)
    # Runs of `*` count as one, and the subject is cut, so that no pattern can take long (attack A16).
    parts = re.split(r"(\*+|\?)", pattern)
    return re.compile(
        "".join(".*?" if p.startswith("*") else "." if p == "?" else re.escape(p) for p in parts), re.DOTALL
    )


def _subject(value: AnyValue) -> str:
    plain = otlp.plain(value)
    return (plain if isinstance(plain, str) else str(plain))[:SUBJECT_LIMIT]


BUILT_IN: Final = (
    Rule("openllmetry-assistant-run", scope=OPENLLMETRY, span_name="openai.assistant.run"),
    Rule("openllmetry-assistant-run-stream", scope=OPENLLMETRY, span_name="openai.assistant.run_stream"),
    # Formats without scopes lose the name on their way (Zipkin, older Jaeger).
    Rule("unscoped-assistant-run", scope="", span_name="openai.assistant.run"),
    Rule("unscoped-assistant-run-stream", scope="", span_name="openai.assistant.run_stream"),
    # Forks rename the scope and keep the attributes.
    Rule("forked-assistant-run", span_name="openai.assistant.run*", attributes={"llm.request.type": "*"}),
    Rule("forked-assistant-run-genai", span_name="openai.assistant.run*", attributes={"gen_ai.operation.name": "*"}),
    Rule("forked-assistant-run-model", span_name="openai.assistant.run*", attributes={"gen_ai.request.model": "*"}),
)


@dataclass(frozen=True)
class Recogniser:
    """The rules in the order in which they are asked."""

    rules: tuple[Rule, ...] = BUILT_IN

    @cached_property
    def needles(self) -> tuple[bytes, ...]:
        """The fewest needles of which a request with a candidate must hold one; `b""` is in every request."""
        found = {rule.needle for rule in self.rules}
        return tuple(sorted(n for n in found if not any(other != n and other in n for other in found)))

    def rules_of_scope(self, scope_name: str) -> tuple[Rule, ...]:
        """Return the rules that spans of this scope can match."""
        return tuple(rule for rule in self.rules if rule.matches_scope(scope_name))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recognised span: what it says, what it lacks, and by what it can be tied to a run. Holds no text."""

    trace_id: bytes
    span_id: bytes
    parent_span_id: bytes
    span_name: str
    service: str
    scope: str
    rule: Rule
    start: int
    end: int
    present: frozenset[str]
    """Keys of facts that stand on the span, whatever their value."""
    own: Mapping[Fact, str | int]
    """Facts that the span states itself, in either vocabulary, without contradiction."""
    lacks: tuple[Fact, ...]
    run_ids: frozenset[str]
    thread_ids: frozenset[str]
    message_ids: tuple[str, ...]
    """In the order in which the span numbers them."""
    answers: tuple[bytes, ...]
    """Digests of the assistant's texts, in the order in which the span numbers them."""
    azure: bool
    """The span's own address is one at which Azure serves the API."""
    defects: tuple[str, ...]
    """Known defects of the instrumentation's version that make the span's token counts doubtful."""

    @property
    def own_pair(self) -> tuple[int, int] | None:
        """The span's prompt and completion tokens, if both stand on it."""
        prompt, completion = self.own.get(Fact.PROMPT), self.own.get(Fact.COMPLETION)
        return (prompt, completion) if isinstance(prompt, int) and isinstance(completion, int) else None


def candidate(
    span: Span, *, rule: Rule, service: str, scope: tuple[str, str], conventions: Iterable[Convention]
) -> Candidate:
    """Describe a span that `rule` matched. `scope` is its name and version."""
    values = otlp.first_values(span.attributes)
    own, disagreeing = _own_facts(values)
    lacks = tuple(
        fact
        for fact, keys in KEYS.items()
        if any(convention in keys and keys[convention] not in values for convention in conventions)
    )
    ids = [
        text
        for key, value in values.items()
        if value.WhichOneof("value") == "string_value"
        and len(text := value.string_value) <= 128
        and not key.endswith((".content", ".role"))
    ]
    defects = _defects(span.name, scope, own)
    if disagreeing:
        defects = (*defects, DISAGREEING_USAGE)
    return Candidate(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_span_id,
        span_name=span.name,
        service=service,
        scope=" ".join(filter(None, scope)),
        rule=rule,
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        present=frozenset(key for key in values if key in FACT_OF_KEY),
        own=own,
        lacks=lacks,
        run_ids=frozenset(text for text in ids if RUN_ID.match(text)),
        thread_ids=frozenset(text for text in ids if THREAD_ID.match(text)),
        message_ids=_message_ids(values),
        answers=_answers(values),
        azure=any(served_by_azure(otlp.text(values[key]) or "") for key in _ADDRESS_KEYS if key in values),
        defects=defects,
    )


def _own_facts(values: Mapping[str, AnyValue]) -> tuple[dict[Fact, str | int], bool]:
    """Return what the span says, and whether two keys of one fact say different things (then neither is believed)."""
    said: dict[Fact, set[str | int]] = {}
    for key, value in values.items():
        for fact in FACT_OF_KEY.get(key, ()):
            scalar = otlp.scalar(value)
            if isinstance(scalar, int) == (fact in COUNTS) and scalar is not None:
                said.setdefault(fact, set()).add(scalar)
    own = {fact: next(iter(found)) for fact, found in said.items() if len(found) == 1}
    return own, any(len(found) > 1 for fact, found in said.items() if fact in COUNTS)


def _numbered(values: Mapping[str, AnyValue], pattern: re.Pattern[str]) -> list[tuple[int, str, AnyValue]]:
    found = [(int(m[2]), m[1], value) for key, value in values.items() if (m := pattern.match(key))]
    return sorted(found, key=lambda each: each[0])


_RESPONSE_ID = re.compile(r"(gen_ai\.response\.)(\d{1,6})\.id\Z")
_COMPLETION = re.compile(r"(gen_ai\.completion\.|llm\.completions\.)(\d{1,6})\.content\Z")


def _message_ids(values: Mapping[str, AnyValue]) -> tuple[str, ...]:
    numbered = [value for _, _, value in _numbered(values, _RESPONSE_ID)]
    if not numbered and "gen_ai.message.id" in values:
        numbered = [values["gen_ai.message.id"]]
    return tuple(text for value in numbered if (text := otlp.text(value)) and MESSAGE_ID.match(text))


def _answers(values: Mapping[str, AnyValue]) -> tuple[bytes, ...]:
    found = []
    for number, prefix, value in _numbered(values, _COMPLETION):
        role = values.get(f"{prefix}{number}.role")
        # Up to 0.38 the user's own messages stand among the completions.
        if (role is None or otlp.text(role) == "assistant") and (text := otlp.text(value)):
            found.append(otlp.digest(text))
    if not found and "gen_ai.output.messages" in values:
        found = _answers_of_messages(otlp.text(values["gen_ai.output.messages"]) or "")
    return tuple(found)


def _answers_of_messages(text: str) -> list[bytes]:
    try:
        messages = orjson.loads(text)
    except orjson.JSONDecodeError:
        return []
    answers: list[bytes] = []
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict) and message.get("role") in (None, "assistant"):
            parts = message.get("parts")
            texts = [_text_of_part(part) for part in (parts if isinstance(parts, list) else ())]
            answers += [otlp.digest(text) for text in texts if text]
    return answers


def _text_of_part(part: object) -> str:
    text = part.get("content") if isinstance(part, dict) and part.get("type") == "text" else None
    return text if isinstance(text, str) else ""


_ADDRESS_KEYS: Final = (
    "server.address",
    "net.peer.name",
    "http.host",
    "url.full",
    "gen_ai.openai.api_base",
    "llm.openai.api_base",
)


def _defects(name: str, scope: tuple[str, str], own: Mapping[Fact, str | int]) -> tuple[str, ...]:
    """Name the known defects that this version's token counts may have."""
    if not scope[0].startswith(OPENLLMETRY[:-1]):
        return ()
    version = _version(scope[1])
    stream = name.endswith("_stream")
    if Fact.PROMPT not in own and Fact.COMPLETION not in own:
        return ()
    # https://github.com/traceloop/openllmetry/issues/2318 and its repair: run spans of these versions carry
    # completion tokens as input and prompt tokens as output.
    if not stream and (0, 48, 0) <= version < (0, 55, 0):
        return (SWAPPED_USAGE,)
    # Stream spans start from 0/0 and keep it when no step reported usage.
    if stream and own.get(Fact.PROMPT) == 0 and own.get(Fact.COMPLETION) == 0:
        return (ZERO_STREAM_USAGE,)
    return ()


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d{1,6}", text)[:3])
