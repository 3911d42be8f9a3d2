"""The composition root: what it says of a configuration, and what it does when a part cannot start."""

import asyncio
import gzip
import socket
import time

import aiohttp
import grpc.aio
import pytest

from enricher.config import load
from enricher.deliver.exporters import destination
from enricher.errors import EnricherError, RetryableError
from enricher.otlp import json
from enricher.otlp.shallow import Signal
from enricher.otlp.status import SERVICES
from enricher.receive.admission import NoRoomError
from enricher.receive.receivers import unguarded
from enricher.service import Service
from enricher.storage import StoreError, StoreFullError
from enricher.telemetry.counters import Answer
from tests.support.build import a_request, a_span, items_of, openllmetry_span
from tests.support.certificates import Authority
from tests.support.downstream import Downstream
from tests.support.http_downstream import HttpDownstream
from tests.support.waiting import until


def config(tmp_path, *overrides):
    return load(
        None,
        [
            "receivers.otlp.protocols.grpc.endpoint=127.0.0.1:0",
            f"storage.directory={tmp_path / 'data'}",
            f"exporters.file.path={tmp_path / 'out.jsonl'}",
            "telemetry.metrics.endpoint=127.0.0.1:0",
            "telemetry.health.endpoint=127.0.0.1:0",
            *overrides,
        ],
    )


def test_a6_a_receiver_that_other_machines_reach_is_told_unless_something_guards_it(tmp_path):
    open_to_all = "receivers.otlp.protocols.grpc.endpoint=0.0.0.0:4317"
    token = "receivers.otlp.protocols.grpc.auth.bearer.token=a"

    assert unguarded(config(tmp_path)) == []
    assert unguarded(config(tmp_path, open_to_all)) == ["0.0.0.0:4317"]
    assert unguarded(config(tmp_path, open_to_all, token)) == []
    assert unguarded(config(tmp_path, "receivers.otlp.protocols.http.endpoint=0.0.0.0:4318")) == ["0.0.0.0:4318"]


def test_where_requests_go_is_said_in_words(tmp_path):
    both = config(tmp_path, "exporters.otlp.endpoint=http://localhost:14317")

    assert destination(both) == f"otlp http://localhost:14317 and file {tmp_path / 'out.jsonl'}"


async def test_a_port_that_is_taken_stops_the_parts_that_had_started(tmp_path):
    first = Service(config(tmp_path))
    await first.start()
    taken = f"receivers.otlp.protocols.grpc.endpoint=127.0.0.1:{first.receivers['grpc'].port}"
    second = Service(config(tmp_path / "second", taken))
    with pytest.raises(EnricherError, match="cannot listen"):
        await second.start()
    await first.shutdown(0)

    third = Service(config(tmp_path / "second"))
    await third.start()
    await third.shutdown(0)


async def test_an_http_port_that_is_taken_stops_the_grpc_receiver_again(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"receivers.otlp.protocols.http.endpoint=127.0.0.1:{other.getsockname()[1]}"
        service = Service(config(tmp_path, taken))
        with pytest.raises(EnricherError, match="cannot listen for HTTP"):
            await service.start()

    with socket.create_server(("127.0.0.1", service.receivers["grpc"].port)):
        pass  # free again


async def test_a_request_over_http_goes_where_one_over_grpc_goes(tmp_path):
    service = Service(config(tmp_path, "receivers.otlp.protocols.http.endpoint=127.0.0.1:0"))
    await service.start()
    request = a_request([a_span()])
    url = f"http://{service.receivers['http'].address}/v1/traces"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=request, headers={"Content-Type": "application/x-protobuf"}) as response,
    ):
        assert response.status == 200
    await service.shutdown(0)

    assert json.decode((tmp_path / "out.jsonl").read_bytes(), None) == (Signal.TRACES, request)


async def test_both_networks_get_everything(tmp_path):
    async with Downstream() as grpc, HttpDownstream() as http:
        named = [f"exporters.otlp.endpoint=http://{grpc.endpoint}", f"exporters.otlphttp.endpoint={http.url}/below"]
        both = config(tmp_path, *named)
        service = Service(both)
        await service.start()
        request = a_request([a_span()])
        await service.consume(Signal.TRACES, request)
        await service.shutdown(0)

    assert destination(both).startswith(f"otlp http://{grpc.endpoint} and otlphttp {http.url}/below and file ")
    assert [call.request for call in grpc.received] == [request]
    assert [(call.path, call.body) for call in http.received] == [("/below/v1/traces", request)]


async def test_the_keys_of_the_http_exporter_reach_it(tmp_path):
    async with HttpDownstream() as http:
        keys = ["exporters.otlphttp.compression=gzip", "exporters.otlphttp.headers={x-tenant: a}"]
        service = Service(config(tmp_path, f"exporters.otlphttp.endpoint={http.url}", *keys))
        request = a_request([a_span()])
        await service.start()
        await service.consume(Signal.TRACES, request)
        await service.shutdown(0)
    (call,) = http.received

    assert (call.headers["x-tenant"], gzip.decompress(call.body)) == ("a", request)


async def test_a_tls_file_of_the_http_exporter_that_cannot_be_used_is_named_at_start(tmp_path):
    keys = ["exporters.otlphttp.endpoint=https://localhost:1", "exporters.otlphttp.tls.ca_file=/none.pem"]
    with pytest.raises(EnricherError, match=r"exporters\.otlphttp\.tls\.ca_file: /none\.pem cannot be used"):
        await Service(config(tmp_path, *keys)).start()


async def test_f31_a_directory_that_is_in_use_is_told(tmp_path):
    first = Service(config(tmp_path))
    await first.start()
    with pytest.raises(EnricherError, match="in use by process"):
        await Service(config(tmp_path)).start()
    await first.shutdown(0)


class Exporter:
    """Takes everything, or refuses everything with one error."""

    def __init__(self, error=None):
        self.error, self.sent, self.arrived = error, [], asyncio.Semaphore(0)

    async def start(self):
        pass

    async def export(self, _, request):
        if self.error:
            raise self.error
        self.sent.append(request)
        self.arrived.release()
        return b""

    async def shutdown(self, grace=0.0):
        pass


def a_service(monkeypatch, exporters, *arguments):
    monkeypatch.setattr("enricher.service.exporters_of", lambda *_: exporters)
    return Service(config(*arguments))


MIXED = a_request([openllmetry_span("0.33.12"), a_span(number=2)])


async def test_without_a_queue_a_refused_request_leaves_nothing_held(tmp_path, monkeypatch):
    away = {"otlp": Exporter(RetryableError(14, "away"))}
    no_queue = ("exporters.otlp.endpoint=http://localhost:1", "exporters.otlp.sending_queue.enabled=false")
    service = a_service(monkeypatch, away, tmp_path, *no_queue)
    await service.start()
    with pytest.raises(RetryableError, match="away"):
        await service.consume(Signal.TRACES, MIXED)

    assert (await service._store.counts()).held.rows == 0
    await service.shutdown(0)


async def test_f01_what_downstream_does_not_take_is_kept_and_acknowledged(tmp_path, monkeypatch):
    service = a_service(monkeypatch, {"file": Exporter(RetryableError(14, "away"))}, tmp_path)
    await service.start()

    assert await service.consume(Signal.TRACES, MIXED) == b""
    counts = await service._store.counts()
    assert (counts.held.items, counts.queued.items) == (1, 1)
    await service.shutdown(0)


async def test_cli_12_each_destination_has_its_own_queue(tmp_path, monkeypatch):
    first, second = Exporter(), Exporter(RetryableError(14, "away"))
    service = a_service(monkeypatch, {"otlp": first, "file": second}, tmp_path, "hold.wait_duration=50ms")
    await service.start()
    await service.consume(Signal.TRACES, MIXED)
    async with asyncio.timeout(10):
        for _ in range(2):
            await first.arrived.acquire()

    assert sorted(len(items_of(request)) for request in first.sent) == [1, 1]
    assert (await service._store.queue_stats("file")).items == 2
    await service.shutdown(0)


async def test_f36_a_store_that_takes_nothing_lets_candidates_pass(tmp_path, monkeypatch):
    exporter = Exporter()
    service = a_service(monkeypatch, {"file": exporter}, tmp_path)
    await service.start()

    async def full(_):
        raise StoreFullError("full")

    service._store.hold = full
    await service.consume(Signal.TRACES, MIXED)
    await service.shutdown(0)

    assert sorted(len(items_of(request)) for request in exporter.sent) == [1, 1]


async def test_f24_what_can_be_neither_delivered_nor_kept_is_refused_for_a_second(tmp_path, monkeypatch):
    service = a_service(monkeypatch, {"file": Exporter(RetryableError(14, "away"))}, tmp_path)
    await service.start()

    async def full(*_, **__):
        raise StoreFullError("full")

    service._store.enqueue = full
    with pytest.raises(RetryableError, match="neither delivered nor kept: away") as refused:
        await service.consume(Signal.TRACES, a_request([a_span()]))
    await service.shutdown(0)

    assert refused.value.retry_delay == 1.0


def a_stalled_exporter():
    """Return an exporter, and the event at which it begins to answer."""
    exporter = Exporter()
    export, is_open = exporter.export, asyncio.Event()

    async def stalling(signal, request):
        await is_open.wait()
        return await export(signal, request)

    exporter.export = stalling
    return exporter, is_open


async def test_f45_a_request_whose_client_left_counts_as_in_flight_until_it_has_left_too(tmp_path, monkeypatch):
    exporter, is_open = a_stalled_exporter()
    service = a_service(monkeypatch, {"file": exporter}, tmp_path, "hold.enabled=false")
    await service.start()
    request = a_request([a_span()])
    call = asyncio.create_task(service.consume(Signal.TRACES, request))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    while_it_leaves = service._admission.in_flight
    is_open.set()
    await until(lambda: service._admission.in_flight == 0)
    await service.shutdown(0)

    assert while_it_leaves == len(request)
    assert exporter.sent == [request]


async def test_f44_the_end_of_the_stores_writer_is_told_and_ends_the_stage(tmp_path, monkeypatch):
    service = a_service(monkeypatch, {"file": Exporter()}, tmp_path)
    await service.start()

    def kill(_):
        raise SystemExit

    with pytest.raises(StoreError):
        await service._store._do(kill)
    async with asyncio.timeout(10):
        await service.store_ended()
    assert "restart the process" in service.death
    await service.shutdown(0)


async def test_an_empty_request_is_answered_here(tmp_path):
    service = Service(config(tmp_path))

    assert await service.consume(Signal.TRACES, b"") == b""


async def test_the_health_service_says_what_readyz_says(tmp_path):
    service = Service(config(tmp_path, "receivers.otlp.protocols.grpc.health=true"))
    await service.start()
    async with grpc.aio.insecure_channel(service.receivers["grpc"].address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        answers = [await check(b"", timeout=30)]
        service._not_ready = "shutting down"
        answers.append(await check(b"", timeout=30))
    await service.shutdown(0)

    assert answers == [b"\x08\x01", b"\x08\x02"]


async def test_srv_07_bodies_that_are_read_and_requests_under_way_share_one_budget(tmp_path, monkeypatch):
    exporter, is_open = a_stalled_exporter()
    http = "receivers.otlp.protocols={grpc: {endpoint: '127.0.0.1:0'}, http: {endpoint: '127.0.0.1:0'}}"
    service = a_service(monkeypatch, {"file": exporter}, tmp_path, "hold.enabled=false", http)
    await service.start()
    request = a_request([a_span()])
    service._admission.max_bytes = 2 * len(request)
    url = f"http://{service.receivers['http'].address}/v1/traces"
    async with aiohttp.ClientSession(headers={"Content-Type": "application/x-protobuf"}) as session:
        over_http = asyncio.create_task(session.post(url, data=request))
        over_grpc = asyncio.create_task(service.consume(Signal.TRACES, request))
        await until(lambda: service._admission.in_flight == 2 * len(request))
        async with session.post(url, data=request) as refused:
            status = refused.status
        with pytest.raises(NoRoomError):
            await service.consume(Signal.TRACES, request)
        is_open.set()
        (await over_http).release()
        await over_grpc
    await service.shutdown(0)

    assert (status, exporter.sent, service._admission.in_flight) == (503, [request, request], 0)
    assert service._counters.requests == {(Signal.TRACES, Answer.REFUSED): 2, (Signal.TRACES, Answer.ACCEPTED): 2}


async def test_a14_no_header_of_a_client_leaves_the_stage(tmp_path):
    async with Downstream() as over_grpc, HttpDownstream() as over_http:
        both = [f"exporters.otlp.endpoint=http://{over_grpc.endpoint}", f"exporters.otlphttp.endpoint={over_http.url}"]
        service = Service(config(tmp_path, "receivers.otlp.protocols.http.endpoint=127.0.0.1:0", *both))
        await service.start()
        sent = {"Content-Type": "application/x-protobuf", "Authorization": "Bearer of-the-client", "X-Tenant": "a"}
        url = f"http://{service.receivers['http'].address}/v1/traces"
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, data=a_request([a_span()]), headers=sent) as response,
        ):
            assert response.status == 200
        await service.shutdown(0)
    own = {"host", "user-agent", "accept", "accept-encoding", "content-type", "content-length"}

    assert [{key for key, _ in call.metadata} for call in over_grpc.received] == [{"user-agent"}]
    assert [set(call.headers) for call in over_http.received] == [own]


def test_a14_the_collectors_key_for_headers_of_clients_is_an_error(tmp_path):
    with pytest.raises(EnricherError, match=r"grpc\.include_metadata: unknown key"):
        config(tmp_path, "receivers.otlp.protocols.grpc.include_metadata=true")


async def test_f42_requests_without_credentials_are_counted_by_transport(tmp_path):
    auth = "{endpoint: '127.0.0.1:0', auth: {bearer: {token: good}}}"
    service = Service(config(tmp_path, f"receivers.otlp.protocols={{grpc: {auth}, http: {auth}}}"))
    await service.start()
    async with grpc.aio.insecure_channel(service.receivers["grpc"].address) as channel:
        for method in ("/another.Service/Method", f"/{SERVICES[Signal.LOGS]}/Export"):
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary(method)(b"", timeout=30)
        good = (("authorization", "Bearer good"),)
        await channel.unary_unary(f"/{SERVICES[Signal.LOGS]}/Export")(b"", timeout=30, metadata=good)
    url = f"http://{service.receivers['http'].address}/v1/traces"
    async with aiohttp.ClientSession() as session, session.post(url, data=b"") as refused:
        status = refused.status
    await service.shutdown(0)

    assert (status, service._counters.auth_failures) == (401, {"grpc": 2, "http": 1})


async def test_when_certificates_expire_is_on_the_page_by_their_section(tmp_path):
    authority = Authority(tmp_path)
    server, client = authority.issue("server"), authority.issue("client", expired=True)
    tls = f"{{endpoint: '127.0.0.1:0', tls: {{cert_file: '{server.cert}', key_file: '{server.key}'}}}}"
    mutual = f"{{ca_file: '{authority.ca}', cert_file: '{client.cert}', key_file: '{client.key}'}}"
    keys = [
        f"receivers.otlp.protocols={{grpc: {tls}, http: {tls}}}",
        f"exporters.otlp={{endpoint: 'https://localhost:1', tls: {mutual}}}",
        f"exporters.otlphttp={{endpoint: 'https://localhost:1', tls: {mutual}}}",
    ]
    service = Service(config(tmp_path, *keys))
    await service.start()
    url = f"http://127.0.0.1:{service._pages.server.ports['127.0.0.1:0']}/metrics"

    async def shown() -> dict[str, float]:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            lines = [line for line in (await answer.text()).splitlines() if line.startswith("enricher_tls_")]
        return {line.split('"')[1]: float(line.split()[-1]) for line in lines}

    first = await shown()
    server.replace_with(authority.issue("renewed", expired=True))
    service.reload()
    second = await shown()
    await service.shutdown(0)
    listeners = {"receivers.otlp.protocols.grpc.tls", "receivers.otlp.protocols.http.tls"}
    exporters = {"exporters.otlp.tls", "exporters.otlphttp.tls"}
    now = time.time()

    assert first.keys() == second.keys() == listeners | exporters
    assert {key for key, expires in first.items() if expires > now} == listeners
    assert max(second.values()) < now
