"""`enricher audit`: coverage before and after over a recording, as tables, as JSON or as a page."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from enricher.cli.options import ConfigFile, Inputs, Overrides, PayloadFiles  # noqa: TC001 - typer reads annotations at run time


def audit(  # noqa: PLR0913, PLR0917 - typer makes options of parameters
    inputs: Inputs,
    html: Annotated[
        str | None, typer.Option("--html", metavar="FILE", help="Write a page there too: one file, for any browser.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    payloads: PayloadFiles = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """
    Say how many Assistant runs have provider, model and usage, before and after, and what would give the rest.

    By service, instrumentation and model, with tokens and, where the extra `prices` is installed, what they cost. Exits
    with 1 if a file cannot be read (the others are still counted); gaps are no error.
    """
    from enricher import prices  # noqa: PLC0415 - only what is used is loaded: start-up time
    from enricher.audit import Audit  # noqa: PLC0415
    from enricher.cli.audit_data import as_data  # noqa: PLC0415
    from enricher.cli.progress import reading  # noqa: PLC0415
    from enricher.config import load  # noqa: PLC0415

    loaded = load(config, overrides or [])
    counted, read = Audit(), Counter[str]()
    with reading(inputs, loaded, payloads, read, output=html) as items:
        for item in items:
            for outcome in item.processed.outcomes:
                counted.add(outcome)
    found = prices.load()
    report = counted.report(found[0]) if found else counted.report()
    data = as_data(report, read, found[1] if found else None)
    if html is not None:
        # Before anything is printed: whoever reads the tables may leave (`| head`).
        _write(html, data)
    if as_json:
        typer.echo(json.dumps(data, indent=2))
    else:
        from rich.console import Console  # noqa: PLC0415

        from enricher.cli.audit_tables import print_report  # noqa: PLC0415

        print_report(Console(highlight=False), data)
    if read["unreadable"]:
        raise typer.Exit(1)


def _write(file: str, data: dict[str, object]) -> None:
    from enricher.cli.audit_page import page  # noqa: PLC0415
    from enricher.errors import EnricherError  # noqa: PLC0415

    try:
        Path(file).write_text(page(data), encoding="utf-8")
    except OSError as error:
        raise EnricherError(f"{file}: the page cannot be written: {error.strerror}") from None
