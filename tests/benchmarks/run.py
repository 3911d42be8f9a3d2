"""
Measures what the stage costs beside a bare relay: `python tests/benchmarks/run.py`.

The load generator (this process) and a null downstream stand still; between them the relay, the stage and whatever
it is compared with take turns, round by round, so that a slow minute of the machine hits all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import signal
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import generate
import grpc
import processes
import report
import uvloop
from generate import Kind
from load import LoadError, Measured, measure
from rich.console import Console
from wire import RECEIVED, path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from processes import Child

KINDS = tuple(
    kind
    for spans in (512, 20)
    for kind in (*(Kind(spans, share) for share in (0, 1, 10, 100)), Kind(spans, 10, "sibling"))
)
QUICK_KINDS = tuple(Kind(spans, share) for spans in (512, 20) for share in (0, 10))
POOL_SPANS = 4000
"""Spans in the requests that are sent over and over: enough that no two candidates nearby are the same."""

WARM_UP = 0.12
LEAST_ROUNDS = 3
"""However slow: a stage whose rounds take longer than asked gets fewer of them, not a longer run."""

STARTS = 3
_HERE = Path(__file__).parent


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Cost of the stage as a multiple of a bare relay, in one run.")
    parser.add_argument("--seconds", type=float, help="length of a round's window (default 0.35; quick 0.3)")
    parser.add_argument(
        "--rounds", type=int, help="most rounds for each process and kind of request (default 15; quick 8)"
    )
    parser.add_argument("--quick", action="store_true", help="fewer kinds of request and shorter rounds, under 40 s")
    parser.add_argument("--in-flight", type=int, default=16, help="requests under way at any time")
    parser.add_argument("--stage", default="enricher run --config {config}", help="the command to measure")
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="another command to measure in the same run; {config}, {listen} and {downstream} are filled in",
    )
    parser.add_argument("--json", type=Path, help="write every round to this file")
    parsed = parser.parse_args()
    parsed.seconds = parsed.seconds or (0.3 if parsed.quick else 0.35)
    parsed.rounds = parsed.rounds or (8 if parsed.quick else 15)
    for each in parsed.against:
        name, equals, command = each.partition("=")
        if not (name and equals and command) or name in {"relay", "stage"}:
            parser.error(f'--against {each}: expected NAME=COMMAND with a name other than "relay" and "stage"')
    return parsed


async def main(options: argparse.Namespace, console: Console) -> None:
    """Start everything, measure every kind of request, print and end everything."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _this_task().cancel)
    machine = report.machine()
    console.print(", ".join(f"{name} {value}" for name, value in machine.items()), style="dim", highlight=False)
    commands = {"relay": f"{_python('relay.py')} {{listen}} {{downstream}}", "stage": options.stage}
    commands |= dict(each.split("=", 1) for each in options.against)
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="enricher-benchmark-")))
        null = await processes.start("null", f"{_python('null.py')} {{listen}}", directory / "null", "")
        stack.push_async_callback(null.stop)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(null.listen))
        received = channel.unary_unary(path(RECEIVED), response_deserializer=int)

        starts, children = [], []
        for name, command in commands.items():
            start, child = await _start(name, command, directory, null.listen)
            stack.push_async_callback(child.stop)
            starts.append(start)
            children.append(child)
        console.print(report.starts_table(starts))

        rows = []
        for kind in QUICK_KINDS if options.quick else KINDS:
            with console.status(str(kind)):
                rows += await _measure_kind(kind, children, received, options)
        console.print(report.rows_table(rows))
    if options.json:
        document = {"machine": machine, "starts": [vars(each) for each in starts], "rows": [r.as_json() for r in rows]}
        options.json.write_text(json.dumps(document, indent=1))


async def _start(name: str, command: str, directory: Path, downstream: str) -> tuple[report.Start, Child]:
    """Start a command several times, since the first has cold files, and leave the last one running."""
    ready, idle = [], []
    for attempt in range(STARTS):
        child = await processes.start(name, command, directory / f"{name}-{attempt}", downstream)
        ready.append(child.ready_seconds)
        idle.append(child.memory_mib("VmRSS"))
        if attempt < STARTS - 1:
            await child.stop()
    return report.Start(name, statistics.median(ready), statistics.median(idle)), child


async def _measure_kind(
    kind: Kind, children: Sequence[Child], received: grpc.aio.UnaryUnaryMultiCallable, options: argparse.Namespace
) -> list[report.Row]:
    requests = generate.requests(kind, POOL_SPANS // kind.spans)
    candidates = sum(kind.candidates(index) for index in range(len(requests)))
    rounds: dict[str, list[Measured]] = {child.name: [] for child in children}
    added = dict.fromkeys(rounds, 0)
    for child in children:
        child.reset_peak()
    deadline = time.perf_counter() + 1.1 * len(children) * options.rounds * (WARM_UP + options.seconds)
    for number in range(options.rounds):
        if number >= LEAST_ROUNDS and time.perf_counter() > deadline:
            break
        # Every other round goes backwards, so that a machine that slows down steadily favours nobody.
        for child in children if number % 2 == 0 else reversed(children):
            before = await received(b"")
            measured = await _measure(child, requests, options)
            rounds[child.name].append(measured)
            added[child.name] += await received(b"") - before - measured.sent_bytes
    bytes_to_candidates = candidates / sum(map(len, requests))
    return [
        report.Row(
            kind=kind,
            name=child.name,
            rounds=rounds[child.name],
            relay=rounds["relay"],
            peak_mib=child.memory_mib("VmHWM"),
            added_bytes=added[child.name],
            sent_candidates=sum(each.sent_bytes for each in rounds[child.name]) * bytes_to_candidates,
        )
        for child in children
    ]


async def _measure(child: Child, requests: Sequence[bytes], options: argparse.Namespace) -> Measured:
    try:
        return await measure(
            child.listen,
            requests,
            child.cpu_seconds,
            in_flight=options.in_flight,
            warm_up=WARM_UP,
            seconds=options.seconds,
        )
    except LoadError as error:
        raise LoadError(f"{child.name}: {error}; it wrote:\n{child.last_output()}") from None


def _python(script: str) -> str:
    return shlex.join([sys.executable, str(_HERE / script)])


def _this_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None
    return task


if __name__ == "__main__":
    out = Console(width=max(Console().width, 122))
    try:
        uvloop.run(main(arguments(), out))
    except (processes.StartError, LoadError) as error:
        out.print(f"error: {error}", style="red", highlight=False, markup=False)
        sys.exit(1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
