"""
YAML as plain values, for cassettes: mappings, sequences, text, and bytes where `!!binary` says so.

Built from PyYAML's events and not by its constructor: nothing is recursive, no tag makes anything but bytes, and an
alias counts for all that it stands for, so that no bomb of aliases, merge keys or nesting costs more than its limit.
It is also some five times faster.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

import yaml

MAX_BYTES: Final = 16 << 20
"""Size of a document. Reading takes a second or two for so much."""

MAX_DEPTH: Final = 64

MAX_VALUES: Final = 2_000_000
"""Values in a document, those behind aliases included each time. A cassette of `MAX_BYTES` has some 700,000."""

BINARY: Final = frozenset({"tag:yaml.org,2002:binary", "!binary"})

LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class PlainYamlError(ValueError):
    """The bytes are no YAML, or YAML past a limit. The text never quotes them."""


class _Builder:
    """Puts values together as their events come."""

    def __init__(self) -> None:
        self.root: Any = None
        self._open: list[tuple[dict[Any, Any] | list[Any], list[Any], str | None, int]] = []
        """Collections not yet closed: the collection, a key that waits for its value, the anchor, values before it."""
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._values = 0

    def take(self, event: yaml.Event) -> None:
        """Do what the next event says."""
        if isinstance(event, yaml.ScalarEvent):
            self.put(_scalar(event), event.anchor, 0)
        elif isinstance(event, yaml.MappingStartEvent):
            self.begin({}, event.anchor)
        elif isinstance(event, yaml.SequenceStartEvent):
            self.begin([], event.anchor)
        elif isinstance(event, yaml.CollectionEndEvent):
            self.end()
        elif isinstance(event, yaml.AliasEvent):
            self.alias(event.anchor)

    def begin(self, collection: dict[Any, Any] | list[Any], anchor: str | None) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise PlainYamlError(f"nested more than {MAX_DEPTH} deep")
        self._open.append((collection, [], anchor, self._values))

    def end(self) -> None:
        collection, _, anchor, before = self._open.pop()
        self.put(collection, anchor, self._values - before)

    def alias(self, anchor: str | None) -> None:
        if anchor is None or anchor not in self._anchors:
            raise PlainYamlError("an alias of what is not complete before it")
        value, size = self._anchors[anchor]
        self._count(size)
        self.put(value, None, 0)

    def put(self, value: Any, anchor: str | None, size: int) -> None:
        """Add a value; `size` is how many are in it, all of them counted already."""
        self._count(1)
        if anchor:
            self._anchors[anchor] = value, size + 1
        if not self._open:
            self.root = value
            return
        collection, key, _, _ = self._open[-1]
        if isinstance(collection, list):
            collection.append(value)
        elif key:
            collection[key.pop()] = value
        else:
            key.append(value if isinstance(value, str | bytes) else None)

    def _count(self, more: int) -> None:
        self._values += more
        if self._values > MAX_VALUES:
            raise PlainYamlError(f"more than {MAX_VALUES} values, those behind aliases included")


def load(data: bytes) -> Any:
    """
    Return the first document. Every scalar is text, whatever it looks like; a key that is no scalar is None.

    Raises `PlainYamlError`.
    """
    if len(data) > MAX_BYTES:
        raise PlainYamlError(f"more than {MAX_BYTES >> 20} MiB of YAML")
    builder = _Builder()
    try:
        for event in yaml.parse(data, Loader=LOADER):
            if isinstance(event, yaml.DocumentEndEvent):
                break
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        line = f" at line {error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise PlainYamlError(f"no YAML, or cut off, or damaged{line}") from None
    except yaml.YAMLError:
        raise PlainYamlError("characters that YAML has no place for") from None
    return builder.root


def _scalar(event: yaml.ScalarEvent) -> str | bytes:
    if event.tag not in BINARY:
        return str(event.value)
    try:
        return base64.b64decode(event.value)
    except (binascii.Error, ValueError):
        raise PlainYamlError("!!binary that is not base64") from None
