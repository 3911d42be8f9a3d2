"""One recorded request: what a reader of files gets, and how the bytes of one message become it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from enricher.capture.content import signal_of
from enricher.capture.inflate import Stream, is_compressed
from enricher.errors import BadRequestError, CaptureError
from enricher.otlp import json

if TYPE_CHECKING:
    from enricher.capture.names import Encoding
    from enricher.otlp.shallow import Signal

MAX_MESSAGE = 256 << 20
"""Largest single request, inflated. A file may be of any size: only one request of it is in memory at a time."""


@dataclass(frozen=True, slots=True)
class Captured:
    """One recorded export request. `offset` is where it begins in the file, inflated, its length prefix included."""

    path: str
    offset: int
    signal: Signal
    request: bytes
    encoding: Encoding


Item = Captured | CaptureError
"""An error stands in the place of a part that could not be read; what follows it is good."""


def from_protobuf(request: bytes, path: str, at: int, hint: Signal | None) -> Item:
    """Read a serialised request; `hint` is the signal that the file's name speaks of."""
    try:
        signal = signal_of(request, hint)
    except BadRequestError as error:
        return CaptureError(path, at, str(error))
    if signal is None:
        return CaptureError(path, at, "the items are neither spans, log records nor metrics")
    return Captured(path, at, signal, request, "protobuf")


def from_json(text: bytes, path: str, at: int, hint: Signal | None) -> Item:
    """Read an OTLP/JSON document."""
    try:
        signal, request = json.decode(text, None)
    except BadRequestError as error:
        return CaptureError(path, at, str(error))
    # `{}` may be an empty request of any signal.
    return Captured(path, at, signal if request or hint is None else hint, request, "json")


def from_message(message: bytes, path: str, at: int, hint: Signal | None) -> Item:
    """Read a message of known length: protobuf or JSON, compressed by itself or not."""
    if is_compressed(message):
        stream = Stream([message])
        message = stream.read(MAX_MESSAGE + 1)
        if len(message) > MAX_MESSAGE:
            return CaptureError(path, at, f"a message of more than {MAX_MESSAGE} bytes, inflated")
        if stream.failure:
            return CaptureError(path, at, stream.failure)
    # No white space in front is allowed for: a request may begin with the bytes of a line end and a brace.
    if message.startswith(b"{"):
        return from_json(message, path, at, hint)
    return from_protobuf(message, path, at, hint)


def cut_off(path: str, at: int, what: str, failure: str) -> CaptureError:
    """Return the error of a part that begins but does not end; `failure` says why, if that is known."""
    return CaptureError(path, at, f"the {what} that begins here is cut off{': ' if failure else ''}{failure}")
