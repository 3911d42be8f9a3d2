"""What one outcome says of its run: what stood on the span, what it has now, and what would give it the rest."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from enricher.defects import DOUBTFUL
from enricher.outcome import Reason
from enricher.semconv import FACT_OF_KEY, PROVIDER_OF_SYSTEM, Fact

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from enricher.outcome import Outcome

    Facts = dict[Fact, str | int]


class State(StrEnum):
    """How a run's span stands to one fact. The best is the last."""

    MISSING = "missing"
    DOUBTFUL = "doubtful"
    REPAIRED = "repaired"
    INSERTED = "inserted"
    PRESENT = "present"


RANK: Final = {state: rank for rank, state in enumerate(State)}

LACKING: Final = frozenset({State.MISSING, State.DOUBTFUL})


class Advice(StrEnum):
    """What would give a run what it lacks. A closed set: the words are in `ADVICE_WORDS`."""

    RECORD_RUN = "record_run"
    RECORD_STREAM = "record_stream"
    RECORD_LAST_POLL = "record_last_poll"
    RECORD_MESSAGES = "record_messages"
    RECORD_OWN_RUN = "record_own_run"
    RECORD_WHOLE_RUN = "record_whole_run"
    LIFT_LIMIT = "lift_limit"
    REPAIR = "repair"
    NO_USAGE = "no_usage"
    LOOK = "look"
    FIX_EXPORTER = "fix_exporter"
    REPORT = "report"


ADVICE_WORDS: Final[dict[Advice, str]] = {
    Advice.RECORD_RUN: "no answer of the API was recorded: record the bodies of run retrievals "
    "(GET /threads/…/runs/…), or of streams the server-sent events",
    Advice.RECORD_STREAM: "a streamed run says its usage in its last events only: record the text of the server-sent "
    "events, or retrieve the run once more when it has ended",
    Advice.RECORD_LAST_POLL: "only polls of the unfinished run were recorded: record the retrieval that sees it end",
    Advice.RECORD_MESSAGES: "several runs fit: record the lists of messages too, with OpenLLMetry 0.38 or later, which "
    "writes message ids, or keep each run in a trace of its own",
    Advice.RECORD_OWN_RUN: "the only run in reach is another's: record the bodies of this one's retrievals",
    Advice.RECORD_WHOLE_RUN: "only a part of the run was recorded: record the whole answer, which names the model",
    Advice.LIFT_LIMIT: "the answer is cut off before its usage: raise the limit on attribute lengths "
    "(OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT), or record answers in logs or files; if its ids are masked, leave them",
    Advice.REPAIR: "the span says other counts than the recorded answer: enrichment.on_conflict: repair writes the "
    "answer's where an id ties the two",
    Advice.NO_USAGE: "the run's recorded answers hold no usage: nothing is known that could be written",
    Advice.LOOK: "recorded answers contradict each other: enricher explain shows them",
    Advice.FIX_EXPORTER: "the span cannot be decoded: its exporter writes invalid UTF-8 or nests too deep",
    Advice.REPORT: "an internal error: please report it with the trace that is printed",
}

_ADVICE: Final[dict[Reason, Advice]] = {
    Reason.ENRICHED: Advice.RECORD_WHOLE_RUN,
    Reason.PAYLOAD_UNREADABLE: Advice.LIFT_LIMIT,
    Reason.RUN_IN_PROGRESS: Advice.RECORD_LAST_POLL,
    Reason.USAGE_ABSENT: Advice.NO_USAGE,
    Reason.AMBIGUOUS: Advice.RECORD_MESSAGES,
    Reason.CONTRADICTED: Advice.RECORD_OWN_RUN,
    Reason.USAGE_CONFLICT: Advice.REPAIR,
    Reason.PAYLOAD_CONFLICT: Advice.LOOK,
    Reason.SPAN_UNREADABLE: Advice.FIX_EXPORTER,
    Reason.STEP_FAILED: Advice.REPORT,
    Reason.NOT_OWNER: Advice.RECORD_LAST_POLL,
}
"""By reason; any other means that nothing was recorded."""


class Tokens(NamedTuple):
    """Counts of one run, or their sums. Cached tokens are a part of the prompt's, reasoning of the completion's."""

    prompt: int = 0
    completion: int = 0
    total: int = 0
    cached: int | None = None
    """None if it is not known of any run."""
    reasoning: int | None = None

    def plus(self, other: Tokens) -> Tokens:
        """Return the sums."""
        return Tokens(
            self.prompt + other.prompt,
            self.completion + other.completion,
            self.total + other.total,
            _sum(self.cached, other.cached),
            _sum(self.reasoning, other.reasoning),
        )


def _sum(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


class Described(NamedTuple):
    """What one span says of its run, ordered by how much: of several spans of a run the greatest stands for it."""

    usage_rank: int
    has_model: bool
    has_provider: bool
    later: int
    """The start, negated: of equal spans the first."""
    span_id: str
    service: str
    instrumentation: tuple[str, str]
    provider_name: str
    model_name: str
    tokens: Tokens
    provider: State
    model: State
    usage: State
    advice: Advice
    stated: tuple[int, int]
    """Tokens that the span stated before and states now; -1 where it states none."""

    @property
    def is_counted(self) -> bool:
        """Its tokens are known and not doubtful."""
        return self.usage not in LACKING


def describe(outcome: Outcome) -> Described:
    """Describe a span by its outcome."""
    before, after = _facts(outcome.standing.items()), _facts((*outcome.inserted, *outcome.standing.items()))
    usage = _usage(outcome, before, after)
    model, model_name = _named((Fact.RESPONSE_MODEL, Fact.REQUEST_MODEL), before, after)
    provider, provider_name = _named((Fact.PROVIDER, Fact.SYSTEM), before, after)
    return Described(
        usage_rank=RANK[usage],
        has_model=model not in LACKING,
        has_provider=provider not in LACKING,
        later=-outcome.start,
        span_id=outcome.span_id,
        service=outcome.service,
        instrumentation=_instrumentation(outcome.scope),
        provider_name=PROVIDER_OF_SYSTEM.get(provider_name, provider_name),
        model_name=model_name,
        tokens=_tokens(after),
        provider=provider,
        model=model,
        usage=usage,
        advice=_advice(outcome),
        stated=(_stated(before), _stated(after)),
    )


def _facts(stated: Iterable[tuple[str, str | int | None]]) -> Facts:
    """Return the facts that stand under some key; of two the first."""
    facts: Facts = {}
    for key, value in stated:
        if value is not None:
            for fact in FACT_OF_KEY.get(key, ()):
                facts.setdefault(fact, value)
    return facts


def _named(facts: tuple[Fact, ...], before: Facts, after: Facts) -> tuple[State, str]:
    """Return how a span stands to a fact that may be stated in several ways, and its value."""
    names = [str(after[fact]) for fact in facts if fact in after]
    if not names:
        return State.MISSING, ""
    return State.PRESENT if any(fact in before for fact in facts) else State.INSERTED, names[0]


def _usage(outcome: Outcome, before: Facts, after: Facts) -> State:
    if _stated(after) < 0:
        return State.MISSING
    if outcome.reason in {Reason.USAGE_CONFLICT, Reason.PAYLOAD_CONFLICT}:
        return State.DOUBTFUL
    if outcome.replaced:
        return State.REPAIRED
    if _stated(before) < 0:
        return State.INSERTED
    # Evidence that agrees takes the doubt away that a known defect of the version raises.
    is_doubtful = not DOUBTFUL.isdisjoint(outcome.defects) and outcome.reason is not Reason.ENRICHED
    return State.DOUBTFUL if is_doubtful else State.PRESENT


def _stated(facts: Facts) -> int:
    """Return the tokens that prompt and completion are together; -1 if one of the two is not stated."""
    prompt, completion = facts.get(Fact.PROMPT), facts.get(Fact.COMPLETION)
    return prompt + completion if isinstance(prompt, int) and isinstance(completion, int) else -1


def _tokens(facts: Facts) -> Tokens:
    prompt, completion, total, cached, reasoning = (
        value if isinstance(value := facts.get(fact), int) else None
        for fact in (Fact.PROMPT, Fact.COMPLETION, Fact.TOTAL, Fact.CACHED, Fact.REASONING)
    )
    pair = (prompt or 0, completion or 0)
    return Tokens(*pair, sum(pair) if total is None else total, cached, reasoning)


def _advice(outcome: Outcome) -> Advice:
    advice = _ADVICE.get(outcome.reason, Advice.RECORD_RUN)
    is_stream = outcome.span_name.endswith("_stream")
    return Advice.RECORD_STREAM if is_stream and advice in {Advice.RECORD_RUN, Advice.RECORD_LAST_POLL} else advice


def _instrumentation(scope: str) -> tuple[str, str]:
    """Return the name and the version of a scope, which outcomes hold in one."""
    name, _, version = scope.rpartition(" ")
    return (name, version) if name and re.match(r"v?\d", version) else (scope, "")


def run_key(outcome: Outcome, number: int) -> Hashable:
    """Return what all spans of the run share; `number` tells those apart of which nothing is known."""
    named = {str(value) for key, value in outcome.standing.items() if value and FACT_OF_KEY.get(key) == (Fact.RUN_ID,)}
    if outcome.run_id or len(named) == 1:
        return outcome.run_id or named.pop()
    if outcome.start % 100:
        # OpenLLMetry notes the start once a run; on a coarser clock two runs can share one.
        return outcome.service, outcome.scope, outcome.rule, outcome.start
    return (outcome.trace_id, outcome.span_id) if outcome.span_id else number
