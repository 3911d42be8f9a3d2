"""
Evidence, put where a candidate can find it: by run, message, thread, trace, service and holding span.

An index only ever learns: adding the same payload twice, or in another order, leaves it saying the same.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from enricher.evidence.payload import TERMINAL, Usage

if TYPE_CHECKING:
    from enricher.evidence.collect import Evidence, Place
    from enricher.evidence.payload import Message, Run


@dataclass(slots=True)
class KnownRun:
    """What all payloads of one run say together."""

    run_id: str
    thread_id: str | None = None
    assistant_id: str | None = None
    models: list[str] = field(default_factory=list)
    finals: list[Usage] = field(default_factory=list)
    """Usage of finished revisions, each different one once."""
    place: Place | None = None
    """Where a finished revision with usage stands, or else any payload of the run."""
    finished: int = 0
    """The earliest end of a span, event or record that shows the run finished, in ns; 0 if none does."""
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
        if len(self.finals) == 1:
            return self.finals[0]
        if not self.finals or self.conflicting:
            return None
        prompt, completion, total = self.finals[0].prompt, self.finals[0].completion, self.finals[0].total
        return Usage(prompt, completion, total, self._detail("cached"), self._detail("reasoning"))

    @property
    def conflicting(self) -> bool:
        """Finished payloads of the run disagree."""
        return len({(usage.prompt, usage.completion) for usage in self.finals}) > 1

    def _detail(self, name: str) -> int | None:
        said = {count for usage in self.finals if (count := getattr(usage, name)) is not None}
        return said.pop() if len(said) == 1 else None

    @property
    def model(self) -> str | None:
        """The run's model; None if payloads disagree."""
        return self.models[0] if len(self.models) == 1 else None


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
                known.thread_id = known.thread_id or thread_id
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
        if place.start and (not known.first or place.start < known.first):
            known.first = place.start
        known.last = max(known.last, place.end)
        return known

    def _add_run(self, run: Run, place: Place, *, azure: bool) -> None:
        known = self._known(run.run_id, place)
        known.shown = True
        known.azure = known.azure or azure
        known.thread_id = known.thread_id or run.thread_id
        known.assistant_id = known.assistant_id or run.assistant_id
        if run.model and run.model not in known.models:
            known.models.append(run.model)
        if run.thread_id:
            self.of_thread[run.thread_id].add(run.run_id)
        ended = run.status in TERMINAL or run.usage is not None
        known.ended = known.ended or ended
        if ended and place.end and (not known.finished or place.end < known.finished):
            known.finished = place.end
        if known.place is None or (run.usage is not None and not known.finals):
            known.place = place
        if run.usage is not None and run.usage not in known.finals:
            known.finals.append(run.usage)

    def _add_message(self, message: Message, place: Place) -> None:
        known = self.messages.setdefault(message.message_id, KnownMessage())
        known.from_assistant = known.from_assistant and message.from_assistant
        if message.created_at is not None:
            known.created_at = message.created_at
        if message.run_id:
            known.run_ids.add(message.run_id)
            run = self._known(message.run_id, place)
            for text in message.texts:
                run.texts[text] = message.created_at
            run.thread_id = run.thread_id or message.thread_id
            if message.thread_id:
                self.of_thread[message.thread_id].add(message.run_id)
