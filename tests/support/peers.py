"""What every peer process of the tests shares: a port, waiting until it answers, ending it by its id, and its log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import grpc
import grpc.aio
import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EXPORT = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
"""The gRPC method of each OTLP signal."""

ANSWER_SECONDS = 30.0
STOP_SECONDS = 15.0

# Below the range from which outgoing connections take their ports, so none of them can take it in between.
_PORTS = range(20_000, 32_000)
_IMPATIENT = (
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.use_local_subchannel_pool", 1),
)
_given: set[int] = set()


def missing(reason: str) -> NoReturn:
    """Skip the test because a tool is not on this machine; under `CI` fail it, so nothing is left out unseen."""
    if os.environ.get("CI"):
        pytest.fail(f"missing in CI: {reason}", pytrace=False)
    pytest.skip(reason)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on and that was not returned before."""
    for port in random.sample(_PORTS, len(_PORTS)):
        if port in _given:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            _given.add(port)
            return port
    raise RuntimeError(f"no free port from {_PORTS.start} to {_PORTS.stop}")


def free_endpoint() -> str:
    """Return `127.0.0.1:PORT` with a free port."""
    return f"127.0.0.1:{free_port()}"


def channel(endpoint: str) -> grpc.aio.Channel:
    """Return a plaintext channel of its own connection that tries again at once."""
    return grpc.aio.insecure_channel(endpoint, options=_IMPATIENT)


async def export(endpoint: str, request: bytes, *, of: str = "traces") -> bytes:
    """Send one serialised request as it is and return the answer's bytes; raises `grpc.aio.AioRpcError`."""
    async with channel(endpoint) as to:
        answer: bytes = await to.unary_unary(EXPORT[of])(request, timeout=ANSWER_SECONDS, wait_for_ready=True)
        return answer


class Running:
    """One peer process. Its output goes to files, so that a chatty peer never blocks on a pipe."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, stdout: Path, stderr: Path) -> None:
        self.name = name
        self.pid = process.pid
        self._process = process
        self._stdout = stdout
        self._stderr = stderr

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._stdout.read_text(encoding="utf-8", errors="replace")

    @property
    def stderr(self) -> str:
        """What it has logged so far."""
        return self._stderr.read_text(encoding="utf-8", errors="replace")

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for the signal that ended it, or None while it runs."""
        return self._process.returncode

    @property
    def rss_bytes(self) -> int:
        """Memory that is resident now; Linux only."""
        return rss_bytes(self.pid)

    def terminate(self) -> None:
        """Send SIGTERM and return at once."""
        self._signal(signal.SIGTERM)

    def hang_up(self) -> None:
        """Send SIGHUP and return at once."""
        self._signal(signal.SIGHUP)

    def kill(self) -> None:
        """Send SIGKILL and return at once."""
        self._signal(signal.SIGKILL)

    async def wait(self) -> int:
        """Return the exit code once it has ended; raises `TimeoutError` with the log."""
        try:
            return await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
        except TimeoutError:
            raise TimeoutError(f"{self.name} still runs after {STOP_SECONDS:g} s\n{self.log()}") from None

    async def until_logged(self, text: str) -> None:
        """Return once it has printed or logged `text`; raises `TimeoutError` with the log."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                while text not in self.log():  # noqa: ASYNC110 - a file tells nobody that it grew
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise TimeoutError(f"{self.name} did not log {text!r} within {ANSWER_SECONDS:g} s\n{self.log()}") from None

    async def stop(self) -> int:
        """End it gently, then by force, and return the exit code."""
        self.terminate()
        try:
            return await self.wait()
        except TimeoutError:
            self.kill()
            await self.wait()
            raise

    def log(self) -> str:
        """Return both outputs under a heading; printed at the end of a test, pytest shows it for failed ones only."""
        return f"--- {self.name} (pid {self.pid}, exit code {self.exit_code})\n{self.stdout}{self.stderr}"

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


Peer = TypeVar("Peer", bound=Running)


async def start(kind: type[Peer], command: Sequence[str | Path], directory: Path, endpoint: str) -> Peer:
    """
    Start a peer and return once its gRPC port `endpoint` answers an empty export.

    `directory` is its working directory and the home of its logs. A peer that ends or never answers is not left
    behind; `RuntimeError` then holds its log.
    """
    stdout, stderr = directory / "stdout.log", directory / "stderr.log"
    with stdout.open("ab") as out, stderr.open("ab") as err:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=directory, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=err
        )
    peer = kind(directory.name, process, stdout, stderr)
    try:
        await _until_ready(peer, process, endpoint)
    except BaseException:
        peer.kill()
        await peer.wait()
        raise
    return peer


async def _until_ready(peer: Running, process: asyncio.subprocess.Process, endpoint: str) -> None:
    answer, ended = asyncio.ensure_future(export(endpoint, b"")), asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait({answer, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise RuntimeError(f"{peer.name} ended with {peer.exit_code} before it was ready\n{peer.log()}")
        error = answer.exception()
        # A peer that hands on downstream's refusal is up all the same. Where nobody listens this ends otherwise: in
        # DEADLINE_EXCEEDED, because the call waits for a connection.
        refusals = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED)
        is_refusal = isinstance(error, grpc.aio.AioRpcError) and error.code() in refusals
        if error and not is_refusal:
            raise RuntimeError(f"{peer.name} does not answer on {endpoint}: {error}\n{peer.log()}")
    finally:
        answer.cancel()
        ended.cancel()
        await asyncio.gather(answer, ended, return_exceptions=True)


def rss_bytes(pid: int) -> int:
    """Return how much memory of a process is resident now; Linux only."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def written(config: Mapping[str, Any], directory: Path) -> Path:
    """Make the directory of a peer, write its configuration there as JSON, which is YAML too, and return the file."""
    directory.mkdir(parents=True)
    file = directory / "config.yaml"
    file.write_text(json.dumps(config, indent=2), encoding="utf-8")
    return file
