"""
Requests that arrive while a call is under way leave together in the next: concatenated export requests are their merge.

    arrives ─▶ nothing under way? ──yes──▶ leaves now
                    │no
                    └──▶ gathered ──▶ a call ends, or what is gathered is large or old ──▶ leaves

So an idle stage adds no delay, and a busy one makes fewer calls. Against a fast downstream little would gather during
a call, so calls that carry several requests are paced as well (decision 0005). One lane a signal.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from enricher.otlp.shallow import Signal

MAX_BYTES: Final = 2 << 20
"""A group ends before it gets larger: 4 MiB is what gRPC servers take by default."""

LARGE_BYTES: Final = 256 << 10
LARGE_REQUESTS: Final = 4
"""With so many bytes in so many requests a group does not wait for the call under way: more would save little."""

OLD_SECONDS: Final = 0.01

PACE_SECONDS: Final = 0.004
"""Least time between the starts of two calls while requests come together. Who sends one at a time never waits."""

MOST_CALLS: Final = 16


class Group:
    """Requests that leave as one, and those who wait for its answer."""

    __slots__ = ("arrived", "is_taken", "items", "requests", "signal", "size", "waiters")

    def __init__(self, signal: Signal, arrived: float) -> None:
        self.signal, self.arrived = signal, arrived
        self.requests: list[tuple[bytes, int]] = []
        self.waiters: list[asyncio.Future[bytes]] = []
        self.size = self.items = 0
        self.is_taken = False
        """Whether it was delivered or committed."""

    def add(self, request: bytes, items: int, waiter: asyncio.Future[bytes]) -> None:
        """Take one more request."""
        self.requests.append((request, items))
        self.waiters.append(waiter)
        self.size += len(request)
        self.items += items

    @property
    def is_large(self) -> bool:
        """Whether waiting for more would save little, or one more like these would not fit."""
        number = len(self.requests)
        return (self.size >= LARGE_BYTES and number >= LARGE_REQUESTS) or self.size + self.size // number > MAX_BYTES

    @property
    def body(self) -> bytes:
        """The requests as one."""
        return self.requests[0][0] if len(self.requests) == 1 else b"".join([body for body, _ in self.requests])

    def answer(self, response: bytes) -> None:
        """Answer those who still wait."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(response)

    def fail(self, error: Callable[[], Exception]) -> None:
        """Raise where somebody still waits; a new exception for each, which would collect all their tracebacks."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_exception(error())

    def apart(self) -> list[Group]:
        """Return its two halves, each with those who wait for it."""
        parts = []
        middle = len(self.requests) // 2
        for some in (slice(None, middle), slice(middle, None)):
            part = Group(self.signal, self.arrived)
            for (body, items), waiter in zip(self.requests[some], self.waiters[some], strict=True):
                part.add(body, items, waiter)
            parts.append(part)
        return parts


class Lane:
    """What leaves of one signal. `start` is called with each group that is to leave, and `ended` when it has."""

    def __init__(self, signal: Signal, start: Callable[[Group], None]) -> None:
        self._signal, self._start = signal, start
        self._loop = asyncio.get_running_loop()
        self._calls = 0
        self._next_start = 0.0
        self._is_waiting = False
        self._full: deque[Group] = deque()
        self._gathering: Group | None = None

    def add(self, request: bytes, items: int) -> asyncio.Future[bytes]:
        """Take a request in and return what will hold the answer to it."""
        waiter: asyncio.Future[bytes] = self._loop.create_future()
        group = self._gathering
        if group is not None and group.size + len(request) > MAX_BYTES:
            self._full.append(group)
            group = None
        if group is None:
            group = self._gathering = Group(self._signal, self._loop.time())
            if self._calls:
                self._loop.call_later(OLD_SECONDS, self._go_on)
        group.add(request, items, waiter)
        self._go_on()
        return waiter

    def insert(self, group: Group) -> None:
        """Take back a part of a group: it leaves next, and nothing is added to it."""
        self._full.appendleft(group)
        self._go_on()

    def ended(self) -> None:
        """Say that a group has left."""
        self._calls -= 1
        self._go_on()

    def _go_on(self) -> None:
        while self._calls < MOST_CALLS and (group := self._next()) is not None:
            self._calls += 1
            # What came alone would come alone again: pausing would gather nothing.
            self._next_start = self._loop.time() + PACE_SECONDS if len(group.requests) > 1 else 0.0
            self._start(group)

    def _next(self) -> Group | None:
        if self._full:
            return self._full.popleft()
        group = self._gathering
        if group is None:
            return None
        now = self._loop.time()
        is_free = not self._calls and now >= self._next_start
        if is_free or group.is_large or now - group.arrived >= OLD_SECONDS:
            self._gathering = None
            return group
        if not self._calls and not self._is_waiting:
            self._is_waiting = True
            self._loop.call_at(self._next_start, self._wake)
        return None

    def _wake(self) -> None:
        self._is_waiting = False
        self._go_on()
