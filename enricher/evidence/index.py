"""
Evidence, put where a candidate can find it: by run, message, thread, trace, service and holding span.

An index learns and forgets. What it says does not depend on the order in which it learned, nor on how often; what it
forgot makes it say less, and `forgotten_until` tells of which time it can no longer say that there was nothing else.
Facts are kept, never texts. A run costs some 1.5 KiB.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, TypeVar

from enricher.evidence.aged import Aged
from enricher.evidence.begun import LIFETIME_NS, Begun, BegunRuns, KnownBegun
from enricher.evidence.known import Bare, KnownMessage, KnownRun, KnownTrace, later
from enricher.evidence.silent import SilentRuns
from enricher.semconv import ANY_RUN

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterator, MutableMapping

    from enricher.evidence.collect import Evidence, Place
    from enricher.evidence.objects import Message

    H = TypeVar("H", bound=Hashable)
    V = TypeVar("V", KnownRun, KnownMessage, KnownTrace, KnownBegun)
    Values = tuple[str, ...] | dict[str, None]

FEW: Final = 8
"""Values up to which a tuple is smaller than a dict, and as fast."""


class Index:
    """Look-up of evidence."""

    def __init__(self) -> None:
        self.runs: Aged[str, KnownRun] = Aged()
        self.messages: Aged[str, KnownMessage] = Aged()
        self.traces: Aged[bytes, KnownTrace] = Aged()
        self.forgotten_until: dict[str, int] = {}
        """By service, the latest time (in ns, of spans) of which evidence was forgotten."""
        self.journal: list[Evidence] | None = None
        """Where what was added, files apart, is noted for whoever writes it down; None if nobody does."""
        self._of_thread: dict[str, Values] = {}
        self._of_trace: dict[bytes, Values] = {}
        self._named_in_trace: dict[bytes, Values] = {}
        self._outdated_before = -inf
        self._silent = SilentRuns()
        self._begun = BegunRuns()
        self._said: dict[bytes, Values] = {}
        self._on_span: dict[tuple[bytes, bytes], Values] = {}
        self._named_on_span: dict[tuple[bytes, bytes], Values] = {}

    def __len__(self) -> int:
        return len(self.runs) + len(self.messages) + len(self.traces) + len(self._begun.known)

    @property
    def lasting(self) -> int:
        """How much of it is never forgotten."""
        return self.runs.lasting + self.messages.lasting

    # ---- looking up

    def of_thread(self, thread_id: str) -> set[str]:
        """Return the runs of a thread."""
        return set(self._of_thread.get(thread_id, ()))

    def of_trace(self, trace_id: bytes) -> set[str]:
        """Return the runs whose own payload or path stands in the trace: it was this trace that handled them."""
        return set(self._of_trace.get(trace_id, ()))

    def named_in_trace(self, trace_id: bytes) -> set[str]:
        """Return the same and the runs that only messages or steps name: older ones of the thread may be among them."""
        return set(self._named_in_trace.get(trace_id, ())) | self.of_trace(trace_id)

    def silent(self, service: str, since: int, until: int) -> Iterator[str]:
        """Yield a service's runs without a recorded text that had begun by then and had not answered before."""
        return self._silent.between(service, since, until)

    def is_missing_a_run(self, where: bytes | str, start: int, end: int) -> bool:
        """
        Tell whether a run was begun at that time, in a trace or by a service, and never recorded.

        HTTP instrumentation shows the path of a stream, and not what it answered. Costs what was begun at that time.
        """
        return any(not self._is_recorded(each) for each in self._begun.between(where, start, end))

    def _is_recorded(self, begun: Begun) -> bool:
        """Tell whether some run of the thread may be the one that was begun; what has no time may be of any."""
        runs = [self.runs[run_id] for run_id in self._of_thread.get(begun.thread_id, ())]
        return any(
            begun.trace_id in run.traces
            or not run.last
            or (begun.start <= run.last and run.first <= begun.end + LIFETIME_NS)
            for run in runs
        )

    def said(self, text: bytes) -> Collection[str]:
        """Return the runs that wrote a text, by its digest; not to be kept."""
        return self._said.get(text, ())

    def on_span(self, trace_id: bytes, span_id: bytes) -> set[str]:
        """Return the runs whose own payload stands on the span, or in a log record that names it."""
        return set(self._on_span.get((trace_id, span_id), ()))

    def named_on_span(self, trace_id: bytes, span_id: bytes) -> set[str]:
        """Return the runs that anything on the span names."""
        return set(self._named_on_span.get((trace_id, span_id), ()))

    def in_trace(self, trace_id: bytes) -> KnownTrace:
        """Return what stands in the trace besides runs; not to be changed."""
        return self.traces.get(trace_id) or _NOTHING

    # ---- learning

    def add(self, evidence: Evidence, now: float = 0.0, *, of_span: bool = True) -> set[str]:
        """
        Learn what one place says, and return the ids of the runs and messages that it says it of.

        `now` dates it for `forget`; what is dated `inf` is never forgotten. `of_span` tells that the holding span may
        be a candidate; of others it need not be remembered what stands on them.
        """
        if self.journal is not None and now < inf:
            self.journal.append(evidence)
        place, said = evidence.place, evidence.said
        shown = {run.run_id for run in said.runs}
        for run in said.runs:
            known = self._known(run.run_id, place, now)
            known.show(run, place, azure=bool(evidence.azure))
            self._add_to_thread(known, run.thread_id)
        for message in said.messages:
            self._add_message(message, place, now)
        for run_id in said.mentioned:
            self._known(run_id, place, now)
        handled = shown | self._add_urls(evidence, now)
        if place.trace_id:
            self._add_to_trace(evidence, handled, now)
        if place.service:
            self._add_to_service(place.service, handled)
        if of_span and place.span_id:
            self._add_to_span((place.trace_id, place.span_id), shown, handled | said.mentioned, now)
        for run_id in handled | {message.run_id for message in said.messages if message.run_id}:
            self._silent.update(self.runs[run_id])
        return handled | said.mentioned | {message.message_id for message in said.messages}

    def add_model_call(self, trace_id: bytes, span_id: bytes, now: float = 0.0) -> None:
        """Learn that a span calls a model."""
        self._trace(trace_id, now).add_model_call(span_id)

    def _add_urls(self, evidence: Evidence, now: float) -> set[str]:
        handled = set()
        for thread_id, run_id in evidence.urls:
            if run_id == ANY_RUN:
                self._begun.add(thread_id, evidence.place, now)
            elif run_id:
                known = self._known(run_id, evidence.place, now)
                known.azure = known.azure or bool(evidence.azure)
                self._add_to_thread(known, thread_id)
                handled.add(run_id)
        return handled

    def _add_to_span(self, span: tuple[bytes, bytes], shown: set[str], named: set[str], now: float) -> None:
        for run_id in shown:
            _put(self._on_span, span, run_id)
        for run_id in named:
            _put(self._named_on_span, span, run_id)
            spans = self.runs[run_id].spans
            spans[span] = max(spans.pop(span, now), now)
            while (oldest := next(iter(spans))) and spans[oldest] < self._outdated_before:
                del spans[oldest]
                _drop(self._on_span, oldest, run_id)
                _drop(self._named_on_span, oldest, run_id)

    def _add_to_trace(self, evidence: Evidence, handled: set[str], now: float) -> None:
        place, said = evidence.place, evidence.said
        for run_id in handled:
            _put(self._of_trace, place.trace_id, run_id)
        for run_id in said.mentioned - handled:
            _put(self._named_in_trace, place.trace_id, run_id)
        for run_id in handled | said.mentioned:
            self._add_trace_of(self.runs[run_id], place, now)
        if said.bare or said.unreadable or (evidence.urls and evidence.azure):
            trace = self._trace(place.trace_id, now)
            trace.add_bare([Bare(usage, place) for usage in said.bare])
            trace.unreadable = trace.unreadable or said.unreadable
            trace.azure = trace.azure or bool(evidence.urls and evidence.azure)

    def _add_trace_of(self, run: KnownRun, place: Place, now: float) -> None:
        """Note where a run is named. One that is named for ever would else be known by ever more traces."""
        before, end = run.traces.pop(place.trace_id, (now, 0))
        run.traces[place.trace_id] = max(before, now), max(end, place.end)
        while (oldest := next(iter(run.traces))) and run.traces[oldest][0] < self._outdated_before:
            _, end = run.traces.pop(oldest)
            _drop(self._of_trace, oldest, run.run_id)
            _drop(self._named_in_trace, oldest, run.run_id)
            for service in run.services:
                self._forget_until(service, end)

    def _add_to_service(self, service: str, handled: set[str]) -> None:
        for run_id in handled:
            known = self.runs[run_id]
            if service not in known.services:
                known.services = (*known.services, service)

    def _trace(self, trace_id: bytes, now: float) -> KnownTrace:
        trace = self.traces.setdefault(trace_id, KnownTrace())
        self.traces.touch(trace_id, now)
        return trace

    def _known(self, run_id: str, place: Place, now: float) -> KnownRun:
        known = self.runs.get(run_id)
        if known is None:
            known = self.runs[run_id] = KnownRun(run_id)
        self.runs.touch(run_id, now)
        known.see(place)
        return known

    def _add_message(self, message: Message, place: Place, now: float) -> None:
        known = self.messages.setdefault(message.message_id, KnownMessage())
        self.messages.touch(message.message_id, now)
        known.from_assistant = known.from_assistant and message.from_assistant
        known.created_at = later(known.created_at, message.created_at)
        if message.run_id:
            known.run_ids |= {message.run_id}
            run = self._known(message.run_id, place, now)
            run.speak(message, place)
            if run.had_more:
                self._forget_texts(run)
            else:
                for text in message.texts:
                    _put(self._said, text, run.run_id)
            self._add_to_thread(run, message.thread_id)

    def _add_to_thread(self, run: KnownRun, thread_id: str | None) -> None:
        if thread_id and thread_id not in run.threads:
            run.threads = tuple(sorted((*run.threads, thread_id)))
            _put(self._of_thread, thread_id, run.run_id)

    # ---- forgetting

    def forget(self, before: float, keep: int) -> int:
        """
        Forget what was last touched before a time, and the oldest of what is more than `keep`; return how much.

        A run is forgotten as a whole; what lasts is neither forgotten nor counted. Costs what is forgotten, not what is
        kept.
        """
        forgotten = 0
        self._outdated_before = before
        for run_id in self._outdated(self.runs, before, keep):
            self._forget_run(self.runs.pop(run_id))
            forgotten += 1
        for message_id in self._outdated(self.messages, before, keep):
            del self.messages[message_id]
            forgotten += 1
        for trace_id in self._outdated(self.traces, before, keep):
            del self.traces[trace_id]
            forgotten += 1
        for begun in self._outdated(self._begun.known, before, keep):
            self._begun.forget(begun)
            if not self._is_recorded(begun):
                self._forget_until(begun.service, begun.end)
            forgotten += 1
        return forgotten

    def _outdated(self, known: Aged[H, V], before: float, keep: int) -> Iterator[H]:
        """Yield what is to be forgotten, which must be gone when the next is asked for."""
        while (oldest := known.oldest()) and (oldest[1] < before or len(self) - self.lasting > keep):
            yield oldest[0]

    def _forget_run(self, run: KnownRun) -> None:
        self._silent.forget(run.run_id)
        for thread_id in run.threads:
            _drop(self._of_thread, thread_id, run.run_id)
        self._forget_texts(run)
        for span in run.spans:
            _drop(self._on_span, span, run.run_id)
            _drop(self._named_on_span, span, run.run_id)
        for trace_id in run.traces:
            _drop(self._of_trace, trace_id, run.run_id)
            _drop(self._named_in_trace, trace_id, run.run_id)
        for service in run.services:
            self._forget_until(service, run.last)

    def _forget_texts(self, run: KnownRun) -> None:
        for text in run.texts:
            _drop(self._said, text, run.run_id)
        run.texts.clear()

    def _forget_until(self, service: str, time: int) -> None:
        self.forgotten_until[service] = max(self.forgotten_until.get(service, 0), time)


_NOTHING: Final = KnownTrace()


def _put(known: MutableMapping[H, Values], key: H, value: str) -> None:
    values = known.get(key, ())
    if value in values:
        return
    if isinstance(values, dict):
        values[value] = None
    else:
        known[key] = (*values, value) if len(values) < FEW else dict.fromkeys((*values, value))


def _drop(known: MutableMapping[H, Values], key: H, value: str) -> None:
    values = known.get(key, ())
    if isinstance(values, dict):
        values.pop(value, None)
    else:
        values = known[key] = tuple(each for each in values if each != value)
    if not values:
        known.pop(key, None)
