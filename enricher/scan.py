"""
From a request's bytes to what the ladder needs: the candidates in it, and what its spans or records say.

Nothing is decoded that need not be. A search over the whole request tells whether a candidate can be in it at all;
then only scopes and spans that hold the needle are looked into.
"""

from __future__ import annotations

import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from enricher import write
from enricher.evidence import collect, payload
from enricher.otlp import attributes as otlp
from enricher.otlp import shallow
from enricher.otlp.search import contains_any, count
from enricher.otlp.shallow import Signal
from enricher.outcome import Outcome, Reason
from enricher.recognise import Candidate, candidate, tie
from enricher.rules import BUILT_IN, RUN_OBJECT, Recogniser, Rule, StandsFor
from enricher.semconv import Convention

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableSequence, Sequence

    from enricher.config.model import Config
    from enricher.evidence.collect import Evidence
    from enricher.evidence.index import Index
    from enricher.recognise import Attributes

MODEL_CALL = (b"gen_ai.", b"llm.", b"langfuse.observation.usage_details", b"mlflow.chat.")
"""Bytes that a span of a model call holds."""

EVIDENCE = (b"thread_", b"prompt_tokens")
"""Bytes of which a request with evidence holds one; `collect.NEEDLES` then tells which spans."""

AZURE = (b".azure.", b".cognitive.microsoft.")
"""Bytes of which the names of Azure's hosts hold one."""

TRACE_ID_FIELD = b"\x0a\x10"
"""Field 1 of a span: 16 bytes."""

SPAN_ID_FIELD = b"\x12\x08"
"""Field 2 of a span: 8 bytes."""

MANY = 16
"""Items from which on a scope is searched as a whole first."""


@dataclass(frozen=True)
class Settings:
    """What the steps need to know of the configuration."""

    recogniser: Recogniser = field(default_factory=Recogniser)
    policy: write.Policy = field(default_factory=write.Policy)
    payload_attributes: frozenset[str] = frozenset()

    @classmethod
    def from_config(cls, config: Config) -> Settings:
        """Wire the user's words to the steps."""
        enrichment = config.enrichment
        rules = tuple(
            Rule(
                name=rule.name,
                scope=rule.scope,
                span_name=rule.span_name,
                attributes=dict(rule.attributes),
                system=rule.system or rule.provider or "openai",
                provider=rule.provider or rule.system or "openai",
            )
            for rule in enrichment.rules
        )
        return cls(
            Recogniser((*rules, *BUILT_IN)),
            write.Policy(
                tuple(Convention(each) for each in enrichment.conventions),
                enrichment.provenance,
                enrichment.on_conflict == "repair",
                enrichment.duplicates == "owner",
            ),
            frozenset(enrichment.payload_attributes),
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception inside a step, for the log. `where` names the span, never its contents."""

    where: str
    trace: str


@dataclass(slots=True)
class Found:
    """A span that a rule matched, and where it stands in its request. `candidate` is None if it cannot be decoded."""

    items: MutableSequence[bytes]
    at: int
    candidate: Candidate | None = None
    span: Span | None = None
    attributes: Attributes = field(default_factory=list)
    outcome: Outcome | None = None
    """Set where the span's fate is known without the ladder."""


def may_match(request: bytes, parsed: shallow.Request, settings: Settings) -> int | None:
    """
    Tell whether a rule can match in the request: None if none can.

    Else return how often it holds the needle of the rules without scope, which is 0 where only a rule with one of the
    request's scopes can match, and -1 where there are several needles and one of them was found.
    """
    recogniser = settings.recogniser
    needles = recogniser.needles
    if len(needles) == 1 and needles[0]:
        hits = count(request, needles[0])
    else:
        hits = -1 if contains_any(request, needles) else 0
    if hits:
        return hits
    for resourced in parsed.resourced:
        for scoped in resourced.scoped:
            if _is_bound(recogniser, shallow.merged(scoped.scope)):
                return hits
    return None


@lru_cache(maxsize=1024)
def _is_bound(recogniser: Recogniser, scope: bytes) -> bool:
    return bool(recogniser.of_scope(_scope(scope)[0], bound=True).rules)


def find(hits: int, parsed: shallow.Request, settings: Settings, failures: list[Failure]) -> list[Found]:
    """
    Return the spans that a rule matches. Only spans that hold a rule's needle are decoded.

    `hits` is what `may_match` returned: once all of them are accounted for, scopes are looked into only for rules that
    name them.
    """
    found: list[Found] = []
    recogniser, left = settings.recogniser, hits
    needle = recogniser.needles[0] if hits > 0 else b""
    for resourced, scoped, scope in _scopes(parsed, recogniser):
        rules, needles = recogniser.of_scope(scope[0], bound=left == 0)
        if not rules:
            continue
        for at, item in _holding(scoped, needles):
            left -= item.count(needle) if left > 0 else 0
            try:
                span = Span.FromString(item)
                attributes = otlp.read(span.attributes)
                rule = next((rule for rule in rules if rule.matches_span(span) and _shows(rule, attributes)), None)
                if rule is None:
                    continue
                service = _service(shallow.merged(resourced.resource))
                conventions = settings.policy.conventions
                described = candidate(
                    span, attributes, rule=rule, service=service, scope=scope, conventions=conventions
                )
                if rule.stands_for is StandsFor.CALL:
                    _note_what_is_shown(described, span, attributes, settings)
                found.append(Found(scoped.items, at, described, span, attributes))
            except DecodeError:
                found.append(_given_up(scoped, at, resourced, scope, Reason.SPAN_UNREADABLE))
            except Exception:  # noqa: BLE001 - a bug in a step must not cost a span
                found.append(_given_up(scoped, at, resourced, scope, Reason.STEP_FAILED))
                failures.append(Failure("recognise", traceback.format_exc()))
    return found


def _shows(rule: Rule, attributes: Attributes) -> bool:
    """Tell whether a finished run stands where the rule asks for one."""
    if rule.answer is None:
        return True
    text = next((text for key, _, text in attributes if key == rule.answer), "")
    # A text in quotes is what a function said, a model's words perhaps; only an object is an answer of the API.
    runs = payload.read(text).runs if text.lstrip().startswith(("{", "[")) else []
    return len({run.run_id for run in runs}) == 1 and any(run.ended for run in runs)


def _note_what_is_shown(described: Candidate, span: Span, attributes: Attributes, settings: Settings) -> None:
    """Note which run the answer on a call's span is of, and whether it shows the run's end."""
    for each in collect.of_span(span, attributes, described.service, settings.payload_attributes):
        for run in each.said.runs:
            described.run_ids.add(run.run_id)
            described.may_own = described.may_own or run.ended


def tie_all(found: list[Found], failures: list[Failure]) -> list[Candidate]:
    """Add to the candidates by what they can be tied to runs recorded elsewhere; return those that could be."""
    candidates = []
    for each in found:
        if each.candidate is None:
            continue
        try:
            tie(each.candidate, each.attributes)
            candidates.append(each.candidate)
        except Exception:  # noqa: BLE001 - a bug in a step must not cost a span
            # Without its ties a weaker rung would decide for it.
            described, each.candidate = each.candidate, None
            ids = described.trace_id.hex(), described.span_id.hex(), described.span_name
            each.outcome = Outcome(*ids, described.service, described.scope, described.rule.name, Reason.STEP_FAILED)
            failures.append(Failure(f"recognise span {ids[1]}", traceback.format_exc()))
    return candidates


def _scopes(
    parsed: shallow.Request, recogniser: Recogniser
) -> list[tuple[shallow.Resourced, shallow.Scoped, tuple[str, str]]]:
    """Return every scope with its name and version, those that a rule names first."""
    out = [
        (resourced, scoped, _scope(shallow.merged(scoped.scope)))
        for resourced in parsed.resourced
        for scoped in resourced.scoped
    ]
    out.sort(key=lambda each: not any(rule.scope for rule in recogniser.of_scope(each[2][0]).rules))
    return out


def _given_up(
    scoped: shallow.Scoped, at: int, resourced: shallow.Resourced, scope: tuple[str, str], reason: Reason
) -> Found:
    outcome = Outcome("", "", "", _service(shallow.merged(resourced.resource)), " ".join(scope).strip(), "", reason)
    return Found(scoped.items, at, outcome=outcome)


def _holding(scoped: shallow.Scoped, needles: tuple[bytes, ...]) -> list[tuple[int, bytes]]:
    """Return the items, with their positions, that hold one of the needles."""
    items = scoped.items
    # One copy and one fast search for the whole scope cost less than a look at each of many items.
    if len(items) > MANY and not contains_any(scoped.SerializeToString(), needles):
        return []
    return [(at, item) for at, item in enumerate(items) if any(needle in item for needle in needles)]


def learn(  # noqa: PLR0913 - from a request into an index, with what dates and bounds it
    signal: Signal,
    parsed: shallow.Request,
    index: Index,
    settings: Settings,
    failures: list[Failure],
    *,
    now: float = 0.0,
    own: set[tuple[bytes, bytes]] | None = None,
) -> set[str]:
    """
    Put what a request's spans or log records say into the index, and return what it was said of (`named_by`).

    `own` are the spans that may be candidates; of the others is not remembered what stands on them.
    """
    touched: set[str] = set()
    for resourced in parsed.resourced:
        for scoped in resourced.scoped:
            for _, item in _holding(scoped, collect.NEEDLES):
                service = _service(shallow.merged(resourced.resource))
                try:
                    if signal is Signal.LOGS:
                        found = collect.of_record(LogRecord.FromString(item), service, settings.payload_attributes)
                        touched |= add_all(found, index, now=now, own=None)
                    else:
                        span = Span.FromString(item)
                        attributes = otlp.read(span.attributes)
                        found = collect.of_span(span, attributes, service, settings.payload_attributes)
                        touched |= add_all(found, index, now=now, own=own)
                except DecodeError:
                    continue
                except Exception:  # noqa: BLE001 - evidence that cannot be read is evidence that is not there
                    failures.append(Failure("collect evidence", traceback.format_exc()))
    return touched


def add_all(
    found: Iterable[Evidence], index: Index, *, now: float = 0.0, own: set[tuple[bytes, bytes]] | None = None
) -> set[str]:
    """Add evidence to the index, and return what it was said of."""
    touched: set[str] = set()
    for each in found:
        span = (each.place.trace_id, each.place.span_id)
        of_span = own is None or span in own
        touched |= index.add(each, now, of_span=of_span)
        if of_span and each.place.span_id:
            touched.add(name_of_span(*span))
    return touched


def name_of_span(trace_id: bytes, span_id: bytes) -> str:
    """Return the name under which `learn` says that something was said of a span."""
    return f"span {trace_id.hex()} {span_id.hex()}"


def learn_model_calls(parsed: shallow.Request, index: Index, now: float = 0.0) -> None:
    """Note the spans that call a model: near them, a usage object that stands alone may be theirs."""
    for resourced in parsed.resourced:
        for scoped in resourced.scoped:
            for _, item in _holding(scoped, MODEL_CALL):
                # Trace and span id come first wherever anybody writes fields in order: no need to decode the span.
                if item[:2] == TRACE_ID_FIELD and item[18:20] == SPAN_ID_FIELD:
                    index.add_model_call(item[2:18], item[20:28], now)
                    continue
                with suppress(DecodeError):
                    span = Span.FromString(item)
                    index.add_model_call(span.trace_id, span.span_id, now)


def stands_elsewhere(request: bytes, found: Sequence[Found]) -> bool:
    """Tell whether other spans than the candidates may say something of their runs, or of who serves them."""
    own = sum(each.items[each.at].count(RUN_OBJECT) for each in found)
    return count(request, RUN_OBJECT) > own or contains_any(request, AZURE)


def learn_found(found: Found, index: Index, settings: Settings, failures: list[Failure]) -> None:
    """Put what a candidate's own span says into the index."""
    if found.span is None or found.candidate is None:
        return
    try:
        service, extra = found.candidate.service, settings.payload_attributes
        for each in collect.of_span(found.span, found.attributes, service, extra):
            index.add(each)
    except Exception:  # noqa: BLE001 - evidence that cannot be read is evidence that is not there
        failures.append(Failure("collect evidence", traceback.format_exc()))


def whole_traces(parsed: shallow.Request, trace_ids: set[bytes]) -> set[bytes]:
    """Return those of the traces of which the request seems to hold all: a root, and every parent that is named."""
    spans: dict[bytes, set[bytes]] = {trace_id: set() for trace_id in trace_ids if trace_id}
    parents: dict[bytes, set[bytes]] = {trace_id: set() for trace_id in spans}
    for _, _, item in shallow.items(parsed):
        # The trace id is a span's first field wherever anybody writes them in order: no need to decode the others.
        if item[:2] == TRACE_ID_FIELD and item[2:18] not in spans:
            continue
        with suppress(DecodeError):
            span = Span.FromString(item)
            if span.trace_id in spans:
                spans[span.trace_id].add(span.span_id)
                parents[span.trace_id].add(span.parent_span_id)
    return {t for t in spans if b"" in parents[t] and parents[t] - {b""} <= spans[t]}


@lru_cache(maxsize=1024)
def _scope(data: bytes) -> tuple[str, str]:
    """Return a scope's name and version; a scope that cannot be decoded has neither."""
    try:
        scope = InstrumentationScope.FromString(data)
    except DecodeError:
        return "", ""
    return scope.name, scope.version


@lru_cache(maxsize=1024)
def _service(data: bytes) -> str:
    try:
        resource = Resource.FromString(data)
    except DecodeError:
        return ""
    name = otlp.first_values(resource.attributes).get("service.name")
    return (otlp.text(name) or "") if name is not None else ""
