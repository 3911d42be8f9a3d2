"""
Shows whether a stage that remembers stays as fast as it was: `python tests/benchmarks/flat.py`.

The same work is timed beside ever more remembered runs, in one process and without a network: a request whose
candidates show their run, one whose runs stand on other spans, and the look at those candidates' deadline. Every run
is another one, as in life and unlike in `run.py`, where the same requests come again.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from itertools import count

from generate import Kind, requests
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from enricher import live, scan
from enricher.config.model import Config
from enricher.memory import look_for_garbage_seldom
from enricher.otlp.shallow import Signal

KNOWN = (100, 1_000, 10_000, 50_000)
PROBES = 51

OWN, SIBLING = Kind(20, 10), Kind(20, 10, "sibling")
COLUMNS = ("payload on the span", "on a sibling", "deadline")


@dataclass
class Stage:
    """A stage without its network and its store."""

    settings: scan.Settings
    memory: live.Memory
    seeds: count[int] = field(default_factory=count)

    def take(self, kind: Kind) -> tuple[float, float]:
        """Pass a request that was never seen, and its candidates at their deadline; return the seconds of each."""
        (request,) = requests(kind, 1, seed=next(self.seeds))
        began = time.perf_counter()
        passing = live.process(Signal.TRACES, request, self.settings, self.memory, 0.0, room=1000)
        passed = time.perf_counter()
        waiting = [each.candidate for each in passing.waiting]
        if waiting:
            resolutions = live.climb(waiting, self.memory, live.settled_at_deadline(self.memory), [])
            live.claim(waiting, resolutions, self.memory, 0.0)
        return passed - began, time.perf_counter() - passed

    def remember(self, runs: int) -> None:
        """Take requests of both kinds in until so many runs have an owner."""
        while len(self.memory.recent.owners) < runs:
            self.take(OWN)
            self.take(SIBLING)

    def microseconds(self) -> list[float]:
        """Return the medians of the three columns."""
        own = [self.take(OWN)[0] for _ in range(PROBES)]
        siblings, deadlines = zip(*(self.take(SIBLING) for _ in range(PROBES)), strict=True)
        return [statistics.median(each) * 1e6 for each in (own, siblings, deadlines)]


def main() -> None:
    """Print what each piece of work costs beside so many remembered runs, and as a multiple of the least."""
    settings = scan.Settings.from_config(Config())
    stage = Stage(settings, live.Memory.of(settings))
    stage.remember(20)
    look_for_garbage_seldom()
    table = Table(title=f"us for a request of {OWN}, and at a deadline", title_justify="left", box=SIMPLE_HEAD)
    for name in ("remembered runs", *COLUMNS):
        table.add_column(name, justify="right", no_wrap=True)
    first: list[float] = []
    for known in KNOWN:
        stage.remember(known)
        found = stage.microseconds()
        first = first or found
        row = [f"{each:.0f} ({each / least:.2f}x)" for each, least in zip(found, first, strict=True)]
        table.add_row(str(len(stage.memory.recent.owners)), *row)
    Console().print(table)


if __name__ == "__main__":
    main()
