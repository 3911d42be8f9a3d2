"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="YAML configuration; without one, the defaults.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one key, e.g. exporters.otlp.endpoint=http://host:4317."),
]
PayloadFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--payloads",
        metavar="PATTERN",
        help="Files that hold the API's answers, beside enrichment.payload_files: JSON, HAR, cassettes, transcripts.",
    ),
]
Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Recorded OTLP: files, directories, globs, or - for standard input. Protobuf or JSON, gzip and zstd too.",
    ),
]
