"""Outcomes in words, for `explain` and `demo`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enricher.defects import WORDS as DEFECT_WORDS
from enricher.outcome import RUNG_WORDS, WORDS, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from enricher.outcome import Outcome

MAX_CONSIDERED = 12

GOOD = frozenset({Reason.ENRICHED, Reason.FROM_SPAN, Reason.ALREADY_PRESENT, Reason.NOT_OWNER})


def explanation(outcome: Outcome) -> Iterator[tuple[str, str]]:
    """Yield label and text of each line; the label is empty where the line before goes on."""
    if outcome.rule:
        yield "rule", f"{outcome.rule}, scope {outcome.scope or '(none)'}"
    yield "lacked", ", ".join(str(fact) for fact in outcome.lacked) or "nothing"
    for defect in outcome.defects:
        shown = ", and the run's counts or model show it" if defect in outcome.confirmed else ""
        yield "defect", f"{defect}: {DEFECT_WORDS[defect]}{shown}"
    yield from _evidence(outcome)
    if outcome.rung is not None:
        yield "decided by", f"{outcome.rung}: {RUNG_WORDS[outcome.rung]}"
    else:
        yield "decided by", "no rung"
    label = "wrote"
    for key, value in outcome.inserted:
        yield label, f"{key} = {value}"
        label = ""
    if not outcome.inserted:
        yield label, "nothing"
    for key, value in outcome.replaced:
        yield "replaced", f"{key} = {value}"
    if outcome.still_lacks:
        yield "still lacks", ", ".join(str(fact) for fact in outcome.still_lacks)
    yield "outcome", f"{outcome.reason}: {WORDS[outcome.reason]}"


def _evidence(outcome: Outcome) -> Iterator[tuple[str, str]]:
    label = "evidence"
    for each in outcome.considered[:MAX_CONSIDERED]:
        yield label, f"{each.run_id}: {each.verdict}" + (f" ({each.place})" if each.place else "")
        label = ""
    if len(outcome.considered) > MAX_CONSIDERED:
        yield "", f"and {len(outcome.considered) - MAX_CONSIDERED} more runs"
    if not outcome.considered:
        yield label, f"usage object without a run ({outcome.place})" if outcome.place else "none"


def print_explanation(console: Console, outcome: Outcome) -> None:
    """Print one outcome."""
    from rich.markup import escape  # noqa: PLC0415 - only what is used is loaded: start-up time
    from rich.padding import Padding  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    name = outcome.span_name or "a span that cannot be decoded"
    console.print(f"[bold]{escape(name)}[/] {outcome.span_id}", highlight=False)
    where = f"trace {outcome.trace_id or '?'}, service {outcome.service or '?'}"
    console.print(f"  [dim]{escape(where)}[/]", highlight=False)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in explanation(outcome):
        style = ("green" if outcome.reason in GOOD else "yellow") if label == "outcome" else ""
        grid.add_row(label, escape(text), style=style)
    console.print(Padding(grid, (0, 0, 1, 2)))
