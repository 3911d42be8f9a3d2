"""
What is inserted into a candidate, and how.

Insert only, append only: a key that stands on the span is left as it is, and new attributes are appended to the
span's bytes, which is how protobuf merges. Every byte that came in goes out again. Only `on_conflict: repair`
rewrites, and only token counts that evidence by identity contradicts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from enricher import semconv
from enricher.outcome import IDENTITY, Reason
from enricher.recognise import SWAPPED_USAGE
from enricher.semconv import KEYS, Convention, Fact

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from enricher.recognise import Candidate
    from enricher.resolve import Resolution

PAIR: Final = (Fact.PROMPT, Fact.COMPLETION)

STATED: Final = frozenset({Fact.REQUEST_MODEL, Fact.RESPONSE_MODEL, Fact.RUN_ID, Fact.THREAD_ID, Fact.ASSISTANT_ID})
"""Facts for which the span's own word stands before the evidence's."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How the user wants candidates written."""

    conventions: tuple[Convention, ...] = (Convention.LEGACY, Convention.CURRENT)
    provenance: bool = False
    repair: bool = False


class Change(NamedTuple):
    """What is to be written on one span. `replaced` holds the old values of keys that `inserted` overwrites."""

    reason: Reason
    inserted: tuple[tuple[str, str | int], ...] = ()
    replaced: tuple[tuple[str, str | int], ...] = ()


def plan(candidate: Candidate, resolution: Resolution, policy: Policy, *, azure: bool = False) -> Change:
    """
    Return what to write: the span's own facts carried to the vocabulary that lacks them, then the evidence's.

    `azure` tells that an address beside the candidate is one at which Azure serves the API.
    """
    facts, conflict = _facts(candidate, resolution, azure=azure)
    inserted = tuple([(key, facts[fact]) for fact, key in candidate.missing if fact in facts])
    replaced: tuple[tuple[str, str | int], ...] = ()
    if conflict and policy.repair and resolution.rung in IDENTITY:
        repaired = _repair(candidate, resolution, policy)
        replaced = repaired.replaced
        inserted = tuple(i for i in inserted if i[0] not in dict(repaired.inserted)) + repaired.inserted
        conflict = False
    return Change(_reason(candidate, resolution, inserted, conflict=conflict), inserted, replaced)


def _facts(candidate: Candidate, resolution: Resolution, *, azure: bool) -> tuple[dict[Fact, str | int], bool]:
    """Return every fact that may be inserted, and whether the span's own counts differ from the evidence."""
    own, run, usage = candidate.own, resolution.run, resolution.usage
    system, provider = _provider(candidate, azure=azure or (run is not None and run.azure))
    said: dict[Fact, str | int | None] = {Fact.SYSTEM: system, Fact.PROVIDER: provider}
    if run is not None:
        said[Fact.REQUEST_MODEL] = said[Fact.RESPONSE_MODEL] = run.model
        said[Fact.RUN_ID] = run.run_id
        said[Fact.THREAD_ID] = run.thread_id
        said[Fact.ASSISTANT_ID] = run.assistant_id
    for fact in STATED & own.keys():
        said[fact] = own[fact]
    conflict = usage is not None and (
        own.get(Fact.PROMPT, usage.prompt) != usage.prompt
        or own.get(Fact.COMPLETION, usage.completion) != usage.completion
        or own.get(Fact.TOTAL, usage.total) != usage.total
    )
    if usage is None or conflict:
        said |= _own_counts(candidate, contradicted=conflict)
    else:
        said[Fact.PROMPT], said[Fact.COMPLETION], said[Fact.TOTAL] = usage.prompt, usage.completion, usage.total
        said[Fact.CACHED], said[Fact.REASONING] = usage.cached, usage.reasoning
    return {fact: value for fact, value in said.items() if value is not None}, conflict


def _own_counts(candidate: Candidate, *, contradicted: bool) -> dict[Fact, str | int]:
    """Return what the span's own counts imply. A doubtful pair is not carried on; a swapped one keeps its sum."""
    own = candidate.own
    facts: dict[Fact, str | int] = {}
    swapped = SWAPPED_USAGE in candidate.defects
    if not candidate.defects and not contradicted:
        facts |= {fact: own[fact] for fact in (*PAIR, Fact.CACHED, Fact.REASONING) if fact in own}
    if candidate.own_pair and (swapped or (not candidate.defects and not contradicted)):
        facts[Fact.TOTAL] = sum(candidate.own_pair)
    return facts


def _provider(candidate: Candidate, *, azure: bool) -> tuple[str, str]:
    """Return system and provider: what the span says of either, else Azure by its address, else what the rule says."""
    own_system, own_provider = candidate.own.get(Fact.SYSTEM), candidate.own.get(Fact.PROVIDER)
    if isinstance(own_provider, str):
        return semconv.SYSTEM_OF_PROVIDER.get(own_provider, own_provider), own_provider
    if isinstance(own_system, str):
        return own_system, semconv.PROVIDER_OF_SYSTEM.get(own_system, own_system)
    if azure or candidate.azure:
        return "az.ai.openai", "azure.ai.openai"
    return candidate.rule.system, candidate.rule.provider


def _repair(candidate: Candidate, resolution: Resolution, policy: Policy) -> Change:
    """Overwrite the counts that identity evidence contradicts, in whichever keys they stand, and complete them."""
    usage = resolution.usage
    if usage is None:
        return Change(resolution.reason)
    inserted: list[tuple[str, str | int]] = []
    replaced: list[tuple[str, str | int]] = []
    for fact, count in ((Fact.PROMPT, usage.prompt), (Fact.COMPLETION, usage.completion), (Fact.TOTAL, usage.total)):
        wanted = {KEYS[fact][convention] for convention in policy.conventions if convention in KEYS[fact]}
        standing = {key for key in candidate.present if semconv.FACT_OF_KEY.get(key) == (fact,)}
        for key in sorted(wanted | standing):
            if key in standing and candidate.own.get(fact) == count:
                continue
            inserted.append((key, count))
            if key in standing:
                replaced.append((key, candidate.own.get(fact, -1)))
    return Change(resolution.reason, tuple(inserted), tuple(replaced))


def _reason(
    candidate: Candidate, resolution: Resolution, inserted: tuple[tuple[str, str | int], ...], *, conflict: bool
) -> Reason:
    if not candidate.missing:
        return Reason.USAGE_CONFLICT if conflict else Reason.ALREADY_PRESENT
    if conflict:
        return Reason.USAGE_CONFLICT
    if resolution.reason is Reason.PAYLOAD_ABSENT and candidate.own_pair and not candidate.defects:
        return Reason.FROM_SPAN if inserted else Reason.PAYLOAD_ABSENT
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
        any_value = b"\x18" + _varint(value & 0xFFFFFFFFFFFFFFFF)
    elif isinstance(value, str):
        any_value = _string(value)
    else:
        array = b"".join([b"\x0a" + _varint(len(each)) + each for each in map(_string, value)])
        any_value = b"\x2a" + _varint(len(array)) + array
    head, size = _string(key), len(any_value)
    if size + len(head) < 0x7E:
        return b"\x4a%c%b\x12%c%b" % (size + len(head) + 2, head, size, any_value)
    pair = head + b"\x12" + _varint(size) + any_value
    return b"\x4a" + _varint(len(pair)) + pair


@lru_cache(maxsize=1024)
def _string(text: str) -> bytes:
    """Return a field 1 that holds the text. Keys, models and providers recur."""
    data = text.encode()
    return b"\x0a" + _varint(len(data)) + data


@lru_cache(maxsize=4096)
def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def apply(span: bytes, change: Change, policy: Policy, place: str) -> bytes:
    """Return the span's bytes with the change written; the same bytes if there is nothing to write."""
    if not change.inserted:
        return span
    attributes: list[tuple[str, str | int | tuple[str, ...]]] = list(change.inserted)
    if change.replaced:
        replaced = {key for key, _ in change.replaced}
        span = _overwrite(span, dict(change.inserted), replaced)
        attributes = [each for each in attributes if each[0] not in replaced]
        attributes.append((semconv.REPLACED, tuple(f"{key}={value}" for key, value in change.replaced)))
    if policy.provenance:
        said: list[tuple[str, str | int | tuple[str, ...]]] = [
            (semconv.INSERTED, tuple(key for key, _ in change.inserted)),
            (semconv.REASON, str(change.reason)),
            *([(semconv.EVIDENCE_PLACE, place)] if place else []),
        ]
        # A stage in front of this one may have said its own.
        attributes += [each for each in said if each[0].encode() not in span]
    return append(span, attributes)


def _overwrite(span: bytes, values: Mapping[str, str | int], keys: set[str]) -> bytes:
    parsed = Span.FromString(span)
    for attribute in parsed.attributes:
        value = values.get(attribute.key)
        if attribute.key in keys and isinstance(value, int):
            attribute.value.int_value = value
    return parsed.SerializeToString()
