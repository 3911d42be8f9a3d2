"""What the rounds showed: medians and ratios, as a table for people and as JSON for comparing runs."""

from __future__ import annotations

import os
import platform
import statistics
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from generate import Kind
    from load import Measured


_STYLE: dict[str, Any] = {"title_justify": "left", "box": SIMPLE_HEAD, "collapse_padding": True, "pad_edge": False}


@dataclass(frozen=True)
class Start:
    """How a process came up: medians over its starts."""

    name: str
    ready_seconds: float
    idle_mib: float


@dataclass(frozen=True)
class Row:
    """All rounds of one process with one kind of request; `relay` holds the relay's rounds, in the same order."""

    kind: Kind
    name: str
    rounds: Sequence[Measured]
    relay: Sequence[Measured]
    peak_mib: float
    added_bytes: int
    """Bytes that arrived downstream beyond those sent, over all rounds."""
    sent_candidates: float

    def request_us(self) -> float:
        """Return the CPU time for one request in microseconds."""
        return statistics.median(_request_us(each) for each in self.rounds)

    def million_spans_seconds(self) -> float:
        """Return the CPU time for a million spans in seconds, which is that for one span in microseconds."""
        return self.request_us() / self.kind.spans

    def ratios(self) -> list[float]:
        """Return what a request costs as a multiple of what it cost the relay, round by round."""
        return [_request_us(each) / _request_us(other) for each, other in zip(self.rounds, self.relay, strict=True)]

    def as_json(self) -> dict[str, Any]:
        """Return the medians and every round."""
        return {
            "spans": self.kind.spans,
            "candidates_percent": self.kind.share,
            "payload": self.kind.payload,
            "name": self.name,
            "ratio": statistics.median(self.ratios()),
            "ratios": self.ratios(),
            "cpu_us_per_request": self.request_us(),
            "cpu_seconds_per_million_spans": self.million_spans_seconds(),
            "peak_mib": self.peak_mib,
            "added_bytes": self.added_bytes,
            "rounds": [asdict(each) for each in self.rounds],
        }


def _request_us(measured: Measured) -> float:
    return measured.cpu_seconds / measured.requests * 1e6


def machine() -> dict[str, Any]:
    """Return what a reader must know of the machine to judge the numbers."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0].partition(":")[2].strip() if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("grpcio", "protobuf", "uvloop")},
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def starts_table(starts: Sequence[Start]) -> Table:
    """Return the table of start-up times and idle memory."""
    table = Table(title="Start", **_STYLE)
    table.add_column("process")
    for heading in ("start to ready, ms", "idle RSS, MiB"):
        table.add_column(heading, justify="right")
    for each in starts:
        table.add_row(each.name, f"{each.ready_seconds * 1000:.0f}", f"{each.idle_mib:.0f}")
    return table


def rows_table(rows: Sequence[Row]) -> Table:
    """Return the main table; the relay's row stands above those that are measured against it."""
    table = Table(title="CPU of the process in the middle", **_STYLE)
    for heading in ("request", "process"):
        table.add_column(heading, no_wrap=True)
    for heading in ("x relay", "quartiles", "s/M spans", "us/req", "req/s", "p50 ms", "p99 ms", "peak MiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("bytes added", justify="right", no_wrap=True)
    for index, row in enumerate(rows):
        first = index == 0 or rows[index - 1].kind != row.kind
        if first and index:
            table.add_section()
        table.add_row(str(row.kind) if first else "", *_cells(row))
    return table


def _cells(row: Row) -> list[str]:
    low, middle, high = _quartiles(row.ratios())
    is_relay = row.rounds is row.relay
    return [
        row.name,
        "" if is_relay else f"[bold]{middle:.2f}[/bold]",
        "" if is_relay else f"{low:.2f}-{high:.2f}",
        f"{row.million_spans_seconds():.2f}",
        f"{row.request_us():.0f}",
        f"{statistics.median(each.requests / each.seconds for each in row.rounds):.0f}",
        f"{statistics.median(each.p50_seconds for each in row.rounds) * 1000:.1f}",
        f"{statistics.median(each.p99_seconds for each in row.rounds) * 1000:.1f}",
        f"{row.peak_mib:.0f}",
        _added(row),
    ]


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def _added(row: Row) -> str:
    """Return the bytes added for each candidate; bytes that a request without one gained or lost are an alarm."""
    if row.sent_candidates:
        return f"{row.added_bytes / row.sent_candidates:.0f}/cand."
    return "0" if row.added_bytes == 0 else f"[bold red]{row.added_bytes:+} in all[/bold red]"
