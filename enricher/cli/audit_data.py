"""A report as plain data: what `enricher audit --json` prints (docs/audit.md) and what tables and page are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import enricher
from enricher.coverage import ADVICE_WORDS, State
from enricher.defects import WORDS as DEFECT_WORDS
from enricher.outcome import WORDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from enricher.audit import Duplicates, Report, Row

SCHEMA: Final = "enricher.audit/1"
"""The number grows when a key changes its meaning or goes away; keys may be added any time."""


def as_data(report: Report, read: Mapping[str, int], prices: str | None) -> dict[str, Any]:
    """Return the report in what JSON knows. `prices` is the version of the price list, None without one."""
    return {
        "schema": SCHEMA,
        "enricher": enricher.__version__,
        "read": {key: read.get(key, 0) for key in ("requests", "items", "unreadable")},
        "prices": None if prices is None else {"package": "genai-prices", "version": prices},
        "total": _row(report.total),
        "by_service": [{"service": row.name[0], **_row(row)} for row in report.services],
        "by_instrumentation": [
            {"scope": row.name[0], "version": row.name[1], **_row(row)} for row in report.instrumentations
        ],
        "by_model": [{"model": row.name[0], **_row(row)} for row in report.models],
        "gaps": [
            {
                "advice": str(gap.advice),
                "runs_without": {"provider": gap.provider, "model": gap.model, "usage": gap.usage},
                "words": ADVICE_WORDS[gap.advice],
            }
            for gap in report.gaps
        ],
        "defects": [
            {
                "defect": each.defect,
                "scope": each.instrumentation[0],
                "version": each.instrumentation[1],
                "spans": each.spans,
                "repaired_spans": each.repaired,
                "words": DEFECT_WORDS.get(each.defect, ""),
            }
            for each in report.defects
        ],
        "reasons": [
            {"reason": str(reason), "spans": spans, "words": WORDS[reason]} for reason, spans in report.reasons
        ],
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "spans": row.spans,
        "runs": row.runs,
        "coverage": {
            fact: {str(state): counts[state] for state in reversed(State)}
            for fact, counts in (("provider", row.provider), ("model", row.model), ("usage", row.usage))
        },
        "duplicates": {"before": _duplicates(row.duplicates_before), "after": _duplicates(row.duplicates)},
        "tokens": row.tokens._asdict(),
        "cost": {
            # As text: a float would not hold the cents.
            "usd": None if row.cost.usd is None else f"{row.cost.usd:f}",
            "priced_runs": row.cost.priced,
            "unpriced_runs": row.cost.unpriced,
            "runs_without_cached_tokens": row.cost.without_cached,
        },
    }


def _duplicates(duplicates: Duplicates) -> dict[str, int]:
    return {"runs": duplicates.runs, "extra_spans": duplicates.spans, "extra_tokens": duplicates.tokens}
