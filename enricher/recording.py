"""
Recordings through the pipeline: what `replay`, `explain` and `enricher.replay` have in common.

The inputs are gone through twice, once to learn and once to mend, so that a recording may be larger than memory.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from enricher import capture
from enricher.config import Config, load
from enricher.errors import BadRequestError, CaptureError
from enricher.payload_files import read_once
from enricher.pipeline import Processed  # noqa: TC001 - dataclass fields
from enricher.scan import Failure, Settings
from enricher.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from enricher.otlp.shallow import Signal
    from enricher.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Mended:
    """One recorded request after the pipeline."""

    captured: capture.Captured
    processed: Processed


@dataclass(slots=True)
class Replayed:
    """A whole recording after the pipeline, requests in the order in which they were recorded."""

    requests: list[tuple[Signal, bytes]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    """Exceptions inside steps; their spans passed on as they came. Empty unless there is a bug."""


def mend(
    inputs: capture.Inputs,
    settings: Settings,
    progress: Callable[[int], None] = lambda _: None,
    payload_files: Sequence[str] = (),
) -> Iterator[Mended | CaptureError]:
    """
    Yield every request mended by what all of them say, and in its place the error of each part that cannot be read.

    `progress` is told how many bytes were read, up to twice `inputs.total_bytes`. `payload_files` are patterns of files
    that hold the API's answers.
    """
    world = World(settings)
    for said in read_once(payload_files):
        if isinstance(said, CaptureError):
            yield said
        else:
            world.add(said)
    for item in inputs:
        if isinstance(item, capture.Captured):
            with suppress(BadRequestError):  # said in the second pass
                world.learn(item.signal, item.request)
        progress(inputs.bytes_read)
    for item in inputs:
        if isinstance(item, CaptureError):
            yield item
        else:
            try:
                processed = world.mend(item.signal, item.request)
            except BadRequestError as error:
                yield CaptureError(item.path, item.offset, str(error))
            else:
                processed.failures += world.failures
                world.failures = []
                yield Mended(item, processed)
        progress(inputs.total_bytes + inputs.bytes_read)


def replay(
    paths: str | PathLike[str] | Sequence[str | PathLike[str]], config: Config | str | PathLike[str] | None = None
) -> Replayed:
    """Do what `enricher.replay` says, which is this function for users."""
    names = [paths] if isinstance(paths, str | PathLike) else list(paths)
    loaded = config if isinstance(config, Config) else load(Path(config)) if config is not None else Config()
    out = Replayed()
    with capture.open_inputs([str(name) for name in names]) as inputs:
        for item in mend(inputs, Settings.from_config(loaded), payload_files=loaded.enrichment.payload_files):
            if isinstance(item, CaptureError):
                raise item
            out.requests.append((item.captured.signal, item.processed.request))
            out.outcomes += item.processed.outcomes
            out.failures += item.processed.failures
    return out
