"""
The store against a model in memory: whatever is done in whatever order, and wherever the process dies in between.

A crash is a copy of the files as they are while the writer stands still, here and there in the middle of a transaction,
opened as a new store; the old one is closed.
"""

import asyncio
import itertools
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from enricher.storage import Amount, Batch, HeldSpan, QueuedBatch, Store, StoreError

START = 1_700_000_000.0
LEASE = 60.0
DESTINATIONS = ("one", "two")

bodies = st.binary(max_size=40) | st.builds(lambda byte: byte * 9_000, st.binary(min_size=1, max_size=1))
batches = st.builds(
    Batch, st.sampled_from(DESTINATIONS), st.sampled_from(["traces", "logs"]), bodies, st.integers(0, 9)
)
spans = st.builds(HeldSpan, st.floats(START, START + 60), *[st.binary(max_size=9)] * 6, bodies, st.binary(max_size=9))


@dataclass(frozen=True)
class Row:
    """A batch in the model."""

    batch: Batch
    created: float
    state: str = "queued"
    attempt: int = 0
    next_try: float = 0.0


class InTheMiddleError(Exception):
    """Takes the transaction back in which the files were copied."""


class StoreMachine(RuleBasedStateMachine):
    """The rules: each does the same to the store and to the model, and compares the answers."""

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.names = itertools.count()
        self.now = START
        self.held, self.rows = {}, {}
        # All ids there ever were: who comes late must change nothing.
        self.held_ids, self.batch_ids = [], []

    def run(self, waiting):
        return self.runner.run(waiting)

    def reopen(self):
        self.store = Store(self.directory, max_size_bytes=64 << 20, clock=lambda: self.now)
        return self.run(self.store.open())

    @initialize()
    def begin(self):
        self.directory = Path(self.folder.name) / str(next(self.names))
        self.reopen()

    def teardown(self):
        self.run(self.store.close())
        self.runner.close()
        self.folder.cleanup()

    # ---- held spans

    @rule(new=st.lists(spans, min_size=1, max_size=4))
    def hold(self, new):
        ids = self.run(self.store.hold(new))
        assert not set(self.held_ids) & set(ids)
        self.held_ids += ids
        self.held |= zip(ids, new, strict=True)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), moved=st.lists(batches, max_size=2))
    def release(self, data, moved):
        ids = data.draw(st.lists(st.sampled_from(sorted(self.held)), min_size=1, max_size=3))
        answer = self.run(self.store.release(ids, moved))
        for identity in set(ids):
            del self.held[identity]
        self.added(answer, moved, self.now)

    @precondition(lambda self: set(self.held_ids) - set(self.held))
    @rule(data=st.data(), moved=st.lists(batches, max_size=2))
    def release_too_late(self, data, moved):
        gone = data.draw(st.sampled_from(sorted(set(self.held_ids) - set(self.held))))
        others = data.draw(st.lists(st.sampled_from(self.held_ids), max_size=2))
        assert self.run(self.store.release([*others, gone], moved)) is None

    # ---- the queue

    def added(self, ids, new, created):
        assert not set(self.batch_ids) & set(ids)
        self.batch_ids += ids
        self.rows |= {identity: Row(batch, created) for identity, batch in zip(ids, new, strict=True)}

    @rule(new=st.lists(batches, min_size=1, max_size=4))
    def enqueue(self, new):
        self.added(self.run(self.store.enqueue(new)), new, self.now)

    @rule(destination=st.sampled_from(DESTINATIONS), limit=st.integers(1, 5))
    def claim(self, destination, limit):
        due = [
            identity
            for identity, row in sorted(self.rows.items())
            if row.batch.destination == destination and row.state != "dead" and row.next_try <= self.now
        ][:limit]
        for identity, row in self.rows.items():
            # A lease that has ended puts a batch back, claimed again or not.
            if row.batch.destination == destination and row.state == "claimed" and row.next_try <= self.now:
                self.rows[identity] = replace(row, state="queued", next_try=0.0)
        expected = []
        for identity in due:
            row = self.rows[identity]
            row = replace(row, state="claimed", attempt=row.attempt + 1, next_try=self.now + LEASE)
            self.rows[identity] = row
            expected.append(QueuedBatch(identity, *row.batch, row.attempt, row.created))

        assert self.run(self.store.claim(destination, self.now, limit, LEASE)) == expected

    def some(self, data, *states):
        """Draw the id of a batch that is in one of the states, or gone."""
        states_of = {
            identity: self.rows[identity].state if identity in self.rows else "gone" for identity in self.batch_ids
        }
        return data.draw(st.sampled_from([identity for identity, state in states_of.items() if state in states]))

    def has(self, *states):
        found = {row.state for row in self.rows.values()} | (
            {"gone"} if len(self.batch_ids) > len(self.rows) else set()
        )
        return bool(found & set(states))

    @precondition(lambda self: self.has("claimed"))
    @rule(data=st.data())
    def confirm(self, data):
        identity = self.some(data, "claimed")
        assert self.run(self.store.confirm([identity]))
        del self.rows[identity]

    @precondition(lambda self: self.has("claimed"))
    @rule(data=st.data(), seconds=st.sampled_from([-5.0, 5.0, 100.0]))
    def retry(self, data, seconds):
        identity = self.some(data, "claimed")
        assert self.run(self.store.retry(identity, self.now + seconds))
        self.rows[identity] = replace(self.rows[identity], state="queued", next_try=self.now + seconds)

    @precondition(lambda self: self.has("claimed"))
    @rule(data=st.data())
    def bury(self, data):
        identity = self.some(data, "claimed")
        assert self.run(self.store.bury(identity, "refused", 3))
        self.rows[identity] = replace(self.rows[identity], state="dead")

    @precondition(lambda self: self.has("claimed"))
    @rule(data=st.data(), parts=st.lists(batches, max_size=3))
    def split(self, data, parts):
        identity = self.some(data, "claimed")
        assert self.run(self.store.split(identity, parts))
        created = self.rows.pop(identity).created
        # The ids of parts are not told: they are the new ones, in order.
        self.added(sorted(self.run(self.ids()) - set(self.batch_ids)), parts, created)

    @precondition(lambda self: self.has("queued", "dead", "gone"))
    @rule(data=st.data(), what=st.sampled_from(["confirm", "retry", "bury", "split"]))
    def settle_what_is_not_claimed(self, data, what):
        identity = self.some(data, "queued", "dead", "gone")
        calls = {
            "confirm": lambda: self.store.confirm([identity]),
            "retry": lambda: self.store.retry(identity, 0.0),
            "bury": lambda: self.store.bury(identity, "refused", 3),
            "split": lambda: self.store.split(identity, [Batch("one", "traces", b"part", 1)]),
        }
        assert not self.run(calls[what]())

    async def ids(self):
        return await self.store._do(lambda connection: {row for (row,) in connection.execute("SELECT id FROM batch")})

    # ---- dead letters

    @precondition(lambda self: self.has("dead"))
    @rule(data=st.data(), what=st.sampled_from(["resend", "drop", "show"]))
    def look_after_the_dead(self, data, what):
        identity = self.some(data, "dead")
        row = self.rows[identity]
        assert self.run(self.store.show(identity))[1] == row.batch.body
        if what == "resend":
            assert self.run(self.store.resend([identity])) == 1
            self.rows[identity] = replace(row, state="queued", attempt=0, next_try=0.0)
        elif what == "drop":
            assert self.run(self.store.drop([identity])) == 1
            del self.rows[identity]

    @precondition(lambda self: self.has("queued", "claimed", "gone"))
    @rule(data=st.data())
    def take_the_living_for_dead(self, data):
        identity = self.some(data, "queued", "claimed", "gone")
        assert self.run(self.store.resend([identity])) == 0
        assert self.run(self.store.drop([identity])) == 0
        assert self.run(self.store.show(identity)) is None

    # ---- time and death

    @rule(seconds=st.sampled_from([1.0, 10.0, 61.0]))
    def wait(self, seconds):
        self.now += seconds

    @rule(is_clean=st.booleans(), unfinished=st.lists(spans, max_size=3))
    def stop_and_start(self, is_clean, unfinished):
        if not is_clean:
            target = Path(self.folder.name) / str(next(self.names))
            self.run(self.die(target, unfinished))
            directory, self.directory = self.directory, target
        self.run(self.store.close())
        if not is_clean:
            shutil.rmtree(directory)
        found = self.reopen()

        claimed = [identity for identity, row in self.rows.items() if row.state == "claimed"]
        assert (found.was_clean, found.problems, found.lost_rows) == (is_clean, (), 0)
        assert found.requeued == len(claimed)
        for identity in claimed:
            self.rows[identity] = replace(self.rows[identity], state="queued", next_try=0.0)

    async def die(self, target, unfinished):
        """Copy the files after some changes that no commit follows."""

        def copy(connection):
            for span in unfinished:
                connection.execute("INSERT INTO content (data) VALUES (?)", (span.span,))
            connection.execute("DELETE FROM held")
            connection.execute("DELETE FROM batch")
            shutil.copytree(self.directory, target)
            raise InTheMiddleError

        try:
            await self.store._do(copy)
        except StoreError:
            return
        raise AssertionError("the copy was not taken back")

    # ---- always

    @invariant()
    def counts_are_those_of_the_model(self):
        counts = self.run(self.store.counts())
        queued = [row.batch for row in self.rows.values() if row.state != "dead"]
        dead = [row.batch for row in self.rows.values() if row.state == "dead"]

        assert self.run(self.store.held()) == sorted(self.held.items())
        assert counts.held[:2] == (len(self.held), len(self.held))
        assert counts.queued == amount(queued)
        assert counts.dead == amount(dead)
        assert counts.quarantined == Amount()
        for destination in DESTINATIONS:
            here = [row for row in self.rows.values() if row.state != "dead" and row.batch.destination == destination]
            stats = self.run(self.store.queue_stats(destination))
            assert stats[:3] == amount([row.batch for row in here])
            assert (stats.oldest is None) == (not here)


def amount(of):
    return Amount(len(of), sum(batch.items for batch in of), sum(len(batch.body) for batch in of))


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=60, stateful_step_count=40)
