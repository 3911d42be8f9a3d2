"""What became of the items that were to be delivered to one destination, in whole numbers since the start."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from enricher.otlp.shallow import Signal

_log = structlog.get_logger()


@dataclass(slots=True)
class Counts:
    """Items are spans, log records or metrics. sent + rejected + dead + what waits in the store is all that came."""

    taken: Counter[Signal] = field(default_factory=Counter)
    """Items that were delivered or committed, straight from their request."""
    sent: Counter[Signal] = field(default_factory=Counter)
    rejected: Counter[Signal] = field(default_factory=Counter)
    """Items that downstream named in a partial success: taken as answered, not sent again (CLI-07)."""
    died: Counter[Signal] = field(default_factory=Counter)
    """Items that became dead letters."""
    send_failed: Counter[Signal] = field(default_factory=Counter)
    """Items of each try that failed; one that is tried three times counts three times."""
    enqueue_failed: Counter[Signal] = field(default_factory=Counter)
    """Items that could be neither delivered nor kept, and whose clients were told so."""
    splits: int = 0
    in_flight: int = 0
    """Requests that downstream has not answered yet."""

    def delivered(self, signal: Signal, items: int, rejected: tuple[int, str]) -> None:
        """Count what downstream took, and say it if that is not all."""
        number, message = rejected
        refused = min(number, items)
        self.sent[signal] += items - refused
        self.rejected[signal] += refused
        if number or message:
            _log.warning(
                "downstream took a request in part", signal=signal.value, rejected=number, message=message[:256]
            )

    def failed(self, signal: Signal, items: int) -> None:
        """Count a try that failed."""
        self.send_failed[signal] += items

    def dead(self, signal: Signal, items: int) -> None:
        """Count what was refused for good."""
        self.died[signal] += items
