"""
Climb the ladder: find which run is a candidate's.

Rungs are climbed from the strongest down. The first that gives exactly one run decides; one that gives two or more
is ambiguous and ends the climb, because a weaker rung must never choose between them. Identity rungs (`IDENTITY`)
decide at once. The others rest on there being no second run, so they decide only where the caller says that
everything has been seen (`settled`): the end of a replay, a candidate's deadline, a request that holds its whole trace.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from enricher.outcome import Reason, Rung
from enricher.rules import StandsFor
from enricher.rungs import Takers, by_identity, by_service, by_text, by_thread, by_trace
from enricher.verdict import Resolution, ambiguous, has_other_counts, nothing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from enricher.evidence.index import Index
    from enricher.recognise import Candidate, StartKey


def resolve(
    candidates: Sequence[Candidate],
    index: Index,
    settled: Callable[[Candidate, Rung], bool] = lambda *_: True,
    claimed: Mapping[str, AbstractSet[StartKey]] = MappingProxyType({}),
    *,
    identity_only: bool = False,
) -> list[Resolution]:
    """
    Return one resolution a candidate, in their order.

    Candidates are resolved together because they exclude each other: a run that an id ties to one of them is not
    free for another. `settled` tells of a candidate whether the uniqueness that a rung found may be believed now,
    `claimed` of runs which spans, by their start, they were given to before. `identity_only` leaves out the rungs that
    could not decide yet anyway.
    """
    runs = [each for each in candidates if each.rule.stands_for is StandsFor.RUN]
    climbed = iter(_climb(runs, index, settled, claimed, identity_only=identity_only))
    return [
        next(climbed)
        if each.rule.stands_for is StandsFor.RUN
        # A call that does not say which run it is about could be about any.
        else by_identity(each, index) or nothing(each, index)
        for each in candidates
    ]


def _climb(
    candidates: Sequence[Candidate],
    index: Index,
    settled: Callable[[Candidate, Rung], bool],
    claimed: Mapping[str, AbstractSet[StartKey]],
    *,
    identity_only: bool,
) -> list[Resolution]:
    found = [by_identity(each, index) for each in candidates]
    if all(each is not None and each.decided for each in found):
        return [each for each in found if each is not None]
    source = _give_twins_their_run(candidates, found)
    identified = [each is not None for each in found]
    for climb in () if identity_only else (by_thread, by_text, by_trace, by_service):
        takers = Takers(c for c, each in zip(candidates, found, strict=True) if not _is_settled_elsewhere(c, each))
        # Not their union: there may be very many claims.
        taken = ({each.run.run_id for each in found if each is not None and each.run is not None}, claimed)
        found = [each or climb(c, index, taken, takers) for c, each in zip(candidates, found, strict=True)]
        _leave_rivals_alone(candidates, found, identified, index, claimed)
        source |= _give_twins_their_run(candidates, found)
    resolved = []
    for i, (candidate, each) in enumerate(zip(candidates, found, strict=True)):
        resolution = each or nothing(candidate, index)
        # A twin is as settled as the span that it has its run from.
        origin = source.get(i, i)
        rung = None if (decided := found[origin]) is None else decided.rung
        if rung is not None and not identified[i] and not settled(candidates[origin], rung):
            resolution = Resolution(Reason.NOT_SETTLED, considered=resolution.considered)
        resolved.append(resolution)
    return resolved


def _is_settled_elsewhere(candidate: Candidate, found: Resolution | None) -> bool:
    """Tell whether the candidate is known not to want a run that is still free: it has one, or names one."""
    return found is not None and (found.decided or bool(candidate.run_ids))


def _leave_rivals_alone(
    candidates: Sequence[Candidate],
    found: list[Resolution | None],
    identified: Sequence[bool],
    index: Index,
    claimed: Mapping[str, AbstractSet[StartKey]],
) -> None:
    """
    Make a run ambiguous that two spans would get and that identity ties to at most one of them.

    Where the run of one of them was not recorded, the other's would be written on both.
    """
    starts: dict[str, set[StartKey]] = {}
    for candidate, each in zip(candidates, found, strict=True):
        if each is not None and each.run is not None:
            run_id = each.run.run_id
            starts.setdefault(run_id, set(claimed.get(run_id, ()))).add(candidate.start_key)
    for i, each in enumerate(found):
        if each is not None and each.run is not None and not identified[i] and len(starts[each.run.run_id]) > 1:
            found[i] = ambiguous({each.run.run_id}, index)


def _give_twins_their_run(candidates: Sequence[Candidate], found: list[Resolution | None]) -> dict[int, int]:
    """
    Give an undecided candidate the run of its twin, and return who has it from whom.

    OpenLLMetry notes the start once a run and writes a span for each listing of its messages, so spans of one scope
    that begin in the same nanosecond are the same run's, unless they list different messages: calls with positional
    arguments are noted under one name for all threads. Starts on a multiple of 100 ns may come from a coarser clock,
    on which two runs can share one.
    """
    decided: dict[StartKey, dict[str, int]] = {}
    for i, each in enumerate(found):
        if each is not None and each.run is not None and candidates[i].start % 100:
            decided.setdefault(candidates[i].start_key, {}).setdefault(each.run.run_id, i)
    source: dict[int, int] = {}
    for i, candidate in enumerate(candidates):
        twins = decided.get(candidate.start_key, {})
        if len(twins) != 1 or _is_settled_elsewhere(candidate, found[i]):
            continue
        (origin,) = twins.values()
        twin = found[origin]
        if (
            twin is not None
            and _are_twins(candidate, candidates[origin])
            and not has_other_counts(candidate, twin.usage)
        ):
            found[i] = twin._replace(rung=Rung.SAME_START)
            source[i] = origin
    return source


def _are_twins(candidate: Candidate, other: Candidate) -> bool:
    """Tell whether the spans share a message of each kind that both list: by its id, what was answered and asked."""
    if candidate.message_ids and other.message_ids:
        return not set(candidate.message_ids).isdisjoint(other.message_ids)
    listings = ((candidate.answers, other.answers), (candidate.asked, other.asked))
    return all(not set(one).isdisjoint(two) for one, two in listings if one and two)
