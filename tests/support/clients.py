"""
The official SDKs of four languages as clients, each a small program of `peers_src/` in a process of its own.

All are set up by the variables that every SDK knows (`OTEL_EXPORTER_OTLP_*`) and send the same for the same arguments.
What they need comes from the registries of their languages, once a machine.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pytest

from tests.support import cache
from tests.support.programs import run_to_end

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCES = Path(__file__).parent / "peers_src"
SECONDS = 30.0

USAGE = {"prompt_tokens": 300, "completion_tokens": 21, "total_tokens": 321}
RUN = {"id": "run_interop%d", "object": "thread.run", "status": "completed", "model": "gpt-4o-mini", "usage": USAGE}
"""What the API answered to every run; each has its number in the place of `%d`."""

Command = list[str | Path]


@dataclass(frozen=True)
class Client:
    """A language's SDK and how its program is made from its sources."""

    name: str
    protocols: tuple[str, ...]
    make: Callable[[Path, BinaryIO], object]
    command: Callable[[Path], Command]

    @property
    def sources(self) -> Path:
        """Where its program stands in the repository."""
        return SOURCES / self.name.lower()

    def build(self) -> Command:
        """Return how to start it, built first where it is not there; skips or fails the test where it cannot be."""
        files = sorted(file for file in self.sources.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
        contents = b"\0".join(
            part for file in files for part in (str(file.relative_to(self.sources)).encode(), file.read_bytes())
        )
        home = cache.folder(f"client-{self.name.lower()}", contents)

        def build(directory: Path, log: BinaryIO) -> Path:
            made = directory / "made"
            shutil.copytree(self.sources, made, ignore=shutil.ignore_patterns("__pycache__"))
            self.make(made, log)
            return made

        return self.command(cache.built(home / "made", build, f"the client in {self.name}"))


def _make_python(directory: Path, log: BinaryIO) -> None:
    # The packages in a folder instead of an environment, which could not be moved once made.
    packages = ["--target", directory / "packages", "--requirement", directory / "requirements.txt"]
    cache.run([sys.executable, "-m", "pip", "install", "--no-deps", *packages], directory, log)


def _make_go(directory: Path, log: BinaryIO) -> None:
    cache.run([cache.tool("go", "builds the client in Go"), "build", "-o", "client", "."], directory, log)


def _make_java(directory: Path, log: BinaryIO) -> None:
    cache.tool("java", "runs the client in Java")
    maven = cache.tool("mvn", "builds the client in Java")
    cache.run([maven, "--batch-mode", "compile", "dependency:copy-dependencies"], directory, log)


def _make_javascript(directory: Path, log: BinaryIO) -> None:
    cache.tool("node", "runs the client in JavaScript")
    npm = cache.tool("npm", "installs the client in JavaScript")
    cache.run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], directory, log)


CLIENTS = (
    Client(
        "Python",
        ("grpc", "http/protobuf", "http/json"),
        _make_python,
        lambda made: ["env", f"PYTHONPATH={made / 'packages'}", sys.executable, made / "main.py"],
    ),
    Client("Go", ("grpc", "http/protobuf"), _make_go, lambda made: [made / "client"]),
    Client(
        "Java",
        ("grpc", "http/protobuf"),
        _make_java,
        lambda made: ["java", "-cp", f"{made}/target/classes:{made}/target/dependency/*", "Client"],
    ),
    Client(
        "JavaScript",
        ("grpc", "http/protobuf", "http/json"),
        _make_javascript,
        lambda made: ["node", made / "index.js"],
    ),
)
BY_NAME = {client.name: client for client in CLIENTS}


class Built:
    """
    The clients as they can be started here, by `command`.

    All are built at the same time: most of that is waiting for a registry.
    """

    def __init__(self) -> None:
        with ThreadPoolExecutor(len(CLIENTS)) as pool:
            self._building = {client.name: pool.submit(client.build) for client in CLIENTS}

    def command(self, name: str) -> Command:
        """Return the beginning of its command line; skips or fails the test where it could not be built."""
        return self._building[name].result()


async def send(command: Command, endpoint: str, protocol: str, count: int, *, seed: int = 1, **more: str) -> None:
    """
    Let a client send `count` orders and a tenth as many Assistant runs to `http://HOST:PORT`.

    `more` are settings of its exporter, such as `compression`. `RuntimeError` with its output if it was not told
    success.
    """
    environment = {
        # A bundle of the machine would stand before the authority that the test names.
        **{name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "REQUESTS_", "CURL_"))},
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        # One that is not given is random, and two runs would differ.
        "OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=1,deployment.environment.name=test",
        "OTEL_SERVICE_NAME": "shop",
        # Nothing leaves before its batch is full; every event but two of a span is dropped and counted.
        "OTEL_BSP_SCHEDULE_DELAY": "600000",
        "OTEL_BSP_MAX_QUEUE_SIZE": "20000",
        "OTEL_SPAN_EVENT_COUNT_LIMIT": "2",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "RUN_PAYLOAD": json.dumps(RUN),
        **{f"OTEL_EXPORTER_OTLP_{name.upper()}": value for name, value in more.items()},
    }
    await run_to_end(str(command[-1]), [*command, str(count), str(seed)], SECONDS, environment)


if __name__ == "__main__":
    built = Built()
    for each in CLIENTS:
        try:
            sys.stdout.write(f"{each.name}: {' '.join(map(str, built.command(each.name)))}\n")
        except (pytest.skip.Exception, pytest.fail.Exception) as error:
            sys.stdout.write(f"{each.name}: {error}\n")
