"""Certificates made for the test that needs them: an authority, and what it issues, as PEM files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    cert: Path
    key: Path

    def replace_with(self, other: Pair) -> None:
        """Take over the other's files, as whoever renews certificates does: each by a rename."""
        for mine, its in ((self.cert, other.cert), (self.key, other.key)):
            fresh = mine.with_suffix(".new")
            fresh.write_bytes(its.read_bytes())
            fresh.rename(mine)


class Authority:
    """A certificate authority whose own certificate is in `ca`."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._ca = trustme.CA(organization_name=name)
        self._folder = folder
        self.ca = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(str(self.ca))

    def issue(self, name: str, *, host: str = "stage.test", expired: bool = False) -> Pair:
        """Return a certificate for `host` and 127.0.0.1 with the common name `name`, in files of that name."""
        until = datetime.now(UTC) + timedelta(days=-1 if expired else 1)
        leaf = self._ca.issue_cert(
            host, "127.0.0.1", common_name=name, not_before=until - timedelta(days=2), not_after=until
        )
        pair = Pair(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        leaf.private_key_pem.write_to_path(str(pair.key))
        pair.cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        return pair
