"""Reading ids and attributes without assuming what they hold."""

from __future__ import annotations

from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

MAX_ATTRIBUTES = 4096
"""Attributes looked at on one span, event or record. More are forwarded but not read (attack A22)."""

MAX_DEPTH = 32
"""Levels of nesting read. A full parse refuses more than 47 anyway."""


def valid_id(raw: bytes) -> bytes:
    """Return a trace's or span's id; nothing for one of zeros alone, which is what OTLP calls none."""
    return raw if raw.strip(b"\0") else b""


def first_values(attributes: Iterable[KeyValue]) -> dict[str, AnyValue]:
    """Return the first value of each key. A key may stand twice on the wire (attack A21); nothing is dropped there."""
    found: dict[str, AnyValue] = {}
    for attribute in islice(attributes, MAX_ATTRIBUTES):
        found.setdefault(attribute.key, attribute.value)
    return found


def read(attributes: Iterable[KeyValue]) -> list[tuple[str, AnyValue, str]]:
    """Return key, value and, where the value is a string, its text, of each attribute that is looked at."""
    return [(each.key, value := each.value, value.string_value) for each in islice(attributes, MAX_ATTRIBUTES)]


def text(value: AnyValue) -> str | None:
    """Return a string, or bytes that are UTF-8, as text; None for any other kind."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind == "bytes_value":
        try:
            return value.bytes_value.decode()
        except UnicodeDecodeError:
            return None
    return None


def scalar(value: AnyValue) -> str | int | None:
    """Return a non-empty string or an integer; None for any other kind, booleans among them."""
    kind = value.WhichOneof("value")
    if kind == "int_value":
        return value.int_value
    if kind == "string_value":
        return value.string_value or None
    return None


def plain(value: AnyValue, depth: int = 0) -> Any:
    """Return the value as JSON would hold it: dicts, lists, text, numbers. Below `MAX_DEPTH` stands None."""
    kind = value.WhichOneof("value")
    if kind in ("string_value", "bytes_value"):
        return text(value)
    if depth >= MAX_DEPTH:
        return None
    if kind == "array_value":
        return [plain(each, depth + 1) for each in value.array_value.values]
    if kind == "kvlist_value":
        return {each.key: plain(each.value, depth + 1) for each in value.kvlist_value.values}
    return getattr(value, kind) if kind else None


def digest(words: str) -> bytes:
    """Return 16 bytes that stand for a text, white space at its ends apart. The text itself is not kept anywhere."""
    return blake2b(words.strip().encode("utf-8", "surrogatepass"), digest_size=16).digest()
