"""
What the recipes for recording payloads run in: real instrumentations, and an API that answers by hand-made objects.

The instrumentations are in an environment of their own, made once a machine beside the Collector's binary, because they
ask for other versions than the stage's own and must not be seen by its tests.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import venv
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from tests.support import build, peers

PACKAGES = (
    "httpx==0.28.1",
    "logfire==5.4.0",
    "openai==2.54.0",
    "openinference-instrumentation-openai==0.1.66",
    "opentelemetry-exporter-otlp-proto-http==1.45.2",
    "opentelemetry-instrumentation-httpx==0.66b2",
    "opentelemetry-instrumentation-openai==0.62.4",
    "opentelemetry-sdk==1.45.2",
    "vcrpy==9.4.2",
)

PRELUDE = """
import logging
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.openai import OpenAIInstrumentor as OpenLLMetry
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

if not {own_provider}:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
logs = LoggerProvider()
logs.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter()))
logging.getLogger("assistants").addHandler(LoggingHandler(logger_provider=logs))
OpenLLMetry().instrument()
"""
"""What an application that is traced already has; `own_provider` leaves the provider to the recipe."""


def python() -> Path:
    """Return the interpreter of the environment, made first where there is none; skips or fails the test else."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "enricher-peers"
    digest = hashlib.sha256(f"{PACKAGES}{sys.version}{platform.machine()}".encode()).hexdigest()[:12]
    directory = home / f"recipes-{digest}"
    done = directory / "done"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        # Two sessions that start together: the second waits here and finds the first one's environment.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            _install(directory)
            done.touch()
    return directory / "venv" / "bin" / "python"


def _install(directory: Path) -> None:
    shutil.rmtree(directory / "venv", ignore_errors=True)
    venv.create(directory / "venv", with_pip=True, symlinks=True)
    ended = subprocess.run(
        [directory / "venv" / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ended.returncode != 0:
        peers.missing(f"the instrumentations could not be installed:\n{ended.stdout[-2000:]}")


class Api:
    """The Assistants API as far as one run needs it, and an OTLP/HTTP sink that keeps every request as a file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._retrieved = 0
        self._kept = 0
        self._lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:  # noqa: N805
                body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
                if handler.path.startswith("/otlp/"):
                    self._keep(handler.path.rsplit("/", 1)[-1], body)
                    self._answer(handler, b"", "application/x-protobuf")
                else:
                    self._answer(handler, json.dumps(self._api(handler.path, is_post=True)).encode())

            def do_GET(handler) -> None:  # noqa: N805
                self._answer(handler, json.dumps(self._api(handler.path, is_post=False)).encode())

            def log_message(handler, *_: Any) -> None:  # noqa: N805
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @staticmethod
    def _answer(handler: BaseHTTPRequestHandler, body: bytes, kind: str = "application/json") -> None:
        handler.send_response(200)
        handler.send_header("content-type", kind)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _keep(self, signal: str, body: bytes) -> None:
        with self._lock:
            self._kept += 1
            (self.directory / f"{self._kept:04d}.{signal}.binpb").write_bytes(body)

    def _api(self, path: str, *, is_post: bool) -> dict[str, Any]:
        path = path.split("?", maxsplit=1)[0]
        if path.endswith("/messages"):
            question = build.a_message_payload(build.QUESTION, number=900, run=None, role="user", created=0)
            return question if is_post else build.a_list([build.a_message_payload(), question])
        if path.endswith("/threads"):
            return {"id": build.thread_id(), "object": "thread", "created_at": build.CREATED, "metadata": {}}
        if is_post:
            return build.a_run_payload("queued", None)
        with self._lock:
            self._retrieved += 1
            if self._retrieved < 3:
                return build.a_run_payload("in_progress", None)
        return build.a_run_payload(usage=build.a_usage(1200, 340, cached=64))
