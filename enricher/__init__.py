"""An OTLP stage that mends OpenAI Assistants spans from recorded API answers; read `pipeline.py` first."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from enricher.config import Config
    from enricher.recording import Replayed

__all__ = ["__version__", "replay"]
__version__ = "0.1.0"


def replay(
    paths: str | PathLike[str] | Sequence[str | PathLike[str]], config: Config | str | PathLike[str] | None = None
) -> Replayed:
    """
    Run recorded files through the pipeline and return the mended requests and the outcome of every candidate.

    `paths` are files, directories or globs, as for `enricher replay`; `config` is a `Config` or a YAML file. Raises
    `CaptureError` for the first part that cannot be read and `ConfigError` for a wrong configuration.
    """
    from enricher import recording  # noqa: PLC0415 - `import enricher` alone must stay cheap

    return recording.replay(paths, config)
