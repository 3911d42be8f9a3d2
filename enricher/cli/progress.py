"""A progress bar over long inputs, where there is a terminal to show it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from enricher.errors import CaptureError
    from enricher.recording import Mended
    from enricher.scan import Settings

LONG_BYTES = 8 << 20
"""From this size on it takes long enough to wonder."""


@contextmanager
def reading(
    inputs: Sequence[str], settings: Settings, output: str | None = None, payload_files: Sequence[str] = ()
) -> Iterator[Iterator[Mended | CaptureError]]:
    """Open the inputs and give what `recording.mend` yields. `output` must not be one of the inputs."""
    from rich.console import Console  # noqa: PLC0415 - only what is used is loaded: start-up time
    from rich.progress import Progress  # noqa: PLC0415

    from enricher import capture, recording  # noqa: PLC0415

    with capture.open_inputs(inputs) as opened:
        if output is not None:
            opened.refuse_output(output)
        console = Console(stderr=True)
        hidden = not console.is_terminal or opened.total_bytes < LONG_BYTES
        with Progress(console=console, disable=hidden, transient=True) as bar:
            task = bar.add_task("reading twice", total=2 * opened.total_bytes)
            yield recording.mend(opened, settings, lambda done: bar.update(task, completed=done), payload_files)
