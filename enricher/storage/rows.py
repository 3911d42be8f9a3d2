"""The rows that go into the store and come out of it, and what it says about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

ROW_BYTES = 200
"""About what a row takes beside its content: columns, keys and index entries."""


class HeldSpan(NamedTuple):
    """A candidate that waits for evidence, with all that is needed to put it back into a request."""

    due: float
    """When it leaves at the latest, in seconds of the wall clock."""
    trace_id: bytes
    span_id: bytes
    resource: bytes
    resource_schema_url: bytes
    scope: bytes
    scope_schema_url: bytes
    span: bytes
    facts: bytes
    """What is known of it already; the store does not look inside."""


class Batch(NamedTuple):
    """A request for one destination. Its body stays the same bytes through every try."""

    destination: str
    signal: str
    body: bytes
    items: int


class QueuedBatch(NamedTuple):
    """A batch that was claimed: until the lease ends nobody else gets it."""

    id: int
    destination: str
    signal: str
    body: bytes
    items: int
    attempt: int
    """The number of this try, 1 for the first."""
    created: float


class DeadBatch(NamedTuple):
    """A batch that was refused for good, without its body."""

    id: int
    destination: str
    signal: str
    items: int
    bytes: int
    attempt: int
    created: float
    buried: float
    reason: str
    code: int
    """The destination's status code, by number."""


class Amount(NamedTuple):
    """How much there is of something. A held span is one item; a batch has as many as were given with it."""

    rows: int = 0
    items: int = 0
    bytes: int = 0


class QueueStats(NamedTuple):
    """What waits for one destination, claimed batches included."""

    rows: int
    items: int
    bytes: int
    oldest: float | None
    """When the oldest of them was created; none where nothing waits."""


class Counts(NamedTuple):
    """Everything the store holds at one moment: held + queued + dead + quarantined items are all it ever took in."""

    held: Amount
    queued: Amount
    dead: Amount
    quarantined: Amount
    """Rows whose bytes had changed on the disk; they are kept and never delivered (F29)."""
    evidence: Amount
    queued_of: dict[tuple[str, str], Amount]
    """`queued` by destination and signal."""
    dead_of: dict[tuple[str, str], Amount]
    """`dead` by destination and signal."""
    evidence_dropped: int
    """Pieces of evidence that were not written, since `open`."""
    used_bytes: int
    file_bytes: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Recovery:
    """What `open` found. Worth a line in the log; an ERROR where there are problems."""

    held: int
    queued: int
    dead: int
    quarantined: int
    requeued: int
    """Batches that were claimed when the last process stopped; they are delivered again (F18)."""
    destinations: tuple[str, ...]
    """Those that batches wait for, which the configuration may no longer know."""
    was_clean: bool
    """Whether the last process closed the store; a new one counts as clean."""
    set_aside: tuple[Path, ...]
    """Files that could not be used, under their new names (F27)."""
    lost_rows: int
    """Rows that were there and are not now, as far as is known (F28)."""
    problems: tuple[str, ...]
    """A sentence for each thing that was wrong."""
