"""
A request in which items are found by bytes that they hold: the request is searched once for each needle, as a whole.

A hit's position tells the item, because the n-th element on the wire is the n-th that was parsed. Only the scopes that
have a hit are walked, and only along the lengths of their items.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from enricher.otlp import search, varint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from enricher.otlp.search import Needles
    from enricher.otlp.shallow import Request


class Haystack:
    """
    `parsed` is `request` parsed, and unchanged for as long as something is looked for.

    `expected` are needles that will be looked for: one search tells that the request holds none of them, as most do.
    """

    def __init__(self, request: bytes, parsed: Request, expected: Needles | None = None) -> None:
        self.request, self.parsed = request, parsed
        self._layout: _Layout | None = None
        self._absent = frozenset[bytes]() if expected is None or expected.any_in(request) else expected.all

    def holds_any(self, needles: Sequence[bytes]) -> bool:
        """Tell whether the request holds one of the needles, be it outside of any item."""
        return search.contains_any(self.request, needles)

    def holding(self, needles: Sequence[bytes]) -> dict[tuple[int, int], list[int]]:
        """Return which items hold one of the needles: their positions, by the numbers of their resource and scope."""
        found: set[tuple[int, int, int]] = set()
        for needle in needles:
            hit = -1 if needle in self._absent else search.find(self.request, needle)
            if hit < 0:
                continue
            try:
                self._layout = self._layout or _Layout(self.request)
                found.update(self._layout.holding(needle, hit))
            except (IndexError, ValueError):
                found.update(self._looked_into(needle))
        out: dict[tuple[int, int], list[int]] = {}
        for r, s, at in sorted(found):
            out.setdefault((r, s), []).append(at)
        return out

    def _looked_into(self, needle: bytes) -> Iterator[tuple[int, int, int]]:
        for r, resourced in enumerate(self.parsed.resourced):
            for s, scoped in enumerate(resourced.scoped):
                yield from ((r, s, at) for at, item in enumerate(scoped.items) if needle in item)


class _Layout:
    """Where scopes and items stand. Raises `ValueError` or `IndexError` where it cannot tell, as at groups."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._scopes = [
            (start, end, r, s)
            for r, resourced in enumerate(_fields(request, 0, len(request), 0x0A))
            for s, (start, end) in enumerate(_fields(request, *resourced, 0x12))
        ]
        self._starts = [start for start, *_ in self._scopes]
        self._items: dict[int, list[tuple[int, int]]] = {}

    def holding(self, needle: bytes, hit: int) -> Iterator[tuple[int, int, int]]:
        """Yield the places of the items that hold the needle, which first stands at `hit`."""
        if not needle:
            raise ValueError(needle)
        while hit >= 0:
            after = self._beginning_behind(hit)
            number = bisect_right(self._starts, hit) - 1
            if number >= 0 and hit < self._scopes[number][1]:
                items = self._items_of(number)
                at = bisect_right(items, (hit, len(self._request))) - 1
                if at >= 0 and hit < items[at][1]:
                    is_inside = hit + len(needle) <= items[at][1]
                    if is_inside:
                        yield *self._scopes[number][2:], at
                    after = items[at][1] if is_inside else hit + 1
                elif at + 1 < len(items):
                    after = items[at + 1][0]
            hit = search.find(self._request, needle, after)

    def _beginning_behind(self, hit: int) -> int:
        """Return where the next scope starts: what stands between items may hold a needle a million times."""
        behind = bisect_right(self._starts, hit)
        return self._starts[behind] if behind < len(self._starts) else len(self._request)

    def _items_of(self, number: int) -> list[tuple[int, int]]:
        items = self._items.get(number)
        if items is None:
            items = self._items[number] = _fields(self._request, *self._scopes[number][:2], 0x12)
        return items


def _fields(data: bytes, at: int, end: int, wanted: int) -> list[tuple[int, int]]:
    """Return the start and end of each field of one tag, a byte, in a message."""
    found: list[tuple[int, int]] = []
    while at < end:
        if data[at] != wanted:
            at = _behind(data, at, wanted)
            continue
        size = data[at + 1]
        at += 2
        if size > 0x7F:
            # Two bytes of length are what nearly every item has, and a call for each takes longer than the walk.
            high = data[at]
            size, at = (size & 0x7F | high << 7, at + 1) if high < 0x80 else varint.read(data, at - 1)
        found.append((at, at + size))
        at += size
    if at != end:
        raise ValueError(at)
    return found


def _behind(data: bytes, at: int, wanted: int) -> int:
    """Return where a field of another tag ends."""
    tag, at = varint.read(data, at)
    match tag & 7:
        case 0:
            return varint.read(data, at)[1]
        case 1:
            return at + 8
        case 2 if tag != wanted:
            size, at = varint.read(data, at)
            return at + size
        case 5:
            return at + 4
        case _:
            raise ValueError(tag)
