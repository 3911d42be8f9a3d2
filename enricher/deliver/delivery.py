"""
To one destination: forward and answer with its answer, or commit to the disk and acknowledge.

    deliver ─▶ lane ─▶ export ─┬─ answered within `patience`     ─▶ that answer
                       │       ├─ slower                         ─▶ commit, acknowledge; its row hears how it ends
                       │       ├─ unavailable, throttled, no auth ─▶ commit, acknowledge; `drain` sends it later
                       │       └─ refused for good               ─▶ parted until the culprit stands alone; dead letter
                       └─ downstream is in trouble               ─▶ commit at once, acknowledge

Stock SDK exporters drop what was refused for seven seconds, so the stage refuses only what it can neither deliver nor
keep. Without a queue (`sending_queue.enabled: false`) every client gets downstream's own answer instead.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from enricher.deliver.drain import LEASE, OPERATOR
from enricher.deliver.insist import insist
from enricher.deliver.lanes import Lane
from enricher.errors import AnswerError, ExportError, PermanentError, RetryableError
from enricher.otlp.shallow import Signal
from enricher.otlp.status import ADVISED_RETRY_DELAY, Code, partial_success, rejected
from enricher.storage import Batch, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from enricher.deliver import Exporter
    from enricher.deliver.backoff import Backoff
    from enricher.deliver.counts import Counts
    from enricher.deliver.lanes import Group
    from enricher.storage import Store

MAX_MESSAGE: Final = 1024
"""Characters of downstream's words about items that it rejected, as in an error: an answer has a limit (SRV-06)."""

_log = structlog.get_logger()


class Delivery:
    """
    `deliver` works between `start` and `shutdown`. The exporter is started and shut down by whoever made it.

    `store` is None where there is no queue. `queued` is called when something came into the queue, `patience` is in
    seconds from a request's arrival.
    """

    def __init__(  # noqa: PLR0913 - what it stands between
        self,
        destination: str,
        exporter: Exporter,
        store: Store | None,
        backoff: Backoff,
        counts: Counts,
        *,
        patience: float,
        queued: Callable[[], None] = lambda: None,
    ) -> None:
        self.destination = destination
        self.counts = counts
        self._exporter, self._store, self._backoff = exporter, store, backoff
        self._patience, self._queued = patience, queued
        self._lanes: dict[Signal, Lane] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._is_trying = False
        self._loop: asyncio.AbstractEventLoop

    async def start(self) -> None:
        """Make ready."""
        self._loop = asyncio.get_running_loop()
        self._lanes = {signal: Lane(signal, self._start) for signal in Signal}

    async def shutdown(self, grace: float = 0.0) -> None:
        """Let what was acknowledged and is still being sent be answered for `grace` seconds; it is in the store."""
        self._stopping.set()
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=grace)

    async def settled(self) -> None:
        """Return when nothing is being sent any more; once the exporter is shut down that is soon."""
        while self._leaving:
            await asyncio.wait(self._leaving)

    def deliver(self, signal: Signal, request: bytes, items: int) -> asyncio.Future[bytes]:
        """
        Return what is done once the request is delivered, with downstream's answer, or committed, with an empty one.

        It raises `RetryableError` if it is neither, and without a queue whatever the exporter raises. Whoever waits for
        it may be cancelled and does not call the request back.
        """
        return self._lanes[signal].add(request, items)

    # ---- inside

    def _start(self, group: Group) -> None:
        leaving = asyncio.create_task(self._leave(group))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    async def _leave(self, group: Group) -> None:
        sending = _Sending(group)
        try:
            if self._store is None or not self._backoff.is_troubled:
                await self._send(sending)
            elif await self._commit(group) is None:
                await self._try_unkept(sending)
        except Exception as error:  # noqa: BLE001 - whoever waits must get an answer
            _log.exception("a request could not be delivered", destination=self.destination)
            name = type(error).__name__
            group.fail(lambda: RetryableError(Code.UNAVAILABLE, f"internal error in delivery: {name}"))
        finally:
            self._free_lane(sending)

    async def _try_unkept(self, sending: _Sending) -> None:
        """
        Send what cannot be kept, one group at a time and when a try is due; refuse it otherwise.

        Where nothing is queued nobody else would find out that downstream is back.
        """
        if self._is_trying or self._backoff.is_pausing:
            self._refuse(sending.group, RetryableError(Code.UNAVAILABLE, "downstream is away"))
            return
        self._is_trying = True
        try:
            await self._send(sending)
        finally:
            self._is_trying = False

    async def _send(self, sending: _Sending) -> None:
        group, timer = sending.group, None
        if self._store is not None:
            timer = self._loop.call_at(group.arrived + self._patience, self._lose_patience, sending)
        self.counts.in_flight += 1
        try:
            answer = await self._exporter.export(group.signal, group.body)
        except ExportError as error:
            refusal = error
        except Exception as error:  # noqa: BLE001 - a bug in an exporter must not cost a request
            _log.exception("a request could not be sent", destination=self.destination)
            refusal = RetryableError(Code.UNAVAILABLE, f"internal error in the exporter: {type(error).__name__}")
        else:
            self._backoff.succeeded()
            self.counts.delivered(group.signal, group.items, said := rejected(answer))
            self._take(group)
            group.answer(_answer(*said, together=len(group.requests) > 1))
            await self._delete(sending)
            return
        finally:
            self.counts.in_flight -= 1
            if timer is not None:
                timer.cancel()
        await self._refused(sending, refusal)

    def _lose_patience(self, sending: _Sending) -> None:
        """Commit what is being sent and acknowledge it; what comes after it does not wait for this downstream."""
        self._backoff.failed()
        sending.committing = asyncio.create_task(self._commit(sending.group, lease_seconds=LEASE))
        self._free_lane(sending)

    def _free_lane(self, sending: _Sending) -> None:
        if sending.has_lane:
            sending.has_lane = False
            self._lanes[sending.group.signal].ended()

    async def _delete(self, sending: _Sending) -> None:
        store = self._store
        if store is None or sending.committing is None or (row := await sending.committing) is None:
            return
        await insist(lambda: store.confirm([row]), row, self._stopping)

    async def _refused(self, sending: _Sending, error: ExportError) -> None:
        group, store = sending.group, self._store
        self.counts.failed(group.signal, group.items)
        is_for_later = isinstance(error, RetryableError) or error.code in OPERATOR
        if is_for_later:
            self._backoff.failed(error)
        else:
            self._backoff.succeeded()
        if store is None:
            # Whoever sent little must not hear that what it was merged into is too large: clients drop that.
            is_for_each = isinstance(error, PermanentError) and (
                not is_for_later or error.code == Code.RESOURCE_EXHAUSTED
            )
            if len(group.requests) > 1 and is_for_each and not isinstance(error, AnswerError):
                self._part(group)
            else:
                group.fail(lambda: _again(error))
            return
        row = await sending.committing if sending.committing is not None else None
        if row is not None and not isinstance(error, AnswerError):
            # The drain knows what follows from any answer; it asks once more.
            wait = self._backoff.delay(1, error) if is_for_later else 0.0
            await insist(lambda: store.retry(row, store.now() + wait), row, self._stopping)
            self._loop.call_later(wait, self._queued)
        elif is_for_later:
            await self._keep(group, error)
        elif len(group.requests) > 1 and not isinstance(error, AnswerError):
            self._part(group)
        else:
            await self._bury(sending, error, row)

    def _part(self, group: Group) -> None:
        """Send the halves of what was refused for good; the one that holds the culprit is parted again."""
        self.counts.splits += 1
        for part in group.apart():
            self._lanes[group.signal].insert(part)

    async def _keep(self, group: Group, error: ExportError) -> None:
        """Commit and acknowledge; or else refuse, with what downstream said."""
        if await self._commit(group) is None:
            self._refuse(group, error)

    def _refuse(self, group: Group, error: ExportError) -> None:
        delay = error.retry_delay if isinstance(error, RetryableError) else None
        self.counts.enqueue_failed[group.signal] += group.items
        text = f"neither delivered nor kept: {error.details}"
        group.fail(lambda: RetryableError(Code.UNAVAILABLE, text, retry_delay=delay or ADVISED_RETRY_DELAY))

    async def _commit(self, group: Group, lease_seconds: float = 0.0) -> int | None:
        """Write the group into the queue as one batch, acknowledge it and return its row; none if that cannot be."""
        if self._store is None:
            return None
        batch = Batch(self.destination, group.signal.value, group.body, group.items)
        try:
            (row,) = await self._store.enqueue([batch], lease_seconds=lease_seconds)
        except StoreError as error:
            _log.warning("a request cannot be queued", destination=self.destination, error=str(error))
            return None
        self._take(group)
        group.answer(b"")
        if not lease_seconds:
            self._queued()
        return row

    def _take(self, group: Group) -> None:
        """Count what is answered for from now on: once, also for what is committed and then delivered after all."""
        if not group.is_taken:
            group.is_taken = True
            self.counts.taken[group.signal] += group.items

    async def _bury(self, sending: _Sending, error: ExportError, row: int | None) -> None:
        group, store = sending.group, self._store
        identity = await self._commit(group, lease_seconds=LEASE) if row is None else row
        if identity is None or store is None:
            self.counts.enqueue_failed[group.signal] += group.items
            group.fail(lambda: _again(error))
            return
        _log.error(
            "downstream refused a request for good; it is kept as a dead letter",
            destination=self.destination,
            items=group.items,
            code=error.code,
            reason=error.details[:256],
        )
        # Acknowledged; nobody is to wait for a store that fails meanwhile.
        self._free_lane(sending)
        await insist(lambda: store.bury(identity, error.details[:1024], error.code), identity, self._stopping)
        self.counts.dead(group.signal, group.items)


class _Sending:
    """A group on its way. `committing` is set when patience was lost; its lane is free from then on."""

    __slots__ = ("committing", "group", "has_lane")

    def __init__(self, group: Group) -> None:
        self.group = group
        self.has_lane = True
        self.committing: asyncio.Task[int | None] | None = None


def _again(error: ExportError) -> ExportError:
    """Return the same refusal for one more of those who wait."""
    if isinstance(error, RetryableError):
        return RetryableError(error.code, error.details, error.trailers, error.retry_delay)
    return PermanentError(error.code, error.details, error.trailers)


def _answer(number: int, message: str, *, together: bool) -> bytes:
    """Return what a client hears of downstream's answer: the Collector writes a partial success that says nothing."""
    message = message[:MAX_MESSAGE]
    if not number and not message:
        return b""
    if together and number:
        # It cannot be attributed: everybody hears of it as a warning.
        message = f"downstream rejected {number} items of requests that were sent together: {message}".rstrip(": ")
        number = 0
    return partial_success(number, message)
