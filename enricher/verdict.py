"""
What can be said of a candidate: the run that a rung gives it, or why it gets none.

What speaks against a run (it had answered before the span began, it wrote other answers) can only stop a decision. It
never leaves the other of two runs as the only one, because a gateway's clock may be wrong and a text cut off. The
span's own token counts are the exception: they are the span's word about its run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from enricher.defects import SWAPPED_USAGE
from enricher.outcome import Considered, Reason, Rung
from enricher.recognise import STREAM
from enricher.semconv import Fact

if TYPE_CHECKING:
    from collections.abc import Iterable

    from enricher.evidence.index import Index
    from enricher.evidence.known import Bare, KnownRun
    from enricher.evidence.objects import Usage
    from enricher.recognise import Candidate

LATE_NS: Final = 10_000_000_000
"""How long after a span's end the first evidence of its run may begin (an application logs the answer afterwards)."""


class Resolution(NamedTuple):
    """
    What the ladder found for one candidate.

    `run` is set once a rung has decided; `usage` is the run's, or that of a bare usage object. `reason` is
    `ENRICHED` where both are there, and else says what is missing or why no rung could decide.
    """

    reason: Reason
    rung: Rung | None = None
    run: KnownRun | None = None
    usage: Usage | None = None
    place: str = ""
    considered: tuple[Considered, ...] = ()
    repeats: bool = False
    """The span carries counts that another span of the run carries too."""

    @property
    def decided(self) -> bool:
        """A rung gave exactly one run, or one usage object."""
        return self.rung is not None


# ---- what speaks against a run -----------------------------------------------------------------------------------


def possible_runs(candidate: Candidate, index: Index, run_ids: Iterable[str]) -> set[str]:
    """Return those of the runs of which the span does not state other counts."""
    return {run_id for run_id in run_ids if not has_other_counts(candidate, index.runs[run_id].usage)}


def has_other_counts(candidate: Candidate, usage: Usage | None) -> bool:
    """Tell whether the span states token counts of its own that are not the run's."""
    pair = candidate.own_pair
    # A stream span that was left early carries the counts of its first steps.
    if usage is None or pair is None or candidate.span_name.endswith(STREAM):
        return False
    return not has_counts_of(candidate, usage)


def has_counts_of(candidate: Candidate, usage: Usage) -> bool:
    """Tell whether the span states the run's counts itself, be it swapped."""
    pair, counts = candidate.own_pair, (usage.prompt, usage.completion)
    return pair == counts or (SWAPPED_USAGE in candidate.defects and pair == counts[::-1])


def answered_before(candidate: Candidate, run: KnownRun) -> bool:
    """Tell whether the run is known to have answered before the span began."""
    return 0 < run.answered < candidate.start


def _against(candidate: Candidate, run: KnownRun) -> str:
    """Return in words why the run cannot be the candidate's; an empty text if it can."""
    if has_other_counts(candidate, run.usage):
        return "has other token counts than the span"
    if answered_before(candidate, run):
        return "had answered before the span began"
    assistant = str(candidate.own.get(Fact.ASSISTANT_ID))
    if assistant.startswith("asst_") and run.assistant_id not in (None, assistant):
        return "is another assistant's"
    if candidate.answers and run.texts and run.texts.keys().isdisjoint(candidate.answers):
        return "wrote other answers than the span shows"
    if run.first and candidate.end and run.first > candidate.end + LATE_NS:
        return "began after the span ended"
    return ""


# ---- what is said ------------------------------------------------------------------------------------------------


def decide(rung: Rung, candidate: Candidate, index: Index, run_ids: set[str]) -> Resolution:
    """Decide by identity: nothing can contradict it."""
    (run_id,) = run_ids
    run, bare = index.runs.get(run_id), bare_on_span(candidate, index)
    if run is None:
        if bare:
            return Resolution(Reason.ENRICHED, rung, usage=bare.usage, place=bare.place.where)
        # The span names its run and nothing else of it is recorded. It is known not to be any other.
        return Resolution(Reason.PAYLOAD_ABSENT)
    usage, place = run.usage, run.place.where if run.place else ""
    considered = (Considered(run_id, place, "decided"),)
    if usage is None and run.final is None and bare:
        usage, place = bare.usage, bare.place.where
    if usage is None:
        return missing_usage(candidate, index, run_ids)._replace(rung=rung, run=run, place=place, considered=considered)
    return Resolution(Reason.ENRICHED, rung, run, usage, place, considered)


def decide_checked(rung: Rung, candidate: Candidate, index: Index, run_ids: set[str]) -> Resolution:
    """Decide if one run is left and nothing speaks against it."""
    if len(run_ids) > 1:
        return ambiguous(run_ids, index)
    (run_id,) = run_ids
    run = index.runs.get(run_id)
    if run is not None and (why := _against(candidate, run)):
        place = run.place.where if run.place else ""
        return Resolution(Reason.CONTRADICTED, considered=(Considered(run_id, place, why),))
    return decide(rung, candidate, index, run_ids)


def bare_on_span(candidate: Candidate, index: Index) -> Bare | None:
    """Return the usage object that stands alone on the span itself, if there is only one."""
    found = [b for b in index.in_trace(candidate.trace_id).bare if b.place.span_id == candidate.span_id]
    if len({bare.usage for bare in found}) != 1 or not candidate.span_id:
        return None
    return min(found, key=lambda bare: bare.place)


def missing_usage(candidate: Candidate, index: Index, run_ids: Iterable[str]) -> Resolution:
    """Say why the runs give no usage."""
    runs = [index.runs[run_id] for run_id in sorted(run_ids)]
    if any(run.conflicting for run in runs):
        reason = Reason.PAYLOAD_CONFLICT
    elif index.in_trace(candidate.trace_id).unreadable and not any(run.ended for run in runs):
        # The URL beside a payload that is cut off still names the run, and earlier polls may be whole.
        reason = Reason.PAYLOAD_UNREADABLE
    elif any(run.shown and not run.ended for run in runs):
        reason = Reason.RUN_IN_PROGRESS
    else:
        reason = Reason.USAGE_ABSENT if any(run.shown for run in runs) else Reason.PAYLOAD_ABSENT
    verdict = "holds no usage" if reason is not Reason.PAYLOAD_CONFLICT else "contradicts itself"
    return Resolution(
        reason,
        considered=tuple(Considered(run.run_id, run.place.where if run.place else "", verdict) for run in runs),
    )


def ambiguous(run_ids: Iterable[str], index: Index) -> Resolution:
    """Say that each of the runs could be the span's."""

    def line(run_id: str) -> Considered:
        run = index.runs.get(run_id)
        return Considered(run_id, run.place.where if run and run.place else "", "could be the span's")

    return Resolution(Reason.AMBIGUOUS, considered=tuple(line(run_id) for run_id in sorted(run_ids)))


def nothing(candidate: Candidate, index: Index) -> Resolution:
    """Say why no rung gave anything."""
    handled = index.of_trace(candidate.trace_id) if candidate.trace_id else set()
    against = [(run, why) for run_id in sorted(handled) if (why := _against(candidate, run := index.runs[run_id]))]
    if against:
        considered = (Considered(run.run_id, run.place.where if run.place else "", why) for run, why in against)
        return Resolution(Reason.CONTRADICTED, considered=tuple(considered))
    if index.in_trace(candidate.trace_id).unreadable:
        return Resolution(Reason.PAYLOAD_UNREADABLE)
    return Resolution(Reason.PAYLOAD_ABSENT)
