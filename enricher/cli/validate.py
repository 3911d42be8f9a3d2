"""`enricher validate`: every mistake of a configuration at once."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from enricher.cli.options import ConfigFile, Overrides  # noqa: TC001 - typer reads annotations at run time


class Format(StrEnum):
    """For people or for machines."""

    TEXT = "text"
    JSON = "json"


def validate(
    config: ConfigFile = None,
    overrides: Overrides = None,
    output: Annotated[Format, typer.Option("--format", help="text, or json for machines.")] = Format.TEXT,
) -> None:
    """Check a configuration. Exits with 1 if there is an error in it; warnings alone are 0."""
    from enricher.config import examine  # noqa: PLC0415 - only what is used is loaded: start-up time

    examination = examine(config, overrides or [])
    if output is Format.JSON:
        typer.echo(json.dumps([problem.as_dict() for problem in examination.problems], indent=2))
    else:
        for problem in examination.problems:
            typer.echo(problem.render())
        if examination.config is not None:
            typer.echo(f"{config or 'the default configuration'} is valid")
    if examination.config is None:
        raise typer.Exit(1)
