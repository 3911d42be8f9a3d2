"""
YAML text as a tree that remembers where everything was written.

Built from PyYAML's event stream, which neither recurses nor constructs: depth, aliases and tags are refused before
anything grows (A17). Scalars stay text here; `load` gives them their type once `${env:...}` is in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, cast

import yaml

from enricher.config.problems import Loc, Place, Problem, dotted_path, problem_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_DEPTH: Final = 32
MAX_BYTES: Final = 1 << 20

_CORE: Final = "tag:yaml.org,2002:"
_RESOLVER: Final = yaml.resolver.Resolver()
_CONSTRUCTOR: Final = yaml.constructor.SafeConstructor()
_QUOTED: Final = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_ALIAS: Final = "aliases (*) and anchors (&) are not accepted; a text that begins with one of them goes into quotes"


@dataclass(frozen=True, slots=True)
class ScalarNode:
    """A single value; `tag` is the explicit one, `plain` means written without quotes."""

    text: str
    place: Place
    plain: bool
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A value beside the place of its key."""

    key_place: Place
    value: Node


@dataclass(frozen=True, slots=True)
class MapNode:
    """Keys in the order they were written."""

    place: Place
    entries: dict[str, Entry] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ListNode:
    """A list."""

    place: Place
    items: list[Node] = field(default_factory=list)


Node = ScalarNode | MapNode | ListNode


class _Mark(Protocol):
    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


class _RefusedError(Exception):
    def __init__(self, place: Place, loc: Loc, message: str) -> None:
        super().__init__(message)
        self.problem = problem_at(place, dotted_path(loc), message)


@dataclass(frozen=True, slots=True)
class _Reader:
    events: Iterator[yaml.Event]
    place_of: Callable[[int, int], Place]
    problems: list[Problem]

    def place(self, mark: _Mark | None) -> Place:
        # PyYAML counts from 0.
        return self.place_of(mark.line + 1, mark.column + 1) if mark else self.place_of(1, 1)


def compose(text: str, place_of: Callable[[int, int], Place], loc: Loc = ()) -> tuple[Node | None, list[Problem]]:
    """
    Return the document and what is wrong with it as YAML; no node where the text cannot be read to its end.

    `place_of` names a line and a column counted from 1; `loc` is where in the configuration the text belongs, for the
    problems' paths. No text raises.
    """
    problems: list[Problem] = []
    reader = _Reader(yaml.parse(text, Loader=yaml.SafeLoader), place_of, problems)
    try:
        return _document(reader, loc), problems
    except _RefusedError as refused:
        return None, [*problems, refused.problem]
    except yaml.reader.ReaderError as error:
        place = _place_at(reader, text, error.position)
        message = f"not YAML: the character {chr(error.character)!a} is not allowed"
    except yaml.MarkedYAMLError as error:
        place = reader.place(error.problem_mark or error.context_mark)
        message = _ALIAS if error.context in {"while scanning an alias", "while scanning an anchor"} else _syntax(error)
    except (ValueError, OverflowError):
        # PyYAML lets these through, for "\UFFFFFFFF" and for a %YAML version of 5000 digits; it keeps no position.
        place, message = reader.place(None), "not YAML: an escape or a number is out of range"
    return None, [*problems, problem_at(place, dotted_path(loc), message)]


def scalar_value(text: str, tag: str | None = None) -> str | int | float | bool | None:
    """
    Return the value that YAML gives a plain scalar.

    Dates and base-60 numbers stay text: no key takes them, and `12:30` is never meant as 750.
    """
    tag = tag or cast("str", _RESOLVER.resolve(yaml.ScalarNode, text, (True, False)))  # type: ignore[no-untyped-call]
    node = yaml.ScalarNode(tag, text)
    try:
        match tag.removeprefix(_CORE):
            case "null":
                return None
            case "bool":
                return bool(_CONSTRUCTOR.construct_yaml_bool(node))
            case "int" if ":" not in text:
                return int(_CONSTRUCTOR.construct_yaml_int(node))
            case "float" if ":" not in text:
                return float(_CONSTRUCTOR.construct_yaml_float(node))
    except (ValueError, LookupError):
        # "0x_" resolves to a number and is none; an explicit tag may claim anything.
        return text
    return text


def _document(reader: _Reader, loc: Loc) -> Node | None:
    next(reader.events)  # the stream's start
    if isinstance(next(reader.events), yaml.StreamEndEvent):
        return None
    root = _node(next(reader.events), reader, loc)
    next(reader.events)  # the document's end
    if not isinstance(second := next(reader.events), yaml.StreamEndEvent):
        raise _RefusedError(reader.place(second.start_mark), loc, "expected one document, found a second one")
    return root


def _node(event: yaml.Event, reader: _Reader, loc: Loc, depth: int = 0) -> Node:
    place = reader.place(event.start_mark)
    if getattr(event, "anchor", None) is not None:  # of an alias too
        raise _RefusedError(place, loc, _ALIAS)
    if depth > MAX_DEPTH:
        raise _RefusedError(place, loc, f"nested more than {MAX_DEPTH} levels deep")
    tag = getattr(event, "tag", None)
    if tag not in {None, "!"} and not _is_core(tag):
        raise _RefusedError(place, loc, "tags (!) are not accepted; a text that begins with one goes into quotes")
    if isinstance(event, yaml.SequenceStartEvent):
        sequence = ListNode(place)
        while not isinstance(event := next(reader.events), yaml.SequenceEndEvent):
            sequence.items.append(_node(event, reader, (*loc, len(sequence.items)), depth + 1))
        return sequence
    if isinstance(event, yaml.MappingStartEvent):
        mapping = MapNode(place)
        while not isinstance(event := next(reader.events), yaml.MappingEndEvent):
            _entry(event, mapping, reader, loc, depth)
        return mapping
    return _scalar(cast("yaml.ScalarEvent", event), place, loc)


def _entry(event: yaml.Event, mapping: MapNode, reader: _Reader, loc: Loc, depth: int) -> None:
    key = _node(event, reader, loc, depth + 1)
    if not isinstance(key, ScalarNode):
        raise _RefusedError(key.place, loc, "expected a plain key, found a list or a map in its place")
    below = (*loc, key.text)
    value = _node(next(reader.events), reader, below, depth + 1)
    if first := mapping.entries.get(key.text):
        message = f"the key is written twice, first at {first.key_place}"
        reader.problems.append(problem_at(key.place, dotted_path(below), message))
    else:
        mapping.entries[key.text] = Entry(key.place, value)


def _scalar(event: yaml.ScalarEvent, place: Place, loc: Loc) -> ScalarNode:
    try:
        # JSON is YAML, and JSON writes what is beyond 16 bits as two escapes.
        text = event.value.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise _RefusedError(place, loc, r"half a surrogate pair (\uD800 to \uDFFF) is not text") from None
    tag = None if event.tag == "!" else event.tag
    return ScalarNode(text, place, plain=event.implicit[0] and event.tag is None, tag=tag)


def _is_core(tag: str | None) -> bool:
    return tag in {_CORE + name for name in ("str", "int", "float", "bool", "null", "map", "seq")}


def _syntax(error: yaml.MarkedYAMLError) -> str:
    message = f"not YAML: {', '.join(filter(None, (error.context, error.problem)))}"
    hint = "; inside braces ${env:NAME} goes into quotes" if message.endswith("but got '{'") else ""
    return _QUOTED.sub(_harmless, message) + hint


def _harmless(quoted: re.Match[str]) -> str:
    # Single characters and token names are the grammar's; any other name may be a pasted secret (A11).
    inside = quoted[1] or quoted[2] or ""
    return quoted[0] if len(inside) < 2 or inside.startswith(("<", "\\")) else "(not shown)"


def _place_at(reader: _Reader, text: str, index: int) -> Place:
    before = text[:index]
    return reader.place_of(before.count("\n") + 1, index - before.rfind("\n"))
