"""
Spans that wait: taken out of their request, and put into one again when they leave.

What stood above a span waits with it as the bytes that came, so that it can leave alone or with others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from enricher.deliver.lanes import MAX_BYTES
from enricher.otlp import shallow
from enricher.pipeline import Processed, mend
from enricher.scan import Found

if TYPE_CHECKING:
    from collections.abc import Sequence

    from enricher.evidence.index import Index
    from enricher.outcome import Outcome
    from enricher.recognise import Candidate
    from enricher.scan import Failure, Settings
    from enricher.verdict import Resolution

Above = tuple[bytes, bytes, bytes, bytes]
"""Resource and scope, each with its schema URL."""


class Waiting(NamedTuple):
    """A candidate that was taken out of its request, with what stood above it."""

    candidate: Candidate
    resource: bytes
    resource_schema_url: bytes
    scope: bytes
    scope_schema_url: bytes
    span: bytes


def take_out(parsed: shallow.Request, staying: Sequence[Found]) -> list[Waiting]:
    """Remove spans from the request, and scopes and resources that are empty then; return them."""
    if not staying:
        return []
    taken: list[Waiting] = []
    for at in reversed(range(len(parsed.resourced))):
        resourced = parsed.resourced[at]
        for number in reversed(range(len(resourced.scoped))):
            scoped = resourced.scoped[number]
            mine = [each for each in staying if each.items is scoped.items]
            above = (resourced.resource, resourced.schema_url, scoped.scope, scoped.schema_url)
            for each in sorted(mine, key=lambda each: -each.at):
                if each.candidate is not None:
                    resource, resource_url, scope, scope_url = map(shallow.merged, above)
                    span = scoped.items[each.at]
                    taken.append(Waiting(each.candidate, resource, resource_url, scope, scope_url, span))
                del scoped.items[each.at]
            if mine and not scoped.items:
                del resourced.scoped[number]
        if not resourced.scoped:
            del parsed.resourced[at]
    return taken[::-1]


def released(
    waiting: Sequence[Waiting], resolutions: Sequence[Resolution], settings: Settings, index: Index
) -> tuple[list[tuple[bytes, list[int]]], list[Outcome], list[Failure]]:
    """
    Return requests with the waiting spans mended, and their outcomes; spans of one resource and scope together.

    Beside each request are the numbers of its spans among those that wait, in its order. Resource and scope are the
    bytes that they came as. No request is larger than downstream takes, unless a span is.
    """
    requests: list[tuple[bytes, list[int]]] = []
    outcomes: list[Outcome] = []
    failures: list[Failure] = []
    for above, numbers in _together(waiting):
        parsed = shallow.assemble(*above, [waiting[number].span for number in numbers])
        items = parsed.resourced[0].scoped[0].items
        found = [Found(items, at, waiting[number].candidate) for at, number in enumerate(numbers)]
        out = Processed(b"")
        mend(found, [resolutions[number] for number in numbers], index, settings, out)
        requests.append((parsed.SerializeToString(), numbers))
        outcomes += out.outcomes
        failures += out.failures
    return requests, outcomes, failures


def _together(waiting: Sequence[Waiting]) -> list[tuple[Above, list[int]]]:
    """Return which spans leave in one request: those under the same resource and scope, up to what one may hold."""
    groups: list[tuple[Above, list[int]]] = []
    latest: dict[Above, tuple[list[int], int]] = {}
    for number, each in enumerate(waiting):
        above = each[1:5]
        numbers, size = latest.get(above, ([], 0))
        if not numbers or size + len(each.span) > MAX_BYTES:
            numbers, size = [], 0
            groups.append((above, numbers))
        numbers.append(number)
        latest[above] = numbers, size + len(each.span)
    return groups
