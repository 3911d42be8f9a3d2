"""What may be in flight at once: the one limit, the disk apart, for which a request is refused."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from enricher.errors import RetryableError
from enricher.otlp.status import ADVISED_RETRY_DELAY, Code

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_IN_FLIGHT_BYTES: Final = 64 << 20
"""Bytes on the wire of all requests that are not answered yet; each takes about three times that in memory."""


class Admission:
    """Counts bytes in flight over all receivers."""

    def __init__(self, max_bytes: int = MAX_IN_FLIGHT_BYTES) -> None:
        self.max_bytes = max_bytes
        self.in_flight = 0

    @contextmanager
    def admit(self, size: int) -> Iterator[None]:
        """
        Let a request in until the block ends; one that is alone is let in whatever its size.

        Raises `RetryableError` with the advice to come again within a second.
        """
        if self.in_flight and self.in_flight + size > self.max_bytes:
            raise RetryableError(
                Code.UNAVAILABLE,
                f"more than {self.max_bytes >> 20} MiB of requests are in flight; send this one again",
                retry_delay=ADVISED_RETRY_DELAY,
            )
        self.in_flight += size
        try:
            yield
        finally:
            self.in_flight -= size
