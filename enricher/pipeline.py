"""
The page to read first: the way of the data, top to bottom.

    receive ─▶ scan ─▶ recognise ─▶ collect evidence ─▶ resolve ─▶ write ─▶ deliver
               └──── nothing of interest: the same bytes ────────────────────▶

`process` takes one export request as bytes and returns it as bytes, mended. `world.py` does the same for a whole
recording, of which every part may serve as evidence for every other. Both run the same steps; neither does I/O, logs
or looks at a clock. What went wrong inside a step comes back as a `Failure`, and the span it concerns as it was.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from enricher import write
from enricher.defects import REPEATED_USAGE
from enricher.evidence.index import Index
from enricher.learn import learn, learn_found, learn_model_calls, stands_elsewhere
from enricher.otlp import shallow
from enricher.otlp.haystack import Haystack
from enricher.otlp.shallow import Signal
from enricher.outcome import ACROSS_TRACES, Outcome, Reason
from enricher.owners import assign, share
from enricher.resolve import resolve
from enricher.scan import Failure, Found, Settings, find, tie_all, whole_traces
from enricher.verdict import Resolution

if TYPE_CHECKING:
    from collections.abc import Sequence

    from enricher.recognise import Candidate


@dataclass(slots=True)
class Processed:
    """A request on its way out."""

    request: bytes
    items: int = 0
    """Spans or log records in it; 0 for metrics, which are not counted."""
    outcomes: list[Outcome] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def process(signal: Signal, request: bytes, settings: Settings) -> Processed:
    """
    Mend one request by what it holds itself.

    Raises `BadRequestError` if the bytes are not an export request; nothing of it may be forwarded then.
    """
    parsed = shallow.parse(request)
    if signal is Signal.METRICS:
        return Processed(request)
    out = Processed(request, shallow.count(parsed))
    sought = Haystack(request, parsed)
    if signal is Signal.LOGS or not (found := find(sought, settings, out.failures)):
        return out
    candidates = [each.candidate for each in found if each.candidate is not None]
    resolutions: list[Resolution] = []
    index = Index()
    try:
        if not stands_elsewhere(sought, found):
            for each in found:
                learn_found(each, index, settings, out.failures)
            resolutions = resolve(candidates, index, lambda *_: False)
        if not resolutions or not all(each.reason is Reason.ENRICHED for each in resolutions):
            index = Index()
            candidates = tie_all(found, out.failures)
            learn(signal, sought, index, settings, out.failures, found=found)
            if any(trace.bare for trace in index.traces.values()):
                learn_model_calls(sought, index)
            whole = whole_traces(parsed, {each.trace_id for each in candidates})
            # What spans traces may lie in any other request: without memory that cannot be settled.
            resolutions = resolve(
                candidates, index, lambda each, rung: each.trace_id in whole and rung not in ACROSS_TRACES
            )
        if settings.policy.one_owner:
            # A span with a better claim may be in any other request.
            resolutions = assign(candidates, resolutions, index, settled=lambda _: False)
        else:
            resolutions = share(candidates, resolutions)
    except Exception:  # noqa: BLE001 - a bug in a step must not cost a span
        out.failures.append(Failure("resolve", traceback.format_exc()))
        resolutions = [Resolution(Reason.STEP_FAILED)] * len(candidates)
    if mend(found, resolutions, index, settings, out):
        out.request = parsed.SerializeToString()
    # What fails on a span's own evidence fails again when all is looked at; it is told once.
    out.failures = list(dict.fromkeys(out.failures))
    return out


def mend(
    found: Sequence[Found], resolutions: Sequence[Resolution], index: Index, settings: Settings, out: Processed
) -> bool:
    """Write what was resolved into the request's items; tell whether any byte of it changed."""
    changed = False
    resolved = iter(resolutions)
    for each in found:
        if each.candidate is None:
            out.outcomes.extend([each.outcome] if each.outcome else [])
            continue
        resolution = next(resolved)
        if resolution.reason is Reason.STEP_FAILED:
            out.outcomes.append(_outcome(each.candidate, resolution, write.Change(Reason.STEP_FAILED)))
            continue
        try:
            azure = resolution.run is None and index.in_trace(each.candidate.trace_id).azure
            change = write.plan(each.candidate, resolution, settings.policy, azure=azure)
            mended = write.apply(each.items[each.at], change, settings.policy, resolution.place)
        except Exception:  # noqa: BLE001 - a bug in a step must not cost a span
            out.failures.append(Failure(f"write span {each.candidate.span_id.hex()}", traceback.format_exc()))
            failed = Reason.STEP_FAILED
            out.outcomes.append(_outcome(each.candidate, Resolution(failed), write.Change(failed)))
            continue
        out.outcomes.append(_outcome(each.candidate, resolution, change))
        if change.inserted or change.overwritten:
            each.items[each.at] = mended
            changed = True
    return changed


def _defects(candidate: Candidate, resolution: Resolution, change: write.Change) -> tuple[str, ...]:
    if not change.confirmed and not resolution.repeats:
        return candidate.defects
    repeated = (REPEATED_USAGE,) if resolution.repeats else ()
    return tuple(dict.fromkeys((*candidate.defects, *change.confirmed, *repeated)))


def _outcome(candidate: Candidate, resolution: Resolution, change: write.Change) -> Outcome:
    return Outcome(
        trace_id=candidate.trace_id.hex(),
        span_id=candidate.span_id.hex(),
        span_name=candidate.span_name,
        service=candidate.service,
        scope=candidate.scope,
        rule=candidate.rule.name,
        reason=change.reason,
        missing=candidate.missing,
        rung=resolution.rung,
        run_id=resolution.run.run_id if resolution.run else "",
        place=resolution.place,
        considered=resolution.considered,
        inserted=change.inserted + change.overwritten,
        replaced=change.replaced,
        defects=_defects(candidate, resolution, change),
        confirmed=change.confirmed,
        start=candidate.start,
        standing=candidate.standing,
    )
