"""`enricher run`: the stage."""

from __future__ import annotations

import asyncio
import os
import sys

import typer

from enricher.cli.options import ConfigFile, Overrides  # noqa: TC001 - typer reads annotations at run time


def run(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """
    Run the stage: receive OTLP, mend Assistant-run spans, send everything on.

    Without a configuration it listens on localhost:4317 and localhost:4318 and writes OTLP/JSON lines to
    ./enricher-data/out.jsonl.
    """
    from enricher.config import Severity, examine  # noqa: PLC0415 - only what is used is loaded: start-up time

    examination = examine(config, overrides or [])
    for problem in examination.problems:
        typer.echo(problem.render(), err=True)
    if examination.config is None or any(p.severity is Severity.ERROR for p in examination.problems):
        raise typer.Exit(1)
    loaded = examination.config
    _load_structlog_alone()
    _load_aiohttp_without_authorities()
    from enricher import running  # noqa: PLC0415
    from enricher.memory import keep_freed_memory, look_for_garbage_seldom  # noqa: PLC0415
    from enricher.telemetry import logs  # noqa: PLC0415

    keep_freed_memory()
    look_for_garbage_seldom()
    logs.configure(loaded.telemetry.logs.level, loaded.telemetry.logs.format)
    if loaded.exporters.is_defaulted and loaded.exporters.file is not None:
        typer.echo(
            f"no exporter is configured: spans are written to {loaded.exporters.file.path}; "
            "--set exporters.otlp.endpoint=http://host:port sends them on",
            err=True,
        )
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(running.run(loaded))


def _load_structlog_alone() -> None:
    """Load structlog without rich, which it takes for tracebacks that the stage never prints: 5 MiB and a tenth."""
    if "rich" in sys.modules:
        return
    # This is how Python is told that a module is not there.
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog  # noqa: F401, PLC0415
    finally:
        del sys.modules["rich"]


def _load_aiohttp_without_authorities() -> None:
    """
    Load aiohttp without the system's certificate authorities, of which it reads two copies: 1.6 MiB and 45 ms.

    They are for connections that name none. The stage's own always do (`http_exporter.client_tls`).
    """
    places = ("SSL_CERT_FILE", "SSL_CERT_DIR")
    before = {place: os.environ.get(place) for place in places}
    os.environ |= dict.fromkeys(places, os.devnull)
    try:
        import aiohttp  # noqa: F401, PLC0415
    finally:
        for place, value in before.items():
            if value is None:
                del os.environ[place]
            else:
                os.environ[place] = value


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32" or sys.implementation.name != "cpython":
        return None
    import uvloop  # noqa: PLC0415 - not there on every platform

    factory: type[asyncio.AbstractEventLoop] = uvloop.Loop
    return factory
