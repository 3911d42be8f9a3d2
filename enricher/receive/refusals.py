"""
What a client is told of a request that was not taken, whichever protocol it speaks, and what stays in the log.

    consume raises                     the client is told
    BadRequestError                    INVALID_ARGUMENT with a BadRequest in the details (GRP-03, HTP-06)
    RetryableError                     its code, text and details; RetryInfo added in the form it lacks
    PermanentError                     its code, text and details, and nothing added
    anything else                      UNAVAILABLE "internal error, id=..." with RetryInfo; the log has the rest (A23)
"""

from __future__ import annotations

import secrets
from typing import NamedTuple

import structlog

from enricher.errors import BadRequestError, EnricherError, ExportError, RetryableError
from enricher.otlp.status import ADVISED_RETRY_DELAY, STATUS_KEY, Code, bad_request_details, retry_trailers
from enricher.telemetry.logs import FirstOfKind

Trailers = tuple[tuple[str, bytes], ...]

MAX_TEXT_BYTES = 1024
MAX_TRAILER_BYTES = 2048
"""Most of downstream's text and trailers that an error carries on. Clients take 8 KiB of metadata in all, the text
percent-encoded and the trailers in base64; an answer above that reaches them as RESOURCE_EXHAUSTED, whatever it was."""

DRAIN_SECONDS = 0.1
"""How long requests that arrive during a shutdown are still answered, so that clients pause instead of seeing a
connection that breaks. grpc's own stop answers CANCELLED to what it has accepted and not handed over yet: under load
two clients of three saw that, and none once UNAVAILABLE had made them pause."""

_log = structlog.get_logger()


class Refusal(NamedTuple):
    """An answer other than success."""

    code: Code
    text: str
    trailers: Trailers = ()
    """`STATUS_KEY` with a serialised `Status`, and `RETRY_INFO_KEY`, as far as there is something to say in them."""
    is_retryable: bool = False


class Refusals:
    """Makes refusals of exceptions. One for each receiver: of each kind of bug it logs one traceback."""

    def __init__(self) -> None:
        self._first_of_kind = FirstOfKind()

    def of(self, signal: str, error: BaseException) -> Refusal:
        """Return what the client is told about an exception; `signal` is for the log."""
        if isinstance(error, BadRequestError):
            return bad_request(str(error))
        if isinstance(error, ExportError):
            return _downstreams(error)
        identifier = secrets.token_hex(4)
        _log.error(
            "a request was refused because of an internal error",
            id=identifier,
            signal=str(signal),
            error=type(error).__name__,
            exc_info=error if self._first_of_kind(error) else None,
        )
        return retry_later(f"internal error, id={identifier}")


def retry_later(text: str) -> Refusal:
    """Return the refusal of a request that may be sent again within a second."""
    trailers = retry_trailers(ADVISED_RETRY_DELAY, Code.UNAVAILABLE, text)
    return Refusal(Code.UNAVAILABLE, text, trailers, is_retryable=True)


def shutting_down() -> Refusal:
    """Return the refusal of what comes, or is not finished, when the receiver stops (GRP-10)."""
    return retry_later("the receiver is shutting down")


def bad_request(text: str) -> Refusal:
    """Return the refusal of what is not OTLP."""
    text = _cut(text)
    return Refusal(Code.INVALID_ARGUMENT, text, ((STATUS_KEY, bad_request_details(text)),))


def cannot_listen(protocol: str, endpoint: str) -> EnricherError:
    """Return the error of a receiver whose endpoint is not to be had."""
    return EnricherError(
        f"cannot listen for {protocol} on {endpoint}: the port is taken, or the host is no address of this machine; "
        f"stop what listens there, or set receivers.otlp.protocols.{protocol.lower()}.endpoint to another"
    )


def _downstreams(error: ExportError) -> Refusal:
    text = _cut(error.details)
    trailers = error.trailers if sum(len(value) for _, value in error.trailers) <= MAX_TRAILER_BYTES else ()
    if not isinstance(error, RetryableError):
        return Refusal(_known(error.code, Code.UNKNOWN), text, trailers)
    code = _known(error.code, Code.UNAVAILABLE)
    delay = min(error.retry_delay or ADVISED_RETRY_DELAY, ADVISED_RETRY_DELAY)
    return Refusal(code, text, retry_trailers(delay, code, text, given=trailers), is_retryable=True)


def _known(code: int, otherwise: Code) -> Code:
    # 0 is no error, so it must not reach a client as one's code.
    return Code(code) if code in _ERRORS else otherwise


_ERRORS = frozenset(Code) - {Code.OK}


def _cut(text: str) -> str:
    return text.encode(errors="replace")[:MAX_TEXT_BYTES].decode(errors="ignore")
