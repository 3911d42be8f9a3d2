"""
The tree of a document as plain data in the shape of the model: keys known, `${env:...}` filled in, scalars typed.

Values are judged by the model afterwards; what may be said about each in an error is decided here, because only
here is known what a text came from and what it is for.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel

from enricher.config.document import Entry, ListNode, MapNode, Node, ScalarNode, scalar_value
from enricher.config.problems import Loc, Place, Problem, dotted_path, problem_at
from enricher.config.values import Endpoint, Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

_REFERENCE: Final = re.compile(r"\$\$|\$\{([^{}]*)\}|\$\{")
_VARIABLE: Final = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_LONGEST_SHOWN: Final = 60
_OF_COLLECTOR: Final = frozenset({"connectors", "extensions", "processors", "service"})
"""Sections that whoever brings the Collector's file has in it, and that have nothing to say here."""


@dataclass(frozen=True, slots=True)
class Structure:
    """Data for the model, and what belongs to it."""

    environ: Mapping[str, str]
    data: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    faulty: set[Loc] = field(default_factory=set)
    """Where a problem is reported already, so that its consequences need not be."""
    shown: dict[Loc, str] = field(default_factory=dict)
    """What an error may say was found at a place."""

    def report(self, place: Place, loc: Loc, message: str) -> None:
        """Note a problem whose place holds no usable value."""
        self.problems.append(problem_at(place, dotted_path(loc), message))
        self.faulty.add(loc)


def structure(root: MapNode, model: type[BaseModel], environ: Mapping[str, str]) -> Structure:
    """Return the document as data for the model, with everything that is wrong with its keys and references."""
    result = Structure(environ)
    result.data.update(_section(root, model, (), result))
    return result


def locate(root: Node, loc: Loc, *, of_key: bool = False) -> tuple[Place, bool]:
    """Return where a value (or its key) was written, else the nearest section above it, and whether it was written."""
    node, place = root, root.place
    for part in loc:
        if isinstance(node, MapNode) and isinstance(part, str) and part in node.entries:
            place, node = node.entries[part].key_place, node.entries[part].value
        elif isinstance(node, ListNode) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
            place = node.place
        else:
            return place, False
    return place if of_key else node.place, True


def _data(node: Node, annotation: Any, loc: Loc, result: Structure) -> Any:
    if isinstance(node, ScalarNode):
        return _scalar(node, annotation, loc, result)
    result.shown[loc] = "a map" if isinstance(node, MapNode) else "a list" if node.items else "an empty list"
    if isinstance(node, MapNode):
        model = _model(annotation)
        return _section(node, model, loc, result) if model else _map(node, annotation, loc, result)
    of_items = get_args(annotation)[0] if get_origin(annotation) is tuple else annotation
    return [_data(item, of_items, (*loc, index), result) for index, item in enumerate(node.items)]


def _section(node: MapNode, model: type[BaseModel], loc: Loc, result: Structure) -> dict[str, Any]:
    data = {}
    for key, entry in node.entries.items():
        if key not in model.model_fields:
            _unknown(key, entry, model, loc, result)
            continue
        annotation = model.model_fields[key].annotation
        value = _data(entry.value, annotation, (*loc, key), result)
        # An empty list or map is the default, as an empty section is.
        if value is not None or get_origin(annotation) not in (tuple, dict):
            data[key] = value
    return data


def _unknown(key: str, entry: Entry, model: type[BaseModel], loc: Loc, result: Structure) -> None:
    valid = list(model.model_fields)
    near = next(iter(difflib.get_close_matches(key, valid, n=1)), None)
    message = f"unknown key, valid keys here: {', '.join(valid)}"
    if near:
        message += f'; did you mean "{near}"?'
    elif not loc and key in _OF_COLLECTOR:
        message += "; the Collector has such a section, the stage has one pipeline and no extensions: leave it out"
    result.report(entry.key_place, (*loc, key), message)
    if near:
        result.faulty.add((*loc, near))


def _map(node: MapNode, annotation: Any, loc: Loc, result: Structure) -> dict[str, Any]:
    of_values = get_args(annotation)[1] if get_origin(annotation) is dict else annotation
    data = {}
    for key, entry in node.entries.items():
        value = _data(entry.value, of_values, (*loc, key), result)
        if value is None and (*loc, key) not in result.faulty and Secret in _types(of_values):
            # A pasted value without a name looks like a name without a value, so it is not named (A11).
            result.problems.append(problem_at(entry.key_place, dotted_path(loc), "a header has no value"))
            result.faulty.add((*loc, key))
        else:
            data[key] = value
    return data


def _scalar(node: ScalarNode, annotation: Any, loc: Loc, result: Structure) -> Any:
    text, names = _substituted(node, loc, result)
    if text is None:
        return None
    value: Any = scalar_value(text, node.tag) if node.plain or node.tag else text
    types = _types(annotation)
    if names and value is not None and types & {str, Path, Secret, Endpoint}:
        # A token that happens to look like a number is still a token.
        value = text
    result.shown[loc] = _shown(value, text, names, is_secret=_holds_secret(annotation))
    return {} if value is None and _model(annotation) else value


def _substituted(node: ScalarNode, loc: Loc, result: Structure) -> tuple[str | None, list[str]]:
    """Return the text with references filled in, None if one cannot be, and the variables' names."""
    names: list[str] = []
    text, at = "", 0
    for reference in _REFERENCE.finditer(node.text):
        text += node.text[at : reference.start()]
        at = reference.end()
        if reference[0] == "$$":
            text += "$"
            continue
        variable = _VARIABLE.fullmatch(reference[1] or "")
        if not variable:
            message = "only ${env:NAME} and ${env:NAME:-default} are substituted; a dollar sign itself is written $$"
            result.report(node.place, loc, message)
            return None, names
        name, default = variable.groups()
        value: str | None = result.environ.get(name, default)
        if value is None:
            message = f"the environment variable {name} is not set; set it, or give a default: ${{env:{name}:-default}}"
            result.report(node.place, loc, message)
            return None, names
        text += value
        names.append(name)
    return text + node.text[at:], names


def _shown(value: Any, text: str, names: list[str], *, is_secret: bool) -> str:
    kind = "nothing" if value is None else "text" if isinstance(value, str) else type(value).__name__
    if is_secret:
        return f"{kind} (not shown)"
    if names:
        return f"the {'' if text else 'empty '}value of {' and '.join(f'${{env:{name}}}' for name in names)}"
    if value is None:
        return "nothing (null)"
    if isinstance(value, str):
        return _quoted(text)
    return f"{text[:_LONGEST_SHOWN]} ({kind})"


def _quoted(text: str) -> str:
    # URLs may carry credentials before "@" and tokens behind "?".
    if "@" in text:
        return 'text with "@" in it (not shown)'
    head, scheme, rest = text.rpartition("://")
    shown = head + scheme + re.split(r"[/?#]", rest, maxsplit=1)[0] if scheme else text
    cut = shown[:_LONGEST_SHOWN]
    return json.dumps(cut if cut == text else f"{cut}...", ensure_ascii=False)


def _model(annotation: Any) -> type[BaseModel] | None:
    """Return the section that an annotation stands for, optional or not; a list of sections is none."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return next((part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)), None)


def _holds_secret(annotation: Any) -> bool:
    """Tell whether a secret belongs here or below: `bearer: TOKEN` puts it in the place of its section (A11)."""
    model = _model(annotation)
    below = model.model_fields.values() if model else ()
    return Secret in _types(annotation) or any(_holds_secret(field.annotation) for field in below)


def _types(annotation: Any) -> set[Any]:
    """Return every type named in an annotation."""
    found = {annotation} if isinstance(annotation, type) else set()
    return found.union(*(_types(part) for part in get_args(annotation)))
