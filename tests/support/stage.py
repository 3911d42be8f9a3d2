"""The stage as its users start it: `enricher run --config FILE` in a process of its own, on free ports."""

from __future__ import annotations

import copy
import sys
from typing import TYPE_CHECKING, Any

from tests.support import peers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Stage(peers.Running):
    """A running stage; `config` is what it was started with, ports included, so the same can be started again."""

    config: dict[str, Any]

    @property
    def grpc_endpoint(self) -> str:
        """Where it takes OTLP over gRPC."""
        return str(self.config["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"])


def relay(endpoint: str) -> dict[str, Any]:
    """Return the configuration of a stage without state in front of `endpoint`."""
    exporter = {"endpoint": endpoint, "tls": {"insecure": True}, "sending_queue": {"enabled": False}}
    return {"hold": {"enabled": False}, "exporters": {"otlp": exporter}}


async def start(config: Mapping[str, Any], directory: Path) -> Stage:
    """Start `enricher run` and return once it answers; every endpoint and folder left out is free and its own."""
    full = with_defaults(config, directory)
    file = peers.written(full, directory)
    endpoint = full["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
    command = [sys.executable, "-m", "enricher", "run", "--config", file]
    running = await peers.start(Stage, command, directory, endpoint)
    running.config = full
    return running


def with_defaults(config: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """Return a copy of `config` in which nothing points at a default port or at the current folder."""
    full = copy.deepcopy(dict(config))
    protocols = full.setdefault("receivers", {}).setdefault("otlp", {}).setdefault("protocols", {})
    for name in ("grpc", "http"):
        protocols.setdefault(name, {}).setdefault("endpoint", peers.free_endpoint())
    telemetry = full.setdefault("telemetry", {})
    for page in ("metrics", "health"):
        telemetry.setdefault(page, {}).setdefault("endpoint", peers.free_endpoint())
    full.setdefault("storage", {}).setdefault("directory", str(directory / "data"))
    return full
