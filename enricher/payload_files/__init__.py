"""
Files in which people or tools recorded the API's answers: patterns in, evidence out.

    patterns ─▶ `names` ─▶ new or changed? ─▶ open ─▶ `evidence.files` ─▶ Evidence | CaptureError
                           └──────── `watched` ────────┘

Only what the operator's patterns match is ever opened, never a name that stands in telemetry.
"""

from enricher.payload_files.component import PayloadFiles, read_once

__all__ = ["PayloadFiles", "read_once"]
