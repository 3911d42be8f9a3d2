"""What stands around a request, checked against the real messages of google.rpc and opentelemetry-proto."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from enricher.otlp.shallow import Signal
from enricher.otlp.status import (
    ADVISED_RETRY_DELAY,
    MAX_RETRY_DELAY,
    RETRY_INFO_KEY,
    RETRYABLE,
    SERVICES,
    STATUS_KEY,
    Code,
    bad_request_details,
    partial_success,
    rejected,
    retry_delay,
    retry_trailers,
    status_details,
)

RESPONSES = {
    Signal.TRACES: (trace_service_pb2.ExportTraceServiceResponse, "rejected_spans"),
    Signal.METRICS: (metrics_service_pb2.ExportMetricsServiceResponse, "rejected_data_points"),
    Signal.LOGS: (logs_service_pb2.ExportLogsServiceResponse, "rejected_log_records"),
}
FILES = {Signal.TRACES: trace_service_pb2, Signal.METRICS: metrics_service_pb2, Signal.LOGS: logs_service_pb2}


def a_status(code: int, *details: RetryInfo | ErrorInfo, message: str = "") -> bytes:
    status = Status(code=code, message=message)
    for detail in details:
        status.details.add().Pack(detail)
    return status.SerializeToString()


def a_retry_info(seconds: int = 0, nanos: int = 0) -> RetryInfo:
    return RetryInfo(retry_delay=Duration(seconds=seconds, nanos=nanos))


def delay_in(status: bytes) -> float:
    """Return the delay as a client with the real messages reads it."""
    for detail in Status.FromString(status).details:
        info = RetryInfo()
        if detail.Unpack(info):
            return info.retry_delay.seconds + info.retry_delay.nanos / 1e9
    raise AssertionError("no RetryInfo")


def test_codes_are_those_of_grpc():
    assert {code.name: code.value[0] for code in grpc.StatusCode} == {code.name: code.value for code in Code}


def test_cli_03_retryable_codes():
    assert {code.name for code in RETRYABLE} == {
        "CANCELLED",
        "DEADLINE_EXCEEDED",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNAVAILABLE",
        "DATA_LOSS",
    }


@pytest.mark.parametrize("signal", Signal)
def test_services_are_named_as_in_the_protocol(signal):
    (service,) = FILES[signal].DESCRIPTOR.services_by_name.values()

    assert service.full_name == SERVICES[signal]


def test_status_details_are_a_google_rpc_status():
    assert Status.FromString(status_details(Code.UNAVAILABLE, "später")) == Status(code=14, message="später")


def test_grp_03_a_bad_request_says_what_was_wrong():
    status = Status.FromString(bad_request_details("not protobuf"))
    violation = BadRequest()

    assert (status.code, status.message) == (3, "not protobuf")
    assert status.details[0].Unpack(violation)
    assert [v.description for v in violation.field_violations] == ["not protobuf"]


def test_text_that_is_not_utf_8_can_still_be_sent():
    assert Status.FromString(status_details(Code.INTERNAL, "a\ud800b")).message == "a?b"


@pytest.mark.parametrize("delay", [0.0, 0.25, 1.0, 7.5, 0.9999999999])
def test_retry_trailers_hold_the_delay_in_both_forms(delay):
    trailers = dict(retry_trailers(delay, Code.UNAVAILABLE, "busy"))
    info = RetryInfo.FromString(trailers[RETRY_INFO_KEY]).retry_delay

    assert set(trailers) == {STATUS_KEY, RETRY_INFO_KEY}
    assert (Status.FromString(trailers[STATUS_KEY]).code, Status.FromString(trailers[STATUS_KEY]).message) == (
        14,
        "busy",
    )
    assert delay_in(trailers[STATUS_KEY]) == pytest.approx(delay)
    assert info.seconds + info.nanos / 1e9 == pytest.approx(delay)
    assert 0 <= info.nanos < 1_000_000_000


def test_retry_trailers_of_a_negative_delay_say_now():
    assert retry_delay(retry_trailers(-3.0)) == 0.0


class TestWhatAPeerGaveAlready:
    def test_both_forms_stay_as_they_came(self):
        given_trailers = ((STATUS_KEY, a_status(14, a_retry_info(30))), (RETRY_INFO_KEY, b"\n\x02\x08\x1e\x12\x00"))

        assert retry_trailers(1.0, Code.UNAVAILABLE, "busy", given_trailers) == given_trailers

    def test_the_missing_form_is_added(self):
        details = a_status(14, a_retry_info(7), message="busy")
        trailers = dict(retry_trailers(1.0, Code.UNAVAILABLE, "busy", [(STATUS_KEY, details)]))

        assert trailers[STATUS_KEY] == details
        assert RetryInfo.FromString(trailers[RETRY_INFO_KEY]) == a_retry_info(1)

    def test_other_details_are_kept_beside_the_added_one(self):
        details = a_status(14, ErrorInfo(reason="QUEUE_FULL"), message="busy")
        trailers = dict(retry_trailers(1.0, Code.UNAVAILABLE, "busy", [(STATUS_KEY, details)]))
        first = ErrorInfo()

        assert trailers[STATUS_KEY].startswith(details)
        assert Status.FromString(trailers[STATUS_KEY]).details[0].Unpack(first)
        assert first.reason == "QUEUE_FULL"
        assert delay_in(trailers[STATUS_KEY]) == 1.0

    @pytest.mark.parametrize("details", [b"", b"\xff\xff", a_status(5, a_retry_info(1), message="elsewhere")])
    def test_a_status_that_is_unreadable_or_of_another_code_is_replaced(self, details):
        """Go's clients turn a status whose code differs from the call's into INTERNAL, which is permanent."""
        trailers = dict(retry_trailers(0.5, Code.UNAVAILABLE, "busy", [(STATUS_KEY, details)]))

        assert Status.FromString(trailers[STATUS_KEY]).code == 14
        assert delay_in(trailers[STATUS_KEY]) == 0.5

    def test_an_unreadable_retry_info_is_replaced(self):
        trailers = dict(retry_trailers(0.5, given=[(RETRY_INFO_KEY, b"\xff")]))

        assert RetryInfo.FromString(trailers[RETRY_INFO_KEY]) == a_retry_info(0, 500_000_000)

    def test_the_first_of_a_repeated_trailer_counts(self):
        first, second = a_status(14, a_retry_info(2)), a_status(14, a_retry_info(3))
        trailers = retry_trailers(1.0, given=[(STATUS_KEY, first), (STATUS_KEY, second)])

        assert [value for key, value in trailers if key == STATUS_KEY] == [first]


@pytest.mark.parametrize(
    ("trailers", "delay"),
    [
        pytest.param([], None, id="none"),
        pytest.param([("other-bin", b"\n\x00"), ("text", "x")], None, id="other trailers"),
        pytest.param([(STATUS_KEY, a_status(14))], None, id="status without details"),
        pytest.param([(STATUS_KEY, a_status(14, ErrorInfo()))], None, id="status with other details"),
        pytest.param([(STATUS_KEY, a_status(14, ErrorInfo(), a_retry_info(7, 5 * 10**8)))], 7.5, id="status"),
        pytest.param([(RETRY_INFO_KEY, a_retry_info(7).SerializeToString())], 7.0, id="retry info"),
        pytest.param(
            [(RETRY_INFO_KEY, a_retry_info(7).SerializeToString()), (STATUS_KEY, a_status(14, a_retry_info(2)))],
            2.0,
            id="the status before the retry info",
        ),
        pytest.param([(STATUS_KEY, b"\xff"), (RETRY_INFO_KEY, a_retry_info(7).SerializeToString())], 7.0, id="one bad"),
        pytest.param([(RETRY_INFO_KEY, b"")], 0.0, id="retry info without a delay"),
        pytest.param([(RETRY_INFO_KEY, a_retry_info(-5).SerializeToString())], 0.0, id="A9 negative"),
        pytest.param([(RETRY_INFO_KEY, a_retry_info(10**12).SerializeToString())], MAX_RETRY_DELAY, id="A9 absurd"),
        pytest.param([(STATUS_KEY, b"\xff" * 100), (RETRY_INFO_KEY, b"\x0a\xff")], None, id="A9 garbage"),
        pytest.param([(STATUS_KEY, "text")], None, id="text where bytes belong"),
    ],
)
def test_retry_delay(trailers, delay):
    assert retry_delay(trailers) == delay


@given(st.lists(st.tuples(st.sampled_from([STATUS_KEY, RETRY_INFO_KEY]), st.binary(max_size=64))))
def test_a9_no_trailers_break_the_reader_or_the_writer(trailers):
    delay = retry_delay(trailers)
    completed = retry_trailers(ADVISED_RETRY_DELAY, given=trailers)

    assert delay is None or 0 <= delay <= MAX_RETRY_DELAY
    assert {key for key, _ in completed} == {STATUS_KEY, RETRY_INFO_KEY}
    assert Status.FromString(completed[0][1]).code == Code.UNAVAILABLE
    assert retry_delay(completed) is not None


@pytest.mark.parametrize("signal", Signal)
def test_srv_05_partial_success_of_each_signal(signal):
    kind, field = RESPONSES[signal]
    response = partial_success(3, "three were too old")
    parsed = kind.FromString(response)

    assert getattr(parsed.partial_success, field) == 3
    assert parsed.partial_success.error_message == "three were too old"
    assert rejected(parsed.SerializeToString()) == (3, "three were too old")


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        pytest.param(b"", (0, ""), id="full success"),
        pytest.param(b"\n\x00", (0, ""), id="set but empty, as the Collector answers"),
        pytest.param(partial_success(0, "deprecated"), (0, "deprecated"), id="warning"),
        pytest.param(partial_success(-1, ""), (0, ""), id="negative"),
        pytest.param(b"<html>", (0, ""), id="CLI-15 not a response"),
        pytest.param(b"\n\x05\x08\x02\x12\x01\xff", (2, "�"), id="text that is not UTF-8"),
    ],
)
def test_rejected(response, expected):
    assert rejected(response) == expected
