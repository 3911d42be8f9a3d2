"""
The downstream of every benchmark: takes any trace request, answers it at once and keeps only its size.

`python null.py LISTEN` serves until it is terminated. The method `RECEIVED` answers the number of bytes taken so far,
by which the runner sees that a stage passed everything on, and how much it added.
"""

from __future__ import annotations

import sys

import grpc
import uvloop
from wire import METHOD, RECEIVED, SERVER_OPTIONS, SERVICE

_received = 0


async def _export(request: bytes, _: object) -> bytes:
    global _received  # noqa: PLW0603 - one number in a process of thirty lines
    _received += len(request)
    return b""


async def _answer_received(_request: bytes, _: object) -> bytes:
    return str(_received).encode()


async def serve(listen: str) -> None:
    """Serve on `listen` until the process is terminated."""
    server = grpc.aio.server(options=SERVER_OPTIONS)
    handlers = {
        METHOD: grpc.unary_unary_rpc_method_handler(_export),
        RECEIVED: grpc.unary_unary_rpc_method_handler(_answer_received),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(listen)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
