"""A process of the stage with TLS and tokens: rotation on SIGHUP, and strangers with large requests."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import grpc.aio
import pytest

from tests.support import peers
from tests.support.build import (
    a_request,
    a_run_payload,
    a_span,
    an_http_span,
    as_json,
    openllmetry_span,
    run_id,
    thread_id,
)
from tests.support.certificates import Authority
from tests.support.downstream import Downstream, refuse
from tests.support.load import arrived
from tests.support.peers import EXPORT
from tests.support.stage import Stage, relay, with_defaults
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

pytestmark = pytest.mark.e2e

ALONE = ("grpc.use_local_subchannel_pool", 1)
REQUEST = a_request([a_span()])
CUT_OFF = as_json(a_run_payload(instructions="canary"))[:-9]


def guarded(endpoint: str, **grpc_section: Any) -> dict[str, Any]:
    """Return a relay whose gRPC receiver has these keys."""
    listening = {"endpoint": peers.free_endpoint(), **grpc_section}
    return {**relay(endpoint), "receivers": {"otlp": {"protocols": {"grpc": listening}}}}


async def call(
    stage: Stage, token: str, request: bytes = REQUEST, credentials: grpc.ChannelCredentials | None = None
) -> grpc.StatusCode:
    """Send on a connection of its own and return how it was answered."""
    options = [ALONE, ("grpc.max_send_message_length", -1)]
    channel = (
        grpc.aio.insecure_channel(stage.grpc_endpoint, options=options)
        if credentials is None
        else grpc.aio.secure_channel(stage.grpc_endpoint, credentials, options=options)
    )
    async with channel:
        export = channel.unary_unary(EXPORT["traces"])
        try:
            await export(request, timeout=60, metadata=(("authorization", f"Bearer {token}"),), wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


@asynccontextmanager
async def over_tls(config: Mapping[str, Any], directory: Path) -> AsyncIterator[Stage]:
    """Start a stage that takes no plaintext, by which the fixture would ask whether it is there."""
    full = with_defaults(config, directory)
    file = peers.written(full, directory)
    stdout, stderr = directory / "stdout.log", directory / "stderr.log"
    with stdout.open("ab") as out, stderr.open("ab") as err:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "enricher", "run", "--config", file, cwd=directory, stdout=out, stderr=err
        )
    running = Stage(directory.name, process, stdout, stderr)
    running.config = full
    try:
        yield running
    finally:
        if running.exit_code is None:
            await running.stop()
        print(running.log())


def peak_bytes(pid: int) -> int:
    """Return the most memory that was ever resident."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


async def test_f42_twenty_requests_of_60_mib_with_a_wrong_token_cost_no_memory(stage: Any) -> None:
    """Read before they are refused, they would take 1.2 GiB."""
    async with Downstream() as downstream:
        running = await stage(guarded(downstream.endpoint, auth={"bearer": {"token": "right"}}))
        assert await call(running, "right") is grpc.StatusCode.OK
        before = peak_bytes(running.pid)
        body = bytes(60 << 20)
        codes = await asyncio.gather(*(call(running, "wrong", body) for _ in range(20)))
        grown = peak_bytes(running.pid) - before

        assert set(codes) == {grpc.StatusCode.UNAUTHENTICATED}
        assert await call(running, "right") is grpc.StatusCode.OK
    print(f"grown by {grown >> 10} KiB")
    assert grown < 60 << 20
    assert [call.request for call in downstream.received].count(REQUEST) == 2
    assert "wrong" not in running.log()


async def test_a1_f40_a_bomb_over_grpc_is_not_inflated_beyond_the_limit(stage: Any) -> None:
    async with Downstream() as downstream:
        running = await stage(guarded(downstream.endpoint, max_recv_msg_size_mib=16))
        before = peak_bytes(running.pid)
        options = [ALONE, ("grpc.max_send_message_length", -1)]
        async with grpc.aio.insecure_channel(running.grpc_endpoint, options, grpc.Compression.Gzip) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(EXPORT["traces"])(bytes(200 << 20), timeout=60)
        grown = peak_bytes(running.pid) - before

    print(f"grown by {grown >> 10} KiB")
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert grown < 64 << 20


async def test_a13_no_address_in_telemetry_is_ever_opened(stage: Any) -> None:
    asked = []

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(writer.get_extra_info("peername"))
        writer.close()

    async with Downstream() as downstream, await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/threads/{thread_id()}/runs/{run_id()}"
        exporter = {"endpoint": downstream.endpoint, "tls": {"insecure": True}}
        running = await stage({"exporters": {"otlp": exporter}, "hold": {"wait_duration": "200ms"}})
        where = {"http.url": url, "url.full": url, "server.address": url, "http.response.body": url}
        items = [
            openllmetry_span("0.45.6", number=1, usage=None, more=where),
            an_http_span(a_run_payload(usage=None, instructions=url), url=url, number=2, attributes=where),
        ]
        await peers.export(running.grpc_endpoint, a_request(items))
        await until(lambda: arrived(downstream.taken).total() == 2)
        assert await running.stop() == 0

    assert asked == []


async def test_a11_no_secret_and_no_payload_is_in_a_log_a_page_or_an_answer(stage: Any) -> None:
    """Not even where everything is logged, and everything goes wrong that a client or downstream can make go wrong."""
    refusals = [refuse(grpc.StatusCode.UNAUTHENTICATED, "who?"), refuse(grpc.StatusCode.INVALID_ARGUMENT, "bad")]
    async with Downstream(*refusals) as downstream:
        protocols = {name: {"auth": {"bearer": {"token": "canary-in"}}} for name in ("grpc", "http")}
        config = guarded(downstream.endpoint)
        config["receivers"]["otlp"]["protocols"] = protocols
        config["exporters"]["otlp"] |= {
            "auth": {"bearer": {"token": "canary-out"}},
            "headers": {"x-key": "canary-header"},
        }
        config["telemetry"] = {"logs": {"level": "debug"}}
        running = await stage(config)
        protocols = running.config["receivers"]["otlp"]["protocols"]
        said = a_request([openllmetry_span("0.45.6", usage=None, more={"http.response.body": CUT_OFF})])
        answers = [
            await answer_of(running, token, request)
            for token, request in (("in", said), ("in", said), ("in", b"canary"), ("wrong", said), ("in", said))
        ]
        async with aiohttp.ClientSession() as session:
            url = f"http://{protocols['http']['endpoint']}/v1/traces"
            headers = {"Content-Type": "application/json", "Authorization": "Bearer canary-in"}
            async with session.post(url, data=b'{"canary": canary', headers=headers) as response:
                answers.append(f"{response.status} {await response.text()}")
            for page in ("metrics", "health"):
                where = running.config["telemetry"][page]["endpoint"]
                for path in ("", "metrics", "healthz", "readyz"):
                    async with session.get(f"http://{where}/{path}") as response:
                        answers.append(f"{dict(response.headers)} {await response.text()}")
        assert await running.stop() == 0

    assert [each.split()[0] for each in answers[:6]] == [
        "UNAUTHENTICATED",
        "INVALID_ARGUMENT",
        "INVALID_ARGUMENT",
        "UNAUTHENTICATED",
        "OK",
        "400",
    ]
    assert [each for each in [running.log(), *answers] if "canary" in each.lower()] == []


async def answer_of(stage: Stage, token: str, request: bytes) -> str:
    """Return all that a client gets for a request, in words."""
    async with peers.channel(stage.grpc_endpoint) as channel:
        export = channel.unary_unary(EXPORT["traces"])
        try:
            answer = await export(request, timeout=60, metadata=(("authorization", f"Bearer canary-{token}"),))
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name} {error.details()} {error.trailing_metadata()} {error.debug_error_string()}"
    return f"OK {answer!r}"


async def test_f22_sighup_takes_new_certificates_and_tokens_on_both_sides_and_loses_nothing(tmp_path: Path) -> None:
    authority, renewed = Authority(tmp_path), Authority(tmp_path, "renewed")
    server = authority.issue("server")
    inside, outside = tmp_path / "tokens", tmp_path / "token"
    inside.write_text("old\n")
    outside.write_text("first\n")
    async with Downstream() as downstream:
        config = guarded(
            downstream.endpoint,
            tls={"cert_file": str(server.cert), "key_file": str(server.key)},
            auth={"bearer": {"filename": str(inside)}},
        )
        config["exporters"]["otlp"]["auth"] = {"bearer": {"filename": str(outside)}}
        before = grpc.ssl_channel_credentials(authority.ca.read_bytes())
        after = grpc.ssl_channel_credentials(renewed.ca.read_bytes())
        async with over_tls(config, tmp_path / "stage") as running:
            assert await call(running, "old", credentials=before) is grpc.StatusCode.OK

            server.replace_with(renewed.issue("new"))
            inside.write_text("new\n")
            outside.write_text("second\n")
            running.hang_up()
            await running.until_logged("receivers.otlp.protocols.grpc.auth.bearer.filename")

            assert await call(running, "new", credentials=after) is grpc.StatusCode.OK
            assert await call(running, "old", credentials=after) is grpc.StatusCode.UNAUTHENTICATED
            assert running.exit_code is None
            assert await running.stop() == 0

    sent = [dict(call.metadata)["authorization"] for call in downstream.received]
    assert sent == ["Bearer first", "Bearer second"]
    log = running.log()
    assert "files were read again" in log
    assert [word for word in ("Bearer", "first", "second") if word in log] == []
