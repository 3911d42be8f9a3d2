"""
OTLP export requests in which resource, scope and span stay the bytes that came in.

The schema is wire-compatible with `ExportTraceServiceRequest` and `ExportLogsServiceRequest` (both have the
same three levels), so parsing it costs a few allocations a span instead of a full decode, and serialising it
is a copy: unknown fields, invalid UTF-8 and values nested too deep for a full parse survive untouched.
Schema URLs are bytes too, because they may hold anything. Resource and scope are repeated, because a sender may write
one in several pieces, which protobuf merges; `merged` gives the whole.

    Request { repeated Resourced resourced = 1 }
    Resourced { repeated bytes resource = 1; repeated Scoped scoped = 2; repeated bytes schema_url = 3 }
    Scoped { repeated bytes scope = 1; repeated bytes items = 2; repeated bytes schema_url = 3 }

Items are spans, log records or metrics.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, Self, cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from enricher.errors import BadRequestError
from enricher.otlp import varint

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableSequence, Sequence

MAX_ELEMENTS = 250_000
"""Most messages that a request may hold. Each costs some 90 bytes parsed and only 2 on the wire, so a size
limit alone lets 64 MiB grow to several GiB."""

FIELDS_EACH, FIELDS_FREE = 3, 1000
"""Fields that are walked for each message, and besides: those of an envelope come to two and a third for each."""

COUNT_FROM_BYTES = 1 << 20
"""Requests below this size are not counted: even one of nothing but empty spans stays under 50 MiB parsed."""


class Signal(StrEnum):
    """The three OTLP signals that pass through the stage."""

    TRACES = "traces"
    METRICS = "metrics"
    LOGS = "logs"


class Scoped(Protocol):
    """`ScopeSpans` or `ScopeLogs`."""

    scope: MutableSequence[bytes]
    schema_url: MutableSequence[bytes]
    items: MutableSequence[bytes]

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """Return the scope's bytes."""


class Resourced(Protocol):
    """`ResourceSpans` or `ResourceLogs`."""

    resource: MutableSequence[bytes]
    schema_url: MutableSequence[bytes]

    @property
    def scoped(self) -> MutableSequence[Scoped]:
        """The scopes, in the order they came."""


class Request(Protocol):
    """An export request of traces or logs."""

    @property
    def resourced(self) -> MutableSequence[Resourced]:
        """The resources, in the order they came."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """Return the request's bytes; untouched items are copied as they came."""

    @classmethod
    def FromString(cls, data: bytes) -> Self:  # noqa: N802 - protobuf's name
        """Parse; raises `DecodeError`."""


def _request_class() -> type[Request]:
    field = descriptor_pb2.FieldDescriptorProto
    # Everything is repeated: nothing that stands twice is lost, and an empty resource stays on the wire.
    package = "enricher.shallow"
    file = descriptor_pb2.FileDescriptorProto(name="enricher/shallow.proto", package=package, syntax="proto2")
    layout = {
        "Scoped": (("scope", 1, ""), ("items", 2, ""), ("schema_url", 3, "")),
        "Resourced": (("resource", 1, ""), ("scoped", 2, "Scoped"), ("schema_url", 3, "")),
        "Request": (("resourced", 1, "Resourced"),),
    }
    for name, fields in layout.items():
        message = file.message_type.add(name=name)
        for field_name, number, of in fields:
            added = message.field.add(name=field_name, number=number, label=field.LABEL_REPEATED)
            added.type = field.TYPE_MESSAGE if of else field.TYPE_BYTES
            if of:
                added.type_name = f".{package}.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    # A class made at run time has no type of its own.
    return cast("type[Request]", message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.Request")))


_Request = _request_class()


def parse(data: bytes) -> Request:
    """
    Return the request with its spans or log records as bytes.

    Raises `BadRequestError` for bytes that are not a request and for more than `MAX_ELEMENTS` messages, which
    are counted before anything is expanded.
    """
    if len(data) > COUNT_FROM_BYTES and exceeds(data, MAX_ELEMENTS):
        raise BadRequestError(f"more than {MAX_ELEMENTS} resources, scopes and items in one request; send it in parts")
    try:
        return _Request.FromString(data)
    except DecodeError as error:
        raise BadRequestError(f"not an OTLP export request: {error}") from None


def merged(pieces: Sequence[bytes]) -> bytes:
    """Return a message that was written in pieces as one: protobuf merges by concatenation."""
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def items(request: Request) -> Iterator[tuple[Resourced, Scoped, bytes]]:
    """Yield every span or log record with what stands above it."""
    for resourced in request.resourced:
        for scoped in resourced.scoped:
            for item in scoped.items:
                yield resourced, scoped, item


def count(request: Request) -> int:
    """Return the number of spans, log records or metrics."""
    return sum(len(scoped.items) for resourced in request.resourced for scoped in resourced.scoped)


def halves(data: bytes) -> list[tuple[bytes, int]]:
    """Return a request as two, each with its number of items, in their order; none if it holds fewer than two."""
    total = count(parse(data))
    return [] if total < 2 else [_part(data, 0, total // 2), _part(data, total // 2, total)]


def _part(data: bytes, first: int, last: int) -> tuple[bytes, int]:
    """Return a request of some of the items, with what stands above them, and how many they are."""
    request, at = parse(data), 0
    for resourced in list(request.resourced):
        for scoped in list(resourced.scoped):
            size = len(scoped.items)
            scoped.items[:] = scoped.items[max(first - at, 0) : max(last - at, 0)]
            at += size
            if not scoped.items:
                resourced.scoped.remove(scoped)
        if not resourced.scoped:
            request.resourced.remove(resourced)
    return request.SerializeToString(), last - first


def exceeds(data: bytes, limit: int) -> bool:  # noqa: C901 - a walk over the wire in one place
    """
    Tell whether a request holds more than `limit` messages on its three levels, without expanding any.

    Stops at the limit, so a hostile request costs no more than a large honest one; for the same reason more than
    `FIELDS_EACH` fields for each of the messages allowed are too many. Malformed bytes end the count early; the parse
    that follows refuses them.
    """
    count = fields = 0
    # (position, end, level); level 0 is the request, 2 a scope, whose items are counted and not entered.
    stack = [(0, len(data), 0)]
    while stack:
        at, end, level = stack.pop()
        while at < end:
            try:
                tag, at = varint.read(data, at)
                wire_type = tag & 7
                fields += 1
                if fields > FIELDS_EACH * limit + FIELDS_FREE:
                    return True
                if tag < 8:  # field 0, which there is not: 60 MiB of zeros are no request
                    break
                if wire_type == 2:
                    size, at = varint.read(data, at)
                    if tag >> 3 == (1 if level == 0 else 2):
                        count += 1
                        if count > limit:
                            return True
                        if level < 2:
                            stack.append((at, min(at + size, end), level + 1))
                    at += size
                elif wire_type == 0:
                    _, at = varint.read(data, at)
                elif wire_type in (1, 5):
                    at += 8 if wire_type == 1 else 4
                elif wire_type not in (
                    3,
                    4,
                ):  # a group's ends have nothing behind them, its fields are passed over singly
                    break
            except IndexError:
                break
    return False


def assemble(
    resource: bytes, resource_schema_url: bytes, scope: bytes, scope_schema_url: bytes, spans: Sequence[bytes]
) -> Request:
    """Return a request of one resource and scope. Empty bytes stand for a field that was not there."""
    request = _Request()
    resourced = request.resourced.add()  # type: ignore[attr-defined]
    scoped = resourced.scoped.add()
    for field, value in ((resourced.resource, resource), (resourced.schema_url, resource_schema_url)):
        field.extend([value] if value else [])
    for field, value in ((scoped.scope, scope), (scoped.schema_url, scope_schema_url)):
        field.extend([value] if value else [])
    scoped.items.extend(spans)
    return request
