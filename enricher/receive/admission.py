"""What may be in flight at once: the one limit, the disk apart, for which a request is refused."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Self

from enricher.errors import RetryableError
from enricher.otlp.status import ADVISED_RETRY_DELAY, Code

if TYPE_CHECKING:
    import asyncio

MAX_IN_FLIGHT_BYTES: Final = 64 << 20
"""Bytes of all requests that are not answered yet, those that are still read included; each takes about three times
that in memory."""


SMALL: Final = 1 / 64
"""Part of the budget up to which a request is small."""

FOR_SMALL: Final = 1 / 4
"""As much again as this part of it is there for small requests alone: a large body that stops in its midst keeps its
room until it is given up, and must not keep everybody else out."""


class NoRoomError(RetryableError):
    """Others fill the budget; carries the advice to come again within a second."""


class Admission:
    """Counts bytes in flight over all receivers."""

    def __init__(self, max_bytes: int = MAX_IN_FLIGHT_BYTES) -> None:
        self.max_bytes = max_bytes
        self.in_flight = 0
        self.lock = Lock()

    def room(self) -> Room:
        """Return the room of one request, with nothing in it yet."""
        return Room(self)


class Room:
    """
    What one request has of the budget, as a context that may be entered by several: the last to leave gives it back.

    A request that is alone gets in whatever its size. One that does not fit is refused and never waits, so that of two
    that are half read one ends. Any thread may call; who takes for a request that was given up is refused as well.
    """

    def __init__(self, admission: Admission) -> None:
        self.size = 0
        self._admission = admission
        self._holders = 0

    def __enter__(self) -> Self:
        self._holders += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._admission.lock:
            self._holders -= 1
            if not self._holders:
                self._set(0)

    def keep_until(self, done: asyncio.Future[Any]) -> None:
        """Have one more holder, who leaves when `done` is."""
        self.__enter__()
        done.add_done_callback(self.__exit__)

    def expect(self, more: int) -> None:
        """Raise `NoRoomError` if so many bytes would not fit now; takes nothing."""
        size, limit = self.size + more, self._admission.max_bytes
        others = self._admission.in_flight - self.size
        if size <= limit * SMALL:
            limit += int(limit * FOR_SMALL)
        if not self._holders or (others and others + size > limit):
            raise NoRoomError(
                Code.UNAVAILABLE,
                f"more than {self._admission.max_bytes >> 20} MiB of requests are in flight; send this one again",
                retry_delay=ADVISED_RETRY_DELAY,
            )

    def take(self, more: int) -> None:
        """Add bytes; raises `NoRoomError` if they do not fit."""
        with self._admission.lock:
            self.expect(more)
            self._set(self.size + more)

    def shrink(self, size: int) -> None:
        """Keep no more than `size` bytes."""
        with self._admission.lock:
            self._set(min(size, self.size))

    def _set(self, size: int) -> None:
        self._admission.in_flight += size - self.size
        self.size = size
