"""`enricher explain`: what became of every candidate of a recording, and why."""

from __future__ import annotations

from typing import Annotated

import typer

from enricher.cli.options import ConfigFile, Inputs, Overrides, PayloadFiles  # noqa: TC001 - typer reads annotations at run time


def explain(
    inputs: Inputs,
    span: Annotated[
        str | None, typer.Option("--span", metavar="ID", help="Only this span: its id in hex, or how it begins.")
    ] = None,
    payloads: PayloadFiles = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """
    Say of every Assistant-run span what it lacked, what evidence was found, what decided, and what would be written.

    Exits with 1 if a file cannot be read (the others are still explained) or if --span names none.
    """
    from collections import Counter  # noqa: PLC0415 - only what is used is loaded: start-up time

    from rich.console import Console  # noqa: PLC0415

    from enricher.cli.progress import reading  # noqa: PLC0415
    from enricher.cli.show import print_explanation  # noqa: PLC0415
    from enricher.config import load  # noqa: PLC0415

    loaded = load(config, overrides or [])
    console = Console(highlight=False)
    read, reasons, shown = Counter[str](), Counter[str](), 0
    wanted = (span or "").lower()
    with reading(inputs, loaded, payloads, read) as items:
        for item in items:
            for outcome in item.processed.outcomes:
                reasons[str(outcome.reason)] += 1
                if outcome.span_id.startswith(wanted):
                    print_explanation(console, outcome)
                    shown += 1
    if span is not None and not shown:
        typer.echo(f"no candidate's span id begins with {span}; {reasons.total()} candidates were found", err=True)
    elif not read["requests"]:
        console.print("no span was read")
    elif not shown:
        console.print("no Assistant-run span was found; `enrichment.rules` adds rules for spans with other names")
    elif span is None:
        counts = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        console.print(f"{reasons.total()} candidates: {counts}")
    if read["unreadable"] or (span is not None and not shown):
        raise typer.Exit(1)
