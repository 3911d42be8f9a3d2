"""
The stage's own log lines: structlog to standard error, as text for people or JSON for machines.

`configure` is called once, by the command line. What is logged is the stage's own doings, never the telemetry that
passes through it, but a peer's error text or a file name may hold anything. So every value is cut, and every control
character in it escaped, before a renderer sees it: no peer can forge a line or move a terminal's cursor (A15).
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import traceback
from typing import TYPE_CHECKING, Any, Literal, TextIO

import structlog

if TYPE_CHECKING:
    from collections.abc import MutableMapping

MAX_VALUE_CHARS = 256
"""Longer values are cut; a peer's text must not fill the disk."""

MAX_TRACEBACK_LINES = 100
"""The last so many lines are kept: the place that raised is at the end."""

Level = Literal["debug", "info", "warn", "error"]
Format = Literal["console", "json"]

# C0, DEL, C1, and the two separators that many viewers break lines at.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def configure(level: Level = "info", log_format: Format = "console", stream: TextIO | None = None) -> None:
    """
    Send the log lines of this package and of every library to `stream`, standard error by default.

    Libraries speak through `logging`; theirs pass from `warning` upwards whatever the level, for below that they
    tell of single calls and may quote what is in them.
    """
    out = sys.stderr if stream is None else stream
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _format_exception,
            _clean,
            _renderer(log_format, colours=out.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _Lines(out),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_ToStructlog()]
    root.setLevel(max(number, logging.WARNING))


class FirstOfKind:
    """
    Tells whether a failure was seen before, so that a bug hit by every request leaves one traceback and not a flood.

    A kind is an exception class and the line that raised it; there are only as many as the code has lines.
    """

    def __init__(self) -> None:
        self._seen: set[tuple[type[BaseException], str, int]] = set()

    def __call__(self, error: BaseException) -> bool:
        """Return True the first time an error of this kind is shown."""
        frames = traceback.extract_tb(error.__traceback__, limit=-1)
        kind = (type(error), frames[0].filename if frames else "", (frames[0].lineno or 0) if frames else 0)
        if kind in self._seen:
            return False
        self._seen.add(kind)
        return True


class _Lines:
    """Writes rendered lines. One that cannot be written is let go: a closed pipe must not fail a request."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()

    debug = info = warning = error = critical = msg


class _ToStructlog(logging.Handler):
    """Hands the records of libraries to structlog, so that they are cleaned and rendered like ours."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception as error:  # noqa: BLE001 - a library's broken format string must not break its caller
            # Not handleError(): that prints the arguments raw.
            text = f"a log record of {record.pathname}:{record.lineno} cannot be formatted: {type(error).__name__}"
        level = min(record.levelno // 10 * 10, logging.CRITICAL)  # structlog knows the named levels only
        structlog.get_logger().log(level, text, logger=record.name, exc_info=record.exc_info)


def _renderer(log_format: Format, *, colours: bool) -> structlog.typing.Processor:
    if log_format == "json":
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=0)


def _format_exception(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace `exc_info` by the traceback's text: frames and source lines, and never the values of variables."""
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exception()
    elif isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        lines = "".join(traceback.format_exception(error)).split("\n")[-MAX_TRACEBACK_LINES:]
        # Indented, so that a line break in an exception's text cannot start what looks like a line of ours.
        event["exception"] = "\n".join("    " + _cleaned(line) for line in lines if line)
    return event


def _clean(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if key != "exception" and value is not None and not isinstance(value, (bool, int, float)):
            event[key] = _cleaned(value)
    return event


def _cleaned(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    if len(text) > MAX_VALUE_CHARS:
        text = text[: MAX_VALUE_CHARS - 1] + "…"
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)
