"""Describe a recognised span: what it says, what it lacks, and by what it can be tied to a run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import orjson

from enricher.otlp import attributes as otlp
from enricher.rules import OPENLLMETRY
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
    from collections.abc import Mapping

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from enricher.rules import Rule

SWAPPED_USAGE: Final = "swapped_usage"
ZERO_STREAM_USAGE: Final = "zero_stream_usage"
DISAGREEING_USAGE: Final = "disagreeing_usage"

ADDRESS_KEYS: Final = frozenset(
    {"server.address", "net.peer.name", "http.host", "url.full", "gen_ai.openai.api_base", "llm.openai.api_base"}
)

NUMBERED: Final = frozenset({".id", "ent"})
"""How keys of numbered message ids and contents end."""

SPOKEN: Final = frozenset({"ent", "ole"})
"""How keys end under which people and models speak (`.content`, `.role`): an id there is a word of theirs."""

ID_STARTS: Final = frozenset({"run_", "thre"})


@dataclass(slots=True)
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
    present: set[str]
    """Keys of facts that stand on the span, whatever their value."""
    own: Mapping[Fact, str | int]
    """Facts that the span states itself, in either vocabulary, without contradiction."""
    lacks: tuple[Fact, ...]
    run_ids: set[str]
    thread_ids: set[str]
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
    span: Span, *, rule: Rule, service: str, scope: tuple[str, str], conventions: tuple[Convention, ...]
) -> Candidate:
    """Describe a span that `rule` matched. `scope` is its name and version."""
    said: dict[Fact, set[str | int]] = {}
    run_ids: set[str] = set()
    thread_ids: set[str] = set()
    addresses: list[str] = []
    numbered: list[str] = []
    values = otlp.first_values(span.attributes)
    for key, value in values.items():
        for fact in FACT_OF_KEY.get(key, ()):
            scalar = otlp.scalar(value)
            if scalar is not None and isinstance(scalar, int) == (fact in COUNTS):
                said.setdefault(fact, set()).add(scalar)
        if key in ADDRESS_KEYS:
            addresses.append(value.string_value)
        end = key[-3:]
        if end in NUMBERED:
            numbered.append(key)
        if end not in SPOKEN and (text := value.string_value)[:4] in ID_STARTS:
            ids = run_ids if RUN_ID.match(text) else thread_ids if THREAD_ID.match(text) else None
            if ids is not None:
                ids.add(text)
    own = {fact: next(iter(each)) for fact, each in said.items() if len(each) == 1}
    defects = _defects(span.name, scope, own)
    if any(len(each) > 1 and fact in COUNTS for fact, each in said.items()):
        defects = (*defects, DISAGREEING_USAGE)
    return Candidate(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_span_id,
        span_name=span.name,
        service=service,
        scope=f"{scope[0]} {scope[1]}".strip(),
        rule=rule,
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        present=values.keys() & FACT_OF_KEY.keys(),
        own=own,
        lacks=tuple([fact for fact, keys in _wanted(conventions) if not values.keys() >= keys]),
        run_ids=run_ids,
        thread_ids=thread_ids,
        message_ids=_message_ids(values, numbered),
        answers=_answers(values, numbered),
        azure=any(map(served_by_azure, addresses)),
        defects=defects,
    )


@lru_cache(maxsize=8)
def _wanted(conventions: tuple[Convention, ...]) -> tuple[tuple[Fact, frozenset[str]], ...]:
    """Return each fact that the conventions ask for, with all its keys."""
    wanted = ((fact, frozenset(keys[each] for each in conventions if each in keys)) for fact, keys in KEYS.items())
    return tuple((fact, keys) for fact, keys in wanted if keys)


def _message_ids(values: Mapping[str, AnyValue], numbered: list[str]) -> tuple[str, ...]:
    keys = _in_order("gen_ai.response.", ".id", numbered) or ["gen_ai.message.id"]
    texts = [otlp.text(values[key]) for key in keys if key in values]
    return tuple([text for text in texts if text and MESSAGE_ID.match(text)])


def _answers(values: Mapping[str, AnyValue], numbered: list[str]) -> tuple[bytes, ...]:
    answers = []
    for prefix in ("gen_ai.completion.", "llm.completions."):
        for key in _in_order(prefix, ".content", numbered):
            role = values.get(f"{key[:-8]}.role")
            # Up to 0.38 the user's own messages stand among the completions.
            if (role is None or otlp.text(role) == "assistant") and (text := otlp.text(values[key])):
                answers.append(otlp.digest(text))
    if not answers and "gen_ai.output.messages" in values:
        answers = _answers_of_messages(otlp.text(values["gen_ai.output.messages"]) or "")
    return tuple(answers)


def _in_order(prefix: str, suffix: str, keys: list[str]) -> list[str]:
    """Return the keys `prefix N suffix` by their N."""
    found = [
        (int(number), key)
        for key in keys
        if key.startswith(prefix) and key.endswith(suffix) and (number := key[len(prefix) : -len(suffix)]).isdecimal()
    ]
    return [key for _, key in sorted(found)]


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


def _defects(name: str, scope: tuple[str, str], own: Mapping[Fact, str | int]) -> tuple[str, ...]:
    """Name the known defects that this version's token counts may have."""
    if Fact.PROMPT not in own or Fact.COMPLETION not in own or not scope[0].startswith(OPENLLMETRY[:-1]):
        return ()
    if name.endswith("_stream"):
        # Stream spans start from 0/0 and keep it when no step reported usage.
        return (ZERO_STREAM_USAGE,) if own[Fact.PROMPT] == own[Fact.COMPLETION] == 0 else ()
    # Run spans of these versions carry completion tokens as input and prompt tokens as output.
    return (SWAPPED_USAGE,) if (0, 48, 0) <= _version(scope[1]) < (0, 55, 0) else ()


@lru_cache(maxsize=1024)
def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d{1,6}", text)[:3])
