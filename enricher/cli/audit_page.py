"""
The report of `enricher audit` as a page: one file without scripts or anything to load.

All that comes out of telemetry goes through `_text`, and the page's policy forbids browsers to run or fetch anything.
"""

from __future__ import annotations

from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from enricher.cli.audit_tables import (
    after,
    change,
    count,
    lacking,
    named,
    notes,
    numbered,
    percent,
    sections,
    tokens,
    usd,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

STYLE: Final = "audit.css"
MAX_ROWS: Final = 200

STATES: Final = {
    "present": "stood on the span",
    "inserted": "inserted from evidence",
    "repaired": "repaired from evidence",
    "doubtful": "on the span, but doubtful",
    "missing": "missing",
}

WORDS: Final = ' class="words"'
WORDY: Final = frozenset({"Because, and what helps", "Defect", "Meaning"})
"""Headings of columns that hold sentences."""

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"


def page(data: dict[str, Any]) -> str:
    """Return `audit_data.as_data` as HTML."""
    total = data["total"]
    style = resources.files(__package__).joinpath(STYLE).read_text(encoding="utf-8")
    body = "".join(_body(data)) if total["spans"] else "<section><p>No Assistant-run span was found.</p></section>"
    remarks = "".join(f"<li>{_text(line)}</li>" for line in notes(data))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>Assistant runs: coverage before and after</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>Assistant runs: coverage before and after</h1>
<p class="soft">{numbered(total["runs"], "run")} on {numbered(total["spans"], "span")}, out of
{count(data["read"]["items"])} recorded spans and log records</p>
</header>
<main>
{body}{f"<section><h2>To be read with this</h2><ul>{remarks}</ul></section>" if remarks else ""}
</main>
<footer>enricher {_text(data["enricher"])}{_prices(data["prices"])}</footer>
</body>
</html>
"""


def _body(data: dict[str, Any]) -> Iterable[str]:
    total = data["total"]
    yield _tiles(total)
    yield f"<section><h2>Coverage of {numbered(total['runs'], 'run')}</h2>{_coverage(total)}</section>\n"
    for title, rows, name in sections(data):
        yield f"<section><h2>{title}</h2>{_rows(title, rows, name)}</section>\n"
    if data["gaps"]:
        lines = (f"<td>{_text(lacking(gap))}</td><td{WORDS}>{_text(gap['words'])}</td>" for gap in data["gaps"])
        yield _listing("What would give the rest", ("Runs without", "Because, and what helps"), lines)
    if data["defects"]:
        lines = (
            f"<td>{_text(named(each, ('scope', 'version')))}</td>"
            f"<td{WORDS}>{_text(each['defect'])}: {_text(each['words'])}</td>"
            f"<td>{count(each['spans'])}</td><td>{count(each['repaired_spans'])}</td>"
            for each in data["defects"]
        )
        yield _listing("Known defects found", ("Instrumentation", "Defect", "Spans", "Repaired"), lines)
    reasons = (
        f"<td>{_text(each['reason'])}</td><td{WORDS}>{_text(each['words'])}</td><td>{count(each['spans'])}</td>"
        for each in data["reasons"]
    )
    yield _listing("What became of the spans", ("Reason", "Meaning", "Spans"), reasons)


def _tiles(total: dict[str, Any]) -> str:
    runs, usage = total["runs"], total["coverage"]["usage"]
    parts = ", ".join(f"{tokens(total, kind)} {kind}" for kind in ("prompt", "completion", "cached", "reasoning"))
    tiles = (
        ("Runs with usage, before", percent(usage["present"], runs), f"{count(usage['present'])} of {count(runs)}"),
        ("Runs with usage, after", percent(after(usage), runs), f"{count(after(usage))} of {count(runs)}"),
        ("Tokens, each run once", tokens(total, "total"), parts),
        ("Cost", usd(total["cost"]), f"runs without a price: {count(total['cost']['unpriced_runs'])}"),
    )
    return (
        '<div class="tiles">'
        + "".join(
            f'<div><span class="soft">{title}</span><b>{_text(figure)}</b><span class="soft">{_text(more)}</span></div>'
            for title, figure, more in tiles
        )
        + "</div>\n"
    )


def _coverage(total: dict[str, Any]) -> str:
    runs = total["runs"]
    lines = "".join(
        f"<span>{fact.capitalize()}</span><b>{change(coverage, runs)}</b>{_bar(fact, coverage, runs)}"
        for fact, coverage in total["coverage"].items()
    )
    seen = [state for state in STATES if any(each[state] for each in total["coverage"].values())]
    legend = "".join(f'<li><span class="{state}"></span>{STATES[state]}</li>' for state in seen)
    return f'<div class="facts">{lines}</div><ul class="legend">{legend}</ul>'


def _bar(fact: str, coverage: dict[str, int], runs: int) -> str:
    """Return a bar; who cannot see it is read its figures."""
    label = ", ".join(f"{count(coverage[state])} {words}" for state, words in STATES.items() if coverage[state])
    parts = "".join(
        f'<span class="{state}" style="width:{100 * coverage[state] / runs:.3f}%"></span>'
        for state in STATES
        if coverage[state]
    )
    label = f"{fact} of {numbered(runs, 'run')}: {label}"
    return f'<div class="bar" role="img" aria-label="{label}" title="{label}">{parts}</div>'


def _rows(title: str, rows: list[dict[str, Any]], name: tuple[str, ...]) -> str:
    headings = (
        title.removesuffix("s"),
        "Runs",
        "Spans",
        "Provider",
        "Model",
        "Usage",
        "Prompt",
        "Completion",
        "Cached",
        "Tokens",
        "Cost",
    )
    lines = [
        f"<td>{_text(named(row, name))}</td><td>{count(row['runs'])}</td><td>{count(row['spans'])}</td>"
        + "".join(_change(fact, row["coverage"][fact], row["runs"]) for fact in ("provider", "model", "usage"))
        + "".join(f"<td>{tokens(row, kind)}</td>" for kind in ("prompt", "completion", "cached", "total"))
        + f"<td>{_text(usd(row['cost']))}</td>"
        for row in rows[:MAX_ROWS]
    ]
    more = f"<p>and {len(rows) - MAX_ROWS:,} more; --json has all</p>" if len(rows) > MAX_ROWS else ""
    return _table(headings, lines) + more


def _change(fact: str, coverage: dict[str, int], runs: int) -> str:
    if not runs:
        return "<td>-</td>"
    return f"<td>{change(coverage, runs)}{_bar(fact, coverage, runs)}</td>"


def _listing(title: str, headings: Iterable[str], lines: Iterable[str]) -> str:
    return f"<section><h2>{title}</h2>{_table(headings, lines)}</section>\n"


def _table(headings: Iterable[str], lines: Iterable[str]) -> str:
    head = "".join(f'<th scope="col"{WORDS if heading in WORDY else ""}>{heading}</th>' for heading in headings)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _prices(prices: dict[str, str] | None) -> str:
    return f"; prices of {_text(prices['package'])} {_text(prices['version'])}, in US dollars" if prices else ""


def _text(text: str) -> str:
    return escape(text, quote=True)
