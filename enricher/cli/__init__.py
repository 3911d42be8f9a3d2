"""What users type: one command a file. Exit codes: 0 done, 1 a problem that is named, 2 wrong usage."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import enricher
from enricher.cli.audit import audit
from enricher.cli.demo import demo
from enricher.cli.explain import explain
from enricher.cli.queue import app as queue
from enricher.cli.replay import replay
from enricher.cli.run import run
from enricher.cli.validate import validate
from enricher.errors import EnricherError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Mend OpenAI Assistants spans from recorded API answers: a stage in front of an OpenTelemetry Collector.",
)
for command, what in (
    (demo, "Show on a recorded run what the stage does."),
    (run, "Run the stage."),
    (validate, "Check a configuration."),
    (replay, "Mend recorded OTLP, into a file or to an endpoint."),
    (explain, "Say why each Assistant-run span was mended or not."),
    (audit, "Count provider, model and usage, before and after."),
):
    app.command(short_help=what)(command)
app.add_typer(queue, name="queue", short_help="Show what waits in the store, and its dead letters.")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"enricher {enricher.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    del version


def main() -> None:
    """Run the command line; what is named in an `EnricherError` is printed without a traceback."""
    try:
        app()
    except EnricherError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the log is for the stage, this is for whoever typed
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read our output has left (`| head`): nothing is wrong.
        sys.stderr.close()
        sys.exit(0)
