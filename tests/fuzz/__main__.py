"""
`python -m tests.fuzz TARGET [--seconds N] [FILE...]`: look for inputs that break a promise, or try files again.

Needs atheris (`pip install -e '.[fuzz]'`). What is found is kept in `.fuzz/TARGET/`: the inputs that lead to new code
in `corpus/`, with which the next run begins, and each that fails as a file beside it.
"""

from __future__ import annotations

import argparse
import sys
from hashlib import sha256
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["enricher"]):
    from tests.fuzz import mutate
    from tests.fuzz.seeds import seeds, words
    from tests.fuzz.targets import TARGETS

MAX_BYTES = 1 << 16
"""Size of the largest input: enough for work that grows faster than its input to show in the time of one."""

ONE_SECONDS = 10
"""How long one input may take, uninstrumented some thousand times what an honest one of this size takes."""

MEMORY_MIB = 1024


def main() -> None:
    """Fuzz, or try files; the exit code is 0 where nothing failed."""
    parser = argparse.ArgumentParser(
        "python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60, help="how long to look (default 60)")
    parser.add_argument("file", nargs="*", help="inputs to try once instead")
    chosen = parser.parse_args()
    home = Path(".fuzz", chosen.target)
    corpus, dictionary = home / "corpus", home / "words"
    corpus.mkdir(parents=True, exist_ok=True)
    for each in seeds(chosen.target):
        (corpus / sha256(each).hexdigest()[:16]).write_bytes(each)
    dictionary.write_text("".join(f'"{_escaped(each)}"\n' for each in words(chosen.target)), encoding="ascii")
    settings = [
        f"-artifact_prefix={home}/",
        f"-dict={dictionary}",
        f"-max_len={MAX_BYTES}",
        f"-max_total_time={chosen.seconds}",
        f"-timeout={ONE_SECONDS}",
        f"-rss_limit_mb={MEMORY_MIB}",
        "-print_final_stats=1",
    ]

    def changed(data: bytes, max_size: int, seed: int) -> bytes:
        return mutate.mutated(chosen.target, data, max_size, seed, atheris.Mutate)

    atheris.Setup(
        [sys.argv[0], *settings, *(chosen.file or [str(corpus)])], TARGETS[chosen.target], custom_mutator=changed
    )
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


main()
