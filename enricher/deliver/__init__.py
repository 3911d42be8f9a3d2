"""How requests leave: the exporters, and what stands between the pipeline and them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from enricher.otlp.shallow import Signal

# As in `enricher.receive`: grpc reads it once, on its first import, which may come through either package.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")


class Exporter(Protocol):
    """What takes requests to their destination."""

    async def start(self) -> None:
        """Make ready; raises `EnricherError` if that cannot be."""

    async def export(self, signal: Signal, request: bytes) -> bytes:
        """Deliver and return the destination's answer; raises `RetryableError` or `PermanentError`."""

    async def shutdown(self, grace: float = 0.0) -> None:
        """Finish what is in flight within `grace` seconds. Safe without `start`, and twice."""
