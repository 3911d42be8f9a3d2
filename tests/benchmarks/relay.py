"""
The yardstick: the least a stage written with `grpc.aio` can do, one call downstream for each call taken.

`python relay.py LISTEN DOWNSTREAM` serves until it is terminated. It never looks at the bytes, has no deadline, no
limit, no counter and no store, so nothing of the same construction can cost less without merging requests.
"""

from __future__ import annotations

import sys

import grpc
import uvloop
from wire import CHANNEL_OPTIONS, METHOD, SERVER_OPTIONS, SERVICE, path


async def serve(listen: str, downstream: str) -> None:
    """Serve on `listen` until the process is terminated."""
    channel = grpc.aio.insecure_channel(downstream, options=CHANNEL_OPTIONS)
    export = channel.unary_unary(path(METHOD))

    async def relay(request: bytes, _: object) -> bytes:
        answer: bytes = await export(request)
        return answer

    server = grpc.aio.server(options=SERVER_OPTIONS)
    handlers = {METHOD: grpc.unary_unary_rpc_method_handler(relay)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(listen)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(*sys.argv[1:3]))
