"""
The real OpenTelemetry Collector: built once a machine from Go modules, then started as often as tests need it.

The binary holds every component that the tests and the benchmarks use. It is kept outside the repository, under a
name that says what is in it, so a changed component list builds a new one and an old checkout still finds its own.
"""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

import yaml

from tests.support import cache, peers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

VERSION = "0.160.0"
BUILDER = f"go.opentelemetry.io/collector/cmd/builder@v{VERSION}"

_CORE = "go.opentelemetry.io/collector"
_CONTRIB = "github.com/open-telemetry/opentelemetry-collector-contrib"
COMPONENTS = {
    "receivers": [f"{_CORE}/receiver/otlpreceiver"],
    "processors": [
        f"{_CORE}/processor/batchprocessor",
        f"{_CONTRIB}/processor/groupbytraceprocessor",
        f"{_CONTRIB}/processor/transformprocessor",
    ],
    "exporters": [
        f"{_CORE}/exporter/debugexporter",
        f"{_CORE}/exporter/nopexporter",
        f"{_CORE}/exporter/otlpexporter",
        f"{_CORE}/exporter/otlphttpexporter",
        f"{_CONTRIB}/exporter/fileexporter",
        f"{_CONTRIB}/exporter/loadbalancingexporter",
    ],
    "extensions": [
        f"{_CONTRIB}/extension/healthcheckextension",
        f"{_CONTRIB}/extension/storage/filestorage",
    ],
}


class Collector(peers.Running):
    """A running Collector and where it listens."""

    config: dict[str, Any]

    @property
    def grpc_endpoint(self) -> str:
        """Where its `otlp` receiver takes gRPC."""
        return str(self.config["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"])

    @property
    def http_endpoint(self) -> str:
        """Where its `otlp` receiver takes HTTP."""
        return str(self.config["receivers"]["otlp"]["protocols"]["http"]["endpoint"])


def relay(endpoint: str, **exporter: Any) -> dict[str, Any]:
    """
    Return the configuration of a plain relay: OTLP over gRPC in, the three signals out to `endpoint` as they came.

    It answers its client with downstream's answer: no queue and no retry unless `exporter`, which holds further
    settings of the `otlp_grpc` exporter, asks for them.
    """
    settings = {
        "endpoint": endpoint,
        "tls": {"insecure": True},
        "compression": "none",
        "sending_queue": {"enabled": False},
        "retry_on_failure": {"enabled": False},
        **exporter,
    }
    pipeline = {"receivers": ["otlp"], "exporters": ["otlp_grpc"]}
    return {
        "receivers": {"otlp": {"protocols": {"grpc": {}}}},
        "exporters": {"otlp_grpc": settings},
        "service": {"pipelines": {"traces": pipeline, "metrics": pipeline, "logs": pipeline}},
    }


async def start(binary: Path, config: Mapping[str, Any], directory: Path) -> Collector:
    """
    Start a Collector and return once its `otlp` receiver answers.

    A protocol of that receiver without an endpoint gets a free port. Its own metrics are off unless `config` says
    otherwise, because their port would be the same for every Collector.
    """
    full = with_defaults(config)
    file = peers.written(full, directory)
    endpoint = full["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
    running = await peers.start(Collector, [binary, "--config", file], directory, endpoint)
    running.config = full
    return running


def with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of `config` with a free endpoint for every protocol without one, and without own metrics."""
    full = copy.deepcopy(dict(config))
    protocols = full["receivers"]["otlp"]["protocols"]
    for name in protocols:
        protocols[name] = {"endpoint": peers.free_endpoint(), **(protocols[name] or {})}
    full["service"].setdefault("telemetry", {}).setdefault("metrics", {"level": "none"})
    return full


def manifest(output: Path | None = None) -> str:
    """Return the builder's configuration; without `output` it says only what the binary holds."""
    modules = {kind: [{"gomod": f"{module} v{VERSION}"} for module in names] for kind, names in COMPONENTS.items()}
    dist = {"module": "enricher.test/otelcol", "name": "otelcol", "version": VERSION}
    if output is not None:
        dist["output_path"] = str(output)
    return yaml.safe_dump({"dist": dist, **modules})


def cached() -> Path:
    """Return where the binary for this component list and machine is or will be."""
    return cache.folder(f"otelcol-{VERSION}", manifest().encode()) / "otelcol"


def build() -> Path:
    """Return the binary, built first where this machine has none; skips or fails the test where that cannot be done."""
    return cache.built(cached(), _build, "the Collector")


def _build(directory: Path, log: BinaryIO) -> Path:
    go = cache.tool("go", "builds the Collector")
    file, output = directory / "manifest.yaml", directory / "out"
    file.write_text(manifest(output), encoding="utf-8")
    # -e: the file exporter's own tests import a module that not every proxy holds, and `go mod tidy` follows the
    # tests of what it tidies. What the binary itself needs still has to be there, or the compiler stops.
    flags = subprocess.run([go, "env", "GOFLAGS"], capture_output=True, text=True, check=True).stdout.strip()
    command = [go, "run", BUILDER, "--config", file]
    cache.run(command, directory, log, GOFLAGS=f"{flags} -e".strip(), TMPDIR=str(directory))
    return output / "otelcol"


if __name__ == "__main__":
    sys.stdout.write(f"{build()}\n")
