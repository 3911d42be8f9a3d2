"""`enricher replay`: a recording through the pipeline, into a file or to an endpoint."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from enricher.cli.options import ConfigFile, Inputs, Overrides, PayloadFiles  # noqa: TC001 - typer reads annotations at run time

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Iterator

    from enricher.config import Config, Problem
    from enricher.deliver.grpc_exporter import GrpcExporter
    from enricher.otlp.shallow import Signal
    from enricher.recording import Mended

PATIENCE = 60.0
"""Seconds for which an endpoint that is away is tried again, for each request."""


def replay(  # noqa: PLR0913, PLR0917 - typer makes options of parameters
    inputs: Inputs,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="PATH", help="Write here: .jsonl or .binpb, with .gz or .zst; - is stdout."
        ),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint", metavar="ADDRESS", help="Send there by OTLP/gRPC, over TLS unless http:// is in front."
        ),
    ] = None,
    expect: Annotated[
        str | None,
        typer.Option("--expect", metavar="FILE", help="Compare the result with this recording, span by span."),
    ] = None,
    payloads: PayloadFiles = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """
    Run recorded OTLP through the pipeline with the whole input known, earlier and later parts alike.

    Exits with 1 if a part cannot be read (the rest is still done), if the endpoint refuses something for good, or if
    the result is not what --expect holds.
    """
    from collections import Counter  # noqa: PLC0415 - only what is used is loaded: start-up time

    from enricher.cli.progress import reading  # noqa: PLC0415
    from enricher.config import examine  # noqa: PLC0415

    if output is not None and endpoint is not None:
        raise typer.BadParameter("--output and --endpoint exclude each other")
    if output is None and endpoint is None and expect is None:
        raise typer.BadParameter("one of --output, --endpoint and --expect is needed")
    if endpoint is not None:
        overrides = [*(overrides or []), f"exporters.otlp.endpoint={endpoint}"]
    examined = examine(config, overrides or [])
    if endpoint is not None:
        _warn(examined.problems)
    loaded = examined.usable()
    counts: Counter[str] = Counter()
    kept: list[tuple[Signal, bytes]] = []
    with reading(inputs, loaded, payloads, counts, output=output) as items:
        mended = _counting(items, counts)
        if expect is not None:
            mended = _keeping(mended, kept)
        if output is not None:
            _write(mended, output, counts)
        elif endpoint is not None:
            asyncio.run(_send(mended, loaded, counts))
        else:
            for _ in mended:
                pass
    _summary(counts)
    different = _differs(expect, kept) if expect is not None else False
    if counts["unreadable"] or counts["refused"] or different:
        raise typer.Exit(1)


def _warn(problems: Iterable[Problem]) -> None:
    """Say what is odd about the way to the endpoint, such as TLS to this machine: an endpoint is tried for a minute."""
    from enricher.config import Severity  # noqa: PLC0415

    for problem in problems:
        if problem.severity is Severity.WARNING and problem.dotted.startswith("exporters.otlp."):
            typer.echo(problem.render(), err=True)


def _counting(items: Iterator[Mended], counts: Counter[str]) -> Iterator[Mended]:
    for item in items:
        for outcome in item.processed.outcomes:
            counts[f"reason {outcome.reason}"] += 1
        yield item


def _keeping(items: Iterator[Mended], kept: list[tuple[Signal, bytes]]) -> Iterator[Mended]:
    for item in items:
        kept.append((item.captured.signal, item.processed.request))
        yield item


def _write(items: Iterator[Mended], output: str, counts: Counter[str]) -> None:
    from enricher import capture  # noqa: PLC0415
    from enricher.errors import CaptureError  # noqa: PLC0415

    with capture.open_writer(output) as writer:
        for item in items:
            try:
                writer.write(item.captured.signal, item.processed.request)
            except CaptureError as error:
                typer.echo(f"{item.captured.path}: byte {item.captured.offset}: not written: {error}", err=True)
                counts["refused"] += 1


async def _send(items: Iterator[Mended], config: Config, counts: Counter[str]) -> None:
    from enricher.deliver.exporters import grpc_exporter  # noqa: PLC0415
    from enricher.errors import EnricherError, PermanentError, RetryableError  # noqa: PLC0415
    from enricher.otlp import status  # noqa: PLC0415

    otlp = config.exporters.otlp
    if otlp is None:
        raise EnricherError("exporters.otlp is not configured")
    exporter = grpc_exporter(otlp)
    await exporter.start()
    try:
        for item in items:
            try:
                answer = await _patiently(exporter, item)
            except RetryableError as error:
                sent = counts["requests"] - 1
                raise EnricherError(
                    f"{otlp.endpoint} did not take it for {PATIENCE:.0f} s: {error.details}; the first {sent} requests "
                    f"were handled, {item.captured.path} from byte {item.captured.offset} on was not sent"
                ) from None
            except PermanentError as error:
                where = f"{item.captured.path}: byte {item.captured.offset}"
                typer.echo(f"{where}: {otlp.endpoint} did not take the request: {error.details}", err=True)
                counts["refused"] += 1
            else:
                rejected, message = status.rejected(answer)
                if rejected or message:
                    typer.echo(f"{otlp.endpoint} rejected {rejected} items: {message}", err=True)
                    counts["refused"] += 1 if rejected else 0
    finally:
        await exporter.shutdown(1)


async def _patiently(exporter: GrpcExporter, item: Mended) -> bytes:
    """Try again while the endpoint is away or throttles, for at most `PATIENCE` seconds."""
    from enricher.errors import RetryableError  # noqa: PLC0415

    loop = asyncio.get_running_loop()
    until, delay = loop.time() + PATIENCE, 0.25
    while True:
        try:
            return await exporter.export(item.captured.signal, item.processed.request)
        except RetryableError as error:
            delay = max(min(delay * 2, 5.0), error.retry_delay or 0)
            if loop.time() + delay > until:
                raise
            await asyncio.sleep(delay)


def _summary(counts: Counter[str]) -> None:
    reasons = ", ".join(
        f"{key.removeprefix('reason ')} {count}" for key, count in counts.most_common() if key.startswith("reason ")
    )
    typer.echo(
        f"{counts['requests']} requests, {counts['items']} spans and log records; candidates: {reasons or 'none'}",
        err=True,
    )


def _differs(expect: str, kept: list[tuple[Signal, bytes]]) -> bool:
    """Print every difference; tell whether there was one."""
    from enricher import capture  # noqa: PLC0415
    from enricher.errors import BadRequestError, CaptureError  # noqa: PLC0415
    from enricher.expect import differences  # noqa: PLC0415

    wanted: list[tuple[Signal, bytes]] = []
    for item in capture.read([expect]):
        if isinstance(item, CaptureError):
            raise item
        wanted.append((item.signal, item.request))
    try:
        lines = list(differences(wanted, kept))
    except BadRequestError as error:
        raise CaptureError(expect, None, str(error)) from None
    for line in lines:
        typer.echo(line)
    typer.echo(f"{len(lines)} differences" if lines else f"no difference from {expect}", err=True)
    return bool(lines)
