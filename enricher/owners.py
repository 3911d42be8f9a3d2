"""
Whose a run's usage is: of all spans of one run, the one on which it is written.

A run is polled, checked again, wrapped and listed, and each of these may be a span that knows the run's counts. Written
on more than one they would be billed more than once. So a run has one owner (decision 0006); its other spans are marked
as the run's and get no counts.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from enricher.outcome import IDENTITY, Reason, Rung
from enricher.rules import StandsFor
from enricher.verdict import has_counts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from enricher.evidence.index import Index
    from enricher.recognise import Candidate, StartKey
    from enricher.verdict import Resolution

    Rank = tuple[bool, int, int, int, bytes, bytes]

WITHOUT_COUNTS: Final = frozenset({Reason.NOT_OWNER, Reason.NOT_SETTLED, Reason.STEP_FAILED})
"""Reasons with which a span leaves without counts from evidence."""


def run_of(candidate: Candidate, resolution: Resolution) -> str:
    """Return the run that the span is of, recorded or only named; an empty text if it is not known."""
    if resolution.run is not None:
        return resolution.run.run_id
    return next(iter(candidate.run_ids)) if len(candidate.run_ids) == 1 else ""


def listing_of(candidate: Candidate, resolution: Resolution) -> str:
    """
    Return what is shared by listings of one run that nothing names, each with its counts; else an empty text.

    Their start is noted once a run; on a coarser clock than nanoseconds two runs can share one.
    """
    if run_of(candidate, resolution) or not any(candidate.own_pair or ()) or not candidate.start % 100:
        return ""
    return "" if candidate.start_key == candidate.span_key else f"{candidate.start_key} {candidate.own_pair}"


def has_counts(candidate: Candidate, resolution: Resolution) -> bool:
    """Tell whether the span leaves with its run's counts."""
    return resolution.reason not in WITHOUT_COUNTS and (
        resolution.usage is not None or _carries_usage(candidate, resolution)
    )


def _carried(candidates: Sequence[Candidate], resolutions: Sequence[Resolution], index: Index) -> set[str]:
    """
    Return the runs whose very counts stand on a span of their trace of which nothing tells whose it is.

    It may be another run's that took as much. But if it is this one's, writing would double it.
    """
    carrying = [
        (candidate, run_of(candidate, each))
        for candidate, each in zip(candidates, resolutions, strict=True)
        if any(candidate.own_pair or ())
    ]
    settled = {run_id for _, run_id in carrying}
    return {
        run_id
        for candidate, of_run in carrying
        if not of_run
        for run_id in index.named_in_trace(candidate.trace_id) - settled
        if (usage := index.runs[run_id].usage) is not None and has_counts_of(candidate, usage)
    }


def assign(
    candidates: Sequence[Candidate],
    resolutions: Sequence[Resolution],
    index: Index,
    owned: Mapping[str, StartKey] = MappingProxyType({}),
    settled: Callable[[Candidate], bool] = lambda _: True,
) -> list[Resolution]:
    """
    Return the resolutions, without usage where another span owns it.

    `owned` tells whose runs are already. `settled` tells whether a span with a better claim than a call may still come:
    then the call must not be written on yet.
    """
    doubled = {run_id for run_id in _carried(candidates, resolutions, index) if run_id not in owned}
    out = _with_repeats(candidates, resolutions, owned)
    spans_of: dict[str, list[int]] = {}
    for i, (candidate, each) in enumerate(zip(candidates, out, strict=True)):
        run_id = run_of(candidate, each)
        if run_id:
            spans_of.setdefault(run_id, []).append(i)
        elif not candidate.may_own and each.usage is not None:
            out[i] = _without(each, Reason.NOT_OWNER)
    for i in [i for run_id in doubled for i in spans_of.pop(run_id, ())]:
        final = settled(candidates[i]) or not candidates[i].may_own
        out[i] = _without(out[i], Reason.NOT_OWNER if final else Reason.NOT_SETTLED)
    for run_id, spans in spans_of.items():
        if len(spans) == 1 and candidates[spans[0]].rule.stands_for is StandsFor.RUN and run_id not in owned:
            if not candidates[spans[0]].may_own:
                out[spans[0]] = _without(out[spans[0]], Reason.NOT_OWNER)
            continue
        ranked = sorted((_rank(candidates[i], out[i]), i) for i in spans if candidates[i].may_own)
        owner = owned.get(run_id) or (candidates[ranked[0][1]].span_key if ranked else None)
        for i in [*(i for _, i in ranked), *(i for i in spans if not candidates[i].may_own)]:
            candidate, each = candidates[i], out[i]
            mine = candidate.may_own and candidate.span_key == owner
            if mine and run_id not in owned and _may_be_outdone(candidate, each) and not settled(candidate):
                out[i] = _without(each, Reason.NOT_SETTLED)
                continue
            repeated = candidate.may_own and candidate.own_pair is not None and not mine
            out[i] = (each if mine else _without(each, Reason.NOT_OWNER))._replace(repeats=repeated)
    return out


def _with_repeats(
    candidates: Sequence[Candidate], resolutions: Sequence[Resolution], owned: Mapping[str, StartKey]
) -> list[Resolution]:
    """Return the resolutions, those marked that repeat the counts of another listing of a run that nothing names."""
    out = list(resolutions)
    listings: dict[str, list[int]] = {}
    for i, (candidate, each) in enumerate(zip(candidates, resolutions, strict=True)):
        if listing := listing_of(candidate, each):
            listings.setdefault(listing, []).append(i)
    for listing, spans in listings.items():
        first = owned.get(listing) or candidates[min(spans, key=lambda i: _rank(candidates[i], out[i]))].span_key
        for i in spans:
            out[i] = out[i]._replace(repeats=candidates[i].span_key != first)
    return out


def share(candidates: Sequence[Candidate], resolutions: Sequence[Resolution]) -> list[Resolution]:
    """Return the resolutions, without usage on calls that do not show the run's end: all other spans may have it."""
    return [
        _without(each, Reason.NOT_OWNER) if each.usage is not None and not candidate.may_own else each
        for candidate, each in zip(candidates, resolutions, strict=True)
    ]


def _rank(candidate: Candidate, resolution: Resolution) -> Rank:
    """
    Return what puts the span with the best claim first.

    It is the one that carries the usage by itself; then one that stands for the whole run and is tied to it by an id;
    then the first call to show the run's end; then one that stands for a whole run, which can only be this one; then
    one that has it only from such a one, having begun with it: it may have listed the run's messages too early.
    """
    if candidate.rule.stands_for is StandsFor.CALL:
        claim = 1
    elif resolution.rung is Rung.SAME_START:
        claim = 3
    else:
        claim = 0 if resolution.run is None or resolution.rung in IDENTITY else 2
    end, start = candidate.end, candidate.start
    return not _carries_usage(candidate, resolution), claim, end, start, candidate.trace_id, candidate.span_id


def _carries_usage(candidate: Candidate, resolution: Resolution) -> bool:
    pair, usage = candidate.own_pair, resolution.usage
    # 0/0 is what some instrumentations begin with; where the run's counts are others, it says nothing.
    return pair is not None and (any(pair) or usage is None or not (usage.prompt or usage.completion))


def _may_be_outdone(candidate: Candidate, resolution: Resolution) -> bool:
    return candidate.rule.stands_for is StandsFor.CALL and not _carries_usage(candidate, resolution)


def _without(resolution: Resolution, reason: Reason) -> Resolution:
    return resolution._replace(reason=reason, usage=None)
