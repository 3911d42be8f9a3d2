"""
From a YAML file, `--set` overrides and the environment to a frozen `Config`, or to every problem at once.

    text ─▶ document (places) ─▶ structure (keys, ${env:}, types) ─▶ model (each value) ─▶ check (between sections)

A faulty part is reported and left at its default for the steps behind it, so that one run shows all there is.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from enricher.config.check import check
from enricher.config.document import MAX_BYTES, Entry, MapNode, Node, ScalarNode, compose, scalar_value
from enricher.config.model import Config
from enricher.config.problems import Loc, Place, Problem, Severity, dotted_path, in_order, problem_at
from enricher.config.structure import Structure, locate, structure
from enricher.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

_OVERRIDE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){0,15}")

_KEY: Final = "[key]"
"""Pydantic's last part of a place that is the key itself."""

_EXPECTED: Final = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "string_type": "text in quotes",
    "string_unicode": "text without stray bytes",
    "string_too_short": "text that is not empty",
    "string_too_long": "text of at most {max_length} characters",
    "tuple_type": "a list such as [a, b]",
    "dict_type": "a map of names to texts",
    "model_type": "a section of keys",
    "literal_error": "{expected}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than_equal": "a number of at most {le}",
    "too_short": "at least one value",
}
"""What each of pydantic's error types expected; the rest of its own words depend on its version."""


@dataclass(frozen=True, slots=True)
class Examination:
    """The configuration, absent if there is an error among the problems, and errors and warnings in order."""

    config: Config | None
    problems: list[Problem]

    def usable(self) -> Config:
        """Return the configuration. Raises `ConfigError` with one line a mistake, all of them."""
        if self.config is None:
            errors = [problem for problem in self.problems if problem.severity is Severity.ERROR]
            raise ConfigError([problem.render() for problem in errors])
        return self.config


def load(path: Path | None, overrides: Sequence[str] = (), environ: Mapping[str, str] = os.environ) -> Config:
    """
    Return the configuration of a file (or of the defaults), overridden by `key.path=value` texts.

    Raises `ConfigError` with one line a mistake, all of them. Warnings are not said here: `examine` has them.
    """
    return examine(path, overrides, environ).usable()


def examine(path: Path | None, overrides: Sequence[str] = (), environ: Mapping[str, str] = os.environ) -> Examination:
    """Return the same configuration with its warnings, or every problem; never raises for what is written."""
    root, problems = _read(path) if path else (MapNode(Place("defaults")), [])
    for override in overrides:
        problems += _override(root or MapNode(Place("")), override)
    if root is None:
        return Examination(None, problems)
    result = structure(root, Config, environ)
    config, errors = _validated(result.data)
    problems += result.problems
    for error in errors:
        loc = _loc(error)
        if not _concerns(loc, result.faulty):
            place, _ = locate(root, loc, of_key=error["loc"][-1:] == (_KEY,))
            problems.append(problem_at(place, dotted_path(loc), _message(error, loc, result)))
    faulty = result.faulty.union(map(_loc, errors))
    problems += _between_sections(config, root, faulty)
    has_error = any(problem.severity is Severity.ERROR for problem in problems)
    return Examination(None if has_error else config, in_order(problems))


def _read(path: Path) -> tuple[MapNode | None, list[Problem]]:
    """Return the file's tree, with nothing in it for an empty file, or None if it cannot be read."""
    shown = str(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        return None, [problem_at(Place(shown), "", f"the file cannot be read: {reason}")]
    if len(data) > MAX_BYTES:
        return None, [problem_at(Place(shown), "", f"the file is larger than {MAX_BYTES >> 20} MiB")]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig", "replace")
        place = Place(shown, before.count("\n") + 1, len(before) - before.rfind("\n"))
        return None, [problem_at(place, "", f"expected UTF-8 text, found the byte 0x{data[error.start]:02x}")]

    root, problems = compose(text, lambda line, column: Place(shown, line, column))
    if isinstance(root, MapNode):
        return root, problems
    if root is None or (isinstance(root, ScalarNode) and root.plain and scalar_value(root.text) is None):
        return (None if problems else MapNode(Place(shown, 1, 1))), problems
    return None, [*problems, problem_at(root.place, "", "expected a map of sections, such as receivers and exporters")]


def _override(root: MapNode, override: str) -> list[Problem]:
    """Write one `key.path=value` into the tree, in place of what is there."""
    dotted, equals, text = override.partition("=")
    if not equals or not _OVERRIDE_KEY.fullmatch(dotted):
        # What has another form might be the value itself, so it is not shown.
        place = Place("--set")
        return [problem_at(place, "", "expected key.path=value, such as exporters.otlp.endpoint=localhost:14317")]
    *above, last = dotted.split(".")
    place = Place(f"--set {dotted}")
    value, problems = compose(text, lambda _line, _column: place, (*above, last))
    section = root
    for key in above:
        entry = section.entries.get(key)
        if entry and isinstance(entry.value, MapNode):
            section = entry.value
        else:
            below = MapNode(place)
            section.entries[key] = Entry(place, below)
            section = below
    if not problems:
        section.entries[last] = Entry(place, value or ScalarNode("", place, plain=True))
    return problems


def _validated(data: dict[str, Any]) -> tuple[Config, list[ErrorDetails]]:
    """Return the config with faulty parts left out, so that the rest can be checked, and what was wrong with them."""
    errors: list[ErrorDetails] = []
    while True:
        try:
            return Config.model_validate(data), errors
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
        # Rules about a whole map run only once its values are right, so a later pass may find more; it also finds
        # missing what an earlier one took out.
        reported = [_loc(each) for each in errors]
        errors += [each for each in found if _loc(each) not in reported and not _is_consequence(each, reported)]
        if not any([_leave_out(data, each) for each in found]):  # noqa: C419 - all of them, not up to the first
            # No model of today comes here; one whose error names no written key would loop for ever.
            data.clear()


def _is_consequence(error: ErrorDetails, reported: list[Loc]) -> bool:
    """Tell whether a section lacks its one key only because an earlier pass took it out."""
    return error["type"] == "one_of" and _concerns(_loc(error), set(reported))


def _leave_out(data: dict[str, Any], error: ErrorDetails) -> bool:
    """Remove a faulty value, or the section or list that cannot be without it; tell whether there was one."""
    *above, last = _loc(error)[:-1] if error["type"] == "missing" else _loc(error)
    part: Any = data
    for key in above:
        if not isinstance(part.get(key), dict):
            return part.pop(key, part) is not part
        part = part[key]
    return part.pop(last, part) is not part


def _loc(error: ErrorDetails) -> Loc:
    return tuple(part for part in error["loc"] if part != _KEY)


def _message(error: ErrorDetails, loc: Loc, result: Structure) -> str:
    context = error.get("ctx", {})
    shown = result.shown.get(loc)
    if error["type"] == "missing":
        return "required, but not given"
    if error["type"] == "value_error":
        message = str(context["error"])
        # Rules about a whole section or list say themselves what they found.
        return f"{message}, got {shown}" if shown and message.startswith("expected") else message
    if error["type"] == "one_of":
        return error["msg"]
    expected = _EXPECTED.get(error["type"], "something else").format(**context).replace("'", '"')
    return f"expected {expected}, got {shown}"


def _between_sections(config: Config, root: Node, faulty: set[Loc]) -> list[Problem]:
    problems = []
    for finding in check(config):
        if any(_concerns(loc, faulty) for loc in finding.locs):
            continue
        written = [place for place, is_written in (locate(root, loc) for loc in finding.locs) if is_written]
        place = written[0] if written else locate(root, finding.locs[0])[0]
        problems.append(problem_at(place, dotted_path(finding.locs[0]), finding.message, finding.severity))
    return problems


def _concerns(loc: Loc, faulty: set[Loc]) -> bool:
    """Tell whether a place lies in, or holds, one that is known to be faulty."""
    return any(loc[: len(other)] == other[: len(loc)] for other in faulty)
