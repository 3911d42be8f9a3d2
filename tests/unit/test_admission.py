"""What may be in flight at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enricher.receive.admission import Admission, NoRoomError


def test_srv_07_what_does_not_fit_beside_others_is_refused_for_at_most_a_second():
    admission = Admission(100)
    with admission.room() as first, admission.room() as second:
        first.take(60)
        with pytest.raises(NoRoomError) as refused:
            second.take(41)
        second.take(40)
        assert admission.in_flight == 100

    assert (refused.value.code, refused.value.retry_delay) == (14, 1.0)
    assert admission.in_flight == 0


def test_a_request_that_is_alone_is_let_in_whatever_its_size():
    admission = Admission(100)
    with admission.room() as room:
        room.take(60)
        room.take(1000)
        assert admission.in_flight == 1060


def test_srv_07_of_two_that_are_half_read_one_is_refused_and_the_other_ends():
    admission = Admission(100)
    with admission.room() as first:
        with admission.room() as second:
            first.take(50)
            second.take(50)
            with pytest.raises(NoRoomError):
                second.take(1)
        first.take(50)
        assert admission.in_flight == 100


def test_a4_a_large_body_that_stops_in_its_midst_does_not_keep_small_requests_out():
    admission = Admission(6400)
    with admission.room() as large, admission.room() as small, admission.room() as other:
        large.take(6400)
        small.take(100)
        with pytest.raises(NoRoomError):
            small.take(1)
        with pytest.raises(NoRoomError):
            other.take(101)
        other.take(100)
        assert admission.in_flight == 6600


def test_what_is_only_expected_is_not_in_flight():
    admission = Admission(100)
    with admission.room() as first, admission.room() as second:
        first.expect(1000)
        second.take(50)
        with pytest.raises(NoRoomError):
            first.expect(51)
        first.expect(50)
        assert admission.in_flight == 50


def test_what_became_smaller_is_counted_as_that():
    admission = Admission(100)
    with admission.room() as room:
        room.take(60)
        room.shrink(10)
        assert admission.in_flight == 10
        room.shrink(20)
        assert admission.in_flight == 10


def test_f45_the_last_that_needs_a_request_gives_its_room_back():
    admission = Admission(100)
    room = admission.room()
    with room:
        room.take(60)
        room.__enter__()
    assert admission.in_flight == 60
    room.__exit__(None, None, None)
    assert admission.in_flight == 0


def test_f45_nothing_is_taken_for_a_request_that_was_given_up():
    admission = Admission(100)
    with admission.room() as room:
        room.take(1)
    with pytest.raises(NoRoomError):
        room.take(1)

    assert admission.in_flight == 0


def test_a_request_that_fails_is_in_flight_no_more():
    admission = Admission(100)
    fails = pytest.raises(ValueError, match="bug")
    with fails, admission.room() as room:
        room.take(60)
        raise ValueError("bug")

    assert admission.in_flight == 0


@given(steps=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["take", "shrink", "leave"]), st.integers(0, 150))))
def test_in_flight_is_the_sum_of_what_each_has_and_above_the_limit_only_for_one(steps):
    admission = Admission(100)
    rooms = [admission.room().__enter__() for _ in range(4)]
    for number, step, size in steps:
        room = rooms[number]
        before = room.size
        if step == "take":
            try:
                room.take(size)
            except NoRoomError:
                assert room.size == before
        elif step == "shrink":
            room.shrink(size)
        else:
            room.__exit__(None, None, None)
            rooms[number] = admission.room().__enter__()
        sizes = [each.size for each in rooms]
        assert admission.in_flight == sum(sizes)
        assert sum(sizes) - sum(size <= 1 for size in sizes) <= 100 or max(sizes) > 100 or sum(map(bool, sizes)) == 1
