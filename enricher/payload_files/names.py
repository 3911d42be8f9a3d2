"""Which files a pattern names. It is a look at directories; no file is opened for it."""

from __future__ import annotations

import fnmatch
import os
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from enricher.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC: Final = re.compile(r"[*?\[]")
ANY_DEPTH: Final = "**"
SHOWN: Final = 256
"""Characters of a path that people are shown."""


class Found(NamedTuple):
    """A path that a pattern matches. `direct`: from the pattern's root down to it there is no link, nor a `..`."""

    path: str
    direct: bool


class _Part(NamedTuple):
    text: str
    wild: re.Pattern[str] | None

    def matches(self, name: str) -> bool:
        hidden = name.startswith(".") and not self.text.startswith(".")
        return self.wild is not None and not hidden and self.wild.match(name) is not None


_Place = tuple[str, int, bool]
"""A directory, the number of the pattern's part to be matched in it, and whether the way there is direct."""


class Pattern:
    """
    A glob with `*`, `?`, `[...]` and `**`; hidden names are matched only by what begins with a dot itself.

    `root` is the directory in front of the first wildcard, or of the name where there is none. Wildcards do not go
    through links to directories.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        names = [name for name in text.split("/") if name not in {"", "."}] or ["."]
        literal = next((at for at, name in enumerate(names) if MAGIC.search(name)), len(names) - 1)
        self.root = ("/" if text.startswith("/") else "") + "/".join(names[:literal])
        self._parts = [
            _Part(name, re.compile(fnmatch.translate(name)) if MAGIC.search(name) else None)
            for before, name in zip(["", *names[literal:]], names[literal:], strict=False)
            if not before == name == ANY_DEPTH
        ]

    def find(self) -> Iterator[Found | CaptureError]:
        """
        Yield what matches now, and the error of each directory that cannot be searched.

        What is named without any wildcard is yielded whether or not it is there.
        """
        if len(self._parts) == 1 and self._parts[0].wild is None:
            yield Found(_below(self.root, self._parts[0].text), direct=False)
            return
        stack: list[_Place] = [(self.root, 0, True)]
        seen: set[tuple[str, int]] = set()
        while stack:
            place = stack.pop()
            if place[:2] in seen:
                continue
            seen.add(place[:2])
            try:
                found, deeper = self._step(*place)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, ValueError) as error:
                yield CaptureError(shown(place[0]), None, f"cannot be searched: {why(error)}")
            else:
                yield from found
                stack += reversed(deeper)

    def _step(self, base: str, at: int, direct: bool) -> tuple[list[Found], list[_Place]]:
        """Return what matches in one directory, and where to look on."""
        part, last = self._parts[at], at + 1 == len(self._parts)
        if part.wild is None:
            path = _below(base, part.text)
            if last:
                return [Found(path, direct=False)] if os.path.lexists(path) else [], []
            return [], [(path, at + 1, False)]
        any_depth = part.text == ANY_DEPTH
        found: list[Found] = []
        deeper: list[_Place] = [(base, at + 1, direct)] if any_depth and not last else []
        before = _below(base, "")  # joined once, and not for each of ten thousand names
        with os.scandir(base or ".") as entries:
            for entry in sorted((each for each in entries if part.matches(each.name)), key=lambda each: each.name):
                path = before + entry.name
                if entry.is_dir(follow_symlinks=False) and (any_depth or not last):
                    deeper.append((path, at if any_depth else at + 1, direct))
                elif last:
                    found.append(Found(path, direct and not entry.is_symlink()))
        return found, deeper


def shown(path: str) -> str:
    """Return a path as people may be shown it, whatever characters are in it; of a long one the end."""
    text = path if path.isprintable() else ascii(path)
    return text if len(text) <= SHOWN else f"…{text[1 - SHOWN :]}"


def why(error: OSError | ValueError) -> str:
    """Return the system's reason; a name that the system does not take raises `ValueError`."""
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else "no such name is possible"


def _below(base: str, name: str) -> str:
    return os.path.join(base, name)  # noqa: PTH118 - Path would make "./a" and "a" one, and costs ten times as much
