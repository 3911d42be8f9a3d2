"""The table of `docs/instrumentations.md` says of every built-in rule what the rule says."""

import os
import re
from pathlib import Path

import pytest

from enricher.rules import BUILT_IN

DOCUMENT = Path(__file__).parents[2] / "docs" / "instrumentations.md"
ROWS = re.compile(r"(?:^\| `.*\n)+", re.MULTILINE)
REGENERATE = "DOCS_WRITE"
"""Set it to write the table anew; the run then fails, so that it cannot be left on."""


def identified_by(rule):
    """Return what a rule asks of a span, as the table says it."""
    asks = []
    if rule.scope is not None:
        asks.append(f"scope `{rule.scope}`" if rule.scope else "no scope")
    if rule.span_name is not None:
        asks.append(f"name `{rule.span_name}`")
    asks += [f"`{key}`" if value == "*" else f"`{key}` = `{value}`" for key, value in rule.attributes.items()]
    if rule.answer is not None:
        asks.append(f"one finished run in `{rule.answer}`")
    return ", ".join(asks)


def rows():
    text = DOCUMENT.read_text(encoding="utf-8")
    return [tuple(cell.strip() for cell in row.strip("|\n").split(" | ")) for row in ROWS.search(text)[0].splitlines()]


def generated():
    """Return the rows as the rules are; what a rule's spans lack and what can fill it is what is written there."""
    by_hand = {row[0]: row[3:] for row in rows()}
    expected = [(f"`{rule.name}`", identified_by(rule), f"a {rule.stands_for}") for rule in BUILT_IN]
    return [(*row, *by_hand.get(row[0], ("", ""))) for row in expected]


def test_every_rule_has_its_row_in_the_order_in_which_rules_are_asked():
    if os.environ.get(REGENERATE):
        table = "".join(f"| {' | '.join(row)} |\n" for row in generated())
        text = DOCUMENT.read_text(encoding="utf-8")
        DOCUMENT.write_text(ROWS.sub(lambda _: table, text, count=1), encoding="utf-8")
        pytest.fail(f"the table was written anew because {REGENERATE} is set; read it and unset {REGENERATE}")

    assert rows() == generated()


def test_every_row_says_what_lacks_and_where_it_comes_from():
    assert all(len(row) == 5 and all(row) for row in rows())
