"""What arrives while a call is under way leaves together in the next; an idle lane delays nothing."""

from enricher.deliver import lanes
from enricher.deliver.lanes import Lane
from enricher.otlp.shallow import Signal
from tests.support.waiting import until


class Started:
    """The groups that left, in their order."""

    def __init__(self):
        self.groups = []
        self.lane = Lane(Signal.TRACES, self.groups.append)

    def add(self, body):
        return self.lane.add(body, 1)

    @property
    def bodies(self):
        return [group.body for group in self.groups]


async def test_an_idle_lane_lets_a_request_leave_at_once():
    started = Started()
    started.add(b"a")

    assert started.bodies == [b"a"]


async def test_what_arrives_during_a_call_leaves_together_when_it_ends():
    started = Started()
    for body in (b"a", b"b", b"c"):
        started.add(body)
    assert started.bodies == [b"a"]
    started.lane.ended()

    assert started.bodies == [b"a", b"bc"]
    assert started.groups[1].items == 2


async def test_after_requests_that_came_together_the_next_is_paced():
    started = Started()
    for body in (b"a", b"b", b"c"):
        started.add(body)
    for _ in range(2):
        started.lane.ended()
    started.add(b"d")
    started.add(b"e")
    assert started.bodies == [b"a", b"bc"]
    await until(lambda: len(started.groups) == 3)

    assert started.bodies == [b"a", b"bc", b"de"]


async def test_who_sends_one_at_a_time_never_waits():
    started = Started()
    for body in (b"a", b"b", b"c"):
        started.add(body)
        started.lane.ended()

    assert started.bodies == [b"a", b"b", b"c"]


async def test_much_of_many_does_not_wait_for_the_call_under_way():
    started = Started()
    large = bytes(lanes.LARGE_BYTES)
    started.add(b"a")
    for body in (large, b"b", b"c"):
        started.add(body)
        assert started.bodies == [b"a"]
    started.add(b"d")

    assert started.bodies == [b"a", large + b"bcd"]


async def test_what_leaves_no_room_for_another_like_it_does_not_wait_for_the_call_under_way():
    started = Started()
    size = lanes.MAX_BYTES // 2 + 1
    started.add(b"a")
    started.add(bytes(size - 1))
    assert started.bodies == [b"a"]
    started.add(bytes(size))

    assert [len(body) for body in started.bodies] == [1, size - 1, size]


async def test_what_is_old_does_not_wait_for_the_call_under_way(monkeypatch):
    monkeypatch.setattr(lanes, "OLD_SECONDS", 0.0)
    started = Started()
    started.add(b"a")
    started.add(b"b")

    assert started.bodies == [b"a", b"b"]


async def test_age_alone_lets_a_group_leave():
    started = Started()
    started.add(b"a")
    started.add(b"b")
    await until(lambda: len(started.groups) == 2)

    assert started.bodies == [b"a", b"b"]


async def test_cli_01_a_group_ends_before_it_gets_too_large_for_downstream(monkeypatch):
    monkeypatch.setattr(lanes, "MOST_CALLS", 1)
    started = Started()
    half = bytes(lanes.MAX_BYTES // 2)
    for body in (b"a", half, half, b"z"):
        started.add(body)
    started.lane.ended()
    started.lane.ended()
    await until(lambda: len(started.groups) == 3)

    assert started.bodies == [b"a", half + half, b"z"]


async def test_no_more_calls_than_that_are_under_way():
    started = Started()
    large = bytes(lanes.MAX_BYTES)
    for _ in range(lanes.MOST_CALLS + 3):
        started.add(large)

    assert len(started.groups) == lanes.MOST_CALLS
    for _ in range(3):
        started.lane.ended()
    assert sum(group.items for group in started.groups) == lanes.MOST_CALLS + 3


async def test_a_part_of_a_group_leaves_alone_and_before_what_came_later(monkeypatch):
    monkeypatch.setattr(lanes, "MOST_CALLS", 1)
    started = Started()
    for body in (b"a", b"b", b"c", b"d"):
        started.add(body)
    started.lane.ended()
    for part in started.groups[1].apart():
        started.lane.insert(part)
    started.add(b"e")
    for _ in range(3):
        started.lane.ended()

    assert started.bodies == [b"a", b"bcd", b"cd", b"b", b"e"]


async def test_those_who_wait_get_an_answer_and_those_who_left_do_no_harm():
    started = Started()
    first, second = started.add(b"a"), started.add(b"b")
    second.cancel()
    started.lane.ended()
    for group in started.groups:
        group.answer(b"taken")
        group.fail(lambda: ValueError("too late"))

    assert (await first, second.cancelled()) == (b"taken", True)
