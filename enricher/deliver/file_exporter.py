"""
Requests into a file: OTLP/JSON, one request a line, as the Collector's file exporter writes them.

A request is answered once its line is on the disk (`fsync`); lines that wait together share one. A request that JSON
cannot hold (invalid UTF-8, values nested too deep) goes length-delimited into a file beside it: no byte is lost.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from enricher.errors import BadRequestError, EnricherError, RetryableError
from enricher.otlp import json
from enricher.otlp.status import Code

if TYPE_CHECKING:
    from pathlib import Path

    from enricher.otlp.shallow import Signal

BESIDE = ".not-json.binpb"
"""Suffix of the file for requests that JSON cannot hold: 4 bytes of length, big-endian, then the request."""

_log = structlog.get_logger()


class FileExporter:
    """A component: `export` works between `start` and `shutdown`. One process writes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._beside = path.with_name(path.name + BESIDE)
        self._waiting: list[tuple[Signal, bytes, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Make the directory and the file. Raises `EnricherError` where they cannot be written."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # A crash may have left half a line: what follows it starts on one of its own.
            if self._path.exists() and (size := self._path.stat().st_size):
                with self._path.open("r+b") as file:
                    file.seek(size - 1)
                    if file.read(1) != b"\n":
                        file.write(b"\n")
            _append(self._path, b"")
        except OSError as error:
            raise EnricherError(
                f"exporters.file.path: {self._path} cannot be written: {error.strerror}; "
                "name a file in a directory that this user may write"
            ) from None

    async def shutdown(self, grace: float = 0.0) -> None:
        """Return when everything that was handed over is written; `grace` is not needed, a disk answers."""
        del grace
        while self._writing is not None:
            with suppress(asyncio.CancelledError):
                await self._writing

    async def export(self, signal: Signal, request: bytes) -> bytes:
        """Append one request. Raises `RetryableError` when the disk does not take it; nothing of it stays then."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((signal, request, done))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        await done
        return b""

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(self._write_batch, [(signal, request) for signal, request, _ in batch])
                failure: Exception | None = None
            except Exception as error:  # noqa: BLE001 - whoever waits must get an answer
                _log.error("the file cannot be written", path=str(self._path), error=str(error))
                failure = RetryableError(Code.UNAVAILABLE, "the output file cannot be written")
            for _, _, done in batch:
                if not done.done():
                    done.set_result(None) if failure is None else done.set_exception(failure)
        self._writing = None

    def _write_batch(self, batch: list[tuple[Signal, bytes]]) -> None:
        lines: list[bytes] = []
        beside: list[bytes] = []
        for signal, request in batch:
            if not request:
                continue
            try:
                lines.append(json.encode(signal, request) + b"\n")
            except BadRequestError:
                beside.append(len(request).to_bytes(4, "big") + request)
        if beside:
            _log.warning("requests that JSON cannot hold are kept beside", path=str(self._beside), requests=len(beside))
            _append(self._beside, b"".join(beside))
        if lines:
            _append(self._path, b"".join(lines))


def _append(path: Path, data: bytes) -> None:
    """Append all of the data and sync it, or leave the file as it was and raise `OSError`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)
