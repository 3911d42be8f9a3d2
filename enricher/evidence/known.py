"""What is known of a run, a message and a trace when everything that was recorded of them is taken together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from enricher.evidence.collect import Place
    from enricher.evidence.objects import Message, Run, Usage

DISAGREE: Final = ""
"""Stands for an id or a model of which payloads say different things."""

MOST: Final = 1000
"""
Texts of one run, and usage objects and model calls of one trace, that are kept: nothing that goes on for ever may grow.

Of what had more is forgotten what was kept. A run without texts may have said anything, and a trace without usage
objects decides nothing.
"""

UNSURE: Final = -1
"""Stands for a count of which payloads say different things."""


@dataclass(slots=True)
class KnownRun:
    """What all payloads of one run say together."""

    run_id: str
    threads: tuple[str, ...] = ()
    assistant: str | None = None
    said_model: str | None = None
    final: Usage | None = None
    """Counts of finished revisions, as far as they agree."""
    conflicting: bool = False
    """Finished payloads of the run disagree."""
    place: Place | None = None
    """Where a finished revision with usage stands, or else any payload of the run."""
    answered: int = 0
    """The earliest end of a span, event or record that shows an answer of the run, or its end, in ns; 0 if none."""
    unfinished: int = 0
    """The earliest start of anything that shows the run unfinished, in ns; 0 if nothing does."""
    first: int = 0
    """The earliest start of any evidence of the run, in ns; 0 if unknown."""
    last: int = 0
    """The latest end of any evidence of the run, in ns."""
    texts: dict[bytes, int | None] = field(default_factory=dict)
    """Digests of what the run wrote, each with the API's time of the message."""
    messages: dict[str, None] = field(default_factory=dict)
    """Ids of what it wrote."""
    had_more: bool = False
    """It wrote more than is kept."""
    azure: bool = False
    shown: bool = False
    """A payload of the run itself was recorded, not only its id."""
    ended: bool = False
    """A payload shows the run in a terminal status."""
    traces: dict[bytes, tuple[float, int]] = field(default_factory=dict)
    """Where it was named, in the order of when that was learned last: that time and the latest end there, in ns."""
    services: tuple[str, ...] = ()
    spans: dict[tuple[bytes, bytes], float] = field(default_factory=dict)
    """Spans that may be candidates and on which it is named, each with when that was learned last, in that order."""
    touched: float = 0.0
    """When evidence of it last arrived, by the clock of whoever calls `add`; at `inf` for what lasts."""

    def see(self, place: Place) -> None:
        """Learn where it was named."""
        self.first = earlier(self.first, place.start)
        self.last = max(self.last, place.end)

    def show(self, run: Run, place: Place, *, azure: bool) -> None:
        """Learn what a payload of it says."""
        self.shown = True
        self.azure = self.azure or azure
        self.assistant = _agreed(self.assistant, run.assistant_id)
        self.said_model = _agreed(self.said_model, run.model)
        if run.ended:
            self.ended = True
            self.answered = earlier(self.answered, place.end)
        else:
            self.unfinished = earlier(self.unfinished, place.start)
        had = self.final is not None
        better = run.usage is not None and not had
        if self.place is None or better or (had == (run.usage is not None) and place < self.place):
            self.place = place
        if run.usage is not None:
            self.conflicting = self.conflicting or (self.final is not None and self.final[:2] != run.usage[:2])
            self.final = run.usage if self.final is None else _merged(self.final, run.usage)

    def speak(self, message: Message, place: Place) -> None:
        """Learn what it wrote."""
        self.answered = earlier(self.answered, place.end)
        if self.had_more:
            return
        self.messages[message.message_id] = None
        for text in message.texts:
            self.texts[text] = later(self.texts.get(text), message.created_at)
        self.had_more = len(self.texts) > MOST or len(self.messages) > MOST

    @property
    def usage(self) -> Usage | None:
        """The run's counts; None if no finished payload holds them or if such payloads disagree."""
        final = self.final
        if final is None or self.conflicting:
            return None
        if UNSURE in final:
            return final._replace(
                cached=None if final.cached == UNSURE else final.cached,
                reasoning=None if final.reasoning == UNSURE else final.reasoning,
            )
        return final

    @property
    def model(self) -> str | None:
        """The run's model; None if payloads disagree. The same holds of its ids."""
        return self.said_model or None

    @property
    def thread_id(self) -> str | None:
        """The run's thread."""
        return self.threads[0] if len(self.threads) == 1 else None

    @property
    def assistant_id(self) -> str | None:
        """The run's assistant."""
        return self.assistant or None


@dataclass(slots=True)
class KnownMessage:
    """Which run wrote a message. `created_at` is the API's own clock and orders messages among themselves only."""

    run_ids: frozenset[str] = frozenset()
    created_at: int | None = None
    from_assistant: bool = True
    touched: float = 0.0


@dataclass(slots=True)
class Bare:
    """A usage object that stands alone, and where."""

    usage: Usage
    place: Place


@dataclass(slots=True)
class KnownTrace:
    """What stands in one trace besides runs."""

    bare: list[Bare] = field(default_factory=list)
    model_calls: set[bytes] = field(default_factory=set)
    """Spans that call a model: a usage object that stands alone nearby may be theirs."""
    azure: bool = False
    unreadable: bool = False
    had_more: bool = False
    """There were more usage objects than are kept."""
    touched: float = 0.0

    def add_bare(self, bare: Iterable[Bare]) -> None:
        """Learn of usage objects that stand alone."""
        if not self.had_more:
            self.bare += bare
            self.had_more = len(self.bare) > MOST
        if self.had_more:
            self.bare.clear()

    def add_model_call(self, span_id: bytes) -> None:
        """Learn of a span that calls a model; so many are certainly not all of one run."""
        if len(self.model_calls) < MOST:
            self.model_calls.add(span_id)


def _agreed(one: str | None, other: str | None) -> str | None:
    """Return what both say, or the only one that says anything; `DISAGREE` if they differ, now or ever before."""
    if one is None or other is None:
        return other if one is None else one
    return one if one == other else DISAGREE


def _merged(one: Usage, other: Usage) -> Usage:
    """Return counts of two finished payloads; of two pairs the smaller, so that the order does not show."""
    first = min(one, other, key=lambda usage: usage[:2])
    return first._replace(
        cached=_agreed_count(one.cached, other.cached), reasoning=_agreed_count(one.reasoning, other.reasoning)
    )


def _agreed_count(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return one if one == other else UNSURE


def earlier(one: int, other: int) -> int:
    """Return the earlier of two times; 0 is unknown."""
    return min(one, other) if one and other else one or other


def later(one: int | None, other: int | None) -> int | None:
    """Return the later of two times; None is unknown."""
    return other if one is None else one if other is None else max(one, other)
