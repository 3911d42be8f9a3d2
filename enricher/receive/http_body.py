"""
The body of an OTLP/HTTP request, from the socket to the serialised export request it stands for.

    read ─▶ inflate ─▶ JSON to protobuf

Each within a limit of its own, and off the event loop where it would keep everybody else waiting.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from enricher.errors import BadRequestError
from enricher.otlp import json
from enricher.receive.inflate import TooLargeError, inflate

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from enricher.otlp.shallow import Signal

MAX_JSON_BYTES = 20 << 20
MAX_JSON_MARKS = 3_000_000
"""Most opening brackets and commas in a JSON body (A8). An object of 3 bytes takes up to 200 in memory, and a list
without objects is read in one go, during which nothing else runs. Honest telemetry has one for 9 bytes or more."""

BODY_SECONDS = 60.0
"""How long a body may take. Stock clients have given up long before."""

INLINE_COMPRESSED_BYTES = 16 << 10
INLINE_JSON_BYTES = 64 << 10
"""Bodies up to this size are inflated, or read as JSON, in 3 ms and by the event loop itself. The worst JSON within the
limits takes seconds, in which nobody else would be answered, so what is larger goes to a thread."""


class Bodies:
    """
    Reads bodies until `shutdown`.

    Its threads are its own, so that bodies wait for bodies and never for a disk, and only two grow at one time.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="http-body")

    def shutdown(self) -> None:
        """Let go of what is under way; nobody waits for it any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def read(self, request: web.BaseRequest, coding: str, limit: int) -> bytes:
        """
        Return the body, inflated where there is a `coding`.

        Raises `TooLargeError` above `limit` bytes, as they come or inflated, `TimeoutError` after `BODY_SECONDS`,
        `BadRequestError` for compressed data that is damaged, and what aiohttp raises for a body that breaks off.
        """
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # as aiohttp does: what counts is the answer
        pieces, size = [], 0
        async with asyncio.timeout(BODY_SECONDS):
            while piece := await request.content.readany():
                size += len(piece)
                if size > limit:
                    raise TooLargeError
                pieces.append(piece)
        body = b"".join(pieces)
        if not coding:
            return body
        return await self._run(len(body) > INLINE_COMPRESSED_BYTES, inflate, coding, body, limit)

    async def from_json(self, body: bytes, signal: Signal) -> bytes:
        """Return the serialised request of an OTLP/JSON document; raises `BadRequestError`."""
        return await self._run(len(body) > INLINE_JSON_BYTES, _from_json, body, signal)

    async def _run(self, is_large: bool, step: Callable[..., bytes], *arguments: Any) -> bytes:
        if not is_large:
            return step(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._threads, step, *arguments)


def _from_json(body: bytes, signal: Signal) -> bytes:
    if sum(body.count(mark) for mark in b"{[,") > MAX_JSON_MARKS:
        raise BadRequestError("too many objects, arrays and values in one request; send it in parts")
    return json.decode(body, signal)[1]
