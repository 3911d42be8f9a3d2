"""
What OTLP's protocols put around a request: service names, status codes and details, retry advice, partial success.

Used by the receivers to answer and by the exporters to read answers. The messages are built here, wire-compatible,
because `googleapis-common-protos` would be a dependency for three of them. Text fields are bytes, so a peer's
invalid UTF-8 cannot make an answer unreadable.

    Status { int32 code = 1; bytes message = 2; repeated Any details = 3 }      details: RetryInfo, BadRequest, ...
    Response { PartialSuccess partial_success = 1 }     the shape of all three Export<Signal>ServiceResponse
    PartialSuccess { int64 rejected = 1; bytes error_message = 2 }
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

import orjson
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from enricher.otlp.shallow import Signal

if TYPE_CHECKING:
    from collections.abc import Iterable


SERVICES = {
    Signal.TRACES: "opentelemetry.proto.collector.trace.v1.TraceService",
    Signal.METRICS: "opentelemetry.proto.collector.metrics.v1.MetricsService",
    Signal.LOGS: "opentelemetry.proto.collector.logs.v1.LogsService",
}
"""The gRPC service of each signal; its method is `Export`."""


class Code(IntEnum):
    """The gRPC status codes by number, for modules that do not import grpc."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


RETRYABLE = frozenset(
    {Code.CANCELLED, Code.DEADLINE_EXCEEDED, Code.ABORTED, Code.OUT_OF_RANGE, Code.UNAVAILABLE, Code.DATA_LOSS}
)
"""Codes that may be retried as they are (CLI-03). RESOURCE_EXHAUSTED joins them only with a RetryInfo beside it."""

STATUS_KEY = "grpc-status-details-bin"
"""Trailer with a serialised `Status`; read by the Collector and the SDKs of Go, .NET and Rust."""

RETRY_INFO_KEY = "google.rpc.retryinfo-bin"
"""Trailer with a serialised `RetryInfo`; the only one that Python's SDK exporter reads."""

MAX_RETRY_DELAY = 300.0
"""Seconds. A peer that asks for more is taken to mean this: stock clients have given up by then."""

ADVISED_RETRY_DELAY = 1.0
"""Seconds. The most that the stage itself advises: stock SDK exporters drop at once when told to wait longer than
the rest of their 10 s budget, and get six attempts out of this."""

_REJECTED_KEYS = {
    Signal.TRACES: "rejectedSpans",
    Signal.METRICS: "rejectedDataPoints",
    Signal.LOGS: "rejectedLogRecords",
}
_TYPE_PREFIX = "type.googleapis.com/google.rpc."
_NANOS = 1_000_000_000


def _message_classes() -> dict[str, Any]:
    field = descriptor_pb2.FieldDescriptorProto
    int32, int64, text = field.TYPE_INT32, field.TYPE_INT64, field.TYPE_BYTES
    layout: dict[str, tuple[tuple[str, int, int | str, bool], ...]] = {
        "Any": (("type_url", 1, text, False), ("value", 2, text, False)),
        "Status": (("code", 1, int32, False), ("message", 2, text, False), ("details", 3, "Any", True)),
        "Duration": (("seconds", 1, int64, False), ("nanos", 2, int32, False)),
        "RetryInfo": (("retry_delay", 1, "Duration", False),),
        "FieldViolation": (("field", 1, text, False), ("description", 2, text, False)),
        "BadRequest": (("field_violations", 1, "FieldViolation", True),),
        "PartialSuccess": (("rejected", 1, int64, False), ("error_message", 2, text, False)),
        "Response": (("partial_success", 1, "PartialSuccess", False),),
    }
    file = descriptor_pb2.FileDescriptorProto(name="enricher/status.proto", package="enricher.status", syntax="proto2")
    for name, fields in layout.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind, repeated in fields:
            added = message.field.add(name=field_name, number=number)
            added.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            if isinstance(kind, str):
                added.type = field.TYPE_MESSAGE
                added.type_name = f".enricher.status.{kind}"
            else:
                added.type = field.Type.ValueType(kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"enricher.status.{name}")) for name in layout
    }


_MESSAGES = _message_classes()


def status_details(code: int, message: str) -> bytes:
    """Return a serialised `Status`: the value of `STATUS_KEY`, and the body of every HTTP error (HTP-05)."""
    return _bytes(_status(code, message))


def bad_request_details(message: str) -> bytes:
    """Return a `Status` INVALID_ARGUMENT that holds a `BadRequest` (GRP-03, HTP-06); `message` is shown to the peer."""
    violation = _MESSAGES["FieldViolation"](field=b"request", description=_text(message))
    return _bytes(_status(Code.INVALID_ARGUMENT, message, _MESSAGES["BadRequest"](field_violations=[violation])))


def status_code(details: bytes) -> int | None:
    """Return the code in a serialised `Status`, 0 where it has none, or None for bytes that are no `Status`."""
    status = _parse("Status", details)
    return None if status is None else int(status.code)


def status_message(details: bytes) -> str:
    """Return the text in a serialised `Status`, empty for bytes that are no `Status`."""
    status = _parse("Status", details)
    return "" if status is None else _readable(status.message)


def status_json(details: bytes) -> bytes:
    """Return a serialised `Status` as JSON. Of its details the two kinds that the stage knows are kept."""
    status = _parse("Status", details)
    found = [] if status is None else list(filter(None, map(_detail_json, status.details)))
    return orjson.dumps(
        {
            "code": 0 if status is None else status.code,
            "message": "" if status is None else _readable(status.message),
            **({"details": found} if found else {}),
        }
    )


def retry_trailers(
    delay_seconds: float,
    code: int = Code.UNAVAILABLE,
    message: str = "",
    given: Iterable[tuple[str, bytes]] = (),
) -> tuple[tuple[str, bytes], ...]:
    """
    Return both trailers that advise a retry, for no family of clients reads the two.

    What `given`, a peer's own answer, says already is kept as it came and the delay then only fills what is missing.
    `code` and `message` must be those of the answer: Go turns a `Status` of another code into INTERNAL, which is
    permanent, so a given one that disagrees is replaced.
    """
    had = dict(reversed(list(given)))  # the first of a repeated key; Go ignores the trailer when it comes twice
    advice = _MESSAGES["RetryInfo"](retry_delay=_duration(delay_seconds))
    status = _parse("Status", had.get(STATUS_KEY, b""))
    if status is None or status.code != code:
        details = _bytes(_status(code, message, advice))
    elif _retry_info_in(status) is None:
        # Concatenation is the merge: one more detail, and every byte that came stays.
        details = had[STATUS_KEY] + _bytes(_MESSAGES["Status"](details=[_packed(advice)]))
    else:
        details = had[STATUS_KEY]
    info = had.get(RETRY_INFO_KEY, b"")
    if not info or _parse("RetryInfo", info) is None:  # Python's SDK exporter fails on bytes it cannot parse
        info = _bytes(advice)
    return (STATUS_KEY, details), (RETRY_INFO_KEY, info)


def retry_delay(trailers: Iterable[tuple[str, str | bytes]]) -> float | None:
    """
    Return the delay in seconds that a peer asks for, from either trailer, or None where it gave no RetryInfo.

    Never raises: the values come from outside. Unreadable ones count as absent, negative ones as 0, absurd ones as
    `MAX_RETRY_DELAY` (A9).
    """
    found = None
    for key, value in trailers:
        if not isinstance(value, bytes):
            continue
        if key == STATUS_KEY:
            status = _parse("Status", value)
            info = None if status is None else _retry_info_in(status)
            if info is not None:
                return _seconds(info)
        elif key == RETRY_INFO_KEY:
            info = _parse("RetryInfo", value)
            found = found if info is None else _seconds(info)
    return found


def partial_success(rejected: int, message: str) -> bytes:
    """
    Return the response of any of the three signals saying that `rejected` items were not taken (SRV-05).

    With 0 rejected it is a warning, and the message must not be empty.
    """
    return _bytes(
        _MESSAGES["Response"](
            partial_success=_MESSAGES["PartialSuccess"](rejected=rejected, error_message=_text(message))
        )
    )


def is_response(data: bytes) -> bool:
    """Tell whether the bytes can be read as the response of any of the three signals."""
    return _parse("Response", data) is not None


def rejected(response: bytes) -> tuple[int, str]:
    """
    Return how many items a response of any of the three signals rejected, and its message.

    (0, "") is full success, and so is a response that cannot be read: the call itself succeeded (CLI-15).
    """
    if not response:
        return 0, ""
    parsed = _parse("Response", response)
    if parsed is None:
        return 0, ""
    partial = parsed.partial_success
    return max(partial.rejected, 0), _readable(partial.error_message)


def response_json(signal: Signal, response: bytes) -> bytes:
    """Return the response of a signal as OTLP/JSON."""
    count, message = rejected(response)
    partial = {
        **({_REJECTED_KEYS[signal]: str(count)} if count else {}),
        **({"errorMessage": message} if message else {}),
    }
    return orjson.dumps({"partialSuccess": partial} if partial else {})


def _detail_json(detail: Any) -> dict[str, Any] | None:
    name = detail.type_url.decode(errors="replace").rpartition("/google.rpc.")[2]
    message = _parse(name, detail.value) if name in ("RetryInfo", "BadRequest") else None
    if message is None:
        return None
    if name == "RetryInfo":
        return {"@type": _TYPE_PREFIX + name, "retryDelay": f"{_seconds(message):g}s"}
    violations = [
        {"field": _readable(each.field), "description": _readable(each.description)}
        for each in message.field_violations
    ]
    return {"@type": _TYPE_PREFIX + name, "fieldViolations": violations}


def _status(code: int, message: str, *details: Any) -> Any:
    return _MESSAGES["Status"](code=code, message=_text(message), details=[_packed(detail) for detail in details])


def _text(text: str) -> bytes:
    return text.encode(errors="replace")  # a peer's text may hold lone surrogates


def _readable(text: bytes) -> str:
    return text.decode(errors="replace")


def _packed(message: Any) -> Any:
    return _MESSAGES["Any"](type_url=(_TYPE_PREFIX + message.DESCRIPTOR.name).encode(), value=_bytes(message))


def _retry_info_in(status: Any) -> Any:
    for detail in status.details:
        if detail.type_url.endswith(b"/google.rpc.RetryInfo"):
            info = _parse("RetryInfo", detail.value)
            if info is not None:
                return info
    return None


def _duration(seconds: float) -> Any:
    whole, nanos = divmod(round(max(seconds, 0.0) * _NANOS), _NANOS)
    return _MESSAGES["Duration"](seconds=whole, nanos=nanos)


def _seconds(info: Any) -> float:
    delay: float = info.retry_delay.seconds + info.retry_delay.nanos / _NANOS
    return min(max(delay, 0.0), MAX_RETRY_DELAY)


def _parse(name: str, data: bytes) -> Any:
    try:
        return _MESSAGES[name].FromString(data)
    except DecodeError:
        return None


def _bytes(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data
