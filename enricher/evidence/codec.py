"""
Evidence, and whose a run's usage is, as bytes, so that a restart knows what was seen.

The format is this package's own and has a version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from enricher.evidence.collect import Evidence, Place
from enricher.evidence.objects import Message, Run, Usage
from enricher.evidence.payload import Said

if TYPE_CHECKING:
    StartKey = tuple[str, str, str, int]

VERSION: Final = 1

OWNER: Final = "owner"


def pack(evidence: Evidence) -> bytes:
    """Return what `unpack` reads."""
    place, said = evidence.place, evidence.said
    return orjson.dumps(
        [
            VERSION,
            [place.where, place.service, place.trace_id.hex(), place.span_id.hex(), place.start, place.end],
            [(*run[:-1], _values(run.usage)) for run in said.runs],
            [(*message[:-1], [text.hex() for text in message.texts]) for message in said.messages],
            [_values(usage) for usage in said.bare],
            sorted(said.mentioned),
            said.unreadable,
            evidence.urls,
            evidence.azure,
        ],
    )


def unpack(data: bytes) -> Evidence | None:
    """Return the evidence; None for bytes of another version, or that were never evidence."""
    try:
        version, place, runs, messages, bare, mentioned, unreadable, urls, azure = orjson.loads(data)
        if version != VERSION:
            return None
        where, service, trace_id, span_id, start, end = place
        said = Said(
            [Run._make((*run[:-1], _usage(run[-1]))) for run in runs],
            [Message._make((*each[:-1], tuple(bytes.fromhex(text) for text in each[-1]))) for each in messages],
            [Usage(*usage) for usage in bare],
            set(mentioned),
            bool(unreadable),
        )
        at = Place(where, service, bytes.fromhex(trace_id), bytes.fromhex(span_id), start, end)
        return Evidence(at, said, tuple((thread, run) for thread, run in urls), azure)
    except (ValueError, TypeError, IndexError):
        return None


def pack_owner(run_id: str, owner: StartKey) -> bytes:
    """Return what `unpack_owner` reads: on which span the usage of a run left."""
    return orjson.dumps([OWNER, VERSION, run_id, owner])


def unpack_owner(data: bytes) -> tuple[str, StartKey] | None:
    """Return run and owner; None for bytes that say something else."""
    try:
        kind, version, run_id, (one, two, three, start) = orjson.loads(data)
    except (ValueError, TypeError):
        return None
    return (run_id, (one, two, three, start)) if (kind, version) == (OWNER, VERSION) else None


def _usage(values: Any) -> Usage | None:
    return None if values is None else Usage(*values)


def _values(usage: Usage | None) -> tuple[int | None, ...] | None:
    return None if usage is None else tuple(usage)
