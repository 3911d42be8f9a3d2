"""Waiting for an event, but not for ever."""

from __future__ import annotations

import asyncio
from contextlib import suppress


async def at_most(seconds: float, event: asyncio.Event) -> None:
    """
    Return when the event is set, and after so many seconds in any case.

    Not by `asyncio.wait_for`: in Python 3.11 that keeps a cancellation to itself if the event comes as well, and who
    was to end goes on.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
