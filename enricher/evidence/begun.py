"""Runs that were begun without anything saying which: an HTTP path shows the beginning, and no answer was recorded."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from enricher.evidence.aged import Aged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from enricher.evidence.collect import Place

LIFETIME_NS: Final = 600_000_000_000
"""How long after its beginning a run ends at the latest: the API lets it expire."""


class Begun(NamedTuple):
    """One beginning. Times are those of the span that shows it, in ns; by the first of them it is ordered."""

    start: int
    end: int
    thread_id: str
    service: str
    trace_id: bytes


@dataclass(slots=True)
class KnownBegun:
    """Its age, by the clock of whoever adds it."""

    touched: float = 0.0


class BegunRuns:
    """Beginnings by trace and by service, in the order of time."""

    def __init__(self) -> None:
        self.known: Aged[Begun, KnownBegun] = Aged()
        self._of: dict[bytes | str, list[Begun]] = {}

    def add(self, thread_id: str, place: Place, now: float) -> None:
        """Learn of a beginning; one without a trace is none that a rung could mistake for another."""
        if not place.trace_id:
            return
        begun = Begun(place.start, place.end, thread_id, place.service, place.trace_id)
        if begun not in self.known:
            self.known[begun] = KnownBegun()
            for where in (begun.trace_id, begun.service):
                insort(self._of.setdefault(where, []), begun)
        self.known.touch(begun, now)

    def between(self, where: bytes | str, start: int, end: int) -> Iterator[Begun]:
        """Yield what was being begun at that time in a trace or by a service."""
        begun = self._of.get(where, ())
        for i in range(bisect_left(begun, (start - LIFETIME_NS,)), len(begun)):
            if begun[i].start > end:
                return
            if begun[i].end >= start:
                yield begun[i]

    def forget(self, begun: Begun) -> None:
        """Forget a beginning that is known."""
        del self.known[begun]
        for where in (begun.trace_id, begun.service):
            others = self._of[where]
            del others[bisect_left(others, begun)]
            if not others:
                del self._of[where]
