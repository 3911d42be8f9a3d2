"""The report of `enricher audit` on a terminal."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

MAX_ROWS: Final = 30
BAR: Final = 30
LONGEST_NAME: Final = 60

STATE_STYLES: Final = (
    ("present", "green", "█"),
    ("inserted", "bright_cyan", "▓"),
    ("repaired", "bright_cyan", "▓"),
    ("doubtful", "yellow", "▒"),
    ("missing", "bright_black", "░"),
)


def print_report(console: Console, data: dict[str, Any]) -> None:
    """Print `audit_data.as_data`."""
    total = data["total"]
    if not data["read"]["requests"]:
        console.print("no span was read")
        return
    if not total["spans"]:
        console.print("no Assistant-run span was found; `enrichment.rules` adds rules for spans with other names")
        return
    console.print(f"{numbered(total['runs'], 'run')} on {numbered(total['spans'], 'Assistant-run span')}\n")
    console.print(_coverage(total))
    console.print()
    for title, rows, name in sections(data):
        console.print(_rows(title, rows, name), "")
    if data["gaps"]:
        console.print(_gaps(data["gaps"]), "")
    if data["defects"]:
        console.print(_defects(data["defects"]), "")
    for line in notes(data):
        console.print(Text(line))


def sections(data: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]], tuple[str, ...]]]:
    """Return the tables by dimension: title, rows, and the keys of a row that name it."""
    return [
        ("Services", data["by_service"], ("service",)),
        ("Instrumentations", data["by_instrumentation"], ("scope", "version")),
        ("Models", data["by_model"], ("model",)),
    ]


def notes(data: dict[str, Any]) -> list[str]:
    """Return, in sentences, what figures leave out or count apart."""
    total = data["total"]
    before, after = total["duplicates"]["before"], total["duplicates"]["after"]
    lines = []
    if after["runs"]:
        lines.append(
            f"The usage of {numbered(after['runs'], 'run')} stands on several spans ({before['runs']:,} before). "
            f"Here it counts once; who adds up spans counts {after['extra_tokens']:,} tokens too many "
            f"({before['extra_tokens']:,} before)."
        )
    if doubtful := total["coverage"]["usage"]["doubtful"]:
        lines.append(f"The usage of {numbered(doubtful, 'run')} is doubtful and counted neither as tokens nor as cost.")
    if data["prices"] is None:
        lines.append("Costs are unknown: the extra `prices` is not installed.")
    elif unpriced := total["cost"]["unpriced_runs"]:
        lines.append(f"Of {numbered(unpriced, 'run')} with usage the price is unknown; that adds nothing to the cost.")
    if without := total["cost"]["runs_without_cached_tokens"]:
        lines.append(
            f"Of {numbered(without, 'run')} it is not known how much of the prompt was cached: the cost may be less."
        )
    if unreadable := data["read"]["unreadable"]:
        lines.append(f"Not counted, because it could not be read: {numbered(unreadable, 'part')} of the input.")
    return lines


def after(coverage: dict[str, int]) -> int:
    """Return how many runs have a fact that can be relied on, after enrichment."""
    return coverage["present"] + coverage["inserted"] + coverage["repaired"]


def percent(part: int, whole: int) -> str:
    """Return a share that is 0 % and 100 % only where it is exactly that."""
    if not whole or part in {0, whole}:
        return "100 %" if part else "0 %"
    return f"{min(max(round(100 * part / whole), 1), 99)} %"


def change(coverage: dict[str, int], whole: int) -> str:
    """Return a coverage before and after."""
    return f"{percent(coverage['present'], whole)} → {percent(after(coverage), whole)}".replace(" %", "", 1)


def tokens(row: dict[str, Any], kind: str) -> str:
    """Return a sum of tokens; a dash where it is that of no run."""
    return count(row["tokens"][kind]) if after(row["coverage"]["usage"]) else "-"


def usd(cost: dict[str, Any]) -> str:
    """Return a cost as people read it; `unknown` where no run has a price, and `≥` in front where some have none."""
    if cost["usd"] is None:
        return "unknown" if cost["unpriced_runs"] else "-"
    amount = Decimal(cost["usd"])
    text = (
        f"${amount:,.2f}"
        if amount >= 1 or not amount
        else f"${amount:.2g}"
        if amount >= Decimal("0.0001")
        else "<$0.0001"
    )
    return f"≥ {text}" if cost["unpriced_runs"] else text


def count(number: int | None) -> str:
    """Return a count with separators; a dash where it is not known."""
    return "-" if number is None else f"{number:,}"


def numbered(number: int, of: str) -> str:
    """Return a count and what it is of."""
    return f"{number:,} {of}" if number == 1 else f"{number:,} {of}s"


def shown(name: str) -> str:
    """Return a name out of telemetry so that it cannot move a cursor or fill the screen."""
    text = name if name.isprintable() else repr(name)[1:-1]
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"


def named(row: dict[str, Any], keys: Sequence[str]) -> str:
    """Return what a row is of."""
    return shown(" ".join(row[key] for key in keys).strip()) or "(unknown)"


def _coverage(total: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    for justify in ("left", "right", "left", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    for fact, coverage in total["coverage"].items():
        table.add_row(
            Text(fact, "bold"),
            percent(coverage["present"], total["runs"]),
            "→",
            Text(percent(after(coverage), total["runs"]), "bold"),
            _bar(coverage, total["runs"]),
        )
    legend = Text()
    for state, style, sign in STATE_STYLES:
        if any(coverage[state] for coverage in total["coverage"].values()):
            legend.append(f"{sign} {state}  ", style)
    table.add_row("", "", "", "", legend)
    return table


def _bar(coverage: dict[str, int], whole: int) -> Text:
    bar, done, filled = Text(), 0, 0
    for state, style, sign in STATE_STYLES:
        done += coverage[state]
        until = round(BAR * done / whole) if whole else 0
        bar.append(sign * (until - filled), style)
        filled = until
    return bar


def _table(title: str, *headings: str) -> Table:
    """Return a table with a wide first column and figures behind it."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0), expand=True)
    table.add_column("", overflow="fold", ratio=1)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _rows(title: str, rows: list[dict[str, Any]], name: tuple[str, ...]) -> Table:
    table = _table(title, "runs", "spans", "provider %", "model %", "usage %", "tokens", "cost")
    for row in rows[:MAX_ROWS]:
        table.add_row(
            Text(named(row, name)),
            count(row["runs"]),
            count(row["spans"]),
            *(_change(row["coverage"][fact], row["runs"]) for fact in ("provider", "model", "usage")),
            tokens(row, "total"),
            usd(row["cost"]),
        )
    if len(rows) > MAX_ROWS:
        table.add_row(Text(f"and {len(rows) - MAX_ROWS:,} more; --json has all", "dim"))
    return table


def _change(coverage: dict[str, int], whole: int) -> Text:
    if not whole:
        return Text("-", "dim")
    return Text(change(coverage, whole).removesuffix(" %"), "green" if after(coverage) == whole else "yellow")


def _gaps(gaps: list[dict[str, Any]]) -> Table:
    table = _table("What would give the rest", "runs without")
    for gap in gaps:
        table.add_row(Text(gap["words"]), lacking(gap))
    return table


def lacking(gap: dict[str, Any]) -> str:
    """Return of how many runs a gap is, by fact."""
    return ", ".join(f"{fact} {number:,}" for fact, number in reversed(gap["runs_without"].items()) if number)


def _defects(defects: list[dict[str, Any]]) -> Table:
    table = _table("Known defects found", "spans", "repaired")
    for each in defects:
        found = Text(f"{each['defect']}: {each['words']}")
        found.append(f"\n{named(each, ('scope', 'version'))}", "dim")
        table.add_row(found, count(each["spans"]), count(each["repaired_spans"]))
    return table
