"""What the suffix of a file name says: for a file to write the format, for a file to read only a hint."""

from __future__ import annotations

from pathlib import PurePath
from typing import Literal

Encoding = Literal["protobuf", "json"]
Compression = Literal["gzip", "zstd"]

STANDARD_STREAM = "-"
"""The name of standard input among the inputs, and of standard output as output."""

ENCODINGS: dict[str, Encoding] = {
    ".binpb": "protobuf",
    ".pb": "protobuf",
    ".jsonl": "json",
    ".json": "json",
    ".ndjson": "json",
}
COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}


def encoding_of(path: str) -> Encoding | None:
    """Return the encoding that a name like `a.jsonl` or `a.jsonl.gz` stands for; None for other names."""
    name = PurePath(path.lower())
    return ENCODINGS.get((name.with_suffix("") if name.suffix in COMPRESSIONS else name).suffix)


def compression_of(path: str) -> Compression | None:
    """Return the compression that a name like `a.jsonl.gz` stands for; None for other names."""
    return COMPRESSIONS.get(PurePath(path.lower()).suffix)
