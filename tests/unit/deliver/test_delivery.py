"""To one destination: its answer, or the disk. What comes in is delivered, kept or refused, and never two of these."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from enricher.config.model import RetryConfig
from enricher.deliver.backoff import Backoff
from enricher.deliver.counts import Counts
from enricher.deliver.delivery import Delivery
from enricher.deliver.drain import Drain
from enricher.errors import AnswerError, PermanentError, RetryableError
from enricher.otlp.shallow import Signal
from enricher.otlp.status import Code, partial_success, rejected
from enricher.storage import Store, StoreError, StoreFullError
from tests.support.build import a_request, a_span, items_of
from tests.support.waiting import until

AWAY = RetryableError(Code.UNAVAILABLE, "away")
BAD = PermanentError(Code.INVALID_ARGUMENT, "bad")
TOO_LARGE = PermanentError(Code.RESOURCE_EXHAUSTED, "grpc: received message larger than max (5 vs. 4)")
NO_MEMORY = PermanentError(Code.RESOURCE_EXHAUSTED, "data refused due to high memory usage")
NO_TOKEN = PermanentError(Code.UNAUTHENTICATED, "no token")


class Downstream:
    """Answers by script, then with OK; a script's entry may be an answer, an error, or a function of the request."""

    def __init__(self, *script):
        self.script = list(script)
        self.got = []
        self.open = asyncio.Event()
        self.open.set()
        self.arrived = asyncio.Event()

    async def export(self, _, request):
        answer = self.script.pop(0) if self.script else b""
        self.arrived.set()
        await self.open.wait()
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, Exception):
            raise answer
        self.got.append(request)
        return answer

    @property
    def names(self):
        return [number_of(raw) for request in self.got for raw in items_of(request)]


def number_of(raw):
    return int.from_bytes(raw[20:28], "big")


def spans(*numbers):
    return a_request([a_span(number=number) for number in numbers])


class Way:
    def __init__(self, directory, downstream, *, patience, queue, **retry):
        self.downstream, self.counts = downstream, Counts()
        self.store = Store(directory, max_size_bytes=32 << 20)
        self.backoff = Backoff(
            RetryConfig(**{"initial_interval": "1ms", "max_interval": "2ms", **retry}), time.monotonic
        )
        self.drain = Drain("otlp", downstream, self.store, self.backoff, self.counts)
        self.delivery = Delivery(
            "otlp",
            downstream,
            self.store if queue else None,
            self.backoff,
            self.counts,
            patience=patience,
            queued=self.drain.wake,
        )

    async def deliver(self, *numbers):
        return await self.delivery.deliver(Signal.TRACES, spans(*numbers), len(numbers))

    async def drained(self):
        await self.drain.start()
        await until(self._is_empty)

    async def _is_empty(self):
        return not (await self.store.counts()).queued.rows

    async def kept(self):
        counts = await self.store.counts()
        return counts.queued.items, counts.dead.items


@asynccontextmanager
async def a_way(directory, *script, patience=60.0, queue=True, **retry):
    way = Way(directory, Downstream(*script), patience=patience, queue=queue, **retry)
    await way.store.open()
    await way.delivery.start()
    try:
        yield way
    finally:
        way.downstream.open.set()
        await way.drain.shutdown(10)
        await way.delivery.shutdown(10)
        await way.store.close()


async def test_the_client_gets_downstreams_answer(tmp_path):
    answer = partial_success(1, "one too many")
    async with a_way(tmp_path, answer) as way:
        assert await way.deliver(1, 2) == answer
        assert (way.counts.sent[Signal.TRACES], way.counts.rejected[Signal.TRACES]) == (1, 1)
        assert await way.kept() == (0, 0)


async def test_srv_04_a_partial_success_that_says_nothing_is_none(tmp_path):
    """The Collector answers full success with an empty partial success."""
    async with a_way(tmp_path, partial_success(0, "")) as way:
        assert await way.deliver(1) == b""
        assert way.counts.sent[Signal.TRACES] == 1


async def test_srv_05_srv_06_of_a_long_partial_success_the_words_are_cut_and_the_number_stays(tmp_path):
    async with a_way(tmp_path, partial_success(1, "ü" * 1_000_000), partial_success(0, "slow down")) as way:
        assert await way.deliver(1, 2) == partial_success(1, "ü" * 1024)
        assert await way.deliver(3) == partial_success(0, "slow down")


THROTTLED = RetryableError(Code.RESOURCE_EXHAUSTED, "slow down", retry_delay=0.01)


@pytest.mark.parametrize("error", [AWAY, THROTTLED, NO_TOKEN, NO_MEMORY, ValueError("a bug")])
async def test_f01_f06_f08_f10_cli_17_what_may_succeed_later_is_kept_acknowledged_and_delivered(tmp_path, error):
    async with a_way(tmp_path, error) as way:
        assert await way.deliver(1) == b""
        assert await way.kept() == (1, 0)
        await way.drained()

        assert way.downstream.names == [1]
        assert way.counts.sent[Signal.TRACES] == 1


async def test_the_log_says_why_a_queued_request_was_not_taken(tmp_path):
    async with a_way(tmp_path, AWAY, AWAY) as way:
        await way.deliver(1)
        with structlog.testing.capture_logs() as logs:
            await way.drained()

    (said,) = logs
    assert (repr(said["code"]), said["reason"], said["attempt"]) == ("14", "away", 1)


async def test_f02_after_a_failure_new_requests_do_not_wait_for_downstream(tmp_path):
    async with a_way(tmp_path, AWAY) as way:
        await way.deliver(1)
        way.downstream.open.clear()
        await way.deliver(2)

        assert await way.kept() == (2, 0)


async def test_when_downstream_is_back_new_requests_go_straight_on(tmp_path):
    async with a_way(tmp_path, AWAY) as way:
        await way.deliver(1)
        await way.drained()
        await way.deliver(2)

        assert way.downstream.names == [1, 2]
        assert await way.kept() == (0, 0)


async def test_f03_what_is_slower_than_patience_is_committed_and_not_sent_again_when_it_was_taken(tmp_path):
    async with a_way(tmp_path, patience=0.0) as way:
        way.downstream.open.clear()
        assert await way.deliver(1) == b""
        assert await way.kept() == (1, 0)
        way.downstream.open.set()
        await way.drained()

        assert way.downstream.names == [1]


async def test_f02_what_is_slower_than_patience_and_fails_is_sent_again(tmp_path):
    async with a_way(tmp_path, AWAY, patience=0.0) as way:
        way.downstream.open.clear()
        await way.deliver(1)
        way.downstream.open.set()
        await way.drained()

        assert way.downstream.names == [1]


async def test_f09_cli_08_cli_11_a_refusal_for_good_is_a_dead_letter_with_its_reason(tmp_path):
    async with a_way(tmp_path, BAD) as way:
        assert await way.deliver(1) == b""
        (letter,) = await way.store.dead(10)

        assert (letter.items, letter.code, letter.reason) == (1, Code.INVALID_ARGUMENT, "bad")
        assert way.counts.died[Signal.TRACES] == 1
        assert await way.deliver(2) == b""
        assert way.downstream.names == [2]


def unless_bad(request):
    return BAD if 3 in {number_of(raw) for raw in items_of(request)} else b""


async def test_f09_in_a_merged_request_only_the_culprit_is_refused(tmp_path):
    async with a_way(tmp_path, b"", *[unless_bad] * 20) as way:
        way.downstream.open.clear()
        calls = [asyncio.create_task(way.deliver(number)) for number in range(1, 8)]
        await way.downstream.arrived.wait()
        way.downstream.open.set()
        assert await asyncio.gather(*calls) == [b""] * 7

        assert sorted(way.downstream.names) == [1, 2, 4, 5, 6, 7]
        assert [letter.items for letter in await way.store.dead(10)] == [1]


async def test_without_a_queue_only_the_culprit_hears_of_the_refusal(tmp_path):
    async with a_way(tmp_path, b"", *[unless_bad] * 20, queue=False) as way:
        way.downstream.open.clear()
        calls = [asyncio.create_task(way.deliver(number)) for number in range(1, 8)]
        await way.downstream.arrived.wait()
        way.downstream.open.set()
        answers = await asyncio.gather(*calls, return_exceptions=True)

        assert [each for each in answers if each != b""] == [answers[2]]
        assert answers[2].code == Code.INVALID_ARGUMENT


async def test_f07_without_a_queue_requests_that_are_too_large_together_are_sent_apart(tmp_path):
    def one_at_most(request):
        return TOO_LARGE if len(items_of(request)) > 1 else b""

    async with a_way(tmp_path, *[one_at_most] * 6, queue=False) as way:
        way.downstream.open.clear()
        calls = [asyncio.create_task(way.deliver(number)) for number in range(1, 4)]
        await way.downstream.arrived.wait()
        way.downstream.open.set()

        assert await asyncio.gather(*calls) == [b"", b"", b""]
        assert sorted(way.downstream.names) == [1, 2, 3]


async def test_cli_02_what_may_have_been_taken_is_not_sent_in_parts(tmp_path):
    async with a_way(tmp_path, b"", AnswerError(Code.INTERNAL, "too long an answer")) as way:
        way.downstream.open.clear()
        calls = [asyncio.create_task(way.deliver(number)) for number in range(1, 4)]
        await way.downstream.arrived.wait()
        way.downstream.open.set()
        await asyncio.gather(*calls)

        assert way.downstream.names == [1]
        assert [letter.items for letter in await way.store.dead(10)] == [2]


async def test_cli_02_what_is_slower_than_patience_and_may_have_been_taken_is_not_sent_again(tmp_path):
    unreadable = AnswerError(Code.INTERNAL, "downstream's response is larger than 4194304 bytes")
    async with a_way(tmp_path, unreadable, patience=0.0) as way:
        way.downstream.open.clear()
        await way.deliver(1)
        way.downstream.open.set()
        await way.delivery.settled()
        await way.drained()

        assert way.downstream.names == []
        assert await way.kept() == (0, 1)


async def test_f14_a_merged_requests_partial_success_is_a_warning_to_all_and_counted_once(tmp_path):
    async with a_way(tmp_path, b"", partial_success(1, "odd name")) as way:
        way.downstream.open.clear()
        calls = [asyncio.create_task(way.deliver(number)) for number in range(1, 4)]
        await way.downstream.arrived.wait()
        way.downstream.open.set()
        _, *merged = await asyncio.gather(*calls)

        said = "downstream rejected 1 items of requests that were sent together: odd name"
        assert [rejected(answer) for answer in merged] == [(0, said)] * 2
        assert (way.counts.sent[Signal.TRACES], way.counts.rejected[Signal.TRACES]) == (2, 1)


async def test_f16_what_was_merged_is_kept_as_one_batch_and_sent_again_as_the_same_bytes(tmp_path):
    async with a_way(tmp_path, b"", AWAY) as way:
        way.downstream.open.clear()
        calls = [asyncio.create_task(way.deliver(number)) for number in range(1, 4)]
        await way.downstream.arrived.wait()
        way.downstream.open.set()
        await asyncio.gather(*calls)
        assert (await way.store.counts()).queued[:2] == (1, 2)
        await way.drained()

        assert way.downstream.got == [spans(1), spans(2) + spans(3)]


async def test_f07_what_is_too_large_is_halved_until_it_fits(tmp_path):
    def two_at_most(request):
        return TOO_LARGE if len(items_of(request)) > 2 else b""

    async with a_way(tmp_path, *[two_at_most] * 20) as way:
        assert await way.deliver(*range(1, 8)) == b""
        await way.drained()

        assert sorted(way.downstream.names) == list(range(1, 8))
        assert await way.kept() == (0, 0)


async def test_f07_a_span_that_is_too_large_alone_is_a_dead_letter(tmp_path):
    def without_three(request):
        return TOO_LARGE if 3 in {number_of(raw) for raw in items_of(request)} else b""

    async with a_way(tmp_path, *[without_three] * 20) as way:
        await way.deliver(1, 2, 3)
        await way.drained()

        assert sorted(way.downstream.names) == [1, 2]
        assert await way.kept() == (0, 1)


async def test_f08_a_small_batch_is_not_halved_for_a_memory_limiter(tmp_path):
    async with a_way(tmp_path, NO_MEMORY, NO_MEMORY, NO_MEMORY) as way:
        await way.deliver(1, 2, 3)
        await way.drained()

        assert way.downstream.got == [spans(1, 2, 3)]


async def test_a_batch_that_is_given_up_is_a_dead_letter(tmp_path):
    async with a_way(tmp_path, AWAY, AWAY, enabled=False) as way:
        await way.deliver(1)
        await way.drained()

        assert await way.kept() == (0, 1)


async def test_f21_a_batch_that_a_stop_breaks_off_is_not_given_up(tmp_path):
    async with a_way(tmp_path, AWAY, AWAY, enabled=False) as way:
        await way.deliver(1)
        way.downstream.arrived.clear()
        way.downstream.open.clear()
        await way.drain.start()
        await way.downstream.arrived.wait()
        await way.drain.shutdown(0)
        way.downstream.open.set()
        await way.drain.settled()

        assert await way.kept() == (1, 0)


def failing_once(operation):
    """Return the operation as a store has it whose disk fails at the first call."""
    failures = [StoreError("disk I/O error")]

    async def fails_once(*arguments):
        if failures:
            raise failures.pop()
        return await operation(*arguments)

    return fails_once


@pytest.mark.parametrize(
    ("operation", "answer", "left"),
    [("confirm", b"", 0), ("retry", AWAY, 0), ("bury", BAD, 1), ("split", TOO_LARGE, 0)],
)
@pytest.mark.parametrize("patience", [60.0, 0.0])
async def test_f26_a_disk_that_fails_for_a_moment_parks_no_batch_and_sends_none_twice(
    tmp_path, operation, answer, left, patience
):
    kept_first = [AWAY] if patience else []
    async with a_way(tmp_path, *kept_first, answer, answer, patience=patience) as way:
        setattr(way.store, operation, failing_once(getattr(way.store, operation)))
        way.downstream.open.clear()
        call = asyncio.create_task(way.deliver(1, 2))
        await way.downstream.arrived.wait()
        if not patience:
            await call
        way.downstream.open.set()
        await call
        await way.drained()
        queued, dead = await way.kept()

        assert (queued, dead) == (0, 2 * left)
        assert sorted(way.downstream.names) == ([] if left else [1, 2])
        assert way.counts.sent[Signal.TRACES] + dead == 2


async def test_f24_what_can_be_neither_delivered_nor_kept_is_refused_with_downstreams_wish(tmp_path):
    async with a_way(tmp_path, RetryableError(Code.UNAVAILABLE, "away", retry_delay=0.5), BAD) as way:

        async def full(*_, **__):
            raise StoreFullError("full")

        way.store.enqueue = full
        with pytest.raises(RetryableError, match="neither delivered nor kept: away") as refused:
            await way.deliver(1)
        assert refused.value.retry_delay == 0.5
        way.backoff.succeeded()
        way.backoff._throttled_until = 0.0
        with pytest.raises(PermanentError, match="bad"):
            await way.deliver(2)

        assert way.counts.enqueue_failed[Signal.TRACES] == 2


async def test_f24_what_is_slow_and_cannot_be_kept_waits_for_downstream(tmp_path):
    async with a_way(tmp_path, patience=0.0) as way:
        refused = asyncio.Event()

        async def full(*_, **__):
            refused.set()
            raise StoreFullError("full")

        way.store.enqueue = full
        way.downstream.open.clear()
        call = asyncio.create_task(way.deliver(1))
        await refused.wait()
        way.downstream.open.set()

        assert await call == b""
        assert way.downstream.names == [1]


async def no_room(*_, **__):
    raise StoreFullError("full")


async def test_f24_a_full_store_does_not_hide_that_downstream_is_back(tmp_path):
    async with a_way(tmp_path, AWAY) as way:
        await way.drain.start()
        way.store.enqueue = no_room
        with pytest.raises(RetryableError, match="away"):
            await way.deliver(1)

        await way.deliver(2)
        await way.deliver(3)
        assert way.downstream.names == [2, 3]
        assert not way.backoff.is_troubled


async def test_f24_what_cannot_be_kept_tries_a_downstream_in_trouble_one_at_a_time_and_no_earlier_than_it_may(tmp_path):
    async with a_way(tmp_path, AWAY) as way:
        way.store.enqueue = no_room
        with pytest.raises(RetryableError, match="away"):
            await way.deliver(1)
        way.downstream.arrived.clear()
        way.downstream.open.clear()
        trying = asyncio.create_task(way.deliver(2))
        await way.downstream.arrived.wait()
        with pytest.raises(RetryableError, match="neither delivered nor kept: downstream is away"):
            await way.delivery.deliver(Signal.LOGS, b"", 1)
        way.downstream.open.set()
        await trying
        way.backoff.failed(RetryableError(Code.UNAVAILABLE, "slow down", retry_delay=60.0))
        with pytest.raises(RetryableError, match="neither delivered nor kept: downstream is away"):
            await way.deliver(3)

        assert way.downstream.names == [2]
        assert way.counts.enqueue_failed == {Signal.TRACES: 2, Signal.LOGS: 1}


async def test_without_a_queue_the_client_gets_every_refusal(tmp_path):
    async with a_way(tmp_path, AWAY, BAD, queue=False) as way:
        for error in (AWAY, BAD):
            with pytest.raises(type(error)) as refused:
                await way.deliver(1)
            assert refused.value.details == error.details


async def test_f45_a_client_that_left_takes_nobodys_request_with_it(tmp_path):
    async with a_way(tmp_path) as way:
        way.downstream.open.clear()
        calls = [asyncio.create_task(way.deliver(number)) for number in range(1, 4)]
        await way.downstream.arrived.wait()
        calls[0].cancel()
        calls[1].cancel()
        way.downstream.open.set()
        await calls[2]

        assert way.downstream.names == [1, 2, 3]


async def test_f21_what_is_in_flight_at_the_stop_stays_queued(tmp_path):
    async with a_way(tmp_path, AWAY, patience=0.0) as way:
        way.downstream.open.clear()
        await way.deliver(1)
        await way.delivery.shutdown(0)
        way.downstream.open.set()
        await way.delivery.settled()

        assert await way.kept() == (1, 0)


ANSWERS = st.sampled_from([b"", b"", AWAY, BAD, NO_TOKEN, NO_MEMORY, TOO_LARGE, partial_success(1, "one")])


@settings(max_examples=25, deadline=None)
@given(st.lists(ANSWERS, max_size=30), st.lists(st.integers(1, 4), min_size=1, max_size=12), st.booleans())
async def test_what_came_was_sent_rejected_kept_or_died(tmp_path_factory, answers, sizes, is_patient):
    directory = tmp_path_factory.mktemp("store")
    async with a_way(directory, *answers, patience=60.0 if is_patient else 0.0) as way:
        numbers = iter(range(1, 100))
        await asyncio.gather(*(way.deliver(*(next(numbers) for _ in range(size))) for size in sizes))
        await way.delivery.settled()
        queued, dead = await way.kept()
        sent, lost = way.counts.sent[Signal.TRACES], way.counts.rejected[Signal.TRACES]
        assert sum(sizes) == sent + lost + queued + dead
        await way.drained()
        _, dead = await way.kept()
        sent, lost = way.counts.sent[Signal.TRACES], way.counts.rejected[Signal.TRACES]

        assert sum(sizes) == sent + lost + dead
        assert len(way.downstream.names) == len(set(way.downstream.names)) == sent + lost


@pytest.mark.parametrize("steps", range(6))
async def test_f20_a_stop_at_the_moment_at_which_something_comes_into_the_queue_is_a_stop(tmp_path, steps):
    """However far the loop has got with the news: a wait that swallows the cancellation would go on for ever."""
    async with a_way(tmp_path) as way:
        await way.drain.start()
        await asyncio.sleep(0.05)
        way.drain.wake()
        for _ in range(steps):
            await asyncio.sleep(0)
        done, _ = await asyncio.wait([asyncio.create_task(way.drain.shutdown(1))], timeout=10)
        assert done
