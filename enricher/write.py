"""
What is inserted into a candidate, and how.

Insert only, append only: a key that stands on the span is left as it is, and new attributes are appended to the
span's bytes, which is how protobuf merges. Every byte that came in goes out again. Only `on_conflict: repair`
rewrites, and only token counts and models that evidence by identity contradicts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from enricher import semconv
from enricher.defects import OVERRIDDEN_MODEL, SWAPPED_USAGE, confirmed, has_other_model
from enricher.evidence.objects import MAX_COUNT
from enricher.otlp.varint import varint
from enricher.outcome import IDENTITY, Reason, Rung
from enricher.semconv import Convention, Fact

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from enricher.evidence.objects import Usage
    from enricher.recognise import Candidate
    from enricher.verdict import Resolution

MODELS: Final = (Fact.REQUEST_MODEL, Fact.RESPONSE_MODEL)

PAIR: Final = (Fact.PROMPT, Fact.COMPLETION)

STATED: Final = frozenset(Fact) - {Fact.SYSTEM, Fact.PROVIDER, *PAIR, Fact.TOTAL}
"""Facts for which the span's own word stands before the evidence's."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How the user wants candidates written."""

    conventions: tuple[Convention, ...] = (Convention.LEGACY, Convention.CURRENT)
    provenance: bool = False
    repair: bool = False
    one_owner: bool = True
    """A run's usage is written on one of its spans; else on each that shows the run's end."""


class Change(NamedTuple):
    """What is to be written on one span. `replaced` holds the values that stood where `overwritten` goes."""

    reason: Reason
    inserted: tuple[tuple[str, str | int], ...] = ()
    overwritten: tuple[tuple[str, str | int], ...] = ()
    replaced: tuple[tuple[str, str | int], ...] = ()
    confirmed: tuple[str, ...] = ()
    """Known defects that the evidence shows."""


def plan(candidate: Candidate, resolution: Resolution, policy: Policy, *, azure: bool = False) -> Change:
    """
    Return what to write: the span's own facts carried to the vocabulary that lacks them, then the evidence's.

    `azure` tells that an address beside the candidate is one at which Azure serves the API.
    """
    usage = resolution.usage
    differing = _differing(candidate, usage) if usage is not None else []
    models = _other_models(candidate, resolution)
    defects = _confirmed(candidate, usage) + ((OVERRIDDEN_MODEL,) if models else ())
    repairs = policy.repair and _is_identity(candidate, resolution)
    facts = _facts(candidate, resolution, believed=not differing or repairs, azure=azure)
    if repairs:
        # What is overwritten is not carried on to further keys.
        facts |= {semconv.FACT_OF_KEY[key][0]: model for key, _, model in models}
    inserted = tuple([(key, facts[fact]) for fact, key in candidate.missing if fact in facts])
    if differing and not repairs:
        reason = Reason.USAGE_CONFLICT
    else:
        reason = resolution.reason if differing else _reason(candidate, resolution, inserted)
    wrong: list[tuple[str, str | int, str | int]] = [*differing, *models] if repairs else []
    overwritten = tuple([(key, right) for key, _, right in wrong])
    replaced = tuple([(key, old) for key, old, _ in wrong])
    return Change(reason, inserted, overwritten, replaced, defects)


def _confirmed(candidate: Candidate, usage: Usage | None) -> tuple[str, ...]:
    pair = candidate.own_pair
    if usage is None or pair is None:
        return ()
    name, _, version = candidate.scope.partition(" ")
    return confirmed((name, version), candidate.span_name, pair, (usage.prompt, usage.completion))


def _other_models(candidate: Candidate, resolution: Resolution) -> list[tuple[str, str, str]]:
    """Return the keys under which the span states another model than its run's: key, its model, the run's."""
    model = resolution.run.model if resolution.run is not None else None
    if model is None:
        return []
    return [
        (key, standing, model)
        for key, standing in candidate.standing.items()
        if isinstance(standing, str)
        and standing != model
        and semconv.FACT_OF_KEY[key][0] in MODELS
        and has_other_model(candidate.scope.partition(" ")[0], standing, model)
    ]


def _differing(candidate: Candidate, usage: Usage) -> list[tuple[str, int, int]]:
    """Return the keys under which the span states another count than the evidence: key, its count, the evidence's."""
    return [
        (key, standing, count)
        for key, standing in candidate.standing.items()
        if isinstance(standing, int)
        and (count := _count(usage, semconv.FACT_OF_KEY[key][0])) is not None
        and standing != count
    ]


def _is_identity(candidate: Candidate, resolution: Resolution) -> bool:
    if resolution.rung is Rung.RUN_ID and resolution.run is not None:
        # Under this key a stage in front may have inserted what uniqueness gave.
        return candidate.standing.get(semconv.KEYS[Fact.RUN_ID][Convention.CURRENT]) != resolution.run.run_id
    return resolution.rung in IDENTITY


def _count(usage: Usage, fact: Fact) -> int | None:
    if fact is Fact.PROMPT:
        return usage.prompt
    if fact is Fact.COMPLETION:
        return usage.completion
    return usage.total if fact is Fact.TOTAL else None


def _facts(candidate: Candidate, resolution: Resolution, *, believed: bool, azure: bool) -> dict[Fact, str | int]:
    """Return every fact that may be inserted. The evidence's counts are taken only if they are `believed`."""
    own, run, usage = candidate.own, resolution.run, resolution.usage
    system, provider = _provider(candidate, azure=azure or (run is not None and run.azure), known=run is not None)
    said: dict[Fact, str | int | None] = {Fact.SYSTEM: system, Fact.PROVIDER: provider}
    if run is not None:
        said[Fact.REQUEST_MODEL] = said[Fact.RESPONSE_MODEL] = run.model
        said[Fact.RUN_ID] = run.run_id
        said[Fact.THREAD_ID] = run.thread_id
        said[Fact.ASSISTANT_ID] = run.assistant_id
    if resolution.reason is Reason.NOT_OWNER:
        pass
    elif usage is None or not believed:
        said |= _own_counts(candidate, usage)
    else:
        said[Fact.PROMPT], said[Fact.COMPLETION], said[Fact.TOTAL] = usage.prompt, usage.completion, usage.total
        said[Fact.CACHED], said[Fact.REASONING] = usage.cached, usage.reasoning
    for fact in STATED & own.keys():
        said[fact] = own[fact]
    return {fact: value for fact, value in said.items() if value is not None}


def _own_counts(candidate: Candidate, contradicting: Usage | None) -> dict[Fact, str | int]:
    """Return what the span's own counts imply. A doubtful pair is not carried on; a swapped one keeps its sum."""
    own, pair = candidate.own, candidate.own_pair
    facts: dict[Fact, str | int] = {}
    if not candidate.doubtful and contradicting is None:
        facts |= {fact: own[fact] for fact in PAIR if fact in own}
    total = sum(pair) if pair is not None else None
    if total is None or total > MAX_COUNT:
        return facts
    swapped = SWAPPED_USAGE in candidate.defects and (contradicting is None or contradicting.total == total)
    if swapped or (not candidate.doubtful and contradicting is None):
        facts[Fact.TOTAL] = total
    return facts


def _provider(candidate: Candidate, *, azure: bool, known: bool) -> tuple[str | None, str | None]:
    """
    Return system and provider: what the span says of either, else Azure by its address, else what the rule says.

    `known` tells that the span's run is. The name of a framework is no provider.
    """
    own_system, own_provider = (_unless_framework(candidate.own.get(f)) for f in (Fact.SYSTEM, Fact.PROVIDER))
    if own_provider is None and own_system is None:
        if azure or candidate.azure:
            own_provider = "azure.ai.openai"
        elif candidate.served_by:
            own_provider = candidate.served_by
        elif candidate.rule.provider:
            return candidate.rule.system, candidate.rule.provider
        elif known:
            own_provider = "openai"
    if own_provider is not None:
        return semconv.SYSTEM_OF_PROVIDER.get(own_provider, own_provider), own_provider
    return own_system, semconv.PROVIDER_OF_SYSTEM.get(own_system, own_system) if own_system else None


def _unless_framework(name: str | int | None) -> str | None:
    return name if isinstance(name, str) and name.lower() not in semconv.FRAMEWORKS else None


def _reason(candidate: Candidate, resolution: Resolution, inserted: tuple[tuple[str, str | int], ...]) -> Reason:
    if not candidate.missing:
        return Reason.ALREADY_PRESENT
    if resolution.reason is Reason.PAYLOAD_ABSENT and candidate.own_pair and not candidate.doubtful and inserted:
        return Reason.FROM_SPAN
    return resolution.reason


# ---- bytes -------------------------------------------------------------------------------------------------------


def append(span: bytes, attributes: Iterable[tuple[str, str | int | tuple[str, ...]]]) -> bytes:
    """
    Return the span with attributes appended.

    A serialised span that holds nothing but the new attributes, put behind the old bytes, is their merge
    (protobuf encoding, "Last One Wins": repeated fields are concatenated).
    """
    return b"".join([span, *[_encoded(key, value) for key, value in attributes]])


def _encoded(key: str, value: str | int | tuple[str, ...]) -> bytes:
    """
    Return a serialised `Span` that holds one attribute.

    By hand, because building a message for each of a dozen attributes takes longer than all else that is written:
    Span { repeated KeyValue attributes = 9 }, KeyValue { string key = 1; AnyValue value = 2 }, and AnyValue
    { string string_value = 1; int64 int_value = 3; ArrayValue array_value = 5 { repeated AnyValue values = 1 } }.
    """
    if isinstance(value, int):
        any_value = b"\x18" + varint(value & 0xFFFFFFFFFFFFFFFF)
    elif isinstance(value, str):
        any_value = _string(value)
    else:
        array = b"".join([b"\x0a" + varint(len(each)) + each for each in map(_string, value)])
        any_value = b"\x2a" + varint(len(array)) + array
    head, size = _string(key), len(any_value)
    if size + len(head) < 0x7E:
        return b"\x4a%c%b\x12%c%b" % (size + len(head) + 2, head, size, any_value)
    pair = head + b"\x12" + varint(size) + any_value
    return b"\x4a" + varint(len(pair)) + pair


@lru_cache(maxsize=1024)
def _string(text: str) -> bytes:
    """Return a field 1 that holds the text. Keys, models and providers recur."""
    data = text.encode()
    return b"\x0a" + varint(len(data)) + data


def apply(span: bytes, change: Change, policy: Policy, place: str) -> bytes:
    """Return the span's bytes with the change written; the same bytes if there is nothing to write."""
    if not change.inserted and not change.overwritten:
        return span
    if change.overwritten:
        span = _overwrite(span, dict(change.overwritten))
    attributes: list[tuple[str, str | int | tuple[str, ...]]] = list(change.inserted)
    notes: list[tuple[str, str | tuple[str, ...]]] = []
    if change.replaced:
        notes.append((semconv.REPLACED, tuple(f"{key}={value}" for key, value in change.replaced)))
    if policy.provenance:
        notes.append((semconv.INSERTED, tuple(key for key, _ in change.inserted + change.overwritten)))
        notes.append((semconv.REASON, str(change.reason)))
        notes += [(semconv.EVIDENCE_PLACE, place)] if place else []
    # A stage in front of this one may have said its own.
    attributes += [note for note in notes if note[0].encode() not in span]
    return append(span, attributes)


def _overwrite(span: bytes, values: Mapping[str, str | int]) -> bytes:
    """Return the span with other values under keys that stand on it: the one rewriting there is."""
    parsed = Span.FromString(span)
    for attribute in parsed.attributes:
        kind, value = attribute.value.WhichOneof("value"), values.get(attribute.key)
        if isinstance(value, int) and kind == "int_value":
            attribute.value.int_value = value
        elif isinstance(value, str) and kind == "string_value":
            attribute.value.string_value = value
    return parsed.SerializeToString()
