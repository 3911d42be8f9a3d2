"""
How inputs are changed: as bytes, and one level further in, where bytes changed at random would hardly ever get.

A request is changed inside of a span, JSON by its values, a compressed body before it is compressed.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from enricher.errors import EnricherError
from enricher.otlp import shallow
from tests.fuzz.targets import COMPRESS, HEADERS, LIMIT, inflated

if TYPE_CHECKING:
    from collections.abc import Callable

ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1 << 63,
    1 << 64,
    0.0,
    1e300,
    "",
    "1",
    "run_1",
    "thread.run",
    "\0",
    "\ud800",
    [],
    {},
    [{}],
    {"": None},
)


def mutated(target: str, data: bytes, max_size: int, seed: int, plain: Callable[[bytes, int], bytes]) -> bytes:
    """Return a changed input of at most `max_size` bytes. `plain` is the fuzzer's own way for bytes."""
    rng = random.Random(seed)

    def as_bytes(part: bytes) -> bytes:
        return plain(part, max(max_size, len(part) + 64))

    if rng.random() < 0.3:
        return plain(data, max_size)
    match target:
        case "grpc":
            out = _request(data, rng, as_bytes)
        case "http":
            out = _body(data, rng, as_bytes)
        case "json" if not data.lstrip().startswith(b"{"):
            out = _request(data, rng, as_bytes)
        case "inflate":
            out = as_bytes(data)
        case _:
            out = _json(data, rng, as_bytes)
    return out[:max_size]


def _body(data: bytes, rng: random.Random, as_bytes: Callable[[bytes], bytes]) -> bytes:
    if not data:
        return as_bytes(data)
    coding, is_json, _ = HEADERS[data[0] % len(HEADERS)]
    body = data[1:]
    try:
        body = inflated(coding, body, LIMIT) if coding else body
    except EnricherError:
        return data[:1] + as_bytes(body)
    body = (_json if is_json else _request)(body, rng, as_bytes)
    return data[:1] + (COMPRESS[coding](body) if coding else body)


def _request(data: bytes, rng: random.Random, as_bytes: Callable[[bytes], bytes]) -> bytes:
    try:
        request = shallow.parse(data)
    except EnricherError:
        return as_bytes(data)
    scopes = [scoped for resourced in request.resourced for scoped in resourced.scoped if scoped.items]
    if not scopes:
        return as_bytes(data)
    scoped = rng.choice(scopes)
    at = rng.randrange(len(scoped.items))
    match rng.randrange(6):
        case 0:
            scoped.items.append(scoped.items[at])
        case 1:
            scoped.items[at] = as_bytes(scoped.items[at])
        case 2 if scoped.scope:
            scoped.scope[0] = as_bytes(scoped.scope[0])
        case _:
            scoped.items[at] = _span(scoped.items[at], rng, as_bytes)
    return request.SerializeToString()


def _span(data: bytes, rng: random.Random, as_bytes: Callable[[bytes], bytes]) -> bytes:
    try:
        span = Span.FromString(data)
    except DecodeError:
        return as_bytes(data)
    if not span.attributes:
        return as_bytes(data)
    chosen = rng.choice(span.attributes)
    if rng.random() < 0.3:
        chosen.key = as_bytes(chosen.key.encode()).decode(errors="replace")
    elif chosen.value.HasField("string_value"):
        changed = _json(chosen.value.string_value.encode(), rng, as_bytes)
        chosen.value.string_value = changed.decode(errors="replace")
    else:
        try:
            chosen.value.MergeFromString(as_bytes(chosen.value.SerializeToString()))
        except DecodeError:
            chosen.value.Clear()
    return span.SerializeToString()


def _json(data: bytes, rng: random.Random, as_bytes: Callable[[bytes], bytes]) -> bytes:
    """Change one value of a document, or of one that stands in it as text."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return as_bytes(data)
    places = _places(document)
    if not places:
        return as_bytes(data)
    inside, key = rng.choice(places)
    value = inside[key]
    if isinstance(value, str) and rng.random() < 0.7:
        inside[key] = _json(value.encode(errors="replace"), rng, as_bytes).decode(errors="replace")
    elif rng.random() < 0.5:
        inside[key] = rng.choice(ODD)
    else:
        other, name = rng.choice(places)
        inside[key] = json.loads(json.dumps(other[name]))
    return json.dumps(document).encode()


def _places(document: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    open_ = [document]
    while open_ and len(found) < 1000:
        inside = open_.pop()
        keys = list(inside) if isinstance(inside, dict) else range(len(inside)) if isinstance(inside, list) else ()
        for key in keys:
            found.append((inside, key))
            open_.append(inside[key])
    return found
