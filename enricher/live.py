"""
The pipeline of a stage that remembers: evidence of other requests counts, and candidates may wait for it.

    request ─▶ learn ─▶ find ─▶ identity? ──yes──▶ mend ─▶ leaves now
                                   │no, and usage or model is lacking
                                   └──▶ taken out of the request ─▶ `hold` ─▶ by evidence or at its deadline ─▶ mend

Steps like those of `pipeline`: no I/O, no clock; `now` comes from outside. What is remembered is in `Memory`.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from itertools import compress
from typing import TYPE_CHECKING

from enricher.evidence.index import Index
from enricher.learn import EVIDENCE, MODEL_CALL, learn, learn_model_calls, name_of_span
from enricher.otlp import shallow
from enricher.otlp.haystack import Haystack
from enricher.otlp.search import Needles
from enricher.otlp.shallow import Signal
from enricher.outcome import ACROSS_TRACES, IDENTITY, Reason, Rung
from enricher.owners import assign, has_counts, listing_of, run_of, share
from enricher.pipeline import Processed, mend
from enricher.recent import Recent
from enricher.resolve import resolve
from enricher.rules import StandsFor
from enricher.scan import Failure, Found, find, tie_all, whole_traces
from enricher.semconv import Fact
from enricher.verdict import LATE_NS, Resolution
from enricher.waiting_spans import Waiting, take_out

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from enricher.recognise import Candidate
    from enricher.scan import Settings


@dataclass
class Memory:
    """What a running stage has seen."""

    index: Index = field(default_factory=Index)
    recent: Recent = field(default_factory=Recent)
    one_owner: bool = True
    """As in `Policy`."""
    expected: Needles | None = None
    """What is looked for in every request. Most hold none of it, which one search tells."""

    @classmethod
    def of(cls, settings: Settings) -> Memory:
        """Return the memory of a stage that has seen nothing."""
        expected = Needles((*settings.recogniser.needles, *EVIDENCE, *MODEL_CALL))
        return cls(one_owner=settings.policy.one_owner, expected=expected)


@dataclass(slots=True)
class Passing:
    """A request on its way through, split into what leaves now and what waits."""

    processed: Processed
    waiting: list[Waiting] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)
    """Runs, messages and spans of which the request said something: candidates that wait for them may go."""


def process(  # noqa: PLR0913 - the request, what is known, and the time
    signal: Signal, request: bytes, settings: Settings, memory: Memory, now: float, *, room: int
) -> Passing:
    """
    Learn from a request, mend what identity decides, and take out at most `room` candidates that have to wait.

    Raises `BadRequestError` if the bytes are not an export request; nothing of it may be forwarded then.
    """
    parsed = shallow.parse(request)
    out = Processed(request)
    passing = Passing(out)
    if signal is Signal.METRICS:
        return passing
    out.items = shallow.count(parsed)
    sought = Haystack(request, parsed, memory.expected)
    found = find(sought, settings, out.failures) if signal is Signal.TRACES else []
    candidates = tie_all(found, out.failures)
    own = {(each.trace_id, each.span_id) for each in candidates} if signal is Signal.TRACES else None
    passing.touched = learn(signal, sought, memory.index, settings, out.failures, found=found, now=now, own=own)
    if signal is Signal.TRACES:
        learn_model_calls(sought, memory.index, now)
    if not found:
        return passing
    for each in candidates:
        memory.recent.add(each, now)
    resolutions = climb(candidates, memory, None, out.failures)
    leaving_now = [
        n
        for n, each in enumerate(candidates)
        if each.rule.stands_for is StandsFor.RUN and not resolutions[n].decided and not lacks_what_matters(each)
    ]
    if leaving_now:
        # What does not wait gets what the request itself can settle.
        whole = whole_traces(parsed, {candidates[n].trace_id for n in leaving_now})
        more = climb(
            [candidates[n] for n in leaving_now],
            memory,
            lambda each, rung: each.trace_id in whole and rung not in ACROSS_TRACES,
            out.failures,
        )
        for n, resolution in zip(leaving_now, more, strict=True):
            resolutions[n] = resolution
    staying, leaving, left = _split(found, resolutions, room)
    claim([each.candidate for each in leaving if each.candidate is not None], left, memory, now)
    changed = mend(leaving, left, memory.index, settings, out)
    passing.waiting = take_out(parsed, staying)
    if changed or staying:
        out.request = parsed.SerializeToString()
        out.items -= len(staying)
    return passing


def lacks_what_matters(candidate: Candidate) -> bool:
    """Tell whether the candidate lacks its model or credible counts, under every key that could hold them."""
    return (
        candidate.own_pair is None
        or candidate.doubtful
        or Fact.REQUEST_MODEL not in candidate.own
        or Fact.RESPONSE_MODEL not in candidate.own
    )


def climb(
    candidates: Sequence[Candidate],
    memory: Memory,
    settled: Callable[[Candidate, Rung], bool] | None,
    failures: list[Failure],
) -> list[Resolution]:
    """Resolve candidates among all that may want the same runs; by identity alone where nothing is settled (None)."""
    try:
        everyone = _everyone(candidates, memory, settled)
        if settled is None:
            found = resolve(everyone, memory.index, claimed=memory.recent.claimed, identity_only=True)
        else:
            found = resolve(everyone, memory.index, settled, memory.recent.claimed)
        owned = _with_owners(everyone, found, memory, settled) if memory.one_owner else share(everyone, found)
        return owned[: len(candidates)]
    except Exception:  # noqa: BLE001 - a bug in a step must not cost a span
        failures.append(Failure("resolve", traceback.format_exc()))
        return [Resolution(Reason.STEP_FAILED)] * len(candidates)


def _everyone(
    candidates: Sequence[Candidate], memory: Memory, settled: Callable[[Candidate, Rung], bool] | None
) -> list[Candidate]:
    """Return the candidates, and behind them those that may want a run of one of them."""
    if settled is None:
        return [*candidates, *memory.recent.twins(candidates)]
    calls = [each for each in candidates if each.rule.stands_for is StandsFor.CALL]
    runs = [known for each in calls for run_id in each.run_ids if (known := memory.index.runs.get(run_id))]
    near = {id(each): each for each in memory.recent.near(runs)}
    for each in candidates:
        near.pop(id(each), None)
    wide = [*candidates, *near.values()]
    return [*wide, *memory.recent.peers(wide)]


def _with_owners(
    candidates: list[Candidate],
    found: list[Resolution],
    memory: Memory,
    settled: Callable[[Candidate, Rung], bool] | None,
) -> list[Resolution]:
    """Leave usage only with the owners of the runs, whoever of the run's spans they are."""
    within_reach = [not memory.recent.left_without(each) for each in candidates]
    candidates, found = list(compress(candidates, within_reach)), list(compress(found, within_reach))
    here = set(map(id, candidates))
    # Whose owner is known is nobody else's, whoever else there is.
    run_ids = {
        run_id
        for each, its in zip(candidates, found, strict=True)
        if each.may_own and (run_id := run_of(each, its)) and run_id not in memory.recent.owners
    }
    runs = [known for run_id in run_ids if (known := memory.index.runs.get(run_id))]
    tied = {id(each): each for each in (*memory.recent.tied(run_ids, runs), *memory.recent.carrying(runs))}
    others = [each for number, each in tied.items() if number not in here and not memory.recent.left_without(each)]
    found += resolve(others, memory.index, identity_only=True)
    return assign(
        [*candidates, *others],
        found,
        memory.index,
        memory.recent.owners,
        lambda each: settled is not None and settled(each, Rung.RUN_ID),
    )


def claim(candidates: Sequence[Candidate], resolutions: Sequence[Resolution], memory: Memory, now: float) -> None:
    """Remember which runs were given to candidates that leave, and whose their usage is."""
    for candidate, resolution in zip(candidates, resolutions, strict=True):
        if resolution.run is not None and candidate.rule.stands_for is StandsFor.RUN:
            memory.recent.claim(resolution.run.run_id, candidate, now)
        if has_counts(candidate, resolution):
            if run_id := run_of(candidate, resolution):
                memory.recent.own(run_id, candidate.span_key)
        elif not any(candidate.own_pair or ()):
            memory.recent.leave_without(candidate)
        if listing := listing_of(candidate, resolution):
            memory.recent.own(listing, candidate.span_key, lasting=False)


def is_done(candidate: Candidate, resolution: Resolution) -> bool:
    """Tell whether waiting can add nothing that matters: identity gave the counts, or nothing that matters lacks."""
    if not candidate.may_own or resolution.reason is Reason.NOT_OWNER:
        return True
    if candidate.rule.stands_for is StandsFor.CALL:
        # Whether it is the owner shows when all spans of the run have had their chance.
        return resolution.reason is Reason.STEP_FAILED or not candidate.missing
    if resolution.reason is Reason.STEP_FAILED or not lacks_what_matters(candidate):
        return True
    if resolution.reason is not Reason.ENRICHED or resolution.rung not in {*IDENTITY, Rung.SAME_START}:
        return False
    # Counts that stand beside the run's id are the run's only as long as no payload of it says otherwise.
    return resolution.run is None or resolution.run.final is not None


def waits_for(waiting: Candidate, resolution: Resolution) -> set[str]:
    """Return the runs, messages and spans whose evidence could let the candidate go."""
    run = {resolution.run.run_id} if resolution.run is not None else set()
    return {*waiting.run_ids, *waiting.message_ids, *run, name_of_span(waiting.trace_id, waiting.span_id)}


def settled_at_deadline(memory: Memory) -> Callable[[Candidate, Rung], bool]:
    """
    Return what tells, at a candidate's deadline, whether uniqueness may be believed.

    It may, unless evidence of the candidate's time has been forgotten: it may have been of a second run.
    """

    def settled(candidate: Candidate, _: Rung) -> bool:
        return candidate.start > memory.index.forgotten_until.get(candidate.service, -LATE_NS)

    return settled


def _split(
    found: Sequence[Found], resolutions: Sequence[Resolution], room: int
) -> tuple[list[Found], list[Found], list[Resolution]]:
    """Return what stays, what leaves, and the resolutions of what leaves."""
    staying: list[Found] = []
    leaving: list[Found] = []
    left: list[Resolution] = []
    resolved = iter(resolutions)
    for each in found:
        if each.candidate is None:
            leaving.append(each)
            continue
        resolution = next(resolved)
        if is_done(each.candidate, resolution) or len(staying) >= room:
            leaving.append(each)
            left.append(resolution)
        else:
            staying.append(each)
    return staying, leaving, left
