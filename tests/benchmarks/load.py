"""
The load generator: keeps a fixed number of requests under way and measures what the process in the middle spends.

A closed loop: each caller sends its next request when the last one is answered, so the rate is what the slowest of
the processes allows and the latency says nothing about an open system (Little's law ties the two).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc
from wire import CHANNEL_OPTIONS, METHOD, path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CONNECTIONS = 4
DEADLINE_SECONDS = 10.0
"""The default of the SDK exporters."""


class LoadError(Exception):
    """A request was not answered with OK; what refusals cost is not what is measured here."""


@dataclass(frozen=True)
class Measured:
    """One round: what was answered inside the window, and what the process in the middle spent on it."""

    requests: int
    seconds: float
    cpu_seconds: float
    p50_seconds: float
    p99_seconds: float
    sent_bytes: int
    """All bytes of the round, those of the warm-up included."""


@dataclass
class _Load:
    requests: Iterator[bytes]
    running: bool = True
    counting: bool = False
    answered: int = 0
    sent_bytes: int = 0
    latencies: list[float] = field(default_factory=list)

    async def call(self, export: grpc.aio.UnaryUnaryMultiCallable) -> None:
        while self.running:
            request = next(self.requests)
            began = time.perf_counter()
            await export(request, timeout=DEADLINE_SECONDS)
            if self.counting:
                self.latencies.append(time.perf_counter() - began)
            self.answered += 1
            self.sent_bytes += len(request)

    async def for_at_least(self, seconds: float, answers: int) -> None:
        until = self.answered + answers
        await asyncio.sleep(seconds)
        while self.answered < until:  # noqa: ASYNC110 - an event would have to be told of every single answer
            await asyncio.sleep(0.01)


async def measure(
    target: str,
    requests: Sequence[bytes],
    cpu_seconds: Callable[[], float],
    *,
    in_flight: int,
    warm_up: float,
    seconds: float,
) -> Measured:
    """
    Send the requests in turn, `in_flight` at a time, and return what the window after the warm-up showed.

    Both are longer than asked where fewer than `in_flight` requests would be answered in them. Returns once every
    request is answered. Raises `LoadError` as soon as one is refused.
    """
    load = _Load(itertools.cycle(requests))
    try:
        spent, took = await _run(load, target, cpu_seconds, in_flight, (warm_up, seconds))
    except ExceptionGroup as group:
        error = group.exceptions[0]
        if not isinstance(error, grpc.aio.AioRpcError):
            raise
        raise LoadError(f"a request was answered with {error.code().name}, expected OK: {error.details()}") from None
    ordered = sorted(load.latencies)
    return Measured(
        requests=len(ordered),
        seconds=took,
        cpu_seconds=spent,
        p50_seconds=ordered[len(ordered) // 2],
        p99_seconds=ordered[len(ordered) * 99 // 100],
        sent_bytes=load.sent_bytes,
    )


async def _run(
    load: _Load, target: str, cpu_seconds: Callable[[], float], in_flight: int, lengths: tuple[float, float]
) -> tuple[float, float]:
    """Run the callers for a warm-up and a window; return the CPU time and the wall time of the window."""
    warm_up, seconds = lengths
    async with contextlib.AsyncExitStack() as stack:
        channels = [grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) for _ in range(CONNECTIONS)]
        for channel in channels:
            await stack.enter_async_context(channel)
        calls = [channel.unary_unary(path(METHOD)) for channel in channels]
        async with asyncio.TaskGroup() as callers:
            for index in range(in_flight):
                callers.create_task(load.call(calls[index % CONNECTIONS]))
            await load.for_at_least(warm_up, in_flight)
            spent, began = cpu_seconds(), time.perf_counter()
            load.counting = True
            await load.for_at_least(seconds, in_flight)
            load.counting = False
            spent, took = cpu_seconds() - spent, time.perf_counter() - began
            load.running = False
    return spent, took
