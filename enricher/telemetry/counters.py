"""
What the parts of the stage count while they work: plain numbers, which `metrics` shows when somebody asks.

    request ─▶ taken by each exporter's delivery ─▶ sent, or rejected by downstream
        │                       └─▶ the store's queue ─▶ sent, rejected, or dead letters in the store
        └────▶ held, in the store ─▶ the queue of each exporter

What was neither taken nor held is refused or failed: its sender has it still. So for each exporter, whenever nothing is
under way,

    accepted (taken + held) + recovered == sent + rejected + held now + queued now + dead now

where the last three are what the store says it holds (`Stock`), counted apart from the numbers here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from enricher.otlp.shallow import Signal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from enricher.outcome import Outcome, Reason, Rung

COUNTED = (Signal.TRACES, Signal.LOGS)
"""Signals whose items are shown. Metrics pass through unread, and only their requests are counted."""


class Answer(StrEnum):
    """What the sender of a request was told."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    """Not taken, because of downstream, a full disk or a full budget."""
    FAILED = "failed"
    """Not taken, because of an error of the stage's own."""
    BAD_REQUEST = "bad_request"
    """Not OTLP, so it holds nothing that could be counted."""


class ExporterCounts(Protocol):
    """What the parts in front of one exporter count, in items of each signal."""

    @property
    def taken(self) -> Counter[Signal]:
        """Items that were delivered or committed, and so answered for, straight from their request."""

    @property
    def sent(self) -> Counter[Signal]:
        """Items that downstream has taken."""

    @property
    def rejected(self) -> Counter[Signal]:
        """Items that downstream rejected in a partial success."""

    @property
    def send_failed(self) -> Counter[Signal]:
        """Items of each try that failed."""

    @property
    def enqueue_failed(self) -> Counter[Signal]:
        """Items that could be neither delivered nor kept."""

    @property
    def splits(self) -> int:
        """Requests that were sent again in parts."""

    @property
    def in_flight(self) -> int:
        """Requests that downstream has not answered yet."""


class HoldCounts(Protocol):
    """What became of candidates that had to wait, in spans."""

    @property
    def held(self) -> int:
        """Spans that were committed straight from their request; not those of an earlier process."""

    @property
    def released_by_evidence(self) -> int:
        """Spans whose wait was ended by evidence."""

    @property
    def released_at_deadline(self) -> int:
        """Spans whose wait was ended by their deadline."""

    @property
    def bypassed(self) -> int:
        """Spans for which there was no room."""

    @property
    def late(self) -> int:
        """Evidence of a run whose span had left without it."""


@dataclass(slots=True)
class NothingHeld:
    """The counts of a stage that holds nothing."""

    held: int = 0
    released_by_evidence: int = 0
    released_at_deadline: int = 0
    bypassed: int = 0
    late: int = 0


class Amount(NamedTuple):
    """Batches, and the items in them."""

    batches: int = 0
    items: int = 0


class Stock(NamedTuple):
    """What the store holds at one moment, by exporter and signal."""

    held: int = 0
    """Spans that wait for evidence. They are in no queue yet, and will be in that of every exporter."""
    queued: Mapping[tuple[str, Signal], Amount] = {}
    dead: Mapping[tuple[str, Signal], Amount] = {}
    quarantined: int = 0
    """Items in rows whose bytes had changed on the disk. Which signal they were of is not known any more."""
    used_bytes: int = 0
    max_bytes: int = 0

    def items(self, exporter: str, signal: Signal) -> int:
        """Return the items of a signal that one exporter has not got rid of."""
        stored = (amounts.get((exporter, signal), Amount()).items for amounts in (self.queued, self.dead))
        return (self.held if signal is Signal.TRACES else 0) + sum(stored)


@dataclass(slots=True)
class Counters:
    """What requests and candidates came to. Belongs to the event loop's thread, and only grows."""

    requests: Counter[tuple[Signal, Answer]] = field(default_factory=Counter)
    refused: Counter[Signal] = field(default_factory=Counter)
    failed: Counter[Signal] = field(default_factory=Counter)
    outcomes: Counter[tuple[str, Reason, Rung | None]] = field(default_factory=Counter)
    step_failures: int = 0
    auth_failures: Counter[str] = field(default_factory=Counter)
    """Requests without valid credentials, by transport."""

    def answered(self, signal: Signal, answer: Answer, items: int = 0) -> None:
        """Count a request by its answer; `items` are those in it, where they are known."""
        self.requests[signal, answer] += 1
        if answer is Answer.REFUSED:
            self.refused[signal] += items
        elif answer is Answer.FAILED:
            self.failed[signal] += items

    def unauthenticated(self, transport: str) -> None:
        """Count a request that was refused for want of valid credentials."""
        self.auth_failures[transport] += 1

    def note(self, outcomes: Iterable[Outcome], failures: int = 0) -> None:
        """Count candidates that left, and steps that failed."""
        for outcome in outcomes:
            self.outcomes[outcome.rule, outcome.reason, outcome.rung] += 1
        self.step_failures += failures
