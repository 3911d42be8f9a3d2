"""The fields that OTLP/JSON may set, and what stands for each kind of value in JSON."""

from __future__ import annotations

import base64
import re
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor

if TYPE_CHECKING:
    from collections.abc import Callable

ID_SIZES = {"trace_id": 16, "span_id": 8, "parent_span_id": 8}
_DECIMAL = re.compile(r"-?[0-9]+")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: "a signed integer of 32 bits",
    FieldDescriptor.CPPTYPE_INT64: "a signed integer of 64 bits",
    FieldDescriptor.CPPTYPE_UINT32: "an unsigned integer of 32 bits",
    FieldDescriptor.CPPTYPE_UINT64: "an unsigned integer of 64 bits",
}
_NO_NUMBERS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


class Field(NamedTuple):
    """One field of a message, and how its JSON is read."""

    name: str
    repeated: bool
    oneof: str
    convert: Callable[[Any], Any] | None
    """
    JSON value to field value; None for a message.

    For a wrong one it raises ValueError, TypeError, OverflowError or AttributeError.
    """
    expected: str


@cache
def fields_of(descriptor: Descriptor) -> dict[str, Field]:
    """Return the fields that OTLP/JSON may set, by their one valid key: JSON name, lowerCamelCase (JSN-02)."""
    return {
        field.json_name: Field(
            field.name,
            field.is_repeated,
            field.containing_oneof.name if field.containing_oneof else "",
            *_converter(field),
        )
        for field in descriptor.fields
    }


def _converter(field: FieldDescriptor) -> tuple[Callable[[Any], Any] | None, str]:
    size = ID_SIZES.get(field.name)
    match field.type:
        case FieldDescriptor.TYPE_MESSAGE:
            return None, "an object"
        case FieldDescriptor.TYPE_BYTES if size:
            return partial(_id, size), f'{2 * size} hexadecimal digits or ""'
        case FieldDescriptor.TYPE_BYTES:
            return _bytes, "a string of base64"
        case FieldDescriptor.TYPE_STRING:
            return partial(_only, str), "a string without lone surrogates"
        case FieldDescriptor.TYPE_BOOL:
            return partial(_only, bool), "true or false"
        case FieldDescriptor.TYPE_ENUM:
            return _enum, "an integer of 32 bits, not the name of an enum value"
        case FieldDescriptor.TYPE_DOUBLE:
            return _double, 'a number, "NaN", "Infinity" or "-Infinity"'
        case _:
            return _integer, f"{_INTEGERS[field.cpp_type]}, plain or in quotes"


def _id(size: int, value: Any) -> bytes:
    found = bytes.fromhex(value)
    # The text's own length as well, because fromhex skips blanks.
    if len(found) not in (0, size) or len(value) != 2 * len(found):
        raise ValueError
    return found


def _bytes(value: Any) -> bytes:
    """Read base64 as protobuf's JSON mapping does: standard or URL-safe, padded or not."""
    plain = value.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)


def _only(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError
    return value


def _enum(value: Any) -> int:
    if type(value) is str:
        raise TypeError
    return _integer(value)


def _integer(value: Any) -> int:
    if type(value) is int:
        return value
    if type(value) is str and _DECIMAL.fullmatch(value):
        return int(value)
    if type(value) is float and value.is_integer():
        return int(value)
    raise ValueError


def _double(value: Any) -> float:
    if type(value) is str:
        if value in _NO_NUMBERS:
            return _NO_NUMBERS[value]
        if not _NUMBER.fullmatch(value):
            raise ValueError
    elif type(value) not in (int, float):
        raise TypeError
    number = float(value)
    if number in (float("inf"), float("-inf")):  # 1e400: not the infinity that somebody meant
        raise OverflowError
    return number
