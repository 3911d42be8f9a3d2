"""
The rungs of the ladder: each says which run is a candidate's, by one kind of evidence, or that it cannot tell.

A rung returns None if it has nothing to say, and a `Resolution` if it decides or if what it found forbids a decision.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from enricher.outcome import Considered, Reason, Rung
from enricher.verdict import (
    LATE_NS,
    Resolution,
    ambiguous,
    answered_before,
    bare_on_span,
    decide,
    decide_checked,
    has_other_counts,
    missing_usage,
    possible_runs,
)

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from enricher.evidence.index import Index
    from enricher.evidence.known import KnownRun
    from enricher.recognise import Candidate, StartKey

NAMED: Final = 10
"""Silent runs of a service that are named at most: one is enough to forbid a decision, and there may be very many."""


# ---- identity ----------------------------------------------------------------------------------------------------


def by_identity(candidate: Candidate, index: Index) -> Resolution | None:
    """Take the run that the span shows, or whose id or newest message's id it carries."""
    here = (candidate.trace_id, candidate.span_id)
    shown = index.on_span(*here) if candidate.span_id else set()
    if len(shown) == 1 and candidate.run_ids <= shown:
        return decide(Rung.PAYLOAD, candidate, index, shown)
    tied = set(candidate.run_ids & shown if shown and candidate.run_ids else candidate.run_ids or shown)
    if not tied and not candidate.run_ids:
        tied = index.named_on_span(*here) if candidate.span_id else set()
    if len(tied) == 1:
        return decide(Rung.RUN_ID, candidate, index, tied)
    if tied or shown:
        return ambiguous(tied | shown | candidate.run_ids, index)
    runs = _runs_of_messages(candidate.message_ids, index)
    if runs:
        return decide_checked(Rung.MESSAGE_ID, candidate, index, runs)
    bare = bare_on_span(candidate, index)
    return Resolution(Reason.ENRICHED, Rung.PAYLOAD, usage=bare.usage, place=bare.place.where) if bare else None


def _runs_of_messages(message_ids: Sequence[str], index: Index) -> set[str]:
    """
    Return the run that wrote the newest of the messages.

    A span lists its whole thread, older runs' messages among them. Which is the newest can be told only if all are
    known; the user's own word after the last answer means that the span's run has not answered yet.
    """
    known = [index.messages.get(each) for each in message_ids]
    complete = [each for each in known if each is not None]
    if not complete or len(complete) < len(known):
        return set()
    if len({frozenset(each.run_ids) for each in complete}) == 1:
        return set(complete[0].run_ids)
    times = [each.created_at for each in complete]
    if any(time is None for time in times):
        return {run_id for each in complete for run_id in each.run_ids}
    newest = max(time for time in times if time is not None)
    return {run_id for each in complete if each.created_at == newest for run_id in each.run_ids}


# ---- uniqueness --------------------------------------------------------------------------------------------------


def by_thread(candidate: Candidate, index: Index, *_: object) -> Resolution | None:
    """Take the only run of the thread that the span names."""
    if len(candidate.thread_ids) != 1:
        return None
    runs = possible_runs(candidate, index, index.of_thread(next(iter(candidate.thread_ids))))
    if not any(_is_of_this_time(candidate, index.runs[run_id]) for run_id in runs):
        return None
    return decide_checked(Rung.THREAD_ID, candidate, index, runs)


def _is_of_this_time(candidate: Candidate, run: KnownRun) -> bool:
    """Tell whether telemetry shows the run, or else its words: a file may hold any old run of a thread."""
    return bool(run.last) or not run.texts.keys().isdisjoint(candidate.answers)


def by_text(candidate: Candidate, index: Index, *_: object) -> Resolution | None:
    """Compare the span's answers with the messages of the trace's runs."""
    if not candidate.answers or not candidate.trace_id:
        return None
    runs = index.named_in_trace(candidate.trace_id)
    found = _by_answers(Rung.TEXT, candidate, index, runs, index.of_trace(candidate.trace_id))
    return _if_all_are_known(found, candidate, index, candidate.trace_id)


def _by_answers(rung: Rung, candidate: Candidate, index: Index, runs: set[str], handled: set[str]) -> Resolution | None:
    """Take the run that wrote the span's answers, if all that could have written them are known."""
    possible = possible_runs(candidate, index, runs)
    matching = {run_id for run_id in possible if not index.runs[run_id].texts.keys().isdisjoint(candidate.answers)}
    if not matching:
        return None
    # A run whose answer nobody recorded may have said the same.
    silent = {run_id for run_id in possible & handled if not index.runs[run_id].texts}
    # An answer that is no known run's may be the newest, and the span that of a run that nobody recorded.
    known = set().union(*(index.runs[run_id].texts for run_id in runs))
    if silent or not known.issuperset(candidate.answers):
        return ambiguous(matching | silent, index)
    return decide_checked(rung, candidate, index, _newest(matching, candidate, index))


def _newest(runs: set[str], candidate: Candidate, index: Index) -> set[str]:
    """Of runs of one thread that said different things, return the one that spoke last."""
    if len(runs) < 2:
        return runs
    spoken: dict[str, int] = {}
    said: set[bytes] = set()
    for run_id in runs:
        texts = {t: at for t, at in index.runs[run_id].texts.items() if t in candidate.answers}
        times = [at for at in texts.values() if at is not None]
        if said & texts.keys() or len(times) < len(texts):
            return runs
        said |= texts.keys()
        spoken[run_id] = max(times)
    threads = {index.runs[run_id].thread_id for run_id in runs}
    newest = max(spoken.values())
    last = {run_id for run_id, at in spoken.items() if at == newest}
    return last if len(threads) == 1 and None not in threads and set(candidate.answers) <= said else runs


def by_trace(candidate: Candidate, index: Index, taken: Iterable[Container[str]], takers: Takers) -> Resolution | None:
    """Take the only run with usage in the trace, or the only usage object, if the candidate is the only taker."""
    if not candidate.trace_id:
        return None
    others = takers.starts_of_trace.get(candidate.trace_id, set()) - {candidate.start_key}
    handled = index.of_trace(candidate.trace_id)
    possible = possible_runs(candidate, index, handled)
    runs = {run_id for run_id in possible if not any(run_id in each for each in taken)}
    if not handled:
        return _by_bare_usage(candidate, index, alone=not others, own=takers.spans)
    if not runs:
        return None
    if not any(index.runs[run_id].final for run_id in runs):
        return missing_usage(candidate, index, runs)
    found = ambiguous(runs, index) if others else decide_checked(Rung.TRACE, candidate, index, runs)
    return _if_all_are_known(found, candidate, index, candidate.trace_id)


def _if_all_are_known(
    found: Resolution | None, candidate: Candidate, index: Index, where: bytes | str
) -> Resolution | None:
    """Return what was found, unless the span's run may be one that was begun there at its time and never recorded."""
    if found is None or found.run is None:
        return found
    missing = index.is_missing_a_run(where, candidate.start - LATE_NS, candidate.end + LATE_NS)
    return ambiguous({found.run.run_id}, index) if missing else found


def _by_bare_usage(candidate: Candidate, index: Index, *, alone: bool, own: set[bytes]) -> Resolution | None:
    """Take the only usage object of a trace in which nothing but `own` spans calls a model."""
    bare = index.in_trace(candidate.trace_id).bare
    usages = {each.usage for each in bare}
    if not usages:
        return None
    if len(usages) > 1 or not alone or index.in_trace(candidate.trace_id).model_calls - own:
        return Resolution(Reason.AMBIGUOUS)
    fitting = [
        each.place
        for each in bare
        if not each.place.end or (each.place.end >= candidate.start and each.place.start <= candidate.end + LATE_NS)
    ]
    usage = usages.pop()
    if not fitting or (candidate.own_pair and candidate.own_pair != (usage.prompt, usage.completion)):
        return Resolution(Reason.CONTRADICTED)
    return Resolution(Reason.ENRICHED, Rung.BARE_USAGE, usage=usage, place=min(fitting).where)


def by_service(candidate: Candidate, index: Index, _: object, takers: Takers) -> Resolution | None:
    """Where every HTTP span is a trace of its own: compare answers across the service, at the same time."""
    if not candidate.answers or not candidate.service:
        return None

    def could_be(run_id: str) -> bool:
        run = index.runs[run_id]
        return run.first <= candidate.end + LATE_NS and not answered_before(candidate, run)

    matching = {
        run_id
        for text in candidate.answers
        for run_id in index.said(text)
        if candidate.service in index.runs[run_id].services and could_be(run_id)
    }
    if not matching:
        return None
    others = (
        run_id
        for run_id in index.silent(candidate.service, candidate.start, candidate.end + LATE_NS)
        if not has_other_counts(candidate, index.runs[run_id].usage)
    )
    silent = set(islice(others, NAMED))
    found = _by_answers(Rung.SERVICE, candidate, index, matching | silent, silent)
    rivals = {
        each.start_key
        for answer in candidate.answers
        for each in takers.by_answer.get((candidate.service, answer), ())
        if each.start <= candidate.end + LATE_NS and candidate.start <= each.end + LATE_NS
    }
    if found is not None and found.run is not None and rivals - {candidate.start_key}:
        return ambiguous({found.run.run_id}, index)
    if found is not None and found.run is not None and found.run.unfinished > candidate.end:
        # It was begun after the span had shown its answer, and said the same.
        why = Considered(found.run.run_id, found.place, "was unfinished after the span ended")
        return Resolution(Reason.CONTRADICTED, considered=(why,))
    return _if_all_are_known(found, candidate, index, candidate.service)


class Takers:
    """The candidates that may want a run that is still free, by what makes them rivals."""

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        self.spans: set[bytes] = set()
        self.starts_of_trace: dict[bytes, set[StartKey]] = {}
        self.by_answer: dict[tuple[str, bytes], list[Candidate]] = {}
        for each in candidates:
            self.spans.add(each.span_id)
            self.starts_of_trace.setdefault(each.trace_id, set()).add(each.start_key)
            for answer in each.answers:
                self.by_answer.setdefault((each.service, answer), []).append(each)
