"""
A whole recording as one world: evidence in any request serves spans in any other, earlier or later.

The same steps as `pipeline.process`, in two passes over the requests: first everything is learned, then everything
is mended. Memory holds facts and candidates, never the requests themselves.
"""

from __future__ import annotations

import traceback
from collections import deque
from typing import TYPE_CHECKING

from enricher.evidence.index import Index
from enricher.learn import learn, learn_model_calls
from enricher.otlp import shallow
from enricher.otlp.haystack import Haystack
from enricher.otlp.shallow import Signal
from enricher.outcome import Reason
from enricher.owners import assign, share
from enricher.pipeline import Processed, mend
from enricher.resolve import resolve
from enricher.scan import Failure, find, tie_all
from enricher.verdict import Resolution

if TYPE_CHECKING:
    from enricher.evidence.collect import Evidence
    from enricher.recognise import Candidate
    from enricher.scan import Settings


class World:
    """Learn every request, then mend every request in the same order."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._index = Index()
        self._candidates: list[Candidate] = []
        self._resolutions: deque[Resolution] | None = None
        self.failures: list[Failure] = []

    def add(self, evidence: Evidence) -> None:
        """Learn what was recorded beside telemetry. Before the first `mend`."""
        self._index.add(evidence, 0.0)

    def learn(self, signal: Signal, request: bytes) -> None:
        """First pass. Raises `BadRequestError`, and then `mend` of the same bytes will too."""
        parsed = shallow.parse(request)
        if signal is Signal.METRICS:
            return
        sought = Haystack(request, parsed)
        found = find(sought, self._settings, []) if signal is Signal.TRACES else []
        learn(signal, sought, self._index, self._settings, self.failures, found=found)
        if signal is Signal.LOGS:
            return
        learn_model_calls(sought, self._index)
        self._candidates += tie_all(found, self.failures)

    def mend(self, signal: Signal, request: bytes) -> Processed:
        """Second pass: return the request mended by all that was learned."""
        parsed = shallow.parse(request)
        out = Processed(request, 0 if signal is Signal.METRICS else shallow.count(parsed))
        if self._resolutions is None:
            self._resolutions = deque(self._resolve())
        if signal is not Signal.TRACES:
            return out
        found = find(Haystack(request, parsed), self._settings, out.failures)
        mine = [self._resolutions.popleft() for _ in tie_all(found, [])]
        if mend(found, mine, self._index, self._settings, out):
            out.request = parsed.SerializeToString()
        return out

    def _resolve(self) -> list[Resolution]:
        try:
            resolutions = resolve(self._candidates, self._index)
            if self._settings.policy.one_owner:
                return assign(self._candidates, resolutions, self._index)
            return share(self._candidates, resolutions)
        except Exception:  # noqa: BLE001 - a bug in a step must not cost a span
            self.failures.append(Failure("resolve", traceback.format_exc()))
            return [Resolution(Reason.STEP_FAILED)] * len(self._candidates)
