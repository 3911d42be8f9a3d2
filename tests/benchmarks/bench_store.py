"""
How fast the store commits: rows a second, and the time until `enqueue` and `hold` return, with 32 callers.

    python tests/benchmarks/bench_store.py [--directory DIR] [--seconds S] [--json FILE]

A backlog of 500 rows is kept, so that each insert goes with a delete as it does in use. The directory decides what is
measured: its volume's `fdatasync` is most of a small commit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sqlite3
import statistics
import tempfile
import time
from collections import deque
from pathlib import Path

from enricher.storage import Batch, HeldSpan, Store

CALLERS = 32
BACKLOG = 500
SIZES = (1_000, 10_000, 100_000)
QUOTA_BYTES = 1 << 30


async def enqueue(store: Store, body: bytes, backlog: deque[int]) -> None:
    (row,) = await store.enqueue([Batch("default", "traces", body, 100)])
    backlog.append(row)


async def hold(store: Store, body: bytes, backlog: deque[int]) -> None:
    (row,) = await store.hold([HeldSpan(0.0, b"t" * 16, b"s" * 8, b"", b"", b"", b"", body, b"")])
    backlog.append(row)


async def drain(store: Store, backlog: deque[int], done: asyncio.Event) -> None:
    while not done.is_set():
        if (excess := len(backlog) - BACKLOG) > 0:
            claimed = await store.claim("default", time.time(), min(64, excess), 60)
            await store.confirm([each.id for each in claimed])
            for _ in claimed:
                backlog.popleft()
        await asyncio.sleep(0)


async def forget(store: Store, backlog: deque[int], done: asyncio.Event) -> None:
    while not done.is_set():
        rows = [backlog.popleft() for _ in range(min(64, max(0, len(backlog) - BACKLOG)))]
        if rows:
            await store.release(rows, [])
        await asyncio.sleep(0)


async def measure(directory: Path, operation: str, size: int, synchronous: str, seconds: float) -> dict[str, object]:
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        store = Store(Path(folder), max_size_bytes=QUOTA_BYTES, synchronous=synchronous)
        await store.open()
        body, backlog, done = os.urandom(size), deque[int](), asyncio.Event()
        times: list[float] = []
        put = hold if operation == "hold" else enqueue
        ends = time.perf_counter() + seconds

        async def caller() -> None:
            while (began := time.perf_counter()) < ends:
                await put(store, body, backlog)
                times.append(time.perf_counter() - began)

        cleaning = asyncio.create_task(
            forget(store, backlog, done) if operation == "hold" else drain(store, backlog, done)
        )
        began = time.perf_counter()
        cpu = time.process_time()
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        done.set()
        await cleaning
        await store.close()
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {
        "operation": operation,
        "bytes": size,
        "synchronous": synchronous,
        "rows_per_second": round(len(times) / took),
        "p50_ms": round(cuts[49] * 1e3, 1),
        "p99_ms": round(cuts[98] * 1e3, 1),
        "cpu_us_per_row": round(cpu / len(times) * 1e6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--directory", type=Path, default=Path(), help="where the database is put; default: here")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each of the 12 cases; default: 3")
    parser.add_argument("--json", type=Path, help="write every case here")
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {CALLERS} callers, backlog {BACKLOG}")
    print(f"{'operation':10}{'bytes':>8} {'sync':8}{'rows/s':>8}{'p50 ms':>8}{'p99 ms':>8}{'CPU us/row':>12}")
    results = []
    for operation in ("enqueue", "hold"):
        for size in SIZES:
            for synchronous in ("full", "normal"):
                row = asyncio.run(measure(options.directory, operation, size, synchronous, options.seconds))
                results.append(row)
                print(
                    f"{operation:10}{size:>8} {synchronous:8}{row['rows_per_second']:>8}{row['p50_ms']:>8}"
                    f"{row['p99_ms']:>8}{row['cpu_us_per_row']:>12}"
                )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
