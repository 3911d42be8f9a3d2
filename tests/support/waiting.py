"""Waiting for what another task or process brings about, as long as a slow machine may need."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_SECONDS = 30.0


async def until(condition: Callable[[], Any]) -> None:
    """Return once the condition holds; it may be asynchronous. Fails with `TimeoutError` if it never does."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            holds = condition()
            if await holds if inspect.isawaitable(holds) else holds:
                return
            await asyncio.sleep(0.01)
