"""The stage as a process: signals, what is said at start and stop, and when it has to end."""

from __future__ import annotations

import asyncio
import signal as signals
from typing import TYPE_CHECKING

import structlog
from google.protobuf.internal import api_implementation

from enricher.deliver.exporters import destination
from enricher.errors import EnricherError
from enricher.memory import areas_of_libraries, give_back_pages
from enricher.receive.receivers import unguarded
from enricher.service import Service

if TYPE_CHECKING:
    from enricher.config.model import Config

_log = structlog.get_logger()


async def run(config: Config) -> None:
    """
    Run the stage until SIGTERM or SIGINT; a second one ends it without waiting for what is in flight.

    SIGHUP has certificates and tokens read again.

    Raises `EnricherError` if it cannot start, or cannot go on.
    """
    if (kind := api_implementation.Type()) != "upb":
        raise EnricherError(
            f"protobuf's implementation is {kind!r}; expected 'upb', because a request can exhaust the others (unset "
            "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION, or install protobuf from a wheel for this machine)"
        )
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
    for endpoint in unguarded(config):
        _log.warning("everyone who can reach this address gets in: neither TLS nor authentication", endpoint=endpoint)
    service = Service(config)
    loop.add_signal_handler(signals.SIGHUP, service.reload)
    areas = areas_of_libraries()
    await service.start()
    listening = {name: receiver.address for name, receiver in service.receivers.items()}
    give_back_pages(areas)
    _log.info("ready", **listening, exporter=destination(config))
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
