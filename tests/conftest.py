"""Fixtures of every test: a clean environment, nothing left running, and the real peers on request."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from tests.support import collector as collector_peer
from tests.support import stage as stage_peer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from tests.support.peers import Running

# No deadline in either: how fast an example runs says nothing about the code on a machine that others use too.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what would reach the OpenTelemetry SDK, the stage or gRPC from the machine the tests run on."""
    for name in os.environ:
        if name.startswith(("OTEL_", "ENRICHER_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def nothing_left_running(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a task or a process behind; set up early, so it looks after the other fixtures ended."""
    if inspect.iscoroutinefunction(request.function):
        request.getfixturevalue("_no_task_left")
    before = _children()
    yield
    left = {pid: command for pid, command in _children().items() if pid not in before}
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left, f"processes left running: {left}"


@pytest.fixture
async def _no_task_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        # What is only on its way out may finish; what waits for something else will not.
        _, left = await asyncio.wait(left, timeout=1)
    assert not left, f"tasks left running: {left}"


def _children() -> dict[int, str]:
    """Return the command lines of this process's living children by pid; none where there is no /proc."""
    found = {}
    for listing in Path("/proc/self/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            for pid in listing.read_text(encoding="ascii").split():
                # Empty for one that has ended and is not yet waited for.
                if command := Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"):
                    found[int(pid)] = command
    return {pid: command for pid, command in found.items() if "multiprocessing.resource_tracker" not in command}


@pytest.fixture(scope="session")
def otelcol() -> Path:
    """Return the Collector's binary. Of the session, so it is built before the proxy settings are taken away."""
    return collector_peer.build()


@pytest.fixture
async def collector(
    otelcol: Path, tmp_path: Path
) -> AsyncIterator[Callable[[Mapping[str, Any]], Awaitable[collector_peer.Collector]]]:
    """Start Collectors with `await collector(config)`; they end with the test."""
    running: list[Running] = []

    async def start(config: Mapping[str, Any]) -> collector_peer.Collector:
        peer = await collector_peer.start(otelcol, config, tmp_path / f"collector-{len(running) + 1}")
        running.append(peer)
        return peer

    yield start
    await _stop(running)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Callable[[Mapping[str, Any]], Awaitable[stage_peer.Stage]]]:
    """Start stages with `await stage(config)`; they end with the test."""
    running: list[Running] = []

    async def start(config: Mapping[str, Any]) -> stage_peer.Stage:
        peer = await stage_peer.start(config, tmp_path / f"stage-{len(running) + 1}")
        running.append(peer)
        return peer

    yield start
    await _stop(running)


async def _stop(running: list[Running]) -> None:
    for peer in reversed(running):
        if peer.exit_code is None:
            await peer.stop()
    for peer in running:
        print(peer.log())
