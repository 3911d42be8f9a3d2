"""
What became of a candidate: the one record that metrics, `explain`, `audit` and provenance attributes read.

Every span that a rule recognises ends in exactly one `Outcome` with exactly one `Reason`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from enricher.semconv import Fact


class Reason(StrEnum):
    """Why a candidate left as it did. A closed set: the words are in `WORDS`."""

    ALREADY_PRESENT = "already_present"
    FROM_SPAN = "from_span"
    ENRICHED = "enriched"
    PAYLOAD_ABSENT = "payload_absent"
    PAYLOAD_UNREADABLE = "payload_unreadable"
    RUN_IN_PROGRESS = "run_in_progress"
    USAGE_ABSENT = "usage_absent"
    AMBIGUOUS = "ambiguous"
    CONTRADICTED = "contradicted"
    NOT_SETTLED = "not_settled"
    NOT_OWNER = "not_owner"
    USAGE_CONFLICT = "usage_conflict"
    PAYLOAD_CONFLICT = "payload_conflict"
    SPAN_UNREADABLE = "span_unreadable"
    STEP_FAILED = "step_failed"


WORDS: dict[Reason, str] = {
    Reason.ALREADY_PRESENT: "the span lacked nothing",
    Reason.FROM_SPAN: "what was lacking followed from the span itself; no payload was needed",
    Reason.ENRICHED: "the evidence points at exactly one run, and what it says was inserted",
    Reason.PAYLOAD_ABSENT: "no recorded payload that could belong to the span was found",
    Reason.PAYLOAD_UNREADABLE: "a payload was recorded, but it is cut off, not JSON, or the run's id in it is masked",
    Reason.RUN_IN_PROGRESS: "the run is known, but every recorded payload of it shows it unfinished, without usage",
    Reason.USAGE_ABSENT: "the run is known, but no recorded payload of it holds usage",
    Reason.AMBIGUOUS: "two or more runs could be the span's, and nothing tells which",
    Reason.CONTRADICTED: "the only run in reach cannot be the span's: its times, answer or token counts differ",
    Reason.NOT_SETTLED: "one run fits, but evidence of another, or another span of the run, may still be elsewhere",
    Reason.NOT_OWNER: "the run's usage is not this span's: it shows the run unfinished, or another span owns it",
    Reason.USAGE_CONFLICT: "the span's own token counts differ from the run's; they were left as they are",
    Reason.PAYLOAD_CONFLICT: "finished payloads of the same run disagree about its usage",
    Reason.SPAN_UNREADABLE: "the span cannot be decoded (invalid UTF-8, or values nested too deep)",
    Reason.STEP_FAILED: "an internal error; the span passed on as it came",
}


class Rung(StrEnum):
    """The steps of the ladder, strongest first."""

    PAYLOAD = "payload_on_span"
    RUN_ID = "run_id"
    MESSAGE_ID = "message_id"
    THREAD_ID = "thread_id"
    TEXT = "answer_text"
    TRACE = "only_run_in_trace"
    BARE_USAGE = "only_usage_in_trace"
    SERVICE = "answer_text_across_traces"
    SAME_START = "same_start"


IDENTITY = frozenset({Rung.PAYLOAD, Rung.RUN_ID, Rung.MESSAGE_ID})
"""Rungs that decide at once. The others rest on uniqueness: they decide when nothing more can arrive."""

ACROSS_TRACES = frozenset({Rung.THREAD_ID, Rung.SERVICE})
"""Rungs for which a second run may lie in any other trace."""

RUNG_WORDS: dict[Rung, str] = {
    Rung.PAYLOAD: "the run's payload is recorded on the span itself",
    Rung.RUN_ID: "the span carries the run's id",
    Rung.MESSAGE_ID: "a recorded message ties the span's message id to the run",
    Rung.THREAD_ID: "the span's thread has exactly one run",
    Rung.TEXT: "the span's last answer equals the run's message, and no other run of the trace fits",
    Rung.TRACE: "exactly one run with usage in the span's trace",
    Rung.BARE_USAGE: "exactly one usage object in the span's trace, and no other model call",
    Rung.SERVICE: "the span's last answer equals one run's message in the same service at the same time",
    Rung.SAME_START: "another span of the run, begun in the same nanosecond, is decided",
}


class Considered(NamedTuple):
    """A run that was looked at for a candidate, and what was found of it. `verdict` is in words."""

    run_id: str
    place: str
    verdict: str


@dataclass(slots=True)
class Outcome:
    """What happened to one candidate. Ids are lower-case hex; `inserted` holds keys and values in their order."""

    trace_id: str
    span_id: str
    span_name: str
    service: str
    scope: str
    rule: str
    reason: Reason
    missing: tuple[tuple[Fact, str], ...] = ()
    """Facts that the span lacked, each with the key that it lacked."""
    rung: Rung | None = None
    run_id: str = ""
    place: str = ""
    considered: tuple[Considered, ...] = ()
    inserted: tuple[tuple[str, str | int], ...] = ()
    replaced: tuple[tuple[str, str | int], ...] = ()
    defects: tuple[str, ...] = ()
    """What the instrumentation wrote wrong, by its version or by evidence; the words are in `defects.py`."""
    confirmed: tuple[str, ...] = ()
    """Those of the defects that the run's own answer shows."""
    start: int = 0
    """When the span began, in ns."""
    standing: Mapping[str, str | int | None] = field(default_factory=dict)
    """Keys of facts that stood on the span, with their values; None is a value of a kind that is not believed."""

    @property
    def lacked(self) -> tuple[Fact, ...]:
        """Facts that stood on the span under none, or not under all, of the keys that were asked for."""
        return tuple(dict.fromkeys(fact for fact, _ in self.missing))

    @property
    def still_lacks(self) -> tuple[Fact, ...]:
        """What the span lacks after it left."""
        written = {key for key, _ in self.inserted}
        return tuple(dict.fromkeys(fact for fact, key in self.missing if key not in written))
