"""What tests of every exporter over a network do with one."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import pytest

from enricher.deliver.grpc_exporter import GrpcExporter
from enricher.deliver.http_exporter import HttpExporter
from enricher.errors import ExportError
from enricher.otlp.shallow import Signal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.downstream import Downstream
    from tests.support.http_downstream import HttpDownstream

E = TypeVar("E", GrpcExporter, HttpExporter)


@asynccontextmanager
async def running(exporter: E) -> AsyncIterator[E]:
    """Start an exporter, and shut it down at the end."""
    await exporter.start()
    try:
        yield exporter
    finally:
        await exporter.shutdown()


async def failing(exporter: GrpcExporter | HttpExporter, request: bytes = b"") -> ExportError:
    """Return what an export raises."""
    with pytest.raises(ExportError) as caught:
        await exporter.export(Signal.TRACES, request)
    return caught.value


async def cut_short(exporter: GrpcExporter | HttpExporter, downstream: Downstream | HttpDownstream) -> ExportError:
    """Return what an export raises that downstream has and never answers, when the exporter is shut down."""
    under_way = asyncio.ensure_future(failing(exporter))
    await downstream.requests(1)
    await exporter.shutdown(0)
    return await under_way


async def finished(
    exporter: GrpcExporter | HttpExporter, downstream: Downstream | HttpDownstream, answers: asyncio.Event
) -> bytes:
    """Return what an export gets that downstream answers while the exporter shuts down."""
    under_way = asyncio.ensure_future(exporter.export(Signal.TRACES, b""))
    await downstream.requests(1)
    stopping = asyncio.ensure_future(exporter.shutdown(30))
    await asyncio.sleep(0)  # the shutdown has begun, and waits
    answers.set()
    response = await under_way
    await stopping
    return response
