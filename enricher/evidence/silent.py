"""Runs of which no text was recorded: each may have said what a span shows, as long as it had not answered before."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from enricher.evidence.known import KnownRun

    Entry = tuple[float, int, str]

BLOCK: Final = 512
"""Runs in one block at most."""


@dataclass(slots=True)
class _Block:
    runs: list[Entry]
    began: int
    """When the first of them began."""


class SilentRuns:
    """
    Runs by service, in the order in which they answered; behind them those that have not, in that of their beginning.

    In blocks, each of which knows when the first of its runs began: what came after a span is passed over block by
    block, and a recording of many hours costs each of its spans little more than a short one.
    """

    def __init__(self) -> None:
        self._of: dict[str, list[_Block]] = {}
        self._standing: dict[str, tuple[Entry, tuple[str, ...]]] = {}

    def between(self, service: str, since: int, until: int) -> Iterator[str]:
        """Yield the runs that a service handled, that had begun by `until` and had not answered before `since`."""
        blocks = self._of.get(service, [])
        for number in range(_block_of(blocks, (since, 0, "")), len(blocks)):
            block = blocks[number]
            if block.began <= until:
                for answered, began, run_id in block.runs:
                    if answered >= since and began <= until:
                        yield run_id

    def update(self, run: KnownRun) -> None:
        """Put a run where it belongs by what is known of it now."""
        entry = (run.answered or inf, run.first, run.run_id)
        standing = None if run.texts or not run.services else (entry, run.services)
        if standing == self._standing.get(run.run_id):
            return
        self.forget(run.run_id)
        if standing is not None:
            self._standing[run.run_id] = standing
            for service in run.services:
                _add(self._of.setdefault(service, []), entry)

    def forget(self, run_id: str) -> None:
        """Forget a run, known or not."""
        if (standing := self._standing.pop(run_id, None)) is None:
            return
        entry, services = standing
        for service in services:
            blocks = self._of[service]
            _remove(blocks, entry)
            if not blocks:
                del self._of[service]


def _block_of(blocks: list[_Block], entry: Entry) -> int:
    """Return the number of the first block that ends at an entry or behind it."""
    return bisect_left(blocks, entry, key=lambda block: block.runs[-1])


def _add(blocks: list[_Block], entry: Entry) -> None:
    if not blocks:
        blocks.append(_Block([entry], entry[1]))
        return
    number = min(_block_of(blocks, entry), len(blocks) - 1)
    block = blocks[number]
    insort(block.runs, entry)
    block.began = min(block.began, entry[1])
    if len(block.runs) > BLOCK:
        halves = block.runs[: BLOCK // 2], block.runs[BLOCK // 2 :]
        blocks[number : number + 1] = [_Block(runs, min(began for _, began, _ in runs)) for runs in halves]


def _remove(blocks: list[_Block], entry: Entry) -> None:
    number = _block_of(blocks, entry)
    block = blocks[number]
    del block.runs[bisect_left(block.runs, entry)]
    if not block.runs:
        del blocks[number]
    elif block.began == entry[1]:
        block.began = min(began for _, began, _ in block.runs)
