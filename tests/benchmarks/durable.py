"""
Measures the way over the disk: `python tests/benchmarks/durable.py`.

Downstream is away, so everything is committed before it is answered: by the stage, and by the real Collector with its
`file_storage` queue and `fsync: true`. Both are given the same requests in turns, round by round.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import generate
import grpc
import grpc.aio
from generate import Kind
from wire import CHANNEL_OPTIONS, METHOD, path

from tests.support import collector, peers, stage

ROUNDS = 5
SECONDS = 2.0
IN_FLIGHT = 32
CONNECTIONS = 4


def stage_config(endpoint: str) -> dict[str, object]:
    """Return a stage in front of nobody."""
    exporter = {"endpoint": endpoint, "tls": {"insecure": True}}
    return {"hold": {"enabled": False}, "exporters": {"otlp": exporter}, "storage": {"max_size_mib": 16_384}}


def collector_config(endpoint: str, directory: Path) -> dict[str, object]:
    """Return a Collector in front of nobody."""
    config = collector.relay(
        endpoint,
        sending_queue={"enabled": True, "storage": "file_storage", "queue_size": 10_000_000, "num_consumers": 4},
        retry_on_failure={"enabled": True, "max_elapsed_time": "0s"},
    )
    config.setdefault("extensions", {})["file_storage"] = {
        "directory": str(directory / "queue"),
        "create_directory": True,
        "fsync": True,
    }
    config["service"].setdefault("extensions", []).append("file_storage")
    return config


async def measure(endpoint: str, requests: list[bytes]) -> float:
    """Return the requests that were acknowledged in a second."""
    source, acknowledged, running = itertools.cycle(requests), 0, True

    async def call(export: grpc.aio.UnaryUnaryMultiCallable) -> None:
        nonlocal acknowledged
        while running:
            await export(next(source), timeout=30)
            acknowledged += 1

    channels = [grpc.aio.insecure_channel(endpoint, options=CHANNEL_OPTIONS) for _ in range(CONNECTIONS)]
    calls = [asyncio.create_task(call(channels[n % CONNECTIONS].unary_unary(path(METHOD)))) for n in range(IN_FLIGHT)]
    began, before = time.perf_counter(), acknowledged
    await asyncio.sleep(SECONDS)
    rate = (acknowledged - before) / (time.perf_counter() - began)
    running = False
    await asyncio.gather(*calls)
    for channel in channels:
        await channel.close()
    return rate


async def main() -> None:
    """Measure both, and print the medians and their ratio."""
    for spans in (20, 512):
        requests = generate.requests(Kind(spans, 0), 4000 // spans)
        with tempfile.TemporaryDirectory(prefix="enricher-benchmark-") as folder:
            nobody, queue = peers.free_endpoint(), Path(folder)
            ours = await stage.start(stage_config(nobody), queue / "stage")
            theirs = await collector.start(collector.build(), collector_config(nobody, queue), queue / "collector")
            rates: dict[str, list[float]] = {"stage": [], "collector": []}
            try:
                for number in range(ROUNDS):
                    turn = [("stage", ours), ("collector", theirs)]
                    for name, peer in reversed(turn) if number % 2 else turn:
                        rates[name].append(await measure(peer.grpc_endpoint, requests))
            finally:
                for peer in (ours, theirs):
                    peer.kill()
                    await peer.wait()
        medians = {name: statistics.median(each) for name, each in rates.items()}
        ratio = statistics.median(a / b for a, b in zip(rates["stage"], rates["collector"], strict=True))
        print(
            f"{spans} spans: stage {medians['stage']:.0f}/s {_range(rates['stage'])}, "
            f"collector {medians['collector']:.0f}/s {_range(rates['collector'])}, stage/collector {ratio:.2f}"
        )


def _range(rates: list[float]) -> str:
    return f"[{min(rates):.0f}-{max(rates):.0f}]"


if __name__ == "__main__":
    asyncio.run(main())
