"""
Find the candidates in a request's bytes.

Nothing is decoded that need not be: a search over the whole request tells which spans hold a needle, and only those are
looked into.
"""

from __future__ import annotations

import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from enricher import write
from enricher.evidence import collect, payload
from enricher.otlp import attributes as otlp
from enricher.otlp import shallow
from enricher.outcome import Outcome, Reason
from enricher.recognise import Candidate, candidate, tie
from enricher.rules import BUILT_IN, Recogniser, Rule, StandsFor
from enricher.semconv import Convention

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableSequence

    from enricher.config.model import Config
    from enricher.otlp.haystack import Haystack
    from enricher.recognise import Attributes

TRACE_ID_FIELD = b"\x0a\x10"
"""Field 1 of a span: 16 bytes."""


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


def find(sought: Haystack, settings: Settings, failures: list[Failure]) -> list[Found]:
    """Return the spans that a rule matches. Only spans that hold a rule's needle are decoded."""
    found: list[Found] = []
    recogniser = settings.recogniser
    held = sought.holding(recogniser.needles)
    for r, resourced in enumerate(sought.parsed.resourced):
        for s, scoped in enumerate(resourced.scoped):
            name = shallow.merged(scoped.scope)
            if needles := _needles_of(recogniser, name, bound=not held):
                spans = [(at, item) for at, item in enumerate(scoped.items) if any(n in item for n in needles)]
            elif (r, s) in held:
                spans = [(at, scoped.items[at]) for at in held[r, s]]
            else:
                continue
            scope = _scope(name)
            service = service_of(shallow.merged(resourced.resource))
            rules = recogniser.of_scope(scope[0]).rules
            for at, item in spans:
                try:
                    span, attributes = decode_span(item)
                    described = _described(span, attributes, rules, service, scope, settings)
                    if described is not None:
                        found.append(Found(scoped.items, at, described, span, attributes))
                except DecodeError:
                    given_up = _given_up(service, scope, Reason.SPAN_UNREADABLE)
                    found.append(Found(scoped.items, at, outcome=given_up))
                except Exception:  # noqa: BLE001 - a bug in a step must not cost a span
                    given_up = _given_up(service, scope, Reason.STEP_FAILED)
                    found.append(Found(scoped.items, at, outcome=given_up))
                    failures.append(Failure("recognise", traceback.format_exc()))
    return found


@lru_cache(maxsize=1024)
def _needles_of(recogniser: Recogniser, scope: bytes, *, bound: bool) -> tuple[bytes, ...]:
    """
    Return what to look for in a scope that a rule names; nothing for other scopes.

    `bound` tells that the request holds no needle, so that only rules match to which none leads.
    """
    wanted = recogniser.of_scope(_scope(scope)[0], bound=bound)
    return wanted.needles if any(rule.scope for rule in wanted.rules) else ()


def _described(  # noqa: PLR0913, PLR0917 - a span, and what stands above it
    span: Span,
    attributes: Attributes,
    rules: Iterable[Rule],
    service: str,
    scope: tuple[str, str],
    settings: Settings,
) -> Candidate | None:
    rule = next((rule for rule in rules if rule.matches_span(span) and _shows(rule, attributes)), None)
    if rule is None:
        return None
    conventions = settings.policy.conventions
    described = candidate(span, attributes, rule=rule, service=service, scope=scope, conventions=conventions)
    if rule.stands_for is StandsFor.CALL:
        _note_what_is_shown(described, span, attributes, settings)
    return described


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
            described.run_ids |= {run.run_id}
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


def _given_up(service: str, scope: tuple[str, str], reason: Reason) -> Outcome:
    return Outcome("", "", "", service, " ".join(scope).strip(), "", reason)


def decode_span(item: bytes) -> tuple[Span, Attributes]:
    """Return a span and its attributes, read. Raises `DecodeError`."""
    span = Span.FromString(item)
    return span, otlp.read(span.attributes)


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
                parents[span.trace_id].add(otlp.valid_id(span.parent_span_id))
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
def service_of(data: bytes) -> str:
    """Return the name of the service that a resource is of; empty if it has none or cannot be decoded."""
    try:
        resource = Resource.FromString(data)
    except DecodeError:
        return ""
    name = otlp.first_values(resource.attributes).get("service.name")
    return (otlp.text(name) or "") if name is not None else ""
