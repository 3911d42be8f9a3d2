"""Hostile and broken peers beside an honest client, against a process of the stage: it is served, and memory stays."""

import asyncio
import contextlib
import gzip
import os
import resource

import aiohttp
import grpc
import grpc.aio
import pytest

from enricher.otlp.shallow import Signal
from enricher.otlp.status import SERVICES
from tests.support import peers
from tests.support.build import a_request, a_span
from tests.support.downstream import Downstream
from tests.support.load import Load, arrived
from tests.support.waiting import until

pytestmark = pytest.mark.e2e

METHOD = f"/{SERVICES[Signal.TRACES]}/Export"
MEMORY = 256 << 20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
"""What opens HTTP/2, and an empty frame of settings."""

PING = b"\0\0\x08\x06\0\0\0\0\0" + b"12345678"


def endpoints(stage):
    return [tuple(each["endpoint"].rsplit(":", 1)) for each in stage.config["receivers"]["otlp"]["protocols"].values()]


def one_span(number):
    return a_request([a_span(number=number + 1)])


async def nothing():
    await asyncio.Event().wait()
    yield b""


async def header_only_streams(stage):
    """Open calls whose message never comes, twenty on each of five connections."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(5):
            channel = await stack.enter_async_context(
                grpc.aio.insecure_channel(stage.grpc_endpoint, options=[("grpc.use_local_subchannel_pool", 1)])
            )
            calls = [channel.stream_unary(METHOD)(nothing()) for _ in range(20)]
            stack.callback(lambda calls=calls: [call.cancel() for call in calls])
        await asyncio.Event().wait()


async def rapid_reset(stage):
    """Open calls and cancel them, as fast as that goes."""
    async with grpc.aio.insecure_channel(stage.grpc_endpoint) as channel:
        while True:
            calls = [channel.stream_unary(METHOD)(nothing()) for _ in range(50)]
            await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            await asyncio.sleep(0.01)


async def idle_connections(stage):
    """Connect and say nothing, five hundred times to each receiver."""
    writers = []
    try:
        for host, port in endpoints(stage):
            writers += [(await asyncio.open_connection(host, port))[1] for _ in range(500)]
        await asyncio.Event().wait()
    finally:
        for writer in writers:
            writer.close()


async def flood(stage, beginning, frames, times):
    """Send frames so many times on each connection, or as often as they are taken, one connection after the other."""
    host, port = endpoints(stage)[0]
    while True:
        _, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(beginning)
            for _ in range(times):
                writer.write(frames)
                await writer.drain()
                # The honest client lives in this loop too.
                await asyncio.sleep(0.001)
        except ConnectionError:
            pass
        finally:
            writer.close()
        await asyncio.sleep(0.001)


async def pings(stage):
    """Ping without a pause."""
    await flood(stage, PREFACE, PING * 100, 500)


async def continuations(stage):
    """Begin headers that never end: twenty thousand frames on each connection."""
    frame = (256).to_bytes(3) + b"\x09\0" + (1).to_bytes(4) + bytes(256)
    await flood(stage, PREFACE + b"\0\0\0\x01\0" + (1).to_bytes(4), frame * 100, 200)


async def unread_answers(stage):
    """Ask for what does not exist, over and over, and read none of the answers (HTP-18)."""
    host, port = endpoints(stage)[1]
    writers = []
    try:
        for _ in range(20):
            _, writer = await asyncio.open_connection(host, port, limit=1)
            writer.transport.pause_reading()
            writers.append(writer)
        while True:
            for writer in writers:
                if writer.transport.get_write_buffer_size() < 1 << 20:
                    writer.write(b"GET /nothing HTTP/1.1\r\nHost: stage\r\n\r\n" * 100)
            await asyncio.sleep(0.01)
    finally:
        for writer in writers:
            writer.transport.abort()


async def gzip_bombs(stage):
    """Send 60 MiB of zeros as 60 KiB over HTTP."""
    packed = gzip.compress(bytes(60 << 20))
    host, port = endpoints(stage)[1]
    headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.post(f"http://{host}:{port}/v1/traces", data=packed, headers=headers) as response:
                assert response.status == 400
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(header_only_streams, id="f41 a4"),
        pytest.param(rapid_reset, id="f41 a3"),
        pytest.param(idle_connections, id="f41 a4 idle"),
        pytest.param(pings, id="a5"),
        pytest.param(continuations, id="a5 continuation"),
        pytest.param(unread_answers, id="htp_18 a4 unread"),
        pytest.param(gzip_bombs, id="f40 a1"),
    ],
)
async def test_an_honest_client_beside_a_stranger_loses_nothing(stage, attack):
    async with Downstream() as downstream:
        exporter = {"endpoint": downstream.endpoint, "tls": {"insecure": True}}
        protocols = {"grpc": {"max_recv_msg_size_mib": 16}, "http": {"max_request_body_size_mib": 64}}
        running = await stage({"exporters": {"otlp": exporter}, "receivers": {"otlp": {"protocols": protocols}}})
        load = Load(
            running.grpc_endpoint, lambda number: a_request([a_span(number=number + 1)]), callers=2, per_second=50
        )
        attacking = asyncio.create_task(attack(running))
        async with load.running():
            peak = 0
            for _ in range(20):
                await asyncio.sleep(0.1)
                peak = max(peak, running.rss_bytes)
        assert not attacking.done()
        attacking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await attacking
        await until(lambda: not load.acked - arrived(downstream.taken))

        assert load.refused == {}
        assert load.acked
        assert peak < MEMORY


async def test_f47_without_file_descriptors_it_waits_and_recovers(stage):
    async with Downstream() as downstream:
        running = await stage({"exporters": {"otlp": {"endpoint": downstream.endpoint, "tls": {"insecure": True}}}})
        await peers.export(running.grpc_endpoint, a_request([a_span(number=1)]))
        used = len(os.listdir(f"/proc/{running.pid}/fd"))  # noqa: PTH208 - a count
        limits = resource.prlimit(running.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (used + 8, limits[1]))
        host, port = endpoints(running)[1]
        writers = [(await asyncio.open_connection(host, port))[1] for _ in range(50)]
        await asyncio.sleep(0.5)
        for writer in writers:
            writer.close()
        resource.prlimit(running.pid, resource.RLIMIT_NOFILE, limits)

        async def is_served():
            try:
                await peers.export(running.grpc_endpoint, a_request([a_span(number=2)]))
            except grpc.aio.AioRpcError:
                return False
            return True

        await until(is_served)
        await until(lambda: len(arrived(downstream.taken)) == 2)
        assert await running.stop() == 0
