"""The health service as its clients see it: the stub of gRPC's own package, with and without credentials."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from enricher.otlp.shallow import Signal
from enricher.otlp.status import SERVICES
from enricher.receive import grpc_health
from enricher.receive.grpc_server import GrpcReceiver
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIMIT = 1 << 20
CHECK = "/grpc.health.v1.Health/Check"
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
READY, FULL = "", "the disk is full"


async def accept(_signal: Signal, _request: bytes) -> bytes:
    return b"taken"


class Asked:
    """A receiver that is ready or not as a test says, and a client of its health service."""

    def __init__(self, receiver: GrpcReceiver, channel: grpc.aio.Channel) -> None:
        self.receiver, self.channel = receiver, channel
        self.stub = HealthStub(channel)
        self.reason = READY

    async def check(self, name: str = "") -> int:
        return (await self.stub.Check(HealthCheckRequest(service=name), timeout=30)).status

    def watch(self, name: str = "") -> grpc.aio.UnaryStreamCall:
        return self.stub.Watch(HealthCheckRequest(service=name), timeout=30)


@asynccontextmanager
async def asking(**settings: object) -> AsyncIterator[Asked]:
    receiver = GrpcReceiver(
        "127.0.0.1:0", accept, max_receive_bytes=LIMIT, **{"ready": lambda: asked.reason, **settings}
    )
    await receiver.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{receiver.port}") as channel:
            asked = Asked(receiver, channel)
            yield asked
    finally:
        await receiver.shutdown(0)


async def refused(call) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_health, "LOOK_SECONDS", 0.01)


@pytest.mark.parametrize("name", ["", *SERVICES.values()])
async def test_check_tells_whether_requests_may_come(name):
    async with asking() as asked:
        before = await asked.check(name)
        asked.reason = FULL

        assert (before, await asked.check(name)) == (SERVING, NOT_SERVING)


async def test_check_does_not_know_other_names():
    async with asking() as asked:
        assert await refused(asked.check("another.Service")) is grpc.StatusCode.NOT_FOUND


async def test_watch_tells_each_change_once():
    async with asking() as asked:
        watching = asked.watch()
        seen = [(await watching.read()).status]
        for reason in (FULL, "another reason", READY):
            asked.reason = reason
            if reason != "another reason":
                seen.append((await watching.read()).status)
        watching.cancel()

    assert seen == [SERVING, NOT_SERVING, SERVING]


async def test_watch_tells_of_other_names_that_they_are_unknown():
    async with asking() as asked:
        watching = asked.watch("another.Service")
        status = (await watching.read()).status
        watching.cancel()

    assert status == HealthCheckResponse.SERVICE_UNKNOWN


async def test_grp_10_a_shutdown_is_told_to_watchers_and_does_not_wait_for_them():
    async with asking() as asked:
        watching = asked.watch()
        first = (await watching.read()).status
        async with asyncio.timeout(10):
            await asked.receiver.shutdown(30)

        assert (first, (await watching.read()).status) == (SERVING, NOT_SERVING)
        assert await watching.code() is grpc.StatusCode.UNAVAILABLE


async def test_f42_health_needs_no_credentials_and_nothing_else_goes_without():
    async with asking(authenticate=lambda headers: "authorization" in headers) as asked:
        watching = asked.watch()
        statuses = [await asked.check(), (await watching.read()).status]
        watching.cancel()
        for method in (f"/{SERVICES[Signal.TRACES]}/Export", "/grpc.health.v1.Health/List", f"{CHECK}/Export"):
            assert await refused(asked.channel.unary_unary(method)(b"", timeout=30)) is grpc.StatusCode.UNAUTHENTICATED

    assert statuses == [SERVING, SERVING]


async def test_health_and_reflection_are_not_there_unless_asked_for():
    async with asking(ready=None) as asked:
        assert await refused(asked.check()) is grpc.StatusCode.UNIMPLEMENTED
    async with asking() as asked:
        reflection = asked.channel.unary_unary("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        assert await refused(reflection(b"", timeout=30)) is grpc.StatusCode.UNIMPLEMENTED
        assert await asked.channel.unary_unary(f"/{SERVICES[Signal.LOGS]}/Export")(b"", timeout=30) == b"taken"


@pytest.mark.parametrize("question", [b"\xff", b"\x0a\x05abc", b"\x0a\x01\xff"])
async def test_what_is_no_question_is_refused(question):
    async with asking() as asked:
        call = asked.channel.unary_unary(CHECK)(question, timeout=30)

        assert await refused(call) is grpc.StatusCode.INVALID_ARGUMENT


async def test_f42_a_strangers_question_is_answered_without_being_read():
    """It may be as large as an export. No name is known then, and one with credentials is read."""
    refusals = []

    def authenticate(headers):
        if headers.get("authorization") != "good":
            refusals.append(headers)
            return False
        return True

    async with asking(authenticate=authenticate) as asked:
        check = asked.channel.unary_unary(CHECK)
        unsaid = asked.channel.stream_unary(CHECK)(timeout=30)
        statuses = [await unsaid, await check(bytes(LIMIT + 1), timeout=30), await check(b"\xff", timeout=30)]
        none_tried = list(refusals)
        wrong = await check(b"\xff", timeout=30, metadata=(("authorization", "bad"),))
        known = await refused(check(b"\xff", timeout=30, metadata=(("authorization", "good"),)))

    assert {*statuses, wrong} == {b"\x08\x01"}
    assert (none_tried, len(refusals), known) == ([], 1, grpc.StatusCode.INVALID_ARGUMENT)


async def test_a4_watchers_are_bounded_and_make_room_when_they_leave(monkeypatch):
    monkeypatch.setattr(grpc_health, "MAX_WATCHERS", 1)
    async with asking() as asked:
        first = asked.watch()
        await first.read()
        second = await refused(asked.watch().read())
        first.cancel()
        await until(lambda: asked.receiver._health._watchers == 0)
        third = asked.watch()
        status = (await third.read()).status
        third.cancel()

    assert (second, status) == (grpc.StatusCode.RESOURCE_EXHAUSTED, SERVING)
