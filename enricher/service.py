"""
The composition root: builds the parts from the configuration, starts them and stops them.

Downstream first, receivers last, so that nothing comes in that cannot go out; stopped in the opposite order.
"""

from __future__ import annotations

import asyncio
import signal as signals
import time
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, NamedTuple, Protocol

import structlog

from enricher import pipeline, scan
from enricher.config.model import RetryConfig
from enricher.control import Control
from enricher.deliver.backoff import Backoff
from enricher.deliver.counts import Counts
from enricher.deliver.delivery import Delivery
from enricher.deliver.drain import Drain
from enricher.deliver.file_exporter import FileExporter
from enricher.deliver.grpc_exporter import GrpcExporter
from enricher.errors import EnricherError
from enricher.hold import Hold
from enricher.otlp.shallow import Signal
from enricher.payload_files import PayloadFiles
from enricher.receive.admission import Admission
from enricher.receive.grpc_server import GrpcReceiver
from enricher.storage import Store, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from enricher import live
    from enricher.config.model import Config, OtlpExporterConfig
    from enricher.deliver import Exporter
    from enricher.errors import CaptureError
    from enricher.outcome import Outcome
    from enricher.storage import Recovery

SHUTDOWN_GRACE = 10.0
"""Seconds that requests in flight have to finish after SIGTERM; twice the default timeout of an export."""

_log = structlog.get_logger()


class Part(Protocol):
    """What has to be started."""

    async def start(self) -> object:
        """Make ready; raises `EnricherError` if that cannot be."""


class Way(NamedTuple):
    """What leads to one downstream."""

    exporter: Exporter
    delivery: Delivery
    drain: Drain | None


class Service:
    """The stage. `consume` is what receivers call."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._settings = scan.Settings.from_config(config)
        self._admission = Admission()
        self._store: Store | None = None
        self._hold: Hold | None = None
        self._payload_files: PayloadFiles | None = None
        self._control: Control | None = None
        otlp = config.exporters.otlp
        has_queue = otlp is not None and otlp.sending_queue.enabled
        if config.hold.enabled or has_queue:
            self._store = Store(config.storage.directory, max_size_bytes=config.storage.max_size_mib << 20)
            self._control = Control(self._store, config.storage.directory, self._wake_drains)
        self._ways = [
            self._way(name, exporter, has_queue=name != "otlp" or has_queue)
            for name, exporter in exporters_of(config).items()
        ]
        if config.hold.enabled and self._store is not None:
            names = [way.delivery.destination for way in self._ways]
            self._hold = Hold(
                config.hold, self._settings, self._store, names, note=self._note, queued=self._wake_drains
            )
            if patterns := config.enrichment.payload_files:
                self._payload_files = PayloadFiles(patterns, self._hold.add_evidence, _log_unreadable)
        grpc = config.receivers.otlp.protocols.grpc
        self.receiver = GrpcReceiver(
            str(grpc.endpoint), self.consume, max_receive_bytes=grpc.max_recv_msg_size_mib << 20
        )
        self._failures_seen: set[str] = set()
        # A log call that is filtered out costs as much as the rest of a candidate.
        self._log_candidates = config.telemetry.logs.level == "debug"

    def _way(self, name: str, exporter: Exporter, *, has_queue: bool) -> Way:
        otlp, store, counts = self._config.exporters.otlp, self._store, Counts()
        retry = otlp.retry_on_failure if otlp is not None else RetryConfig()
        backoff = Backoff(retry, time.monotonic)
        drain = None
        if store is not None:
            consumers = otlp.sending_queue.num_consumers if otlp is not None else 1
            drain = Drain(name, exporter, store, backoff, counts, consumers=consumers)
        delivery = Delivery(
            name,
            exporter,
            store if has_queue else None,
            backoff,
            counts,
            patience=self._config.delivery.patience,
            queued=drain.wake if drain is not None else lambda: None,
        )
        return Way(exporter, delivery, drain)

    def _parts(self) -> list[Part]:
        """Return the parts in the order in which they start: downstream first, receivers last."""
        parts: list[Part | None] = [part for way in self._ways for part in (way.exporter, way.delivery)]
        parts += [self._hold, self._payload_files, *(way.drain for way in self._ways), self._control, self.receiver]
        return [part for part in parts if part is not None]

    async def start(self) -> None:
        """Start every part. Raises `EnricherError` if one cannot start; those that did are stopped again."""
        try:
            if self._store is not None:
                _log_recovery(await self._store.open(), [way.delivery.destination for way in self._ways])
            for part in self._parts():
                await part.start()
        except EnricherError:
            await self.shutdown(0)
            raise

    async def shutdown(self, grace: float = SHUTDOWN_GRACE) -> None:
        """Refuse what is new, finish what is in flight, leave in the store what waits. The store closes last."""
        loop = asyncio.get_running_loop()
        until = loop.time() + grace
        await self.receiver.shutdown(grace)
        if self._control is not None:
            await self._control.shutdown()
        if self._payload_files is not None:
            await self._payload_files.shutdown()
        if self._hold is not None:
            await self._hold.shutdown()
        senders = [part for way in self._ways for part in (way.drain, way.delivery) if part is not None]
        await asyncio.gather(*(part.shutdown(max(until - loop.time(), 0.0)) for part in senders))
        # What is still being sent fails now, and its rows must learn of it before the store closes.
        await asyncio.gather(*(way.exporter.shutdown(0) for way in self._ways))
        await asyncio.gather(*(part.settled() for part in senders))
        if self._store is not None:
            await self._store.close()

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

    async def consume(self, signal: Signal, request: bytes) -> bytes:
        """
        Mend a request, send it on, and return downstream's answer; candidates that wait are in the store by then.

        Raises `BadRequestError` for what is not OTLP, `RetryableError` for what can be neither delivered nor kept, and
        without a queue what the exporter raises. Nothing is acknowledged that downstream has not accepted or the store
        has not committed.
        """
        if not request:
            return b""
        with self._admission.admit(len(request)):
            if self._hold is None:
                processed = pipeline.process(signal, request, self._settings)
                self._note(processed.outcomes, processed.failures)
                return await self._deliver(signal, processed.request, processed.items)
            passing = self._hold.process(signal, request)
            processed = passing.processed
            self._note(processed.outcomes, processed.failures)
            self._hold.learned(passing.touched)
            if not passing.waiting:
                return await self._deliver(signal, processed.request, processed.items)
            # A client that leaves must not leave rows behind of which nobody knows.
            return await asyncio.shield(asyncio.create_task(self._hold_and_send(self._hold, passing)))

    async def _deliver(self, signal: Signal, request: bytes, items: int) -> bytes:
        """Deliver to every destination, and return the first one's answer."""
        if len(self._ways) == 1:
            return await self._ways[0].delivery.deliver(signal, request, items)
        answers = await asyncio.gather(*(way.delivery.deliver(signal, request, items) for way in self._ways))
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

    def _wake_drains(self) -> None:
        for way in self._ways:
            if way.drain is not None:
                way.drain.wake()

    def _note(self, outcomes: Sequence[Outcome], failures: Sequence[scan.Failure]) -> None:
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


def exporters_of(config: Config) -> dict[str, Exporter]:
    """Return the exporters that the configuration names, by name; the configuration makes sure that there is one."""
    otlp, file = config.exporters.otlp, config.exporters.file
    exporters: dict[str, Exporter] = {}
    if otlp is not None:
        exporters["otlp"] = grpc_exporter(otlp)
    if file is not None:
        exporters["file"] = FileExporter(file.path)
    return exporters


def grpc_exporter(otlp: OtlpExporterConfig) -> GrpcExporter:
    """Return the gRPC exporter of `exporters.otlp`."""
    return GrpcExporter(
        otlp.endpoint.target,
        insecure=not otlp.uses_tls,
        timeout=otlp.timeout,
        compression=otlp.compression,
        headers={name: value.get_secret_value() for name, value in otlp.headers.items()},
        ca_file=otlp.tls.ca_file,
        cert_file=otlp.tls.cert_file,
        key_file=otlp.tls.key_file,
        server_name_override=otlp.tls.server_name_override,
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


async def run(config: Config) -> None:
    """Run the stage until SIGTERM or SIGINT; a second one ends it without waiting for what is in flight."""
    stop = asyncio.Event()
    asked = 0

    def ask() -> None:
        nonlocal asked
        asked += 1
        stop.set()

    loop = asyncio.get_running_loop()
    for each in (signals.SIGTERM, signals.SIGINT):
        loop.add_signal_handler(each, ask)
    if config.enrichment.payload_files and not config.hold.enabled:
        _log.warning(
            "enrichment.payload_files has no effect without hold.enabled: a stage without memory reads no files"
        )
    if keys := without_effect(config):
        _log.warning("keys that have no effect in this version", keys=", ".join(keys))
    service = Service(config)
    await service.start()
    _log.info(
        "ready",
        grpc=f"{config.receivers.otlp.protocols.grpc.endpoint.host}:{service.receiver.port}",
        exporter=destination(config),
    )
    watching = asyncio.create_task(_watch(service, stop))
    await stop.wait()
    watching.cancel()
    _log.info("shutting down")
    stop.clear()
    stopping = asyncio.create_task(service.shutdown())
    again = asyncio.create_task(stop.wait())
    await asyncio.wait({stopping, again}, return_when=asyncio.FIRST_COMPLETED)
    if asked > 1 and not stopping.done():
        _log.warning("asked twice: not waiting for what is in flight")
        await service.shutdown(0)
    again.cancel()
    await stopping
    _log.info("stopped")
    if service.death:
        raise EnricherError(service.death)


async def _watch(service: Service, stop: asyncio.Event) -> None:
    """Stop a stage that can keep nothing any more, so that whoever started it starts it again (F44)."""
    await service.store_ended()
    stop.set()


WITHOUT_EFFECT = (
    "receivers.otlp.protocols.http",
    "telemetry.metrics",
    "telemetry.health",
)
"""Keys that are read and checked, and do nothing in this version."""


def without_effect(config: Config) -> list[str]:
    """Return the keys among `WITHOUT_EFFECT` that the user has written."""
    found = []
    for key in WITHOUT_EFFECT:
        section: object = config
        for name in key.split("."):
            written: set[str] = getattr(section, "model_fields_set", set())
            section = getattr(section, name, None) if name in written else None
        if section is not None:
            found.append(key)
    return found


def destination(config: Config) -> str:
    """Return in words where requests go."""
    otlp, file = config.exporters.otlp, config.exporters.file
    named = [f"otlp {otlp.endpoint}" if otlp is not None else "", f"file {file.path}" if file is not None else ""]
    return " and ".join(filter(None, named))
