"""The Collector's own generator of telemetry, `telemetrygen`: built once a machine from Go modules."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, BinaryIO

from tests.support import cache
from tests.support.collector import VERSION
from tests.support.programs import run_to_end

if TYPE_CHECKING:
    from pathlib import Path

MODULE = "github.com/open-telemetry/opentelemetry-collector-contrib/cmd/telemetrygen"
GO_MOD = f"module enricher.test/telemetrygen\n\ngo 1.26\n\nrequire {MODULE} v{VERSION}\n"

SECONDS = 30.0


def build() -> Path:
    """Return the binary, built first where this machine has none; skips or fails the test where that cannot be done."""
    return cache.built(cache.folder("telemetrygen", GO_MOD.encode()) / "telemetrygen", _build, "telemetrygen")


def _build(directory: Path, log: BinaryIO) -> Path:
    go = cache.tool("go", "builds telemetrygen")
    (directory / "go.mod").write_text(GO_MOD, encoding="ascii")
    # Of its own module, because `go install` takes none that replaces others.
    cache.run([go, "build", "-mod=mod", "-o", "made", MODULE], directory, log, TMPDIR=str(directory))
    return directory / "made"


async def send(binary: Path, endpoint: str, signal: str, *arguments: str) -> None:
    """Let it send one signal to `HOST:PORT` as fast as it can; `RuntimeError` with its output if it fails."""
    where = ("--otlp-insecure", "--otlp-endpoint", endpoint, "--rate", "0")
    await run_to_end("telemetrygen", [binary, signal, *where, *arguments], SECONDS)


if __name__ == "__main__":
    sys.stdout.write(f"{build()}\n")
