"""The processes of the benchmark: started in a directory of their own, asked whether they are ready, read and ended."""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from wire import METHOD, path

if TYPE_CHECKING:
    from collections.abc import Mapping

READY_SECONDS = 20.0
STOP_SECONDS = 15.0

_CONFIG = """\
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "{listen}"}}
      http: {{endpoint: "{http}"}}
hold: {{enabled: false}}
exporters:
  otlp: {{endpoint: "{downstream}", tls: {{insecure: true}}}}
storage: {{directory: "{directory}/store"}}
telemetry: {{metrics: {{endpoint: "{metrics}"}}, health: {{endpoint: "{health}"}}}}
"""


class StartError(Exception):
    """A process did not become ready; the text says what it wrote."""


@dataclass
class Child:
    """A running process that answers Export on `listen`."""

    name: str
    process: subprocess.Popen[bytes]
    listen: str
    output: Path
    ready_seconds: float = 0.0

    def cpu_seconds(self) -> float:
        """Return user and system time so far, of all threads of this process but none of its children."""
        # What clock_getcpuclockid(3) returns for a pid: the numbers of /proc/PID/stat, in ns instead of ticks of 10 ms.
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def memory_mib(self, field: str) -> float:
        """Return `VmRSS` or `VmHWM`."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
        raise LookupError(f"{field} is not in /proc/{self.process.pid}/status")

    def reset_peak(self) -> None:
        """Let `VmHWM` begin again at what is resident now (proc(5), clear_refs)."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def last_output(self) -> str:
        """Return the last lines the process wrote."""
        return "\n".join(self.output.read_text(errors="replace").splitlines()[-20:])

    async def stop(self) -> None:
        """Terminate the process, by force after `STOP_SECONDS`; safe to repeat."""
        self.process.terminate()
        try:
            await asyncio.to_thread(self.process.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


async def start(name: str, command: str, directory: Path, downstream: str) -> Child:
    """
    Start a command and wait until it answers an empty Export.

    `{listen}`, `{downstream}` and `{config}` in the command are filled in. Raises `StartError` with the end of what
    the process wrote.
    """
    began = time.perf_counter()
    child = _spawn(name, command, directory, downstream)
    try:
        await asyncio.wait_for(_until_ready(child), READY_SECONDS)
    except (TimeoutError, StartError) as error:
        await child.stop()
        why = str(error) or f"no answer on {child.listen} within {READY_SECONDS:.0f} s"
        command = shlex.join(map(str, child.process.args))  # type: ignore[arg-type]
        raise StartError(f"{name}: {why}; command: {command}\n{child.last_output()}") from None
    except BaseException:
        await child.stop()
        raise
    child.ready_seconds = time.perf_counter() - began
    return child


def _spawn(name: str, command: str, directory: Path, downstream: str) -> Child:
    directory.mkdir(parents=True)
    listen, http, metrics, health = (f"127.0.0.1:{port}" for port in _free_ports(4))
    values = {"listen": listen, "http": http, "metrics": metrics, "health": health, "downstream": downstream}
    config = directory / "config.yaml"
    config.write_text(_CONFIG.format(directory=directory, **values))
    words = [word.format(config=config, **values) for word in shlex.split(command)]
    with (directory / "output.txt").open("wb") as output:
        # A session of its own: Ctrl-C reaches the runner alone, which ends its children in order.
        try:
            process = subprocess.Popen(
                words, cwd=directory, env=_environment(), stdout=output, stderr=output, start_new_session=True
            )
        except OSError as error:
            raise StartError(f"{name}: {error}; expected a program as the first word of: {command}") from None
    return Child(name, process, listen, directory / "output.txt")


async def _until_ready(child: Child) -> None:
    host, port = child.listen.split(":")
    while True:
        if child.process.poll() is not None:
            raise StartError(f"ended with {child.process.returncode}, expected it to serve")
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            await asyncio.sleep(0.005)
        else:
            writer.close()
            break
    async with grpc.aio.insecure_channel(child.listen) as channel:
        await channel.unary_unary(path(METHOD))(b"", wait_for_ready=True)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _environment() -> Mapping[str, str]:
    """Return the environment in which `enricher` and `python` are those of the interpreter that runs this."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
