"""Inputs as every command reads them: a bar over long ones where there is a terminal, what cannot be read named."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Sequence

    from enricher.config import Config
    from enricher.errors import CaptureError
    from enricher.recording import Mended

LONG_BYTES = 8 << 20
"""From this size on it takes long enough to wonder."""


@contextmanager
def reading(
    inputs: Sequence[str],
    config: Config,
    payloads: Sequence[str] | None,
    counts: Counter[str],
    *,
    output: str | None = None,
) -> Iterator[Iterator[Mended]]:
    """
    Open the inputs and give what could be read and mended. `output` must not be one of the inputs.

    `payloads` are payload files besides those that the configuration names. What could not be read is named, and
    counted as `unreadable`; `requests` and `items` count the rest.
    """
    from rich.console import Console  # noqa: PLC0415 - only what is used is loaded: start-up time
    from rich.progress import Progress  # noqa: PLC0415

    from enricher import capture, recording  # noqa: PLC0415
    from enricher.scan import Settings  # noqa: PLC0415

    settings = Settings.from_config(config)
    payload_files = (*config.enrichment.payload_files, *(payloads or ()))
    with capture.open_inputs(inputs) as opened:
        if output is not None:
            opened.refuse_output(output)
        console = Console(stderr=True)
        hidden = not console.is_terminal or opened.total_bytes < LONG_BYTES
        with Progress(console=console, disable=hidden, transient=True) as bar:
            task = bar.add_task("reading twice", total=2 * opened.total_bytes)
            mended = recording.mend(opened, settings, lambda done: bar.update(task, completed=done), payload_files)
            yield _good(mended, counts)


def _good(items: Iterator[Mended | CaptureError], counts: Counter[str]) -> Iterator[Mended]:
    from enricher.errors import CaptureError  # noqa: PLC0415

    for item in items:
        if isinstance(item, CaptureError):
            typer.echo(str(item), err=True)
            counts["unreadable"] += 1
            continue
        for failure in item.processed.failures:
            typer.echo(f"a step failed ({failure.where}):\n{failure.trace}", err=True)
        counts["requests"] += 1
        counts["items"] += item.processed.items
        yield item
