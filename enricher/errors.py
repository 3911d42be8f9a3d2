"""
The exceptions of this package, named by what the caller must do next.

    EnricherError
    ├── ConfigError        stop: the operator has to change the configuration
    ├── CaptureError       leave this file, name it, go on with the next; exit 1 at the end
    ├── BadRequestError    refuse for good (INVALID_ARGUMENT, 400): the bytes are not OTLP
    └── ExportError        downstream did not take the request
        ├── RetryableError     the same request may succeed later
        └── PermanentError     the same request will never succeed
            └── AnswerError        it may have been taken: neither send it again nor in parts

What was *found* in telemetry is never an exception: that is an `outcome.Reason`.
"""

from __future__ import annotations


class EnricherError(Exception):
    """Base of everything this package raises on purpose."""


class ConfigError(EnricherError):
    """The configuration cannot be used. `problems` holds one line per mistake, each with its position."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class CaptureError(EnricherError):
    """
    A recorded file, or a part of it, cannot be read. Requests read from it before the offset are good.

    What is wrong with the file as a whole stands at no byte of it: the offset is None.
    """

    def __init__(self, path: str, offset: int | None, what: str) -> None:
        super().__init__(f"{path}: {what}" if offset is None else f"{path}: byte {offset}: {what}")
        self.path = path
        self.offset = offset
        self.what = what


class BadRequestError(EnricherError):
    """The bytes are not an OTLP request. Nothing of it may be forwarded; the text may be shown to the peer."""


class ExportError(EnricherError):
    """
    Downstream did not take the request.

    `code` is the gRPC status code by number, `details` downstream's message, `trailers` the raw values of
    its `grpc-status-details-bin` and `google.rpc.retryinfo-bin`, for passing the answer on as it came.
    """

    def __init__(self, code: int, details: str, trailers: tuple[tuple[str, bytes], ...] = ()) -> None:
        super().__init__(details)
        # A member of an enum prints as `<Code.UNAVAILABLE: 14>` in a log.
        self.code = int(code)
        self.details = details
        self.trailers = trailers


class RetryableError(ExportError):
    """The same request may succeed later. `retry_delay` is downstream's wish in seconds, if it had one."""

    def __init__(
        self,
        code: int,
        details: str,
        trailers: tuple[tuple[str, bytes], ...] = (),
        retry_delay: float | None = None,
    ) -> None:
        super().__init__(code, details, trailers)
        self.retry_delay = retry_delay


class PermanentError(ExportError):
    """The same request will never succeed; sending it again is wrong (OTLP specification, Failures)."""


class AnswerError(PermanentError):
    """Downstream's answer cannot be read, so what became of the request is not known (CLI-02)."""
