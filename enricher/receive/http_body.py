"""
The body of an OTLP/HTTP request, from the socket to the serialised export request it stands for.

    read ─▶ inflate ─▶ JSON to protobuf

Each within a limit of its own, and off the event loop where it would keep everybody else waiting. What is read or
inflated counts as in flight from its first byte. A length that is only told does not: it would let a client that says
64 MiB and sends nothing keep everybody else out.
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

    from aiohttp import StreamReader, web

    from enricher.otlp.shallow import Signal
    from enricher.receive.admission import Room

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

    async def read(self, request: web.BaseRequest, coding: str, limit: int, room: Room) -> bytes:
        """
        Return the body, inflated where there is a `coding`, with its bytes in `room`.

        Raises `TooLargeError` above `limit` bytes, as they come or inflated, `TimeoutError` after `BODY_SECONDS`,
        `BadRequestError` for compressed data that is damaged, `NoRoomError` beside too much else, and what aiohttp
        raises for a body that breaks off.
        """
        room.expect(request.content_length or 0)
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # as aiohttp does: what counts is the answer
        async with asyncio.timeout(BODY_SECONDS):
            body = await _all_of(request.content, limit, room)
        if not coding:
            return body
        is_large = len(body) > INLINE_COMPRESSED_BYTES
        inflated = await self._run(is_large, inflate, coding, body, limit, room.take)
        room.shrink(len(inflated))
        return inflated

    async def from_json(self, body: bytes, signal: Signal, room: Room) -> bytes:
        """Return the serialised request of an OTLP/JSON document; raises `BadRequestError`."""
        request = await self._run(len(body) > INLINE_JSON_BYTES, _from_json, body, signal)
        room.shrink(len(request))
        return request

    async def _run(self, is_large: bool, step: Callable[..., bytes], *arguments: Any) -> bytes:
        if not is_large:
            return step(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._threads, step, *arguments)


async def _all_of(content: StreamReader, limit: int, room: Room) -> bytes:
    pieces, size = [], 0
    while piece := await content.readany():
        size += len(piece)
        if size > limit:
            raise TooLargeError
        room.take(len(piece))
        pieces.append(piece)
    return b"".join(pieces)


def _from_json(body: bytes, signal: Signal) -> bytes:
    if sum(body.count(mark) for mark in b"{[,") > MAX_JSON_MARKS:
        raise BadRequestError("too many objects, arrays and values in one request; send it in parts")
    return json.decode(body, signal)[1]
