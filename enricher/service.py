"""
The composition root: builds the parts from the configuration, starts them and stops them.

Downstream first, receivers last, so that nothing comes in that cannot go out; stopped in the opposite order.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from enricher import live, pipeline, scan
from enricher.config.model import RetryConfig, SendingQueueConfig
from enricher.control import Control
from enricher.credentials import expiries
from enricher.deliver.exporters import exporters_of, senders_of
from enricher.deliver.way import Way
from enricher.errors import BadRequestError, EnricherError, ExportError
from enricher.hold import Hold
from enricher.otlp.shallow import Signal
from enricher.pages import Pages
from enricher.payload_files import PayloadFiles
from enricher.receive.admission import Admission, NoRoomError
from enricher.receive.receivers import receivers_of
from enricher.storage import Store, StoreError
from enricher.telemetry.counters import Answer, Counters

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from enricher.config.model import Config
    from enricher.deliver import Exporter
    from enricher.errors import CaptureError
    from enricher.outcome import Outcome
    from enricher.receive.admission import Room
    from enricher.rotation import Rotating
    from enricher.storage import Recovery

SHUTDOWN_GRACE = 10.0
"""Seconds that requests in flight have to finish after SIGTERM; twice the default timeout of an export."""

_log = structlog.get_logger()


class Part(Protocol):
    """What has to be started."""

    async def start(self) -> object:
        """Make ready; raises `EnricherError` if that cannot be."""


class Service:
    """The stage. `consume` is what receivers call."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._settings = scan.Settings.from_config(config)
        self._admission = Admission()
        self._counters = Counters()
        self._not_ready = "starting"
        self._store: Store | None = None
        self._control: Control | None = None
        self._hold: Hold | None = None
        self._payload_files: PayloadFiles | None = None
        if config.hold.enabled or any(sender.sending_queue.enabled for sender in senders_of(config).values()):
            self._store = Store(config.storage.directory, max_size_bytes=config.storage.max_size_mib << 20)
            self._control = Control(self._store, config.storage.directory, self._wake)
        self._rotating: list[Rotating[Any]] = []
        self._ways = [self._way(name, exporter) for name, exporter in exporters_of(config, self._rotating).items()]
        if config.hold.enabled and self._store is not None:
            names = [way.name for way in self._ways]
            self._hold = Hold(config.hold, self._settings, self._store, names, note=self._note, queued=self._wake)
            if patterns := config.enrichment.payload_files:
                self._payload_files = PayloadFiles(patterns, self._hold.add_evidence, _log_unreadable)
        self.receivers = receivers_of(config, self, self._rotating)
        self._pages = Pages(
            config.telemetry,
            self._counters,
            {way.name: way.counts for way in self._ways},
            hold=self._hold.counts if self._hold is not None else None,
            store=self._store,
            alive=lambda: self.death,
            ready=self.why_not_ready,
            expiries=partial(expiries, self._rotating),
        )
        self._failures_seen: set[str] = set()
        # A log call that is filtered out costs as much as the rest of a candidate.
        self._log_candidates = config.telemetry.logs.level == "debug"

    def _way(self, name: str, exporter: Exporter) -> Way:
        sender = senders_of(self._config).get(name)
        retry = sender.retry_on_failure if sender is not None else RetryConfig()
        queue = sender.sending_queue if sender is not None else SendingQueueConfig(num_consumers=1)
        return Way(name, exporter, self._store, retry=retry, queue=queue, patience=self._config.delivery.patience)

    def reload(self) -> None:
        """Read certificates and tokens again; what cannot be used is logged, and what was there stays."""
        for each in self._rotating:
            each.reload()

    def _parts(self) -> list[Part]:
        """Return the parts in the order in which they start."""
        parts = [*self._ways, self._hold, self._payload_files, self._control, *self.receivers.values()]
        return [part for part in parts if part is not None]

    async def start(self) -> None:
        """Start every part. Raises `EnricherError` if one cannot start; those that did are stopped again."""
        try:
            await self._pages.start()
            if self._store is not None:
                _log_recovery(await self._store.open(), [way.name for way in self._ways])
            await self._pages.opened()
            for part in self._parts():
                await part.start()
            self._not_ready = ""
        except EnricherError:
            await self.shutdown(0)
            raise

    async def shutdown(self, grace: float = SHUTDOWN_GRACE) -> None:
        """Refuse what is new, finish what is in flight, leave in the store what waits. The store closes last."""
        loop = asyncio.get_running_loop()
        until = loop.time() + grace
        self._not_ready = "shutting down"
        await asyncio.gather(*(receiver.shutdown(grace) for receiver in self.receivers.values()))
        for part in (self._control, self._payload_files, self._hold):
            if part is not None:
                await part.shutdown()
        await asyncio.gather(*(way.shutdown(max(until - loop.time(), 0.0)) for way in self._ways))
        if self._store is not None:
            await self._store.close()
        await self._pages.shutdown()

    def why_not_ready(self) -> str:
        """Return why nothing should be sent here now; empty if it may. A full store still delivers, and says so."""
        return self._not_ready or ("" if self._store is None else self._store.reason)

    @property
    def death(self) -> str:
        """Why the process has to be started again; empty while it need not."""
        return "" if self._store is None else self._store.death

    async def store_ended(self) -> None:
        """Return when nothing can be kept any more; never for a stage without a store."""
        if self._store is None:
            await asyncio.Event().wait()
        else:
            await self._store.ended()

    @contextmanager
    def room(self, signal: Signal) -> Iterator[Room]:
        """Give a request its room in what may be in flight; one for which there is none is counted as refused."""
        try:
            with self._admission.room() as room:
                yield room
        except NoRoomError:
            self._counters.answered(signal, Answer.REFUSED)
            raise

    def unauthenticated(self, transport: str) -> None:
        """Count a request that was refused for want of valid credentials."""
        self._counters.unauthenticated(transport)

    async def consume(self, signal: Signal, request: bytes, room: Room | None = None) -> bytes:
        """
        Mend a request, send it on, and return downstream's answer; candidates that wait are in the store by then.

        Raises `BadRequestError` for what is not OTLP, `RetryableError` for what can be neither delivered nor kept, and
        without a queue what the exporter raises. Nothing is acknowledged that downstream has not accepted or the store
        has not committed. Without a `room` that has the request's bytes already, it gets one here.
        """
        if room is None:
            with self.room(signal) as its_own:
                its_own.take(len(request))
                return await self.consume(signal, request, its_own)
        passing = None
        try:
            passing = self._process(signal, request)
            sending = self._send_on(signal, passing)
            room.keep_until(sending)
            # A client that leaves must not leave rows behind of which nobody knows, nor memory that nobody counts.
            answer = await asyncio.shield(sending)
        except BadRequestError:
            self._counters.answered(signal, Answer.BAD_REQUEST)
            raise
        except Exception as error:
            items = 0 if passing is None else passing.processed.items + len(passing.waiting)
            refused = isinstance(error, ExportError)
            self._counters.answered(signal, Answer.REFUSED if refused else Answer.FAILED, items)
            raise
        self._counters.answered(signal, Answer.ACCEPTED)
        return answer

    def _process(self, signal: Signal, request: bytes) -> live.Passing:
        if self._hold is None:
            passing = live.Passing(pipeline.process(signal, request, self._settings))
        else:
            passing = self._hold.process(signal, request)
        self._note(passing.processed.outcomes, passing.processed.failures)
        if self._hold is not None:
            self._hold.learned(passing.touched)
        return passing

    def _send_on(self, signal: Signal, passing: live.Passing) -> asyncio.Future[bytes]:
        if passing.waiting and self._hold is not None:
            return asyncio.create_task(self._hold_and_send(self._hold, passing))
        return self._deliver(signal, passing.processed.request, passing.processed.items)

    def _deliver(self, signal: Signal, request: bytes, items: int) -> asyncio.Future[bytes]:
        """Deliver to every destination, and return what will hold the first one's answer; of nothing, an empty one."""
        if request and len(self._ways) == 1:
            return self._ways[0].deliver(signal, request, items)
        return asyncio.ensure_future(self._deliver_to_all(signal, request, items))

    async def _deliver_to_all(self, signal: Signal, request: bytes, items: int) -> bytes:
        if not request:
            return b""
        answers = await asyncio.gather(*(way.deliver(signal, request, items) for way in self._ways))
        return answers[0]

    async def _hold_and_send(self, hold: Hold, passing: live.Passing) -> bytes:
        committing = asyncio.create_task(hold.commit(passing.waiting))
        processed, answer = passing.processed, b""
        try:
            if processed.request:
                answer = await self._deliver(Signal.TRACES, processed.request, processed.items)
        except Exception:
            with suppress(StoreError):
                await hold.withdraw(await committing)
            raise
        try:
            rows = await committing
        except StoreError as error:
            # What cannot be kept goes on as it is (F36).
            _log.warning("candidates cannot be held and pass on at once", spans=len(passing.waiting), error=str(error))
            for body, items in hold.give_up(passing.waiting):
                await self._deliver(Signal.TRACES, body, items)
        else:
            hold.admit(rows, passing.waiting)
        return answer

    def _wake(self) -> None:
        """Say that something came into the queues."""
        for way in self._ways:
            way.wake()

    def _note(self, outcomes: Sequence[Outcome], failures: Sequence[scan.Failure]) -> None:
        self._counters.note(outcomes, len(failures))
        for failure in failures:
            # Once a kind: the traceback's last frame tells kinds apart, whatever the message holds.
            kind = failure.trace.rpartition("\n  File ")[2]
            if kind not in self._failures_seen and len(self._failures_seen) < 1000:
                self._failures_seen.add(kind)
                _log.error("a step failed; the span passed on as it came", where=failure.where, exception=failure.trace)
        for outcome in outcomes if self._log_candidates else ():
            _log.debug(
                "candidate",
                trace_id=outcome.trace_id,
                span_id=outcome.span_id,
                rule=outcome.rule,
                reason=str(outcome.reason),
                rung=str(outcome.rung or ""),
                inserted=len(outcome.inserted),
            )


def _log_unreadable(error: CaptureError) -> None:
    _log.warning("a payload file cannot be read", problem=str(error))


def _log_recovery(recovery: Recovery, destinations: Sequence[str]) -> None:
    """Say what was found in the store, if there was anything to say."""
    said = {name: value for name, value in asdict(recovery).items() if value and name != "problems"}
    _log.info("store opened", **said)
    for name in recovery.destinations:
        if name not in destinations:
            _log.error("requests are queued for an exporter that the configuration does not name", exporter=name)
    for problem in recovery.problems:
        _log.error("something was wrong with the store", problem=problem)
