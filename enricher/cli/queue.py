"""`enricher queue`: what waits in the store, and the dead letters in it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from enricher.cli.options import ConfigFile, Overrides  # noqa: TC001 - typer reads annotations at run time

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from enricher.control import Ask

app = typer.Typer(
    no_args_is_help=True,
    help="Show what waits in the store, and show, send again or delete its dead letters: requests that downstream "
    "refused for good. Works beside a running stage and without one.",
)

Ids = Annotated[list[int] | None, typer.Argument(metavar="ID...", help="Dead letters, by the ids that `list` shows.")]
All = Annotated[bool, typer.Option("--all", help="Every dead letter that there is.")]

PAGE = 500


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Show how much is held, queued and dead, and each dead letter with the reason."""

    async def work(ask: Ask) -> None:
        found = await ask({"do": "list", "after": 0, "limit": PAGE})
        page = found["letters"]
        while len(page) == PAGE:
            page = (await ask({"do": "list", "after": page[-1]["id"], "limit": PAGE}))["letters"]
            found["letters"] += page
        typer.echo(json.dumps(found)) if as_json else _print(found)

    _with_store(config, overrides, work)


@app.command()
def show(
    letter: Annotated[int, typer.Argument(metavar="ID", help="A dead letter, by the id that `list` shows.")],
    output: Annotated[
        str | None, typer.Option("--output", metavar="PATH", help="Write the request there instead; as `replay` does.")
    ] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Print a dead letter's request as OTLP/JSON, or write it into a file that `replay` and `explain` read."""

    async def work(ask: Ask) -> None:
        from base64 import b64decode  # noqa: PLC0415 - only what is used is loaded: start-up time

        from enricher import capture  # noqa: PLC0415
        from enricher.otlp.shallow import Signal  # noqa: PLC0415

        found = await ask({"do": "show", "id": letter})
        if found["letter"] is None:
            typer.echo(f"there is no dead letter {letter}", err=True)
            raise typer.Exit(1)
        with capture.open_writer(output or "-") as writer:
            writer.write(Signal(found["letter"]["signal"]), b64decode(found["body"]))

    _with_store(config, overrides, work)


@app.command()
def resend(ids: Ids = None, all_: All = False, config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Put dead letters back into the queue; the stage sends them, now or when it runs again."""
    _change("resend", "queued again", ids, all_, config, overrides)


@app.command()
def drop(ids: Ids = None, all_: All = False, config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Delete dead letters for good."""
    _change("drop", "deleted", ids, all_, config, overrides)


def _change(  # noqa: PLR0913, PLR0917 - what both commands take
    what: str, done: str, ids: list[int] | None, all_: bool, config: Path | None, overrides: list[str] | None
) -> None:
    if bool(ids) == all_:
        raise typer.BadParameter("name dead letters by their ids, or take --all")

    async def work(ask: Ask) -> None:
        missing = 0
        number = 0
        for chosen in [ids] if ids else _pages(await _all_ids(ask)):
            changed = (await ask({"do": what, "ids": chosen}))["done"]
            number += changed
            missing += len(set(chosen)) - changed
        typer.echo(f"{number} {done}")
        if missing:
            typer.echo(f"{missing} are no dead letters; `enricher queue list` shows which there are", err=True)
            raise typer.Exit(1)

    _with_store(config, overrides, work)


async def _all_ids(ask: Ask) -> list[int]:
    ids: list[int] = []
    page: list[dict[str, Any]] = [{}]
    while page:
        page = (await ask({"do": "list", "after": ids[-1] if ids else 0, "limit": PAGE}))["letters"]
        ids += [letter["id"] for letter in page]
    return ids


def _pages(ids: list[int]) -> list[list[int]]:
    return [ids[at : at + PAGE] for at in range(0, len(ids), PAGE)]


def _with_store(
    config: Path | None, overrides: list[str] | None, work: Callable[[Ask], Coroutine[Any, Any, None]]
) -> None:
    from enricher.config import load  # noqa: PLC0415 - only what is used is loaded: start-up time
    from enricher.control import connected  # noqa: PLC0415

    storage = load(config, overrides or []).storage

    async def run() -> None:
        async with connected(storage.directory, storage.max_size_mib << 20, _tell) as ask:
            await work(ask)

    asyncio.run(run())


def _tell(problem: str) -> None:
    typer.echo(problem, err=True)


def _print(found: dict[str, Any]) -> None:
    from datetime import UTC, datetime  # noqa: PLC0415

    from rich.console import Console  # noqa: PLC0415
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    console = Console(highlight=False)
    for name in ("held", "queued", "dead", "quarantined"):
        amount = found[name]
        console.print(
            f"{name:12}{amount['items']:>10} items {amount['rows']:>8} rows {amount['bytes'] / 2**20:>9.1f} MiB"
        )
    console.print(f"{'store':12}{found['used_bytes'] / 2**20:>10.1f} of {found['max_bytes'] / 2**20:.0f} MiB")
    if not found["letters"]:
        return
    table = Table("id", "exporter", "signal", "items", "bytes", "tries", "refused", "code", "reason", box=None)
    for letter in found["letters"]:
        refused = datetime.fromtimestamp(letter["buried"], UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        cells = (letter["id"], letter["destination"], letter["signal"], letter["items"], letter["bytes"])
        table.add_row(*map(str, cells), str(letter["attempt"]), refused, str(letter["code"]), escape(letter["reason"]))
    console.print()
    console.print(table)
