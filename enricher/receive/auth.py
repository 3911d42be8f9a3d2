"""
Who may send: the `Authorization` header of a request against the credentials that the operator gave.

Asked for by both receivers before a request's body is read, so that whoever has no credentials cannot fill the memory.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from typing import TYPE_CHECKING

import structlog

from enricher.credentials import secret_lines
from enricher.errors import EnricherError
from enricher.rotation import Rotating

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from enricher.config.access import BasicServerConfig, BearerConfig, ServerAuthConfig

LOOK_SECONDS = 1.0
"""A file of tokens that changed is read by the first request after so long."""

LOG_SECONDS = 60.0
"""At most one line about refused requests in this time: a peer must not be able to fill the disk (A15)."""

_log = structlog.get_logger()


class Authenticator:
    """
    Knows the credentials of one receiver's `auth` section. `where` is its key; `count` is called for each refusal.

    They are kept as digests: of equal length, so that a comparison takes the same time whatever was sent (A10).
    Raises `EnricherError` if there are none that can be used.
    """

    def __init__(
        self,
        config: ServerAuthConfig,
        where: str,
        *,
        count: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.refused = 0
        if config.bearer is not None:
            self._scheme = config.bearer.scheme.encode().lower()
            self.credentials = _bearer(config.bearer, f"{where}.bearer", clock)
        elif config.basic is not None:
            self._scheme = b"basic"
            self.credentials = _basic(config.basic, f"{where}.basic", clock)
        else:
            raise EnricherError(f"{where}: neither bearer nor basic is named")
        self.credentials.get()
        self._where = where
        self._count = count
        self._clock = clock
        self._logged_at = float("-inf")

    def authenticate(self, headers: Mapping[str, str]) -> bool:
        """Tell whether the `authorization` among the headers, names in lower case, is one of the credentials."""
        if self._is_known(headers.get("authorization", "")):
            return True
        self.refused += 1
        if self._count is not None:
            self._count()
        if self._clock() >= self._logged_at + LOG_SECONDS:
            self._logged_at = self._clock()
            _log.warning("requests without valid credentials are refused", key=self._where, refused=self.refused)
        return False

    def _is_known(self, header: str) -> bool:
        # aiohttp leaves bytes that are no UTF-8 as lone surrogates; grpc takes them for Latin-1.
        scheme, _, credential = header.encode(errors="surrogateescape").partition(b" ")
        digest = _digest(credential.strip())
        is_known = False
        for known in self.credentials.get():
            is_known |= hmac.compare_digest(digest, known)
        return is_known and scheme.lower() == self._scheme


def _bearer(config: BearerConfig, where: str, clock: Callable[[], float]) -> Rotating[list[bytes]]:
    key, file, token = f"{where}.filename", config.filename, config.token

    def read() -> list[bytes]:
        tokens = secret_lines(key, file) if file is not None else [token.get_secret_value().encode()] if token else []
        return [_digest(each) for each in tokens]

    return Rotating(key, [file] if file is not None else [], read, every=LOOK_SECONDS, clock=clock)


def _basic(config: BasicServerConfig, where: str, clock: Callable[[], float]) -> Rotating[list[bytes]]:
    key, file, inline = f"{where}.htpasswd", config.htpasswd.file, config.htpasswd.inline

    def read() -> list[bytes]:
        lines = [line.strip() for line in inline.get_secret_value().encode().splitlines()] if inline else []
        lines += secret_lines(f"{key}.file", file) if file is not None else []
        users = [_user(key, number, line) for number, line in enumerate(lines, 1) if line]
        if not users:
            raise EnricherError(f"{key}: there is no user; expected lines of user:password")
        return [_digest(base64.b64encode(user)) for user in users]

    return Rotating(key, [file] if file is not None else [], read, every=LOOK_SECONDS, clock=clock)


def _user(key: str, number: int, line: bytes) -> bytes:
    name, colon, password = line.partition(b":")
    if not name or not colon or not password:
        raise EnricherError(f"{key}: line {number} is not user:password")
    if password.startswith((b"$", b"{")):
        # A hash that is slow to check is a way to keep the stage busy, and one that is quick is no better than text.
        raise EnricherError(f"{key}: line {number} holds a hashed password; expected the password itself")
    return line


def _digest(credential: bytes) -> bytes:
    return hashlib.sha256(credential).digest()
