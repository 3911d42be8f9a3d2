"""Entries in the order in which they were last touched, so that the oldest can be forgotten."""

from __future__ import annotations

from collections import OrderedDict
from math import inf
from typing import Protocol, TypeVar


class Dated(Protocol):
    """An entry. `touched` is by the clock of whoever touches it; what was touched at `inf` lasts."""

    touched: float


K = TypeVar("K")
V = TypeVar("V", bound=Dated)


class Aged(OrderedDict[K, V]):
    """Touch what is put in: only then is it in its place."""

    lasting = 0
    """How many of the entries have no age."""

    def touch(self, key: K, now: float) -> None:
        """Say that something was learned of an entry."""
        entry = self[key]
        self.lasting += now == inf > entry.touched
        entry.touched = max(entry.touched, now)
        self.move_to_end(key)

    def oldest(self) -> tuple[K, float] | None:
        """Return the key that was touched longest ago, and when; None if all that is left lasts."""
        while len(self) > self.lasting:
            key, entry = next(iter(self.items()))
            if entry.touched < inf:
                return key, entry.touched
            # Behind the others, it is not met again before all of them have gone.
            self.move_to_end(key)
        return None
