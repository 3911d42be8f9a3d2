"""The report as data, as tables and as a page."""

import io
import json
from html.parser import HTMLParser

import pytest
from rich.console import Console

from enricher.audit import Audit
from enricher.cli.audit_data import as_data
from enricher.cli.audit_page import page
from enricher.cli.audit_tables import MAX_ROWS, change, percent, print_report, usd
from tests.support.build import MODEL, a_run_payload, an_http_span, in_world, openllmetry_span, signals

OLD, SWAPPED, NEW = "0.33.12", "0.50.1", "0.62.4"
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style></title>&lt;",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202ereversed",
    "[bold]not markup[/]",
    "x" * 5000,
]
VOID = {"meta"}


def data(*items, prices=None):
    audit = Audit()
    for each in in_world(signals(items) if items else []):
        for outcome in each.outcomes:
            audit.add(outcome)
    return as_data(audit.report(), {"requests": 1, "items": len(items)}, prices)


def hostile():
    return data(*[openllmetry_span(NEW, service=name, start=10 + n, trace=n + 1) for n, name in enumerate(HOSTILE)])


def printed(found, width=100):
    out = io.StringIO()
    print_report(Console(file=out, width=width, highlight=False), found)
    return out.getvalue()


class Page(HTMLParser):
    """What a browser makes of a page: elements, their attributes, text; fails if they do not nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.append(text)


def test_the_data_is_of_the_documented_shape():
    found = json.loads(json.dumps(data(openllmetry_span(OLD), an_http_span(a_run_payload(), start=18, end=18.5))))

    assert found.keys() == {
        "schema", "enricher", "read", "prices", "total", "by_service", "by_instrumentation", "by_model", "gaps",
        "defects", "reasons",
    }  # fmt: skip
    assert found["schema"] == "enricher.audit/1"
    assert found["read"] == {"requests": 1, "items": 2, "unreadable": 0}
    assert found["total"] == {
        "spans": 1,
        "runs": 1,
        "coverage": {
            "provider": {"present": 0, "inserted": 1, "repaired": 0, "doubtful": 0, "missing": 0},
            "model": {"present": 1, "inserted": 0, "repaired": 0, "doubtful": 0, "missing": 0},
            "usage": {"present": 0, "inserted": 1, "repaired": 0, "doubtful": 0, "missing": 0},
        },
        "duplicates": {
            "before": {"runs": 0, "extra_spans": 0, "extra_tokens": 0},
            "after": {"runs": 0, "extra_spans": 0, "extra_tokens": 0},
        },
        "tokens": {"prompt": 1200, "completion": 340, "total": 1540, "cached": None, "reasoning": None},
        "cost": {"usd": None, "priced_runs": 0, "unpriced_runs": 1, "runs_without_cached_tokens": 0},
    }
    assert found["by_model"] == [{"model": MODEL, **found["total"]}]
    assert found["by_service"][0]["service"] == "tutor"
    assert found["by_instrumentation"][0]["version"] == OLD


def test_tables_say_before_and_after_what_helps_and_which_defects_were_found():
    said = printed(data(openllmetry_span(OLD), openllmetry_span(SWAPPED, start=50, trace=2)))

    for words in (
        "2 runs on 2",
        "50 → 100",
        "Services",
        "tutor",
        "runs without",
        "usage 2",
        "swapped_usage",
        "doubtful",
    ):
        assert words in said
    assert "the extra `prices` is not installed" in said


def test_tables_of_no_span_say_what_to_do():
    assert "enrichment.rules" in printed(data())


def test_what_is_cut_off_is_told():
    found = data(*[openllmetry_span(NEW, service=f"s{n}", start=10 + n, trace=n + 1) for n in range(MAX_ROWS + 3)])

    assert "and 3 more" in printed(found)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_names_of_telemetry_cannot_move_the_cursor(width):
    said = printed(hostile(), width)

    assert "\x1b" not in said
    assert "\x07" not in said
    assert "\u202e" not in said
    assert max(map(len, said.splitlines())) <= width


def test_names_of_telemetry_are_text_in_the_page_and_nothing_else():
    calm, parsed = Page(page(data(openllmetry_span(NEW)))), Page(page(hostile()))

    assert {tag for tag, _ in parsed.elements} == {tag for tag, _ in calm.elements}
    assert {name for _, attrs in parsed.elements for name in attrs} == {n for _, attrs in calm.elements for n in attrs}
    assert "<script>alert(1)</script>" in parsed.texts
    assert not any("\u202e" in text or "\x1b" in text for text in parsed.texts)


def test_the_page_loads_and_runs_nothing():
    text = page(hostile())
    elements = Page(text).elements

    assert not {"script", "link", "img", "iframe", "object", "form"} & {tag for tag, _ in elements}
    assert not {"src", "href", "style"} & {name for tag, attrs in elements for name in attrs if tag != "span"}
    assert "url(" not in text
    assert "@import" not in text
    assert (
        "meta",
        {"http-equiv": "Content-Security-Policy", "content": "default-src 'none'; style-src 'unsafe-inline'"},
    ) in elements


def test_bars_are_read_to_those_who_do_not_see_them():
    labels = [
        attrs["aria-label"]
        for _, attrs in Page(page(data(openllmetry_span(SWAPPED)))).elements
        if "aria-label" in attrs
    ]

    assert "usage of 1 run: 1 on the span, but doubtful" in labels


def test_the_page_of_no_span_is_a_page():
    assert "No Assistant-run span was found." in Page(page(data())).texts


def test_the_page_has_all_that_the_tables_have():
    text = page(data(openllmetry_span(OLD), openllmetry_span(SWAPPED, start=50, trace=2), prices="1.2"))

    for words in ("swapped_usage", "usage 2", "What would give the rest", "payload_absent", "genai-prices 1.2"):
        assert words in text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 0, "0 %"), (0, 9, "0 %"), (9, 9, "100 %"), (1, 9999, "1 %"), (9998, 9999, "99 %"), (1, 3, "33 %")],
)
def test_only_all_is_100_percent_and_only_none_is_0(part, whole, text):
    assert percent(part, whole) == text


def test_a_change_names_its_unit_once():
    assert change({"present": 1, "inserted": 1, "repaired": 0}, 2) == "50 → 100 %"


@pytest.mark.parametrize(
    ("amount", "unpriced", "text"),
    [
        (None, 0, "-"),
        (None, 2, "unknown"),
        ("0", 0, "$0.00"),
        ("1234.567", 0, "$1,234.57"),
        ("0.0123", 0, "$0.012"),
        ("0.00000123", 0, "<$0.0001"),
        ("3", 2, "≥ $3.00"),
    ],
)
def test_a_cost_is_unknown_or_at_least_what_is_known(amount, unpriced, text):
    assert usd({"usd": amount, "unpriced_runs": unpriced}) == text
