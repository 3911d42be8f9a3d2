"""
Keeping candidates until evidence comes or their deadline does.

    consume ─▶ live.process ─▶ commit what waits ─▶ (the rest leaves) ─▶ acknowledge
                                     │
       evidence for it arrives ──────┤ identity decides ─▶ release
       its deadline comes ───────────┘ uniqueness too   ─▶ release = one transaction: out of hold, into the queue

Every held span is in the store before its request is acknowledged, and leaves it only by a release, so that exactly
one copy comes out however the process ends. Times inside the process are of the event loop's clock; the store keeps
wall time, and a restart takes the earlier of what it says and a full wait.
"""

from __future__ import annotations

import asyncio
import heapq
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

import structlog

from enricher import live
from enricher.evidence import codec
from enricher.live import Memory
from enricher.otlp import shallow
from enricher.otlp.haystack import Haystack
from enricher.outcome import Reason
from enricher.releases import Releases
from enricher.scan import find, tie_all
from enricher.storage import HeldSpan, StoreError
from enricher.verdict import Resolution
from enricher.waiting_spans import Waiting, released

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from enricher.config.model import HoldConfig
    from enricher.evidence.collect import Evidence
    from enricher.otlp.shallow import Signal
    from enricher.outcome import Outcome
    from enricher.scan import Failure, Settings
    from enricher.storage import Store

TICK = 0.05
"""Seconds between looks at deadlines, and between commits of evidence: what comes or is due together goes together."""

MAX_EVIDENCE = 200_000
"""Pieces of evidence kept at most, some 1.5 KiB each, and as many again that payload files say."""

MAX_RECENT = 100_000

_log = structlog.get_logger()


@dataclass(slots=True)
class Counts:
    """What became of candidates that had to wait."""

    held: int = 0
    released_by_evidence: int = 0
    released_at_deadline: int = 0
    bypassed: int = 0
    """Passed on at once, because there was no room to hold them."""
    late: int = 0
    """Evidence of a run whose span had left without it."""


@dataclass(slots=True, eq=False)
class _Held:
    row: int
    waiting: Waiting
    due: float
    size: int
    ids: set[str]


class Hold:
    """
    A component: `start` takes over what the store holds, `shutdown` leaves what still waits in the store.

    `note` is told the outcomes of released spans and the failures of steps; `queued` is called after a release.
    """

    def __init__(  # noqa: PLR0913 - what it stands between
        self,
        config: HoldConfig,
        settings: Settings,
        store: Store,
        destinations: Sequence[str],
        *,
        note: Callable[[Sequence[Outcome], Sequence[Failure]], None],
        queued: Callable[[], None],
    ) -> None:
        self._config, self._settings, self._store = config, settings, store
        self._note = note
        self.memory = Memory.of(settings)
        self.counts = Counts()
        self._held: dict[int, _Held] = {}
        self._bytes = 0
        self._waiting_for: dict[str, set[_Held]] = {}
        self._deadlines: list[tuple[float, int]] = []
        self._left_without: dict[str, None] = {}
        self._files_are_full = False
        self._ticking: asyncio.Task[None] | None = None
        self._releases = Releases(store, destinations, queued)

    async def start(self) -> None:
        """Take over what the store holds and remembers, and begin to watch deadlines."""
        loop = asyncio.get_running_loop()
        wall, now = self._store.clock(), loop.time()
        for data in await self._store.recall(wall):
            evidence, owned = codec.unpack(data), codec.unpack_owner(data)
            if evidence is not None:
                self.memory.index.add(evidence, now)
            elif owned is not None:
                self.memory.recent.own(*owned)
        for row, span in await self._store.held():
            wait = min(max(span.due - wall, 0.0), self._config.wait_duration)
            self._take_over(row, span, now + wait)
        self.memory.index.journal, self.memory.recent.journal = [], []
        # What was seen before the stop may decide, or name the run whose evidence is still to come.
        self._release_decided(list(self._held.values()))
        self._ticking = asyncio.create_task(self._tick())

    async def shutdown(self) -> None:
        """Stop. What waits stays in the store, and leaves it after the next start."""
        if self._ticking is not None:
            self._ticking.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticking
            self._ticking = None
        await self._releases.shutdown()
        self._write_down()

    def process(self, signal: Signal, request: bytes) -> live.Passing:
        """Run a request through the steps. Raises `BadRequestError`; nothing of it may be forwarded then."""
        now = asyncio.get_running_loop().time()
        full = self._bytes >= self._config.max_size_mib << 20
        room = 0 if full or not self._store.healthy else max(self._config.max_spans - len(self._held), 0)
        passing = live.process(signal, request, self._settings, self.memory, now, room=room)
        if room == 0:
            self.counts.bypassed += sum(bool(outcome.still_lacks) for outcome in passing.processed.outcomes)
        return passing

    async def commit(self, waiting: Sequence[Waiting]) -> list[int]:
        """
        Write candidates into the store and return their rows. They wait from `admit` on.

        Raises `StoreError`: the request must not be acknowledged then.
        """
        due = self._store.clock() + self._config.wait_duration
        return await self._store.hold(
            [
                HeldSpan(
                    due,
                    each.candidate.trace_id,
                    each.candidate.span_id,
                    each.resource,
                    each.resource_schema_url,
                    each.scope,
                    each.scope_schema_url,
                    each.span,
                    b"",
                )
                for each in waiting
            ]
        )

    def give_up(self, waiting: Sequence[Waiting]) -> list[tuple[bytes, int]]:
        """Return requests with candidates that cannot be held, mended by what is known now, and how many they are."""
        failures: list[Failure] = []
        candidates = [each.candidate for each in waiting]
        resolutions = live.climb(candidates, self.memory, None, failures)
        requests, outcomes, more = released(waiting, resolutions, self._settings, self.memory.index)
        live.claim(candidates, resolutions, self.memory, asyncio.get_running_loop().time())
        self.counts.bypassed += len(waiting)
        self._note(outcomes, [*failures, *more])
        return [(body, len(numbers)) for body, numbers in requests]

    async def withdraw(self, rows: Sequence[int]) -> None:
        """Take candidates out of the store again: their request was refused, and the client has it still."""
        try:
            await self._store.release(rows, [])
        except StoreError:
            # The client is not to wait for it.
            self._releases.begin([(b"", [*rows])])

    def admit(self, rows: Sequence[int], waiting: Sequence[Waiting]) -> None:
        """Let committed candidates wait; their request is as good as acknowledged."""
        due = asyncio.get_running_loop().time() + self._config.wait_duration
        self.counts.held += len(rows)
        for row, each in zip(rows, waiting, strict=True):
            self._add(row, each, due)
        # Evidence may have come while they were being written.
        self._release_decided([self._held[row] for row in rows if row in self._held])

    def learned(self, touched: Iterable[str]) -> None:
        """Let those go for which evidence came."""
        ready: dict[int, _Held] = {}
        for name in touched:
            for each in self._waiting_for.get(name, ()):
                ready[each.row] = each
            self.counts.late += name in self._left_without
        self._release_decided(list(ready.values()))

    def add_evidence(self, evidence: Evidence) -> None:
        """Learn what a payload file says. It is never forgotten, because the file is not read again."""
        if self.memory.index.lasting < MAX_EVIDENCE:
            self.learned(self.memory.index.add(evidence, inf))
        elif not self._files_are_full:
            self._files_are_full = True
            _log.warning("payload files say more than is kept in memory; the rest is left out", kept=MAX_EVIDENCE)

    # ---- inside

    def _add(self, row: int, waiting: Waiting, due: float) -> None:
        ids = live.waits_for(waiting.candidate, Resolution(Reason.PAYLOAD_ABSENT))
        held = _Held(row, waiting, due, len(waiting.span) + len(waiting.resource), ids)
        self._held[row] = held
        self._bytes += held.size
        heapq.heappush(self._deadlines, (due, row))
        for name in ids:
            self._waiting_for.setdefault(name, set()).add(held)

    def _remove(self, held: _Held) -> None:
        del self._held[held.row]
        self._bytes -= held.size
        for name in held.ids:
            waiters = self._waiting_for.get(name, set())
            waiters.discard(held)
            if not waiters:
                self._waiting_for.pop(name, None)

    def _take_over(self, row: int, span: HeldSpan, due: float) -> None:
        parsed = shallow.assemble(
            span.resource, span.resource_schema_url, span.scope, span.scope_schema_url, [span.span]
        )
        request = parsed.SerializeToString()
        failures: list[Failure] = []
        candidates = tie_all(find(Haystack(request, parsed), self._settings, failures), failures)
        self._note([], failures)
        if not candidates:
            # The rule that recognised it is gone: it leaves as it came.
            self._releases.begin([(request, [row])])
            return
        above = (span.resource, span.resource_schema_url, span.scope, span.scope_schema_url)
        self._add(row, Waiting(candidates[0], *above, span.span), due)
        self.memory.recent.add(candidates[0], asyncio.get_running_loop().time())

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK)
            now = loop.time()
            due: list[_Held] = []
            while self._deadlines and self._deadlines[0][0] <= now:
                _, row = heapq.heappop(self._deadlines)
                if (held := self._held.get(row)) is not None:
                    due.append(held)
            try:
                if due:
                    self._release_due(due)
                self._write_down()
                self.memory.index.forget(now - self._config.evidence_ttl, MAX_EVIDENCE)
                self.memory.recent.forget(now - self._config.evidence_ttl, MAX_RECENT)
                while len(self._left_without) > MAX_RECENT:
                    del self._left_without[next(iter(self._left_without))]
            except Exception:  # noqa: BLE001 - whatever happens, the others' deadlines come
                _log.exception("what was due could not be done; candidates that were to leave are tried again")
                for held in due:
                    if held.row in self._held:
                        heapq.heappush(self._deadlines, (now + 1.0, held.row))

    def _release_decided(self, held: Sequence[_Held]) -> None:
        """Release those of the candidates that identity now decides; let the others wait for what it found."""
        if not held:
            return
        failures: list[Failure] = []
        candidates = [each.waiting.candidate for each in held]
        resolutions = live.climb(candidates, self.memory, None, failures)
        done = []
        for each, resolution in zip(held, resolutions, strict=True):
            if live.is_done(each.waiting.candidate, resolution):
                done.append((each, resolution))
            else:
                for name in live.waits_for(each.waiting.candidate, resolution) - each.ids:
                    each.ids.add(name)
                    self._waiting_for.setdefault(name, set()).add(each)
        self.counts.released_by_evidence += len(done)
        self._note([], failures)
        self._release(done)

    def _release_due(self, due: Sequence[_Held]) -> None:
        failures: list[Failure] = []
        candidates = [each.waiting.candidate for each in due]
        resolutions = live.climb(candidates, self.memory, live.settled_at_deadline(self.memory), failures)
        self.counts.released_at_deadline += len(due)
        self._note([], failures)
        self._release(list(zip(due, resolutions, strict=True)))

    def _release(self, decided: Sequence[tuple[_Held, Resolution]]) -> None:
        if not decided:
            return
        waiting = [held.waiting for held, _ in decided]
        resolutions = [resolution for _, resolution in decided]
        requests, outcomes, failures = released(waiting, resolutions, self._settings, self.memory.index)
        candidates = [each.candidate for each in waiting]
        live.claim(candidates, resolutions, self.memory, asyncio.get_running_loop().time())
        for held, resolution in decided:
            self._remove(held)
            if resolution.usage is None and resolution.reason is not Reason.NOT_OWNER:
                self._left_without |= dict.fromkeys(held.ids)
        self._note(outcomes, failures)
        self._releases.begin([(body, [decided[number][0].row for number in numbers]) for body, numbers in requests])

    def _write_down(self) -> None:
        seen, owned = self.memory.index.journal or [], self.memory.recent.journal
        if seen or owned:
            # Before anything can fail: what cannot be written is not tried again with each tick, and more behind it.
            self.memory.index.journal, self.memory.recent.journal = [], []
            expires = self._store.clock() + self._config.evidence_ttl
            packed = [*map(codec.pack, seen), *(codec.pack_owner(*each) for each in owned)]
            self._store.remember([(expires, data) for data in packed])
