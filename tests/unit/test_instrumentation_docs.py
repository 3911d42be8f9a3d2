"""The table of `docs/instrumentations.md` says of every built-in rule what the rule says."""

from pathlib import Path

from enricher.rules import BUILT_IN

DOCUMENT = Path(__file__).parents[2] / "docs" / "instrumentations.md"


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
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines]


def test_every_rule_has_its_row_in_the_order_in_which_rules_are_asked():
    expected = [(f"`{rule.name}`", identified_by(rule), f"a {rule.stands_for}") for rule in BUILT_IN]

    assert [row[:3] for row in rows()] == expected


def test_every_row_says_what_lacks_and_where_it_comes_from():
    assert all(len(row) == 5 and all(row) for row in rows())
