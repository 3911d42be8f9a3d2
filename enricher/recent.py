"""
Candidates of the last minutes, so that one that is decided later knows of those that may want the same run.

Held ones and ones that have left alike: a run that is another span's is not free, whether or not that span has left.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from enricher.rules import StandsFor

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from enricher.evidence.known import KnownRun
    from enricher.recognise import Candidate, StartKey


class Recent:
    """Look-up of candidates by what can make them rivals: trace, answers within a service, start, thread, and run."""

    def __init__(self) -> None:
        self._all: OrderedDict[Hashable, tuple[float, Candidate]] = OrderedDict()
        """By the span; only the latest of copies that a client sent again."""
        self._by: dict[Hashable, Candidate | dict[int, Candidate]] = {}
        """Most keys are one candidate's, which spares a dictionary each: a quarter of a kilobyte."""
        self._claims: OrderedDict[tuple[str, StartKey], float] = OrderedDict()
        self.claimed: dict[str, set[StartKey]] = {}
        """By run, the starts of the spans that it was given to."""
        self._without: set[int] = set()
        self.owners: OrderedDict[str, StartKey] = OrderedDict()
        """By run, or by what else is known of it (`owners.listing_of`), whose its usage is."""
        self.journal: list[tuple[str, StartKey]] = []
        """Owners that were added, for whoever writes them down."""

    def __len__(self) -> int:
        return len(self._all)

    def add(self, candidate: Candidate, now: float) -> None:
        """Remember a candidate instead of an earlier copy; no poll of an unfinished run, which is nobody's rival."""
        if not candidate.may_own and candidate.rule.stands_for is not StandsFor.RUN:
            return
        span = _span(candidate)
        if span in self._all:
            if self._all[span][1] is candidate:
                return
            self._remove(span)
        self._all[span] = (now, candidate)
        for key in _keys(candidate):
            self._put(key, candidate)

    def claim(self, run_id: str, candidate: Candidate, now: float) -> None:
        """Remember that a run was given to a candidate."""
        key = candidate.start_key
        self._claims[run_id, key] = now
        self._claims.move_to_end((run_id, key))
        self.claimed.setdefault(run_id, set()).add(key)

    def own(self, run_id: str, owner: StartKey, *, lasting: bool = True) -> None:
        """Remember on which span a run's usage left; the first is the owner. Only what is `lasting` is written down."""
        if run_id not in self.owners:
            self.owners[run_id] = owner
            if lasting:
                self.journal.append((run_id, owner))

    def leave_without(self, candidate: Candidate) -> None:
        """Remember that a candidate has left without counts, its own or its run's."""
        if self._all.get(_span(candidate), (0.0, None))[1] is candidate:
            self._without.add(id(candidate))

    def left_without(self, candidate: Candidate) -> bool:
        """Tell whether a candidate has left without counts: none can be written on it any more."""
        return id(candidate) in self._without

    def twins(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the other candidates that began with one of these."""
        return self._others(candidates, [each.start_key for each in candidates])

    def peers(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the other candidates that may want a run of one of these."""
        return self._others(candidates, [key for each in candidates for key in _keys(each)])

    def tied(self, run_ids: Iterable[str], runs: Iterable[KnownRun]) -> list[Candidate]:
        """Return the candidates that name a run, its messages, or on which it is named; `runs` are those recorded."""
        return self._at(
            [
                *(("run", run_id) for run_id in run_ids),
                *(span for run in runs for span in run.spans),
                *(("message", message_id) for run in runs for message_id in run.messages),
            ]
        )

    def carrying(self, runs: Iterable[KnownRun]) -> list[Candidate]:
        """Return the candidates that stand in a trace of one of the runs and carry its counts, in either order."""
        return self._at(
            _counts(trace_id, usage[:2]) for run in runs if (usage := run.usage) is not None for trace_id in run.traces
        )

    def near(self, runs: Iterable[KnownRun]) -> list[Candidate]:
        """Return the candidates that may turn out to be of one of the runs."""
        return self._at(
            key
            for run in runs
            for key in (
                *run.traces,
                *((service, text) for service in run.services for text in run.texts),
                *(("thread", thread_id) for thread_id in run.threads),
            )
        )

    def _others(self, candidates: Iterable[Candidate], keys: Iterable[Hashable]) -> list[Candidate]:
        own = set(map(id, candidates))
        return [each for each in self._at(keys) if id(each) not in own]

    def _at(self, keys: Iterable[Hashable]) -> list[Candidate]:
        found: dict[int, Candidate] = {}
        for key in keys:
            known = self._by.get(key)
            if isinstance(known, dict):
                found |= known
            elif known is not None:
                found[id(known)] = known
        return list(found.values())

    def _put(self, key: Hashable, candidate: Candidate) -> None:
        known = self._by.get(key)
        if isinstance(known, dict):
            known[id(candidate)] = candidate
        elif known is None or known is candidate:
            self._by[key] = candidate
        else:
            self._by[key] = {id(known): known, id(candidate): candidate}

    def _drop(self, key: Hashable, candidate: Candidate) -> None:
        known = self._by.get(key)
        if isinstance(known, dict):
            known.pop(id(candidate), None)
        if known is candidate or not known:
            self._by.pop(key, None)

    def _remove(self, span: Hashable) -> None:
        _, candidate = self._all.pop(span)
        self._without.discard(id(candidate))
        for key in _keys(candidate):
            self._drop(key, candidate)

    def forget(self, before: float, keep: int) -> None:
        """Forget what was added before a time, and the oldest of what is more than `keep`."""
        while self._all and (next(iter(self._all.values()))[0] < before or len(self._all) > keep):
            self._remove(next(iter(self._all)))
        while self._claims and (next(iter(self._claims.values())) < before or len(self._claims) > keep):
            (run_id, start), _ = self._claims.popitem(last=False)
            starts = self.claimed.get(run_id, set())
            starts.discard(start)
            if not starts:
                self.claimed.pop(run_id, None)
        # A run may be looked at again long afterwards.
        while len(self.owners) > keep:
            self.owners.popitem(last=False)


def _span(candidate: Candidate) -> Hashable:
    # Spans without ids are told apart by nothing.
    return (candidate.service, candidate.trace_id, candidate.span_id) if candidate.span_id else id(candidate)


def _keys(candidate: Candidate) -> list[Hashable]:
    return [
        candidate.trace_id,
        candidate.start_key,
        *((candidate.service, answer) for answer in candidate.answers),
        *(("thread", thread_id) for thread_id in candidate.thread_ids),
        *(("run", run_id) for run_id in candidate.run_ids),
        *(("message", message_id) for message_id in candidate.message_ids),
        (candidate.trace_id, candidate.span_id),
        *([_counts(candidate.trace_id, pair)] if (pair := candidate.own_pair) else []),
    ]


def _counts(trace_id: bytes, pair: tuple[int, int]) -> Hashable:
    return "counts", trace_id, min(pair), max(pair)
