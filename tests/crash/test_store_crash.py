"""
F18, F19: what the store has answered survives `kill -9` at any moment, opening and recovering included.

A process of its own holds, releases, claims and confirms, and says on its standard output what it begins and what it
was answered. Each answer is an obligation.
"""

import asyncio
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

from enricher.storage import Store

KILLS = int(os.environ.get("ENRICHER_KILLS", "10"))
ROOT = Path(__file__).parents[2]

WORKER = """
import asyncio, itertools, os, pathlib, random, sys, time
from enricher.storage import Batch, HeldSpan, Store

directory, name = sys.argv[1:]
rng = random.Random(name)

def say(what, token):
    os.write(1, f"{what} {token}\\n".encode())

async def caller(store, number):
    for n in itertools.count():
        token = f"{name}.{number}.{n}"
        body = token.encode() + b" " + bytes(rng.choice([10, 3_000, 40_000]))
        (row,) = await store.hold([HeldSpan(0.0, b"", b"", b"", b"", b"", b"", body, b"")])
        say("held", token)
        if n % 2:
            say("releasing", token)
            await store.release([row], [Batch("d", "traces", body, 1)])
            say("queued", token)
        if n % 4 == 3:
            for each in await store.claim("d", time.time(), 1, 60):
                claimed = each.body.split(b" ")[0].decode()
                say("confirming", claimed)
                await store.confirm([each.id])
                say("confirmed", claimed)

async def main():
    store = Store(pathlib.Path(directory), max_size_bytes=256 << 20)
    found = await store.open()
    if found.problems or found.lost_rows:
        say("problem", repr(found.problems).replace(" ", "_"))
    say("opened", "-")
    await asyncio.gather(*(caller(store, number) for number in range(16)))

asyncio.run(main())
"""

# For what was said last of a row: how often it may be among the held, and how often in the queue.
ALLOWED = {
    "held": {(1, 0)},
    "releasing": {(1, 0), (0, 1)},
    "queued": {(0, 1)},
    "confirming": {(0, 1), (0, 0)},
    "confirmed": {(0, 0)},
}


async def worker(directory, name, seconds, *, after_opening):
    """Run the worker for a while, kill it, and return all it said."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, str(directory), name, stdout=asyncio.subprocess.PIPE, env=environment
    )
    said = []
    if after_opening:
        while said[-1:] != ["opened -"]:
            said.append((await process.stdout.readline()).decode().strip())
            assert said[-1], "the worker ended by itself"
    reading = asyncio.create_task(process.stdout.read())
    await asyncio.sleep(seconds)
    process.kill()
    said += (await reading).decode().splitlines()
    assert await process.wait() == -9
    return said


async def found_in(directory):
    store = Store(directory, max_size_bytes=256 << 20)
    recovery = await store.open()
    held = Counter(span.span.split(b" ")[0].decode() for _, span in await store.held())
    claimed = await store.claim("d", time.time(), 1_000_000, 60)
    queued = Counter(each.body.split(b" ")[0].decode() for each in claimed)
    for each in claimed:
        await store.retry(each.id, 0.0)
    counts = await store.counts()
    await store.close()
    return recovery, held, queued, counts


async def test_f18_f19_nothing_that_was_answered_is_lost_and_nothing_is_there_twice(tmp_path):
    rng = random.Random(18)
    last: dict[str, str] = {}
    answered = 0
    for number in range(KILLS):
        # Every third is killed at a time counted from its start: while it loads, opens, recovers, or soon after.
        after_opening = number % 3 != 2
        seconds = rng.uniform(0.02, 0.3) if after_opening else rng.uniform(0.1, 0.5)
        said = await worker(tmp_path, str(number), seconds, after_opening=after_opening)
        assert not [line for line in said if line.startswith("problem")]
        steps = [line.split() for line in said if line != "opened -"]
        last |= {token: what for what, token in steps}
        answered += sum(what in {"held", "queued", "confirmed"} for what, _ in steps)
        if number % 2:
            continue  # the next one has to recover by itself
        recovery, held, queued, counts = await found_in(tmp_path)

        assert (recovery.problems, recovery.set_aside, recovery.lost_rows) == ((), (), 0)
        assert counts.quarantined.rows == 0
        wrong = {token: what for token, what in last.items() if (held[token], queued[token]) not in ALLOWED[what]}
        assert wrong == {}
        # Committed and not yet said: there, but once.
        assert [token for token, there in (held + queued).items() if there > 1] == []
        # From here on they are where they were found.
        for token, what in last.items():
            if what in {"releasing", "confirming"}:
                last[token] = "held" if held[token] else "queued" if queued[token] else "confirmed"

    assert answered > KILLS * 20
