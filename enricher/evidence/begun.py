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


LONGEST: Final = (LIFETIME_NS // 1_000_000_000).bit_length()
"""The length class of the longest spans. A class is the binary digits of whole seconds."""


class BegunRuns:
    """
    Beginnings by trace and by service, in the order of time.

    Long ones stand apart from short ones, which would otherwise have to be looked through as far back as a long one may
    reach.
    """

    def __init__(self) -> None:
        self.known: Aged[Begun, KnownBegun] = Aged()
        self._of: dict[tuple[bytes | str, int], list[Begun]] = {}

    def add(self, thread_id: str, place: Place, now: float) -> None:
        """Learn of a beginning; one without a trace is none that a rung could mistake for another."""
        if not place.trace_id:
            return
        begun = Begun(place.start, place.end, thread_id, place.service, place.trace_id)
        if begun not in self.known:
            self.known[begun] = KnownBegun()
            for key in _keys(begun):
                insort(self._of.setdefault(key, []), begun)
        self.known.touch(begun, now)

    def between(self, where: bytes | str, start: int, end: int) -> Iterator[Begun]:
        """Yield what was being begun at that time in a trace or by a service."""
        for length in range(LONGEST + 1):
            begun = self._of.get((where, length), ())
            reach = min(1_000_000_000 << length, LIFETIME_NS)
            for i in range(bisect_left(begun, (start - reach,)), len(begun)):
                if begun[i].start > end:
                    break
                if begun[i].end >= start:
                    yield begun[i]

    def forget(self, begun: Begun) -> None:
        """Forget a beginning that is known."""
        del self.known[begun]
        for key in _keys(begun):
            others = self._of[key]
            del others[bisect_left(others, begun)]
            if not others:
                del self._of[key]


def _keys(begun: Begun) -> tuple[tuple[bytes, int], tuple[str, int]]:
    seconds = max(begun.end - begun.start, 0) // 1_000_000_000
    length = min(seconds.bit_length(), LONGEST)
    return (begun.trace_id, length), (begun.service, length)
