"""
The one thread that talks to the database, and how operations of many tasks share its commits.

    task ── submit ─▶ queue ─▶ [ BEGIN · savepoint each · COMMIT ] ─▶ every task answered, at once
                               a group: what waits, for at most 5 ms

No operation waits for others to come: those that arrive during a commit make up the next group. An operation that fails
takes only its own changes back; a commit that fails fails all that are in it.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import structlog

from enricher.storage.errors import StoreError, where

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from enricher.storage.rows import Recovery
    from enricher.storage.session import Session

T = TypeVar("T")

GROUP_OPERATIONS: Final = 256
GROUP_SECONDS: Final = 0.005

_log = structlog.get_logger()


class _Waiting(NamedTuple):
    operation: Callable[[sqlite3.Connection], Any]
    growth: int
    future: asyncio.Future[Any]


class _Answer(NamedTuple):
    future: asyncio.Future[Any]
    result: Any
    error: BaseException | None


class Writer:
    """A component: `submit` works between `start` and `stop`, from the event loop that started it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        # Held while something is put into the queue or the reason why nothing may be is set: nothing is left behind.
        self._door = threading.Lock()
        self._closed = "the store is not open"
        self._is_stopping = False
        self._unanswered: list[asyncio.Future[Any]] = []
        self._loop: asyncio.AbstractEventLoop
        self._ended: asyncio.Future[None] | None = None
        self.death = ""
        """Why the thread ended although nobody had asked it to; empty otherwise."""

    async def start(self) -> Recovery:
        """Start the thread and let it open the session. Raises `EnricherError`, `StoreError` among them."""
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[Recovery] = self._loop.create_future()
        self._ended = self._loop.create_future()
        self._closed = ""
        threading.Thread(target=self._run, args=(opened, self._ended), name="store", daemon=True).start()
        return await opened

    def submit(self, operation: Callable[[sqlite3.Connection], T], growth: int = 0) -> asyncio.Future[T]:
        """
        Have the operation run in a transaction, and return what will hold its result once that is committed.

        `growth` is about how many bytes it adds, 0 for one that frees or moves. The operation may run more than once,
        and runs even if nobody waits for it any more. Raises `StoreError` when the writer has ended.
        """
        with self._door:
            if self._closed:
                raise StoreError(self._closed)
            future: asyncio.Future[T] = self._loop.create_future()
            self._queue.put(_Waiting(operation, growth, future))
        return future

    async def stop(self) -> None:
        """Return when all that was submitted is done and the session is closed."""
        if self._ended is None:
            return
        with self._door:
            if not self._closed:
                self._closed = "the store is closed"
                self._queue.put(None)
        await asyncio.shield(self._ended)

    async def ended(self) -> None:
        """Return when the thread has ended, whatever for."""
        if self._ended is not None:
            await asyncio.shield(self._ended)

    @property
    def reason(self) -> str:
        """Why nothing can be written now; empty while it can."""
        return self.death or self._closed or self._session.fault

    def _run(self, opened: asyncio.Future[Recovery], ended: asyncio.Future[None]) -> None:
        try:
            recovery = self._session.open()
        except BaseException as error:  # noqa: BLE001 - it is raised where the store was opened
            self._refuse("the store could not be opened")
            self._post([_Answer(opened, None, error), _Answer(ended, None, None)])
            return
        self._post([_Answer(opened, recovery, None)])
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - F44: everybody who waits must hear of it
            # Without its text, which may show what was being written.
            self.death = f"{self._session.path}: the writer ended: {type(error).__name__}; restart the process"
            _log.error("the store's writer ended", error=type(error).__name__, at=where(error))
            self._refuse(self.death)
        finally:
            with suppress(sqlite3.Error, OSError):
                self._session.close(is_sound=not self.death)
            self._post([_Answer(ended, None, None)])

    def _work(self) -> None:
        has_more = False
        while not self._is_stopping:
            try:
                waiting = self._queue.get(timeout=0 if has_more else self._session.patience())
            except queue.Empty:
                has_more = self._session.upkeep(is_idle=True)
                continue
            has_more = False
            if waiting is None:
                return
            self._commit(self._group(waiting))
            self._unanswered.clear()
            self._session.upkeep(is_idle=False)

    def _group(self, first: _Waiting) -> Iterator[_Waiting]:
        """Yield the operation and those that wait behind it; what is taken from the queue is always yielded."""
        deadline = time.monotonic() + GROUP_SECONDS
        waiting: _Waiting | None = first
        while waiting is not None:
            self._unanswered.append(waiting.future)
            yield waiting
            if len(self._unanswered) >= GROUP_OPERATIONS or time.monotonic() > deadline:
                return
            try:
                waiting = self._queue.get_nowait()
            except queue.Empty:
                return
        self._is_stopping = True

    def _commit(self, group: Iterable[_Waiting]) -> None:
        """Run operations in one transaction and answer those who wait for them."""
        done: list[_Waiting] = []
        answers: list[_Answer] = []
        has_begun = False
        try:
            for waiting in group:
                # Before anything can fail: whoever was taken from the queue must be among those that are answered.
                done.append(waiting)
                if not has_begun:
                    self._session.begin()
                    has_begun = True
                answer = self._attempt(waiting)
                if self._session.connection.in_transaction:
                    answers.append(answer)
                    continue
                # For some errors, a full database among them, SQLite takes the whole transaction back. What was done
                # in it before is done again; each failure leaves fewer, so this ends.
                self._post([answer])
                lost, done, answers, has_begun = done[:-1], [], [], False
                if lost:
                    self._commit(lost)
            if has_begun:
                self._session.commit()
        except (sqlite3.Error, OSError) as error:
            self._session.roll_back()
            answers = [_Answer(waiting.future, None, self._session.failed(error)) for waiting in done]
        self._post(answers)

    def _attempt(self, waiting: _Waiting) -> _Answer:
        """Run one operation in a savepoint: if it fails, only its own changes are taken back."""
        connection = self._session.connection
        connection.execute("SAVEPOINT operation")
        try:
            self._session.admit(waiting.growth)
            result = waiting.operation(connection)
        except Exception as error:  # noqa: BLE001 - whoever waits must get it, and the others must go on
            if connection.in_transaction:
                connection.execute("ROLLBACK TO operation")
                connection.execute("RELEASE operation")
            return _Answer(waiting.future, None, self._session.failed(error))
        connection.execute("RELEASE operation")
        return _Answer(waiting.future, result, None)

    def _refuse(self, reason: str) -> None:
        """Let nothing more in, and fail whatever has no answer yet."""
        with self._door:
            self._closed = reason
        left = self._unanswered
        with suppress(queue.Empty):
            while True:
                waiting = self._queue.get_nowait()
                if waiting is not None:
                    left.append(waiting.future)
        # One error each: an exception that several tasks raise collects the tracebacks of all of them.
        self._post([_Answer(future, None, StoreError(reason)) for future in left])

    def _post(self, answers: list[_Answer]) -> None:
        # A loop that is closed has nobody left who waits.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_settle, answers)


def _settle(answers: list[_Answer]) -> None:
    for future, result, error in answers:
        # Whoever was cancelled is not told; the commit stands.
        if not future.done():
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
