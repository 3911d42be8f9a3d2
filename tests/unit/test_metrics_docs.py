"""What is written about the metrics is what the table says."""

from pathlib import Path

from enricher.telemetry.instruments import INSTRUMENTS

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
HEAD = "| Metric | Kind | Labels | Meaning |\n|---|---|---|---|\n"


def table() -> str:
    """Return the table as the document has to hold it; after a change of the instruments, paste what this returns."""
    rows = HEAD
    for each in INSTRUMENTS:
        labels = ", ".join(f"`{label}`" for label in each.labels)
        rows += f"| `{each.exposed}` | {each.kind} | {labels} | {each.description} |\n"
    return rows


def test_document_lists_every_metric_and_no_other() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")

    assert text[text.index(HEAD) :].partition("\n\n")[0] + "\n" == table()
