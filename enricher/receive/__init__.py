"""Where requests come in. A receiver is built with `consume` and answers with what that returns or raises."""

import os
from collections.abc import Awaitable, Callable

from enricher.otlp.shallow import Signal
from enricher.receive.admission import Room

Consume = Callable[[Signal, bytes], Awaitable[bytes]]
"""
Takes a request's bytes and returns the response's, raising `BadRequestError`, `RetryableError` or `PermanentError`.

A receiver may cancel it at any time (the client left); a request that is then half done is the callee's to finish.
"""

ConsumeInRoom = Callable[[Signal, bytes, Room], Awaitable[bytes]]
"""The same for a request whose bytes are in a room already; it keeps that as long as it needs it."""

# Here, because grpc reads it once, on its first import: it prints a line of its own to standard error for every odd
# header and refused connection, so a peer could fill the disk (A15). The environment still has the last word.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
