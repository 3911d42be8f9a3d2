"""
Looking into the store and at its dead letters from another process: through the stage where one runs, or directly.

The store belongs to one process. So a running stage listens on a socket in `storage.directory`, which only its user can
reach, for one question a connection: a line of JSON in, one out.

    {"do": "list", "after": 0, "limit": 100}    {"do": "show", "id": 7}    {"do": "resend" | "drop", "ids": [7]}
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import structlog

from enricher.errors import EnricherError
from enricher.storage import Store
from enricher.storage.files import DATABASE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    Ask = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

SOCKET: Final = "control.sock"

MAX_QUESTION_BYTES: Final = 1 << 20

PATIENCE_SECONDS: Final = 30.0


_log = structlog.get_logger()


class Control:
    """A component: answers other processes between `start` and `shutdown`. `queued` is called after a `resend`."""

    def __init__(self, store: Store, directory: Path, queued: Callable[[], None]) -> None:
        self._store, self._directory, self._queued = store, directory, queued
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. The directory is locked already, so a socket that lies there is nobody's."""
        with _reachable(self._directory) as path:
            with suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108 - a path through a descriptor
            before = os.umask(0o177)
            try:
                self._server = await asyncio.start_unix_server(self._serve, path, limit=MAX_QUESTION_BYTES)
            except OSError as error:
                _log.warning("`enricher queue` cannot reach this stage", error=error.strerror or type(error).__name__)
            finally:
                os.umask(before)

    async def shutdown(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            self._server = None
            # One that stays, on a volume that became read-only, is nobody's; the stop goes on.
            with suppress(OSError):
                (self._directory / SOCKET).unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                question = json.loads(await reader.readline())
                reply = await answer(self._store, question)
                if question.get("do") == "resend":
                    self._queued()
        except EnricherError as error:
            reply = {"error": str(error)}
        except (ValueError, KeyError, TypeError, AttributeError, TimeoutError) as error:
            reply = {"error": f"not a question that is understood here: {type(error).__name__}"}
        with suppress(ConnectionError):
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        writer.close()


async def answer(store: Store, question: dict[str, Any]) -> dict[str, Any]:
    """Answer one question. Raises `StoreError`, and what a question of a wrong shape brings."""
    what = question["do"]
    if what == "list":
        counts = await store.counts()
        letters = await store.dead(int(question["limit"]), int(question["after"]))
        return {
            "held": counts.held._asdict(),
            "queued": counts.queued._asdict(),
            "dead": counts.dead._asdict(),
            "quarantined": counts.quarantined._asdict(),
            "used_bytes": counts.used_bytes,
            "max_bytes": counts.max_bytes,
            "letters": [letter._asdict() for letter in letters],
        }
    if what == "show":
        found = await store.show(int(question["id"]))
        if found is None:
            return {"letter": None}
        letter, body = found
        return {"letter": letter._asdict(), "body": base64.b64encode(body).decode()}
    ids = [int(each) for each in question["ids"]]
    return {"done": await (store.resend(ids) if what == "resend" else store.drop(ids))}


@asynccontextmanager
async def connected(directory: Path, max_size_bytes: int, tell: Callable[[str], object]) -> AsyncIterator[Ask]:
    """
    Give what takes a question and returns its answer.

    Where no stage runs, opening the store mends it, so `tell` gets each problem: the next start finds it no more.
    Raises `EnricherError` if there is no store, or if the process that has it does not answer.
    """
    try:
        (directory / DATABASE).stat()
        is_served = await _is_served(directory)
    except (FileNotFoundError, NotADirectoryError):
        raise EnricherError(f"{directory} holds no store; is storage.directory the one of the stage?") from None
    except OSError as error:
        raise EnricherError(f"{directory} cannot be looked into: {error.strerror}; ask as the stage's user") from None
    if is_served:
        yield lambda question: _ask(directory, question)
        return
    store = Store(directory, max_size_bytes=max_size_bytes)
    recovery = await store.open()
    for problem in recovery.problems:
        tell(problem)
    try:
        yield lambda question: answer(store, question)
    finally:
        await store.close()


async def _is_served(directory: Path) -> bool:
    try:
        async with _stream(directory):
            return True
    except (ConnectionRefusedError, FileNotFoundError):
        # A stage that was killed leaves its socket behind.
        return False


async def _ask(directory: Path, question: dict[str, Any]) -> dict[str, Any]:
    async with _stream(directory) as (reader, writer), asyncio.timeout(PATIENCE_SECONDS):
        writer.write(json.dumps(question).encode() + b"\n")
        reply: dict[str, Any] = json.loads(await reader.read())
    if error := reply.get("error"):
        raise EnricherError(f"the stage that has {directory}: {error}")
    return reply


@asynccontextmanager
async def _stream(directory: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    with _reachable(directory) as path:
        reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield reader, writer
    finally:
        writer.close()


@contextmanager
def _reachable(directory: Path) -> Iterator[str]:
    """Give the socket's path, short whatever the directory's is: 107 bytes are the most that a socket's may have."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        through = f"/proc/self/fd/{descriptor}"
        yield f"{through}/{SOCKET}" if os.path.exists(through) else str(directory / SOCKET)  # noqa: PTH110
    finally:
        os.close(descriptor)
