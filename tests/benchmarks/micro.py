"""
Times single steps on one request, without a network: `python tests/benchmarks/micro.py`.

For finding out what a change of one step does; what the stage costs is measured by `run.py`. `--profile` shows where
`pipeline.process` spends its time on one kind of request.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import sys
import timeit
from typing import TYPE_CHECKING

from generate import Kind, requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from enricher import learn, pipeline, scan
from enricher.config.model import Config
from enricher.evidence.index import Index
from enricher.otlp import shallow
from enricher.otlp.haystack import Haystack
from enricher.otlp.shallow import Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KINDS = ("0", "1", "10", "100", "sibling")
REPEATS = 7
REPEAT_SECONDS = 0.05


def steps(request: bytes, settings: scan.Settings) -> Mapping[str, Callable[[], object]]:
    """Return what is timed, in the order of the pipeline; each runs on the same request again and again."""
    parsed = shallow.parse(request)
    sought = Haystack(request, parsed)
    return {
        "otlp.shallow.parse": lambda: shallow.parse(request),
        "  and serialise": lambda: shallow.parse(request).SerializeToString(),
        "scan.find (recognise)": lambda: scan.find(Haystack(request, parsed), settings, []),
        "learn.learn (collect)": lambda: learn.learn(Signal.TRACES, sought, Index(), settings, []),
        "pipeline.process": lambda: pipeline.process(Signal.TRACES, request, settings),
        "for comparison: full parse": lambda: ExportTraceServiceRequest.FromString(request),
    }


def median_us(step: Callable[[], object]) -> float:
    """Return the median time of one call in microseconds."""
    timer = timeit.Timer(step)
    once = max(timer.timeit(3) / 3, 1e-7)
    number = max(1, int(REPEAT_SECONDS / once))
    return statistics.median(timer.repeat(REPEATS, number)) / number * 1e6


def kind_of(name: str, spans: int) -> Kind:
    """Return the kind of request that a column is about."""
    return Kind(spans, 10, "sibling") if name == "sibling" else Kind(spans, int(name))


def table(spans: int, settings: scan.Settings) -> Table:
    """Time every step on every kind of request."""
    columns = {name: steps(requests(kind_of(name, spans), 1)[0], settings) for name in KINDS}
    out = Table(
        title=f"us for a request of {spans} spans, by share of candidates", title_justify="left", box=SIMPLE_HEAD
    )
    out.add_column("step", no_wrap=True)
    for name in KINDS:
        out.add_column("sibling" if name == "sibling" else f"{name} %", justify="right", no_wrap=True)
    for step in columns[KINDS[0]]:
        out.add_row(step, *(f"{median_us(columns[name][step]):.1f}" for name in KINDS))
    return out


def profile(kind: Kind, settings: scan.Settings) -> None:
    """Print the functions in which `pipeline.process` spends most, over the same spans for every size of request."""
    pool = requests(kind, max(1, 20_000 // kind.spans))
    profiler = cProfile.Profile()
    with profiler:
        for request in pool:
            pipeline.process(Signal.TRACES, request, settings)
    print(f"{len(pool)} requests of {kind}")
    pstats.Stats(profiler, stream=sys.stdout).strip_dirs().sort_stats("tottime").print_stats(25)


def main() -> None:
    """Parse the command line and do what it asks."""
    parser = argparse.ArgumentParser(description="Time of single steps on one request.")
    parser.add_argument("--spans", type=int, default=512, help="spans in a request")
    parser.add_argument("--profile", choices=KINDS, help="profile pipeline.process on requests of this kind instead")
    options = parser.parse_args()
    settings = scan.Settings.from_config(Config())
    if options.profile:
        profile(kind_of(options.profile, options.spans), settings)
    else:
        Console().print(table(options.spans, settings))


if __name__ == "__main__":
    main()
