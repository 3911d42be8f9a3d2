"""
Known defects: what instrumentations are known to write wrong, of which versions, and how evidence confirms it.

A table, read by whoever describes a span (is it of such a version, and are its counts doubtful then?) and by whoever
writes it (does the run's own answer confirm it?). Reported always; put right only under `on_conflict: repair`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from enricher.rules import OPENLLMETRY

if TYPE_CHECKING:
    from collections.abc import Callable

    Pair = tuple[int, int]
    """Prompt and completion tokens."""

SWAPPED_USAGE: Final = "swapped_usage"
ZERO_STREAM_USAGE: Final = "zero_stream_usage"
PARTIAL_STREAM_USAGE: Final = "partial_stream_usage"
OVERRIDDEN_MODEL: Final = "overridden_model"
DISAGREEING_USAGE: Final = "disagreeing_usage"
REPEATED_USAGE: Final = "repeated_usage"
FRAMEWORK_AS_PROVIDER: Final = "framework_as_provider"

WORDS: Final = {
    SWAPPED_USAGE: "this version writes completion tokens as input and prompt tokens as output",
    ZERO_STREAM_USAGE: "this instrumentation writes 0/0 on streams whose steps report no usage",
    PARTIAL_STREAM_USAGE: "this instrumentation writes what the first steps took on streams that were left early",
    OVERRIDDEN_MODEL: "this instrumentation writes the assistant's model where the run was started with another",
    DISAGREEING_USAGE: "two keys of the span state different counts for the same fact",
    REPEATED_USAGE: "the instrumentation wrote the run's counts on another span too; only one of them owns them",
    FRAMEWORK_AS_PROVIDER: "the provider named is the framework that called the API, not who served it",
}

DOUBTFUL: Final = frozenset({SWAPPED_USAGE, ZERO_STREAM_USAGE, DISAGREEING_USAGE})
"""Defects that make the span's own counts doubtful before any evidence is seen."""


@dataclass(frozen=True, slots=True)
class CountsDefect:
    """Counts that versions of OpenLLMetry, from `since` to before `until`, write wrong on spans of one name."""

    name: str
    span_name: str
    since: tuple[int, ...]
    until: tuple[int, ...]
    suspected: Callable[[Pair], bool]
    """Whether a span's own pair can be of the defect."""
    confirmed: Callable[[Pair, Pair], bool]
    """Whether the span's pair and the run's show it."""


COUNTS_DEFECTS: Final = (
    CountsDefect(
        SWAPPED_USAGE,
        "openai.assistant.run",
        (0, 48),
        (0, 55),
        suspected=lambda _: True,
        confirmed=lambda own, run: own == run[::-1] != run,
    ),
    CountsDefect(
        ZERO_STREAM_USAGE,
        "openai.assistant.run_stream",
        (0, 34),
        (99,),
        suspected=lambda own: own == (0, 0),
        confirmed=lambda own, run: own == (0, 0) != run,
    ),
    CountsDefect(
        PARTIAL_STREAM_USAGE,
        "openai.assistant.run_stream",
        (0, 34),
        (99,),
        suspected=lambda _: False,
        confirmed=lambda own, run: any(own) and own != run and own[0] <= run[0] and own[1] <= run[1],
    ),
)


def suspected(scope: tuple[str, str], span_name: str, own: Pair) -> tuple[str, ...]:
    """Name the defects that the counts of a span of this scope (name and version) may have."""
    return tuple([each.name for each in _of(*scope, span_name) if each.suspected(own)])


def confirmed(scope: tuple[str, str], span_name: str, own: Pair, run: Pair) -> tuple[str, ...]:
    """Name the defects that the run's counts show."""
    return tuple([each.name for each in _of(*scope, span_name) if each.confirmed(own, run)])


def has_other_model(scope_name: str, own: str, run: str) -> bool:
    """Tell whether a span's model is not its run's. A dated snapshot and the name that stands for it are the same."""
    return _is_openllmetry(scope_name) and not own.startswith(run) and not run.startswith(own)


def _is_openllmetry(scope_name: str) -> bool:
    return scope_name.startswith(OPENLLMETRY[:-1])


@lru_cache(maxsize=1024)
def _of(scope_name: str, version: str, span_name: str) -> tuple[CountsDefect, ...]:
    if not _is_openllmetry(scope_name):
        return ()
    at = tuple(int(part) for part in re.findall(r"\d{1,6}", version)[:3])
    return tuple(each for each in COUNTS_DEFECTS if each.span_name == span_name and each.since <= at < each.until)
