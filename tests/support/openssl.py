"""Certificates made for one run of the tests."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.support import peers

if TYPE_CHECKING:
    from pathlib import Path


def self_signed(folder: Path, *names: str) -> tuple[Path, Path]:
    """Return the PEM files of a certificate for these names (`DNS:host` or `IP:address`), and of its key."""
    if not (program := shutil.which("openssl")):
        peers.missing("openssl")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subject = ("-subj", "/CN=test", "-addext", f"subjectAltName={','.join(names)}")
    subprocess.run(
        [
            program,
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            *subject,
            "-keyout",
            key,
            "-out",
            cert,
        ],
        check=True,
        capture_output=True,
    )
    return cert, key
