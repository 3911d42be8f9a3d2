"""The stage's own log lines: what no peer can do to them, and that every library's go the same way."""

from __future__ import annotations

import io
import json
import logging
import re
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from enricher.telemetry import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONTROL = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)]


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(params=["console", "json"])
def out(request: pytest.FixtureRequest) -> io.StringIO:
    stream = io.StringIO()
    logs.configure("info", request.param, stream)
    return stream


@pytest.fixture
def as_json() -> Any:
    stream = io.StringIO()
    logs.configure("debug", "json", stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def a_bug(text: str) -> None:
    raise ValueError(text)


def test_a15_control_characters_of_a_value_are_escaped(out):
    structlog.get_logger().info("said " + "".join(CONTROL), text="".join(CONTROL), other={"\x1b": "\x85"})
    (line,) = out.getvalue().split("\n")[:-1]

    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029]", line)
    assert "x1b" in line


def test_a15_a_value_is_cut(out):
    structlog.get_logger().info("said", text="y" * 10_000)

    assert "y" * (logs.MAX_VALUE_CHARS - 1) + "y" not in out.getvalue()
    assert "y" * (logs.MAX_VALUE_CHARS - 1) in out.getvalue()


def test_a15_an_exceptions_text_cannot_start_a_line_of_ours():
    stream = io.StringIO()
    logs.configure("info", "console", stream)
    try:
        a_bug("first\n2030-01-01T00:00:00Z [info] forged\x1b[2J" + "z" * 1000)
    except ValueError:
        structlog.get_logger().exception("failed")
    first, *others = stream.getvalue().splitlines()

    assert "[error" in first
    assert all(line.startswith("    ") for line in others)
    assert any("a_bug" in line for line in others), "the traceback is there"
    assert "\x1b" not in stream.getvalue()
    assert max(map(len, others)) <= logs.MAX_VALUE_CHARS + 20


def test_a_long_traceback_keeps_its_end(as_json):
    def deeper(left: int, other: Any) -> None:
        return a_bug("the cause") if left == 0 else other(left - 1, deeper)

    try:
        deeper(200, lambda left, other: other(left, deeper))
    except ValueError as error:
        structlog.get_logger().error("failed", exc_info=error)
    lines = as_json()[0]["exception"].splitlines()

    assert len(lines) <= logs.MAX_TRACEBACK_LINES
    assert lines[-1].strip() == "ValueError: the cause"


def test_variables_are_in_no_traceback(as_json):
    def with_a_secret(token: str) -> None:
        raise KeyError(len(token))

    try:
        with_a_secret("can" + "ary")
    except KeyError:
        structlog.get_logger().exception("failed")

    assert "canary" not in json.dumps(as_json())


def test_numbers_stay_numbers_and_times_are_iso(as_json):
    structlog.get_logger().info("counted", spans=3, ratio=0.5, done=True, nothing=None)
    (line,) = as_json()

    assert (line["spans"], line["ratio"], line["done"], line["nothing"]) == (3, 0.5, True, None)
    assert (line["event"], line["level"]) == ("counted", "info")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["timestamp"])


@pytest.mark.parametrize(
    ("level", "shown"),
    [("debug", "dbg inf wrn err"), ("info", "inf wrn err"), ("warn", "wrn err"), ("error", "err")],
)
def test_level(level, shown):
    stream = io.StringIO()
    logs.configure(level, "json", stream)
    log = structlog.get_logger()
    log.debug("dbg")
    log.info("inf")
    log.warning("wrn")
    log.error("err")

    assert " ".join(json.loads(line)["event"] for line in stream.getvalue().splitlines()) == shown


def test_libraries_come_through_from_warning_upwards_and_cleaned(as_json):
    library = logging.getLogger("some.library")
    library.info("quiet")
    library.warning("odd header %s", "a\nb")
    (line,) = as_json()

    assert (line["event"], line["level"], line["logger"]) == ("odd header a\\nb", "warning", "some.library")


def test_a_librarys_traceback_comes_through(as_json):
    try:
        a_bug("why")
    except ValueError:
        logging.getLogger("some.library").exception("failed")

    assert as_json()[0]["exception"].endswith("ValueError: why")


def test_a_librarys_broken_record_harms_nobody_and_shows_no_argument(capsys):
    stream = io.StringIO()
    logs.configure("info", "json", stream)  # here and not in a fixture, to take the place of pytest's own handlers
    logging.getLogger("some.library").error("%d items", "canary")

    assert "cannot be formatted: TypeError" in json.loads(stream.getvalue())["event"]
    assert "canary" not in stream.getvalue() + capsys.readouterr().err


@pytest.mark.parametrize("number", [35, 55])
def test_a_librarys_level_of_its_own(as_json, number):
    logging.getLogger("some.library").log(number, "odd level")

    assert as_json()[0]["event"] == "odd level"


def test_standard_error_is_the_default(capsys):
    logs.configure()
    structlog.get_logger().info("hello")
    captured = capsys.readouterr()

    assert captured.out == ""
    assert "hello" in captured.err


def test_a_log_that_cannot_be_written_fails_nobody():
    stream = io.StringIO()
    logs.configure("info", "console", stream)
    stream.close()

    structlog.get_logger().info("into the void")


def test_first_of_kind_tells_places_and_classes_apart():
    first = logs.FirstOfKind()

    def here(kind: type[Exception]) -> None:
        raise kind

    def there(kind: type[Exception]) -> None:
        raise kind

    def of(place: Callable[[type[Exception]], None], kind: type[Exception]) -> Exception:
        with pytest.raises(kind) as caught:
            place(kind)
        return caught.value

    assert [first(of(here, ValueError)), first(of(here, ValueError)), first(of(here, KeyError))] == [True, False, True]
    assert [first(of(there, ValueError)), first(of(there, ValueError))] == [True, False]
    assert [first(ValueError("never raised")), first(ValueError("never raised"))] == [True, False]
