"""Files with credentials, read and tried before anything relies on them; no error repeats what they hold."""

from __future__ import annotations

import ssl
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enricher.certificates import expiry
from enricher.errors import EnricherError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from enricher.rotation import Rotating

MAX_SECRETS_BYTES = 1 << 20

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of one side: their bytes for grpc, and the context that has them loaded, for everything else."""

    context: ssl.SSLContext
    authorities: bytes | None = None
    certificates: bytes | None = None
    key: bytes | None = None
    expires: float | None = None
    """Unix time at which the certificates do; None without any."""


def load_tls(  # noqa: PLR0913 - the three files and what they are called
    context: ssl.SSLContext,
    where: str,
    *,
    cert_file: str | Path | None,
    key_file: str | Path | None,
    ca_file: str | Path | None,
    ca_key: str = "ca_file",
) -> TlsFiles:
    """
    Load the files into the context; raises `EnricherError` that names the key below `where` and the file.

    grpc itself would take any bytes and then fail at every handshake.
    """
    authorities = certificates = key = None
    if ca_file is not None:
        with _naming(f"{where}.{ca_key}", ca_file):
            authorities = Path(ca_file).read_bytes()
            context.load_verify_locations(ca_file)
    if cert_file is not None and key_file is not None:
        with _naming(f"{where}.cert_file", cert_file):
            certificates = Path(cert_file).read_bytes()
        with _naming(f"{where}.key_file", key_file):
            key = Path(key_file).read_bytes()
        with _naming(f"{where}.cert_file", f"{cert_file} with key_file {key_file}"):
            context.load_cert_chain(cert_file, key_file, password=_no_password)
    elif cert_file is not None or key_file is not None:
        raise EnricherError(f"{where}: cert_file and key_file belong together; expected both or neither")
    expires = expiry(certificates) if certificates is not None else None
    return TlsFiles(context, authorities, certificates, key, expires)


def secret_lines(where: str, file: Path) -> list[bytes]:
    """
    Return the lines of a file of secrets without white space around them, empty ones left out.

    Raises `EnricherError` where there is none, so that an emptied file never means that no secret is asked for.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_SECRETS_BYTES + 1)
    except OSError as error:
        raise EnricherError(f"{where}: {file} cannot be read: {error.strerror}") from None
    if len(content) > MAX_SECRETS_BYTES:
        raise EnricherError(f"{where}: {file} is larger than {MAX_SECRETS_BYTES} bytes; expected one secret a line")
    lines = [stripped for line in content.splitlines() if (stripped := line.strip())]
    if not lines:
        raise EnricherError(f"{where}: {file} is empty; expected one secret a line")
    return lines


def _no_password() -> str:
    # Without this OpenSSL asks at the terminal and the start hangs; grpc cannot use an encrypted key anyway.
    raise OSError("the key is encrypted")


@contextmanager
def _naming(key: str, file: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise EnricherError(
            f"{key}: {file} cannot be used: {reason}; expected a readable, unencrypted PEM file"
        ) from None


def expiries(rotating: Iterable[Rotating[Any]]) -> dict[str, float]:
    """Return when the certificates that are in use expire, in Unix time, by the key of their section."""
    found: dict[str, float] = {}
    for each in rotating:
        with suppress(EnricherError):  # of a part that has not started
            if isinstance(files := each.get(), TlsFiles) and files.expires is not None:
                found[each.what] = files.expires
    return found
