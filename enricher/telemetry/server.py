"""
The pages about the stage itself, over HTTP: `/metrics` for Prometheus, `/healthz`, `/readyz` and `/` for probes.

    /metrics          200 and Prometheus' text
    /healthz          200, or 503 and why this process has to be restarted
    /readyz, /        200, or 503 and why nothing should be sent here now
    other paths 404, other methods 405, what is not HTTP 400

Bodies of probes are JSON: {"status": "ok"} or {"status": "unavailable", "reason": "..."}. No body of a request is read,
and nothing of a request is in an answer or a log.
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

import orjson
import structlog
from aiohttp import web

from enricher.errors import EnricherError
from enricher.listening import listen
from enricher.telemetry.logs import FirstOfKind

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Collection, Mapping

    Show = Callable[[], Awaitable[web.Response]]

METRICS_KEY, HEALTH_KEY = "telemetry.metrics.endpoint", "telemetry.health.endpoint"

IDLE_SECONDS = 75.0
"""How long a connection may be silent: longer than the usual minute between two scrapes."""

TEXT = "text/plain; version=0.0.4; charset=utf-8"
"""The content type that Prometheus gave its text."""

_log = structlog.get_logger()


class _Listening(NamedTuple):
    listener: asyncio.Server
    server: web.Server


class TelemetryServer:
    """
    A component: listens from `start` until `shutdown`.

    Endpoints are `host:port`; two that are equal are one listener, and port 0 takes a free one. Those in `optional` may
    be taken by others: their pages are left out then. Without an endpoint for metrics there is no such page. `alive`
    and `ready` return an empty text, or the reason why not, which is shown.
    """

    def __init__(  # noqa: PLR0913 - two endpoints and what they show
        self,
        *,
        metrics_endpoint: str | None,
        health_endpoint: str,
        page: Callable[[], Awaitable[bytes]],
        alive: Callable[[], str],
        ready: Callable[[], str],
        optional: Collection[str] = (),
    ) -> None:
        self._optional = optional
        self.ports: dict[str, int] = {}
        """The port of each endpoint, once started."""
        self._page = page
        self._keys = {health_endpoint: HEALTH_KEY}
        probes: dict[str, Show] = {
            "/": partial(self._probe, ready),
            "/healthz": partial(self._probe, alive),
            "/readyz": partial(self._probe, ready),
        }
        self._pages: dict[str, dict[str, Show]] = {health_endpoint: probes}
        if metrics_endpoint is not None:
            self._keys.setdefault(metrics_endpoint, METRICS_KEY)
            self._pages.setdefault(metrics_endpoint, {})["/metrics"] = self._metrics
        self._listening: list[_Listening] = []
        self._first_of_kind = FirstOfKind()

    async def start(self) -> None:
        """Listen. Raises `EnricherError` when an endpoint cannot be had; nothing listens then."""
        for endpoint, pages in self._pages.items():
            server = web.Server(partial(self._handle, pages))
            try:
                listener = await listen(server, endpoint, _not_http, keepalive_timeout=IDLE_SECONDS, lingering_time=0.0)
            except OSError as error:
                if endpoint in self._optional:
                    key = self._keys[endpoint]
                    _log.warning("pages about the stage are left out", endpoint=endpoint, error=error.strerror, key=key)
                    continue
                await self.shutdown()
                raise EnricherError(
                    f"cannot listen for HTTP on {endpoint}: the port is taken, or the host is no address of this "
                    f"machine; stop what listens there, or set {self._keys[endpoint]} to another"
                ) from None
            self._listening.append(_Listening(listener, server))
            self.ports[endpoint] = listener.sockets[0].getsockname()[1]

    async def shutdown(self, grace: float = 0.0) -> None:
        """Close. Safe without `start`, and twice."""
        listening, self._listening = self._listening, []
        for each in listening:
            each.listener.close()
        for each in listening:
            each.server.pre_shutdown()
            await each.server.shutdown(grace)

    async def _handle(self, pages: Mapping[str, Show], request: web.BaseRequest) -> web.StreamResponse:
        try:
            show = pages.get(request.path)
            if show is None:
                return _answer(HTTPStatus.NOT_FOUND, f"no such page; expected {', '.join(sorted(pages))}")
            if request.method not in ("GET", "HEAD"):
                return _answer(HTTPStatus.METHOD_NOT_ALLOWED, "no such method; expected GET or HEAD", Allow="GET, HEAD")
            return await show()
        except Exception as error:  # noqa: BLE001 - whoever probes gets an answer, and no text of an exception (A23)
            _log.error(
                "a page about the stage could not be made",
                error=type(error).__name__,
                exc_info=error if self._first_of_kind(error) else None,
            )
            return _answer(HTTPStatus.SERVICE_UNAVAILABLE, "internal error; the log has the rest")

    async def _metrics(self) -> web.Response:
        return web.Response(body=await self._page(), headers={"Content-Type": TEXT, "Server": "enricher"})

    async def _probe(self, reason: Callable[[], str]) -> web.Response:
        if found := reason():
            return _answer(HTTPStatus.SERVICE_UNAVAILABLE, found)
        return _answer(HTTPStatus.OK, "")


def _not_http(_request: web.BaseRequest, reason: str) -> web.Response:
    return _answer(HTTPStatus.BAD_REQUEST, reason)


def _answer(status: HTTPStatus, reason: str, **headers: str) -> web.Response:
    said = {"status": "unavailable" if status is HTTPStatus.SERVICE_UNAVAILABLE else "error", "reason": reason}
    body = orjson.dumps(said if reason else {"status": "ok"}) + b"\n"
    # A name of its own in Server, because aiohttp tells its version and Python's.
    return web.Response(
        status=status, body=body, content_type="application/json", headers={"Server": "enricher", **headers}
    )
