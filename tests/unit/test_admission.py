"""What may be in flight at once."""

import pytest

from enricher.errors import RetryableError
from enricher.receive.admission import Admission


def test_srv_07_what_does_not_fit_beside_others_is_refused_for_at_most_a_second():
    admission = Admission(100)
    with admission.admit(60):
        with pytest.raises(RetryableError) as refused, admission.admit(41):
            pass
        with admission.admit(40):
            assert admission.in_flight == 100

    assert (refused.value.code, refused.value.retry_delay) == (14, 1.0)
    assert admission.in_flight == 0


def test_a_request_that_is_alone_is_let_in_whatever_its_size():
    admission = Admission(100)
    with admission.admit(1000):
        assert admission.in_flight == 1000


def test_a_request_that_fails_is_in_flight_no_more():
    admission = Admission(100)
    with pytest.raises(ValueError, match="bug"), admission.admit(60):
        raise ValueError("bug")

    assert admission.in_flight == 0
