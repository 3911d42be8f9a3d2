"""
Coverage before and after, counted from outcomes.

A step: `add` takes one outcome after another, `report` sums up, and neither the order nor a span that was recorded
twice changes what it says. All is counted by run, because several spans may be of one run (polls, a listing of its
messages twice) and its tokens must count once. Of every run the span that says most is kept, as a few counts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from enricher.coverage import LACKING, Advice, Described, State, Tokens, describe, run_key

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable
    from decimal import Decimal

    from enricher.outcome import Outcome, Reason

    Price = Callable[[str, str, Tokens, int], Decimal | None]
    """What a run cost in US dollars, by provider, model, tokens and start in ns; None if no price is known."""


class Cost(NamedTuple):
    """What runs cost in US dollars. A run whose price is unknown adds nothing to `usd` and is counted."""

    usd: Decimal | None = None
    """None if no run has a price."""
    priced: int = 0
    unpriced: int = 0
    """Runs with usage that have no price."""
    without_cached: int = 0
    """Priced runs of which cached tokens are not known: they may have cost less."""


class Duplicates(NamedTuple):
    """Runs whose usage stands on several spans."""

    runs: int = 0
    spans: int = 0
    """Spans beyond the first of each run."""
    tokens: int = 0
    """What is counted too much by whoever adds up spans."""


@dataclass(slots=True)
class Row:
    """Figures of some of the runs. `name` says which: a service, a scope and its version, a model."""

    name: tuple[str, ...]
    spans: int = 0
    runs: int = 0
    provider: Counter[State] = field(default_factory=Counter)
    model: Counter[State] = field(default_factory=Counter)
    usage: Counter[State] = field(default_factory=Counter)
    duplicates_before: Duplicates = field(default_factory=Duplicates)
    duplicates: Duplicates = field(default_factory=Duplicates)
    tokens: Tokens = field(default_factory=Tokens)
    cost: Cost = field(default_factory=Cost)


class Gap(NamedTuple):
    """Runs that lack something, by what would give it to them."""

    advice: Advice
    usage: int = 0
    """Runs that lack usage or whose usage is doubtful."""
    model: int = 0
    provider: int = 0


class Defect(NamedTuple):
    """A known defect of an instrumentation, and on how many spans it was found."""

    defect: str
    instrumentation: tuple[str, str]
    spans: int
    repaired: int


@dataclass(slots=True)
class Report:
    """What was found. Rows stand in the order of their spans, most first."""

    total: Row
    services: list[Row]
    instrumentations: list[Row]
    models: list[Row]
    gaps: list[Gap]
    defects: list[Defect]
    reasons: list[tuple[Reason, int]]


@dataclass(slots=True)
class _Run:
    best: Described
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Tokens that each of its spans stated before and states now; -1 where it states none."""


class Audit:
    """Takes outcomes in any order. Some 1 KiB a run, besides the names of services, scopes and models."""

    def __init__(self) -> None:
        self._runs: dict[Hashable, _Run] = {}
        self._reasons: Counter[Reason] = Counter()
        self._defects: Counter[tuple[str, tuple[str, str], bool]] = Counter()
        self._service_spans: Counter[str] = Counter()
        self._instrumentation_spans: Counter[tuple[str, str]] = Counter()

    def add(self, outcome: Outcome) -> None:
        """Count one outcome."""
        span = describe(outcome)
        run = self._runs.setdefault(run_key(outcome, len(self._runs)), _Run(span))
        if outcome.span_id in run.spans:
            return
        run.spans[outcome.span_id] = span.stated
        run.best = max(run.best, span)
        self._reasons[outcome.reason] += 1
        self._service_spans[span.service] += 1
        self._instrumentation_spans[span.instrumentation] += 1
        for defect in outcome.defects:
            self._defects[defect, span.instrumentation, bool(outcome.replaced)] += 1

    def report(self, price: Price = lambda *_: None) -> Report:
        """Sum up what was added so far. `price` is asked once for every run with usage."""
        total = Row(())
        services = {name: Row((name,), spans) for name, spans in self._service_spans.items()}
        instrumentations = {name: Row(name, spans) for name, spans in self._instrumentation_spans.items()}
        models: dict[str, Row] = {}
        gaps: dict[Advice, Gap] = {}
        for run in self._runs.values():
            best = run.best
            model = models.setdefault(best.model_name, Row((best.model_name,)))
            total.spans += len(run.spans)
            model.spans += len(run.spans)
            cost = price(best.provider_name, best.model_name, best.tokens, -best.later) if best.is_counted else None
            for row in (total, model, services[best.service], instrumentations[best.instrumentation]):
                _count(run, cost, row)
            if not LACKING.isdisjoint((best.usage, best.model, best.provider)):
                gap = gaps.get(best.advice, Gap(best.advice))
                gaps[best.advice] = Gap(
                    best.advice,
                    gap.usage + (best.usage in LACKING),
                    gap.model + (best.model in LACKING),
                    gap.provider + (best.provider in LACKING),
                )
        return Report(
            total,
            _ordered(services.values()),
            _ordered(instrumentations.values()),
            _ordered(models.values()),
            sorted(gaps.values(), key=lambda gap: (-gap.usage, -gap.model, gap.advice)),
            self._found_defects(),
            sorted(self._reasons.items(), key=lambda each: (-each[1], each[0])),
        )

    def _found_defects(self) -> list[Defect]:
        found = sorted({(defect, instrumentation) for defect, instrumentation, _ in self._defects})
        return [
            Defect(*each, self._defects[*each, False] + self._defects[*each, True], self._defects[*each, True])
            for each in found
        ]


def _ordered(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (-row.spans, row.name))


def _count(run: _Run, cost: Decimal | None, row: Row) -> None:
    """Add a run to a row."""
    best = run.best
    row.runs += 1
    row.provider[best.provider] += 1
    row.model[best.model] += 1
    row.usage[best.usage] += 1
    row.duplicates_before = _repeated(row.duplicates_before, [before for before, _ in run.spans.values()])
    row.duplicates = _repeated(row.duplicates, [after for _, after in run.spans.values()])
    if not best.is_counted:
        return
    row.tokens = row.tokens.plus(best.tokens)
    if cost is None:
        row.cost = row.cost._replace(unpriced=row.cost.unpriced + 1)
    else:
        row.cost = Cost(
            cost if row.cost.usd is None else row.cost.usd + cost,
            row.cost.priced + 1,
            row.cost.unpriced,
            row.cost.without_cached + (best.tokens.cached is None),
        )


def _repeated(so_far: Duplicates, stated: list[int]) -> Duplicates:
    counts = [each for each in stated if each >= 0]
    if len(counts) < 2:
        return so_far
    return Duplicates(so_far.runs + 1, so_far.spans + len(counts) - 1, so_far.tokens + sum(counts) - max(counts))
