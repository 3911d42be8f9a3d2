"""What tests build once a machine: a folder each, outside of the repository, named by what is in it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import peers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import BinaryIO


def folder(name: str, contents: bytes) -> Path:
    """Return where that which is made of `contents` on this kind of machine is or will be."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(contents + f"{platform.system()}-{platform.machine()}".encode()).hexdigest()[:12]
    return home / "enricher-peers" / f"{name}-{digest}"


def tool(name: str, purpose: str) -> str:
    """Return the path of a program of this machine; skips or fails the test where there is none."""
    found = shutil.which(name)
    if found is None:
        peers.missing(f"`{name}` is not on PATH; it {purpose} (see docs/development.md)")
    return found


def built(product: Path, build: Callable[[Path, BinaryIO], Path], what: str) -> Path:
    """
    Return `product`, made first where it is not there; skips or fails the test where that cannot be done.

    `build` gets a folder of its own and an open log, and returns what it made there, which is moved to `product`. It
    raises `CalledProcessError` if that cannot be made.
    """
    if product.exists():
        return product
    home = product.parent
    home.mkdir(parents=True, exist_ok=True)
    log = home / "build.log"
    with (home / "lock").open("w") as lock:
        # Two sessions that start together: the second waits here and finds what the first one made.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if product.exists():
            return product
        try:
            with tempfile.TemporaryDirectory(dir=home) as directory, log.open("wb") as out:
                build(Path(directory), out).rename(product)
        except subprocess.CalledProcessError:
            tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
            peers.missing(f"{what} could not be built; the end of {log}:\n{tail}")
    return product


def run(command: Sequence[str | Path], directory: Path, log: BinaryIO, **environment: str) -> None:
    """Run one command of a build in `directory`; raises `CalledProcessError` if it does not end with 0."""
    subprocess.run(
        command,
        env={**os.environ, **environment},
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        check=True,
    )
