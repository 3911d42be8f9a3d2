"""What is made of files that are replaced while the stage runs: certificates, keys, tokens."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

import structlog

from enricher.errors import EnricherError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

T = TypeVar("T")

_log = structlog.get_logger()


class Rotating(Generic[T]):
    """
    The value that `make` returns from `files`, made again when one of them changed.

    There is no task: whoever uses the value calls `get`, which looks at the files itself, at most once in `every`
    seconds (never for None). Files that cannot be used leave the last good value in its place and are logged, so half
    a rotation does no harm and its second half heals it. `what` is the configuration key that names the files.

    Any thread may call: grpc asks for certificates from threads of its own.
    """

    def __init__(
        self,
        what: str,
        files: Sequence[Path],
        make: Callable[[], T],
        *,
        every: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what = what
        self._files = tuple(files)
        self._make = make
        self._every = every if files else None
        self._clock = clock
        self._lock = threading.RLock()
        self._made: list[T] = []
        self._seen: object = None
        self._look_at = 0.0

    def get(self) -> T:
        """Return the value; the first time, raises `EnricherError` if the files cannot be used."""
        with self._lock:
            if not self._made:
                self._seen = self._state()
                self._look_again_later()
                self._made = [self._make()]
            elif self._every is not None and self._clock() >= self._look_at:
                self._look_again_later()
                if self._state() != self._seen:
                    self.reload()
            return self._made[0]

    def reload(self) -> bool:
        """Read the files now, changed or not; tell whether they could be used."""
        if not self._files:
            return True
        with self._lock:
            # Before the files are read: what changes meanwhile is seen at the next look.
            self._seen = self._state()
            try:
                self._made = [self._make()]
            except EnricherError as error:
                _log.error("files cannot be read again; what they held before stays in use", error=str(error))
                return False
            _log.info("files were read again", key=self.what)
            return True

    def _look_again_later(self) -> None:
        self._look_at = self._clock() + (self._every or 0.0)

    def _state(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_state_of(file) for file in self._files)


def _state_of(file: Path) -> tuple[int, int, int] | None:
    try:
        stat = file.stat()  # through links: a mounted secret is changed by turning one
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
