"""How the stage shows who it is: the `Authorization` header of `exporters.otlp.auth`, from files that rotate."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from enricher.credentials import secret_lines
from enricher.errors import EnricherError
from enricher.rotation import Rotating

if TYPE_CHECKING:
    from pathlib import Path

    from enricher.config.access import BasicClientConfig, BearerConfig, ClientAuthConfig
    from enricher.config.values import Secret

LOOK_SECONDS = 1.0
"""A file that changed is read by the first request after so long."""


def authorization(config: ClientAuthConfig, where: str) -> Rotating[str]:
    """Return the header's value. `where` is the section's key; its first `get` raises `EnricherError`."""
    if config.bearer is not None:
        return _bearer(config.bearer, f"{where}.bearer")
    if config.basic is not None:
        return _basic(config.basic, f"{where}.basic")
    raise EnricherError(f"{where}: neither bearer nor basic is named")


def _bearer(config: BearerConfig, where: str) -> Rotating[str]:
    files = [config.filename] if config.filename is not None else []

    def read() -> str:
        return f"{config.scheme} {_secret(config.token, config.filename, f'{where}.filename')}"

    return Rotating(where, files, read, every=LOOK_SECONDS)


def _basic(config: BasicClientConfig, where: str) -> Rotating[str]:
    files = [config.password_file] if config.password_file is not None else []

    def read() -> str:
        password = _secret(config.password, config.password_file, f"{where}.password_file")
        return "Basic " + base64.b64encode(f"{config.username}:{password}".encode()).decode()

    return Rotating(where, files, read, every=LOOK_SECONDS)


def _secret(secret: Secret | None, file: Path | None, where: str) -> str:
    if file is None:
        return secret.get_secret_value() if secret is not None else ""
    # Further lines are for the servers that read the same file: they take the old and the new for a while.
    text = secret_lines(where, file)[0].decode(errors="replace")
    if not (text.isascii() and text.isprintable()):
        raise EnricherError(f"{where}: the first line of {file} is not printable ASCII")
    return text
