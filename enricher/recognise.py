"""Describe a recognised span: what it says, what it lacks, and by what it can be tied to a run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import orjson

from enricher.defects import DISAGREEING_USAGE, DOUBTFUL, FRAMEWORK_AS_PROVIDER, suspected
from enricher.otlp import attributes as otlp
from enricher.rules import StandsFor
from enricher.semconv import (
    COUNTS,
    FACT_OF_KEY,
    FRAMEWORKS,
    KEYS,
    MESSAGE_ID,
    NAME,
    OPENINFERENCE_PROVIDER,
    PROVIDER_OF_OPENINFERENCE,
    RUN_ID,
    RUN_STATUS,
    SPOKEN,
    TERMINAL,
    THREAD_ID,
    Convention,
    Fact,
    is_id,
    served_by_azure,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from enricher.rules import Rule

    Attributes = list[tuple[str, AnyValue, str]]
    Conventions = tuple[Convention, ...]
    StartKey = tuple[str, str, str, int]

LISTED: Final = "openai.assistant.run"
"""How the names of spans begin of which there is one for each listing of the run's messages; a stream is not listed."""

STREAM: Final = "_stream"

ADDRESS_KEYS: Final = frozenset(
    {"server.address", "net.peer.name", "http.host", "url.full", "gen_ai.openai.api_base", "llm.openai.api_base"}
)

NOTED_KEYS: Final = ADDRESS_KEYS | {RUN_STATUS, OPENINFERENCE_PROVIDER}
"""Keys that say something of a run's state or of who serves it, and nothing that is a fact."""

ID_KEYS: Final = frozenset({"gen_ai.response.id", "gen_ai.thread.run.id", "gen_ai.conversation.id", "gen_ai.thread.id"})
"""Keys that promise an id, so that anything that begins like one is believed."""


NONE: Final[frozenset[str]] = frozenset()
"""One object for all candidates that name nothing: a hundred thousand may be remembered."""


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
    standing: Mapping[str, str | int | None]
    """Keys of facts that stand on the span, with their values; None is a value of a kind that is not believed."""
    own: Mapping[Fact, str | int]
    """Facts that the span states itself, in either vocabulary, without contradiction."""
    missing: tuple[tuple[Fact, str], ...]
    """Facts and the keys, of those that were asked for, that the span lacks."""
    run_ids: frozenset[str]
    thread_ids: frozenset[str]
    azure: bool
    """The span's own address is one at which Azure serves the API."""
    served_by: str
    """The provider that the span names in another vocabulary than ours; empty if it names none."""
    defects: tuple[str, ...]
    """What is wrong with the span, as far as itself and the version of its instrumentation tell."""
    may_own: bool = True
    """The usage of its run may be written on it: it stands for the whole run, or shows its end."""
    message_ids: tuple[str, ...] = ()
    """In the order in which the span numbers them."""
    answers: tuple[bytes, ...] = ()
    """Digests of the assistant's texts, in the order in which the span numbers them."""
    asked: frozenset[bytes] = frozenset()
    """Digests of the user's texts that stand among the answers."""

    @property
    def start_key(self) -> StartKey:
        """
        What spans of one run share: OpenLLMetry notes the start once a run, and writes a span for each listing.

        Spans of other names share it with no other span.
        """
        if self.span_name.startswith(LISTED) and not self.span_name.endswith(STREAM):
            return self.service, self.scope, self.rule.name, self.start
        return self.span_key

    @property
    def span_key(self) -> StartKey:
        """What only the same span shares, sent again."""
        return self.service, self.trace_id.hex(), self.span_id.hex(), self.start

    @property
    def lacks(self) -> tuple[Fact, ...]:
        """Facts that stand on the span under none, or not under all, of the keys that were asked for."""
        return tuple(dict.fromkeys(fact for fact, _ in self.missing))

    @property
    def doubtful(self) -> bool:
        """One of the defects makes the span's own counts doubtful."""
        return not DOUBTFUL.isdisjoint(self.defects)

    @property
    def own_pair(self) -> tuple[int, int] | None:
        """The span's prompt and completion tokens, if both stand on it."""
        prompt, completion = self.own.get(Fact.PROMPT), self.own.get(Fact.COMPLETION)
        return (prompt, completion) if isinstance(prompt, int) and isinstance(completion, int) else None


def candidate(  # noqa: PLR0913 - a span does not know what stands above it
    span: Span, attributes: Attributes, *, rule: Rule, service: str, scope: tuple[str, str], conventions: Conventions
) -> Candidate:
    """Describe a span that `rule` matched. `attributes` are the span's, read; `scope` is its name and version."""
    said: dict[Fact, set[str | int]] = {}
    standing: dict[str, str | int | None] = {}
    run_ids: set[str] = set()
    thread_ids: set[str] = set()
    azure, status, served_by = False, "", ""
    for key, value, text in attributes:
        if key in FACT_OF_KEY and key not in standing:
            standing[key] = _note(said, FACT_OF_KEY[key], otlp.scalar(value))
        if text.startswith(("run_", "thread_")) and _is_id(key, text):
            (run_ids if text.startswith("run_") else thread_ids).add(text)
        if key in NOTED_KEYS:
            if key == RUN_STATUS:
                status = status or text
            elif key == OPENINFERENCE_PROVIDER:
                served_by = served_by or PROVIDER_OF_OPENINFERENCE.get(text, text)
            else:
                azure = azure or served_by_azure(text)
    if len(span.attributes) > len(attributes):
        # Not read, but not to be inserted again either.
        standing |= {each.key: None for each in span.attributes if each.key in FACT_OF_KEY and each.key not in standing}
    own = {fact: next(iter(each)) for fact, each in said.items() if len(each) == 1}
    return Candidate(
        trace_id=otlp.valid_id(span.trace_id),
        span_id=otlp.valid_id(span.span_id),
        parent_span_id=otlp.valid_id(span.parent_span_id),
        span_name=span.name,
        service=service,
        scope=f"{scope[0]} {scope[1]}".strip(),
        rule=rule,
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        standing=standing,
        own=own,
        missing=tuple([each for each in _wanted(conventions) if each[1] not in standing]),
        run_ids=frozenset(run_ids) if run_ids else NONE,
        thread_ids=frozenset(thread_ids) if thread_ids else NONE,
        azure=azure,
        served_by=served_by,
        defects=_defects(span.name, scope, said, own),
        may_own=_may_own(rule, status, has_pair=Fact.PROMPT in own and Fact.COMPLETION in own),
    )


def _may_own(rule: Rule, status: str, *, has_pair: bool) -> bool:
    if has_pair or status in TERMINAL:
        return True
    return not status and rule.stands_for is StandsFor.RUN


def _note(said: dict[Fact, set[str | int]], facts: tuple[Fact, ...], scalar: str | int | None) -> str | int | None:
    """Note what a value says of its facts, and return it if it is of a kind that can say anything of them."""
    if scalar is None or isinstance(scalar, int) != (facts[0] in COUNTS):
        return None
    if scalar < 0 if isinstance(scalar, int) else not NAME.match(scalar):
        return None
    for fact in facts:
        said.setdefault(fact, set()).add(scalar)
    return scalar


def _is_id(key: str, text: str) -> bool:
    if key in ID_KEYS:
        return is_id(text)
    return (RUN_ID.match(text) or THREAD_ID.match(text)) is not None and is_id(text) and not SPOKEN.match(key)


@lru_cache(maxsize=8)
def _wanted(conventions: Conventions) -> tuple[tuple[Fact, str], ...]:
    """Return every fact with each key under which the conventions ask for it."""
    keys = [(fact, named[each]) for fact, named in KEYS.items() for each in Convention if each in named]
    return tuple(dict.fromkeys((fact, key) for fact, key in keys if key in {KEYS[fact].get(c) for c in conventions}))


def tie(described: Candidate, attributes: Attributes) -> None:
    """Add to a candidate by what it can be tied to its run, recorded elsewhere or on another span."""
    values = {key: value for key, value, _ in reversed(attributes)}
    numbered = [key for key in values if key.endswith((".id", ".content"))]
    described.message_ids = _message_ids(values, numbered)
    described.answers, described.asked = _answers(values, numbered)


def _message_ids(values: Mapping[str, AnyValue], numbered: list[str]) -> tuple[str, ...]:
    keys = _in_order("gen_ai.response.", ".id", numbered) or ["gen_ai.message.id"]
    texts = [otlp.text(values[key]) for key in keys if key in values]
    return tuple([text for text in texts if text and MESSAGE_ID.match(text) and is_id(text)])


def _answers(values: Mapping[str, AnyValue], numbered: list[str]) -> tuple[tuple[bytes, ...], frozenset[bytes]]:
    answers: list[bytes] = []
    asked: set[bytes] = set()
    for prefix in ("gen_ai.completion.", "llm.completions."):
        for key in _in_order(prefix, ".content", numbered):
            role = values.get(f"{key[:-8]}.role")
            if text := otlp.text(values[key]):
                # Up to 0.38 the user's own messages stand among the completions.
                is_answer = role is None or otlp.text(role) == "assistant"
                (answers.append if is_answer else asked.add)(otlp.digest(text))
    if not answers and "gen_ai.output.messages" in values:
        answers = _answers_of_messages(otlp.text(values["gen_ai.output.messages"]) or "")
    return tuple(answers), frozenset(asked)


def _in_order(prefix: str, suffix: str, keys: list[str]) -> list[str]:
    """Return the keys `prefix N suffix` by their N."""
    found: list[tuple[int, str]] = []
    for key in keys:
        if key.startswith(prefix) and key.endswith(suffix):
            number = key[len(prefix) : -len(suffix)]
            if number.isdecimal() and len(number) < 9:
                found.append((int(number), key))
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


def _defects(
    name: str, scope: tuple[str, str], said: Mapping[Fact, set[str | int]], own: Mapping[Fact, str | int]
) -> tuple[str, ...]:
    defects: tuple[str, ...] = ()
    prompt, completion = own.get(Fact.PROMPT), own.get(Fact.COMPLETION)
    if isinstance(prompt, int) and isinstance(completion, int):
        defects = suspected(scope, name, (prompt, completion))
    if len(own) < len(said) and not COUNTS.isdisjoint(said.keys() - own.keys()):
        defects = (*defects, DISAGREEING_USAGE)
    named = own.get(Fact.PROVIDER) or own.get(Fact.SYSTEM)
    if isinstance(named, str) and named.lower() in FRAMEWORKS:
        defects = (*defects, FRAMEWORK_AS_PROVIDER)
    return defects
