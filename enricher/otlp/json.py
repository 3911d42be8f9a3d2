"""
OTLP/JSON to serialised export requests and back, for the HTTP receiver and recorded files.

OTLP/JSON is protobuf's JSON mapping with exceptions: ids are hexadecimal, enums are integers only, keys are
lowerCamelCase only, unknown keys are ignored (OTLP specification, "JSON Protobuf Encoding"). Writing uses protobuf's
own `json_format` and mends the ids. Reading does not: `json_format` takes enum names, snake_case, a string in place of
an object, broken base64 and `1_000`, and its errors quote the payload, so every value has to be checked before it
anyway; what is left of its work is one assignment a field, and that costs six times less here.

Ids are told by their place in the schema, never by their key: an attribute called `traceId` stays as it is.
"""

from __future__ import annotations

import base64
import json
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NoReturn, cast

import orjson
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from enricher.errors import BadRequestError
from enricher.otlp.json_fields import ID_SIZES, Field, fields_of
from enricher.otlp.shallow import Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_LEVELS = 101
"""Most messages inside one another, the request included; protobuf refuses to parse what is deeper."""

_REQUESTS: dict[Signal, type[Message]] = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
}
_TOP_KEYS = {"resourceSpans": Signal.TRACES, "resourceLogs": Signal.LOGS, "resourceMetrics": Signal.METRICS}


class _MistakeError(Exception):
    """What is wrong at one place; `path` grows from the inside out on the way up."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.path: list[str] = []

    def __str__(self) -> str:
        return f"${''.join(reversed(self.path))}: {self.what}"


class _Twice(dict[str, Any]):
    """An object that has a key twice."""


def decode(text: bytes, signal: Signal | None) -> tuple[Signal, bytes]:
    """
    Return the signal and the serialised export request of one OTLP/JSON document.

    Without a `signal` it is found out from the one key at the top; `{}` then is an empty trace request, and a
    document with none of the keys, or more than one, is refused. With a `signal`, other keys are unknown ones.
    Raises `BadRequestError`, whose text names the place by JSON path and never quotes the document.
    """
    document, twice = _parse(text)
    try:
        if signal is None:
            signal = _signal_of(document)
        message = _REQUESTS[signal]()
        _fill(message, document, 1)
    except _MistakeError as mistake:
        raise BadRequestError(str(mistake)) from None
    if twice:
        raise BadRequestError("$: an object under an unknown key has a key twice; keys must be unique")
    return signal, message.SerializeToString()


def encode(signal: Signal, request: bytes) -> bytes:
    """
    Return the request as one line of OTLP/JSON, without a newline.

    Unknown fields are left out, as JSON has no place for them. Raises `BadRequestError` for what JSON readers
    would refuse: invalid UTF-8 in a string, more than 100 levels, an id of another length. The request may be good
    on the wire all the same, so the caller should keep it as protobuf, whole, and say so.
    """
    message = _REQUESTS[signal]()
    try:
        message.ParseFromString(request)
    except DecodeError:
        raise BadRequestError(
            f"no OTLP/JSON for this {signal} request: it holds a string that is not UTF-8, "
            "more than 100 levels, or is malformed"
        ) from None
    document = json_format.MessageToDict(message, use_integers_for_enums=True)
    _write_ids(document, cast("Descriptor", message.DESCRIPTOR))
    return orjson.dumps(document)


# reading


def _parse(text: bytes) -> tuple[Any, bool]:
    """Return the JSON value and whether an object in it, an unknown one included, has a key twice."""
    twice = False

    def to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        found = dict(pairs)
        if len(found) == len(pairs):
            return found
        twice = True
        return _Twice(found)

    try:
        # The standard library's parser: orjson keeps the last of two equal keys and cannot be asked.
        document = json.loads(text.decode("utf-8-sig"), object_pairs_hook=to_object, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise BadRequestError(f"not JSON: byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise BadRequestError(f"not JSON: {error.msg} (character {error.pos})") from None
    except _MistakeError as mistake:
        raise BadRequestError(f"not JSON: {mistake.what}") from None
    except ValueError:
        raise BadRequestError("not OTLP/JSON: a number has thousands of digits") from None
    except RecursionError:
        raise BadRequestError("not OTLP/JSON: values are nested too deep") from None
    return document, twice


def _refuse_constant(name: str) -> NoReturn:
    raise _MistakeError(f'{name} is no JSON number; write it in quotes: "{name}"')


def _signal_of(document: Any) -> Signal:
    if not isinstance(document, dict):
        raise _MistakeError(f"expected an object, found {_describe(document)}")
    keys = [key for key in _TOP_KEYS if key in document]
    if len(keys) == 1:
        return _TOP_KEYS[keys[0]]
    if keys:
        raise _MistakeError(f"expected one of {', '.join(_TOP_KEYS)}, found {' and '.join(keys)}")
    if document:
        raise _MistakeError(f"expected one of the keys {', '.join(_TOP_KEYS)}, found none of them")
    return Signal.TRACES


def _fill(message: Message, value: Any, level: int) -> None:
    """Set the message's fields from a JSON object; raises `_MistakeError` at the first value that is wrong."""
    if type(value) is not dict:
        raise _MistakeError(f"expected an object, found {_describe(value)}")
    if level > MAX_LEVELS:
        raise _MistakeError(f"more than {MAX_LEVELS} objects of the schema inside one another")
    fields = fields_of(message.DESCRIPTOR)
    chosen: set[str] = set()
    for key, inner in value.items():
        field = fields.get(key)
        if field is None or inner is None:  # JSN-03, JSN-08
            continue
        try:
            if field.oneof:
                _choose(field.oneof, chosen)
            if field.repeated:
                _fill_list(getattr(message, field.name), field, inner, level)
            elif field.convert is None:
                child = getattr(message, field.name)
                child.SetInParent()
                _fill(child, inner, level + 1)
            else:
                _assign(partial(setattr, message, field.name), field.convert, field.expected, inner)
        except _MistakeError as mistake:
            mistake.path.append(f".{key}")
            raise


def _choose(oneof: str, chosen: set[str]) -> None:
    if oneof in chosen:
        raise _MistakeError("expected one kind of value, found a second one beside the first")
    chosen.add(oneof)


def _fill_list(target: Any, field: Field, value: Any, level: int) -> None:
    if type(value) is not list:
        raise _MistakeError(f"expected an array, found {_describe(value)}")
    for index, inner in enumerate(value):
        try:
            if field.convert is None:
                _fill(target.add(), inner, level + 1)
            else:
                _assign(target.append, field.convert, field.expected, inner)
        except _MistakeError as mistake:
            mistake.path.append(f"[{index}]")
            raise


def _assign(put: Callable[[Any], None], convert: Callable[[Any], Any], expected: str, value: Any) -> None:
    try:
        put(convert(value))
    # What protobuf itself refuses, such as a number out of range or a lone surrogate, is one of these as well.
    except (ValueError, TypeError, OverflowError, AttributeError):
        raise _MistakeError(f"expected {expected}, found {_describe(value)}") from None


def _describe(value: Any) -> str:
    """Say what kind of JSON value it is, and nothing of what it holds."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return f"a string of {len(value)} characters"
        case int() | float():
            return "another number"
        case list():
            return "an array"
        case _Twice():
            return "an object that has a key twice"
        case _:
            return "an object"


# writing


def _write_ids(value: dict[str, Any], descriptor: Descriptor) -> None:
    """Turn `json_format`'s base64 ids into hexadecimal, in place (JSN-13)."""
    for key, size, child in _ways_to_ids(descriptor):
        inner = value.get(key)
        if inner is None:
            continue
        if child is None:
            found = base64.b64decode(inner)
            if len(found) != size:
                raise BadRequestError(f"no OTLP/JSON for this request: a {key} has {len(found)} bytes, expected {size}")
            value[key] = found.hex()
        else:
            for item in inner if type(inner) is list else (inner,):
                _write_ids(item, child)


@cache
def _ways_to_ids(descriptor: Descriptor) -> tuple[tuple[str, int, Descriptor | None], ...]:
    """Return (key, id size, None) for ids in this message and (key, 0, message) for fields with ids below."""
    return tuple(_find_ways(descriptor, frozenset({descriptor.full_name})))


def _find_ways(descriptor: Descriptor, above: frozenset[str]) -> Iterable[tuple[str, int, Descriptor | None]]:
    # Values nest in themselves and hold no ids, so a message that is open above leads nowhere.
    for field in descriptor.fields:
        child = field.message_type
        if child is None:
            if field.type == FieldDescriptor.TYPE_BYTES and field.name in ID_SIZES:
                yield field.json_name, ID_SIZES[field.name], None
        elif child.full_name not in above and any(_find_ways(child, above | {child.full_name})):
            yield field.json_name, 0, child
