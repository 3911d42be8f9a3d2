"""Every row of the checklists is a test named after it, or stands in docs/conformance.md with the reason."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
LISTS = {"F": 48, "A": 23, "SRV": 10, "GRP": 11, "HTP": 19, "JSN": 14, "CLI": 17}
ROW = re.compile(r"(?<![a-z0-9])(f|a|srv|grp|htp|jsn|cli)[ _-]?0*(\d{1,2})(?![0-9a-z])", re.IGNORECASE)


def rows(text):
    # A name is words between underscores.
    return {(kind.upper(), int(number)) for kind, number in ROW.findall(text.replace("_", " "))}


def named():
    """Return the rows that names of tests, ids of cases and first lines cite."""
    lines = (
        line
        for path in TESTS.rglob("test_*.py")
        if path.name != "test_rows.py"
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r'def test_|class Test|id=|ids=|^\s*"""|^\s+"[a-z]+[ _]?\d', line)
    )
    return rows("\n".join(lines))


def explained():
    text = (TESTS.parent / "docs" / "conformance.md").read_text(encoding="utf-8")
    return rows("\n".join(line.split("|")[1] for line in text.splitlines() if re.match(r"\| [A-Z]+-?\d", line)))


@pytest.mark.parametrize("kind", LISTS)
def test_every_row_has_a_test_or_a_reason(kind):
    expected = {(kind, number) for number in range(1, LISTS[kind] + 1)}

    assert sorted(expected - named() - explained()) == []
