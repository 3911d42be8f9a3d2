"""A stage that remembers, without its store and its clock: candidates wait until all has arrived."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enricher import live
from enricher.live import Memory
from enricher.waiting_spans import Waiting, released

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from enricher.otlp.shallow import Signal
    from enricher.scan import Settings


def through_memory(
    requests: Iterable[tuple[Signal, bytes]],
    settings: Settings,
    *,
    room: int = 1000,
    deadlines: Collection[int] = (),
) -> tuple[list[tuple[Signal, bytes]], list[bytes]]:
    """
    Return what left with its request, and what left later, by identity as soon as it could or at a deadline.

    Everything that waits is due at the end, and after each of the requests whose numbers are `deadlines`.
    """
    memory = Memory.of(settings)
    waiting: list[Waiting] = []
    passed: list[tuple[Signal, bytes]] = []
    left: list[bytes] = []
    failures: list[object] = []
    for number, (signal, request) in enumerate(requests):
        passing = live.process(signal, request, settings, memory, float(number), room=room)
        assert not passing.processed.failures
        passed.append((signal, passing.processed.request))
        waiting += passing.waiting
        resolutions = live.climb([each.candidate for each in waiting], memory, None, failures)
        if number in deadlines:
            due = live.settled_at_deadline(memory)
            resolutions = live.climb([each.candidate for each in waiting], memory, due, failures)
        done = [
            number in deadlines or live.is_done(each.candidate, found)
            for each, found in zip(waiting, resolutions, strict=True)
        ]
        left += _release(waiting, resolutions, settings, memory, done)
        waiting = [each for each, is_done in zip(waiting, done, strict=True) if not is_done]
    resolutions = live.climb([each.candidate for each in waiting], memory, live.settled_at_deadline(memory), failures)
    left += _release(waiting, resolutions, settings, memory, [True] * len(waiting))
    assert not failures
    return passed, left


def _release(waiting, resolutions, settings, memory, which):
    chosen = [n for n, is_chosen in enumerate(which) if is_chosen]
    live.claim([waiting[n].candidate for n in chosen], [resolutions[n] for n in chosen], memory, 0.0)
    requests, _, failures = released(
        [waiting[n] for n in chosen], [resolutions[n] for n in chosen], settings, memory.index
    )
    assert not failures
    return [body for body, _ in requests]
