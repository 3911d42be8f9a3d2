"""What the stage's HTTP servers share: how they listen, and what they answer to what is not HTTP."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    Refuse = Callable[[web.BaseRequest, str], web.Response]

HANDSHAKE_SECONDS = 10.0


class _Connection(web.RequestHandler):
    """aiohttp's own, but for the answer to what is not HTTP: aiohttp quotes it to the peer, and logs it (A18)."""

    __slots__ = ("_refuse",)

    def __init__(self, server: web.Server, refuse: Refuse, **settings: Any) -> None:
        super().__init__(server, **settings)
        self._refuse = refuse

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Refuse a request that cannot be read. Nothing else comes here, for the servers' handlers raise nothing."""
        del status, exc, message
        response = self._refuse(request, "not a valid HTTP/1.1 request, or its headers are too large")
        response.force_close()
        return response


async def listen(
    server: web.Server, endpoint: str, refuse: Refuse, *, ssl_context: ssl.SSLContext | None = None, **settings: Any
) -> asyncio.Server:
    """
    Listen on `host:port`; raises `OSError` when that cannot be had.

    `localhost` is 127.0.0.1 alone: were both loopback addresses tried, one that is taken would go unnoticed. `refuse`
    makes the answer to what is not HTTP; `settings` are those of aiohttp's connections.
    """
    loop = asyncio.get_running_loop()
    connection = partial(_Connection, server, refuse, loop=loop, access_log=None, **settings)
    host, _, port = endpoint.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.strip("[]")
    tls: dict[str, Any] = {"ssl": ssl_context, "ssl_handshake_timeout": HANDSHAKE_SECONDS} if ssl_context else {}
    if host == "::":
        # The one address that stands for both families; asyncio would leave one out.
        both = socket.create_server((host, int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
        return await loop.create_server(connection, sock=both, **tls)
    return await loop.create_server(connection, host, int(port), **tls)
