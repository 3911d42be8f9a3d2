"""The pages about the stage as scrapers and probes see them, over real connections."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest
from structlog.testing import capture_logs

from enricher.errors import EnricherError
from enricher.telemetry.server import TEXT, TelemetryServer
from tests.support import peers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

CANARY = "canary-in-a-request"


async def some_page() -> bytes:
    return b"enricher_some_total 1\n"


@asynccontextmanager
async def serving(
    metrics: str | None = "localhost:0",
    health: str = "localhost:0",
    *,
    page: Callable[[], Awaitable[bytes]] = some_page,
    alive: Callable[[], str] = str,
    ready: Callable[[], str] = str,
) -> AsyncIterator[TelemetryServer]:
    server = TelemetryServer(metrics_endpoint=metrics, health_endpoint=health, page=page, alive=alive, ready=ready)
    await server.start()
    try:
        yield server
    finally:
        await server.shutdown()


async def ask(server: TelemetryServer, path: str, method: str = "GET", endpoint: str = "") -> tuple[int, str, str]:
    """Return status, content type and body."""
    port = server.ports[endpoint] if endpoint else next(iter(server.ports.values()))
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"http://127.0.0.1:{port}{path}") as answer,
    ):
        assert answer.headers["Server"] == "enricher"
        return answer.status, answer.headers.get("Content-Type", ""), await answer.text()


async def raw(server: TelemetryServer, request: bytes) -> bytes:
    """Return all that is answered to these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", next(iter(server.ports.values())))
    writer.write(request)
    await writer.drain()
    answer = await reader.read()
    writer.close()
    return answer


async def test_the_metrics_page_is_text_for_prometheus():
    async with serving() as server:
        assert await ask(server, "/metrics") == (200, TEXT, "enricher_some_total 1\n")


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz"])
async def test_probes_of_a_stage_that_is_well_get_200(path):
    async with serving() as server:
        status, kind, body = await ask(server, path)

    assert (status, kind, json.loads(body)) == (200, "application/json", {"status": "ok"})


@pytest.mark.parametrize(
    ("path", "reason"), [("/", "it is starting"), ("/readyz", "it is starting"), ("/healthz", "the writer ended")]
)
async def test_f44_probes_of_a_stage_that_is_not_well_get_503_and_the_reason(path, reason):
    async with serving(alive=lambda: "the writer ended", ready=lambda: "it is starting") as server:
        status, _, body = await ask(server, path)

    assert (status, json.loads(body)) == (503, {"status": "unavailable", "reason": reason})


async def test_probes_ask_each_time():
    reason = ""
    async with serving(ready=lambda: reason) as server:
        first, _, _ = await ask(server, "/readyz")
        reason = "shutting down"
        second, _, _ = await ask(server, "/readyz")

    assert (first, second) == (200, 503)


async def test_head_gets_the_status_without_a_body():
    async with serving(ready=lambda: "starting") as server:
        assert (await ask(server, "/metrics", "HEAD"))[::2] == (200, "")
        assert (await ask(server, "/readyz", "HEAD"))[::2] == (503, "")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/metrics", "/healthz"])
async def test_other_methods_are_405(method, path):
    async with serving() as server:
        status, _, body = await ask(server, path, method)

    assert (status, json.loads(body)["reason"]) == (405, "no such method; expected GET or HEAD")


async def test_endpoints_that_differ_have_their_own_pages_alone():
    metrics, health = peers.free_endpoint(), peers.free_endpoint()
    async with serving(metrics, health) as server:
        assert len(server.ports) == 2
        assert (await ask(server, "/metrics", endpoint=metrics))[0] == 200
        assert (await ask(server, "/healthz", endpoint=health))[0] == 200
        assert (await ask(server, "/metrics", endpoint=health))[0] == 404
        for path in ("/", "/healthz", "/readyz"):
            assert (await ask(server, path, endpoint=metrics))[0] == 404


async def test_without_an_endpoint_for_metrics_there_is_no_such_page():
    async with serving(None) as server:
        assert (await ask(server, "/metrics"))[0] == 404
        assert (await ask(server, "/healthz"))[0] == 200


async def test_the_pages_are_on_loopback_where_localhost_is_asked_for():
    async with serving() as server:
        (listening,) = server._listening

        assert [socket.getsockname()[0] for socket in listening.listener.sockets] == ["127.0.0.1"]


async def test_the_wildcard_of_ipv6_listens_for_both_families():
    async with serving("[::]:0", "[::]:0") as server:
        assert (await ask(server, "/healthz"))[0] == 200


@pytest.mark.parametrize("taken", ["metrics", "health"])
async def test_f31_a_port_that_is_taken_is_told_with_its_key_and_nothing_stays_open(taken):
    endpoints = {"metrics": peers.free_endpoint(), "health": peers.free_endpoint()}
    async with serving(None, endpoints[taken]):
        with pytest.raises(
            EnricherError, match=f"cannot listen for HTTP on {endpoints[taken]}.*telemetry.{taken}.endp"
        ):
            async with serving(endpoints["metrics"], endpoints["health"]):
                pass
    async with serving(endpoints["metrics"], endpoints["health"]) as server:
        assert len(server.ports) == 2


async def test_shutdown_is_safe_without_start_and_twice():
    server = TelemetryServer(
        metrics_endpoint="localhost:0", health_endpoint="localhost:0", page=some_page, alive=str, ready=str
    )
    await server.shutdown()
    await server.start()
    await server.shutdown()
    await server.shutdown()


async def test_shutdown_does_not_wait_for_connections_that_are_kept_open():
    async with serving() as server, aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{server.ports['localhost:0']}/healthz") as answer:
            await answer.read()
        await server.shutdown()


def broken_probe() -> str:
    raise ValueError(CANARY)


async def broken_page() -> bytes:
    raise ValueError(CANARY)


async def test_a23_a_page_that_fails_is_503_without_the_exceptions_text_and_one_traceback():
    with capture_logs() as lines:
        async with serving(page=broken_page, alive=broken_probe) as server:
            answers = [await ask(server, path) for path in ("/metrics", "/metrics", "/healthz")]

    assert [status for status, _, _ in answers] == [503] * 3
    assert not any(CANARY in body for _, _, body in answers)
    assert [line["error"] for line in lines] == ["ValueError"] * 3
    assert [line["exc_info"] is not None for line in lines] == [True, False, True]


# Each once crashed or confused some server of this kind.
BAD_REQUESTS = {
    "url that is no url": b"GET http://[::1/metrics HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute url with a bad port": b"GET http://a:99999999/metrics HTTP/1.1\r\nHost: a\r\n\r\n",
    "two slashes": b"GET //%s HTTP/1.1\r\nHost: a\r\n\r\n" % CANARY.encode(),
    "percent signs": b"GET /%%%zz%00%ff HTTP/1.1\r\nHost: a\r\n\r\n",
    "dots": b"GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "connect": b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "bytes above ascii": b"GET /\xff\xfe\xe2\x80\xa8 HTTP/1.1\r\nHost: a\r\n\r\n",
    "no http": b"\x16\x03\x01\x02\x00\x01\x00" + CANARY.encode() + b"\r\n\r\n",
    "unknown method": b"BREW /metrics HTTP/1.1\r\nHost: a\r\n\r\n",
    "http 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "long url": b"GET /" + CANARY.encode() * 1000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "long header": b"GET /metrics HTTP/1.1\r\nHost: a\r\nx: " + CANARY.encode() * 1000 + b"\r\n\r\n",
    "many headers": b"GET /metrics HTTP/1.1\r\nHost: a\r\n" + b"x: y\r\n" * 10_000 + b"\r\n",
    "bad header": b"GET /metrics HTTP/1.1\r\nHost: a\r\n" + CANARY.encode() + b"\r\n\r\n",
    "bad length": b"GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bad chunks": b"GET /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
async def test_a06_a18_bad_requests_get_an_answer_that_quotes_nothing_and_harm_nobody(name):
    with capture_logs() as lines:
        async with serving() as server:
            request = BAD_REQUESTS[name].replace(b"\r\nHost: a", b"\r\nHost: a\r\nConnection: close")
            answer = await asyncio.wait_for(raw(server, request), 30)
            after = await ask(server, "/healthz")

    status = int(answer.split()[1])
    assert 400 <= status < 500
    assert CANARY.encode() not in answer
    assert after[0] == 200
    assert lines == []


async def test_a_body_is_not_waited_for_and_its_connection_ends():
    """A probe that announces gigabytes gets its answer before it has sent one."""
    async with serving() as server:
        request = b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999\r\n\r\nsome of it"
        answer = await asyncio.wait_for(raw(server, request), 30)

    assert answer.startswith(b"HTTP/1.1 200")


async def test_a_port_that_nobody_asked_for_is_left_to_whoever_has_it() -> None:
    async with serving(health="127.0.0.1:0") as other:
        taken = f"127.0.0.1:{other.ports['localhost:0']}"
        server = TelemetryServer(
            metrics_endpoint=taken,
            health_endpoint="127.0.0.1:0",
            page=some_page,
            alive=str,
            ready=str,
            optional={taken},
        )
        with capture_logs() as logs:
            await server.start()
        assert [(each["log_level"], each["endpoint"]) for each in logs] == [("warning", taken)]
        assert (await ask(server, "/healthz"))[0] == 200
        await server.shutdown()
