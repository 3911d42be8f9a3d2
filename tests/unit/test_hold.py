"""Candidates that wait: by evidence, at their deadline, through restarts, and what happens when they cannot."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest
import structlog

from enricher import live
from enricher.config.model import HoldConfig, RetryConfig
from enricher.defects import REPEATED_USAGE
from enricher.deliver.backoff import Backoff
from enricher.deliver.counts import Counts
from enricher.deliver.drain import Drain
from enricher.deliver.lanes import MAX_BYTES
from enricher.errors import PermanentError, RetryableError
from enricher.evidence import codec
from enricher.hold import TICK, Hold
from enricher.otlp.shallow import Signal
from enricher.outcome import Reason, Rung
from enricher.scan import Settings
from enricher.storage import Store, StoreError, StoreFullError
from enricher.waiting_spans import released
from enricher.write import Policy
from tests.support.build import (
    a_list,
    a_log_record,
    a_message_payload,
    a_request,
    a_run_payload,
    a_span,
    an_http_span,
    as_json,
    attributes,
    evidence_of,
    items_of,
    openllmetry_span,
)
from tests.support.families import langchain_span, openinference_span
from tests.support.waiting import until

NEW, OLD = "0.45.6", "0.33.12"
LONG = {"wait_duration": "60s", "evidence_ttl": "120s"}


class Exporter:
    """Takes what it is given, or answers by script."""

    def __init__(self):
        self.got = []
        self.answers = []
        self.arrived = asyncio.Event()

    async def start(self):
        pass

    async def shutdown(self, grace=0.0):
        pass

    async def export(self, signal, request):
        if self.answers:
            raise self.answers.pop(0)
        self.got.append((signal, request))
        self.arrived.set()
        return b""


class Stage:
    """Hold, drain and store, put together as the service does it, without its sockets."""

    def __init__(self, directory, settings=None, **config):
        self.outcomes, self.failures = [], []
        self.exporter = Exporter()
        self.store = Store(directory, max_size_bytes=16 << 20)
        backoff = Backoff(RetryConfig(initial_interval="10ms"), time.monotonic)
        self.drain = Drain("otlp", self.exporter, self.store, backoff, Counts())
        self.hold = Hold(
            HoldConfig(**config), settings or Settings(), self.store, ["otlp"], note=self._note, queued=self.drain.wake
        )

    def _note(self, outcomes, failures):
        self.outcomes += outcomes
        self.failures += failures

    async def take(self, *items, signal=Signal.TRACES):
        passing = self.hold.process(signal, a_request(items))
        self._note(passing.processed.outcomes, passing.processed.failures)
        self.hold.learned(passing.touched)
        self.hold.admit(await self.hold.commit(passing.waiting), passing.waiting)
        return passing

    async def left(self):
        """Wait for the next request that leaves later, and return its spans."""
        await asyncio.wait_for(self.exporter.arrived.wait(), 10)
        self.exporter.arrived.clear()
        return [raw for _, request in self.exporter.got for raw in items_of(request)]


@asynccontextmanager
async def a_stage(directory, **config):
    stage = Stage(directory, **{**LONG, **config})
    await stage.store.open()
    await stage.hold.start()
    await stage.drain.start()
    try:
        yield stage
    finally:
        await stage.hold.shutdown()
        await stage.drain.shutdown()
        await stage.store.close()
    assert not stage.failures


LISTING = an_http_span(a_list([a_message_payload()]), start=20, end=20.5, number=60)
FINAL = an_http_span(a_run_payload(), start=18, end=19, number=61)


async def test_f35_a_payload_that_came_before_its_span_decides_at_once(tmp_path):
    async with a_stage(tmp_path) as stage:
        await stage.take(LISTING)
        await stage.take(FINAL)
        passing = await stage.take(openllmetry_span(NEW, usage=None))

        assert passing.waiting == []
        assert [(each.reason, each.rung) for each in stage.outcomes] == [(Reason.ENRICHED, Rung.MESSAGE_ID)]


async def test_a_span_waits_for_its_run_and_leaves_with_it(tmp_path):
    async with a_stage(tmp_path) as stage:
        passing = await stage.take(openllmetry_span(NEW, usage=None), a_span(number=9))
        assert (len(passing.waiting), len(items_of(passing.processed.request))) == (1, 1)

        await stage.take(LISTING)
        await stage.take(a_log_record(as_json(a_run_payload()), seconds=21), signal=Signal.LOGS)
        (raw,) = await stage.left()

        assert attributes(raw)["gen_ai.usage.prompt_tokens"] == 1200
        assert stage.hold.counts.released_by_evidence == 1


def test_cli_01_what_leaves_together_is_no_larger_than_downstream_takes():
    """Everybody's deadline may be the same; each span leaves once, in a request of at most some MiB."""
    memory, settings = live.Memory(), Settings()
    sent = [openllmetry_span(OLD, number=number, more={"text": "x" * 400_000}) for number in range(1, 8)]
    waiting = live.process(Signal.TRACES, a_request(sent), settings, memory, 0.0, room=9).waiting
    resolutions = live.climb([each.candidate for each in waiting], memory, live.settled_at_deadline(memory), [])

    requests, outcomes, failures = released(waiting, resolutions, settings, memory.index)

    assert [numbers for _, numbers in requests] == [[0, 1, 2, 3, 4], [5, 6]]
    assert max(len(request) for request, _ in requests) < MAX_BYTES
    came = [raw for request, _ in requests for raw in items_of(request)]
    assert all(raw.startswith(each.raw) for raw, each in zip(came, sent, strict=True))
    assert (len(outcomes), failures) == (7, [])


async def test_counts_that_a_known_defect_makes_doubtful_are_waited_for(tmp_path):
    """Zeros of a stream are the counts of a run that failed, or of steps that said nothing: only the run tells."""
    failed = a_run_payload("failed", (0, 0))
    async with a_stage(tmp_path, wait_duration="300ms") as stage:
        passing = await stage.take(openllmetry_span("0.62.4", stream=True, usage=(0, 0), answers=[]))
        assert len(passing.waiting) == 1
        await stage.take(a_log_record(as_json(failed), seconds=21), signal=Signal.LOGS)
        (raw,) = await stage.left()

        assert attributes(raw)["gen_ai.usage.total_tokens"] == 0


async def test_swapped_counts_are_put_right_by_evidence_that_comes_later(tmp_path):
    async with a_stage(tmp_path, settings=Settings(policy=Policy(repair=True))) as stage:
        await stage.take(openllmetry_span("0.50.1"))
        await stage.take(LISTING)
        await stage.take(FINAL)
        (raw,) = await stage.left()

        assert attributes(raw)["gen_ai.usage.input_tokens"] == 1200
        assert attributes(raw)["gen_ai.usage.output_tokens"] == 340


async def test_a_request_of_which_all_waits_has_nothing_to_send(tmp_path):
    async with a_stage(tmp_path) as stage:
        passing = await stage.take(openllmetry_span(OLD))

        assert passing.processed.request == b""


async def test_uniqueness_decides_at_the_deadline_and_not_before(tmp_path):
    async with a_stage(tmp_path, wait_duration="300ms") as stage:
        passing = await stage.take(openllmetry_span(OLD), FINAL)
        assert len(passing.waiting) == 1
        (raw,) = await stage.left()

        assert attributes(raw)["gen_ai.usage.prompt_tokens"] == 1200
        assert stage.hold.counts.released_at_deadline == 1


async def test_a_second_run_that_came_while_it_waited_leaves_it_alone(tmp_path):
    async with a_stage(tmp_path, wait_duration="300ms") as stage:
        await stage.take(openllmetry_span(OLD, answers=[]), FINAL)
        await stage.take(an_http_span(a_run_payload(number=2), start=18, end=19, number=62))
        (raw,) = await stage.left()

        assert "gen_ai.usage.prompt_tokens" not in attributes(raw)
        assert stage.outcomes[-1].reason is Reason.AMBIGUOUS


async def test_f33_a_payload_that_never_comes_costs_the_usage_and_not_the_span(tmp_path):
    async with a_stage(tmp_path, wait_duration="100ms") as stage:
        await stage.take(openllmetry_span(OLD))
        (raw,) = await stage.left()

        assert attributes(raw)["gen_ai.system"] == "openai"
        assert stage.outcomes[-1].reason is Reason.PAYLOAD_ABSENT


async def test_f34_evidence_at_the_deadline_lets_one_copy_out(tmp_path):
    async with a_stage(tmp_path, wait_duration="100ms") as stage:
        span = openllmetry_span(NEW, usage=None)
        await stage.take(span)
        await asyncio.sleep(0.09)
        await stage.take(LISTING)
        await stage.take(FINAL)
        await stage.left()
        await asyncio.sleep(0.3)

        assert len([raw for _, request in stage.exporter.got for raw in items_of(request)]) == 1
        assert (await stage.store.counts()).held.rows == 0


async def test_spans_of_one_resource_and_scope_leave_together_as_they_came(tmp_path):
    async with a_stage(tmp_path, wait_duration="200ms") as stage:
        await stage.take(openllmetry_span(OLD, number=1), openllmetry_span(OLD, number=2, trace=2))
        await stage.take(openllmetry_span(OLD, number=3, trace=3, service="other"))
        await stage.left()
        await asyncio.sleep(0.2)

        assert sorted(len(items_of(request)) for _, request in stage.exporter.got) == [1, 2]


async def test_f36_without_room_a_candidate_passes_on_at_once_and_is_counted(tmp_path):
    async with a_stage(tmp_path, max_spans=1) as stage:
        await stage.take(openllmetry_span(OLD, number=1))
        passing = await stage.take(openllmetry_span(OLD, number=2, trace=2))

        assert passing.waiting == []
        assert len(items_of(passing.processed.request)) == 1
        assert stage.hold.counts.bypassed == 1


async def test_f18_what_waited_is_there_after_a_restart_and_so_is_what_was_seen(tmp_path):
    async with a_stage(tmp_path) as stage:
        await stage.take(LISTING)
        await stage.take(openllmetry_span(NEW, usage=None))
        assert (await stage.store.counts()).held.rows == 1
    async with a_stage(tmp_path) as stage:
        await stage.take(FINAL)
        (raw,) = await stage.left()

        assert attributes(raw)["gen_ai.usage.prompt_tokens"] == 1200


async def test_evidence_that_cannot_be_written_keeps_no_later_evidence_from_it(tmp_path, monkeypatch):
    def fails_at_the_first(evidence):
        if evidence.said.runs:
            raise ValueError
        return pack(evidence)

    pack = codec.pack
    monkeypatch.setattr(codec, "pack", fails_at_the_first)
    async with a_stage(tmp_path) as stage:
        await stage.take(FINAL)
        await asyncio.sleep(3 * TICK)
        await stage.take(LISTING)
    async with a_stage(tmp_path) as stage:
        assert (await stage.store.counts()).evidence.rows == 1


@pytest.mark.parametrize("days", [-1, 1])
async def test_f32_a_clock_that_jumped_makes_no_span_wait_longer_than_it_should(tmp_path, days):
    async with a_stage(tmp_path, wait_duration="400ms") as stage:
        await stage.take(openllmetry_span(OLD))
    stage = Stage(tmp_path, wait_duration="400ms")
    wall = stage.store.clock
    stage.store.clock = lambda: wall() + days * 86400
    await stage.store.open()
    await stage.hold.start()
    await stage.drain.start()
    try:
        assert len(await stage.left()) == 1
    finally:
        await stage.hold.shutdown()
        await stage.drain.shutdown()
        await stage.store.close()


async def test_a_span_whose_rule_is_gone_leaves_as_it_came(tmp_path):
    span = openllmetry_span(OLD)
    async with a_stage(tmp_path) as stage:
        await stage.take(span)
    stage = Stage(tmp_path)
    stage.hold._settings = Settings(recogniser=type(Settings().recogniser)(()))
    await stage.store.open()
    await stage.hold.start()
    await stage.drain.start()
    try:
        assert await stage.left() == [span.raw]
    finally:
        await stage.hold.shutdown()
        await stage.drain.shutdown()
        await stage.store.close()


async def test_f04_a_released_span_is_tried_again_until_it_is_taken(tmp_path):
    async with a_stage(tmp_path, wait_duration="50ms") as stage:
        stage.exporter.answers = [RetryableError(14, "away"), RetryableError(14, "away")]
        await stage.take(openllmetry_span(OLD))

        assert len(await stage.left()) == 1


async def test_f09_a_released_span_that_is_refused_for_good_is_kept(tmp_path):
    async with a_stage(tmp_path, wait_duration="50ms") as stage:
        stage.exporter.answers = [PermanentError(3, "no")]
        await stage.take(openllmetry_span(OLD))
        async with asyncio.timeout(10):
            while not (dead := await stage.store.dead(10)):  # noqa: ASYNC110 - the store tells nobody what it buried
                await asyncio.sleep(0.02)

        assert [(each.reason, each.code, each.items) for each in dead] == [("no", 3, 1)]


async def test_a_span_of_which_nothing_that_matters_lacks_does_not_wait(tmp_path):
    async with a_stage(tmp_path) as stage:
        passing = await stage.take(openllmetry_span("0.62.4"))

        assert passing.waiting == []


async def test_evidence_of_a_span_that_left_without_it_is_counted_as_late(tmp_path):
    async with a_stage(tmp_path, wait_duration="50ms") as stage:
        await stage.take(openllmetry_span(NEW, usage=None))
        await stage.left()
        await stage.take(LISTING)

        assert stage.hold.counts.late == 1


async def test_what_was_withdrawn_does_not_leave(tmp_path):
    async with a_stage(tmp_path) as stage:
        passing = stage.hold.process(Signal.TRACES, a_request([openllmetry_span(OLD)]))
        await stage.hold.withdraw(await stage.hold.commit(passing.waiting))

        assert (await stage.store.counts()).held.rows == 0


async def test_f26_what_cannot_be_withdrawn_at_once_is_withdrawn_later(tmp_path):
    async with a_stage(tmp_path) as stage:
        passing = stage.hold.process(Signal.TRACES, a_request([openllmetry_span(OLD)]))
        rows = await stage.hold.commit(passing.waiting)
        stage.store.release, _ = failing(stage.store.release, 2, StoreError("disk I/O error"))
        await stage.hold.withdraw(rows)

        async def is_withdrawn():
            return (await stage.store.counts()).held.rows == 0

        await until(is_withdrawn)


def failing(operation, times, error):
    """Return the operation, failing the first times that it is called, and an event for the first failure."""
    failed = asyncio.Event()

    async def fails(*arguments):
        nonlocal times
        if times:
            times -= 1
            failed.set()
            raise error
        return await operation(*arguments)

    return fails, failed


async def test_f24_a_stop_does_not_wait_for_room_to_release_and_the_next_start_releases(tmp_path):
    async with a_stage(tmp_path, wait_duration="50ms") as stage:
        stage.store.release, failed = failing(stage.store.release, -1, StoreFullError("full"))
        await stage.take(openllmetry_span(NEW, usage=None))
        await failed.wait()
        async with asyncio.timeout(10):
            await stage.hold.shutdown()
        assert stage.exporter.got == []

    async with a_stage(tmp_path, wait_duration="50ms") as stage:
        assert len(await stage.left()) == 1


async def test_f24_what_has_no_room_to_leave_together_leaves_in_parts_each_span_once(tmp_path):
    """Held spans fill the store, and each leaves to two exporters: there is no room for all copies at one moment."""
    async with a_stage(tmp_path, wait_duration="1ms") as stage:
        release, moved = stage.store.release, []

        async def takes_two(rows, batches):
            if len(rows) > 2:
                raise StoreFullError("full")
            moved.append((list(rows), [batch.items for batch in batches]))
            return await release(rows, batches)

        stage.store.release = takes_two
        spans = [openllmetry_span(OLD, number=number, service=str(number % 2)) for number in range(1, 8)]
        await stage.take(*spans)
        await until(lambda: sum(len(items_of(request)) for _, request in stage.exporter.got) == 7)
        left = [raw for _, request in stage.exporter.got for raw in items_of(request)]

        assert sorted(row for rows, _ in moved for row in rows) == list(range(1, 8))
        assert all(len(rows) == sum(items) for rows, items in moved)
        assert sorted(raw[: len(spans[0].raw)] for raw in left) == sorted(each.raw for each in spans)


async def test_f24_a_span_that_has_no_room_keeps_no_other_from_leaving(tmp_path):
    async with a_stage(tmp_path, wait_duration="1ms") as stage:
        release, has_room = stage.store.release, asyncio.Event()

        async def takes_all_but_the_first(rows, batches):
            if 1 in rows and not has_room.is_set():
                raise StoreFullError("full")
            return await release(rows, batches)

        stage.store.release = takes_all_but_the_first
        await stage.take(*[openllmetry_span(OLD, number=number) for number in range(1, 4)])
        await until(lambda: sum(len(items_of(request)) for _, request in stage.exporter.got) == 2)
        has_room.set()
        await until(lambda: sum(len(items_of(request)) for _, request in stage.exporter.got) == 3)


async def test_f26_what_a_failing_disk_kept_from_leaving_leaves_when_it_works_again(tmp_path, monkeypatch):
    async with a_stage(tmp_path, wait_duration="50ms") as stage:
        stage.store.release, failed = failing(stage.store.release, 1, StoreError("disk I/O error"))
        await stage.take(openllmetry_span(NEW, usage=None))
        with monkeypatch.context() as faulty:
            faulty.setattr(Store, "healthy", False)
            await failed.wait()
            await asyncio.sleep(0)

        assert len(await stage.left()) == 1


async def test_what_cannot_be_held_is_mended_by_what_is_known(tmp_path):
    async with a_stage(tmp_path) as stage:
        passing = stage.hold.process(Signal.TRACES, a_request([openllmetry_span(OLD)]))
        ((body, items),) = stage.hold.give_up(passing.waiting)

        assert (items, attributes(items_of(body)[0])["gen_ai.system"]) == (1, "openai")


async def test_what_a_file_says_lets_a_waiting_span_go_and_is_not_written_down(tmp_path):
    (listing,), (final,) = map(evidence_of, (LISTING, FINAL))
    async with a_stage(tmp_path) as stage:
        await stage.take(openllmetry_span(NEW, usage=None))
        stage.hold.add_evidence(listing)
        stage.hold.add_evidence(final)

        assert [attributes(raw)["gen_ai.usage.prompt_tokens"] for raw in await stage.left()] == [1200]
        assert await stage.store.recall(stage.store.clock()) == []


async def test_files_that_say_more_than_is_kept_are_told_once(tmp_path, monkeypatch):
    monkeypatch.setattr("enricher.hold.MAX_EVIDENCE", 1)
    (listing,), (final,) = map(evidence_of, (LISTING, FINAL))
    async with a_stage(tmp_path) as stage:
        with structlog.testing.capture_logs() as logs:
            for each in (final, listing, listing):
                stage.hold.add_evidence(each)

        assert len(stage.hold.memory.index) == 1
        assert [each["log_level"] for each in logs] == ["warning"]


def test_names_that_a_candidate_waits_for_are_its_own():
    assert live.name_of_span(b"\1" * 16, b"\2" * 8) == f"span {'01' * 16} {'02' * 8}"


# one owner a run


def _a_look(number=1, status="completed", **where):
    usage = (1200, 340) if status == "completed" else None
    return openinference_span(a_run_payload(status, usage), number=number, trace=number, **where)


async def test_polls_leave_at_once_and_the_call_that_shows_the_end_at_its_deadline(tmp_path):
    async with a_stage(tmp_path, wait_duration="300ms") as stage:
        passing = await stage.take(_a_look(1, "queued"), _a_look(2, "in_progress"), _a_look(3))
        assert (len(passing.waiting), len(items_of(passing.processed.request))) == (1, 2)

        (raw,) = await stage.left()

        assert attributes(raw)["gen_ai.usage.input_tokens"] == 1200
        assert [each.reason for each in stage.outcomes] == [Reason.NOT_OWNER, Reason.NOT_OWNER, Reason.ENRICHED]


async def test_whoever_looks_again_when_the_owner_has_left_gets_no_usage(tmp_path):
    async with a_stage(tmp_path, wait_duration="200ms") as stage:
        await stage.take(_a_look(1))
        await stage.left()
        passing = await stage.take(_a_look(2))

        assert passing.waiting == []
        assert stage.outcomes[-1].reason is Reason.NOT_OWNER
        assert "gen_ai.usage.input_tokens" not in attributes(items_of(passing.processed.request)[0])


async def test_f18_whose_usage_left_is_known_after_a_restart(tmp_path):
    async with a_stage(tmp_path, wait_duration="200ms") as stage:
        await stage.take(_a_look(1))
        await stage.left()
    async with a_stage(tmp_path, wait_duration="200ms") as stage:
        await stage.take(_a_look(2))

        assert [each.reason for each in stage.outcomes] == [Reason.NOT_OWNER]


async def test_a_span_of_the_whole_run_that_comes_while_its_call_waits_owns(tmp_path):
    async with a_stage(tmp_path, wait_duration="500ms") as stage:
        await stage.take(_a_look(1, start=18, end=19))
        passing = await stage.take(langchain_span(number=2, trace=2, start=10, end=20))
        assert attributes(items_of(passing.processed.request)[0])["gen_ai.usage.input_tokens"] == 1200

        (raw,) = await stage.left()

        assert "gen_ai.usage.input_tokens" not in attributes(raw)
        assert [each.reason for each in stage.outcomes] == [Reason.ENRICHED, Reason.NOT_OWNER]
        await stage.take(FINAL)
        assert stage.hold.counts.late == 0


@pytest.mark.parametrize("together", [True, False])
async def test_of_listings_of_one_run_the_usage_leaves_on_one(tmp_path, together):
    """OpenLLMetry writes a span for each, in a trace of its own; the first came before the answer."""
    early = openllmetry_span(OLD, number=1, trace=1, answers=[], end=15)
    late = openllmetry_span(OLD, number=2, trace=2, end=20)
    payloads = [an_http_span(a_run_payload(), trace=2, start=18, end=19, number=61)]
    async with a_stage(tmp_path, wait_duration="300ms") as stage:
        await stage.take(early, *([late, *payloads] if together else []))
        if not together:
            await stage.left()
            await stage.take(late, *payloads)
        await until(lambda: len(stage.outcomes) == 2)

        assert [each.reason for each in stage.outcomes] == [
            Reason.NOT_OWNER if together else Reason.PAYLOAD_ABSENT,
            Reason.ENRICHED,
        ]


async def test_a_listing_of_a_run_whose_usage_left_with_an_earlier_one_gets_none(tmp_path):
    async with a_stage(tmp_path, wait_duration="200ms") as stage:
        await stage.take(openllmetry_span(OLD, number=1, end=20), FINAL)
        await stage.left()
        await stage.take(openllmetry_span(OLD, number=2, end=22), LISTING)
        await until(lambda: len(stage.outcomes) == 2)

        assert [each.reason for each in stage.outcomes] == [Reason.ENRICHED, Reason.NOT_OWNER]


async def test_a_listing_that_repeats_counts_which_have_left_is_told_as_such(tmp_path):
    """Nothing tells of which run the two are; that the later has the smaller id does not matter."""
    async with a_stage(tmp_path) as stage:
        for number in (2, 1):
            await stage.take(openllmetry_span("0.34.0", number=number, trace=number, end=20, usage=(1200, 340)))

        assert [each.defects for each in stage.outcomes] == [(), (REPEATED_USAGE,)]


async def test_a_listing_that_left_with_nothing_does_not_keep_a_later_one_from_owning(tmp_path):
    """Every HTTP span is a trace of its own, and their records came after the first listing's deadline."""
    listings = [openllmetry_span(OLD, number=n, trace=n, end=20 + n) for n in (1, 2)]
    bodies = (a_list([a_message_payload()]), a_run_payload())
    payloads = [an_http_span(body, trace=n, start=18, end=19, number=n) for n, body in enumerate(bodies, 60)]
    async with a_stage(tmp_path, wait_duration="200ms") as stage:
        await stage.take(listings[0])
        await stage.left()
        await stage.take(listings[1], *payloads)
        await until(lambda: len(stage.outcomes) == 2)

        assert [each.reason for each in stage.outcomes] == [Reason.PAYLOAD_ABSENT, Reason.ENRICHED]


async def test_a_span_that_carries_usage_and_has_left_keeps_its_call_from_owning(tmp_path):
    """It lacked nothing that matters, and which run it was of shows by its trace alone."""
    whole = openllmetry_span(NEW, trace=1, start=10, end=20)
    async with a_stage(tmp_path, wait_duration="300ms") as stage:
        await stage.take(whole)
        await stage.take(openinference_span(a_run_payload(), number=2, trace=1, start=18, end=19))
        (raw,) = await stage.left()

        assert "gen_ai.usage.input_tokens" not in attributes(raw)
        assert stage.outcomes[-1].reason is Reason.NOT_OWNER


@pytest.mark.parametrize("usage", [(1200, 340), (900, 250)])
async def test_a_span_around_one_that_carried_the_runs_counts_and_has_left_waits_and_gets_none(tmp_path, usage):
    """Nothing tells of which run the one that left is; a record that comes meanwhile might."""
    async with a_stage(tmp_path, wait_duration="300ms") as stage:
        await stage.take(openllmetry_span("0.34.0", usage=usage, answers=[], trace=1, start=10, end=20))
        await stage.take(FINAL)
        passing = await stage.take(langchain_span(number=2, trace=1, start=9, end=21))

        if usage == (900, 250):
            assert passing.waiting == []
            return
        (raw,) = await stage.left()
        assert "gen_ai.usage.input_tokens" not in attributes(raw)
        assert stage.outcomes[-1].reason is Reason.NOT_OWNER


async def test_f36_without_room_a_call_leaves_without_usage(tmp_path):
    async with a_stage(tmp_path, max_spans=1) as stage:
        await stage.take(_a_look(1), openinference_span(a_run_payload(number=2), number=2, trace=2))

        assert [each.reason for each in stage.outcomes] == [Reason.NOT_SETTLED]


async def test_all_that_show_the_end_get_it_where_that_is_asked_for(tmp_path):
    settings = Settings(policy=Policy(one_owner=False))
    async with a_stage(tmp_path, settings=settings, wait_duration="200ms") as stage:
        await stage.take(_a_look(1), _a_look(2))
        await stage.take(_a_look(3, status="in_progress"))
        await stage.left()

        assert [each.reason for each in stage.outcomes] == [Reason.NOT_OWNER, *[Reason.ENRICHED] * 2]
