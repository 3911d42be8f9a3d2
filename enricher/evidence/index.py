"""
Evidence, put where a candidate can find it: by run, message, thread, trace, service and holding span.

An index only ever learns: adding the same payload twice, or in another order, leaves it saying the same.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from enricher.evidence.payload import TERMINAL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from enricher.evidence.collect import Evidence, Place
    from enricher.evidence.payload import Message, Run, Usage

T = TypeVar("T", str, int)


@dataclass(slots=True)
class KnownRun:
    """What all payloads of one run say together."""

    run_id: str
    thread_ids: set[str] = field(default_factory=set)
    assistant_ids: set[str] = field(default_factory=set)
    models: set[str] = field(default_factory=set)
    finals: set[Usage] = field(default_factory=set)
    """Usage of finished revisions, each different one once."""
    place: Place | None = None
    """Where a finished revision with usage stands, or else any payload of the run."""
    answered: int = 0
    """The earliest end of a span, event or record that shows an answer of the run, or its end, in ns; 0 if none."""
    first: int = 0
    """The earliest start of any evidence of the run, in ns; 0 if unknown."""
    last: int = 0
    """The latest end of any evidence of the run, in ns."""
    texts: dict[bytes, int | None] = field(default_factory=dict)
    """Digests of what the run wrote, each with the API's time of the message."""
    azure: bool = False
    shown: bool = False
    """A payload of the run itself was recorded, not only its id."""
    ended: bool = False
    """A payload shows the run in a terminal status."""

    @property
    def usage(self) -> Usage | None:
        """The run's counts; None if no finished payload holds them or if such payloads disagree."""
        if not self.finals or self.conflicting:
            return None
        first = next(iter(self.finals))
        return (
            first
            if len(self.finals) == 1
            else first._replace(
                cached=_only({usage.cached for usage in self.finals}),
                reasoning=_only({usage.reasoning for usage in self.finals}),
            )
        )

    @property
    def conflicting(self) -> bool:
        """Finished payloads of the run disagree."""
        return len({(usage.prompt, usage.completion) for usage in self.finals}) > 1

    @property
    def model(self) -> str | None:
        """The run's model; None if payloads disagree. The same holds of its ids."""
        return _only(self.models)

    @property
    def thread_id(self) -> str | None:
        """The run's thread."""
        return _only(self.thread_ids)

    @property
    def assistant_id(self) -> str | None:
        """The run's assistant."""
        return _only(self.assistant_ids)


def _only(said: Iterable[T | None]) -> T | None:
    """Return the one value that is said, or None if there is none or if there are two."""
    found = {each for each in said if each is not None}
    return found.pop() if len(found) == 1 else None


@dataclass(slots=True)
class KnownMessage:
    """Which run wrote a message. `created_at` is the API's own clock and orders messages among themselves only."""

    run_ids: set[str] = field(default_factory=set)
    created_at: int | None = None
    from_assistant: bool = True


@dataclass(slots=True)
class Bare:
    """A usage object that stands alone, and where."""

    usage: Usage
    place: Place


class Index:
    """Look-up of evidence. Not bounded: it lives as long as one request or one replay."""

    def __init__(self) -> None:
        self.runs: dict[str, KnownRun] = {}
        self.messages: dict[str, KnownMessage] = {}
        self.of_thread: defaultdict[str, set[str]] = defaultdict(set)
        self.of_trace: defaultdict[bytes, set[str]] = defaultdict(set)
        """Runs whose own payload or path stands in the trace: it was this trace that handled them."""
        self.named_in_trace: defaultdict[bytes, set[str]] = defaultdict(set)
        """The same and runs that only messages or steps name: older ones of the thread may be among them."""
        self.of_service: defaultdict[str, set[str]] = defaultdict(set)
        self.on_span: defaultdict[tuple[bytes, bytes], set[str]] = defaultdict(set)
        """Runs whose own payload stands on the span."""
        self.named_on_span: defaultdict[tuple[bytes, bytes], set[str]] = defaultdict(set)
        self.bare_of_trace: defaultdict[bytes, list[Bare]] = defaultdict(list)
        self.azure_traces: set[bytes] = set()
        self.unreadable_traces: set[bytes] = set()
        self.model_calls: defaultdict[bytes, set[bytes]] = defaultdict(set)
        """Spans, by trace, that call a model and are no Assistant run: their usage objects may stand bare nearby."""

    def add(self, evidence: Evidence) -> None:
        """Learn what one place says."""
        place, said = evidence.place, evidence.said
        handled: set[str] = set()
        for run in said.runs:
            self._add_run(run, place, azure=bool(evidence.azure))
            handled.add(run.run_id)
            self.on_span[place.trace_id, place.span_id].add(run.run_id)
        for message in said.messages:
            self._add_message(message, place)
        for thread_id, run_id in evidence.urls:
            if run_id:
                known = self._known(run_id, place)
                known.thread_ids.add(thread_id)
                known.azure = known.azure or bool(evidence.azure)
                self.of_thread[thread_id].add(run_id)
                handled.add(run_id)
        for usage in said.bare:
            self.bare_of_trace[place.trace_id].append(Bare(usage, place))
        if evidence.urls and evidence.azure:
            self.azure_traces.add(place.trace_id)
        if said.unreadable:
            self.unreadable_traces.add(place.trace_id)
        for run_id in said.mentioned:
            self._known(run_id, place)
        self.of_trace[place.trace_id] |= handled
        self.of_service[place.service] |= handled
        self.named_in_trace[place.trace_id] |= handled | said.mentioned
        self.named_on_span[place.trace_id, place.span_id] |= handled | said.mentioned

    def add_model_call(self, trace_id: bytes, span_id: bytes) -> None:
        """Learn that a span calls a model and is no Assistant run."""
        self.model_calls[trace_id].add(span_id)

    def _known(self, run_id: str, place: Place) -> KnownRun:
        known = self.runs.get(run_id)
        if known is None:
            known = self.runs[run_id] = KnownRun(run_id)
        known.first = _earlier(known.first, place.start)
        known.last = max(known.last, place.end)
        return known

    def _add_run(self, run: Run, place: Place, *, azure: bool) -> None:
        known = self._known(run.run_id, place)
        known.shown = True
        known.azure = known.azure or azure
        if run.thread_id:
            known.thread_ids.add(run.thread_id)
            self.of_thread[run.thread_id].add(run.run_id)
        if run.assistant_id:
            known.assistant_ids.add(run.assistant_id)
        if run.model:
            known.models.add(run.model)
        if run.status in TERMINAL or run.usage is not None:
            known.ended = True
            known.answered = _earlier(known.answered, place.end)
        better = run.usage is not None and not known.finals
        if known.place is None or better or (bool(known.finals) == (run.usage is not None) and place < known.place):
            known.place = place
        if run.usage is not None:
            known.finals.add(run.usage)

    def _add_message(self, message: Message, place: Place) -> None:
        known = self.messages.setdefault(message.message_id, KnownMessage())
        known.from_assistant = known.from_assistant and message.from_assistant
        known.created_at = _later(known.created_at, message.created_at)
        if message.run_id:
            known.run_ids.add(message.run_id)
            run = self._known(message.run_id, place)
            run.answered = _earlier(run.answered, place.end)
            for text in message.texts:
                run.texts[text] = _later(run.texts.get(text), message.created_at)
            if message.thread_id:
                run.thread_ids.add(message.thread_id)
                self.of_thread[message.thread_id].add(message.run_id)


def _earlier(one: int, other: int) -> int:
    """Return the earlier of two times; 0 is unknown."""
    return min(one, other) if one and other else one or other


def _later(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else max(one, other)
