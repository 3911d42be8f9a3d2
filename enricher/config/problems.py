"""What is wrong with a configuration and where: one record a mistake, for people and for machines."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Loc = tuple[str | int, ...]
"""Keys and list positions from the root down, the way pydantic names a place."""

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SHOWN_KEY = re.compile(r"[A-Za-z0-9_./-]{1,128}")


class Severity(StrEnum):
    """Errors stop the stage; warnings are said and the stage starts."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value was written; without a line where there is no text to point into (`--set`, a missing file)."""

    path: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return self.path if self.line is None else f"{self.path}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake; lines and columns count from 1, `dotted` is empty where no key is concerned."""

    path: str
    line: int | None
    column: int | None
    severity: Severity
    dotted: str
    message: str

    def render(self) -> str:
        """Return the one line that people read, free of control characters."""
        where = Place(self.path, self.line, self.column)
        subject = f"{self.severity} {self.dotted}" if self.dotted else str(self.severity)
        return printable(f"{where} {subject}: {self.message}")

    def as_dict(self) -> dict[str, str | int | None]:
        """Return the record for `--format json`."""
        return {
            "path": printable(self.path),
            "line": self.line,
            "column": self.column,
            "severity": str(self.severity),
            "key": printable(self.dotted),
            "message": printable(self.message),
        }


def problem_at(place: Place, dotted: str, message: str, severity: Severity = Severity.ERROR) -> Problem:
    """Return a problem at a place."""
    return Problem(place.path, place.line, place.column, severity, dotted, message)


def in_order(problems: Sequence[Problem]) -> list[Problem]:
    """Return the problems from the top of the file to its end, then those without a line by their origin."""

    def place(problem: Problem) -> tuple[bool, int, int, str]:
        return problem.line is None, problem.line or 0, problem.column or 0, problem.path

    return sorted(problems, key=place)


def dotted_path(loc: Loc) -> str:
    """
    Return `exporters.otlp.endpoint`, `enrichment.rules[0].attributes["http.url"]`.

    Keys of another shape are left out: without the space after its colon a header and its value are one key (A11).
    """
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f'["{part}"]' if _SHOWN_KEY.fullmatch(part) else '["..."]'
    return text


def printable(text: str) -> str:
    """Return the text with control characters escaped, so that no value can forge or hide a line (A15)."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
