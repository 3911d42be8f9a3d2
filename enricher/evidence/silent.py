"""Runs of which no text was recorded: each may have said what a span shows, as long as it had not answered before."""

from __future__ import annotations

from bisect import bisect_left, insort
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from enricher.evidence.known import KnownRun


class SilentRuns:
    """Run ids by service, in the order in which the runs answered; behind them those that have not."""

    def __init__(self) -> None:
        self._of: dict[str, list[tuple[float, str]]] = {}
        self._standing: dict[str, tuple[float, tuple[str, ...]]] = {}

    def since(self, service: str, time: int) -> Iterator[str]:
        """Yield the runs that a service handled and that had not answered before a time."""
        runs = self._of.get(service, ())
        return (runs[i][1] for i in range(bisect_left(runs, (time,)), len(runs)))

    def update(self, run: KnownRun) -> None:
        """Put a run where it belongs by what is known of it now."""
        standing = None if run.texts or not run.services else (run.answered or inf, run.services)
        if standing == self._standing.get(run.run_id):
            return
        self.forget(run.run_id)
        if standing is not None:
            self._standing[run.run_id] = standing
            for service in standing[1]:
                insort(self._of.setdefault(service, []), (standing[0], run.run_id))

    def forget(self, run_id: str) -> None:
        """Forget a run, known or not."""
        answered, services = self._standing.pop(run_id, (0, ()))
        for service in services:
            runs = self._of[service]
            del runs[bisect_left(runs, (answered, run_id))]
            if not runs:
                del self._of[service]
