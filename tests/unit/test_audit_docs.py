"""The example in docs/audit.md is what is printed."""

import io
import os
import re
from pathlib import Path

import pytest
from rich.console import Console

from enricher.cli.audit_tables import print_report
from tests.support.build import a_run_payload, a_usage, an_http_span, openllmetry_span
from tests.unit.test_audit_report import data

DOCUMENT = Path(__file__).parents[2] / "docs" / "audit.md"
EXAMPLE = re.compile(r"(<!-- audit -->\n```text\n)(.*?)(```\n)", re.DOTALL)
REGENERATE = "DOCS_WRITE"
"""Set it to write the example anew; the run then fails, so that it cannot be left on."""


def example():
    found = data(
        openllmetry_span("0.33.12", service="desk"),
        an_http_span(a_run_payload(usage=a_usage(1200, 340, cached=64)), service="desk", start=18, end=18.5),
        openllmetry_span("0.62.4", usage=(900, 250), start=40, end=50, trace=2),
        openllmetry_span("0.62.4", usage=(900, 250), start=40, end=50, trace=3),
        openllmetry_span("0.50.1", usage=(800, 60), start=60, end=70, trace=4),
    )
    out = io.StringIO()
    print_report(Console(file=out, width=100, highlight=False), found)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def test_the_example_is_what_is_printed():
    text = DOCUMENT.read_text(encoding="utf-8")
    if os.environ.get(REGENERATE):
        DOCUMENT.write_text(EXAMPLE.sub(lambda found: found[1] + example() + found[3], text), encoding="utf-8")
        pytest.fail(f"the example was written anew because {REGENERATE} is set; read it and unset {REGENERATE}")

    assert EXAMPLE.search(text)[2] == example()
