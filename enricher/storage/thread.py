"""
The one thread that touches the database: operations that wait together share a transaction.

    event loop ──submit──▶ queue ──▶ BEGIN, each operation in a savepoint, COMMIT ──▶ futures

Whoever waits is answered after the COMMIT. An operation that fails is undone alone; a COMMIT that fails fails all of
its group. Nothing waits for company: a group is what has come while the one before it was being written.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from enricher.storage.errors import StoreError, from_sqlite

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from enricher.storage.quota import Quota

    Operation = Callable[[sqlite3.Connection], Any]

GROUP: Final = 256
"""Operations in one transaction at most."""

IDLE_SECONDS: Final = 1.0
"""After so long without work the housekeeping has its turn."""


class _Job(NamedTuple):
    operation: Operation
    growth: int
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


class Writer:
    """Owns the connection, which is opened, used and closed on its thread."""

    def __init__(
        self,
        where: str,
        quota: Quota,
        *,
        connect: Callable[[], sqlite3.Connection],
        keep_house: Operation,
        close: Operation,
    ) -> None:
        self.failure = ""
        """Why nothing can be written any more; empty while it can."""
        self._where, self._quota = where, quota
        self._connect, self._keep_house, self._close = connect, keep_house, close
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="enricher-store", daemon=True)
        self._opened: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def start(self) -> None:
        """Open the database on the writer's thread. Blocks; raises what opening raises."""
        self._thread.start()
        error = self._opened.get()
        if error is not None:
            self._thread.join()
            raise error

    def stop(self) -> None:
        """Do what is waiting, close the database and end the thread. Blocks."""
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()

    def submit(self, operation: Operation, growth: int, future: asyncio.Future[Any]) -> None:
        """
        Have an operation done; the future gets its result after the COMMIT, or a `StoreError`.

        `growth` is how many bytes it adds, 0 for one that must work on a full store.
        """
        self._jobs.put(_Job(operation, growth, future.get_loop(), future))
        # Set before the thread answers what waits for the last time, so that no job falls between the two.
        if self.failure:
            self._refuse_all()

    def _run(self) -> None:
        try:
            connection = self._connect()
        except BaseException as error:  # noqa: BLE001 - it is raised where the thread was started
            self._opened.put(error)
            return
        self._opened.put(None)
        try:
            while self._serve(connection):
                pass
        except BaseException as error:  # noqa: BLE001 - F44: everybody who waits must hear of it
            self.failure = self.failure or self._ended(error)
            connection.close()
        else:
            self.failure = f"{self._where}: the store is closed"
            self._close(connection)
        self._refuse_all()

    def _serve(self, connection: sqlite3.Connection) -> bool:
        """Do one group of jobs, or the housekeeping; tell whether to go on."""
        try:
            first = self._jobs.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            self._keep_house(connection)
            return True
        jobs: list[_Job] = []
        job: _Job | None = first
        while job is not None:
            jobs.append(job)
            if len(jobs) == GROUP:
                break
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
        if jobs:
            self._do(connection, jobs)
        return job is not None

    def _do(self, connection: sqlite3.Connection, jobs: list[_Job]) -> None:
        results: list[Any] = []
        try:
            self._quota.look()
            connection.execute("BEGIN IMMEDIATE")
            results = [self._one(connection, job) for job in jobs]
            connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - whoever waits must be answered
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            results = [self._failed(error)] * len(jobs)
        except BaseException as error:
            self.failure = self._ended(error)
            for job in jobs:
                _answer(job, self._failed(error))
            raise
        for job, result in zip(jobs, results, strict=True):
            _answer(job, result)

    def _one(self, connection: sqlite3.Connection, job: _Job) -> Any:
        connection.execute("SAVEPOINT one")
        try:
            if job.growth:
                self._quota.admit(connection, job.growth)
            result = job.operation(connection)
        except Exception as error:
            if not connection.in_transaction:
                raise  # the whole group is gone
            connection.execute("ROLLBACK TO one")
            result = self._failed(error)
        connection.execute("RELEASE one")
        return result

    def _failed(self, error: BaseException) -> StoreError:
        if isinstance(error, StoreError):
            return error
        if isinstance(error, sqlite3.Error):
            return from_sqlite(error, self._where)
        return StoreError(f"{self._where}: {type(error).__name__}: {error}")

    def _ended(self, error: BaseException) -> str:
        return f"{self._where}: the writer ended: {type(error).__name__}: {error}"

    def _refuse_all(self) -> None:
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            if job is not None:
                _answer(job, StoreError(self.failure or f"{self._where}: the store is closed"))


def _answer(job: _Job, result: Any) -> None:
    def set_it() -> None:
        if not job.future.done():
            if isinstance(result, StoreError):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)

    # A loop that is closed has nobody left who waits.
    if not job.loop.is_closed():
        job.loop.call_soon_threadsafe(set_it)
